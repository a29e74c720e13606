"""What runs a watching process in a cluster: no more rights than targets need, settings that come back, options that exist."""

import hashlib
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sageserve.base.config import Scenario
from sageserve.base.config.clusters import RUNGS
from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.cli.menu import load
from sageserve.data.scenarios.load import load_scenario
from sageserve.live.doctor.facts import WRITES
from sageserve.live.kubernetes.manifests import FILE, ChartChoices, as_documents, manifests
from tests.live.watch.command import FLEET

PROMETHEUS = {"url": "http://prometheus:9090"}
CHOICES = ChartChoices("registry/sageserve:1", "sageserve", "here", "5Gi", {"token": "/var/run/prometheus"}, monitored=True)


def scenario(folder: Path, **live: object) -> Scenario:
    tree = yaml.safe_load(FLEET)
    tree["live"]["clusters"]["here"] = {"prometheus": {"url": "http://prometheus:9090"}}
    tree["live"] |= live
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False), "utf-8")
    return load_scenario(str(file))


def target(kind: str = "ScaledObject", name: str = "serving/small", authority: str = "observe") -> dict[str, object]:
    return {"cluster": "here", "pool": "here/small/l40s", "kind": kind, "name": name, "authority": authority, "max": 6}


def made(settings: Scenario, *, acts: bool = False) -> dict[str, list[Any]]:
    """Objects by kind, as kubectl would read them."""
    found: dict[str, list[Any]] = {}
    for one in yaml.safe_load_all(as_documents(manifests(settings, "name: x\n", replace(CHOICES, acts=acts)))):
        found.setdefault(one["kind"], []).append(one)
    return found


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("kind", ["ScaledObject", "Deployment"])
def test_a_role_writes_what_the_authority_of_its_targets_needs_and_nothing_else(tmp_path: Path, rung: str, kind: str) -> None:
    settings = scenario(tmp_path, targets={"small": target(kind, authority=rung)})
    (role,) = made(settings, acts=True)["Role"]
    writes = {
        (resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"] if verb in WRITES
    }
    plural = {"ScaledObject": "scaledobjects", "Deployment": "deployments"}[kind]
    scale = "deployments/scale" if kind == "Deployment" else plural
    bounds = {(plural, "patch")}
    full = {(scale, "patch"), ("pods", "patch")}
    ours = {(name, verb) for name in ("leases", "configmaps") for verb in ("create", "update")} if rung != "observe" else set()
    assert writes - ours == {"observe": set(), "floor": bounds, "bounds": bounds, "full": full}[rung]
    assert ours <= writes
    (reads,) = made(settings)["Role"]
    assert {verb for rule in reads["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}, (
        "who only watches writes nothing"
    )
    assert not any("*" in rule["verbs"] + rule["resources"] + rule["apiGroups"] for rule in role["rules"])


def test_targets_in_two_namespaces_are_two_roles_of_one_account(tmp_path: Path) -> None:
    targets = {"small": target(), "other": target(name="other/small", authority="floor")}
    found = made(scenario(tmp_path, targets=targets))
    assert {one["metadata"]["namespace"] for one in found["Role"]} == {"serving", "other"}
    (account,) = found["ServiceAccount"]
    assert {one["subjects"][0]["name"] for one in found["RoleBinding"]} == {account["metadata"]["name"]}
    assert account["automountServiceAccountToken"] is True
    elsewhere = made(scenario(tmp_path, clusters={"here": {}, "far": {}}, targets={"small": {**target(), "cluster": "far"}}))
    assert "Role" not in elsewhere, "an account here has no right there"
    assert elsewhere["ServiceAccount"][0]["automountServiceAccountToken"] is False


def test_ports_disk_and_account_fit_each_other(tmp_path: Path) -> None:
    found = made(scenario(tmp_path, scaler={"listen": "0.0.0.0:7009"}))
    pod = found["Deployment"][0]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"metrics": 8110, "scaler": 7009}
    assert {one["targetPort"]: one["port"] for one in found["Service"][0]["spec"]["ports"]} == ports
    assert found["Service"][0]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["spec"]["volumes"]} == {"settings", "state", "tmp", "secret-token"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    again = made(scenario(tmp_path))["Deployment"][0]["spec"]["template"]["metadata"]["annotations"]
    assert again == pod["metadata"]["annotations"], "the same settings start nothing anew"


def test_the_container_runs_a_command_that_there_is_with_the_settings_that_were_given(tmp_path: Path) -> None:
    settings = scenario(
        tmp_path, scaler={"listen": "0.0.0.0:7001"}, clusters={"here": {"prometheus": PROMETHEUS, "context": "far-away"}}
    )
    done = CliRunner().invoke(app, ["render", "chart", str(tmp_path / "fleet.yaml"), "--image", "x:1"])
    assert done.exit_code == 0, done.output
    found = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    kept = tmp_path / "kept.yaml"
    kept.write_text(found["ConfigMap"]["data"][FILE], "utf-8")
    assert settings.live is not None
    assert settings.live.clusters["here"].context == "far-away"
    inside = load_scenario(str(kept)).live
    assert inside is not None
    assert inside.clusters["here"].context is None, "its own account in the place of a context"
    assert inside.targets == settings.live.targets
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    options = {name for one in load("watch").params for name in one.opts}
    assert container["args"][0] == "watch"
    assert {word for word in container["args"] if word.startswith("--")} <= options


def test_followers_answer_keda_with_no_disk_and_no_right_and_ask_the_one_that_watches(tmp_path: Path) -> None:
    tls = {"certificate": "/run/cert/tls.crt", "key": "/run/key/tls.key", "client_ca": "/run/c/../ca/ca.crt"}
    scenario(tmp_path, scaler={"listen": "0.0.0.0:7009", "tls": tls})
    words = ["render", "chart", str(tmp_path / "fleet.yaml"), "--image", "x:1", "--followers", "3"]
    words += [word for each in ("prom:/run/c", "cert:/run/cert/", "key:/run/key", "ca:/run/ca") for word in ("--secret", each)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    found = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}
    leader, followers = found["Deployment", "sageserve-tiny"], found["Deployment", "sageserve-tiny-scaler"]
    pod = followers["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (followers["spec"]["replicas"], pod["automountServiceAccountToken"]) == (3, False)
    assert "strategy" not in followers["spec"], "one after another"
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    assert {one["name"] for one in pod["volumes"]} == {
        "settings", "tmp", "secret-cert", "secret-key", "secret-ca"
    }, "they ask no Prometheus"  # fmt: skip
    assert "secret-prom" in {one["name"] for one in leader["spec"]["template"]["spec"]["volumes"]}
    assert container["securityContext"] == leader["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert container["args"][0] == "scaler"
    assert {word for word in container["args"] if word.startswith("--")} <= {
        name for one in load("scaler").params for name in one.opts
    }
    ports = {
        key: {one["name"]: one["port"] for one in found["Service", key]["spec"]["ports"]}
        for _, key in found
        if ("Service", key) in found
    }
    assert ports == {"sageserve-tiny": {"metrics": 8110}, "sageserve-tiny-scaler": {"scaler": 7009}}
    assert container["args"][-1] == "http://sageserve-tiny:8110"
    for name, one in (("sageserve-tiny", followers), ("sageserve-tiny-scaler", leader)):
        chosen, labels = found["Service", name]["spec"]["selector"], one["spec"]["template"]["metadata"]["labels"]
        assert not chosen.items() <= labels.items(), "each Service is of its own"
    budget = found["PodDisruptionBudget", "sageserve-tiny-scaler"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= followers["spec"]["template"]["metadata"]["labels"].items()


def test_every_name_is_one_that_kubernetes_takes_whatever_the_fleet_is_called(tmp_path: Path) -> None:
    settings = scenario(tmp_path, scaler={"listen": "0.0.0.0:7009"})
    names = ["fleet.v1", "n" * 46, "n" * 47, "n" * 50, "a" * 47 + "." * 53, "A/b_c-", "9.", "n" * 100, "n" * 99 + "m", "x-scaler"]
    names.append("c" * 36 + "." * 3 + "d" * 30)
    found = {}
    for fleet in names:
        objects = manifests(settings.model_copy(update={"name": fleet}), "", replace(CHOICES, followers=2))
        called: list[Any] = [one["metadata"] for one in objects]
        found[fleet] = called[0]["name"]
        for one in called:
            assert one["name"] in {found[fleet], f"{found[fleet]}-scaler"}
            for text in (one["name"], one["labels"]["app.kubernetes.io/instance"]):
                assert len(text) <= 63
                assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", text)
    assert len(set(found.values())) == len(names), "no two are called the same"
    assert (found["fleet.v1"], found["A/b_c-"]) == ("sageserve-fleet-v1", "sageserve-a-b-c")
    assert found["n" * 46] == "sageserve-" + "n" * 46
    assert found["n" * 50] == f"sageserve-{'n' * 37}-{hashlib.sha256(b'n' * 50).hexdigest()[:8]}", "the same for ever"
    assert found[names[-1]].startswith(f"sageserve-{'c' * 36}-")
    assert "--" not in found[names[-1]], "it is cut between two words"


@pytest.mark.parametrize(
    ("live", "words", "said"),
    [
        ({}, ["--followers", "2"], "--followers answer KEDA, and there is no live.scaler"),
        ({"scaler": {}}, [], "127.0.0.1:7001 is reached by nobody outside the pod"),
        ({"scaler": {"listen": "0.0.0.0:8110"}}, [], "8110 is the port of metrics"),
        (
            {"clusters": {"here": {"prometheus": PROMETHEUS | {"headers": {"Authorization": "Bearer x"}}}}},
            [],
            "stand in a ConfigMap",
        ),
        ({}, ["--image", ""], "--image: '' is none"),
        ({}, ["--secret", "a:/var/lib/sageserve"], "/var/lib/sageserve is taken"),
        ({}, ["--secret", "a:/x", "--secret", "b:/x"], "/x is taken"),
        ({"clusters": {"here": {}}}, [], "live.clusters.here has no prometheus"),
        ({"clusters": {"here": {}, "far": {}}}, [], "live.clusters has here, far"),
        ({}, ["--cluster", "nowhere"], "there is no 'nowhere' in live.clusters"),
        ({}, ["--secret", "token"], "--secret 'token' is not NAME:FOLDER"),
        ({}, ["--storage", "lots"], "--storage: 'lots' is none"),
        ({}, ["-n", "No"], "--namespace: 'No' is none"),
    ],
)
def test_what_cannot_run_is_refused(tmp_path: Path, live: dict[str, object], words: list[str], said: str) -> None:
    scenario(tmp_path, **live)
    done = CliRunner().invoke(app, ["render", "chart", str(tmp_path / "fleet.yaml"), "--image", "x:1", *words])
    assert isinstance(done.exception, ConfigError)
    assert said in str(done.exception)
    assert not done.stdout


@pytest.mark.extended
@pytest.mark.skipif("SAGESERVE_KUBERNETES_VALIDATE" not in os.environ, reason="set SAGESERVE_KUBERNETES_VALIDATE to that program")  # noqa: TID251 # as for the others
def test_kubernetes_own_schemas_take_them(tmp_path: Path) -> None:
    program = os.environ["SAGESERVE_KUBERNETES_VALIDATE"]  # noqa: TID251 # as for the others
    settings = scenario(tmp_path, scaler={"listen": "0.0.0.0:7001"})
    files = []
    for number, one in enumerate(manifests(settings, "name: x\n", replace(CHOICES, followers=2))):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(one), "utf-8")
    done = subprocess.run([program, "--strict", *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed") == len(files) - 1, "all but the operator's own kind"
