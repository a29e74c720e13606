"""One look at a cluster's Prometheus: raw samples of every watched pool, of gateways, and which targets cannot be scraped.

Asks, and draws no conclusions. Read next: `process.py`, which looks; `live/prometheus/sight.py` for what a look shows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.data.history.histograms import bound_of
from sageserve.data.history.names import EngineKind, EngineSignal, aliases_of, canonical
from sageserve.data.history.raw import RawSeries, instance_of
from sageserve.data.rebuild.places import WatchedPool
from sageserve.live.prometheus import queries
from sageserve.live.prometheus.server import NotSeen, NotSeenReason, PrometheusServer, RawAnswer, Vector

AHEAD: Final[Micros] = 20 * SECOND
"""Of our clock, that is asked for too: samples there say that a clock is wrong."""
LATE_SPAN: Final[Micros] = 5 * MINUTE
"""Of which late requests are counted."""


@dataclass(frozen=True, slots=True)
class LateCount:
    """Requests, and those of them that came too late."""

    requests: float
    late: float


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """What one server answered.

    Args:
        pools: raw samples of engines, by pool.
        fronts: raw samples of gateways' counters.
        failing: instances that are targets of it and cannot be scraped; None: it does not say.
    """

    pools: Mapping[str, RawAnswer | NotSeen]
    fronts: RawAnswer | NotSeen
    failing: frozenset[str] | None

    @property
    def answered(self) -> bool:
        """Whether it said anything of any pool."""
        return any(isinstance(one, RawAnswer) for one in self.pools.values())


def look_at(server: PrometheusServer, watched: Sequence[WatchedPool], now: Micros, back: Micros) -> ClusterLook:
    """Ask a server once; one that lets a small question wait is not asked the others, each of which would wait as long.

    Args:
        server: of the cluster.
        watched: its pools.
        now: microseconds since 1970.
        back: how far back from there.
    """
    down = server.vector("up == 0", now / SECOND)
    if isinstance(down, NotSeen) and down.why is NotSeenReason.TIMEOUT:
        return ClusterLook({one.pool: down for one in watched}, down, None)
    seconds, end = (back + AHEAD) / SECOND, (now + AHEAD) / SECOND
    pools = {
        one.pool: server.raw(queries.selector(queries.watched_names(), queries.matchers(one.labels)), seconds, end)
        for one in watched
    }
    fronts = server.raw(queries.selector(queries.front_names(), ""), seconds, end)
    failing = None if isinstance(down, NotSeen) else frozenset(instance_of(one.labels) for one in down)
    return ClusterLook(pools, fronts, failing)


def unheard(looks: Mapping[str, ClusterLook]) -> str:
    """Why no server says anything; empty: one does."""
    if any(one.answered for one in looks.values()):
        return ""
    return next(answer.detail for one in looks.values() for answer in one.pools.values() if isinstance(answer, NotSeen))


def late_shares(server: PrometheusServer, watched: Sequence[WatchedPool], now: Micros, promise_s: float) -> dict[str, LateCount]:
    """Requests of the last five minutes, and those of them whose first token came after a promise, by pool.

    As engines' histograms have them, straight within a bucket; pools whose engines keep none, and those that nobody asked, are
    left out.

    Args:
        server: of the cluster.
        watched: its pools.
        now: microseconds since 1970.
        promise_s: seconds.
    """
    found = {}
    for one in watched:
        labels = queries.matchers(one.labels)
        every = queries.selector(f"(?:{queries.every_name()})", labels)
        recorded = server.values("__name__", every, (now - LATE_SPAN) / SECOND, now / SECOND)
        names = () if isinstance(recorded, NotSeen) else queries.histogram_names(recorded).get(EngineSignal.TTFT.value, ())
        if not names:
            continue
        answer = server.vector(queries.growth(names, "_bucket", labels, LATE_SPAN // SECOND, ("le",)), now / SECOND)
        if not isinstance(answer, NotSeen) and (count := _late(answer, promise_s)) is not None:
            found[one.pool] = count
    return found


def _late(answer: Vector, promise_s: float) -> LateCount | None:
    counts: dict[float, float] = {}
    for one in answer:
        bound = bound_of(one.labels.get("le", ""))
        counts[bound] = counts.get(bound, 0.0) + one.value  # 1 and 1.0, as two versions of an engine write it
    bounds, rising = np.array(sorted(counts.items()), float).reshape(-1, 2).T
    if not len(rising) or not rising[-1] > 0:
        return None
    finite = np.isfinite(bounds)
    kept = float(np.interp(promise_s, np.concatenate(([0.0], bounds[finite])), np.concatenate(([0.0], rising[finite]))))
    return LateCount(float(rising[-1]), float(rising[-1]) - kept)


def newest(series: Sequence[RawSeries]) -> dict[str, Micros]:
    """When each instance was last recorded, microseconds since 1970."""
    found: dict[str, Micros] = {}
    for one in series:
        if len(one):
            found[one.instance] = max(found.get(one.instance, 0), int(one.time[-1]))
    return found


def memory_use(series: Sequence[RawSeries], kinds: Mapping[str, EngineKind]) -> dict[str, float]:
    """Share of its KV cache that each instance has in use, of those that say.

    Args:
        series: of a pool.
        kinds: which program each instance is.
    """
    named: dict[tuple[str, str], list[float]] = {}
    for one in series:
        if len(one):
            named.setdefault((one.instance, canonical(one.name)), []).append(float(one.value[-1]))
    found = {}
    for instance, kind in kinds.items():
        for alias in aliases_of(kind, EngineSignal.KV_USE):
            values = named.get((instance, alias.metric), [])
            whole = sum(named.get((instance, alias.over), [])) if alias.read == "ratio" else float(len(values))
            if values and whole > 0 and math.isfinite(share := float(np.sum(values)) / whole):
                found[instance] = share
                break
    return found
