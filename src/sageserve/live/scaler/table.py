"""What a leader would tell KEDA of every target, as one value; and what a follower tells, who has heard it, and how long ago.

A follower knows nothing but the last table. Its age is that of what the leader had seen, and all time since the leader was asked,
by the follower's own clock: two clocks are never compared. Older than the leader itself would believe, it is no answer. Pure.
Read next: `answers.py`; `follow.py`, which asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from sageserve.base.config import TargetSettings
from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.base.urls import shown_url
from sageserve.live.scaler.answers import NoCount, RefusalCode, TargetCount, bounded, target_of
from sageserve.live.scaler.messages import KedaTrigger

_LONGEST_S: Final = 3600.0  # that any table may be believed, whoever wrote it


class ToldTarget(Struct, frozen=True):
    """What is told of a target.

    Args:
        count: instances; None: that is not known.
        age_s: of what was seen for it; 0 where nothing need be seen for what is told: an override, or that it is not known.
        why: it is not known.
    """

    count: int | None = None
    age_s: float = 0.0
    why: str = ""


class ScalerTable(Struct, frozen=True):
    """What is told of all targets.

    Args:
        fleet: whose they are.
        limit_s: age from which on what was seen is not to be believed.
        targets: by name.
    """

    fleet: str
    limit_s: float
    targets: dict[str, ToldTarget]


@dataclass(slots=True)
class HeardTable:
    """The last table of a leader.

    Args:
        leader: where it is, for sentences, which say no user and no password.
        fleet: that it must be of.
        table: None: none was heard yet.
        asked_at: when it was asked for.
        why: the last question came to nothing; empty: it did not.
    """

    leader: str
    fleet: str
    table: ScalerTable | None = None
    asked_at: Micros = 0
    why: str = "it was not asked yet"

    def __post_init__(self) -> None:
        self.leader = shown_url(self.leader)

    def take(self, table: ScalerTable, asked_at: Micros) -> None:
        """The leader has answered; where it is another fleet's, what was heard before is of nobody who is there now."""
        if table.fleet != self.fleet:
            self.table = None
            self.why = f"it answers for fleet {table.fleet}, and this is {self.fleet}"
            return
        self.table, self.asked_at, self.why = table, asked_at, ""

    def age_s(self, target: str, now: Micros) -> float:
        """How old what is told of a target is: what was seen then, and since."""
        one = None if self.table is None else self.table.targets.get(target)
        return (0.0 if one is None else max(0.0, one.age_s)) + (now - self.asked_at) / SECOND

    def told(self, targets: Mapping[str, TargetSettings], asked: KedaTrigger, now: Micros) -> TargetCount | NoCount:
        """How many instances, or why not.

        Args:
            targets: by name, as this process has them: names, places and bounds are its own.
            asked: who asks.
            now: the clock.
        """
        name = target_of(targets, asked)
        if isinstance(name, NoCount):
            return name
        target = targets[name]
        if not target.keda:
            return TargetCount(name, target.min)
        if self.table is None:
            return _unknown(f"{name}: nothing was heard from {self.leader}: {self.why}")
        age_s, limit_s = self.age_s(name, now), min(self.table.limit_s, _LONGEST_S)
        if age_s > limit_s:
            since = f"; {self.why}" if self.why else ""
            return _unknown(f"{name}: what {self.leader} said is {_span(age_s)} old, and holds for {_span(limit_s)}{since}")
        one = self.table.targets.get(name)
        if one is None:
            return _unknown(f"{name}: {self.leader} does not know it: are its settings others?")
        return _unknown(one.why or f"{name}: no reason was given") if one.count is None else bounded(name, target, one.count)


def _unknown(why: str) -> NoCount:
    return NoCount(RefusalCode.UNAVAILABLE, why)


def _span(seconds: float) -> str:
    return show_duration(round(seconds) * SECOND)
