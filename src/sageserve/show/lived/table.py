"""Minutes of a live fleet as columns: what served by pool, what came and was missed by tier, what waited by model.

Reads `data/watched/minutes.py`; computes nothing. Read next: `read.py`.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sageserve.base.records import Ints
from sageserve.base.units import MINUTE, Micros
from sageserve.data.watched.minutes import WatchedMinute

TOGETHER: Final = 2 * MINUTE  # minutes that begin within it are one stretch: a clock is set now and then


@dataclass(frozen=True, slots=True)
class MinuteTable:
    """Columns of equal length, in order of time.

    Args:
        wall: int64[n], where minutes begin, microseconds since 1970.
        did: int64[n] by pool, instances that served at its end.
        requests: int64[n] by tier.
        missed: int64[n] by tier.
        waiting: int64[n] by model.
    """

    wall: Ints
    did: dict[str, Ints]
    requests: dict[str, Ints]
    missed: dict[str, Ints]
    waiting: dict[str, Ints]

    def gaps(self) -> list[tuple[Micros, Micros]]:
        """Times between minutes that were not taken down."""
        at = np.flatnonzero(np.diff(self.wall) >= TOGETHER)
        return [(int(self.wall[k]) + MINUTE, int(self.wall[k + 1])) for k in at]


@dataclass(slots=True)
class _Columns:
    """Rows while they are read: eight bytes a number."""

    rows: int = 0
    found: dict[str, "array[int]"] = field(default_factory=dict)

    def put(self, name: str, value: int) -> None:
        """Of the row that is read now; rows in which a name was not are zero."""
        column = self.found.setdefault(name, array("q"))
        column.extend([0] * (self.rows - len(column)))
        column.append(value)

    def sorted(self, order: Ints) -> dict[str, Ints]:
        """By name, in an order of the rows."""
        return {
            name: np.concatenate([np.array(column, np.int64), np.zeros(self.rows - len(column), np.int64)])[order]
            for name, column in self.found.items()
        }


def table_of(minutes: Iterable[WatchedMinute]) -> MinuteTable:
    """Minutes in any order, for a clock may have been set back; of those that begin at one time the last counts."""
    wall = array("q")
    did, requests, missed, waiting = (_Columns() for _ in range(4))
    for minute in minutes:
        wall.append(minute.wall)
        for pool in minute.pools:
            did.put(pool.pool, pool.did)
        for tier in minute.tiers:
            requests.put(tier.tier, tier.requests)
            missed.put(tier.tier, tier.missed)
        for model in minute.backlog:
            waiting.put(model.model, model.waiting)
        for one in (did, requests, missed, waiting):
            one.rows += 1
    times = np.array(wall, np.int64)
    order = np.argsort(times, kind="stable")
    last = np.append(np.diff(times[order]) > 0, True) if len(order) else np.zeros(0, np.bool_)
    kept = order[last]
    return MinuteTable(times[kept], did.sorted(kept), requests.sorted(kept), missed.sorted(kept), waiting.sorted(kept))
