"""One target: what is seen of its object becomes a step of its ladder, the step a write, and what comes of it is taken in.

Each write is bound to the version of the object that was read, so that one from a process that stood still comes to nothing once
anybody wrote there. What is written, and how, is each kind's own. Read next: `bound_hand.py`, `count_hand.py`; `hands.py`, which
goes round.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec import structs

from sageserve.base.config.clusters import TargetSettings
from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.core.authority.ladder import TargetLadder
from sageserve.core.authority.records import (
    BoundStep,
    BoundWish,
    LadderRules,
    TargetOrder,
    TargetSight,
    Withheld,
)
from sageserve.live.authority.object_hand import HandTools, ObjectHand
from sageserve.live.authority.orders import HeldCount
from sageserve.live.authority.pods import ColdStarts, PodSeen, PodTally, selected, tally
from sageserve.live.authority.target_object import TargetObject
from sageserve.live.kubernetes.writer import NotWritten, WriteMark


@dataclass(frozen=True, slots=True)
class PoolAsked:
    """What decisions ask of a pool, and how it is.

    Args:
        count: instances; None: nothing is asked.
        use: utilisation of its endpoint.
        blind: its signals are too old.
        heard: when decisions were last possible, by the loop's clock.
        runs: instances of it that serve.
        busy: requests in flight, by name or address of the instance, of those that were seen.
        plan: the reviewed plan whose count this is, by its hash; empty: decisions ask for it.
    """

    count: int | None
    use: float
    blind: bool
    heard: Micros
    runs: int = 0
    busy: Mapping[str, int] = field(default_factory=dict)
    plan: str = ""


class TargetHand(ObjectHand, ABC):
    """One target; what is written of it is said by whoever inherits this.

    Args:
        name: in the settings.
        settings: of it.
        rules: of its ladder.
        tools: to work with.
    """

    def __init__(self, name: str, settings: TargetSettings, rules: LadderRules, tools: HandTools) -> None:
        self.settings = settings
        self.ladder: Final = TargetLadder(rules, tools.now())
        super().__init__(name, "live.targets", settings, self.ladder, tools)
        self.step = BoundStep(withheld=Withheld.NO_LEASE)
        self.seen: TargetObject | None = None
        self.held: HeldCount | None = None
        self.pods = PodTally()
        self.starts: Final = ColdStarts()
        self.left = ""  # what is ours alone and could not be taken away, and why; empty: nothing
        self._dry: BoundStep | None = None

    def see_pods(self, pods: Sequence[PodSeen], wall: Micros) -> None:
        """Pods of the namespace of its object."""
        mine = selected(pods, {} if self.seen is None else self.seen.pod_labels)
        self.starts.see(mine)
        self.pods = tally(mine, self.starts, wall)

    async def act(self, seen: TargetObject, asked: PoolAsked, order: TargetOrder, budget: int | None, *, frozen: bool) -> None:
        """Look, decide, and write what is decided."""
        tools = self._tools
        self.seen = seen
        tools.keeper.elector.saw_epoch(self._epoch(seen))
        if who := self._foreign(seen):
            self._demote_for(who)
        sight = self._sight(seen, asked)
        sight = structs.replace(sight, budget=budget, frozen=frozen, stuck=self.pods.stuck, rival=seen.rival)
        wish = BoundWish(asked.count, None, asked.heard)
        leased = tools.keeper.elector.may_write(tools.now())
        self.step = step = self.ladder.decide(tools.now(), sight, wish, order, leased=leased)
        if not step.changes and not self._to_be_told(seen, step):
            self.trouble = "" if self.ladder.demoted is None else self.trouble
            await self._tidy_up(seen, asked)
            return
        if not tools.keeper.elector.may_write(tools.now()):
            return  # it was lost while this was thought about
        done, new = await self._write(seen, step, asked)
        if isinstance(done, NotWritten):
            self._refused(done, taken=not new)
            return
        self.trouble = ""
        if tools.dry_run:
            self._tell_dry(step)
            return
        self.left = ""
        self.ladder.wrote(tools.now(), sight, step)
        self._wrote(seen, step)

    async def _tidy_up(self, seen: TargetObject, asked: PoolAsked) -> None:
        """Take away what is ours alone and holds no longer: also where frozen or demoted, as nobody's values change."""
        tools, what = self._tools, self._over(seen)
        if not what:
            self.left = ""
            return
        if tools.dry_run or not tools.keeper.elector.may_write(tools.now()):
            return
        gone = await self._take_away(seen, self._mark(self._decision(asked)))
        facts: dict[str, str | int] = {"target": self.name, "what": what}
        if gone is None:
            self.left = ""
            tools.told("taken-away", facts)
        elif not gone.stale and gone.status != 0 and (left := f"{what} stays on {self.name}: {gone.detail}.") != self.left:
            self.left = left
            tools.told("refused", facts | {"status": gone.status, "why": gone.detail})

    # --- each kind's own ---

    @abstractmethod
    def _epoch(self, seen: TargetObject) -> int:
        """Of the last write of ours."""

    @abstractmethod
    def _foreign(self, seen: TargetObject) -> str:
        """Who took what was ours; empty: nobody did."""

    @abstractmethod
    def _sight(self, seen: TargetObject, asked: PoolAsked) -> TargetSight:
        """What the ladder is told of the object."""

    @abstractmethod
    def _to_be_told(self, seen: TargetObject, step: BoundStep) -> bool:
        """Whether there is something to write although no value changes."""

    @abstractmethod
    async def _write(self, seen: TargetObject, step: BoundStep, asked: PoolAsked) -> tuple[object, bool]:
        """Write a step: what came of it, and whether something was taken that was not ours before."""

    @abstractmethod
    def _over(self, seen: TargetObject) -> str:
        """What stands there, is ours alone and holds no longer; empty: nothing."""

    @abstractmethod
    async def _take_away(self, seen: TargetObject, mark: WriteMark) -> NotWritten | None:
        """Take that away and nothing else; why it could not be, or None."""

    @abstractmethod
    def _wrote(self, seen: TargetObject, step: BoundStep) -> None:
        """A step was written."""

    @abstractmethod
    def _facts(self, step: BoundStep) -> dict[str, str | int]:
        """What the audit log holds of a step."""

    # --- of all kinds ---

    def _mark(self, decision: str) -> WriteMark:
        return WriteMark(self._tools.manager, decision, self._tools.dry_run)

    def _decision(self, asked: PoolAsked) -> str:
        """Its number."""
        plan = f"#{asked.plan}" if asked.plan else ""
        return f"{self.settings.pool}@{self._tools.wall() // SECOND}{plan}"

    def _tell_dry(self, step: BoundStep) -> None:
        if step != self._dry:
            self._dry = step
            self._tools.told("dry-run", self._facts(step))

    def note(self) -> str:
        """What a person should know of it, in a sentence or two; empty: nothing."""
        return " ".join(one for one in (self._note(), self.left) if one)

    def _note(self) -> str:
        if observed := self._only_observed():
            return observed
        if self.trouble:
            return f"{self.name} was not written: {self.trouble}."
        if self.step.withheld is Withheld.OTHER_WRITER and self.seen is not None:
            return f"{self.name} is not written: {self.seen.rival}."
        if self.pods.stuck:
            return f"{self.name} has {self.pods.stuck} pods that cannot come ({self.pods.why}): no more is asked for."
        if self.pods.late and (usual := self.starts.quantile(0.95)) is not None:
            took = show_duration(usual // SECOND * SECOND)
            return f"{self.name} has {self.pods.late} pods that have been starting for more than twice what it takes ({took})."
        if self.step.withheld is Withheld.AT_ZERO:
            return f"{self.name} stands at 0 replicas, where an HPA is off: a minimum does nothing until somebody starts one."
        return ""
