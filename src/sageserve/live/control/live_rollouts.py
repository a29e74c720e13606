"""Rollouts of a fleet that runs: begun, stopped and taken back when told, counted by what gateways say, kept over restarts.

What is decided is `core/rollout.py`'s. Read next: `rollout_routes.py`, who asks; `rollout_file.py`;
`live/actuators/revisions.py`; docs/how-to/roll-out.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec import Struct

from sageserve.base.config import LiveSettings, RolloutSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import Ints
from sageserve.base.units import NEVER, SECOND, Micros, show_duration
from sageserve.core.actions import Roll, RolloutStep
from sageserve.core.events import RevisionsSeen
from sageserve.core.fleet import Fleet, State
from sageserve.core.layout import Layout
from sageserve.core.rollout import Rollout
from sageserve.core.rollout_plan import plan_of
from sageserve.core.rollouts import Rollouts
from sageserve.data.documents import suggest
from sageserve.live.actuators.revisions import EngineRevisions
from sageserve.live.control.opened import Trials
from sageserve.live.control.rollout_check import check_rollout
from sageserve.live.control.rollout_file import KeptRollout, RolloutFile

_KEEP_EVERY: Final = 5 * SECOND  # what was counted since then is lost with the process
_OVER: Final = (RolloutStep.DONE, RolloutStep.UNDONE, RolloutStep.STOPPED)
ASKS: Final = {"stop": RolloutStep.STOPPED, "back": RolloutStep.BACK}


class RolloutAsk(Struct, frozen=True, forbid_unknown_fields=True):
    """What a person wants of the latest rollout of a model: `stop` or `back`."""

    model: str
    what: str


class RolloutKept(Struct, frozen=True):
    """Interactive requests of a tier that either version was asked while both serve, and those whose promise it kept."""

    tier: str
    promised: float
    old_asked: int
    old_kept: int
    new_asked: int
    new_kept: int


class RolloutStatus(Struct, frozen=True):
    """One rollout.

    Args:
        version: its number; 0 is what the fleet was started with.
        model: which.
        step: how far it is.
        why: it took that step.
        since_s: it did, seconds since 1970.
        begun_s: likewise; None: it waits.
        new: instances of the version that serve or come.
        others: of the model's other versions.
        kept: what was counted; empty before canaries serve.
        waits: what it waits for, in a sentence; empty: nothing.
        steps: all that it took, and when.
    """

    version: int
    model: str
    step: RolloutStep
    why: str
    since_s: float
    begun_s: float | None
    new: int
    others: int
    kept: tuple[RolloutKept, ...]
    waits: str
    steps: tuple[tuple[float, Roll], ...]


@dataclass(frozen=True, slots=True)
class RolloutSides:
    """Who is asked, by the rollouts of one process.

    Args:
        scenario: as it is served.
        layout: numbers of models and instances.
        engines: how engines of each revision are run.
        counted: cumulative counts by model and revision: asked and missed, by tier; `FleetView.by_revision`.
        now: the loop's clock.
        wall: microseconds since 1970.
    """

    scenario: Scenario
    layout: Layout
    engines: EngineRevisions
    counted: dict[tuple[int, int], tuple[Ints, Ints]]
    now: Callable[[], Micros]
    wall: Callable[[], Micros]


class LiveRollouts(Trials):
    """All that were begun since `up`.

    Args:
        sides: who is asked.
        file: where they are kept.
    """

    def __init__(self, sides: RolloutSides, file: RolloutFile) -> None:
        self._sides = sides
        self._file = file
        self._settings: dict[int, RolloutSettings] = {}
        self._kept = file.load()
        self._begun: dict[int, RevisionsSeen] = {}  # by revision: counts when this process began to count for it, taken off
        self._saved: Micros = -NEVER
        self._rollouts: Rollouts | None = None
        self._fleet: Fleet | None = None
        self._trials: dict[int, tuple[int, bool]] = {}  # by model: revision that is judged, and whether by canaries
        for one in self._kept:
            sides.engines.add(one.revision, one.settings)

    @property
    def forgotten(self) -> tuple[str, ...]:
        """Sentences about versions that a run before this one had rolled out, and that the settings do not have."""
        live = self._sides.scenario.live or LiveSettings()
        return tuple(
            f"{one.settings.model} had been rolled out to another version before; this fleet began with the one in its settings."
            for one in self._file.earlier
            if one.memory is not None
            and one.memory.step is RolloutStep.DONE
            and one.settings.engine is not None
            and one.settings.engine != live.engines.get(one.settings.model)
        )

    def attach(self, rollouts: Rollouts, fleet: Fleet) -> None:
        """The controller's; call `recall` once the fleet has its instances."""
        self._rollouts, self._fleet = rollouts, fleet

    def recall(self) -> None:
        """Go on where another process was."""
        now = self._sides.now()
        for one in self._kept:
            if one.settings.model in self._sides.layout.names.models:
                self._add(one.settings, one.revision, now, one)
        self._look()

    def begin(self, one: RolloutSettings) -> RolloutStatus:
        """Begin one at the next look.

        Raises:
            ConfigError: it cannot work, or another one of its model is not over.
        """
        check_rollout(one, self._sides.scenario)
        before = next((each for each in reversed(self._all) if self._settings[each.plan.revision].model == one.model), None)
        if before is not None and before.step not in _OVER:
            raise ConfigError(
                f"a rollout of {one.model} is under way: version {before.plan.revision}, {before.step.value}",
                hint=f"wait for it, or `sageserve rollout back {one.model}`, or `sageserve rollout stop {one.model}`",
            )
        revision = max(self._settings, default=0) + 1
        self._sides.engines.add(revision, one)
        found = self._add(one, revision, self._sides.now(), None)
        self.keep()
        return self._status(found)

    def ask(self, asked: RolloutAsk) -> RolloutStatus:
        """Stop the latest rollout of a model, or take it back, at the next look.

        Raises:
            ConfigError: there is none, or there is nothing to stop or to take back.
        """
        names = [self._settings[one.plan.revision].model for one in self._all]
        if asked.model not in names:
            raise ConfigError(
                f"no rollout of {asked.model!r} was begun since the fleet is up{suggest(asked.model, names)}",
                hint="`sageserve rollout show` lists them",
            )
        latest = next(one for one in reversed(self._all) if self._settings[one.plan.revision].model == asked.model)
        step = ASKS.get(asked.what)
        if step is None:
            raise ConfigError(f"{asked.what!r} cannot be asked of a rollout", hint=f"one of {', '.join(ASKS)}")
        if not latest.takes(step) and latest.step is not RolloutStep.WAITING:
            raise ConfigError(
                f"the rollout of {asked.model} is {latest.step.value}: there is nothing to"
                f" {'stop' if step is RolloutStep.STOPPED else 'take back'}",
                hint="`sageserve rollout show` says how it went",
            )
        if step is not RolloutStep.STOPPED:
            self._refuse_the_same(latest)
        assert self._rollouts is not None
        self._rollouts.ask(latest.plan.model, step)
        return self._status(latest)

    def _refuse_the_same(self, latest: Rollout) -> None:
        """Settings that were given the new command have no old one to go back to.

        Raises:
            ConfigError: they were.
        """
        one, live = self._settings[latest.plan.revision], self._sides.scenario.live
        if one.engine is not None and live is not None and live.engines.get(one.model) == one.engine:
            raise ConfigError(
                f"live.engines.{one.model} has the new command by now: going back would change nothing",
                hint="roll the old command out: `sageserve rollout begin FILE`",
            )

    def seen(self, now: Micros) -> Iterator[RevisionsSeen]:
        """What requests got so far, by revision, of models whose rollouts are judged."""
        assert self._rollouts is not None
        judged = self._rollouts.judged
        for one in judged:
            yield self._seen(one)
        if judged and now - self._saved >= _KEEP_EVERY:
            self.keep()

    def trial(self, instance: int) -> tuple[int, bool]:
        """The revision of an instance if what it keeps is counted (else -1), and whether it is a canary."""
        fleet = self._fleet
        if fleet is None:
            return -1, False
        revision, canary = self._trials.get(fleet.pools[fleet.pool_of[instance]].model, (-1, False))
        mine = fleet.revision[instance]
        return (mine, canary and mine == revision) if revision >= 0 else (-1, False)

    def noted(self) -> bool:
        """Something happened to the fleet: it is kept, and gateways are to be told anew where that is the answer."""
        if self._settings:
            self.keep()
        before = dict(self._trials)
        self._look()
        return before != self._trials

    def keep(self) -> None:
        """Write it all down."""
        now = self._sides.now()
        self._saved = now
        kept = [
            KeptRollout(one.plan.revision, self._settings[one.plan.revision], one.plan.at, one.remember(now)) for one in self._all
        ]
        self._file.save(kept, self._sides.wall() - now)

    def status(self) -> tuple[RolloutStatus, ...]:
        """All of them, the latest first."""
        return tuple(self._status(one) for one in reversed(self._all))

    def notes(self) -> tuple[str, ...]:
        """Those that are not over, and what was forgotten, a sentence each."""
        found = (self._status(one) for one in self._all if one.step not in _OVER)
        return (
            *(
                f"{one.model} is rolled out: version {one.version}, {one.step.value}, {one.new} of {one.new + one.others}"
                f" instances. {one.waits}".strip()
                for one in found
            ),
            *self.forgotten,
        )

    # --- inside ---

    @property
    def _all(self) -> tuple[Rollout, ...]:
        return () if self._rollouts is None else self._rollouts.all

    def _add(self, one: RolloutSettings, revision: int, at: Micros, kept: KeptRollout | None) -> Rollout:
        assert self._rollouts is not None
        names, tiers = self._sides.layout.names, self._sides.scenario.tiers
        self._settings[revision] = one
        plan = plan_of(one, revision, at, names.models, tiers)
        memory = None if kept is None else kept.memory
        self._begun[revision] = self._counted(plan.model, revision)
        if memory is not None and memory.seen:  # counts go on from there
            before, last = self._begun[revision], memory.seen[-1][1]
            asked = tuple(a - b for a, b in zip(before.asked, last.asked, strict=True))
            missed = tuple(a - b for a, b in zip(before.missed, last.missed, strict=True))
            self._begun[revision] = RevisionsSeen(plan.model, asked, missed)
        return self._rollouts.add(plan, memory, self._sides.now())

    def _counted(self, model: int, revision: int) -> RevisionsSeen:
        """Cumulative since this process began."""
        tiers = len(self._sides.scenario.tiers)
        sums = np.zeros((2, 2, tiers), np.int64)  # asked or missed, old or new
        for (m, r), counts in self._sides.counted.items():
            if m == model:
                sums[:, int(r == revision)] += np.array(counts)
        return RevisionsSeen(model, *(tuple(part.ravel().tolist()) for part in sums))

    def _seen(self, one: Rollout) -> RevisionsSeen:
        before, now = self._begun[one.plan.revision], self._counted(one.plan.model, one.plan.revision)
        asked = tuple(a - b for a, b in zip(now.asked, before.asked, strict=True))
        missed = tuple(a - b for a, b in zip(now.missed, before.missed, strict=True))
        return RevisionsSeen(one.plan.model, asked, missed)

    def _look(self) -> None:
        """Who is judged now, and which revisions nothing is started in any more."""
        assert self._rollouts is not None
        canary = RolloutStep.CANARY
        self._trials = {one.plan.model: (one.plan.revision, one.step is canary) for one in self._rollouts.judged}
        wanted = set() if self._fleet is None else set(self._fleet.wanted)
        for one in self._all:
            revision = one.plan.revision
            self._sides.engines.end(revision, over=one.step in _OVER and revision not in wanted)

    def _status(self, one: Rollout) -> RolloutStatus:
        assert self._fleet is not None
        wall = self._sides.wall() - self._sides.now()
        live = (State.SERVING, State.STARTING, State.RECLAIMING)
        held = [
            revision
            for i, revision in enumerate(self._fleet.revision)
            if self._fleet.state[i] in live and self._fleet.pools[self._fleet.pool_of[i]].model == one.plan.model
        ]
        new = held.count(one.plan.revision)
        last = one.steps[-1] if one.steps else None
        return RolloutStatus(
            one.plan.revision,
            self._settings[one.plan.revision].model,
            one.step,
            "" if last is None else last[1].why.value,
            ((one.plan.at if last is None else last[0]) + wall) / SECOND,
            None if one.begun == NEVER else (one.begun + wall) / SECOND,
            new,
            len(held) - new,
            tuple(self._kept_by(one)),
            self._waits(one),
            tuple(((at + wall) / SECOND, roll) for at, roll in one.steps),
        )

    def _kept_by(self, one: Rollout) -> Iterator[RolloutKept]:
        for tier, (name, settings) in enumerate(self._sides.scenario.tiers.items()):
            old, new = one.kept(tier)
            if one.plan.percentiles[tier] > 0 and (old.asked or new.asked):
                yield RolloutKept(name, settings.percentile, old.asked, old.kept, new.asked, new.kept)

    def _waits(self, one: Rollout) -> str:
        if one.step is not RolloutStep.CANARY:
            return ""
        if one.full == NEVER:
            return "It waits for its canaries to serve."
        left = one.plan.judge_after - (self._sides.now() - one.full)
        asked = sum(one.kept(tier)[1].asked for tier in range(len(one.plan.percentiles)))
        more = one.plan.judge_requests - asked
        waits = [f"{show_duration(left // SECOND * SECOND)} more"] if left >= SECOND else []
        waits += [f"{more:,} more requests"] if more > 0 else []
        return f"Its canaries are judged for {' and '.join(waits)}." if waits else "Its canaries are judged: it is doubtful yet."
