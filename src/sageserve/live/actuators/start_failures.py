"""Starts that fail, pool by pool: why, how often in a row, and how long the next one waits.

One that fails may do so for a reason that passes (memory that is freed in a moment) or for one that stays (no such program): the
next one waits 1 s, then twice as long each time, ten minutes at most, and the first that serves ends it. Knows no process.
Read next: `local.py`.
"""

from typing import Final

from sageserve.base.units import MINUTE, SECOND, Micros

_FIRST: Final[Micros] = SECOND
_MOST: Final[Micros] = 10 * MINUTE


class StartFailures:
    """Of the pools of one fleet."""

    def __init__(self) -> None:
        self._failed: dict[str, tuple[int, str]] = {}

    def failed(self, pool: str, why: str) -> None:
        """A start came to nothing."""
        self._failed[pool] = (self._failed.get(pool, (0, ""))[0] + 1, why)

    def served(self, pool: str) -> None:
        """One was successful."""
        self._failed.pop(pool, None)

    def pause(self, pool: str) -> Micros:
        """How long the next start waits before it begins."""
        count = self._failed.get(pool, (0, ""))[0]
        return min(_MOST, _FIRST << min(count - 1, 20)) if count else 0

    def told(self, least: int = 1) -> tuple[str, ...]:
        """A sentence for each pool of which so many starts have failed in a row."""
        return tuple(
            f"{pool}: {count:,} starts failed in a row; the last one {why}. The next one waits {self.pause(pool) / SECOND:g} s."
            for pool, (count, why) in self._failed.items()
            if count >= least
        )
