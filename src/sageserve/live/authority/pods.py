"""Pods of targets: who serves, who comes, who cannot come, and how long a start takes.

    stuck    gated by a quota (`spec.schedulingGates`), or unschedulable, with the scheduler's reason: nothing more is asked for
             on their account
    coming   pending or not ready yet; late once it has taken longer than twice the 95th percentile of starts

A cold start is from a pod's creation to its being Ready, of pods that became so while they were looked at and whose containers
never began anew: of a pod that was there before, Ready tells of the latest time, not of the first. Typed parts alone are read.
Read next: `hands.py`; tests/live/authority/test_pods.py.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from msgspec import Struct, field

from sageserve.base.units import SECOND, Micros

KEEP: Final = 50
"""Starts that quantiles are made of."""
WHY_MOST: Final = 200
"""Signs of what the scheduler says: it lists every kind of node."""
LEAST: Final = 3
"""Starts below which nothing is said of how long one takes."""


class PodCondition(Struct, frozen=True, rename="camel"):
    """A condition of a pod's status."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


class PodRunning(Struct, frozen=True, rename="camel"):
    """A container that runs."""

    started_at: str = ""


class PodContainerState(Struct, frozen=True):
    """What a container does."""

    running: PodRunning | None = None


class PodContainer(Struct, frozen=True, rename="camel"):
    """A container's status."""

    restart_count: int = 0
    state: PodContainerState = PodContainerState()


class PodStatus(Struct, frozen=True, rename="camel"):
    """A pod's status."""

    phase: str = ""
    pod_ip: str = field(default="", name="podIP")
    conditions: list[PodCondition] = field(default_factory=list)
    container_statuses: list[PodContainer] = field(default_factory=list)


class PodSpec(Struct, frozen=True, rename="camel"):
    """What of a pod's spec keeps it from being scheduled."""

    scheduling_gates: list[dict[str, str]] = field(default_factory=list)


class PodMeta(Struct, frozen=True, rename="camel"):
    """A pod's metadata."""

    name: str = ""
    uid: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


class PodSeen(Struct, frozen=True):
    """A pod, as far as anybody here asks."""

    metadata: PodMeta = PodMeta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    def condition(self, kind: str) -> PodCondition:
        """Its condition of a type, or an empty one."""
        return next((one for one in self.status.conditions if one.type == kind), PodCondition())

    @property
    def ready(self) -> bool:
        """Whether it serves."""
        return self.condition("Ready").status == "True" and not self.metadata.deletion_timestamp

    @property
    def stuck(self) -> str:
        """Why it cannot come; empty: it may."""
        if self.gated:
            return "gated by " + ", ".join(one.get("name", "") for one in self.spec.scheduling_gates)
        scheduled = self.condition("PodScheduled")
        if scheduled.status != "False" or scheduled.reason != "Unschedulable":
            return ""
        said = scheduled.message.partition(" preemption:")[0].strip().rstrip(".")[:WHY_MOST]
        return f"unschedulable: {said}" if said else "unschedulable"

    @property
    def gated(self) -> bool:
        """Whether a quota holds it back."""
        return bool(self.spec.scheduling_gates)

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status.phase in {"Failed", "Succeeded"}

    @property
    def leaving(self) -> bool:
        """Whether it was told to end."""
        return bool(self.metadata.deletion_timestamp)

    @property
    def ready_at(self) -> Micros:
        """Since when it is ready, or not any more, by the same clock; 0: it does not say."""
        return _instant(self.condition("Ready").last_transition_time)

    @property
    def lapsed(self) -> bool:
        """Whether it is not ready and was before: it became so after its containers had started, and not before as a new one."""
        running = [one.state.running for one in self.status.container_statuses]
        started = [_instant(one.started_at) for one in running if one is not None]
        return not self.ready and bool(started) and self.ready_at > max(started) > 0

    @property
    def made_at(self) -> Micros:
        """When it was made, microseconds since 1970 by the cluster's clock; 0: it does not say."""
        return _instant(self.metadata.creation_timestamp)


class PodList(Struct, frozen=True):
    """Pods of a namespace."""

    items: list[PodSeen] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PodTally:
    """Pods of one target.

    Args:
        ready: that serve.
        coming: that are on their way.
        stuck: that cannot come.
        late: of those that are coming, the ones that take too long.
        why: the first reason why one is stuck; empty: none is.
        gated: of those that are stuck, the ones that a quota holds back; no node takes the others.
        leaving: that were told to end, and are still there.
    """

    ready: int = 0
    coming: int = 0
    stuck: int = 0
    late: int = 0
    why: str = ""
    gated: int = 0
    leaving: int = 0


class ColdStarts:
    """How long starts of a target take: the newest fifty, each once."""

    def __init__(self) -> None:
        self._looked = False  # some pods were seen: those that come later are seen to come
        self._known: dict[str, None] = {}
        self._took: deque[Micros] = deque(maxlen=KEEP)

    def see(self, pods: Iterable[PodSeen]) -> None:
        """Take in pods that have become ready; those that were ready before anybody looked say nothing of their start."""
        there = list(pods)
        unknown = [pod for pod in there if pod.metadata.uid not in self._known]
        new = [pod for pod in unknown if pod.ready and self._looked]
        self._known |= {pod.metadata.uid: None for pod in unknown if pod.lapsed or (pod.ready and not self._looked)}
        self._looked = self._looked or bool(unknown)
        for pod in sorted(new, key=lambda one: one.condition("Ready").last_transition_time):
            self._known[pod.metadata.uid] = None
            if (took := _took(pod)) is not None:
                self._took.append(took)
        gone = list(self._known.keys() - {pod.metadata.uid for pod in there})
        for uid in gone[: max(0, len(self._known) - 100 * KEEP)]:
            del self._known[uid]

    def is_late(self, pod: PodSeen, wall: Micros) -> bool:
        """Whether a pod that is not ready has taken longer than twice the 95th percentile of starts."""
        usual = self.quantile(0.95)
        return usual is not None and wall - pod.made_at > 2 * usual

    def quantile(self, share: float) -> Micros | None:
        """A quantile of the starts, by nearest rank; None: too few are known."""
        if len(self._took) < LEAST:
            return None
        ordered = sorted(self._took)
        return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1))]


def tally(pods: Sequence[PodSeen], starts: ColdStarts, wall: Micros) -> PodTally:
    """Count the pods of one target; those that have ended, or are about to, count for nothing.

    Args:
        pods: of the target.
        starts: how long they take to start.
        wall: microseconds since 1970, by our clock: only what is late depends on it.
    """
    there = [pod for pod in pods if not pod.ended]
    here = [pod for pod in there if not pod.leaving]
    stuck = [pod for pod in here if pod.stuck]
    coming = [pod for pod in here if not pod.ready and not pod.stuck]
    return PodTally(
        ready=sum(pod.ready for pod in here),
        coming=len(coming),
        stuck=len(stuck),
        late=sum(starts.is_late(pod, wall) for pod in coming),
        why=stuck[0].stuck if stuck else "",
        gated=sum(pod.gated for pod in stuck),
        leaving=len(there) - len(here),
    )


def selected(pods: Iterable[PodSeen], labels: Mapping[str, str]) -> list[PodSeen]:
    """Pods that have these labels; none where there are no labels."""
    return [pod for pod in pods if labels and labels.items() <= pod.metadata.labels.items()]


def _took(pod: PodSeen) -> Micros | None:
    """From its creation to Ready; None: it began anew since, or does not say."""
    begun, ready = _instant(pod.metadata.creation_timestamp), _instant(pod.condition("Ready").last_transition_time)
    if any(one.restart_count for one in pod.status.container_statuses) or not begun or ready <= begun:
        return None
    return ready - begun


def _instant(text: str) -> Micros:
    """Microseconds since 1970 by the cluster's clock; 0: it does not say."""
    try:
        return round(datetime.fromisoformat(text).timestamp() * SECOND)
    except ValueError:
        return 0
