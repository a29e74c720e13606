"""Whether an object's authority was taken away, and by what: at once, or by three writes that were refused within ten minutes.

Of whatever kind the object is. Pure. Read next: `ladder.py`, of what has a count; `shares.py`, of what shares requests.
"""

from collections import deque

from sageserve.base.units import Micros
from sageserve.core.authority.records import REFUSED_MOST, REFUSED_OVER, Demotion, DemotionCause


class Standing:
    """One object's.

    Args:
        demoted: since an earlier process; None: nobody took it away.
    """

    def __init__(self, demoted: Demotion | None = None) -> None:
        self.demoted = demoted
        self._refused: deque[Micros] = deque()

    def refused(self, now: Micros, detail: str, wall: Micros) -> None:
        """A write came to nothing, and not because the object had just changed."""
        self._refused.append(now)
        while self._refused[0] <= now - REFUSED_OVER:
            self._refused.popleft()
        if len(self._refused) >= REFUSED_MOST:
            self.demote(Demotion(DemotionCause.REFUSED_WRITES, detail, wall))

    def demote(self, demotion: Demotion) -> None:
        """Take its authority away; the first cause counts."""
        self.demoted = self.demoted or demotion

    def thaw(self) -> None:
        """Give it its authority back."""
        self.demoted = None
        self._refused.clear()
