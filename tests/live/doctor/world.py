"""A healthy set-up for `doctor`: settings, a cluster and a Prometheus that agree; tests change one thing in it."""

import asyncio
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import httpx
import httpx2
import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.config.clusters import PrometheusSettings
from sageserve.base.units import SECOND
from sageserve.data.history.raw import RawSeries
from sageserve.data.rebuild.render import TOKENS
from sageserve.data.scenarios.load import load_scenario
from sageserve.live.doctor.checks import CheckFinding, CheckResult
from sageserve.live.doctor.run import DoctorSources, examine
from sageserve.live.kubernetes.fake import FakeCluster, Stored
from sageserve.live.kubernetes.fake_api import FakeTransport, fake_config
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.reader import ClusterReader, Right
from sageserve.live.prometheus.server import PrometheusServer
from tests.data.history.made import matrix
from tests.worlds import SMALL_FLEET

NOW = 1_795_000_000 * SECOND
STEP = 15 * SECOND
MODEL = "llama-2-70b"


class FakePrometheus(httpx.BaseTransport):
    """Answers what `doctor` asks from what it holds."""

    def __init__(self, pods: list[tuple[str, str]]) -> None:
        self.ahead = 0.0
        self.days = 30
        self.status = 200
        self.resets = 0
        self.request_s = 60.0
        self.bounds = [*TOKENS, float("inf")]
        self.series: list[RawSeries] = [one for model, pod in pods for one in engine_series(model, pod)]
        self.old_step = STEP
        self.up: list[tuple[dict[str, str], float]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.status != 200:
            return httpx.Response(self.status, text="no")
        if request.url.path.endswith("buildinfo"):
            return httpx.Response(200, json={"status": "success", "data": {"version": "2.42.0"}})
        form = {key: values[0] for key, values in parse_qs(request.url.query.decode() or request.read().decode()).items()}
        return httpx.Response(200, content=self._answer(form["query"], float(form.get("time", NOW / SECOND))))

    def _answer(self, query: str, at: float) -> bytes:
        if query == "time()":
            return self._result("scalar", [at, str(NOW / SECOND + self.ahead)])
        if match := re.search(r"\[(\d+)ms\]$", query):
            return matrix(self._between(at - int(match[1]) / 1000, at))
        return self._vector(self._rows(query, at))

    def _rows(self, query: str, at: float) -> list[tuple[dict[str, str], float]]:
        if query == "up":
            return [({"__name__": "up"} | labels, value) for labels, value in self.up]
        if query.startswith("count({"):
            return [({}, 1.0)] if at >= NOW / SECOND - self.days * 86_400 - 10 else []
        if query.startswith("sum by (model_name, le)"):
            bounds = [f"{bound:g}".replace("inf", "+Inf") for bound in self.bounds]
            return [({"model_name": model, "le": bound}, 100.0) for model in self._models() for bound in bounds]
        if "resets(" in query:
            return [({"model_name": model}, float(self.resets)) for model in self._models()]
        if query.startswith("sum by (model_name) "):
            return [({"model_name": model}, 100.0) for model in self._models()]
        if "e2e_request" in query:
            return [({"le": f"{bound:g}"}, 100.0 * (bound >= self.request_s)) for bound in (1, 10, 60, 300, 600)]
        return []

    def _models(self) -> list[str]:
        return sorted({one.labels["model_name"] for one in self.series})

    def _between(self, begin: float, end: float) -> list[RawSeries]:
        if end < NOW / SECOND - 3600:  # a day ago
            step, found = self.old_step, []
            for one in self.series[:3]:
                time = np.arange(round(begin * SECOND) // step + 1, round(end * SECOND) // step) * step
                found.append(RawSeries(one.labels, time, np.zeros(len(time))))
            return found
        return [part for one in self.series if len(part := one.between(round(begin * SECOND) + 1, round(end * SECOND) + 1))]

    @staticmethod
    def _result(kind: str, result: object) -> bytes:
        return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()

    def _vector(self, rows: list[tuple[dict[str, str], float]]) -> bytes:
        return self._result("vector", [{"metric": labels, "value": [NOW / SECOND, str(value)]} for labels, value in rows])


def engine_series(model: str, pod: str, **more: str) -> list[RawSeries]:
    time = NOW - np.arange(20)[::-1] * STEP - 3 * SECOND
    labels = {"model_name": model, "pod": pod, "namespace": "serving", "instance": f"{pod}:8000", "job": "vllm"} | more
    names = (
        "num_requests_running",
        "num_requests_waiting",
        "request_success_total",
        "prompt_tokens_total",
        "generation_tokens_total",
    )
    return [RawSeries({"__name__": f"vllm:{name}"} | labels, time, np.arange(20.0) % 7) for name in names]


class Unreachable(httpx2.AsyncBaseTransport):
    """No server at all."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("connection refused", request=request)


@dataclass
class World:
    """Everything that `doctor` looks at, and how it is put right."""

    folder: Path
    count: int = 1
    overrides: list[str] = field(default_factory=list)
    kubernetes: FakeCluster = field(default_factory=FakeCluster)
    excess: bool = False
    denied: set[str] = field(default_factory=set)
    unreachable: bool = False
    agents: dict[str, list[CheckFinding]] = field(default_factory=dict)
    react: Callable[["World"], None] = field(default=lambda _: None)

    def __post_init__(self) -> None:
        pods = [(f"m{i}", f"llama-{i}-{n}") for i in range(self.count) for n in range(2)]
        self.prometheus = FakePrometheus(pods)
        self.kubernetes.allowed = self._allowed
        for i in range(self.count):
            for one in workload(f"llama-{i}"):
                self.kubernetes.put(one)
        self.kubernetes.put({"kind": "Node", "metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/gpu": "8000"}}})
        service: Stored = {"name": "keda-operator-metrics-apiserver", "namespace": "keda"}
        name = "v1beta1.external.metrics.k8s.io"
        self.kubernetes.put({"kind": "APIService", "metadata": {"name": name}, "spec": {"service": service}})

    def _allowed(self, right: Right) -> bool:
        if right.plural in self.denied or right.verb in self.denied:
            return False
        ours = right.plural in ("leases", "configmaps")
        return right.verb in ("get", "list", "watch") or self.excess or right.verb == "patch" or ours

    def scenario(self) -> Scenario:
        pool = f"pool: eastus/{MODEL}/h100-80gb"
        targets = "".join(
            f"    t{i}: {{cluster: east, {pool}, kind: ScaledObject, name: serving/llama-{i}, authority: floor, max: 10,"
            f" series: {{model_name: m{i}}}}}\n"
            for i in range(self.count)
        )
        clusters = "clusters: {east: {prometheus: {url: 'http://prom'}}}"
        text = f"extends: {SMALL_FLEET}\nlive:\n  {clusters}\n  targets:\n{targets}"
        path = self.folder / "world.yaml"
        path.write_text(text, "utf-8")
        return load_scenario(path, overrides=self.overrides)

    def examine(self) -> tuple[CheckResult, ...]:
        async def work() -> tuple[CheckResult, ...]:
            settings = PrometheusSettings(url="http://prom")
            transport = Unreachable() if self.unreachable else FakeTransport(self.kubernetes)
            async with ClusterReader(fake_config(), transport) as reader:
                with PrometheusServer(settings, self.prometheus) as server:
                    return await examine(self.scenario(), DoctorSources({"east": server}, {"east": reader}, {}, self.agents), NOW)

        return asyncio.run(work())

    def change(self, kind: str, name: str, body: object) -> None:
        """Merge into an object, as `kubectl patch --type merge` does."""

        def merge(data: Stored) -> None:
            merged(data, body)

        self.kubernetes.change(kind, "serving", name, merge)

    def paste(self, line: str) -> None:
        """Do what a next step says; then the controllers of the cluster react."""
        if line.startswith("kubectl"):
            self._kubectl(shlex.split(line, comments=True)[1:])
        elif line.startswith(("live.", "tiers.")):
            key, _, value = line.partition(": ")
            self.overrides.append(f"{key}={value}")
        self.react(self)

    def _kubectl(self, words: list[str]) -> None:
        options = {word.split("=")[0]: word.partition("=")[2] for word in words if word.startswith("--")}
        if words[0] == "-n":
            words = words[2:]
        match words:
            case ["create", "role", *_]:
                assert options["--verb"]
                assert options["--resource"]
                self.denied.clear()
            case ["patch", "role", *_]:
                self.excess = False
                self.denied = {"patch"}
            case ["patch", resource, name, "--type", how, "-p", text]:
                kind = next(kind for kind in KINDS.values() if kind.resource == resource)
                space = "serving" if kind.namespaced and kind.kind != "Application" else "argocd" if kind.namespaced else ""
                body = json.loads(text)
                change = (lambda data: merged(data, body)) if how == "merge" else (lambda data: stepped(data, body))
                self.kubernetes.change(kind.kind, space, name, change)
            case ["delete", resource, name]:
                kind = next(kind for kind in KINDS.values() if resource in (kind.resource, kind.kind.lower()))
                self.kubernetes.delete(kind.kind, "serving", name)
            case ["scale", resource, name, _]:
                kind = next(kind for kind in KINDS.values() if kind.resource == resource)
                self.change(kind.kind, name, {"spec": {"replicas": int(options["--replicas"])}})
            case _:
                pass


def merged(data: object, body: object) -> None:
    assert isinstance(data, dict)
    assert isinstance(body, dict)
    for key, value in body.items():
        if value is None:
            data.pop(key, None)
        elif isinstance(value, dict) and isinstance(data.get(key), dict):
            merged(data[key], value)
        else:
            data[key] = value


def stepped(data: object, steps: list[dict[str, object]]) -> None:
    for step in steps:
        *path, last = str(step["path"]).strip("/").split("/")
        at = data
        for part in path:
            at = at[int(part)] if isinstance(at, list) else at[part]  # type: ignore[index] # JSON
        if isinstance(at, list):
            at.append(step["value"])
        else:
            assert isinstance(at, dict)
            at[last] = step["value"]


def workload(name: str) -> list[Stored]:
    """A Deployment with two pods, the ScaledObject that scales it, KEDA's HPA of it, and a disruption budget."""
    labels: Stored = {"app": name}
    container: Stored = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": ["--model=x", "--shutdown-timeout=120"],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 15}}},
    }
    spec: Stored = {"terminationGracePeriodSeconds": 150, "containers": [container]}
    template: Stored = {"metadata": {"labels": labels}, "spec": spec}
    found: list[Stored] = [
        {
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "serving"},
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
        },
        {
            "kind": "ScaledObject",
            "metadata": {"name": name, "namespace": "serving", "managedFields": []},
            "spec": {
                "scaleTargetRef": {"name": name},
                "minReplicaCount": 1,
                "maxReplicaCount": 10,
                "fallback": {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"},
                "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {}}},
                "triggers": [
                    {"type": "prometheus", "metadata": {"ignoreNullValues": "false"}},
                    {"type": "external-push", "metadata": {"scalerAddress": "sageserve:7001"}},
                ],
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "health": {"s1-desired": {"status": "Happy"}}},
        },
        {
            "kind": "HorizontalPodAutoscaler",
            "metadata": {
                "name": f"keda-hpa-{name}",
                "namespace": "serving",
                "ownerReferences": [{"kind": "ScaledObject", "name": name}],
            },
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": name}, "minReplicas": 1, "maxReplicas": 10},
        },
        {
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name, "namespace": "serving"},
            "spec": {"selector": {"matchLabels": labels}, "maxUnavailable": 1},
            "status": {"disruptionsAllowed": 1},
        },
    ]
    return found + [pod(name, number) for number in range(2)]


def pod(name: str, number: int) -> Stored:
    return {
        "kind": "Pod",
        "metadata": {
            "name": f"{name}-{number}",
            "namespace": "serving",
            "labels": {"app": name},
            "creationTimestamp": "2026-11-18T00:00:00Z",
        },
        "spec": {},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"restartCount": 0}],
        },
    }
