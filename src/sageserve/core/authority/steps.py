"""How far a bound may move now: the ramp upwards, the pace downwards, and what the others can carry.

    up      at most max(2, half of what runs) above what runs, within any minute; up to what runs at once
    down    at most max(1, a tenth) within any five minutes, and only as far as the others stay below the headroom

and neither way more than the step of the cluster's owner, where there is one.

Amounts of the last minutes are kept. Whoever begins does not know what was done before, so all of it is taken for used up until
the window has passed. Knows no target. Read next: `ladder.py`.
"""

from collections import deque
from math import floor

from sageserve.base.units import Micros


class RecentSteps:
    """Amounts of steps within a window.

    Args:
        begins: the first instant; what was done before is not known.
        over: length of the window.
    """

    def __init__(self, begins: Micros, over: Micros) -> None:
        self._begins, self._over = begins, over
        self._steps: deque[tuple[Micros, int]] = deque()

    def add(self, now: Micros, amount: int) -> None:
        """A step was made."""
        if amount > 0:
            self._steps.append((now, amount))

    def known(self, now: Micros) -> bool:
        """Whether all of the window is known."""
        return now - self._begins >= self._over

    def total(self, now: Micros) -> int:
        """What was done within the window."""
        while self._steps and self._steps[0][0] <= now - self._over:
            self._steps.popleft()
        return sum(amount for _, amount in self._steps)


def ramp_room(steps: RecentSteps, now: Micros, running: int, share: float, step: int | None = None) -> int:
    """Instances that may be asked for above what runs."""
    most = max(2, floor(share * running))
    return max(0, (most if step is None else min(most, step)) - steps.total(now)) if steps.known(now) else 0


def pace_room(steps: RecentSteps, now: Micros, value: int, step: int | None = None) -> int:
    """Instances by which a bound may be lowered."""
    if not steps.known(now):
        return 0
    lowered = steps.total(now)
    most = max(1, (value + lowered) // 10)
    return max(0, (most if step is None else min(most, step)) - lowered)


def headroom_room(ready: int, use: float, headroom: float) -> int:
    """Instances that may go so that the others are not fuller than the headroom."""
    return max(0, floor(ready - use * ready / headroom + 1e-9))
