"""What is written down of every minute: what ran, what decisions asked for, what demand needed, what was not seen.

What runs is taken down when a minute is over; what it was asked for is counted a scrape or two later, and then it is a line.
Decides nothing. Read next: `wishes.py`, `data/watched/minutes.py`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Demand, Floats
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.fleet import Fleet
from sageserve.core.layout import Layout
from sageserve.core.strategies.demand_estimates import DemandEstimates
from sageserve.data.watched.minutes import EndpointMinute, PoolMinute, WatchedMinute

RECENT: Final = 5
"""Minutes whose mean demand says what was needed: a single one is chance."""


@dataclass(frozen=True, slots=True)
class _Taken:
    pools: tuple[PoolMinute, ...]
    blind: Mapping[int, str]
    late: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class EndpointCapacity:
    """Demand beside capacity at an endpoint, in instances of the model's fastest type.

    Args:
        region: where.
        model: which.
        busy: what the demand of the last minutes keeps busy.
        needed: the fewest that keep the promises at that demand.
        serving: what serves now.
    """

    region: str
    model: str
    busy: float
    needed: int
    serving: float


class MinuteBook:
    """Minutes of one process.

    Args:
        scenario: for promises.
        layout: numbers of pools and cells.
        fleet: what runs.
        would: instances that would run in a pool, at an instant.
        earlier: what was asked before the first instant.
    """

    def __init__(
        self,
        scenario: Scenario,
        layout: Layout,
        fleet: Fleet,
        would: Callable[[Micros, int], int],
        earlier: Demand | None,
    ) -> None:
        self._layout = layout
        self._fleet = fleet
        self._would = would
        self._estimates = DemandEstimates(scenario, layout, earlier)
        self._work: deque[Floats] = deque(maxlen=RECENT)
        self._taken: dict[Micros, _Taken] = {}
        self._next: Micros = MINUTE
        self.requests_per_s = 0.0  # in the newest minute that is counted
        self.needed: dict[int, int] = {}  # by endpoint, of the newest minute that is counted
        self._busy: dict[int, float] = {}  # likewise

    def due(self, now: Micros) -> bool:
        """Whether a minute is over that was not taken down."""
        return now >= self._next

    def take_down(self, now: Micros, blind: Mapping[int, str], late: Mapping[int, float]) -> None:
        """What runs now, for all minutes that are over.

        Args:
            now: of the loop's clock.
            blind: why endpoints are not seen.
            late: share of requests that came after the promise, by endpoint.
        """
        pools = self.pools(now)
        while self._next <= now:
            self._taken[self._next - MINUTE] = _Taken(pools, dict(blind), dict(late))
            self._next += MINUTE

    def pools(self, now: Micros) -> tuple[PoolMinute, ...]:
        """What runs and what would, now."""
        return tuple(
            PoolMinute(pool.name, self._fleet.serving(pool.number), self._would(now, pool.number)) for pool in self._layout.pools
        )

    def ends(self) -> Iterator[EndpointCapacity]:
        """Demand of the newest minute that is counted, and what serves now."""
        names = self._layout.names
        for endpoint, needed in self.needed.items():
            pools = self._layout.endpoint_pools(endpoint)
            region, model = pools[0].region, pools[0].model
            serving = sum(self._fleet.serving(pool.number) * self._layout.strength(pool) for pool in pools)
            yield EndpointCapacity(names.regions[region], names.models[model], self._busy[endpoint], needed, serving)

    def counted(self, now: Micros, seen: DemandSeen, wall: Micros) -> WatchedMinute:
        """A minute's demand is counted: the line of that minute.

        Args:
            now: of the loop's clock.
            seen: the demand.
            wall: where the minute begins, microseconds since 1970.
        """
        self._estimates.history.add(seen)
        self.requests_per_s = sum(seen.requests) / (seen.length / SECOND)
        names = self._layout.names
        shape = (len(names.regions), len(names.models), len(names.tiers))
        self._work.append(np.array(seen.work).reshape(shape).sum(axis=2) / seen.length)
        tokens = np.array(seen.prompt_tokens).reshape(shape)[..., self._estimates.interactive].sum(axis=2)
        busy = np.mean(self._work, axis=0)
        self._estimates.sustainable_loads(busy.mean(axis=0))
        taken = self._taken.pop(seen.start, None) or _Taken(self.pools(now), {}, {})
        found = []
        roles = len(self._layout.roles)  # where a model's instances are set apart, nobody counts whose demand is whose
        for endpoint in range(self._layout.endpoints if roles == 1 else 0):
            pools = self._layout.endpoint_pools(endpoint)
            if pools:
                at, model = pools[0].region, pools[0].model
                self._busy[endpoint] = float(busy[at, model])
                self.needed[endpoint] = self._needed(model, self._busy[endpoint])
                found.append(
                    EndpointMinute(
                        self._layout.endpoint_name(endpoint),
                        round(self._busy[endpoint], 4),
                        self.needed[endpoint],
                        taken.blind.get(endpoint, ""),
                        int(tokens[at, model]),
                        taken.late.get(endpoint),
                    )
                )
        return WatchedMinute(wall, taken.pools, tuple(found))

    def _needed(self, model: int, busy: float) -> int:
        return math.ceil(float(self._estimates.instances(model, np.array([busy]))[0]) - 1e-6) if busy > 0 else 0
