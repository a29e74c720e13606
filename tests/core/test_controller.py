"""The controller under random events: the fleet keeps its laws, decisions are carried out or say what stood against them.

The strategy asks for anything anywhere; a shell answers every action with an event, at once or later, or loses capacity.
Read next: `src/sageserve/core/controller.py`, `test_spot.py`.
"""

from collections.abc import Iterable

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sageserve.base.config import SpotSettings
from sageserve.base.errors import LawBroken
from sageserve.core.actions import Blocked, Decision, Donate, Drain, Reason, Reclaim, Release, Source, Start
from sageserve.core.controller import Controller
from sageserve.core.events import EndpointSeen, InstanceDrained, InstanceLost, InstanceReady, Observed, SpotTaken, StartFailed
from sageserve.core.fleet import Fleet, State
from sageserve.core.invariants import check_fleet
from sageserve.core.work import AnyAction, AnyEvent
from tests.core.small import fleet_of, layout_of, scenario

LOOK = Observed(0, (EndpointSeen(0.5, 0.5, 0.5),) * 4, (0, 0))


def change(pool: int, count: int) -> Decision:
    return Decision(pool, count, Reason.PLANNED, 0.5, 0, serving=0, coming=0)


class Told:
    """A strategy that wants what it was told to want, once."""

    def __init__(self) -> None:
        self.wants: list[Decision] = []

    def handle(self, now: int, event: AnyEvent, fleet: Fleet) -> Iterable[Decision]:
        wants, self.wants = self.wants, []
        return wants


def make(*, gpus: int = 80, donate: bool = True) -> tuple[Controller, Told, Fleet]:
    fleet, told = fleet_of(layout_of(scenario(gpus=gpus))), Told()
    return Controller(fleet, told, SpotSettings(donate=donate)), told, fleet


def ask(controller: Controller, told: Told, now: int, *wants: Decision) -> tuple[AnyAction, ...]:
    told.wants = list(wants)
    return controller.handle(now, LOOK)


def ready(controller: Controller, now: int, actions: Iterable[AnyAction]) -> None:
    for action in actions:
        if isinstance(action, Start | Reclaim):
            controller.handle(now, InstanceReady(action.instance))


def test_everything_wanted_is_done_or_says_why_not() -> None:
    controller, told, fleet = make(gpus=40)
    started = ask(controller, told, 0, change(0, 3), change(1, 3), change(2, 6))
    assert [(one.done, one.blocked) for one in controller.decisions] == [
        (3, Blocked.NOT),
        (2, Blocked.NO_STOCK),
        (4, Blocked.NO_SLOT),
    ]
    assert all(isinstance(action, Start) and action.source is Source.VM for action in started)
    assert fleet.coming(0) == 3
    ready(controller, 1, started)
    drained = ask(controller, told, 2, change(0, -5))
    assert controller.decisions[0].done == -2, "one stays: the minimum"
    assert controller.decisions[0].blocked is Blocked.AT_MINIMUM
    assert drained == (Drain(2), Drain(1))


def test_starting_instances_do_not_count_as_the_minimum_that_serves() -> None:
    controller, told, fleet = make()
    ready(controller, 1, ask(controller, told, 0, change(0, 1)))
    ask(controller, told, 2, change(0, 2))
    assert ask(controller, told, 3, change(0, -1)) == ()
    assert controller.decisions[0].blocked is Blocked.AT_MINIMUM
    assert (fleet.serving(0), fleet.coming(0)) == (1, 2)


@pytest.mark.parametrize("donate", [True, False])
def test_an_empty_instance_is_donated_or_given_back(donate: bool) -> None:
    controller, told, fleet = make(donate=donate)
    ready(controller, 1, ask(controller, told, 0, change(0, 2)))
    (drain,) = ask(controller, told, 2, change(0, -1))
    assert drain == Drain(1)
    assert fleet.state[1] is State.DRAINING, "it keeps its GPUs until it is empty"
    assert fleet.gpus[1] == tuple(range(8, 16))
    assert controller.handle(3, InstanceDrained(1)) == ((Donate(1),) if donate else (Release(1),))
    assert fleet.state[1] is (State.SPOT if donate else State.OFF)


def test_gpus_change_hands_only_after_the_donated_instance_gave_them_up() -> None:
    controller, told, fleet = make(gpus=16)
    ready(controller, 1, ask(controller, told, 0, change(0, 2)))
    ask(controller, told, 2, change(0, -1))
    controller.handle(3, InstanceDrained(1))
    gpus = fleet.gpus[1]
    assert ask(controller, told, 4, change(1, 1)) == (Release(1), Start(4, Source.GPUS, gpus))
    assert fleet.gpus[1] == ()
    assert ask(controller, told, 5, change(0, 1)) == (), "its GPUs are in use: it cannot be reclaimed"
    assert controller.decisions[0].blocked is Blocked.NO_STOCK


def test_own_spot_is_reclaimed_before_anything_else() -> None:
    controller, told, fleet = make()
    ready(controller, 1, ask(controller, told, 0, change(0, 2)))
    ask(controller, told, 2, change(0, -1))
    controller.handle(3, InstanceDrained(1))
    assert ask(controller, told, 4, change(0, 2)) == (Reclaim(1), Start(2, Source.VM, tuple(range(16, 24))))
    assert fleet.ledger.reclaims == 1


@pytest.mark.parametrize(
    "event", [InstanceReady(0), StartFailed(0, "no"), InstanceDrained(0), SpotTaken(0), InstanceLost(0, "no")]
)
def test_news_of_an_instance_that_is_off_is_refused(event: AnyEvent) -> None:
    controller, _, fleet = make()
    with pytest.raises(LawBroken, match="instance 0 is OFF at 7 us"):
        controller.handle(7, event)
    assert fleet.state[0] is State.OFF


class Commanded(RuleBasedStateMachine):
    """Random wishes and random news, in an order a shell could bring about."""

    def __init__(self) -> None:
        super().__init__()
        self.controller, self.told, self.fleet = make(gpus=48)
        self.now = 0
        self.starts = 0

    @rule(
        wants=st.lists(st.tuples(st.integers(0, 3), st.integers(-4, 4)), max_size=3),
        wait=st.integers(0, 10**8),
    )
    def want(self, wants: list[tuple[int, int]], wait: int) -> None:
        self.now += wait
        before = [self.fleet.serving(pool) + self.fleet.coming(pool) for pool in range(4)]
        actions = ask(self.controller, self.told, self.now, *(change(*one) for one in wants))
        for decision in self.controller.decisions:
            before[decision.pool] += decision.done
            assert 0 <= decision.done * (1 if decision.change > 0 else -1) <= abs(decision.change)
            assert (decision.done == decision.change) == (decision.blocked is Blocked.NOT)
        assert before == [self.fleet.serving(pool) + self.fleet.coming(pool) for pool in range(4)]
        self.note(actions)

    @precondition(lambda self: self.some(State.STARTING, State.RECLAIMING))
    @rule(pick=st.integers(0, 100), wait=st.integers(0, 10**8), fails=st.booleans())
    def begins(self, pick: int, wait: int, fails: bool) -> None:
        self.hear(wait, pick, (State.STARTING, State.RECLAIMING), (InstanceReady, lambda i: StartFailed(i, "lost"))[fails])

    @precondition(lambda self: self.some(State.DRAINING))
    @rule(pick=st.integers(0, 100), wait=st.integers(0, 10**8))
    def empties(self, pick: int, wait: int) -> None:
        self.hear(wait, pick, (State.DRAINING,), InstanceDrained)

    @precondition(lambda self: self.some(State.SPOT, State.RECLAIMING))
    @rule(pick=st.integers(0, 100), wait=st.integers(0, 10**8))
    def is_taken(self, pick: int, wait: int) -> None:
        self.hear(wait, pick, (State.SPOT, State.RECLAIMING), SpotTaken)

    @precondition(lambda self: self.some(State.SERVING, State.DRAINING))
    @rule(pick=st.integers(0, 100), wait=st.integers(0, 10**8))
    def dies(self, pick: int, wait: int) -> None:
        self.hear(wait, pick, (State.SERVING, State.DRAINING), lambda i: InstanceLost(i, "killed"))

    def some(self, *states: State) -> list[int]:
        return [i for i, state in enumerate(self.fleet.state) if state in states]

    def hear(self, wait: int, pick: int, states: tuple[State, ...], event: object) -> None:
        rows = self.some(*states)
        self.now += wait
        assert callable(event)
        self.note(self.controller.handle(self.now, event(rows[pick % len(rows)])))

    def note(self, actions: tuple[AnyAction, ...]) -> None:
        for action in actions:
            match action:
                case Start(instance=i, gpus=gpus):
                    self.starts += 1
                    assert self.fleet.gpus[i] == gpus
                case Reclaim(instance=i):
                    assert self.fleet.state[i] is State.RECLAIMING
                case Drain(instance=i):
                    assert self.fleet.state[i] is State.DRAINING
                case Donate(instance=i):
                    assert self.fleet.state[i] is State.SPOT
                case _:
                    pass

    @invariant()
    def laws(self) -> None:
        check_fleet(self.fleet, self.now)
        assert self.fleet.ledger.starts == self.starts
        for pool in self.fleet.pools:
            assert sum(self.fleet.counts[pool.number]) == pool.end - pool.begin


Commanded.TestCase.settings = hypothesis_settings(max_examples=25, stateful_step_count=40)
test_commanded = Commanded.TestCase
