"""The ledger is exact: against a second book-keeping that looks at every microsecond's holdings, and by hand.

Read next: `src/sageserve/core/ledger.py`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.errors import LawBroken
from sageserve.base.units import HOUR
from sageserve.core.fleet import MOVES, Fleet, Signal, State
from sageserve.core.invariants import check_fleet
from sageserve.core.ledger import Ledger, Purchase
from tests.core.small import ENGINE, fleet_of, layout_of, scenario
from tests.core.test_fleet import send


def test_a_life_by_hand() -> None:
    fleet = fleet_of(layout_of(scenario()))
    steps = [
        (Signal.START, 0),
        (Signal.READY, 2),
        (Signal.DRAIN, 5),
        (Signal.DONATE, 6),
        (Signal.RECLAIM, 16),
        (Signal.READY, 17),
        (Signal.DRAIN, 20),
        (Signal.RELEASE, 21),
    ]
    for signal, hour in steps:
        send(fleet, 0, signal, hour * HOUR)
    fleet.settle(100 * HOUR)
    spent = dict(zip(State, (us / HOUR / 8 for us in fleet.ledger.gpu_us[0]), strict=True))
    assert spent == {
        State.OFF: 0,
        State.STARTING: 2,
        State.SERVING: 6,
        State.DRAINING: 2,
        State.SPOT: 10,
        State.RECLAIMING: 1,
    }
    east = fleet.ledger.purchases[0]
    assert (east.held_us, east.on_demand_us, east.donated_us) == (8 * 11 * HOUR, 0, 8 * 10 * HOUR)
    assert (east.reserved_us, east.unused_us) == (16 * 100 * HOUR, (16 * 100 - 8 * 11) * HOUR)  # used or not
    assert (fleet.ledger.starts, fleet.ledger.reclaims, fleet.ledger.failures, fleet.ledger.taken) == (1, 1, 0, 0)


def test_what_exceeds_the_reserved_gpus_is_paid_on_demand() -> None:
    fleet = fleet_of(layout_of(scenario()))
    for i in range(3):
        fleet.start(i, i * HOUR, fleet.room(0))
    fleet.settle(4 * HOUR)
    east = fleet.ledger.purchases[0]
    assert (east.reserved_us, east.on_demand_us) == (16 * 4 * HOUR, 8 * 2 * HOUR)
    assert east.unused_us == 8 * HOUR  # of the second VM, in the first hour
    assert east.level.time == {8: HOUR, 16: HOUR, 24: 2 * HOUR}
    assert fleet.ledger.counts[0].time == {1: HOUR, 2: HOUR, 3: 2 * HOUR}


def test_a_vm_is_bought_whole_and_given_back_with_its_last_instance() -> None:
    engines = {"h100": {**ENGINE, "gpus": 4, "tp": 4}}
    models = {name: {"context": 8_000, "engines": engines} for name in ("big", "small")}
    fleet = fleet_of(layout_of(scenario(models=models)))
    small = next(pool for pool in fleet.pools if pool.name == "east/small/h100")
    for i, pool, hour in ((0, 0, 0), (small.begin, small.number, 1), (1, 0, 2)):
        fleet.start(i, hour * HOUR, fleet.room(pool))
        fleet.ready(i, hour * HOUR)
    east = fleet.ledger.purchases[0]
    assert (east.held, east.bought) == (12, 16)
    fleet.drain(0, 3 * HOUR)
    fleet.donate(0, 3 * HOUR)  # its VM has the other model's instance on it
    assert (east.held, east.bought, east.donated) == (8, 16, 4)
    fleet.drain(small.begin, 4 * HOUR)
    fleet.release(small.begin, 4 * HOUR)
    assert (east.held, east.bought, east.donated) == (4, 8, 4)
    fleet.settle(5 * HOUR)
    assert east.level.time == {8: 3 * HOUR, 16: 2 * HOUR}


def test_nothing_is_counted_after_the_window() -> None:
    fleet = fleet_of(layout_of(scenario()))
    fleet.start(0, 0, fleet.room(0))
    fleet.settle(HOUR)
    fleet.ready(0, 2 * HOUR)
    fleet.drain(0, 3 * HOUR)
    fleet.release(0, 4 * HOUR)
    assert sum(map(sum, fleet.ledger.gpu_us)) == 8 * HOUR
    assert fleet.ledger.purchases[0].held_us == 8 * HOUR
    assert fleet.ledger.purchases[0].reserved_us == 16 * HOUR
    assert fleet.room(0) == tuple(range(8)), "GPUs still come back"


@given(st.lists(st.tuples(st.integers(0, 15), st.sampled_from(Signal), st.integers(0, 50)), max_size=60), st.integers(0, 100))
def test_parts_add_up_to_what_a_clock_saw(steps: list[tuple[int, Signal, int]], rest: int) -> None:
    fleet = fleet_of(layout_of(scenario(gpus=24)))
    now = 0
    seen = [[0] * len(State) for _ in fleet.pools]
    paid, donated = {"reserved": 0, "unused": 0, "on_demand": 0}, 0

    def tick() -> None:
        nonlocal donated
        held = [0] * len(fleet.stocks)
        for i, state in enumerate(fleet.state):
            pool = fleet.pools[fleet.pool_of[i]]
            if state is not State.OFF:
                seen[pool.number][state] += pool.gpus
            if state is State.SPOT:
                donated += pool.gpus
            elif state is not State.OFF:
                held[pool.stock] += pool.gpus
        for amount in held:  # an instance has a VM of its own here
            paid["reserved"] += 16
            paid["unused"] += max(16 - amount, 0)
            paid["on_demand"] += max(amount - 16, 0)

    for i, signal, wait in steps:
        for _ in range(wait):
            tick()
        now += wait
        room = signal is not Signal.START or fleet.room(fleet.pool_of[i])
        if (fleet.state[i], signal) in MOVES and room:
            send(fleet, i, signal, now)
    for _ in range(rest):
        tick()
    check_fleet(fleet, now + rest)
    fleet.settle(now + rest)
    assert fleet.ledger.gpu_us == seen
    assert sum(each.reserved_us for each in fleet.ledger.purchases) == paid["reserved"]
    assert sum(each.unused_us for each in fleet.ledger.purchases) == paid["unused"]
    assert sum(each.on_demand_us for each in fleet.ledger.purchases) == paid["on_demand"]
    _check_levels(fleet, now + rest)
    assert sum(each.donated_us for each in fleet.ledger.purchases) == donated


def test_a_ledger_that_does_not_add_up_is_noticed() -> None:
    fleet = fleet_of(layout_of(scenario()))
    fleet.start(0, 0, fleet.room(0))
    fleet.ready(0, 10)
    fleet.ledger.gpu_us[0][State.STARTING] -= 1
    with pytest.raises(LawBroken, match="79 GPU-us by state, 80 GPU-us bought"):
        check_fleet(fleet, 10)


def test_counts_that_are_wrong_and_gpus_that_are_lost_are_noticed() -> None:
    fleet = fleet_of(layout_of(scenario()))
    fleet.start(0, 0, fleet.room(0))
    fleet.counts[0][State.STARTING] += 1
    with pytest.raises(LawBroken, match="counts"):
        check_fleet(fleet, 0)
    fleet.counts[0][State.STARTING] -= 1
    fleet.gpus[0] = fleet.gpus[0][:7]
    with pytest.raises(LawBroken, match="7 GPUs used, 8 booked"):
        check_fleet(fleet, 0)
    fleet.gpus[0] = tuple(range(8))
    fleet.start(1, 0, fleet.room(0))
    fleet.gpus[1] = fleet.gpus[0]
    with pytest.raises(LawBroken, match="0 and 1 hold it"):
        check_fleet(fleet, 0)


def test_a_closed_ledger_stays_closed() -> None:
    ledger = Ledger(1, len(State), [Purchase(0, 1.0, 2.0, 0.5)])
    ledger.hold(0, 0, held=4, bought=4)
    ledger.close(10)
    ledger.spent(0, State.SERVING, 99)
    ledger.hold(0, 50, held=-4, bought=-4)
    assert ledger.gpu_us == [[0] * len(State)]
    assert ledger.purchases[0].on_demand_us == 40
    assert ledger.purchases[0].held == 0


def _check_levels(fleet: Fleet, end: int) -> None:
    """Curves cover all time, and what is under them is what was held."""
    for level in (*(each.level for each in fleet.ledger.purchases), *fleet.ledger.counts):
        assert sum(level.time.values()) == end
    for pool, counts, spent in zip(fleet.pools, fleet.ledger.counts, fleet.ledger.gpu_us, strict=True):
        assert sum(n * us for n, us in counts.time.items()) * pool.gpus == sum(spent) - spent[State.SPOT]
