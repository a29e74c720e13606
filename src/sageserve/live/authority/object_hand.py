"""What every hand has: an object, whether it may be written, what people said of that, and what comes of a write that is refused.

Knows no field of any object. Read next: `target_hand.py`, of what has a count; `share_hand.py`, of what shares requests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from sageserve.base.config.clusters import ShareSettings, TargetSettings
from sageserve.base.units import Micros
from sageserve.core.authority.records import Demotion, DemotionCause
from sageserve.core.authority.standing import Standing
from sageserve.live.authority.lease_keeper import LeaseKeeper
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace, ObjectWriter

Told: TypeAlias = Callable[[str, Mapping[str, str | int]], None]
"""An act and facts about it, for the audit log."""


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


class ObjectHand:
    """One object.

    Args:
        name: in the settings.
        where: the settings it is in, such as live.targets.
        settings: of it.
        standing: whether it may be written.
        tools: to work with.
    """

    def __init__(
        self, name: str, where: str, settings: TargetSettings | ShareSettings, standing: Standing, tools: HandTools
    ) -> None:
        self.name = name
        self.trouble = ""  # why the last write was refused, or nothing can be written; empty: neither
        self.place: Final = ObjectPlace(settings.kind, *settings.name.split("/", 1))
        self._where, self._standing, self._tools = where, standing, tools
        self._told_demotion: Demotion | None = None
        self._again = False  # a person thawed it: what is there now is the original

    def hear_orders(self, demoted: Demotion | None) -> None:
        """What the orders say of its demotion: one of an earlier process holds, and one that a person took away does not."""
        if demoted is not None:
            self._standing.demote(demoted)
        elif self._standing.demoted is not None and self._told_demotion is not None:
            self._standing.thaw()
            self._again = True
            self._tools.told("thawed", {"target": self.name})
        self._told_demotion = demoted

    def _demote_for(self, who: str) -> None:
        """Somebody else wrote what was ours."""
        self._standing.demote(Demotion(DemotionCause.FOREIGN_WRITE, who, self._tools.wall()))

    def _refused(self, done: NotWritten, *, taken: bool) -> None:
        """A write came to nothing; `taken`: what it was of had been ours."""
        tools = self._tools
        if done.stale or done.status == 0:
            return  # it had just changed, or nobody answered: the next look says how it is
        self.trouble = done.detail
        if done.conflicts:
            one = done.conflicts[0]
            self.trouble = f"{one.field.lstrip('.')} belongs to {one.manager}"
            if not taken:
                self.trouble += f": take that line out of its manifest, or write {self._where}.{self.name}.take_over: true"
        tools.told("refused", {"target": self.name, "status": done.status, "why": done.detail})
        if done.conflicts and taken:
            self._demote_for(self.trouble)
            return
        self._standing.refused(tools.now(), self.trouble, tools.wall())

    def _only_observed(self) -> str:
        """That its authority was taken away, in a sentence; empty: it was not."""
        if (demoted := self._standing.demoted) is None:
            return ""
        return f"{self.name} is only observed: {demoted.cause.value}, {demoted.detail}. Then: sageserve thaw {self.name}"
