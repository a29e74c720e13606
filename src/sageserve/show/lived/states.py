"""What the journal of a live fleet says of instances that did not serve: which came, ended, or were on the spot market, and when.

Serving instances are in the minutes, which know better: a control process that finds one dead when it begins writes no line of
it. So nothing that was coming or ending is carried over a time that was not taken down. Read next: `read.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, Micros
from sageserve.core.actions import Donate, Drain, Reclaim, Release, Start
from sageserve.core.events import InstanceComing, InstanceLeaving, InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.core.fleet import Pool, State
from sageserve.core.work import RecordedAction, RecordedEvent
from sageserve.data.results.journal import Stamped
from sageserve.show.lived.table import MinuteTable

OTHER: Final = (State.STARTING, State.RECLAIMING, State.DRAINING, State.SPOT)
"""States that are told here."""


@dataclass(slots=True)
class OtherStates:
    """Time that instances spent in states but serving, by pool and minute, and what happened to them.

    Args:
        spent: float64[minutes] by state and name of the pool: instances, mean over the minute.
    """

    spent: dict[tuple[State, str], Floats] = field(default_factory=dict)
    starts: int = 0
    failures: int = 0
    reclaims: int = 0
    taken: int = 0

    def of(self, state: State, pool: str, minutes: int) -> Floats:
        """Instances of a pool in a state, minute by minute."""
        return self.spent.get((state, pool), np.zeros(minutes))


class _Reading:
    def __init__(self, table: MinuteTable, pools: Iterable[Pool]) -> None:
        self.found = OtherStates()
        self._wall: Ints = table.wall
        self._pools = {row: pool.name for pool in pools for row in range(pool.begin, pool.end)}
        self._states: dict[int, tuple[State, Micros]] = {}

    def becomes(self, row: int, state: State, now: Micros) -> None:
        before = self._states.pop(row, None)
        if before is not None:
            self._count(row, *before, now)
        if state in OTHER and row in self._pools:
            self._states[row] = state, now

    def forget(self, now: Micros) -> None:
        """What follows is not known."""
        for row in list(self._states):
            self.becomes(row, State.OFF, now)

    def _count(self, row: int, state: State, since: Micros, until: Micros) -> None:
        wall = self._wall
        first, last = np.searchsorted(wall, since, "right") - 1, np.searchsorted(wall, until, "left")
        here = slice(max(0, int(first)), int(last))
        inside = np.minimum(wall[here] + MINUTE, until) - np.maximum(wall[here], since)
        spent = self.found.spent.setdefault((state, self._pools[row]), np.zeros(len(wall)))
        spent[here] += np.clip(inside, 0, None) / MINUTE

    def hear(self, event: RecordedEvent, now: Micros, *, counts: bool) -> None:
        match event:
            case InstanceReady(instance=row):
                self.becomes(row, State.SERVING, now)
            case InstanceComing(instance=row):
                self.becomes(row, State.STARTING, now)
                self.found.starts += counts
            case InstanceLeaving(instance=row):
                self.becomes(row, State.DRAINING, now)
            case StartFailed(instance=row) | InstanceLost(instance=row):
                self.becomes(row, State.OFF, now)
                self.found.failures += counts
            case SpotTaken(instance=row):
                self.becomes(row, State.OFF, now)
                self.found.taken += counts
            case _:
                pass

    def do(self, action: RecordedAction, now: Micros, *, counts: bool) -> None:
        match action:
            case Start(instance=row):
                self.becomes(row, State.STARTING, now)
                self.found.starts += counts
            case Reclaim(instance=row):
                self.becomes(row, State.RECLAIMING, now)
                self.found.reclaims += counts
            case Drain(instance=row):
                self.becomes(row, State.DRAINING, now)
            case Donate(instance=row):
                self.becomes(row, State.SPOT, now)
            case Release(instance=row):
                self.becomes(row, State.OFF, now)
            case _:
                pass


def other_states(lines: Iterable[Stamped], table: MinuteTable, pools: Iterable[Pool]) -> OtherStates:
    """Read a journal, from before the minutes on.

    Args:
        lines: in the order in which they were written.
        table: the minutes of the stretch, one at least.
        pools: whose the rows of instances are.
    """
    reading, gaps = _Reading(table, pools), table.gaps()
    begin, end = int(table.wall[0]), int(table.wall[-1]) + MINUTE
    now: Micros = 0
    for one in lines:
        now = max(now, one.wall)  # a clock that is set back makes no time negative
        if now >= end:
            break
        while gaps and gaps[0][0] <= now:
            reading.forget(gaps.pop(0)[0])
        counts = now >= begin
        reading.hear(one.line.event, now, counts=counts)
        for action in one.line.actions:
            reading.do(action, now, counts=counts)
    reading.forget(gaps[0][0] if gaps else end)
    return reading.found
