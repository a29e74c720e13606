"""KEDA: what it does when it sees nothing, and whether it sees us. Read next: `writers.py`."""

import json
from collections.abc import Iterator

from sageserve.live.doctor.checks import CheckFinding
from sageserve.live.doctor.facts import ClusterFacts, DoctorTarget
from sageserve.live.doctor.writers import patch
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.objects import Json, KubeObject

EXTERNAL = ("external", "external-push")
PROVIDER = "v1beta1.external.metrics.k8s.io"


def _scaled_objects(facts: ClusterFacts) -> Iterator[tuple[DoctorTarget, KubeObject]]:
    for target in facts.targets:
        found = facts.object_of(target)
        if found is not None and target.settings.kind == "ScaledObject":
            yield target, found


def keda_fallback(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Blindness does not lower the count."""
    for target, found in _scaled_objects(facts):
        fallback = found.part("spec", "fallback")
        running = max(len(facts.ready(target)), target.settings.min)
        replicas = fallback.number("replicas")
        keeps = fallback.text("behavior").startswith("currentReplicas") or (replicas is not None and replicas >= running)
        if keeps and replicas is not None:
            continue
        body: Json = {"spec": {"fallback": {"failureThreshold": 3, "replicas": running, "behavior": "currentReplicasIfHigher"}}}
        said = (
            "no fallback: while a metric fails"
            if replicas is None
            else f"fallback is static: blind, {running} go down to {replicas}"
        )
        said += ", KEDA does nothing, also where it must" if replicas is None else ""
        yield CheckFinding(target.name, said, patch(found, body), "warn")


def keda_null(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """An empty answer is no zero."""
    for target, found in _scaled_objects(facts):
        for number, trigger in enumerate(found.parts("spec", "triggers")):
            if trigger.text("type") == "prometheus" and trigger.text("metadata", "ignoreNullValues") != "false":
                said = f"trigger {number} takes an empty answer of Prometheus for zero, and scales in when it is blind"
                step = [{"op": "add", "path": f"/spec/triggers/{number}/metadata/ignoreNullValues", "value": "false"}]
                yield CheckFinding(target.name, said, _json_patch(found, step), "error")
                break


def _json_patch(found: KubeObject, steps: Json) -> str:
    kind = KINDS[found.kind]
    text = json.dumps(steps, separators=(",", ":"), allow_nan=False)
    return f"kubectl -n {found.namespace} patch {kind.resource} {found.name} --type json -p '{text}'"


def keda_scaler(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """KEDA reaches its external scaler."""
    for target, found in _scaled_objects(facts):
        for number, trigger in enumerate(found.parts("spec", "triggers")):
            if trigger.text("type") not in EXTERNAL:
                continue
            health = found.labels("status", "health", *_health_key(found, number)).get("status", "")
            ready = found.condition("Ready")
            if health not in ("", "Happy") or ready.text("status") == "False":
                address = trigger.text("metadata", "scalerAddress")
                why = ready.text("message") or f"health {health}"
                said = f"KEDA does not reach {address}: {why}"
                step = [
                    {
                        "op": "replace",
                        "path": f"/spec/triggers/{number}/metadata/scalerAddress",
                        "value": f"sageserve.{target.namespace}.svc:7001",
                    }
                ]
                yield CheckFinding(target.name, said, _json_patch(found, step), "error")
                break


def _health_key(found: KubeObject, number: int) -> tuple[str, ...]:
    """KEDA numbers metrics `s0-name`, in the order of triggers."""
    health = found.at("status", "health")
    keys = [key for key in health if key.startswith(f"s{number}-")] if isinstance(health, dict) else []
    return (keys[0],) if keys else ("none",)


def external_metrics_owner(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """There can be one provider of external metrics in a cluster, and it is KEDA."""
    if not any(True for _ in _scaled_objects(facts)):
        return
    service = next((one for one in facts.of("APIService") if one.name == PROVIDER), None)
    owner = service.part("spec", "service") if service is not None else None
    if owner is not None and not owner.text("name").startswith("keda"):
        said = f"external metrics come from {owner.text('namespace')}/{owner.text('name')}: KEDA's triggers do not reach an HPA"
        body = '{"spec":{"service":{"name":"keda-operator-metrics-apiserver","namespace":"keda"}}}'
        yield CheckFinding(
            facts.name, said, f"kubectl patch {KINDS['APIService'].resource} {PROVIDER} --type merge -p '{body}'", "error"
        )
