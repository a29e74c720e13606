"""Pools as looks show them: who is there, what each says of itself, and why a pool is not seen. Decides nothing.

Read next: `looks.py` for what is asked, `instances.py` for whose row is whose, `process.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sageserve.base.units import Micros
from sageserve.core.fleet import Pool
from sageserve.data.history.names import EngineKind
from sageserve.live.prometheus.server import NotSeen, RawAnswer
from sageserve.live.prometheus.sight import PodSight, look
from sageserve.live.watch.instances import PoolChange, WatchedInstances
from sageserve.live.watch.looks import ClusterLook, memory_use, newest


@dataclass(frozen=True, slots=True)
class SeenInstance:
    """An instance with its row, what it says, and the share of its memory in use; None: it does not say."""

    row: int
    pod: PodSight
    kv: float | None

    @property
    def waiting(self) -> int:
        """Requests in its queues."""
        return round(max(self.pod.waiting, 0.0))

    @property
    def in_flight(self) -> int:
        """Requests that run or wait there."""
        return round(max(self.pod.running, 0.0)) + self.waiting


@dataclass(frozen=True, slots=True)
class PoolSighting:
    """A pool at a look.

    Args:
        change: who is new, and who is gone.
        seen: rows that have fresh samples.
        why: it is not seen, or not wholly; empty: it is.
    """

    change: PoolChange
    seen: tuple[SeenInstance, ...]
    why: str


def sight_pool(pool: Pool, at: ClusterLook, instances: WatchedInstances, wall: Micros, limit: Micros) -> PoolSighting:
    """What a look shows of a pool; rows follow its instances.

    Args:
        pool: of the fleet.
        at: the look at its cluster.
        instances: whose row is whose; changed.
        wall: microseconds since 1970.
        limit: age beyond which a sample says nothing of now.
    """
    answer = at.pools[pool.name]
    if isinstance(answer, NotSeen):
        return PoolSighting(PoolChange((), ()), (), answer.detail)
    ages = {name: wall - seen_at for name, seen_at in newest(answer.series).items()}
    sight = look(_without(answer, _gone(ages, at, limit)), wall, limit)
    if sight.state == "blind":
        return PoolSighting(PoolChange((), ()), (), sight.detail)
    change = instances.update(pool, ages, limit, at.failing)
    rows = instances.rows(pool.name)
    here = [pod for pod in sight.pods if pod.name in rows and pod.age <= limit]
    use = memory_use(answer.series, {pod.name: EngineKind(pod.engine) for pod in here})
    return PoolSighting(change, tuple(SeenInstance(rows[pod.name], pod, use.get(pod.name)) for pod in here), sight.detail)


def _gone(ages: Mapping[str, Micros], at: ClusterLook, limit: Micros) -> set[str]:
    """Instances that ended: old samples, and no target any more. Where all are old, they are unseen."""
    old = {name for name, age in ages.items() if age > limit}
    return set() if at.failing is None or len(old) == len(ages) else old - at.failing


def _without(answer: RawAnswer, names: set[str]) -> RawAnswer:
    return RawAnswer(tuple(one for one in answer.series if one.instance not in names), answer.warnings)
