"""Chiron: who may serve whom, interactive back-pressure, and a batch pool that comes in time and goes when nothing waits.

Read next: `src/sageserve/core/strategies/chiron.py`, `strategies/backlog.py`.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import Scenario, SpotSettings
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros
from sageserve.core.actions import Blocked, Decision, Reason, Reclaim, Start
from sageserve.core.controller import Controller
from sageserve.core.events import DemandSeen, EndpointSeen, InstanceDrained, InstanceReady, Observed
from sageserve.core.fleet import Fleet, State
from sageserve.core.layout import Layout
from sageserve.core.strategies import chiron as chiron_module
from sageserve.core.strategies.backlog import GROUP, Backlog
from sageserve.core.strategies.chiron import Chiron
from sageserve.core.strategies.reactive import Reactive
from sageserve.sim.kernel.state import PROMOTED
from sageserve.sim.run import Run, simulate
from tests.core.small import ENGINE, TIERS, Row, fleet_of, layout_of, row, scenario, starts_by_role, trace

OWN, BATCH, MIXED = 0, 1, 2  # endpoints of east/big, by role
LEAD = 20 * MINUTE  # of the small scenario: 10 min for a VM, 10 min for the weights


STILL = {"name": "chiron", "chiron": {"theta": 1.0, "relax": 0.0}}  # interactive and mixed instances stay as they are


def chiron(**changes: object) -> Scenario:
    sections: dict[str, object] = {"strategy": {"name": "chiron"}, "fleet": {"start": 4, "minimum": 2, "maximum": 12}}
    return scenario(gpus=400, **(sections | changes))


class Stage:
    """One controller, its fleet, and the events of a life made by hand."""

    def __init__(self, settings: Scenario) -> None:
        self.layout: Layout = layout_of(settings)
        self.fleet: Fleet = fleet_of(self.layout)
        self.controller = Controller(self.fleet, Chiron(settings, self.layout), SpotSettings())
        for pool, count in zip(self.layout.pools, Chiron.initial(settings, self.layout), strict=True):
            for action in self.controller.begin(0, pool.number, count):
                assert isinstance(action, Start)
                self.controller.handle(0, InstanceReady(action.instance))

    def see(self, now: Micros, *values: float, waiting: int = 0) -> list[Decision]:
        """A look: these utilisations first, 0.3 elsewhere (at theta 0.5 of 0.7, no reason for anything)."""
        padded = (*values, *[0.3] * (self.layout.endpoints - len(values)))
        self.controller.handle(now, Observed(now, tuple(EndpointSeen(one, 0.0, one) for one in padded), (waiting, 0)))
        return list(self.controller.decisions)

    def hear(self, start: Micros, jobs: int, work_s: float) -> None:
        """A minute in which batch jobs for `big` arrived in the east that need `work_s` seconds of engine each."""
        requests, work = [0] * 12, [0.0] * 12
        requests[2], work[2] = jobs, jobs * work_s * SECOND
        self.controller.handle(start + MINUTE, DemandSeen(start, MINUTE, (0,) * 12, (0,) * 12, tuple(requests), tuple(work)))

    def settle(self, now: Micros) -> None:
        """What is coming serves, what drains is empty."""
        for i, state in enumerate(list(self.fleet.state)):
            if state in (State.STARTING, State.RECLAIMING):
                self.controller.handle(now, InstanceReady(i))
            elif state is State.DRAINING:
                self.controller.handle(now, InstanceDrained(i))

    def serving(self, role: int) -> int:
        """Of `big`, in both regions."""
        return sum(self.fleet.serving(pool.number) for pool in self.layout.pools if (pool.model, pool.role) == (0, role))

    def coming(self, role: int) -> int:
        return sum(self.fleet.coming(pool.number) for pool in self.layout.pools if (pool.model, pool.role) == (0, role))


# ------------------------------------------------------------------------------------------------ roles


def test_each_tier_finds_its_own_role_first_then_the_mixed_one() -> None:
    layout = layout_of(chiron())
    names = [[layout.endpoint_name(e) for e in layout.walk[0, 0, k] if e >= 0] for k in range(3)]
    regions = ("east", "west")
    assert names[0] == names[1] == [f"{g}/big/{o}" for g in regions for o in ("interactive", "mixed")]
    assert names[2] == [f"{g}/big/{o}" for g in regions for o in ("batch", "mixed")]
    assert layout.feeds.tolist() == [False, True, True] * 4


@pytest.mark.parametrize(
    ("tiers", "roles"),
    [
        (("iw-f", "iw-n", "niw"), ["interactive", "batch", "mixed"]),
        (("iw-f",), ["interactive", "mixed"]),
        (("niw",), ["batch", "mixed"]),
    ],
)
def test_a_role_without_tiers_is_left_out(tiers: tuple[str, ...], roles: list[str]) -> None:
    settings = chiron(tiers={name: TIERS[name] for name in tiers})
    assert [role.name for role in Chiron.roles(settings)] == roles
    assert sum(starts_by_role(Chiron, settings)) == 4
    assert sum(Chiron.minimum(settings)) == 2
    run = simulate(settings, trace(settings, [row(0, tier=tiers[-1]), row(HOUR, tier=tiers[0])]), debug=True)
    assert run.kernel.finished()


@given(start=st.integers(0, 200), least=st.integers(0, 6), theta=st.floats(0.01, 1))
def test_the_start_is_that_of_every_strategy_and_the_floor_too(start: int, least: int, theta: float) -> None:
    start = max(start, least)
    settings = scenario(
        gpus=200 * 2 * 8,
        fleet={"start": start, "minimum": least, "maximum": 200},
        strategy={"name": "chiron", "chiron": {"theta": theta}},
    )
    names = [role.name for role in Chiron.roles(settings)]
    initial = dict(zip(names, starts_by_role(Chiron, settings), strict=True))
    minimum = dict(zip(names, Chiron.minimum(settings), strict=True))
    assert sum(initial.values()) == sum(starts_by_role(Reactive, settings)) == start
    assert sum(minimum.values()) == sum(Reactive.minimum(settings)) == max(least, 1)
    assert initial["batch"] == minimum["batch"] == 0
    assert minimum["mixed"] >= 1, "without it a lone batch job could be served by no one"
    if start >= max(least, 1):
        assert all(initial[name] >= minimum[name] for name in names)


# ------------------------------------------------------------------------------------------------ interactive back-pressure


@pytest.mark.parametrize(
    ("interactive", "mixed", "changes"),
    [
        (0.70, 0.0, []),  # 2 of 4 busy: at theta
        (0.70, 0.07, [(OWN, 1)]),  # 2.2 of 4: 5 wanted, 3 of them interactive
        (0.70, 0.35, [(OWN, 1), (MIXED, 1)]),  # 3 of 4: 6 wanted, 3 of them interactive
        (5.00, 5.00, [(OWN, 2), (MIXED, 2)]),  # all busy: more than busy they cannot be
        (0.32, 0.0, []),  # 0.91 busy; of 3 left that would be above 0.6 x theta
        (0.31, 0.0, [(OWN, -1)]),  # 0.89 busy: one interactive instance is enough
        (0.0, 0.31, [(OWN, -1)]),
    ],
)
def test_back_pressure_is_the_busy_share_of_interactive_and_mixed(
    interactive: float, mixed: float, changes: list[tuple[int, int]]
) -> None:
    stage = Stage(chiron())
    decisions = stage.see(0, interactive, 0.0, mixed)
    assert [(one.pool, one.change) for one in decisions] == changes
    assert all(one.done == one.change and one.blocked is Blocked.NOT for one in decisions)
    for one in decisions:
        assert one.reason is (Reason.UTILISATION_HIGH if one.change > 0 else Reason.UTILISATION_LOW)


def test_starts_under_way_are_capacity_and_a_pause_follows() -> None:
    stage = Stage(chiron())
    assert stage.see(0, 0.70, 0.0, 0.35)
    assert stage.see(14 * SECOND, 5.0, 0.0, 5.0) == [], "too soon"
    assert stage.see(15 * SECOND, 0.70, 0.0, 0.35) == [], "3 busy of 6 that serve or will"
    assert stage.see(30 * SECOND, 0.0, 0.0, 0.0) == [], "nothing is drained while something is coming"
    stage.settle(20 * MINUTE)
    assert [one.change for one in stage.see(21 * MINUTE, 0.0, 0.0, 0.0)] == [-1]


def test_the_floor_of_both_roles_stays_and_is_restored() -> None:
    stage = Stage(chiron())
    for step in range(20):
        stage.see(step * MINUTE, 0.0, 0.0, 0.0)
        stage.settle(step * MINUTE)
    assert [stage.fleet.serving(e) for e in (OWN, BATCH, MIXED)] == [1, 0, 1]
    for lost in tuple(stage.fleet.rows(MIXED, State.SERVING)):
        stage.fleet.lose(lost, HOUR)
    assert {one.reason for one in stage.see(HOUR)} == {Reason.BELOW_MINIMUM}
    assert [stage.fleet.coming(e) for e in (OWN, BATCH, MIXED)] == [0, 0, 1]


def test_roles_together_keep_to_the_maximum() -> None:
    stage = Stage(chiron(fleet={"start": 4, "minimum": 2, "maximum": 5}))
    stage.hear(0, jobs=10_000, work_s=10.0)
    for step in range(4, 40):
        stage.see(step * 15 * SECOND, 9.0, 0.5, 9.0, waiting=10_000)
        stage.settle(step * 15 * SECOND)
    assert [sum(stage.fleet.serving(3 * at + o) for o in (OWN, BATCH, MIXED)) for at in (0, 2)] == [5, 5]


def test_batch_work_on_mixed_instances_is_no_back_pressure() -> None:
    def after(left_s: float) -> list[Decision]:
        """Two minutes in which jobs worth `left_s` engine seconds came and left; mixed instances 60 % utilised."""
        stage = Stage(chiron())
        stage.hear(0, jobs=60, work_s=left_s / 60)
        assert stage.see(MINUTE) == []
        stage.hear(MINUTE, jobs=60, work_s=left_s / 60)
        return stage.see(2 * MINUTE, 0.70, 0.0, 0.60, 0.3, 0.3, 0.3, 0.70, 0.0, 0.60)

    assert [one.pool for one in after(0.0)] == [OWN, MIXED, 6 + OWN, 6 + MIXED]
    assert after(60 * 2 * 2 * 0.6) == [], "two mixed instances in each of two regions, all of it batch work"


# ------------------------------------------------------------------------------------------------ the batch queue


def test_the_batch_pool_comes_for_a_late_queue_goes_with_it_and_comes_back() -> None:
    stage = Stage(chiron(strategy=STILL))
    for spell in range(2):
        begin = spell * 4 * HOUR
        stage.hear(begin, jobs=10_000, work_s=10.0)
        asked = stage.see(begin + MINUTE, *[0.5] * 12, waiting=10_000)
        assert {(one.reason, stage.layout.pools[one.pool].role) for one in asked} == {(Reason.QUEUE_LATE, BATCH)}
        # 100,000 s in 0.8 of the 9 h 39 min that remain of 10 h after a start are 3.6 engines, or 7.2 that are fed to half
        assert stage.coming(BATCH) == len(asked) == 7
        assert abs(stage.fleet.coming(1) - stage.fleet.coming(7)) == 1, "spread over regions"
        stage.settle(begin + 30 * MINUTE)
        assert stage.see(begin + 31 * MINUTE, *[0.5] * 12, waiting=9_500) == []
        ends = stage.see(begin + 3 * HOUR, *[0.5] * 12, waiting=0)
        assert {one.reason for one in ends} == {Reason.QUEUE_EMPTY}
        assert stage.serving(BATCH) == 0
        stage.settle(begin + 3 * HOUR)
        stage.hear(begin + 3 * HOUR, jobs=0, work_s=0.0)
        stage.hear(begin + 3 * HOUR + MINUTE, jobs=0, work_s=0.0)
        assert stage.serving(OWN) + stage.serving(MIXED) == 8


def test_batch_instances_are_not_asked_for_while_mixed_ones_can_do_it_in_time() -> None:
    stage = Stage(chiron(strategy=STILL))
    stage.hear(0, jobs=2_000, work_s=10.0)  # 20,000 s: 0.7 engines for 8 h
    assert stage.see(MINUTE, *[0.1] * 12, waiting=2_000) == []
    stage = Stage(chiron(strategy=STILL))
    stage.hear(0, jobs=2_000, work_s=10.0)
    assert len(stage.see(MINUTE, *[0.5] * 12, waiting=2_000)) == 1, "but when those are full they are"


def test_a_queue_that_stands_still_gets_help_before_it_is_late() -> None:
    """Mixed instances are full of interactive work; what waits is due at the age of promotion."""
    stage = Stage(chiron(strategy=STILL))
    stage.hear(0, jobs=360, work_s=10.0)
    asked = next(k for k in range(1, 600) if stage.see(k * MINUTE, *[0.6] * 12, waiting=360))
    left = 10 * HOUR - asked * MINUTE
    assert stage.coming(BATCH) == 1
    assert left - LEAD > 3_600 * SECOND / 0.5, "one instance, fed to half, can do all of it from when it serves"
    assert left < 3 * HOUR, "and is not asked for long before"


def test_the_count_is_right_whatever_of_the_queue_is_left() -> None:
    """Half of the jobs leave: what is left are those due later, and they need less."""
    for waiting, expected in ((10_000, 14), (5_000, 7), (700, 1), (500, 0)):
        stage = Stage(chiron(strategy=STILL))
        stage.hear(0, jobs=10_000, work_s=20.0)
        stage.see(MINUTE, *[0.6] * 12, waiting=waiting)
        assert stage.coming(BATCH) == expected


def test_capacity_that_comes_soonest_is_taken_first_and_what_cannot_be_had_is_said() -> None:
    stage = Stage(chiron(strategy=STILL))
    for begin, source in ((0, Start), (3 * HOUR, Reclaim)):
        stage.hear(begin, jobs=1_500, work_s=10.0)
        values = tuple(EndpointSeen(0.6, 0, 0.6) for _ in range(12))
        actions = stage.controller.handle(begin + MINUTE, Observed(begin + MINUTE, values, (1_500, 0)))
        assert [type(one) for one in actions] == [source]
        stage.settle(begin + HOUR)
        stage.see(begin + 2 * HOUR, *[0.6] * 12, waiting=0)
        stage.settle(begin + 2 * HOUR)
        stage.hear(begin + 2 * HOUR, jobs=0, work_s=0.0)
        stage.hear(begin + 2 * HOUR + MINUTE, jobs=0, work_s=0.0)
    full = scenario(gpus=32, fleet={"start": 2, "minimum": 2, "maximum": 12}, strategy=STILL)
    stage = Stage(full)
    stage.hear(0, jobs=10_000, work_s=10.0)
    (only,) = stage.see(MINUTE, *[0.6] * 12, waiting=10_000)
    assert (only.done, only.blocked) == (0, Blocked.NO_STOCK)


def test_a_band_of_zero_asks_for_no_instance_that_would_never_be_fed() -> None:
    stage = Stage(chiron(batch={"one_below": 0, "two_below": 0}))
    stage.hear(0, jobs=10_000, work_s=10.0)
    assert stage.see(MINUTE, waiting=10_000) == []


# ------------------------------------------------------------------------------------------------ the account of the queue

ARRIVALS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 50), st.floats(0.1, 100)), max_size=20)


def filled(arrivals: list[tuple[int, int, float]]) -> Backlog:
    backlog = Backlog()
    for quarter, jobs, work_s in arrivals:
        backlog.arrive(quarter * GROUP + 7 * MINUTE, jobs, jobs * work_s * SECOND)
    return backlog


@given(ARRIVALS, st.lists(st.integers(0, 1_000), max_size=10))
def test_work_leaves_with_its_jobs_earliest_due_first(arrivals: list[tuple[int, int, float]], counts: list[int]) -> None:
    backlog = filled(arrivals)
    total = backlog.work
    order = [work_s for _, jobs, work_s in sorted(arrivals, key=lambda one: one[0]) for _ in range(jobs)]
    left = 0.0
    for waiting in counts:
        expected = min(backlog.jobs, waiting)
        left += backlog.leave(waiting)
        assert backlog.jobs == expected
        assert left + backlog.work == pytest.approx(total)
    if len({one[0] for one in arrivals}) == len(arrivals):
        assert left == pytest.approx(sum(order[: len(order) - backlog.jobs]) * SECOND)


@given(ARRIVALS, st.integers(0, 9 * HOUR), st.floats(0.1, 1))
def test_at_the_pace_asked_for_every_group_is_done_when_it_is_due(
    arrivals: list[tuple[int, int, float]], now: Micros, spend: float
) -> None:
    backlog = filled(arrivals)
    pace = backlog.pace(now, LEAD, spend)
    assert (pace > 0) == (backlog.jobs > 0)
    if not pace:
        return
    ahead, tight = 0.0, 0.0
    for quarter, jobs, work_s in sorted(arrivals):
        ahead += jobs * work_s * SECOND
        due = quarter * GROUP
        done = now + LEAD + ahead / pace
        if due - now >= 2 * LEAD:
            assert done <= due + 1
        if jobs:
            tight = max(tight, ahead / pace / (spend * max(due - now - LEAD, LEAD)))
    assert tight == pytest.approx(1.0), "and no faster than the tightest of them needs"


# ------------------------------------------------------------------------------------------------ in the simulated world

NIW = {"deadline": "40m", "priority": 2}
JOBS = 30_000


def busy_hours() -> Iterator[Row]:
    """Interactive requests all along, and a flood of batch jobs of about 0.13 s of engine time within a minute."""
    yield from (row(k * 200_000, tier=("iw-f", "iw-n")[k % 2]) for k in range(2 * 3600 * 5))
    yield from (row(10 * MINUTE + k * 2_000, tier="niw", prompt=5_000, output=10) for k in range(JOBS))


def flood_played() -> Run:
    models = {"big": {"context": 8_000, "engines": {"h100": ENGINE}, "load": {"local": "2m"}}}
    settings = chiron(tiers=TIERS | {"niw": NIW}, models=models)
    settings = settings.model_copy(update={"gpus": {"h100": settings.gpus["h100"].model_copy(update={"start": 3 * MINUTE})}})
    return simulate(settings, trace(settings, busy_hours(), window=2 * HOUR), debug=True)


@pytest.fixture(scope="module")
def flooded() -> Run:
    return flood_played()


class WithoutBatchPool(Chiron):
    """What is left of the rule when no batch instance is ever asked for."""

    def _batch(self, now: Micros, event: Observed, fleet: Fleet, model: int) -> Iterator[Decision]:
        yield from ()


def roles_of(run: Run, tier: int) -> set[str]:
    rows = run.requests[run.requests["tier"] == tier]
    at = np.unique(rows["instance"] // run.layout.slots % len(run.layout.roles))
    return {run.layout.roles[o].name for o in at}


def test_a_flood_of_batch_work_is_done_in_time_by_a_pool_that_then_goes(flooded: Run) -> None:
    rows = flooded.requests[flooded.requests["tier"] == 2]
    assert len(rows) == JOBS
    assert (rows["finish"] >= rows["arrival"]).all()
    assert (rows["finish"] <= rows["deadline"]).all()
    asked = [entry.now for entry in flooded.journal for one in entry.decisions if one.reason is Reason.QUEUE_LATE and one.done]
    gone = [entry.now for entry in flooded.journal for one in entry.decisions if one.reason is Reason.QUEUE_EMPTY]
    assert 10 * MINUTE < min(asked) < 30 * MINUTE
    assert max(asked) < min(gone)
    batch = [pool.number for pool in flooded.layout.pools if flooded.layout.roles[pool.role].name == "batch"]
    assert [flooded.fleet.count(pool, State.SERVING, State.STARTING, State.DRAINING) for pool in batch] == [0, 0]
    assert sum(flooded.fleet.ledger.gpu_us[pool][State.SERVING] for pool in batch) > 0


def test_without_the_batch_pool_the_flood_would_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chiron_module, "Chiron", WithoutBatchPool)
    rows = flood_played().requests
    assert (rows["finish"] > rows["deadline"])[rows["tier"] == 2].mean() > 0.1


def test_every_tier_stays_in_its_roles(flooded: Run) -> None:
    assert roles_of(flooded, 0) <= {"interactive", "mixed"}
    assert "interactive" in roles_of(flooded, 1) <= {"interactive", "mixed"}
    assert roles_of(flooded, 2) == {"batch", "mixed"}


def test_promoted_jobs_go_where_batch_work_may_go() -> None:
    never_fed = {"one_below": 0, "two_below": 0, "promote_after": "5m"}
    settings = chiron(batch=never_fed)
    rows = [row(k * SECOND, tier="niw", region=("east", "west")[k % 2]) for k in range(100)]
    run = simulate(settings, trace(settings, rows, window=HOUR), debug=True)
    assert run.kernel.finished()
    assert (run.requests["state"] & PROMOTED).all()
    assert (run.requests["first"] > run.requests["arrival"] + 5 * MINUTE).all()
    assert roles_of(run, 2) == {"mixed"}
