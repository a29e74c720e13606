"""What a fleet was asked for before it was watched, read once from its Prometheus, minute by minute: forecasts need no waiting.

    read_past(servers, scenario, watched, begin, end, tell)

Kept in the state folder's demand file, so that a restart reads only what came since. Read next: `cells.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.errors import MeasurementError
from sageserve.base.records import Names
from sageserve.base.units import MINUTE, Micros
from sageserve.core.events import DemandSeen
from sageserve.data.history.records import PoolHistory
from sageserve.data.rebuild.demand import PlacedFront, demand_of
from sageserve.data.rebuild.places import WatchedPool, place_fronts, place_pools
from sageserve.live.prometheus.queries import matchers
from sageserve.live.prometheus.read import HistorySpan, PoolQuery, read_history
from sageserve.live.prometheus.server import PrometheusServer
from sageserve.live.watch.cells import CellShares, CellTable


@dataclass(slots=True)
class PastDemand:
    """What was found.

    Args:
        minutes: when each begins, microseconds since 1970, and its demand.
        notes: what the reader should know, in sentences.
    """

    minutes: list[tuple[Micros, DemandSeen]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_past(
    servers: Mapping[str, PrometheusServer],
    scenario: Scenario,
    watched: Sequence[WatchedPool],
    span: tuple[Micros, Micros],
    tell: Callable[[str, int, int], None],
) -> PastDemand:
    """Read it.

    Args:
        servers: by cluster.
        scenario: for its tiers.
        watched: pools.
        span: begin and end, microseconds since 1970, whole minutes.
        tell: told of a cluster how much of how much is read.

    A server that has nothing of that time is noted: forecasts then begin with what is watched.
    """
    found = PastDemand()
    by_pool: dict[str, PoolHistory] = {}
    fronts: list[PlacedFront] = []
    for cluster, server in servers.items():
        mine = [one for one in watched if one.cluster == cluster]
        asked = [PoolQuery(one.pool, matchers(one.labels)) for one in mine]
        try:
            history = read_history(server, asked, HistorySpan(*span, MINUTE, histograms=False), partial(tell, server.url))
        except MeasurementError as error:
            found.notes.append(error.message)
            return found
        by_pool |= {one.pool: each for one, each in zip(mine, history.pools, strict=True)}
        fronts += place_fronts(scenario, mine, history.fronts, found.notes)
        found.notes += [f"not read: {line}" for line in history.unread]
    pools = place_pools(watched, [by_pool[one.pool] for one in watched])
    names = Names(tuple(scenario.models), tuple(scenario.regions), tuple(scenario.tiers))
    shares = CellShares(scenario, names)
    found.minutes = list(_minutes(shares.table(demand_of(pools, fronts), pools)))
    found.notes += shares.notes
    return found


def _minutes(table: CellTable) -> Iterator[tuple[Micros, DemandSeen]]:
    """From the first minute in which anything came; those in which nobody counted are left out."""
    asked = np.flatnonzero(table.requests.sum(axis=1) > 0)
    columns = [np.rint(column).astype(np.int64).tolist() for column in (table.prompt, table.output, table.requests)]
    for row in range(int(asked[0]) if len(asked) else table.grid.count, table.grid.count):
        if not table.dark[row]:
            prompt, output, requests = (tuple(column[row]) for column in columns)
            yield table.grid.begin + row * MINUTE, DemandSeen(0, MINUTE, prompt, output, requests, ())
