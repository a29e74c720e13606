"""Pods: how they end, whether there is room for more, and whether any waits for ever. Read next: `facts.py`."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import numpy as np

from sageserve.base.units import SECOND
from sageserve.data.history.histograms import bound_of, of_windows
from sageserve.data.history.records import Grid
from sageserve.data.scenarios.checking.clusters import gpus_of
from sageserve.live.doctor.checks import CheckFinding, Severity
from sageserve.live.doctor.facts import ClusterFacts, DoctorTarget
from sageserve.live.doctor.writers import patch
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.objects import Json, KubeObject, quantity, selects
from sageserve.live.prometheus import queries
from sageserve.live.prometheus.server import NotSeen

GPU: Final = "nvidia.com/gpu"
GRACE_DEFAULT: Final = 30  # seconds, of Kubernetes
DRAIN_WINDOW_S: Final = 3600  # of the requests whose p99 counts


def template(facts: ClusterFacts, target: DoctorTarget) -> tuple[KubeObject, KubeObject] | None:
    """The object that makes the pods, and its pods' spec."""
    scaled = facts.scaled(target)
    if scaled is None:
        return None
    spec = scaled.part("spec", "template", "spec")
    return (scaled, spec) if spec.parts("containers") else None


def _pre_stop(spec: KubeObject) -> int:
    """Seconds that the first container sleeps before it is told to end."""
    container = spec.parts("containers")[0]
    asked = container.number("lifecycle", "preStop", "sleep", "seconds")
    words = " ".join(container.texts("lifecycle", "preStop", "exec", "command"))
    match = re.search(r"sleep\s+(\d+)", words)
    return asked if asked is not None else int(match[1]) if match else 0


def _in_template(scaled: KubeObject, body: Json) -> str:
    return patch(scaled, {"spec": {"template": {"spec": body}}})


def drain_grace(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """A pod may finish what it has begun."""
    for target in facts.targets:
        found = template(facts, target)
        if found is None:
            continue
        scaled, spec = found
        longest = _p99(facts, target)
        need = _pre_stop(spec) + (longest or 0.0)
        grace = spec.number("terminationGracePeriodSeconds") or GRACE_DEFAULT
        severity: Severity = "error" if target.settings.authority == "full" else "warn"
        if longest is not None and grace < need:
            said = (
                f"pods get {grace} s to end; preStop ({_pre_stop(spec)} s) and requests (p99 {longest:,.0f} s) need {need:,.0f}"
            )
            yield CheckFinding(
                target.name, said, _in_template(scaled, {"terminationGracePeriodSeconds": int(need * 1.2) + 1}), severity
            )
            continue
        if _is_vllm(spec) and not argument(spec, "--shutdown-timeout"):
            number = len(spec.parts("containers")[0].texts("args"))
            step = [{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": f"--shutdown-timeout={grace - 10}"}]
            text = json.dumps(step, separators=(",", ":"), allow_nan=False)
            kind = KINDS[scaled.kind].resource
            said = f"vLLM ends its streams at once when it is told to: no --shutdown-timeout among {number} arguments"
            yield CheckFinding(
                target.name, said, f"kubectl -n {scaled.namespace} patch {kind} {scaled.name} --type json -p '{text}'", severity
            )


def _p99(facts: ClusterFacts, target: DoctorTarget) -> float | None:
    """Seconds of a request, by the engines' own histogram of the last hour."""
    if facts.server is None:
        return None
    labels = queries.matchers(target.label_set())
    query = queries.growth(("vllm:e2e_request_latency_seconds",), "_bucket", labels, DRAIN_WINDOW_S, ("le",))
    found = facts.server.vector(query, facts.now_s)
    if isinstance(found, NotSeen) or not found:
        return None
    grown = {bound_of(one.labels.get("le", "")): np.array([one.value]) for one in found}
    quantile = of_windows(Grid(0, DRAIN_WINDOW_S * SECOND, 1), grown, np.zeros(1)).quantile(0.99)
    return None if np.isnan(quantile) else quantile


def _is_vllm(spec: KubeObject) -> bool:
    return any("vllm" in container.text("image") for container in spec.parts("containers")[:1])


def argument(spec: KubeObject, name: str) -> str:
    """The value of a container's argument, written `--name=value` or `--name value`; empty when it is not there."""
    words = [word for part in ("command", "args") for word in spec.parts("containers")[0].texts(part)]
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1]
        if word == name:
            return after or "true"
    return ""


def drain_readiness(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """No request is sent to a pod that ends."""
    for target in facts.targets:
        found = template(facts, target)
        if found is None:
            continue
        scaled, spec = found
        container = spec.parts("containers")[0]
        if not container.part("readinessProbe").data:
            said = "pods have no readiness probe: requests are sent before the model is loaded"
            probe: Json = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 5}
            yield CheckFinding(target.name, said, _first_container(scaled, "readinessProbe", probe), "warn")
        elif _pre_stop(spec) == 0:
            said = "pods do not wait before they end: requests that are on their way are refused"
            yield CheckFinding(
                target.name, said, _first_container(scaled, "lifecycle", {"preStop": {"sleep": {"seconds": 15}}}), "warn"
            )


def _first_container(scaled: KubeObject, key: str, value: Json) -> str:
    text = json.dumps(
        [{"op": "add", "path": f"/spec/template/spec/containers/0/{key}", "value": value}], separators=(",", ":"), allow_nan=False
    )
    return f"kubectl -n {scaled.namespace} patch {KINDS[scaled.kind].resource} {scaled.name} --type json -p '{text}'"


def pdb(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """One pod less is allowed."""
    for target in facts.targets:
        pods = facts.pods(target)
        for budget in facts.of("PodDisruptionBudget", target.namespace):
            mine = pods and selects(budget.part("spec", "selector"), pods[0].labels("metadata", "labels"))
            if mine and budget.number("status", "disruptionsAllowed") == 0:
                said = f"disruption budget {budget.name} allows no pod less: nodes cannot be drained, and evictions wait"
                body: Json = {"spec": {"maxUnavailable": 1, "minAvailable": None}}
                yield CheckFinding(target.name, said, patch(budget, body), "warn")


def gpu_quota(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """There is room for the maximum."""
    nodes = sum(quantity(node.at("status", "allocatable", GPU)) for node in facts.of("Node"))
    for target in facts.targets:
        each = gpus_of(facts.scenario, target.settings)
        held = len(facts.pods(target)) * each
        rooms = [(f"nodes have {nodes:,.0f} GPUs", nodes)] if nodes else []
        for quota in facts.of("ResourceQuota", target.namespace):
            hard, used = (quantity(quota.at("status", part, f"requests.{GPU}")) for part in ("hard", "used"))
            if quota.at("status", "hard", f"requests.{GPU}") is not None:
                rooms.append(
                    (f"quota {quota.name} has {hard:,.0f} GPUs, {used - held:,.0f} of them for others", hard - used + held)
                )
        for said, room in rooms:
            reach = int(room // each)
            if reach < target.settings.max:
                text = f"{said}: {reach} instances of {each} GPUs are the most, not {target.settings.max}"
                yield CheckFinding(target.name, text, f"live.targets.{target.name}.max: {max(reach, 1)}", "warn")
                break


def pending(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Nobody waits longer than a start takes."""
    for target in facts.targets:
        gpu, model = facts.scenario.gpus[target.gpu], facts.scenario.models[target.model]
        limit = (gpu.start + max(model.load.local, model.load.remote)) / SECOND
        for pod in facts.pods(target):
            made = pod.text("metadata", "creationTimestamp")
            waits = facts.now_s - datetime.fromisoformat(made).timestamp() if made else 0.0
            if pod.text("status", "phase") == "Pending" and waits > limit and not pod.parts("spec", "schedulingGates"):
                event = next(
                    (e for e in facts.of("Event", target.namespace) if e.text("involvedObject", "name") == pod.name), None
                )
                why = (
                    event.text("message")
                    if event is not None
                    else pod.condition("PodScheduled").text("message") or "no event says why"
                )
                said = f"pod {pod.name} waits for {waits / 60:,.0f} min, a start takes {limit / 60:,.0f}: {why}"
                scaled = facts.scaled(target)
                assert scaled is not None
                ready = len(facts.ready(target))
                command = f"kubectl -n {target.namespace} scale {KINDS[scaled.kind].resource} {scaled.name} --replicas={ready}"
                yield CheckFinding(target.name, said, command, "error")
                break
