"""What is wanted of every pool now, and whether that may be said: not of what is not seen, and not by a plan that is overdue.

Read next: `live/control/wishes.py` for the counts, `live/scaler/answers.py` for who is told.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.core.fleet import Pool
from sageserve.live.control.wishes import Wishes
from sageserve.live.scaler.answers import PoolWish
from sageserve.live.watch.view import WatchedView

FRESH: Final[Micros] = SECOND
"""What was found is said again for so long: hundreds may ask within a second."""


class PoolWishes:
    """Counts of pools, found anew at most once a second.

    Args:
        pools: that are watched.
        wishes: counts that stand.
        view: what is seen.
        holds: how long a plan stands, microseconds.
        unheard: why nothing at all is known; empty: something is.
    """

    def __init__(
        self, pools: Iterable[Pool], wishes: Wishes, view: WatchedView, holds: Micros, unheard: Callable[[], str]
    ) -> None:
        self._pools: Final = {pool.name: pool for pool in pools}
        self._wishes, self._view, self._holds, self._unheard = wishes, view, holds, unheard
        self._found: Mapping[str, PoolWish] = {}
        self._found_at: Micros = -FRESH

    def of(self, pool: str, now: Micros) -> PoolWish:
        """What is wanted of a pool.

        Args:
            pool: region/model/gpu.
            now: of the loop's clock.
        """
        if not 0 <= now - self._found_at < FRESH:
            self._found, self._found_at = self._find(now), now
        return self._found.get(pool, PoolWish(0, f"{pool} is not watched"))

    def _find(self, now: Micros) -> Mapping[str, PoolWish]:
        common = self._unheard() or self._overdue(now)
        blind = frozenset(self._view.blind())
        found = {}
        for name, pool in self._pools.items():
            unknown = common
            if not unknown and pool.endpoint in blind:
                unknown = self._view.unseen.get(pool.endpoint, "its signals are too old")
            found[name] = PoolWish(self._wishes.would(now, pool.number), unknown)
        return found

    def _overdue(self, now: Micros) -> str:
        made = self._wishes.planned_at
        if made is None or now - made <= self._holds:
            return ""
        return f"the plan is {show_duration((now - made) // SECOND * SECOND)} old, and the next one is overdue"
