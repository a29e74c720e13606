"""An object with a count on the fake API server, and pods that follow it as its controller would have them.

Read next: `test_counts.py`; `stage.py`.
"""

from dataclasses import dataclass, field

from sageserve.live.authority.drains import COST
from sageserve.live.authority.target_object import LWS_NAME
from sageserve.live.kubernetes.fake import Stored
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.objects import Json, KubeObject
from tests.live.authority.stage import NAME, SPACE, USER, Field, Process

GATED: Json = [{"name": "kueue.x-k8s.io/admission"}]


@dataclass
class CountField(Field):
    """A Deployment, or another kind with a count.

    `gated`: pods that come are held back by a quota.
    """

    kind: str = "Deployment"
    gated: bool = False
    gone: list[str] = field(default_factory=list)
    _number: int = 0

    async def made(self, low: int | None = 2, high: int = 16, count: int = 4) -> "CountField":
        labels: Json = {"matchLabels": {"app": NAME}}
        selector: dict[str, Json] = {} if self.kind == "LeaderWorkerSet" else {"selector": labels}
        spec: Json = {"replicas": count, "template": {}, **selector}
        await self.outside().create(self.place, {"spec": spec}, USER)
        self.scaled()
        return self

    @property
    def count(self) -> int:
        return self.found().number("spec", "replicas") or 0

    def pods(self) -> list[KubeObject]:
        return [KubeObject(one) for one in self.cluster.of("Pod", SPACE)]

    def marked(self) -> list[str]:
        return [pod.name for pod in self.pods() if COST in pod.annotations]

    def scaled(self) -> int:
        """Its controller: as many pods as are asked for, by the order in which Kubernetes takes them away."""
        while len(self.pods()) > self.count:
            first = min(self.pods(), key=self._goes_first)
            self.gone.append(first.name)
            self.cluster.delete("Pod", SPACE, first.name)
        while len(self.pods()) < self.count:
            self._pod()
        ready = sum(pod.condition("Ready").text("status") == "True" for pod in self.pods())

        def change(data: Stored) -> None:
            data["status"] = {"readyReplicas": ready, "replicas": len(self.pods())}

        if self.found().number("status", "readyReplicas") != ready:
            self.cluster.change(self.kind, SPACE, NAME, change)
        return self.count

    def _goes_first(self, pod: KubeObject) -> tuple[bool, int, int]:
        number = -int(pod.name.rsplit("-", 1)[1])
        if self.kind != "Deployment":
            return False, 0, number
        return pod.condition("Ready").text("status") == "True", int(pod.annotations.get(COST, "0")), number

    def _pod(self) -> None:
        name = f"{NAME}-{self._number}" if self.kind == "Deployment" else f"{NAME}-{len(self.pods())}"
        self._number += 1
        spec: Json = {"schedulingGates": GATED} if self.gated else {}
        ready: Json = [] if self.gated else [{"type": "Ready", "status": "True"}]
        labels: Json = {LWS_NAME: NAME} if self.kind == "LeaderWorkerSet" else {"app": NAME}
        metadata: Json = {"name": name, "namespace": SPACE, "labels": labels}
        status: Json = {"phase": "Running", "conditions": ready, "podIP": f"10.0.0.{self._number}"}
        self.cluster.put({"kind": "Pod", "metadata": metadata, "spec": spec, "status": status})

    def scaler(self, kind: str = "HorizontalPodAutoscaler", name: str = "auto") -> None:
        """Somebody makes an autoscaler of it."""
        about: Json = {"kind": self.kind, "name": NAME, "apiVersion": KINDS[self.kind].api_version}
        metadata: Json = {"name": name, "namespace": SPACE}
        self.cluster.put({"kind": kind, "metadata": metadata, "spec": {"scaleTargetRef": about, "maxReplicas": 9}})

    def owned_by(self, kind: str, name: str) -> None:
        """Its object was made by another's controller."""

        def change(data: Stored) -> None:
            data["metadata"] = {**KubeObject(data).part("metadata").data, "ownerReferences": [{"kind": kind, "name": name}]}

        self.cluster.change(self.kind, SPACE, NAME, change)

    def note(self, process: Process) -> str:
        """What a person is told of it."""
        [note] = process.hands.notes()
        return note
