"""Who is there: what a Prometheus server knows of engines, models, GPUs, gateways and autoscalers, without any settings.

    with PrometheusServer(prometheus_at(url)) as server:
        found = discover(server, now)

For a first settings file: instances of one workload that serve one model are a pool. What is not recorded is empty, and said in
a note. Reads only. Knows no settings file. Read next: docs/reference/prometheus.md.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sageserve.base.errors import MeasurementError
from sageserve.base.units import DAY, SECOND, Micros
from sageserve.data.history.collect import spacing
from sageserve.data.history.names import FRONTS, EngineKind, FrontKind, FrontSignal
from sageserve.data.history.raw import RawSeries
from sageserve.live.prometheus import queries
from sageserve.live.prometheus.server import NotSeen, PrometheusServer, RawAnswer, VectorSample
from sageserve.live.prometheus.sight import PodSight, look

LOOK_S: Final = 600.0  # seconds of samples that show who is there, and the scrape interval
AGES: Final = (30, 14, 7, 4, 2, 1)  # days of history that are asked for
MOST_OVER: Final = "7d"  # in which the most instances at once are looked for
HPA_OF_KEDA: Final = "keda-hpa-"
_REPLICA: Final = re.compile(r"-[0-9a-f]{6,10}-[a-z0-9]{5}$")
_ORDINAL: Final = re.compile(r"-\d+$")


@dataclass(frozen=True, slots=True)
class FoundPool:
    """Instances of one workload that serve one model.

    Args:
        model: as they name it.
        cluster, namespace, workload: where; empty where no label says so. The workload is a pod's name without what a
            controller put behind it.
        engine: which program serves.
        instances: now.
        most: at once, over the last week.
        gpu: what DCGM or node labels call it; empty: not recorded.
        gpus: of one instance; 0: not recorded.
        kv_tokens: of one instance's cache; 0: the engine does not say.
        series: labels that tell its series from all others, as settings have them.
    """

    model: str
    cluster: str
    namespace: str
    workload: str
    engine: EngineKind
    instances: int
    most: int
    gpu: str
    gpus: int
    kv_tokens: int
    series: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoundScaler:
    """An autoscaler that kube-state-metrics shows: bounds, and what it scales. KEDA's are told by their name."""

    namespace: str
    name: str
    workload: str
    low: int
    high: int

    @property
    def scaled_object(self) -> str:
        """The ScaledObject it was made of; empty: it is an HPA of its own."""
        return self.name.removeprefix(HPA_OF_KEDA) if self.name.startswith(HPA_OF_KEDA) else ""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Everything that was found.

    Args:
        version: of the server; empty: it does not say.
        interval: microseconds between two scrapes.
        days: of history of engines: one of AGES, or 0.
        pools: by cluster, namespace, workload and model.
        fronts: gateways that count arrivals, with the values of their label for service classes.
        scalers: autoscalers.
        notes: what is not recorded, in sentences.
    """

    version: str
    interval: Micros
    days: int
    pools: tuple[FoundPool, ...]
    fronts: Mapping[FrontKind, tuple[str, ...]]
    scalers: tuple[FoundScaler, ...]
    notes: tuple[str, ...]


def discover(server: PrometheusServer, now: Micros) -> Discovery:
    """Look around.

    Raises:
        MeasurementError: the server does not answer, or knows no engine.
    """
    version = server.version()
    selector = queries.selector(queries.plain_names(), "")
    answer = server.raw(selector, LOOK_S, now / SECOND)
    if isinstance(version, NotSeen) or isinstance(answer, NotSeen):
        unseen = version if isinstance(version, NotSeen) else answer
        assert isinstance(unseen, NotSeen)
        raise MeasurementError(unseen.detail, hint=f"look whether it answers: curl {server.url}/api/v1/status/buildinfo")
    if not answer.series:
        raise MeasurementError(
            f"{server.url} has no series of an engine that is known, of the last ten minutes",
            hint="are engines scraped, and their metrics switched on? The reference of engine metrics has the names",
        )
    asker = _Asker(server, now / SECOND)
    notes: list[str] = []
    pools = _pools(answer.series, asker, now, notes)
    return Discovery(
        version, spacing(answer.series), asker.days(selector), pools, asker.fronts(), asker.scalers(notes), tuple(notes)
    )


def workload_of(pod: str) -> str:
    """A pod's name without what a Deployment or a StatefulSet put behind it."""
    bare = _REPLICA.sub("", pod)
    return bare if bare != pod else _ORDINAL.sub("", pod)


class _Asker:
    """Small questions; what is not answered is not recorded."""

    def __init__(self, server: PrometheusServer, at: float) -> None:
        self._server = server
        self._at = at

    def rows(self, query: str) -> Sequence[VectorSample]:
        found = self._server.vector(query, self._at)
        return () if isinstance(found, NotSeen) else found

    def days(self, selector: str) -> int:
        for days in AGES:
            found = self._server.vector(f"count({selector})", self._at - days * DAY / SECOND)
            if not isinstance(found, NotSeen) and found and found[0].value > 0:
                return days
        return 0

    def by_pod(self, query: str) -> dict[tuple[str, str], VectorSample]:
        """Answers by namespace and pod; DCGM's own labels are behind `exported_`."""
        found = {}
        for one in self.rows(query):
            pod = one.labels.get("exported_pod") or one.labels.get("pod", "")
            space = one.labels.get("exported_namespace") or one.labels.get("namespace", "")
            found[space, pod] = one
        return found

    def gpus(self) -> dict[tuple[str, str], tuple[str, int]]:
        """GPU type and count by namespace and pod: from DCGM, else from requests and node labels."""
        found = {
            key: (one.labels.get("modelName", ""), round(one.value))
            for key, one in self.by_pod(
                "count by (exported_namespace, exported_pod, namespace, pod, modelName) (DCGM_FI_DEV_GPU_UTIL)"
            ).items()
        }
        asked = self.by_pod('sum by (namespace, pod, node) (kube_pod_container_resource_requests{resource="nvidia_com_gpu"})')
        products = {
            one.labels.get("node", ""): one.labels.get("label_nvidia_com_gpu_product", "")
            for one in self.rows("kube_node_labels")
        }
        for key, one in asked.items():
            found.setdefault(key, (products.get(one.labels.get("node", ""), ""), round(one.value)))
        return found

    def kv_tokens(self) -> dict[tuple[str, str], int]:
        found = {}
        for key, one in self.by_pod("vllm:cache_config_info").items():
            blocks, size = one.labels.get("num_gpu_blocks", ""), one.labels.get("block_size", "")
            if blocks.isdigit() and size.isdigit():
                found[key] = int(blocks) * int(size)
        return found

    def most(self, labels: Mapping[str, str]) -> int:
        """Instances at once, over the last week."""
        running = queries.selector("(kserve_|ray_)?.+num_(requests_running|running_reqs)", queries.matchers(labels))
        found = self.rows(f"max_over_time(count(count by (namespace, pod, instance) ({running}))[{MOST_OVER}:15m])")
        return round(found[0].value) if found else 0

    def fronts(self) -> dict[FrontKind, tuple[str, ...]]:
        found: dict[FrontKind, tuple[str, ...]] = {}
        for alias in FRONTS:
            if alias.signal is FrontSignal.ARRIVALS and alias.front not in found:
                rows = self.rows(f"count by ({alias.tier}) ({alias.metric})")
                if rows:
                    values = {one.labels.get(alias.tier, "") for one in rows} if alias.tier else set()
                    found[alias.front] = tuple(sorted(values - {""}))
        return found

    def scalers(self, notes: list[str]) -> tuple[FoundScaler, ...]:
        name = "horizontalpodautoscaler"
        low, high, of = (
            {(one.labels.get("namespace", ""), one.labels.get(name, "")): one for one in self.rows(f"kube_{name}_{end}")}
            for end in ("spec_min_replicas", "spec_max_replicas", "info")
        )
        if not high:
            notes.append("no autoscaler is recorded: kube-state-metrics is not scraped, or there is none")
        return tuple(
            FoundScaler(
                space,
                hpa,
                of[space, hpa].labels.get("scaletargetref_name", "") if (space, hpa) in of else "",
                round(low[space, hpa].value) if (space, hpa) in low else 1,
                round(one.value),
            )
            for (space, hpa), one in sorted(high.items())
        )


def _pools(series: Sequence[RawSeries], asker: _Asker, now: Micros, notes: list[str]) -> tuple[FoundPool, ...]:
    groups: dict[tuple[str, str, str, str], list[RawSeries]] = {}
    for one in series:
        labels = one.labels
        where = labels.get("cluster", ""), labels.get("namespace", ""), workload_of(labels.get("pod", ""))
        groups.setdefault((*where, labels.get("model_name", "")), []).append(one)
    gpus, tokens = asker.gpus(), asker.kv_tokens()
    if not gpus:
        notes.append("no GPU is recorded: neither DCGM's exporter nor requests of kube-state-metrics are scraped")
    found = [_pool(key, pods, asker, (gpus, tokens)) for key, mine in sorted(groups.items()) if (pods := _seen(mine, now))]
    return tuple(found)


def _seen(series: Sequence[RawSeries], now: Micros) -> list[tuple[PodSight, Mapping[str, str]]]:
    labels = {one.instance: one.labels for one in series}
    return [(pod, labels[pod.name]) for pod in look(RawAnswer(tuple(series)), now, 1 << 60).pods]


def _pool(
    key: tuple[str, str, str, str],
    pods: Sequence[tuple[PodSight, Mapping[str, str]]],
    asker: _Asker,
    known: tuple[Mapping[tuple[str, str], tuple[str, int]], Mapping[tuple[str, str], int]],
) -> FoundPool:
    cluster, namespace, workload, model = key
    names = [(namespace, labels.get("pod", "")) for _, labels in pods]
    gpu, count = next((known[0][name] for name in names if name in known[0]), ("", 0))
    series = {label: value for label, value in (("model_name", model), ("cluster", cluster), ("namespace", namespace)) if value}
    if workload:
        series["pod"] = f"=~{re.escape(workload)}-.+"
    return FoundPool(
        model=model,
        cluster=cluster,
        namespace=namespace,
        workload=workload,
        engine=pods[0][0].engine,
        instances=len(pods),
        most=max(len(pods), asker.most(series)),
        gpu=gpu,
        gpus=count,
        kv_tokens=next((known[1][name] for name in names if name in known[1]), 0),
        series=series,
    )
