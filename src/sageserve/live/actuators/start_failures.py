"""Starts that fail, pool by pool and revision by revision: why, how often in a row, and how long the next one waits.

One that fails may do so for a reason that passes (memory that is freed in a moment) or for one that stays (no such program): the
next one waits 1 s, then twice as long each time, ten minutes at most, and the first that serves ends it. Knows no process.
Read next: `local.py`.
"""

from collections.abc import Callable
from typing import Final

from sageserve.base.units import MINUTE, SECOND, Micros

_FIRST: Final[Micros] = SECOND
_MOST: Final[Micros] = 10 * MINUTE


def pause_after(failures: int) -> Micros:
    """How long the next start waits when so many in a row came to nothing."""
    return min(_MOST, _FIRST << min(failures - 1, 20)) if failures else 0


class StartFailures:
    """Of the pools of one fleet, and the revisions that are started there (0: as the settings have it)."""

    def __init__(self) -> None:
        self._failed: dict[tuple[str, int], tuple[int, str]] = {}

    def failed(self, pool: str, why: str, revision: int = 0) -> None:
        """A start came to nothing."""
        self._failed[pool, revision] = (self._failed.get((pool, revision), (0, ""))[0] + 1, why)

    def served(self, pool: str, revision: int = 0) -> None:
        """One was successful."""
        self._failed.pop((pool, revision), None)

    def pause(self, pool: str, revision: int = 0) -> Micros:
        """How long the next start waits before it begins."""
        return pause_after(self._failed.get((pool, revision), (0, ""))[0])

    def told(self, least: int = 1, over: Callable[[int], bool] = lambda _: False) -> tuple[str, ...]:
        """A sentence for each pool of which so many starts have failed in a row, in a revision that is not over."""
        return tuple(
            f"{pool}{f' in version {revision}' if revision else ''}: {count:,} starts failed in a row; the last one {why}."
            f" The next one waits {self.pause(pool, revision) / SECOND:g} s."
            for (pool, revision), (count, why) in self._failed.items()
            if count >= least and not over(revision)
        )
