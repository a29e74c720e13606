"""Which pods go when replicas are lowered: chosen where Kubernetes lets us, known where it does not.

    Deployment         pods that do not serve go first, whatever we say; of the others those with the lowest
                       controller.kubernetes.io/pod-deletion-cost: we mark the ones with the least to do
    StatefulSet        the highest number
    LeaderWorkerSet    the highest group

Pure. Read next: `count_hand.py`, which writes the marks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sageserve.live.authority.pods import PodSeen

COST: Final = "controller.kubernetes.io/pod-deletion-cost"
FIRST: Final = "-1000"
"""Of a pod that is to go; nobody else writes just this, so it is ours to take away again."""
_ORDERED: Final = ("StatefulSet", "LeaderWorkerSet")


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """Who goes.

    Args:
        going: names, first those that go in any case.
        mark: pods that must be marked first.
        clear: pods whose mark of ours is to be taken away.
        kept: pods that are marked already, and are still to go.
    """

    going: tuple[str, ...] = ()
    mark: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def drain_order(place: tuple[str, str], pods: Sequence[PodSeen], counts: tuple[int, int], busy: Mapping[str, int]) -> DrainOrder:
    """Who goes when replicas are lowered.

    Args:
        place: kind and name of the object.
        pods: of it.
        counts: replicas before and after.
        busy: requests in flight, by name or address of whoever has them; who is not named is taken for the busiest.
    """
    kind, name = place
    before, after = counts
    if kind in _ORDERED:
        return DrainOrder(tuple(f"{name}-{number}" for number in range(before - 1, after - 1, -1)))
    here = [pod for pod in pods if not pod.metadata.deletion_timestamp and pod.status.phase not in {"Failed", "Succeeded"}]
    idle = sorted(pod.metadata.name for pod in here if not pod.ready)
    serving = sorted((pod for pod in here if pod.ready), key=lambda pod: _rank(pod, busy))
    count = max(0, before - after)
    chosen = serving[: max(0, count - len(idle))]
    names = {pod.metadata.name for pod in chosen}
    marked = {pod.metadata.name for pod in here if pod.metadata.annotations.get(COST) == FIRST}
    going = (*idle[:count], *(pod.metadata.name for pod in chosen))
    return DrainOrder(going, *(tuple(sorted(one)) for one in (names - marked, marked - names, names & marked)))


def _rank(pod: PodSeen, busy: Mapping[str, int]) -> tuple[int, int, str]:
    """The least to do first; of equals one that is marked already, so that nobody is marked in vain."""
    known = busy.get(pod.metadata.name, busy.get(pod.status.pod_ip))
    marked = pod.metadata.annotations.get(COST) == FIRST
    return (1 << 40 if known is None else known, 0 if marked else 1, pod.metadata.name)


def addresses(in_flight: Mapping[str, int]) -> dict[str, int]:
    """Requests in flight by name and by address without its port, from `10.0.0.7:8000` or the name of a pod."""
    return {key: count for name, count in in_flight.items() for key in {name, _host(name)} if key}


def _host(name: str) -> str:
    host, colon, port = name.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() else name
