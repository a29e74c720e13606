"""Everything that `doctor` looks up, once for all targets of a cluster: objects by kind, and raw series of the last minutes.

Fifty targets cost as many questions as five: lists are made per kind and namespace, series are asked for with one selector. What
could not be read is kept as the reason why. Knows no check. Read next: `run.py`.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.config.clusters import ClusterSettings, TargetSettings
from sageserve.base.units import SECOND, Micros
from sageserve.data.history.raw import RawSeries, label_matches
from sageserve.live.doctor.checks import CheckFinding
from sageserve.live.kubernetes.kinds import ALL_RUNGS, KINDS, SCALERS
from sageserve.live.kubernetes.objects import KubeObject, selects
from sageserve.live.kubernetes.reader import ClusterReader, NotRead, Right
from sageserve.live.kubernetes.rights import home_of, rights_of
from sageserve.live.prometheus import queries
from sageserve.live.prometheus.server import NotSeen, PrometheusServer, RawAnswer

LOOK_S: Final = 600.0  # seconds of samples that a look needs: for the scrape interval, and for what has just stopped
ASIDE: Final = ("Pod", "Event", "ResourceQuota", "PodDisruptionBudget", "ConfigMap", "Lease")
WRITES: Final = ("patch", "update", "delete", "create")


@dataclass(frozen=True, slots=True)
class DoctorTarget:
    """A target with its name, the parts of its pool, and the namespace of its cluster's lease and orders."""

    name: str
    settings: TargetSettings
    region: str
    model: str
    gpu: str
    home: str

    @property
    def namespace(self) -> str:
        """Of its object."""
        return self.settings.name.split("/", 1)[0]

    @property
    def object_name(self) -> str:
        """Of its object."""
        return self.settings.name.split("/", 1)[1]

    @property
    def acts(self) -> bool:
        """Whether it may be acted on at all."""
        return self.settings.authority != "observe"

    def label_set(self) -> dict[str, str]:
        """Labels of its engines' series."""
        return self.settings.series or {"model_name": self.model}


def targets_of(scenario: Scenario, cluster: str) -> tuple[DoctorTarget, ...]:
    """Targets of a cluster, in the order of the settings."""
    live = scenario.live
    mine = {name: one for name, one in (live.targets if live is not None else {}).items() if one.cluster == cluster}
    home, found = home_of(mine.values()), []
    for name, settings in mine.items():
        region, rest = settings.pool.split("/", 1)
        model, gpu = rest.rsplit("/", 1)
        found.append(DoctorTarget(name, settings, region, model, gpu, home))
    return tuple(found)


@dataclass(slots=True)
class ClusterFacts:
    """One cluster.

    Args:
        name, settings, targets: whose.
        scenario: all settings.
        now: microseconds since 1970.
        server: Prometheus; None: none is configured.
        clock: what time it is there, when it was asked.
        prometheus: its version, or why it does not answer.
        series: of the last minutes, of all engines.
        objects: by kind and namespace.
        rights: what we may do.
        version: of the API server; empty: the cluster was not asked.
        unread: why the cluster could not be asked at all; None: it was, or need not be.
        agent: what is wrong with the agent that acts there.
    """

    name: str
    settings: ClusterSettings
    targets: tuple[DoctorTarget, ...]
    scenario: Scenario
    now: Micros
    server: PrometheusServer | None = None
    clock: float | NotSeen | None = None
    prometheus: str | NotSeen | None = None
    series: RawAnswer | NotSeen | None = None
    objects: dict[tuple[str, str], list[KubeObject] | NotRead] = field(default_factory=dict)
    rights: dict[Right, bool | NotRead] = field(default_factory=dict)
    version: str = ""
    unread: NotRead | None = None
    agent: Sequence[CheckFinding] = ()

    @property
    def now_s(self) -> float:
        """Seconds since 1970."""
        return self.now / SECOND

    @property
    def where(self) -> str:
        """Where its settings stand."""
        return f"live.clusters.{self.name}"

    def of(self, kind: str, namespace: str = "") -> list[KubeObject]:
        """Objects; empty where they could not be read."""
        found = self.objects.get((kind, namespace if KINDS[kind].namespaced else ""), [])
        return [] if isinstance(found, NotRead) else found

    def object_of(self, target: DoctorTarget) -> KubeObject | None:
        """The object that a target names."""
        return self.find(target.settings.kind, target.namespace, target.object_name)

    def find(self, kind: str, namespace: str, name: str) -> KubeObject | None:
        """An object by name."""
        return next((one for one in self.of(kind, namespace) if one.name == name), None) if kind in KINDS else None

    def scaled(self, target: DoctorTarget) -> KubeObject | None:
        """The object whose count a target decides: what an HPA or ScaledObject points to, else the target itself."""
        found = self.object_of(target)
        if found is None or target.settings.kind not in SCALERS:
            return found
        reference = found.part("spec", "scaleTargetRef")
        return self.find(reference.text("kind") or "Deployment", target.namespace, reference.text("name"))

    def pods(self, target: DoctorTarget) -> list[KubeObject]:
        """Pods of the object whose count a target decides."""
        scaled = self.scaled(target)
        if scaled is None:
            return []
        selector = scaled.part("spec", "selector")
        return [pod for pod in self.of("Pod", target.namespace) if selects(selector, pod.labels("metadata", "labels"))]

    def ready(self, target: DoctorTarget) -> list[str]:
        """Names of its pods that are Ready."""
        return [pod.name for pod in self.pods(target) if pod.condition("Ready").text("status") == "True"]

    def raw(self, target: DoctorTarget) -> list[RawSeries]:
        """Its engines' series of the last minutes."""
        if not isinstance(self.series, RawAnswer):
            return []
        return [one for one in self.series.series if _labelled(one, target)]


def _labelled(one: RawSeries, target: DoctorTarget) -> bool:
    return all(label_matches(one.labels.get(label, ""), value) for label, value in target.label_set().items())


def write_rights(target: DoctorTarget) -> list[Right]:
    """What nobody needs who only observes."""
    kind = KINDS[target.settings.kind]
    found = [Right(verb, kind.group, kind.plural, target.namespace) for verb in WRITES]
    return [*found, *([Right("patch", kind.group, f"{kind.plural}/scale", target.namespace)] if kind.scale else [])]


async def look_up(facts: ClusterFacts, reader: ClusterReader | None) -> None:
    """Fill in what is not known yet: Prometheus and the cluster at the same time."""
    await asyncio.gather(_metrics(facts), _cluster(facts, reader))


async def _metrics(facts: ClusterFacts) -> None:
    server = facts.server
    if server is None:
        return
    facts.clock = await asyncio.to_thread(server.clock)  # first, while `now` is still now
    facts.prometheus = await asyncio.to_thread(server.version)
    if not isinstance(facts.prometheus, NotSeen):
        selector = queries.selector(queries.plain_names(), "")
        facts.series = await asyncio.to_thread(server.raw, selector, 2 * LOOK_S, facts.now_s + LOOK_S)


async def _cluster(facts: ClusterFacts, reader: ClusterReader | None) -> None:
    if reader is None:
        return
    version = await reader.version()
    if isinstance(version, NotRead):
        facts.unread = version
        return
    facts.version = version
    spaces = sorted({target.namespace for target in facts.targets} | set(facts.settings.namespaces))
    kinds = [*dict.fromkeys((*(target.settings.kind for target in facts.targets), *SCALERS, *_counted(), *ASIDE))]
    wanted = [(kind, space) for kind in kinds for space in spaces] + [("Node", ""), ("APIService", "")]
    answers = await asyncio.gather(*(reader.list(kind, space) if space else reader.list(kind) for kind, space in wanted))
    facts.objects = dict(zip(wanted, answers, strict=True))
    facts.objects["Application", "argocd"] = await reader.list("Application", "argocd")
    rights = [right for target in facts.targets for right in _asked(target, follows=facts.settings.pods)]
    facts.rights = await reader.all_allowed(rights)


def _asked(target: DoctorTarget, *, follows: bool) -> Sequence[Right]:
    needed = rights_of(target.settings, target.home, follows=follows)
    return needed if target.acts else [*needed, *write_rights(target)]


def _counted() -> Iterable[str]:
    return (kind.kind for kind in KINDS.values() if kind.count and kind.kind not in ALL_RUNGS)
