"""Where capacity comes from, in the order of the time it takes, and which instance is drained.

Read next: `src/sageserve/core/spot.py`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.core.actions import Blocked, Source
from sageserve.core.fleet import Fleet, State
from sageserve.core.invariants import check_fleet
from sageserve.core.spot import Offer, find_capacity, pick_drain
from tests.core.small import fleet_of, layout_of, scenario


def donate(fleet: Fleet, i: int) -> None:
    fleet.start(i, 0, fleet.room(fleet.pool_of[i]))
    fleet.ready(i, 0)
    fleet.drain(i, 0)
    fleet.donate(i, 0)


def serve(fleet: Fleet, *rows: int) -> None:
    for i in rows:
        fleet.start(i, 0, fleet.room(fleet.pool_of[i]))
        fleet.ready(i, 0)


def small_fleet(gpus: int = 80) -> Fleet:
    """Rows 0-3 and 4-7 are the models in the east, 8-11 and 12-15 those in the west."""
    return fleet_of(layout_of(scenario(gpus=gpus)))


def test_the_order_is_own_spot_then_another_models_spot_then_a_vm() -> None:
    fleet = small_fleet()
    assert find_capacity(fleet, 0) == Offer(Source.VM, 0, tuple(range(8)))
    donate(fleet, 5)
    held = fleet.gpus[5]
    assert find_capacity(fleet, 0) == Offer(Source.GPUS, 0, held, victim=5)
    donate(fleet, 2)
    assert find_capacity(fleet, 0) == Offer(Source.SPOT, 2)


def test_gpus_come_from_the_same_region_and_from_the_pool_with_most_to_spare() -> None:
    settings = scenario(
        models={name: scenario().models["big"].model_dump(mode="json") for name in ("a", "b", "c")},
        gpus=80,
    )
    fleet = fleet_of(layout_of(settings))
    for i in (12, 13, 14):  # model a in the west
        donate(fleet, i)
    donate(fleet, 4)  # model b in the east
    for i in (8, 9):  # model c in the east
        donate(fleet, i)
    offer = find_capacity(fleet, 0)
    assert isinstance(offer, Offer)
    assert offer.victim == 8


def test_a_model_that_is_loaded_in_another_role_comes_back_as_fast_as_its_own() -> None:
    fleet = fleet_of(layout_of(scenario(strategy={"name": "siloed"})))
    interactive, batch = fleet.pools[0], fleet.pools[1]
    assert (interactive.model, interactive.region) == (batch.model, batch.region)
    other = next(pool for pool in fleet.pools if pool.stock == batch.stock and pool.model != batch.model)
    for i in (other.begin, other.begin + 1):
        donate(fleet, i)
    donate(fleet, batch.begin)
    assert find_capacity(fleet, 0) == Offer(Source.SPOT, interactive.begin, fleet.gpus[batch.begin], victim=batch.begin)


def test_no_slot_and_no_stock_are_told_apart() -> None:
    fleet = small_fleet()
    serve(fleet, 0, 1, 2, 3)
    assert find_capacity(fleet, 0) is Blocked.NO_SLOT
    tiny = small_fleet(gpus=16)
    serve(tiny, 0, 1)
    assert find_capacity(tiny, 0) is Blocked.NO_STOCK
    assert find_capacity(tiny, 1) is Blocked.NO_STOCK
    tiny.drain(0, 1)
    assert find_capacity(tiny, 1) is Blocked.NO_STOCK, "GPUs of a draining instance are not free"
    tiny.release(0, 2)
    assert find_capacity(tiny, 1) == Offer(Source.VM, 4, tuple(range(8)))


@pytest.mark.parametrize(("in_flight", "expected"), [((3, 1, 2), 1), ((0, 0, 0), 2), ((5, 0, 0), 2), ((1, 0, 4), 1)])
def test_the_emptiest_instance_is_drained_first(in_flight: tuple[int, int, int], expected: int) -> None:
    fleet = small_fleet()
    serve(fleet, 0, 1, 2)
    fleet.start(3, 0, fleet.room(0))  # starting: cannot be drained, though it is empty
    fleet.in_flight[:3] = in_flight
    assert pick_drain(fleet, 0) == expected


def test_nothing_is_drained_where_nothing_serves() -> None:
    fleet = small_fleet()
    fleet.start(0, 0, fleet.room(0))
    assert fleet.state[0] is State.STARTING
    assert pick_drain(fleet, 0) == -1


# --- models of different size in one stock ---


def mixed(sizes: dict[str, int], *, gpus: int = 80) -> Fleet:
    """One region that serves models which need so many GPUs of the same stock."""
    base = scenario().models["big"].model_dump(mode="json")
    models = {
        name: {**base, "engines": {"h100": {**base["engines"]["h100"], "gpus": size, "tp": size}}} for name, size in sizes.items()
    }
    return fleet_of(layout_of(scenario(gpus=gpus, models=models, fleet={"start": 1, "minimum": 1, "maximum": 4})))


@pytest.mark.parametrize(("wants", "spare"), [(8, 4), (4, 8), (8, 1), (2, 4)])
def test_gpus_of_another_number_are_no_offer(wants: int, spare: int) -> None:
    fleet = mixed({"wants": wants, "spare": spare, "fits": wants})
    for i in range(4, 8):
        donate(fleet, i)
    offer = find_capacity(fleet, 0)
    assert isinstance(offer, Offer)
    assert (offer.source, len(offer.gpus)) == (Source.VM, wants)
    donate(fleet, 8)
    offer = find_capacity(fleet, 0)
    assert offer == Offer(Source.GPUS, 0, fleet.gpus[8], victim=8), "though the other one has four to spare"


STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["grow", "grow", "drain", "donate", "release"])), max_size=60)


@given(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=4, max_size=4), st.integers(32, 60), STEPS)
def test_whatever_is_offered_can_be_taken(sizes: list[int], gpus: int, steps: list[tuple[int, str]]) -> None:
    """Instances of all sizes come and go in one stock: an offer is for GPUs of the right number that nobody else holds."""
    fleet = mixed({f"m{k}": size for k, size in enumerate(sizes)}, gpus=gpus)
    for now, (pool, what) in enumerate(steps):
        here = fleet.pools[pool]
        if what == "grow":
            offer = find_capacity(fleet, pool)
            if isinstance(offer, Blocked):
                assert offer is Blocked.NO_SLOT or not fleet.room(pool)
                continue
            if offer.source is Source.SPOT and offer.victim < 0:
                fleet.reclaim(offer.instance, now)
            else:
                if offer.victim >= 0:
                    fleet.take(offer.victim, now)
                assert len(offer.gpus) == here.gpus
                fleet.start(offer.instance, now, offer.gpus)
            fleet.ready(offer.instance, now)
        elif what == "drain" and (i := pick_drain(fleet, pool)) >= 0:
            fleet.drain(i, now)
        elif (i := next(fleet.rows(pool, State.DRAINING), -1)) >= 0:
            fleet.donate(i, now) if what == "donate" else fleet.release(i, now)
        check_fleet(fleet, now)
