"""The fleet's life cycles: what may follow what, that nothing changes when a move is refused, and that GPUs are never shared.

Read next: `src/sageserve/core/fleet.py`, `test_controller.py` for the same under a controller.
"""

import copy
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sageserve.base.errors import LawBroken
from sageserve.core.fleet import MOVES, Fleet, Signal, State
from sageserve.core.invariants import check_fleet
from tests.core.small import fleet_of, layout_of, scenario

REACH: dict[State, tuple[Signal, ...]] = {
    State.OFF: (),
    State.STARTING: (Signal.START,),
    State.SERVING: (Signal.START, Signal.READY),
    State.DRAINING: (Signal.START, Signal.READY, Signal.DRAIN),
    State.SPOT: (Signal.START, Signal.READY, Signal.DRAIN, Signal.DONATE),
    State.RECLAIMING: (Signal.START, Signal.READY, Signal.DRAIN, Signal.DONATE, Signal.RECLAIM),
}


def small_fleet(gpus: int = 32) -> Fleet:
    return fleet_of(layout_of(scenario(gpus=gpus)))


def send(fleet: Fleet, i: int, signal: Signal, now: int) -> None:
    """The verb of a signal."""
    match signal:
        case Signal.START:
            fleet.start(i, now, fleet.room(fleet.pool_of[i]))
        case Signal.READY:
            fleet.ready(i, now)
        case Signal.FAIL:
            fleet.fail(i, now)
        case Signal.DRAIN:
            fleet.drain(i, now)
        case Signal.DONATE:
            fleet.donate(i, now)
        case Signal.RELEASE:
            fleet.release(i, now)
        case Signal.RECLAIM:
            fleet.reclaim(i, now)
        case Signal.TAKE:
            fleet.take(i, now)
        case Signal.LOSE:
            fleet.lose(i, now)


def snapshot(fleet: Fleet) -> object:
    kept = ("state", "since", "gpus", "counts", "_free", "ledger", "now")
    return copy.deepcopy([getattr(fleet, name) for name in kept])


@pytest.mark.parametrize(("state", "signal"), list(product(State, Signal)))
def test_every_move_is_in_the_table_or_changes_nothing(state: State, signal: Signal) -> None:
    fleet = small_fleet()
    for now, step in enumerate(REACH[state]):
        send(fleet, 0, step, now)
    assert fleet.state[0] is state
    before = snapshot(fleet)
    if (state, signal) in MOVES:
        send(fleet, 0, signal, 100)
        assert fleet.state[0] is MOVES[state, signal]
        assert (fleet.state[0] is State.OFF) == (not fleet.gpus[0])
    else:
        with pytest.raises(LawBroken, match=f"{state.name} at 100 us and cannot {signal.name}"):
            send(fleet, 0, signal, 100)
        assert snapshot(fleet) == before
    check_fleet(fleet, 100)


@pytest.mark.parametrize(
    "gpus",
    [
        (0, 1, 2, 3, 4, 5, 6, 7),  # another instance holds them
        (8, 9, 10),  # too few
        (8, 9, 10, 11, 12, 13, 14, 14),  # one twice
        (9, 10, 11, 12, 13, 14, 15, 16),  # of two VMs
        (32, 33, 34, 35, 36, 37, 38, 39),  # more than there are
        (-8, -7, -6, -5, -4, -3, -2, -1),
        (),
    ],
)
def test_gpus_that_cannot_be_given_are_refused(gpus: tuple[int, ...]) -> None:
    fleet = small_fleet()
    fleet.start(0, 0, fleet.room(0))
    before = snapshot(fleet)
    with pytest.raises(LawBroken):
        fleet.start(1, 5, gpus)
    assert snapshot(fleet) == before


def test_time_goes_back_nowhere_in_the_fleet() -> None:
    fleet = small_fleet()
    fleet.start(0, 50, fleet.room(0))
    before = snapshot(fleet)
    verbs: list[Callable[[], None]] = [
        lambda: fleet.start(4, 49, fleet.room(1)),
        lambda: fleet.ready(0, 49),
        lambda: fleet.settle(49),
    ]
    for verb in verbs:
        with pytest.raises(LawBroken, match="time goes back"):
            verb()
        assert snapshot(fleet) == before


def test_instances_of_a_region_are_on_different_gpus_and_stock_runs_out() -> None:
    fleet = small_fleet(gpus=24)
    east = [pool for pool in fleet.pools if pool.region == 0]
    held: set[int] = set()
    for pool in east:
        for i in range(pool.begin, pool.end):
            if room := fleet.room(pool.number):
                assert not held & set(room)
                held |= set(room)
                fleet.start(i, 0, room)
    assert held == set(range(24))
    assert fleet.room(east[0].number) == fleet.room(east[1].number) == ()
    fleet.fail(east[0].begin, 1)
    assert fleet.room(east[1].number) == tuple(range(8))


def test_a_stock_smaller_than_a_vm_is_a_smaller_vm() -> None:
    engine = {"gpu": "h100", "tp": 4, "gpus": 4, "iteration_ms": [[1, 1.0], [1_001, 2.0]], "decode_us_per_sequence": 1.0}
    engine |= {"kv_ns_per_token": 0.0, "attention_ns_per_token2": 0.0, "kv_tokens": 10_000, "source": "made up"}
    settings = scenario(
        gpus=12, models={"m": {"context": 8_000, "engines": {"h100": engine}}}, fleet={"start": 2, "minimum": 1, "maximum": 4}
    )
    fleet = fleet_of(layout_of(settings))
    rooms = []
    for i in range(3):
        rooms.append(fleet.room(0))
        fleet.start(i, 0, rooms[-1])
    assert rooms == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert fleet.room(0) == ()
    check_fleet(fleet, 1)


class Lives(RuleBasedStateMachine):
    """Any verb on any instance at any later time: legal ones keep the laws, others are refused without a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = small_fleet(gpus=40)
        self.now = 0

    @rule(i=st.integers(0, 15), signal=st.sampled_from(Signal), wait=st.integers(0, 10**7))
    def send(self, i: int, signal: Signal, wait: int) -> None:
        self.now += wait
        state = self.fleet.state[i]
        legal = (state, signal) in MOVES and (signal is not Signal.START or self.fleet.room(self.fleet.pool_of[i]) != ())
        before = snapshot(self.fleet)
        try:
            send(self.fleet, i, signal, self.now)
        except LawBroken:
            assert not legal
            assert snapshot(self.fleet) == before
        else:
            assert legal

    @precondition(lambda self: any(state is State.SPOT for state in self.fleet.state))
    @rule(wait=st.integers(0, 10**7))
    def hand_over(self, wait: int) -> None:
        """GPUs of a donated instance go to another model at the same instant."""
        self.now += wait
        victim = self.fleet.state.index(State.SPOT)
        stock = self.fleet.pools[self.fleet.pool_of[victim]].stock
        rows = [i for i in range(16) if self.fleet.state[i] is State.OFF]
        other = next((i for i in rows if self.fleet.pools[self.fleet.pool_of[i]].stock == stock), None)
        if other is not None:
            gpus = self.fleet.gpus[victim]
            self.fleet.take(victim, self.now)
            self.fleet.start(other, self.now, gpus)

    @invariant()
    def laws(self) -> None:
        check_fleet(self.fleet, self.now)


Lives.TestCase.settings = hypothesis_settings(max_examples=25, stateful_step_count=40)
test_lives = Lives.TestCase
