"""Endpoints that may have no instance (`fleet.minimum: 0`): when one is woken, and when it is left without again.

Woken, with the instances it keeps while it has any: when requests wait and nothing that may serve them has an instance or gets
one; when batch jobs wait and nobody would be given them; when what serves is full and cannot grow. Left: after `idle` without
work. A plan that wants no more than is kept while awake leaves an endpoint asleep, for a request brings that much. KEDA has a
clock and a measure of work of its own. Pure; reads no clock. Read next: `controller.py`, which asks before the strategy.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from sageserve.base.units import Micros
from sageserve.core.actions import Blocked, Decision, Reason
from sageserve.core.events import DemandSeen, DoorSeen, Event, InstanceReady, Observed
from sageserve.core.fleet import Fleet, Pool
from sageserve.core.layout import Layout
from sageserve.core.spot import find_capacity

_NEVER_FULL: Final = float("inf")


class Sleepers:
    """Remembers who waits and where there was work.

    Args:
        layout: numbers of pools and endpoints, and who may serve whom.
        idle: microseconds without work after which an endpoint has no instance.
        full: utilisation from which an endpoint that cannot grow is relieved by one that is woken; infinite: never.
        polling: microseconds between questions whether anybody waits; 0: whoever waits is heard at once.
        activation: requests that may wait and wake nobody.
        own_work: work is what the front door counts; false: what `saw` is told.
    """

    def __init__(
        self,
        layout: Layout,
        idle: Micros,
        *,
        full: float = _NEVER_FULL,
        polling: Micros = 0,
        activation: float = 0.0,
        own_work: bool = True,
    ) -> None:
        self._layout = layout
        self._idle, self._full, self._polling, self._activation, self._own_work = idle, full, polling, activation, own_work
        self._pools = [layout.endpoint_pools(e) for e in range(layout.endpoints)]
        self._may = [bool(pools) and pools[0].sleeps for pools in self._pools]
        self._wakes = layout.wakes.tolist()
        self._walks = _walks(layout)
        self._worked: list[Micros] = [0] * layout.endpoints
        self._polled: Micros = -polling
        self._asked: Sequence[int] = ()  # by cell: requests of the last minute
        self.held = [0] * layout.endpoints  # requests that wait, by the endpoint that is woken for them first

    @property
    def any(self) -> bool:
        """Whether there is an endpoint that may have no instance."""
        return any(self._may)

    def saw(self, now: Micros, endpoint: int) -> None:
        """There was work at an endpoint."""
        self._worked[endpoint] = now

    def handle(self, now: Micros, event: Event, fleet: Fleet) -> Iterator[Decision]:
        """Take in one event; wake whom it asks for, and leave who is idle without instances."""
        match event:
            case InstanceReady(instance=i) if self._own_work:
                self.saw(now, fleet.pools[fleet.pool_of[i]].endpoint)
            case DemandSeen(requests=requests):
                self._asked = requests
            case DoorSeen():
                for e in np.flatnonzero(event.worked) if self._own_work else ():
                    self.saw(now, int(e))
                yield from self._wake(now, event, fleet)
            case Observed():
                if self._polled == now:
                    yield from self._wake_for_jobs(event, fleet)
                yield from self._relieve(event, fleet)
                yield from self._leave(now, event, fleet)
            case _:
                pass

    def leaves(self, wanted: Decision, fleet: Fleet) -> bool:
        """Whether an endpoint is left asleep whatever a plan says: it wants no more than a request would bring."""
        pool = fleet.pools[wanted.pool]
        small = wanted.reason is Reason.PLANNED and 0 < wanted.change <= pool.minimum
        return small and pool.sleeps and not self._held_by(pool.endpoint, fleet)

    # --- waking ---

    def _wake(self, now: Micros, event: DoorSeen, fleet: Fleet) -> Iterator[Decision]:
        self.held = [0] * len(self._pools)
        waiting = [cell for cell, count in enumerate(event.held) if count]
        for cell in waiting:
            first = next((e for e in self._walks[cell] if self._wakes[e]), -1)
            if first >= 0:
                self.held[first] += event.held[cell]
        if now - self._polled < self._polling:
            return
        self._polled = now
        for cell in waiting:
            walk = self._walks[cell]
            first = next((e for e in walk if self._wakes[e]), -1)
            if first >= 0 and self.held[first] > self._activation and not any(self._held_by(e, fleet) for e in walk):
                yield from self._one(walk, fleet)

    def _wake_for_jobs(self, event: Observed, fleet: Fleet) -> Iterator[Decision]:
        for model, waiting in enumerate(event.batch_waiting):
            fed = [e for e, pools in enumerate(self._pools) if pools and pools[0].model == model and self._layout.feeds[e]]
            if waiting > self._activation and not any(self._held_by(e, fleet) for e in fed):
                yield from self._one(fed, fleet)

    def _relieve(self, event: Observed, fleet: Fleet) -> Iterator[Decision]:
        """Where requests come and all that serves them is full for good, one more endpoint of their walk is woken."""
        for cell in np.flatnonzero(self._asked) if self._full < _NEVER_FULL else ():
            walk = self._walks[cell]
            if not any(self._wakes[e] and not self._held_by(e, fleet) for e in walk):
                continue
            awake = [e for e in walk if self._held_by(e, fleet)]
            if awake and all(event.endpoints[e].seen >= self._full and self._grows(e, fleet) is None for e in awake):
                yield from self._one([e for e in walk if e not in awake], fleet, blocked=False)

    def _one(self, walk: Sequence[int], fleet: Fleet, *, blocked: bool = True) -> Iterator[Decision]:
        """The nearest endpoint that can be woken is; if none can, the nearest wants to be, and what is in the way is told."""
        asleep = [e for e in walk if self._wakes[e]]
        grows = next((pool for e in asleep if (pool := self._grows(e, fleet)) is not None), None)
        if grows is None and asleep and blocked:
            grows = self._pools[asleep[0]][0]
        if grows is not None:
            yield Decision(grows.number, grows.minimum, Reason.WOKEN, seen=0.0, age=0, serving=0, coming=0)

    def _grows(self, endpoint: int, fleet: Fleet) -> Pool | None:
        pools = self._pools[endpoint]
        return next((pool for pool in pools if not isinstance(find_capacity(fleet, pool.number), Blocked)), None)

    def _held_by(self, endpoint: int, fleet: Fleet) -> int:
        return sum(fleet.serving(pool.number) + fleet.coming(pool.number) for pool in self._pools[endpoint])

    # --- leaving ---

    def _leave(self, now: Micros, event: Observed, fleet: Fleet) -> Iterator[Decision]:
        for endpoint, pools in enumerate(self._pools):
            if not self._may[endpoint] or now - self._worked[endpoint] < self._idle or endpoint in event.blind:
                continue
            jobs = self._layout.feeds[endpoint] and event.batch_waiting[pools[0].model] > self._activation
            if jobs or any(fleet.coming(pool.number) for pool in pools):
                continue
            for pool in pools:
                if serving := fleet.serving(pool.number):
                    age = now - event.scraped
                    yield Decision(pool.number, -serving, Reason.IDLE, event.endpoints[endpoint].seen, age, serving, coming=0)


def _walks(layout: Layout) -> list[list[int]]:
    """By region x model x tier (tier changes fastest): the endpoints that may serve, nearest first."""
    rows = layout.walk.reshape(-1, layout.walk.shape[-1])
    return [[int(e) for e in row if e >= 0] for row in rows]
