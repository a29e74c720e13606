"""Where capacity comes from, in the order of the time it takes, and which instance is drained.

Read next: `src/sageserve/core/spot.py`.
"""

import pytest

from sageserve.core.actions import Blocked, Source
from sageserve.core.fleet import Fleet, State
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
