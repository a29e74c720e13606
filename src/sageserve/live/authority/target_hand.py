"""One target: what is seen of its object becomes a step of its ladder, the step a write, and what comes of it is taken in.

Each write is bound to the version of the object that was read, so that one from a process that stood still comes to nothing once
anybody wrote there. What is written, and how, is each kind's own. Read next: `bound_hand.py`, `count_hand.py`; `hands.py`, which
goes round.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from msgspec import structs

from sageserve.base.config.clusters import TargetSettings
from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.core.authority.ladder import TargetLadder
from sageserve.core.authority.records import (
    BoundStep,
    BoundWish,
    Demotion,
    DemotionCause,
    LadderRules,
    TargetOrder,
    TargetSight,
    Withheld,
)
from sageserve.live.authority.lease_keeper import LeaseKeeper
from sageserve.live.authority.orders import HeldCount
from sageserve.live.authority.pods import ColdStarts, PodSeen, PodTally, selected, tally
from sageserve.live.authority.target_object import TargetObject
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace, ObjectWriter, WriteMark

Told: TypeAlias = Callable[[str, Mapping[str, str | int]], None]
"""An act and facts about it, for the audit log."""


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


@dataclass(frozen=True, slots=True)
class HandTools:
    """What all hands of a cluster share.

    Args:
        writer: the cluster.
        keeper: of the lease.
        manager: of fields, in the cluster.
        orders: where what people said is kept, and what was found.
        now: the monotonic clock, the loop's.
        wall: microseconds since 1970.
        told: the audit log.
        dry_run: writes are checked by the server and not kept.
    """

    writer: ObjectWriter
    keeper: LeaseKeeper
    manager: str
    orders: ObjectPlace
    now: Callable[[], Micros]
    wall: Callable[[], Micros]
    told: Told
    dry_run: bool = False


class TargetHand(ABC):
    """One target; what is written of it is said by whoever inherits this.

    Args:
        name: in the settings.
        settings: of it.
        rules: of its ladder.
        tools: to work with.
    """

    def __init__(self, name: str, settings: TargetSettings, rules: LadderRules, tools: HandTools) -> None:
        self.name, self.settings = name, settings
        self.ladder: Final = TargetLadder(rules, tools.now())
        self.step = BoundStep(withheld=Withheld.NO_LEASE)
        self.seen: TargetObject | None = None
        self.held: HeldCount | None = None
        self.pods = PodTally()
        self.starts: Final = ColdStarts()
        self.trouble = ""  # why the last write was refused; empty: it was not
        self.left = ""  # what is ours alone and could not be taken away, and why; empty: nothing
        self._tools = tools
        self._told_demotion: Demotion | None = None
        self._again = False  # a person thawed it: what is there now is the original
        self._dry: BoundStep | None = None

    @property
    def place(self) -> ObjectPlace:
        """Of its object."""
        namespace, name = self.settings.name.split("/", 1)
        return ObjectPlace(self.settings.kind, namespace, name)

    def hear_orders(self, demoted: Demotion | None) -> None:
        """What the orders say of its demotion: one of an earlier process holds, and one that a person took away does not."""
        if demoted is not None:
            self.ladder.demote(demoted)
        elif self.ladder.demoted is not None and self._told_demotion is not None:
            self.ladder.thaw()
            self._again = True
            self._tools.told("thawed", {"target": self.name})
        self._told_demotion = demoted

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
            self.ladder.demote(Demotion(DemotionCause.FOREIGN_WRITE, who, tools.wall()))
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

    def _refused(self, done: NotWritten, *, taken: bool) -> None:
        tools = self._tools
        if done.stale or done.status == 0:
            return  # it had just changed, or nobody answered: the next look says how it is
        self.trouble = done.detail
        if done.conflicts:
            one = done.conflicts[0]
            self.trouble = f"{one.field.lstrip('.')} belongs to {one.manager}"
            if not taken:
                self.trouble += f": take that line out of its manifest, or write live.targets.{self.name}.take_over: true"
        tools.told("refused", {"target": self.name, "status": done.status, "why": done.detail})
        if done.conflicts and taken:
            self.ladder.demote(Demotion(DemotionCause.FOREIGN_WRITE, self.trouble, tools.wall()))
            return
        self.ladder.refused(tools.now(), self.trouble, tools.wall())

    def _tell_dry(self, step: BoundStep) -> None:
        if step != self._dry:
            self._dry = step
            self._tools.told("dry-run", self._facts(step))

    def note(self) -> str:
        """What a person should know of it, in a sentence or two; empty: nothing."""
        return " ".join(one for one in (self._note(), self.left) if one)

    def _note(self) -> str:
        if (demoted := self.ladder.demoted) is not None:
            return f"{self.name} is only observed: {demoted.cause.value}, {demoted.detail}. Then: sageserve thaw {self.name}"
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
