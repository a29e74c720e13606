"""Rows of the fleet follow pods: one that comes is a row that starts, one that serves is open, one that goes is closed.

    pending, or not ready yet     a row that is starting, unless it has taken twice what starts take
    gated, unschedulable          no row: it holds no GPU
    Ready                         a row that serves
    told to end                   a row that drains: it gets nothing new
    gone, or not ready any more   no row

Asks nobody; says what changed as events. Read next: `target_pods.py`, `process.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from sageserve.base.units import Micros
from sageserve.core.events import InstanceComing, InstanceDrained, InstanceLeaving, InstanceLost, InstanceReady, StartFailed
from sageserve.core.fleet import Fleet, Pool, State
from sageserve.live.authority.pods import ColdStarts, PodSeen
from sageserve.live.watch.instances import WatchedInstances

PodEvent: TypeAlias = InstanceComing | InstanceReady | InstanceLeaving | InstanceDrained | InstanceLost | StartFailed


class PodRows:
    """Rows of pods.

    Args:
        fleet: whose rows they are; looked at.
        instances: whose row is whose; changed.
    """

    def __init__(self, fleet: Fleet, instances: WatchedInstances) -> None:
        self._fleet, self._instances = fleet, instances
        self._uids: dict[str, dict[str, str]] = {pool.name: {} for pool in fleet.pools}

    def update(self, pool: Pool, pods: Sequence[PodSeen], starts: ColdStarts, wall: Micros) -> list[PodEvent]:
        """What happened to the rows of a pool, in order.

        Args:
            pool: whose pods they are.
            pods: that are there and have not ended.
            starts: what starts take.
            wall: microseconds since 1970.
        """
        there = {pod.metadata.name: pod for pod in pods}
        uids, rows = self._uids[pool.name], self._instances.rows(pool.name)
        closed = list(self._closed(rows, uids, there, starts, wall))
        events = [event for _, event in closed if event is not None]
        ready = {pod.metadata.name: pod.metadata.uid for pod in pods if pod.ready}
        coming = {
            pod.metadata.name: pod.metadata.uid
            for pod in pods
            if not (pod.ready or pod.leaving or pod.stuck or starts.is_late(pod, wall))
        }
        for name, _ in closed:
            self._instances.close(pool, name)
        for row, name in self._instances.follow(pool, [*ready, *coming], self._fleet.fits(pool.number)):
            uids[name] = ready.get(name) or coming.get(name, "")
            events.append(InstanceComing(row))
        rows = self._instances.rows(pool.name)
        for name, row in rows.items():
            if name in ready and self._fleet.state[row] in {State.OFF, State.STARTING}:
                events.append(InstanceReady(row))
            elif (pod := there.get(name)) is not None and pod.leaving and self._fleet.state[row] is State.SERVING:
                events.append(InstanceLeaving(row, f"pod {name} was told to end"))
        return events

    def _closed(
        self,
        rows: Mapping[str, int],
        uids: dict[str, str],
        there: Mapping[str, PodSeen],
        starts: ColdStarts,
        wall: Micros,
    ) -> Iterator[tuple[str, PodEvent | None]]:
        """Names whose rows are over, with the event of those that are not off already."""
        for name, row in rows.items():
            state, pod = self._fleet.state[row], there.get(name)
            uids.setdefault(name, pod.metadata.uid if pod is not None else "")
            why = _over(
                name, pod, uids[name], starting=state is State.STARTING, late=pod is not None and starts.is_late(pod, wall)
            )
            if not why and (state is not State.OFF or (pod is not None and pod.leaving)):
                continue  # it goes on; or it drained and is not gone yet
            uids.pop(name)
            yield name, _event(row, state, why)


def _over(name: str, pod: PodSeen | None, uid: str, *, starting: bool, late: bool) -> str:
    """Why a row is no pod's any more; empty: it still is."""
    if pod is None:
        return f"pod {name} is gone"
    if pod.metadata.uid != uid:
        return f"pod {name} is gone, and another one has its name"
    if starting and pod.leaving:
        return f"pod {name} was told to end before it was ready"
    if starting and pod.stuck:
        return f"pod {name} cannot come: {pod.stuck}"
    if starting and late and not pod.ready:
        return f"pod {name} has been starting for more than twice what starts take"
    if not (starting or pod.ready or pod.leaving):
        return f"pod {name} is not ready any more"
    return ""


def _event(row: int, state: State, why: str) -> PodEvent | None:
    match state:
        case State.STARTING:
            return StartFailed(row, why)
        case State.SERVING:
            return InstanceLost(row, why)
        case State.DRAINING:
            return InstanceDrained(row)  # it was told to end, and did
        case _:
            return None


def names_of(pods: Sequence[PodSeen], recorded: Sequence[str]) -> dict[str, str]:
    """The pod of each recorded instance, by the instance's name; those that are no pod's are left out.

    Args:
        pods: of a pool.
        recorded: names as series have them: of the pod, or its address and port, after whatever else tells it from others.
    """
    known: dict[str, str] = {}
    for pod in pods:
        known |= {key: pod.metadata.name for key in (pod.status.pod_ip, pod.metadata.name) if key}
    found = {}
    for name in recorded:
        for part in (*name.split("/"), *map(_host, name.split("/"))):
            if part in known:
                found[name] = known[part]
                break
    return found


def _host(part: str) -> str:
    host, colon, port = part.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() else part


UNKNOWN: Final = "engines are recorded as {names}, which are no pods of it: no label `pod`, and no pod has that address"
