"""What a process that watches knows of pods: whose instances follow them, what changed, and how they count for people.

How they count is kept in a file, from which `explain` reads it. Read next: `pod_rows.py`, `target_pods.py`, `process.py`.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import structs

from sageserve.base.units import SECOND, Micros
from sageserve.core.fleet import Fleet, Pool
from sageserve.data.watched.pods import PODS, PodCount, PodCounts
from sageserve.live.authority.pods import PodSeen
from sageserve.live.control.status import EndpointStatus, PodsStatus, Status
from sageserve.live.private import write_private
from sageserve.live.watch.instances import PoolChange, WatchedInstances
from sageserve.live.watch.looks import ClusterLook
from sageserve.live.watch.pod_rows import PodEvent, PodRows
from sageserve.live.watch.sightings import PoolSighting, sight_pods
from sageserve.live.watch.target_pods import TargetPods

_LOG: Final = logging.getLogger(__name__)
TOGETHER: Final = 0.5  # seconds: what changes within them is taken in at once


class FollowedPods:
    """Pods of all clusters.

    Args:
        fleet: whose rows follow them.
        instances: whose row is whose.
        clusters: pods by cluster.
        state: folder of the state.
        wall: microseconds since 1970.
    """

    def __init__(
        self,
        fleet: Fleet,
        instances: WatchedInstances,
        clusters: Mapping[str, TargetPods],
        state: Path,
        wall: Callable[[], Micros],
    ) -> None:
        self._instances, self._clusters, self._wall = instances, clusters, wall
        self._rows = PodRows(fleet, instances)
        self._path = state / PODS
        self._met: set[str] = set()
        self._kept: Mapping[str, PodCount] = {}

    async def run(self, follow: Callable[[], None]) -> None:
        """Follow until cancelled; `follow` is called soon after something changed."""
        sources = self._clusters.values()
        forever = [] if sources else [asyncio.Event().wait()]
        await asyncio.gather(*(one.run() for one in sources), *(_tell(one, follow) for one in sources), *forever)

    def follows(self, pool: Pool) -> bool:
        """Whether its instances follow pods."""
        return self._of(pool.name) is not None

    def update(self, pool: Pool) -> tuple[Sequence[PodEvent], bool]:
        """What happened to its rows, and whether any of its pods were known before."""
        source = self._of(pool.name)
        pods = None if source is None else source.of(pool.name)
        if source is None or pods is None:
            return (), False
        begun = pool.name in self._met
        self._met.add(pool.name)
        return self._rows.update(pool, pods, source.starts(pool.name), self._wall()), begun

    def measured(self) -> Iterator[tuple[str, Micros]]:
        """What a start usually takes, by pool; how pods count is kept where that has changed."""
        for source in self._clusters.values():
            yield from source.measured()
        self._keep()

    def name_of(self, pool: Pool, row: int) -> str:
        """The pod of a row; empty: it has none."""
        return next((name for name, taken in self._instances.rows(pool.name).items() if taken == row), "")

    def heard_in(self, cluster: str, space: str) -> Sequence[PodSeen] | None:
        """Pods of a namespace as they are now; None: nobody follows them there, or they may be old."""
        return self._clusters[cluster].heard_in(space) if cluster in self._clusters else None

    def sight(self, pool: Pool, at: ClusterLook, when: tuple[Micros, Micros]) -> PoolSighting:
        """What a look shows of a pool that follows pods; `when` as of `sight_pods`."""
        source = self._of(pool.name)
        pods = None if source is None else source.of(pool.name)
        if pods is None:
            return PoolSighting(PoolChange((), ()), (), "its pods are not known yet")
        return sight_pods(pool, at, self._instances, pods, when)

    def notes(self, *, acts: bool) -> Iterator[str]:
        """What a person should know, in sentences."""
        for source in self._clusters.values():
            yield from source.notes(acting=acts)

    def told(self, status: Status) -> Status:
        """A status with how pods count."""
        if not self._clusters:
            return status
        return structs.replace(status, endpoints=tuple(self._endpoint(one) for one in status.endpoints))

    def _endpoint(self, one: EndpointStatus) -> EndpointStatus:
        pools = tuple(structs.replace(pool, pods=self._status(pool.pool)) for pool in one.pools)
        return structs.replace(one, pools=pools)

    def _status(self, pool: str) -> PodsStatus | None:
        source = self._of(pool)
        found = None if source is None else source.tally(pool)
        if source is None or found is None:
            return None
        usual, most = (source.starts(pool).quantile(share) for share in (0.5, 0.95))
        return PodsStatus(
            ready=found.ready,
            coming=found.coming,
            late=found.late,
            unschedulable=found.stuck - found.gated,
            gated=found.gated,
            leaving=found.leaving,
            why=found.why,
            start_s_p50=None if usual is None else usual / SECOND,
            start_s_p95=None if most is None else most / SECOND,
        )

    def _of(self, pool: str) -> TargetPods | None:
        return next((one for one in self._clusters.values() if one.follows(pool)), None)

    def _keep(self) -> None:
        found = {
            pool: PodCount(one.ready, one.coming, one.late, one.stuck - one.gated, one.gated, one.leaving, one.why)
            for source in self._clusters.values()
            for pool in source.pools
            if (one := source.tally(pool)) is not None
        }
        if found == self._kept:
            return
        self._kept = found
        try:
            write_private(self._path, msgspec.json.encode(PodCounts(self._wall(), found)))
        except OSError as error:
            _LOG.error("how pods count cannot be written: %s", error)


async def _tell(source: TargetPods, follow: Callable[[], None]) -> None:
    while True:
        await source.changed.wait()
        source.changed.clear()
        follow()
        await asyncio.sleep(TOGETHER)
