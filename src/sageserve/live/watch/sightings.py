"""Pools as looks show them: who is there, what each says of itself, and why a pool is not seen. Decides nothing.

Read next: `looks.py` for what is asked, `instances.py` for whose row is whose, `process.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sageserve.base.units import Micros
from sageserve.core.fleet import Pool
from sageserve.data.history.names import EngineKind
from sageserve.live.authority.pods import PodSeen
from sageserve.live.prometheus.server import NotSeen, RawAnswer
from sageserve.live.prometheus.sight import PodSight, look
from sageserve.live.watch.instances import PoolChange, WatchedInstances
from sageserve.live.watch.looks import ClusterLook, memory_use, newest
from sageserve.live.watch.pod_rows import UNKNOWN, names_of


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


def sight_pods(
    pool: Pool, at: ClusterLook, instances: WatchedInstances, pods: Sequence[PodSeen], when: tuple[Micros, Micros]
) -> PoolSighting:
    """What a look shows of a pool whose rows follow pods.

    Args:
        pool: of the fleet.
        at: the look at its cluster.
        instances: whose row is whose.
        pods: of it.
        when: microseconds since 1970, and the age beyond which a sample says nothing of now.
    """
    wall, limit = when
    answer, nothing = at.pools[pool.name], PoolChange((), ())
    if isinstance(answer, NotSeen):
        return PoolSighting(nothing, (), answer.detail)
    recorded = tuple(dict.fromkeys(one.instance for one in answer.series))
    whose, ready = names_of(pods, recorded), {pod.metadata.name: pod for pod in pods if pod.ready}
    strange = [name for name in recorded if name not in whose]
    if not ready:
        return PoolSighting(nothing, (), "")  # the API server says so: it is empty, which is not the same as not seen
    if strange and not whose:
        return PoolSighting(nothing, (), UNKNOWN.format(names=", ".join(strange[:3])))
    mine = _without(answer, {name for name in recorded if whose.get(name) not in ready})
    long_ready = {name for name, pod in ready.items() if wall - pod.ready_at > limit}
    expected = {name for name in recorded if whose.get(name) in long_ready} | (long_ready - set(whose.values()))
    sight = look(mine, wall, limit, expected)
    if sight.state == "blind":
        return PoolSighting(nothing, (), sight.detail)
    here = [pod for pod in sight.pods if pod.age <= limit and whose[pod.name] in instances.rows(pool.name)]
    use = memory_use(mine.series, {pod.name: EngineKind(pod.engine) for pod in here})
    return PoolSighting(nothing, tuple(_merged(here, whose, use, instances.rows(pool.name))), sight.detail)


def _merged(
    sights: Sequence[PodSight], whose: Mapping[str, str], use: Mapping[str, float], rows: Mapping[str, int]
) -> Iterator[SeenInstance]:
    """One sight a pod: several ports of it are one instance."""
    parts: dict[str, list[PodSight]] = {}
    for one in sights:
        parts.setdefault(whose[one.name], []).append(one)
    for name, found in parts.items():
        running, waiting = (sum(getattr(one, key) for one in found) for key in ("running", "waiting"))
        kv = max((use[one.name] for one in found if one.name in use), default=None)
        yield SeenInstance(rows[name], replace(found[0], running=running, waiting=waiting), kv)


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
