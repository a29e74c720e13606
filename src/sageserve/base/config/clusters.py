"""Settings of the clusters that others run: where they are watched, which targets are ours to think about, how far we may go.

Read by `sageserve doctor` and by what watches; nothing is written because of it without `watch --act`. Names of pools are
`region/model/gpu`, as everywhere. Knows no client. Read next: `data/scenarios/checking/clusters.py` for what must fit together.
"""

import re
from typing import Final, Literal, Self, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sageserve.base.config.settings import Name, Settings, port_to_open
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND, Duration, Price
from sageserve.base.urls import is_url, shown_url

Rung: TypeAlias = Literal["observe", "floor", "bounds", "full"]
RUNGS: Final[tuple[Rung, ...]] = ("observe", "floor", "bounds", "full")
"""How far a target may be acted on: not at all, its minimum, its minimum and maximum, its replicas."""

TargetKind: TypeAlias = Literal[
    "Deployment",
    "StatefulSet",
    "LeaderWorkerSet",
    "HorizontalPodAutoscaler",
    "ScaledObject",
    "LLMInferenceService",
    "VLLMRuntime",
    "PodAutoscaler",
    "StormService",
    "DynamoGraphDeploymentScalingAdapter",
    "ModelDeployment",
    "RayServe",
]
"""Kinds of objects that hold a count of instances, or bounds of one."""

ShareKind: TypeAlias = Literal["AIGatewayRoute", "ModelService"]
"""Kinds of objects that share requests among regions."""

RAY: Final = "RayServe"
"""The kind that is no object of Kubernetes: a deployment of Ray Serve, APPLICATION/DEPLOYMENT."""
KNOWS_PODS: Final = ("Deployment", "StatefulSet", "LeaderWorkerSet", "HorizontalPodAutoscaler", "ScaledObject")
"""Kinds that say which pods are theirs, by themselves or by what they scale."""
_OBJECT: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_DEPLOYMENT: Final = re.compile(r"[^/\s](?:[^/]*[^/\s])?/[^/\s](?:[^/]*[^/\s])?")


class BasicSettings(Settings):
    """A user and a password."""

    user: str = Field(description="of the server")
    password_file: str = Field(description="read again for each connection; one line")


def _url(text: str, such_as: str) -> str:
    if not is_url(text):
        raise ValueError(f"{shown_url(text)!r} is no URL: write one such as {such_as}")
    return text


class PrometheusSettings(Settings):
    """A Prometheus server, or what speaks like one: Thanos, Mimir, VictoriaMetrics."""

    url: str = Field(pattern="^https?://[^/]", description="without /api, such as https://prom.east")
    bearer_file: str | None = Field(default=None, description="with a token; read again for each request, as tokens are renewed")
    basic: BasicSettings | None = Field(default=None, description="a user and a password; none: not asked for")
    ca_file: str | None = Field(default=None, description="certificates to trust; none: the system's")
    headers: dict[str, str] = Field(default={}, description="sent with every request, such as X-Scope-OrgID of Mimir")
    timeout: Duration = Field(default=30 * SECOND, gt=0, description="for a connection, and between two pieces of an answer")

    @field_validator("url")
    @classmethod
    def _can_be_asked(cls, url: str) -> str:
        return _url(url, "https://prom.east")


def prometheus_at(url: str) -> PrometheusSettings:
    """Settings of a server that needs nothing but its address.

    Raises:
        ConfigError: not an address.
    """
    if not is_url(url):
        raise ConfigError(f"{shown_url(url)!r} is not the address of a server", hint="write http://HOST:PORT, without /api")
    return PrometheusSettings(url=url)


class RaySettings(Settings):
    """The dashboard of a Ray cluster, whose Serve is acted on."""

    url: str = Field(pattern="^https?://[^/]", description="of the dashboard, such as http://ray-head:8265")
    bearer_file: str | None = Field(default=None, description="with a token; read again for each request")
    ca_file: str | None = Field(default=None, description="certificates to trust; none: the system's")

    @field_validator("url")
    @classmethod
    def _can_be_asked(cls, url: str) -> str:
        return _url(url, "http://ray-head:8265")


class AgentSettings(Settings):
    """The agent of a cluster: it fetches plans and says how it goes; nobody here needs credentials there."""

    plans: str = Field(pattern="^(/|https?://[^/])", description="URL or absolute folder where it fetches CLUSTER.plan")
    report: str | None = Field(
        default=None,
        pattern="^(/|https?://[^/])",
        description="URL or absolute folder where it puts CLUSTER.status.json, and the hub reads it; none: the hub hears nothing",
    )
    key: str | None = Field(
        default=None, pattern="^/", description="absolute path of the hub's .pub, which plans are sealed by; none: --key says it"
    )
    bearer_file: str | None = Field(default=None, pattern="^/", description="with a token for both URLs, read anew each time")
    ca_file: str | None = Field(default=None, pattern="^/", description="certificates that they may have; none: the system's")

    @field_validator("plans", "report")
    @classmethod
    def _can_be_asked(cls, place: str | None) -> str | None:
        if place is None or place.startswith("/"):
            return place
        if "@" in place.partition("://")[2].partition("/")[0]:
            raise ValueError("a URL with a password would be shown and sent as it is: write a token's bearer_file")
        if {"?", "#"} & set(place):
            raise ValueError("a file's name is put behind it, so that it has neither a query nor a fragment")
        return _url(place, "https://plans.example/fleet/")

    @model_validator(mode="before")
    @classmethod
    def _place(cls, given: object) -> object:
        """Where plans are stands for the node."""
        return {"plans": given} if isinstance(given, str) else given


class ClusterSettings(Settings):
    """A Kubernetes cluster or a Ray cluster, its Prometheus, or both."""

    context: str | None = Field(default=None, description="of the kubeconfig; none: its current one")
    ray: RaySettings | None = Field(default=None, description="it is a Ray cluster; none: Kubernetes")
    agent: AgentSettings | None = Field(
        default=None,
        description="an agent acts there, and nobody here: where it fetches plans; none: whoever has credentials acts",
    )
    prometheus: PrometheusSettings | None = Field(default=None, description="none: what runs is not seen")
    namespaces: tuple[str, ...] = Field(default=(), description="that hold engines; none: those of the targets")
    pods: bool = Field(
        default=False,
        description="instances follow the pods of targets, as the API server tells of them; false: what Prometheus records",
    )
    guard: str | None = Field(
        default=None,
        pattern="^/",
        description="absolute path of a file of the cluster's owner: how far targets may go; none: no guard",
    )


class TargetSettings(Settings):
    """One object that decides how many instances a pool has."""

    cluster: Name = Field(description="one of live.clusters")
    pool: Name = Field(description="region/model/gpu of this scenario")
    kind: TargetKind = Field(description="of the object")
    name: str = Field(max_length=317, description="NAMESPACE/NAME of the object; of RayServe APPLICATION/DEPLOYMENT")
    authority: Rung = Field(default="observe", description="how far it may be acted on; watching needs no right to write")
    min: int = Field(default=0, ge=0, description="instances, never fewer")
    max: int = Field(ge=1, le=100_000, description="instances, never more")
    gpus: int | None = Field(
        default=None, ge=1, description="of one instance, where the cluster does not say; none: the engine's"
    )
    selector: dict[str, str] = Field(
        default={}, description="labels of its pods, where clusters.NAME.pods follows them; none: as the object selects them"
    )
    series: dict[str, str] = Field(
        default={},
        description="labels of its engines' series; a value that begins with =~ is a regular expression; none: model_name is the "
        "pool's model",
    )
    keda: bool = Field(
        default=False, description="live.scaler tells KEDA what decisions ask for, whatever `authority` says; false: only `min`"
    )
    take_over: bool = Field(default=False, description="fields that another manager owns may be taken from it, once")

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str, info: ValidationInfo) -> str:
        ray = info.data.get("kind") == RAY
        if ray and not _DEPLOYMENT.fullmatch(name):
            raise ValueError("no deployment of Ray Serve: write APPLICATION/DEPLOYMENT")
        if not ray and not _OBJECT.fullmatch(name):
            raise ValueError("no object: write NAMESPACE/NAME, as Kubernetes writes them")
        return name


class ShareSettings(Settings):
    """An object that says which part of a model's requests goes to which region."""

    cluster: Name = Field(description="one of live.clusters, which has a target, too: its lease and orders are ours")
    kind: ShareKind = Field(description="of the object")
    name: str = Field(max_length=317, description="NAMESPACE/NAME of the object")
    model: Name = Field(description="whose requests they are")
    origin: Name | None = Field(default=None, description="region that they come from; none: the first")
    tier: Name | None = Field(default=None, description="of them; none: the first that is interactive, else the first")
    backends: dict[Name, str] = Field(
        min_length=2,
        description="by region: name of a backendRef of AIGatewayRoute; of ModelService a label of a selector, KEY=VALUE",
    )
    authority: Literal["observe", "full"] = Field(default="observe", description="full: its weights are written")
    take_over: bool = Field(default=False, description="a list that another manager owns may be taken from it, once")

    @field_validator("name")
    @classmethod
    def _is_an_object(cls, name: str) -> str:
        if not _OBJECT.fullmatch(name):
            raise ValueError("no object: write NAMESPACE/NAME, as Kubernetes writes them")
        return name

    @field_validator("backends")
    @classmethod
    def _are_several(cls, backends: dict[str, str]) -> dict[str, str]:
        if len(set(backends.values())) < len(backends) or not all(backends.values()):
            raise ValueError("each region has a backend of its own")
        return backends


class ServiceSettings(Settings):
    """Engines in a cluster that others start and stop: those behind a Service, or pods with certain labels."""

    cluster: Name = Field(description="one of live.clusters")
    region: Name = Field(description="where they are")
    model: Name = Field(description="what they serve")
    gpu: Name | None = Field(default=None, description="GPU type; none: the model's first engine in the region")
    service: str = Field(default="", description="NAMESPACE/NAME of a Service, whose EndpointSlices are followed; empty: pods")
    pods: dict[str, str] = Field(default={}, description="labels of pods, where no service is named")
    namespace: str = Field(default="", description="of those pods")
    port: str = Field(default="", description="name or number of the engine's port; empty: the first one")
    scheme: Literal["http", "https"] = Field(default="http", description="how they are spoken to")
    access: Name | None = Field(default=None, description="one of live.access, the same for all services; none: no key")
    served_model: str = Field(default="", description="name the engines know the model by; empty: the scenario's name")
    metrics: str = Field(default="/metrics", pattern="^/", description="path of their Prometheus metrics")

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if bool(self.service) == bool(self.pods):
            raise ValueError("give one of service (NAMESPACE/NAME) and pods (labels, with namespace)")
        if self.service and not _OBJECT.fullmatch(self.service):
            raise ValueError(f"service {self.service!r} is no object: write NAMESPACE/NAME, as Kubernetes writes them")
        if bool(self.namespace) == bool(self.service):
            raise ValueError("namespace is of pods, and needed there: a service has it in its name")
        if self.pods and not self.port:
            raise ValueError("pods need a port: the name or the number of the container's")
        return self

    @property
    def space(self) -> str:
        """The namespace."""
        return self.namespace or self.service.partition("/")[0]

    @property
    def name(self) -> str:
        """As people are told of it."""
        labels = ",".join(f"{key}={value}" for key, value in self.pods.items())
        return f"{self.cluster}/{self.service}" if self.service else f"{self.cluster}/{self.namespace}/{labels}"

    @property
    def number(self) -> int | None:
        """The port, where it is said by number."""
        return int(self.port) if self.port.isdecimal() else None


class ScalerTlsSettings(Settings):
    """What the scaler's port is opened with."""

    certificate: str = Field(pattern="^/", description="absolute path of a PEM file: the certificate, then those that sign it")
    key: str = Field(pattern="^/", description="absolute path of its key, without a password; for its user alone")
    client_ca: str | None = Field(
        default=None,
        pattern="^/",
        description="PEM file: who may have signed the certificate that KEDA shows; none: not asked for",
    )


class ScalerSettings(Settings):
    """The port at which KEDA asks how many instances targets should have."""

    listen: str = Field(default="127.0.0.1:7001", description="HOST:PORT; port 0: any")
    tls: ScalerTlsSettings | None = Field(default=None, description="none: in the clear")

    @field_validator("listen")
    @classmethod
    def _is_a_port(cls, listen: str) -> str:
        return port_to_open(listen, "0.0.0.0:7001")


class PrioritySettings(Settings):
    """How routers and histories name a tier."""

    priority: int = Field(description="of llm-d's InferenceObjective and of the EPP's series")


class BudgetSettings(Settings):
    """What targets may hold together."""

    gpus: dict[Name, int] = Field(default={}, description="by region/gpu")
    per_hour: Price | None = Field(default=None, description="on demand, for all targets together; none: no limit")
