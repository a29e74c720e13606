"""What is never done, whatever a strategy wants: the guard between decisions and a live fleet.

    blind        an endpoint whose signals are too old loses no instance, nor does any after a look that was too long ago
    headroom     none is drained if the others would then be fuller than a mark (seen x N / (N - 1)), but of an idle endpoint
    pace         a share of an endpoint's instances within an hour, one at least
    shadow       decisions are only written down; what a run begins with is started all the same

Growing is forbidden in shadow mode alone: too many instances cost money, too few break promises. Shadow comes last: what one of
the other rules would have kept from being done says so, and the rest is what would have been done. Pure; reads no clock.
Read next: `controller.py`, which asks before it acts.
"""

from collections import deque
from math import floor
from typing import ClassVar

from sageserve.base.config import SafetySettings
from sageserve.base.units import HOUR, Micros
from sageserve.core.actions import Blocked
from sageserve.core.events import Observed


class Guard:
    """Remembers what was seen last and drained lately.

    Args:
        rules: the marks.
        endpoints: how many endpoints there are.
        every: microseconds from look to look. What was seen that long before `blind_after` is believed no more, however late
            the next look is: a process that stood still goes on with what it knew.
    """

    NOBODY: ClassVar[int] = 0
    """Instances that serve an endpoint which nobody asks for: none is missed."""

    def __init__(self, rules: SafetySettings, endpoints: int, *, every: Micros) -> None:
        self._rules = rules
        self._patience = rules.blind_after + every
        self._scraped: Micros = 0
        self._blind = frozenset(range(endpoints))  # nothing has been seen yet
        self._seen = [0.0] * endpoints
        self._drained: list[deque[Micros]] = [deque() for _ in range(endpoints)]

    def see(self, event: Observed) -> None:
        """Take in what was seen of the fleet."""
        self._scraped = event.scraped
        self._blind = frozenset(event.blind)
        self._seen = [endpoint.seen for endpoint in event.endpoints]

    def forbids_growth(self, endpoint: int) -> Blocked:
        """Why no instance of an endpoint may be started now; NOT when one may."""
        return Blocked.NOT if self._rules.act else Blocked.SHADOW

    def forbids_drain(self, now: Micros, endpoint: int, serving: int) -> Blocked:
        """Why none of the `serving` instances of an endpoint may be drained now; NOT when one may."""
        if now - self._scraped > self._patience:
            return Blocked.BLIND
        if endpoint in self._blind:
            return Blocked.BLIND
        if serving == self.NOBODY:
            return Blocked.NOT if self._rules.act else Blocked.SHADOW
        if serving < 2 or self._seen[endpoint] * serving / (serving - 1) > self._rules.headroom:
            return Blocked.NO_HEADROOM
        drained = self._drained[endpoint]
        while drained and drained[0] <= now - HOUR:
            drained.popleft()
        allowed = max(1, floor(self._rules.change_per_hour * (serving + len(drained))))
        if len(drained) >= allowed:
            return Blocked.TOO_FAST
        return Blocked.NOT if self._rules.act else Blocked.SHADOW

    def drained(self, now: Micros, endpoint: int) -> None:
        """Note that an instance of an endpoint is drained at `now`."""
        self._drained[endpoint].append(now)


class Onlooker(Guard):
    """The guard of a fleet that is only watched: how many instances a blind endpoint has is not known, so it wants none either.

    Args:
        rules: the marks; whatever they say of acting, nothing is done.
        endpoints: how many endpoints there are.
        every: microseconds from look to look.
    """

    def __init__(self, rules: SafetySettings, endpoints: int, *, every: Micros) -> None:
        super().__init__(rules.model_copy(update={"act": False}), endpoints, every=every)

    def forbids_growth(self, endpoint: int) -> Blocked:
        """Why no instance of an endpoint may be started: it is blind, or nothing is done at all."""
        return Blocked.BLIND if endpoint in self._blind else Blocked.SHADOW
