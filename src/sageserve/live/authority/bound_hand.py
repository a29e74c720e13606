"""A target that has bounds: its minimum, and its maximum too, by server-side apply.

Read next: `target_hand.py`, `target_object.py`.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import structs

from sageserve.core.authority.records import BoundStep, TargetSight, Withheld
from sageserve.live.authority.target_hand import PoolAsked, TargetHand
from sageserve.live.authority.target_object import (
    DECISION,
    EPOCH,
    OriginalField,
    TargetObject,
    apply_body,
    dotted,
    foreign_writer,
    paths_of,
    sight_of,
)
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import NotWritten, WriteMark

PAUSED_SCALE_IN: Final = "autoscaling.keda.sh/paused-scale-in"
"""KEDA's brake: its HPA adds and takes nothing away."""
_AT: Final = ("metadata", "annotations", PAUSED_SCALE_IN)


class BoundHand(TargetHand):
    """An HPA or a ScaledObject; of the latter on rung `bounds` nothing is taken away by KEDA either while we are blind."""

    _brake = False  # it is to be on

    def _epoch(self, seen: TargetObject) -> int:
        return seen.epoch

    def _foreign(self, seen: TargetObject) -> str:
        who = foreign_writer(seen, self._tools.manager)
        self._again &= bool(who) or not seen.original()  # whoever wrote since has it as it was found
        return "" if self._again else who

    def _sight(self, seen: TargetObject, asked: PoolAsked) -> TargetSight:
        self._brake = asked.blind and seen.found.kind == "ScaledObject" and self.ladder.allowed == "bounds"
        sight = sight_of(seen, self._tools.wall(), asked.use, blind=asked.blind)
        if not self._again:
            return sight
        own = sight.own_low if self._tools.manager in seen.owners(KINDS[seen.found.kind].low) else seen.low
        return structs.replace(sight, own_low=own, ours=False)

    def _to_be_told(self, seen: TargetObject, step: BoundStep) -> bool:
        taken = bool(foreign_writer(seen, self._tools.manager))
        kept = step.withheld in {Withheld.FROZEN, Withheld.OTHER_WRITER}
        owners = seen.owners(_AT)
        theirs = any(one != self._tools.manager for one in owners)
        braked = bool(seen.original()) and not theirs and bool(owners) is not self._brake
        return (taken or braked) and step.low is not None and not kept

    async def _write(self, seen: TargetObject, step: BoundStep, asked: PoolAsked) -> tuple[KubeObject | NotWritten, bool]:
        tools = self._tools
        marks = {EPOCH: str(tools.keeper.elector.epoch), DECISION: self._decision(asked)}
        owners = seen.owners(_AT)
        if self._brake and all(one == tools.manager for one in owners):
            marks[PAUSED_SCALE_IN] = "true"
        body, new = apply_body(seen, self.ladder.allowed, step, marks, kept=self._kept(seen))
        force = self.settings.take_over and (new or self._shared(seen))
        return await tools.writer.apply(self.place, body, self._mark(marks[DECISION]), force=force), new

    def _shared(self, seen: TargetObject) -> bool:
        """Whether fields of ours are still their first owner's too: one that was taken at the value it had belongs to both."""
        found = {name: set(seen.owners(tuple(name.split(".")))) - {self._tools.manager} for name in seen.original()}
        others = {name: who for name, who in found.items() if who}
        return bool(others) and all(who == {seen.original()[name].manager} for name, who in others.items())

    def _over(self, seen: TargetObject) -> str:
        return PAUSED_SCALE_IN if not self._brake and set(seen.owners(_AT)) == {self._tools.manager} else ""

    async def _take_away(self, seen: TargetObject, mark: WriteMark) -> NotWritten | None:
        """By a merge patch: an apply would have to say of every other field whose it is by now."""
        body: Mapping[str, Json] = {"metadata": {"resourceVersion": seen.version, "annotations": {PAUSED_SCALE_IN: None}}}
        done = await self._tools.writer.merge(self.place, body, mark)
        return done if isinstance(done, NotWritten) else None

    def _wrote(self, seen: TargetObject, step: BoundStep) -> None:
        self._again = False
        was: dict[str, str | int] = {"was_low": seen.low, "was_high": seen.high, "withheld": step.withheld.value}
        self._tools.told("bounds", self._facts(step) | was)

    def _kept(self, seen: TargetObject) -> dict[str, OriginalField]:
        """What was found before us, of fields that are still ours where a person has taken some back."""
        found = seen.original()
        mine = self._tools.manager
        return {name: one for name, one in found.items() if not self._again or mine in seen.owners(tuple(name.split(".")))}

    def _facts(self, step: BoundStep) -> dict[str, str | int]:
        kind = KINDS[self.settings.kind]
        values = {dotted(kind.low): step.low, dotted(kind.high): step.high}
        found: dict[str, str | int] = {"target": self.name, "object": f"{self.settings.kind} {self.settings.name}"}
        names = [dotted(path) for path in paths_of(self.settings.kind, self.ladder.allowed)]
        found |= {name: value for name, value in values.items() if value is not None and name in names}
        return found | {"epoch": self._tools.keeper.elector.epoch}
