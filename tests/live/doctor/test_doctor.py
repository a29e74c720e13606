"""Doctor on a healthy set-up and on ones with a single fault: exactly that check fires, and its next step mends it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.cli.doctor import json_lines
from sageserve.data.history.raw import RawSeries
from sageserve.live.agent.heard import troubles
from sageserve.live.doctor.checks import CHECKS, CheckFinding, CheckResult, Severity
from sageserve.live.doctor.run import exit_code
from sageserve.live.kubernetes.fake import Stored
from tests.live.doctor.world import MODEL, NOW, STEP, FakePrometheus, World, engine_series, pod

Change = Callable[[World], None]


def nothing(_: World) -> None:
    """What a next step does in the world is all there is to do."""


@dataclass(frozen=True)
class Broken:
    """One fault: how it is made, how bad it is, and what the world does once the next step is pasted."""

    id: str
    make: Change
    severity: Severity = "error"
    mend: Change = nothing
    also: tuple[str, ...] = field(default=())


def deployment(**spec: object) -> Change:
    return lambda world: world.change("Deployment", "llama-0", {"spec": {"template": {"spec": spec}}})


def container(**fields: object) -> Change:
    def change(world: World) -> None:
        found = world.kubernetes.get("Deployment", "serving", "llama-0")
        assert found is not None
        spec: Any = found["spec"]
        one = {key: value for key, value in (spec["template"]["spec"]["containers"][0] | fields).items() if value is not None}
        deployment(containers=[one])(world)

    return change


def scaled(body: Mapping[str, object]) -> Change:
    return lambda world: world.change("ScaledObject", "llama-0", body)


def setting(line: str) -> Change:
    return lambda world: world.overrides.append(line)


def prometheus(**fields: object) -> Change:
    def change(world: World) -> None:
        for name, value in fields.items():
            assert hasattr(world.prometheus, name)
            setattr(world.prometheus, name, value)

    return change


def series(change: Callable[[list[RawSeries]], list[RawSeries]]) -> Change:
    def changed(world: World) -> None:
        world.prometheus.series = change(world.prometheus.series)

    return changed


def put(data: Stored) -> Change:
    def change(world: World) -> None:
        world.kubernetes.put(data)

    return change


def healthy_series(world: World) -> None:
    world.prometheus.series = FakePrometheus([("m0", f"llama-0-{n}") for n in range(2)]).series


def spread(found: list[RawSeries]) -> list[RawSeries]:
    time = NOW - np.arange(8)[::-1] * 100 * SECOND
    return [RawSeries(one.labels, time, one.value[:8]) for one in found]


def unready(world: World) -> None:
    world.change("ScaledObject", "llama-0", {"status": {"health": {"s1-desired": {"status": "Failing"}}}})


HPA: Stored = {
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "other", "namespace": "serving"},
    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "llama-0"}},
}
QUOTA: Stored = {
    "kind": "ResourceQuota",
    "metadata": {"name": "gpus", "namespace": "serving"},
    "status": {"hard": {"requests.nvidia.com/gpu": "40"}, "used": {"requests.nvidia.com/gpu": "16"}},
}
LEASE: Stored = {
    "kind": "Lease",
    "metadata": {"name": "sageserve-world", "namespace": "serving"},
    "spec": {"holderIdentity": "old", "renewTime": "2026-11-18T00:00:00.000000Z", "leaseTransitions": 3},
}
GATE: Stored = {
    "kind": "ConfigMap",
    "metadata": {"name": "llm-d-async", "namespace": "serving"},
    "data": {"config.yaml": "gate_type: redis\n"},
}
WAITING = pod("llama-0", 2) | {"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "message": "no GPU"}]}}


def slow_promise(world: World) -> None:
    """Within reach of an H100, but the target is of A100."""
    world.overrides += [
        "regions.eastus.gpus.a100-80gb={gpus: 800, price: {on_demand: 40/h}}",
        f"live.targets.t0.pool=eastus/{MODEL}/a100-80gb",
        "tiers.iw-f.ttft=62ms",
    ]


def silent_agent(world: World) -> None:
    """What the command reads of an agent that is not heard."""
    (one,) = troubles("east", "the file is not there", NOW)
    world.agents["east"] = [CheckFinding("live.clusters.east", one.said, one.next, "error")]


def hpa_target(world: World) -> None:
    """The same fleet, under an HPA of its owner's instead of KEDA."""
    world.overrides += ["live.targets.t0.kind=HorizontalPodAutoscaler", "live.targets.t0.name=serving/keda-hpa-llama-0"]
    world.kubernetes.delete("ScaledObject", "serving", "llama-0")


def stopped_hpa(world: World) -> None:
    hpa_target(world)
    world.change("Deployment", "llama-0", {"spec": {"replicas": 0}})


def unreachable(world: World) -> None:
    world.unreachable = True


def reachable(world: World) -> None:
    world.unreachable = False


def old_version(world: World) -> None:
    world.kubernetes.version = "v1.33.1"


def new_version(world: World) -> None:
    world.kubernetes.version = "v1.36.0"


def may_write(world: World) -> None:
    world.overrides.append("live.targets.t0.authority=observe")
    world.excess = True


def may_not_see_pods(world: World) -> None:
    world.denied.add("pods")


def other_adapter(world: World) -> None:
    name = "v1beta1.external.metrics.k8s.io"
    service: Stored = {
        "kind": "APIService",
        "metadata": {"name": name},
        "spec": {"service": {"name": "adapter", "namespace": "x"}},
    }
    world.kubernetes.put(service)


def scheduled(world: World) -> None:
    world.kubernetes.delete("Pod", "serving", "llama-0-2")


def allowed_less(count: int) -> Change:
    return lambda world: world.change("PodDisruptionBudget", "llama-0", {"status": {"disruptionsAllowed": count}})


def only(which: Callable[[RawSeries], bool]) -> Change:
    return series(lambda all_: [one for one in all_ if which(one)])


def stale(found: list[RawSeries]) -> list[RawSeries]:
    late = [one for one in found if one.labels["pod"] == "llama-0-1"]
    return [*found[:4], *(RawSeries(one.labels, one.time - 5 * MINUTE, one.value) for one in late)]


def twice(found: list[RawSeries]) -> list[RawSeries]:
    return [*found, *engine_series("m0", "llama-0-1", replica="b")]


MANAGED = [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:minReplicaCount": {}}}}]
FLUX = {"kustomize.toolkit.fluxcd.io/name": "apps"}
PLAIN = ["--shutdown-timeout=9"]
FULL = [1.0, 2.0, 5.0, float("inf")]
HEALTH = {"status": {"health": {"s1-desired": {"status": "Happy"}}}}
LEASED = GATE | {"data": {"config.yaml": "gate_type: redis-leased-rate\n"}}
BROKEN = [
    Broken("prom-reach", prometheus(status=401), mend=prometheus(status=200)),
    Broken("prom-clock", prometheus(ahead=40.0), mend=prometheus(ahead=0.0)),
    Broken("prom-retention", prometheus(days=6), "warn", prometheus(days=30)),
    Broken("prom-resolution", series(spread), "warn", healthy_series),
    Broken("prom-resolution", prometheus(old_step=5 * MINUTE), "warn", prometheus(old_step=STEP)),
    Broken("series-match", setting("live.targets.t0.series={model_name: M0}")),
    Broken("series-match", only(lambda one: "waiting" not in one.name), mend=healthy_series),
    Broken("series-fresh", series(stale), mend=healthy_series),
    Broken("series-double", series(twice), mend=healthy_series),
    Broken("series-cover", only(lambda one: one.labels["pod"] == "llama-0-0"), mend=healthy_series),
    Broken("histogram-shape", prometheus(bounds=[10.0, 1000.0, float("inf")]), "warn", prometheus(bounds=FULL)),
    Broken("counter-reset", prometheus(resets=4), "info", prometheus(resets=0)),
    Broken("kube-reach", unreachable, mend=reachable),
    Broken("kube-version", old_version, "info", new_version),
    Broken("rbac-rung", may_not_see_pods),
    Broken("rbac-excess", may_write, "warn"),
    Broken("target-exists", setting("live.targets.t0.name=serving/llama-zero")),
    Broken("target-kind", setting("live.targets.t0={kind: Deployment}")),
    Broken("writer-single", put(HPA)),
    Broken("field-owner", scaled({"metadata": {"managedFields": MANAGED}})),
    Broken("gitops-drift", scaled({"metadata": {"labels": FLUX}}), "warn"),
    Broken("keda-fallback", scaled({"spec": {"fallback": {"behavior": "static", "replicas": 1}}}), "warn"),
    Broken("keda-null", scaled({"spec": {"triggers": [{"type": "prometheus", "metadata": {}}]}})),
    Broken("keda-scaler", unready, mend=scaled(HEALTH)),
    Broken("hpa-tolerance", setting("live.targets.t0.max=16"), "info"),
    Broken("hpa-zero", stopped_hpa),
    Broken("external-metrics-owner", other_adapter),
    Broken("drain-grace", deployment(terminationGracePeriodSeconds=30), "warn"),
    Broken("drain-grace", container(args=["--model=x"]), "warn"),
    Broken("drain-readiness", container(lifecycle=None), "warn"),
    Broken("drain-readiness", container(readinessProbe=None), "warn"),
    Broken("pdb", allowed_less(0), "warn", allowed_less(1)),
    Broken("gpu-quota", put(QUOTA), "warn"),
    Broken("pending", put(WAITING), mend=scheduled),
    Broken(
        "profile-age",
        container(args=["--shutdown-timeout=9", "--max-num-seqs=17"]),
        "warn",
        container(args=["--shutdown-timeout=9"]),
    ),
    Broken("promise-feasible", slow_promise),
    Broken("async-gate", put(GATE), mend=put(LEASED)),
    Broken("agent-report", silent_agent, mend=lambda world: world.agents.clear()),
    Broken("clock-lease", put(LEASE), "info"),
]


def fired(results: tuple[CheckResult, ...]) -> dict[str, list[str]]:
    return {one.check.id: [finding.severity for finding in one.findings] for one in results if one.findings}


def test_fifty_healthy_targets_are_silent(tmp_path: Path) -> None:
    results = World(tmp_path, 50).examine()
    assert fired(results) == {}
    assert {one.state for one in results} == {"ok"}
    assert exit_code(results) == 0


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.id)
def test_exactly_one_check_fires_and_its_next_step_mends_it(tmp_path: Path, case: Broken) -> None:
    world = World(tmp_path)
    case.make(world)
    results = world.examine()
    assert fired(results) == {case.id: [case.severity]}, [one.findings for one in results if one.findings]
    finding = next(one for one in results if one.check.id == case.id).findings[0]
    assert finding.said
    assert "\n" not in finding.next
    assert exit_code(results) == (1 if case.severity == "error" else 2 if case.id == "prom-reach" else 0)
    world.react = case.mend
    world.paste(finding.next)
    assert fired(world.examine()) == {}, finding.next


def test_an_instance_that_was_scaled_away_is_not_stale_and_one_that_cannot_be_scraped_is(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name in ("llama-0-0", "llama-0-1"):
        world.kubernetes.delete("Pod", "serving", name)  # as where no cluster is asked
    series(stale)(world)
    one, gone = ({"pod": f"llama-0-{n}", "namespace": "serving", "instance": f"llama-0-{n}:8000"} for n in range(2))
    found = {}
    for name, up in (("gone", [(one, 1.0)]), ("down", [(one, 1.0), (gone, 0.0)]), ("not told", [])):
        world.prometheus.up = up
        found[name] = "series-fresh" in fired(world.examine())
    assert found == {"gone": False, "down": True, "not told": True}


def test_every_check_has_a_broken_set_up() -> None:
    assert {case.id for case in BROKEN} == set(CHECKS)
    assert len(CHECKS) >= 30


def test_each_check_is_one_line_of_json(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in json_lines(World(tmp_path).examine())]
    assert [line["id"] for line in lines] == list(CHECKS)
    assert all(set(line) == {"id", "state", "severity", "proves", "findings", "reason"} for line in lines)


def test_what_may_not_be_read_is_unknown_and_not_well(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.kubernetes.forbidden.add("PodDisruptionBudget")
    results = world.examine()
    state = {one.check.id: one.state for one in results}
    assert state["pdb"] == "unknown"
    assert state["keda-null"] == "ok"
    assert exit_code(results) == 2


def run(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "fleet.yaml").write_text(text, "utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"} | {"HOME": str(folder)}  # noqa: TID251 # a user's own
    command = [sys.executable, "-m", "sageserve.cli.main", "doctor", "fleet.yaml", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_without_a_kubeconfig_cluster_checks_are_skipped_by_id(tmp_path: Path) -> None:
    text = "extends: quickstart\nlive: {clusters: {east: {prometheus: {url: 'http://127.0.0.1:1'}}}}\n"
    done = run(tmp_path, text, "--json")
    lines = {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1, done.stderr
    assert lines["prom-reach"]["state"] == "found"
    assert lines["prom-reach"]["findings"][0]["next"] == "curl -sS http://127.0.0.1:1/-/ready"
    assert lines["series-match"]["state"] == "unknown"
    skipped = {key for key, line in lines.items() if line["state"] == "skipped"}
    assert skipped == {key for key, check in CHECKS.items() if check.needs in ("cluster", "both")} - {"profile-age"}
    assert lines["pdb"]["reason"] == "east: no kubeconfig"
    told = run(tmp_path, text)
    assert "error prom-reach east: http://127.0.0.1:1" in told.stdout
    assert "Traceback" not in told.stderr


def test_a_file_without_clusters_is_told_what_to_write(tmp_path: Path) -> None:
    done = run(tmp_path, "extends: quickstart\n")
    assert done.returncode == 2
    assert "names no cluster" in done.stderr
    assert "prometheus: {url" in done.stderr


def test_the_reference_page_lists_every_check(repo_root: Path) -> None:
    page = (repo_root / "docs/reference/doctor.md").read_text("utf-8")
    for check in CHECKS.values():
        assert f"| `{check.id}` | {check.proves} | {check.severity} | {check.needs} |" in page
