"""Rollouts on generated fleets: how many there are at any look, who is stopped and who comes through.

A shell starts and drains when it likes, and says what requests got by revision, drawn from two shares. Read next:
`src/sageserve/core/rollout.py`, `tests/sim/test_rollouts.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import floor

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sageserve.base.config import SafetySettings, SpotSettings
from sageserve.base.rng import stream
from sageserve.base.units import MINUTE, NEVER, SECOND, Micros
from sageserve.core.actions import Decision, Drain, Reason, Reclaim, Roll, RolloutStep, RolloutWhy, Start
from sageserve.core.controller import Controller
from sageserve.core.events import EndpointSeen, InstanceDrained, InstanceLost, InstanceReady, Observed, RevisionsSeen, StartFailed
from sageserve.core.fleet import Fleet, State
from sageserve.core.invariants import check_fleet
from sageserve.core.judging import RevisionKept, interval, is_broken
from sageserve.core.rollout import Rollout
from sageserve.core.rollout_plan import RolloutMemory, RolloutPlan
from sageserve.core.safety import Guard
from sageserve.core.work import AnyAction, AnyEvent
from tests.core.small import fleet_of, layout_of, scenario

LOOK = 15 * SECOND
PROMISED, MOST = 0.95, 24
PLAN = RolloutPlan(
    model=0,
    revision=1,
    at=0,
    surge=1,
    canary=0.25,
    judge_after=2 * MINUTE,
    judge_requests=100,
    back=True,
    percentiles=(PROMISED, PROMISED, 0.0),
)


class Wants:
    """A strategy that wants what it is told, in the first pool."""

    def __init__(self) -> None:
        self.change = 0

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterator[Decision]:
        if isinstance(event, Observed) and self.change:
            yield Decision(0, self.change, Reason.PLANNED, 0.5, 0, fleet.serving(0), fleet.coming(0))
            self.change = 0


@dataclass
class World:
    """A model in one region, and what becomes of what is asked for it."""

    plan: RolloutPlan
    old: float
    new: float
    count: int
    seed: int = 0
    failing: float = 0.0  # starts of the new revision
    guard: Guard | None = None
    now: Micros = 0
    pending: list[AnyAction] = field(default_factory=list)
    steps: list[Roll] = field(default_factory=list)
    wanted: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 2), int))  # by revision: asked, missed

    def __post_init__(self) -> None:
        layout = layout_of(scenario(gpus=400, fleet={"start": 2, "minimum": 1, "maximum": MOST}))
        self.fleet, self.strategy, self.rng = fleet_of(layout), Wants(), stream(self.seed, "rollout")
        self.controller = Controller(self.fleet, self.strategy, SpotSettings(), self.guard, [self.plan])
        for action in self.controller.begin(0, 0, self.count):
            assert isinstance(action, Start)
            self.controller.handle(0, InstanceReady(action.instance))
        self.wanted = self.count

    @property
    def rollout(self) -> Rollout:
        return self.controller.rollouts.all[0]

    def held(self) -> int:
        return self.fleet.count(0, State.SERVING, State.STARTING, State.RECLAIMING)

    def newer(self) -> int:
        pool = self.fleet.pools[0]
        live = (State.SERVING, State.STARTING, State.RECLAIMING)
        return sum(self.fleet.state[i] in live and self.fleet.revision[i] == 1 for i in range(pool.begin, pool.end))

    def look(self, change: int = 0) -> None:
        """Some of what was begun comes to an end, requests are served, and the fleet is looked at."""
        self.now += LOOK
        waiting, self.pending = self.pending, []
        for action in waiting:
            if self.rng.random() < 0.5:
                self.pending.append(action)
            else:
                self.tell(self.outcome(action))
        for revision, share in enumerate((self.old, self.new, self.old)):
            serving = sum(self.fleet.revision[i] == revision for i in self.fleet.rows(0, State.SERVING))
            self.counts[revision] += 20 * serving, self.rng.binomial(20 * serving, 1 - share)
        for one in self.controller.rollouts.judged:
            new = self.counts[one.plan.revision]
            old = self.counts.sum(axis=0) - new
            self.tell(RevisionsSeen(0, *((int(a), 0, 0, int(b), 0, 0) for a, b in zip(old, new, strict=True))))
        self.strategy.change = change
        self.tell(Observed(self.now, (EndpointSeen(0.3, 0.3, 0.3),) * 4, (0, 0)))
        self.wanted += sum(one.done for one in self.controller.decisions if one.reason is Reason.PLANNED)
        check_fleet(self.fleet, self.now)

    def outcome(self, action: AnyAction) -> AnyEvent:
        assert isinstance(action, Start | Reclaim | Drain)
        if isinstance(action, Drain):
            return InstanceDrained(action.instance)
        fails = self.fleet.revision[action.instance] == 1 and self.rng.random() < self.failing
        return StartFailed(action.instance, "no") if fails else InstanceReady(action.instance)

    def tell(self, event: AnyEvent) -> None:
        for action in self.controller.handle(self.now, event):
            if isinstance(action, Roll):
                self.steps.append(action)
            elif isinstance(action, Start | Reclaim | Drain):
                self.pending.append(action)

    def play(self, looks: int = 400, changes: tuple[int, ...] = ()) -> RolloutStep:
        """Look until it is over, and hold the laws at every look."""
        surge = self.plan.surge
        for k in range(looks):
            self.look(changes[k % len(changes)] if changes else 0)
            if not changes:  # else a drain that the strategy wants may be of one that is beyond what it wanted before
                assert self.held() <= self.wanted + surge, "beside those that are wanted, as many as the surge says"
                assert self.fleet.serving(0) >= self.wanted - (surge == 0), "one fewer, where none may be beyond"
                if self.rollout.step is RolloutStep.CANARY:
                    assert self.newer() <= max(1, floor(self.plan.canary * self.wanted))
            if self.rollout.ended <= self.now and not self.pending:
                break
        return self.rollout.step


worlds = st.builds(
    lambda count, surge, canary, seed: (replace(PLAN, surge=surge, canary=canary), count, seed),
    st.integers(2, 16),
    st.integers(0, 4),
    st.sampled_from([0.05, 0.1, 0.25, 0.5]),
    st.integers(0, 999),
)


@settings(max_examples=10)
@given(worlds, st.sampled_from([0.99, 0.97]), st.sampled_from([0.3, 0.6, 0.8]), st.booleans())
def test_one_that_breaks_promises_never_becomes_more_than_the_canaries(
    world: tuple[RolloutPlan, int, int], old: float, new: float, back: bool
) -> None:
    plan, count, seed = world
    played = World(replace(plan, back=back), old, new, count, seed)
    assert played.play() is (RolloutStep.UNDONE if back else RolloutStep.STOPPED)
    assert RolloutStep.ROLLING not in {one.step for one in played.steps}
    assert RolloutWhy.BROKEN in {one.why for one in played.steps}
    if back:
        assert played.newer() == 0
        assert played.held() == played.wanted


@settings(max_examples=12)
@given(worlds, st.sampled_from([1.0, 0.97, 0.6]))
@example((PLAN, 4, 0), 0.0)  # all is late, old and new: that is not for the new one to answer for
def test_one_as_good_as_the_old_one_comes_through(world: tuple[RolloutPlan, int, int], kept: float) -> None:
    plan, count, seed = world
    played = World(plan, kept, kept, count, seed)
    assert played.play() is RolloutStep.DONE
    assert played.newer() == played.held() == played.wanted
    assert [one.step for one in played.steps] == [RolloutStep.CANARY, RolloutStep.ROLLING, RolloutStep.DONE]


@settings(max_examples=12)
@given(worlds, st.lists(st.integers(-2, 2), min_size=3, max_size=12).map(tuple), st.sampled_from([0.0, 0.2]))
def test_a_strategy_may_want_more_and_fewer_meanwhile(
    world: tuple[RolloutPlan, int, int], changes: tuple[int, ...], failing: float
) -> None:
    plan, count, seed = world
    played = World(plan, 0.99, 0.99, count, seed, failing)
    played.play(40, changes)
    if played.held() < MOST:  # or there is no row for one beyond, and it waits
        assert played.play(changes=(0,)) in {RolloutStep.DONE, RolloutStep.UNDONE}
        assert played.newer() == (played.held() if played.rollout.step is RolloutStep.DONE else 0)


def test_one_that_does_not_start_is_given_up_after_the_third_time() -> None:
    played = World(PLAN, 0.99, 0.99, 4, failing=1.0)
    assert played.play() is RolloutStep.UNDONE
    assert [one.why for one in played.steps] == [RolloutWhy.DUE, RolloutWhy.NOT_STARTING, RolloutWhy.REPLACED]
    assert played.fleet.ledger.failures == 3


def test_the_others_wait_until_enough_was_asked() -> None:
    played = World(replace(PLAN, judge_requests=10**9), 0.99, 0.99, 4)
    assert played.play(60) is RolloutStep.CANARY


def test_a_strategy_that_wants_less_than_the_minimum_leaves_a_lone_canary_where_it_is() -> None:
    played = World(PLAN, 0.99, 0.99, 1)
    assert played.play(changes=(-1,)) is RolloutStep.DONE
    assert [one.step for one in played.steps] == [RolloutStep.CANARY, RolloutStep.ROLLING, RolloutStep.DONE]
    assert played.fleet.ledger.starts == played.newer() == played.held() == 1


def test_an_instance_of_another_model_may_be_lost_meanwhile() -> None:
    played = World(PLAN, 0.99, 0.99, 4)
    other = next(pool for pool in played.fleet.pools if pool.model != PLAN.model)
    (action,) = played.controller.begin(0, other.number, 1)
    assert isinstance(action, Start)
    played.tell(InstanceReady(action.instance))
    played.look()
    played.tell(InstanceLost(action.instance, "gone"))
    assert played.rollout.step is RolloutStep.CANARY


def test_safety_rules_hold_for_a_rollout_too() -> None:
    guard = Guard(SafetySettings(change_per_hour=0.25, headroom=0.9), 4, every=NEVER)
    played = World(PLAN, 0.99, 0.99, 8, guard=guard)
    played.look()
    blind = Observed(played.now, (EndpointSeen(0.3, 0.3, 0.3),) * 4, (0, 0), blind=(0, 1, 2, 3))
    assert not any(isinstance(one, Start | Drain) for one in played.controller.handle(played.now + MINUTE, blind))
    drained = 0
    for _ in range(200):  # 50 minutes
        before = played.fleet.serving(0)
        played.look()
        drained += before > played.fleet.serving(0)
    assert drained <= 3, "a quarter of nine within an hour, and the one that was beyond what is wanted"
    assert played.rollout.step is RolloutStep.ROLLING


def test_a_second_rollout_waits_for_the_first_and_replaces_what_it_left() -> None:
    played = World(replace(PLAN, back=False), 0.99, 0.3, 4)
    second = replace(PLAN, revision=2, at=MINUTE)
    played.controller.rollouts.all += (Rollout(second, played.fleet),)
    assert played.play() is RolloutStep.STOPPED
    last = played.controller.rollouts.all[1]
    for _ in range(300):
        played.look()
    pool = played.fleet.pools[0]
    left = {played.fleet.revision[i] for i in range(pool.begin, pool.end) if played.fleet.state[i] is State.SERVING}
    assert last.step is RolloutStep.DONE
    assert last.begun >= played.rollout.ended
    assert left == {2}, "the canary of the first one is replaced, too"


def test_one_lost_while_it_drains_leaves_none_beyond_what_is_wanted() -> None:
    played = World(PLAN, 0.99, 0.99, 4)
    lost = 0
    for _ in range(200):
        played.look()
        for action in [one for one in played.pending if isinstance(one, Drain)]:
            played.pending.remove(action)
            played.tell(InstanceLost(action.instance, "gone"))
            lost += 1
    assert played.rollout.step is RolloutStep.DONE
    assert lost == 4
    assert played.newer() == played.held() == 4


def test_one_that_starts_when_a_rollout_is_stopped_is_replaced_by_the_next_one() -> None:
    played = World(PLAN, 0.99, 0.99, 4)
    while not any(isinstance(one, Start) for one in played.pending):
        played.look()
    held, played.pending = played.pending, []
    played.controller.rollouts.ask(0, RolloutStep.STOPPED)
    played.look()
    assert played.rollout.step is RolloutStep.STOPPED
    second = played.controller.rollouts.add(replace(PLAN, revision=2, at=played.now))
    played.look()
    played.pending += held
    for _ in range(300):
        played.look()
        assert played.held() <= 5
    assert second.step is RolloutStep.DONE
    assert played.held() == played.fleet.serving(0) == 4
    assert played.newer() == 0


def test_the_only_instance_gets_another_beside_it_where_none_is_to_be_beyond() -> None:
    played = World(replace(PLAN, surge=0), 0.99, 0.99, 1)
    assert played.play(changes=(0,)) is RolloutStep.DONE
    assert played.newer() == played.held() == 1


@pytest.mark.parametrize("done", [True, False])
def test_what_somebody_asks_for_is_done_at_the_next_look(done: bool) -> None:
    played = World(PLAN, 0.99, 0.99, 4)
    if done:
        played.play()
    else:
        played.look()
    played.controller.rollouts.ask(0, RolloutStep.BACK)
    assert played.rollout.active is not done
    for _ in range(100):
        played.look()
    assert played.rollout.step is RolloutStep.UNDONE
    assert RolloutWhy.ASKED in {one.why for one in played.steps}
    assert played.newer() == 0
    assert played.held() == 4
    played.controller.rollouts.ask(0, RolloutStep.STOPPED)
    played.look()
    assert played.rollout.step is RolloutStep.UNDONE, "there is nothing to stop"


def restarted(before: World) -> World:
    """The same fleet under another process: what drained serves again, and the rollout goes on where it was, on another clock."""
    after = World(before.plan, before.old, before.new, 0, before.seed + 1)
    after.wanted, after.rng = before.wanted, before.rng
    after.pending = [one for one in before.pending if isinstance(one, Start)]
    for i, state in enumerate(before.fleet.state):
        if state is not State.OFF:
            after.fleet.start(i, 0, before.fleet.gpus[i], initial=True, revision=before.fleet.revision[i])
            if state is not State.STARTING:
                after.fleet.ready(i, 0)
    kept = msgspec.json.decode(msgspec.json.encode(before.rollout.remember(before.now)), type=RolloutMemory)
    after.controller.rollouts.all = ()
    after.controller.rollouts.add(before.plan, kept.shifted(-before.now), 0)
    after.counts = before.counts.copy()
    return after


@settings(max_examples=20)
@given(worlds, st.lists(st.integers(1, 12), min_size=1, max_size=5), st.sampled_from([1.0, 0.6]), st.sampled_from([0.0, 0.3]))
def test_another_process_goes_on_where_one_was(
    world: tuple[RolloutPlan, int, int], looks: list[int], new: float, failing: float
) -> None:
    plan, count, seed = world
    played = World(plan, 0.99, new, count, seed, failing)
    for some in looks:
        for _ in range(some):
            played.look()
        played = restarted(played)
    assert played.play(changes=(0,)) is (RolloutStep.DONE if new > 0.9 else RolloutStep.UNDONE)
    for _ in range(40):
        played.look()
    assert played.held() == played.fleet.serving(0) == played.wanted
    assert played.newer() == (played.wanted if new > 0.9 else 0)


@pytest.mark.parametrize(("asked", "kept", "low", "high"), [(100, 90, 0.7600, 0.9624), (10, 0, 0.0, 0.5199), (0, 0, 0.0, 1.0)])
def test_intervals_are_wilsons(asked: int, kept: int, low: float, high: float) -> None:
    z, n = 3.2905267314919255, max(asked, 1)
    middle = (kept / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(kept / n * (1 - kept / n) / n + z * z / (4 * n * n))
    if asked:
        assert interval(asked, kept) == pytest.approx((middle - half, middle + half), abs=1e-9)
    assert interval(asked, kept) == pytest.approx((low, high), abs=2e-3)


def test_broken_is_more_than_chance_and_more_than_the_old_ones_fault() -> None:
    assert is_broken(0.95, RevisionKept(1000, 990), RevisionKept(300, 250))
    assert not is_broken(0.95, RevisionKept(1000, 990), RevisionKept(20, 18)), "of twenty that may be chance"
    assert not is_broken(0.95, RevisionKept(1000, 820), RevisionKept(300, 250)), "the old one does not do better"
    assert not is_broken(0.80, RevisionKept(1000, 999), RevisionKept(300, 280)), "worse than the old one, and as promised"
    assert not is_broken(0.95, RevisionKept(0, 0), RevisionKept(300, 0)), "nothing beside it that did better"
