"""All checks of `doctor`, over all clusters at once: what was found, what was skipped and why, and the exit code of it.

    results = await examine(scenario, DoctorSources(servers, readers), now)

Clusters are looked up at the same time, and within one everything at once; checks then only read what is known, apart from a few
questions to Prometheus that run beside each other. Read next: `checks.py`, `facts.py`.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.config.clusters import ClusterSettings
from sageserve.base.units import Micros
from sageserve.live.doctor import access, keda, metrics, pods, promises, writers
from sageserve.live.doctor.checks import CHECKS, Check, CheckFinding, CheckResult
from sageserve.live.doctor.facts import ClusterFacts, look_up, targets_of
from sageserve.live.kubernetes.kinds import SCALERS
from sageserve.live.kubernetes.reader import ClusterReader
from sageserve.live.prometheus.server import NotSeen, PrometheusServer

Examine = Callable[[ClusterFacts], Iterator[CheckFinding]]

_EXAMINE: Final[Mapping[str, Examine]] = {
    "prom-reach": metrics.prom_reach,
    "prom-clock": metrics.prom_clock,
    "prom-retention": metrics.prom_retention,
    "prom-resolution": metrics.prom_resolution,
    "series-match": metrics.series_match,
    "series-fresh": metrics.series_fresh,
    "series-double": metrics.series_double,
    "series-cover": metrics.series_cover,
    "histogram-shape": metrics.histogram_shape,
    "counter-reset": metrics.counter_reset,
    "kube-reach": access.kube_reach,
    "kube-version": access.kube_version,
    "rbac-rung": access.rbac_rung,
    "rbac-excess": access.rbac_excess,
    "target-exists": writers.target_exists,
    "target-kind": writers.target_kind,
    "writer-single": writers.writer_single,
    "field-owner": writers.field_owner,
    "gitops-drift": writers.gitops_drift,
    "keda-fallback": keda.keda_fallback,
    "keda-null": keda.keda_null,
    "keda-scaler": keda.keda_scaler,
    "hpa-tolerance": writers.hpa_tolerance,
    "hpa-zero": writers.hpa_zero,
    "external-metrics-owner": keda.external_metrics_owner,
    "drain-grace": pods.drain_grace,
    "drain-readiness": pods.drain_readiness,
    "pdb": pods.pdb,
    "gpu-quota": pods.gpu_quota,
    "pending": pods.pending,
    "profile-age": promises.profile_age,
    "promise-feasible": promises.promise_feasible,
    "async-gate": promises.async_gate,
    "agent-report": lambda facts: iter(facts.agent),
    "clock-lease": access.clock_lease,
}

_READ_FROM: Final[Mapping[str, tuple[str, ...]]] = {
    "series-cover": ("Pod",),
    "counter-reset": ("Pod",),
    "writer-single": SCALERS,
    "drain-grace": ("Deployment",),
    "drain-readiness": ("Deployment",),
    "pdb": ("PodDisruptionBudget", "Pod"),
    "gpu-quota": ("ResourceQuota",),
    "pending": ("Pod",),
    "async-gate": ("ConfigMap",),
    "clock-lease": ("Lease",),
}
"""Kinds without which a check cannot be made."""


@dataclass(frozen=True, slots=True)
class DoctorSources:
    """Whom to ask, by name of the cluster; clusters that are missing are not asked.

    Args:
        servers: Prometheus.
        readers: API servers.
        without: why an API server is not asked, by name of the cluster.
        agents: what is wrong with agents, by name of the cluster that they act on.
    """

    servers: Mapping[str, PrometheusServer]
    readers: Mapping[str, ClusterReader]
    without: Mapping[str, str]
    agents: Mapping[str, Sequence[CheckFinding]] = field(default_factory=dict)


async def examine(scenario: Scenario, sources: DoctorSources, now: Micros) -> tuple[CheckResult, ...]:
    """Make all checks.

    Args:
        scenario: with `live.clusters` and `live.targets`.
        sources: whom to ask.
        now: microseconds since 1970.
    """
    clusters: Mapping[str, ClusterSettings] = scenario.live.clusters if scenario.live is not None else {}
    known = [
        ClusterFacts(
            name,
            settings,
            targets_of(scenario, name),
            scenario,
            now,
            sources.servers.get(name),
            agent=sources.agents.get(name, ()),
        )
        for name, settings in clusters.items()
    ]
    await asyncio.gather(*(look_up(facts, sources.readers.get(facts.name)) for facts in known))
    results = await asyncio.gather(*(_made(check, known, sources) for check in CHECKS.values()))
    return tuple(results)


def exit_code(results: Sequence[CheckResult]) -> int:
    """0: nothing is wrong; 1: errors were found; 2: none were, but something could not be checked."""
    if any(finding.severity == "error" for result in results for finding in result.findings):
        return 1
    return 2 if any(result.state == "unknown" for result in results) else 0


async def _made(check: Check, known: Sequence[ClusterFacts], sources: DoctorSources) -> CheckResult:
    findings: list[CheckFinding] = []
    skipped, unknown, made = [], [], False
    for facts in known:
        absent, unread = _absent(check, facts, sources), _unread(check, facts)
        if absent:
            skipped.append(f"{facts.name}: {absent}")
        elif unread:
            unknown.append(f"{facts.name}: {unread}")
        else:
            findings += await asyncio.to_thread(lambda facts=facts: list(_EXAMINE[check.id](facts)))  # type: ignore[misc] # mypy loses the default
            made = True
    if findings:
        return CheckResult(check, "found", tuple(findings), "; ".join(unknown))
    if unknown:
        return CheckResult(check, "unknown", (), "; ".join(unknown))
    if made:
        return CheckResult(check, "ok")
    return CheckResult(check, "skipped", (), "; ".join(skipped) or "no cluster is configured: live.clusters")


def _absent(check: Check, facts: ClusterFacts, sources: DoctorSources) -> str:
    """Why a check does not apply to a cluster; empty when it does."""
    if check.needs in ("prometheus", "both") and facts.server is None and check.id not in ("drain-grace", "profile-age"):
        return "no Prometheus is configured"
    if check.needs in ("cluster", "both") and facts.name not in sources.readers:
        if check.id == "profile-age" and facts.server is not None:
            return ""
        return sources.without.get(facts.name, "no kubeconfig")
    return ""


def _unread(check: Check, facts: ClusterFacts) -> str:
    """Why it cannot be made although it should; empty when it can. What is wrong is then found by another check."""
    if check.id not in ("prom-reach", "kube-reach"):
        if check.needs in ("prometheus", "both") and isinstance(facts.prometheus, NotSeen):
            return "see prom-reach"
        if check.needs in ("prometheus", "both") and isinstance(facts.series, NotSeen):
            return facts.series.detail
        if check.needs in ("cluster", "both") and facts.unread is not None:
            return "see kube-reach"
    return access.unreadable(facts, _READ_FROM.get(check.id, ()))
