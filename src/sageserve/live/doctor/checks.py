"""All checks of `doctor`: what each proves, how bad it is when it fails, and what it needs to be made.

Knows no server. Read next: `run.py`, which makes them; docs/reference/doctor.md, which explains them.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warn", "info"]
Needs: TypeAlias = Literal["prometheus", "cluster", "both", "settings"]
State: TypeAlias = Literal["ok", "found", "skipped", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        id: its name.
        proves: what is true when it is silent.
        severity: of what it finds, unless a finding says otherwise.
        needs: what it cannot be made without.
    """

    id: str
    proves: str
    severity: Severity
    needs: Needs


CHECKS: Final[dict[str, Check]] = {
    one.id: one
    for one in (
        Check("prom-reach", "Prometheus answers, its certificate is trusted and the credentials are good", "error", "prometheus"),
        Check("prom-clock", "its clock is within 5 s of ours", "error", "prometheus"),
        Check("prom-retention", "it keeps 14 days, so that a week can be forecast and tried", "warn", "prometheus"),
        Check("prom-resolution", "raw samples are at most 60 s apart and not thinned out", "warn", "prometheus"),
        Check(
            "series-match", "running, waiting and arrivals of each target are recorded under a known name", "error", "prometheus"
        ),
        Check("series-fresh", "the newest sample of each instance that is still a target is young enough", "error", "prometheus"),
        Check("series-double", "no instance is recorded twice", "error", "prometheus"),
        Check("series-cover", "nine tenths of the Ready pods are recorded", "error", "both"),
        Check("histogram-shape", "lengths are recorded in all of vLLM's buckets, and these add up", "warn", "prometheus"),
        Check("counter-reset", "counters begin anew only when containers do", "info", "both"),
        Check("kube-reach", "the API server answers", "error", "cluster"),
        Check("kube-version", "Kubernetes is 1.35 or newer, which has tolerances of autoscalers", "info", "cluster"),
        Check("rbac-rung", "we have every right that a target's authority needs", "error", "cluster"),
        Check("rbac-excess", "where we only observe, we may not write", "warn", "cluster"),
        Check("target-exists", "the object of each target is there", "error", "cluster"),
        Check("target-kind", "its kind is installed, and has the fields that its authority needs", "error", "cluster"),
        Check("writer-single", "nobody else decides the same count", "error", "cluster"),
        Check("field-owner", "the fields that we would write are nobody else's", "error", "cluster"),
        Check("gitops-drift", "Argo CD or Flux will not put back what we would write", "warn", "cluster"),
        Check("keda-fallback", "KEDA has a fallback that never lowers", "warn", "cluster"),
        Check("keda-null", "an empty answer of Prometheus is not taken for zero by KEDA", "error", "cluster"),
        Check("keda-scaler", "KEDA reaches its external scaler", "error", "cluster"),
        Check("hpa-tolerance", "a target of more than ten instances has tolerance 0", "info", "cluster"),
        Check("hpa-zero", "no HPA stands at zero replicas, where a minimum does nothing", "error", "cluster"),
        Check("external-metrics-owner", "external metrics belong to KEDA, the one provider there may be", "error", "cluster"),
        Check("drain-grace", "a pod may live long enough to finish what it has begun", "warn", "both"),
        Check("drain-readiness", "a pod is taken from the balancer before it is told to end", "warn", "cluster"),
        Check("pdb", "a disruption budget allows one pod less", "warn", "cluster"),
        Check("gpu-quota", "quotas and nodes can hold the target's maximum", "warn", "cluster"),
        Check("pending", "no pod waits longer for a node than a cold start takes", "error", "cluster"),
        Check("profile-age", "the profile fits the engine that runs: its version, limits and KV cache", "warn", "both"),
        Check("promise-feasible", "each tier has a target whose idle instance is fast enough", "error", "settings"),
        Check("async-gate", "the gate of batch work closes when its key is missing", "error", "cluster"),
        Check("agent-report", "the agent of a cluster is heard, and follows the newest plan", "error", "settings"),
        Check("clock-lease", "the lease of this fleet is free, or renewed", "info", "cluster"),
    )
}
"""By id, in the order in which they are shown: sight first, then rights, writers, pods and promises."""


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """Something a check found.

    Args:
        where: cluster or target.
        said: what is wrong, in one sentence.
        next: one command, or one line of a settings file or manifest, that puts it right.
        severity: how bad it is.
    """

    where: str
    said: str
    next: str
    severity: Severity


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of a check.

    Args:
        check: which.
        state: `ok`; `found`: something is wrong; `skipped`: what it needs is not configured; `unknown`: it could not be made.
        findings: what is wrong.
        reason: why it was skipped or could not be made; empty otherwise.
    """

    check: Check
    state: State
    findings: tuple[CheckFinding, ...] = ()
    reason: str = ""
