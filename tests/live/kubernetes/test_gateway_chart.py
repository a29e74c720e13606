"""What runs gateways in a cluster: options that exist, files that pods have, no more rights than to follow, and the same by Helm.

Read next: `test_helm.py`, which plays Helm's language; `src/sageserve/live/kubernetes/gateway_manifests.py`.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sageserve.base.config import Scenario
from sageserve.cli.main import app
from sageserve.cli.menu import load
from sageserve.data.scenarios.load import load_scenario, resolved_yaml
from sageserve.live.gateway.pages import OPEN
from sageserve.live.kubernetes.gateway_helm import gateway_chart
from sageserve.live.kubernetes.gateway_manifests import DRAIN_S, LEAVING_S, GatewayChoices, gateway_parts
from sageserve.live.kubernetes.manifests import ChartChoices, as_documents
from sageserve.live.wire import settings_mark
from tests.live.kubernetes.test_helm import HELM, REAL, _bare, rendered

VALIDATE = os.environ.get("SAGESERVE_KUBERNETES_VALIDATE", "")  # noqa: TID251 # named by hand
LINK = {
    "listen": "0.0.0.0:7002",
    "tls": {"certificate": "/etc/control/tls.crt", "key": "/etc/control/tls.key", "client_ca": "/etc/control/ca.crt"},
}
LIVE: dict[str, Any] = {
    "actuator": "kubernetes",
    "link": LINK,
    "clusters": {"here": {"context": "somebody@here"}},
    "services": [
        {"cluster": "here", "region": "east", "model": "llama-3.1-8b", "service": "serving/llama", "access": "engines"},
        {
            "cluster": "here",
            "region": "west",
            "model": "llama-3.1-8b",
            "pods": {"app": "llama"},
            "namespace": "west",
            "port": "8000",
            "access": "engines",
        },
    ],
    "access": {"engines": {"bearer_file": "/etc/engines/token"}},
    "keys": [{"name": "alice", "sha256": "0" * 64}],
}
CHOICES = ChartChoices(
    "registry/sageserve:1", "shop", "", "5Gi", {"control-tls": "/etc/control", "engines": "/etc/engines"}, monitored=True
)
ASKED = GatewayChoices("gateway-tls", 3)


def fleet(folder: Path, **live: object) -> Path:
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump({"extends": "local", "name": "shop", "live": {**LIVE, **live}}, sort_keys=False), "utf-8")
    return file


def objects(settings: Scenario, asked: GatewayChoices = ASKED, choices: ChartChoices = CHOICES) -> dict[tuple[str, str], Any]:
    """By kind and end of the name, as kubectl would read them."""
    text = as_documents(gateway_parts(settings, "name: x\n", choices, asked))
    return {(one["kind"], one["metadata"]["name"].rpartition("-")[2]): one for one in yaml.safe_load_all(text)}


@pytest.fixture
def settings(tmp_path: Path) -> Scenario:
    return load_scenario(fleet(tmp_path))


def words_of(deployment: Any) -> tuple[str, dict[str, str]]:  # noqa: ANN401 # what YAML holds
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    command, settings, *pairs = container["args"]
    assert settings == "/etc/sageserve/fleet.yaml"
    return command, dict(zip(pairs[::2], pairs[1::2], strict=True))


def test_gateways_are_replaced_without_cutting_a_stream_and_have_no_right(settings: Scenario) -> None:
    found = objects(settings)
    gate = found["Deployment", "gate"]["spec"]
    assert (gate["replicas"], gate["strategy"]["rollingUpdate"]) == (3, {"maxUnavailable": 0, "maxSurge": 1})
    pod = gate["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] > LEAVING_S + DRAIN_S
    (container,) = pod["containers"]
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": LEAVING_S}}}
    probes = [container[name]["httpGet"]["path"].encode() for name in ("readinessProbe", "livenessProbe", "startupProbe")]
    assert probes == [b"/health/ready", b"/health", b"/health"]
    assert set(probes) <= OPEN, "they need no key"
    assert found["PodDisruptionBudget", "gate"]["spec"]["selector"] == gate["selector"]
    assert found["Service", "gate"]["spec"]["selector"] == gate["selector"]["matchLabels"]
    assert [role["rules"] for (kind, _), role in found.items() if kind == "Role"] != []
    assert ("Role", "gate") not in found


def test_commands_and_options_are_those_that_there_are(settings: Scenario) -> None:
    found = objects(settings, replace(ASKED, region="west"))
    for part, name in (("gate", "gateway"), ("ctrl", "up")):
        command, given = words_of(found["Deployment", part])
        assert command == name
        known = {option for one in load(name).params for option in one.opts}
        assert set(given) <= known
    _, given = words_of(found["Deployment", "gate"])
    service = found["Service", "ctrl"]
    assert given["--control"] == f"tls://{service['metadata']['name']}.shop.svc:{service['spec']['ports'][0]['port']}"
    assert (given["--region"], given["--drain"]) == ("west", str(DRAIN_S))


def test_each_pod_has_the_files_that_it_reads_and_no_other_secret(settings: Scenario) -> None:
    found = objects(settings)
    mounted = {}
    for part in ("gate", "ctrl"):
        pod = found["Deployment", part]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        folders = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert folders.keys() == {one["name"] for one in pod["volumes"]}
        mounted[part] = {one["secret"]["secretName"]: folders[one["name"]] for one in pod["volumes"] if "secret" in one}
        assert ("PersistentVolumeClaim", part) in found or not any("persistentVolumeClaim" in one for one in pod["volumes"])
        assert found["ConfigMap", part]["metadata"]["name"] in {one.get("configMap", {}).get("name") for one in pod["volumes"]}
    assert mounted["ctrl"] == {"control-tls": "/etc/control", "engines": "/etc/engines"}
    _, given = words_of(found["Deployment", "gate"])
    papers = mounted["gate"].pop("gateway-tls")
    assert mounted["gate"] == {"engines": "/etc/engines"}, "control's key is control's alone"
    names = {"--control-ca": "ca.crt", "--control-certificate": "tls.crt", "--control-key": "tls.key"}
    assert {option: given[option] for option in names} == {option: f"{papers}/{file}" for option, file in names.items()}


def test_control_may_follow_what_it_is_told_to_and_nothing_else(settings: Scenario) -> None:
    text = as_documents(gateway_parts(settings, "name: x\n", CHOICES, ASKED))
    roles = {one["metadata"]["namespace"]: one["rules"] for one in yaml.safe_load_all(text) if one["kind"] == "Role"}
    read = ["list", "watch"]
    assert roles == {
        "serving": [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read}],
        "west": [{"apiGroups": [""], "resources": ["pods"], "verbs": read}],
    }


def test_where_control_is_elsewhere_only_gateways_run(settings: Scenario) -> None:
    found = objects(settings, replace(ASKED, control="tls://control.example:7002", most=9))
    assert {part for _, part in found} == {"gate"}
    assert words_of(found["Deployment", "gate"])[1]["--control"] == "tls://control.example:7002"
    assert "replicas" not in found["Deployment", "gate"]["spec"], "it is the autoscaler's"
    scaler = found["HorizontalPodAutoscaler", "gate"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"], scaler["scaleTargetRef"]["kind"]) == (3, 9, "Deployment")
    tls = load_scenario("local", overrides=["live.tls={certificate: /etc/x/c, key: /etc/x/k}"])
    served = objects(tls, replace(ASKED, control="tls://c:1"))
    probe = served["Deployment", "gate"]["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    assert probe["httpGet"]["scheme"] == "HTTPS"


@pytest.mark.parametrize("control", ["", "tls://control.example:7002"])
@pytest.mark.parametrize("most", [0, 9])
@pytest.mark.parametrize(("name", "monitored"), [("shop", True), ("n" * 100, False)])
def test_a_chart_with_its_own_values_is_the_manifests(
    settings: Scenario, control: str, most: int, name: str, *, monitored: bool
) -> None:
    settings = settings.model_copy(update={"name": name})
    choices, asked = replace(CHOICES, monitored=monitored), replace(ASKED, control=control, most=most)
    text = resolved_yaml(settings)
    files = gateway_chart(settings, text, choices, asked, "1.2")
    plain = list(yaml.safe_load_all(as_documents(gateway_parts(settings, text, choices, asked))))
    key = lambda one: (one["kind"], one["metadata"]["namespace"], one["metadata"]["name"])  # noqa: E731 # one line, once
    assert sorted(map(_bare, rendered(files, "shop")), key=key) == sorted(map(_bare, plain), key=key)
    assert all(len(one["metadata"]["name"]) <= 63 for one in plain)
    assert not any("HELM" in file or "helm-" in file for path, file in files.items() if path.startswith("templates/"))


def test_values_change_what_they_say_and_the_schema_knows_each(settings: Scenario) -> None:
    files = gateway_chart(settings, "name: x\n", CHOICES, replace(ASKED, most=5), "1.2")
    own = yaml.safe_load(files["values.yaml"])
    gateway = {**own["gateway"], "replicas": 4, "maxReplicas": 40, "secret": "other"}
    found = rendered(files, "ns", gateway=gateway, control={**own["control"], "enabled": False}, serviceMonitor=False)
    assert {one["metadata"]["name"].rpartition("-")[2] for one in found} == {"gate"}
    by = {one["kind"]: one for one in found}
    assert "ServiceMonitor" not in by
    assert [by["HorizontalPodAutoscaler"]["spec"][key] for key in ("minReplicas", "maxReplicas")] == [4, 40]
    secrets = [one["secret"] for one in by["Deployment"]["spec"]["template"]["spec"]["volumes"] if "secret" in one]
    assert {"secretName": "other"} in secrets
    schema = json.loads(files["values.schema.json"])
    assert set(own) == set(schema["properties"]) - {"global"}
    for part in ("control", "gateway"):
        assert set(own[part]) == set(schema["properties"][part]["properties"])
        assert schema["properties"][part]["additionalProperties"] is False


SECRETS = ("--secret", "control-tls:/etc/control", "--secret", "engines:/etc/engines")


@pytest.mark.parametrize(
    ("live", "words", "said"),
    [
        ({}, ("--secret", "engines:/etc/engines"), "/etc/control/tls.crt is named in the settings"),
        ({}, ("--control", "tls://control:7002"), "/etc/engines/token is named in the settings"),
        ({}, ("--control", "http://control:7002", *SECRETS), "is no address of control"),
        ({}, ("--control", "tcp://127.0.0.1:7002", *SECRETS), "is not tls://HOST:PORT"),
        ({"records": True}, SECRETS, "have no disk to write lines to"),
        ({"store": "postgresql://me:hidden@db/queue"}, SECRETS, "its password would stand in a ConfigMap"),
        ({"store": "postgresql://me@db/queue?password=hidden"}, SECRETS, "its password would stand in a ConfigMap"),
        ({}, (*SECRETS, "--secret", "more:/etc/sageserve-link/x"), "is where the files of --gateway-secret stand"),
        ({}, (*SECRETS, "--region", "north"), "there is no region 'north'"),
        ({}, (*SECRETS, "--replicas", "4", "--max-replicas", "3"), "is below --replicas 4"),
        ({}, (*SECRETS, "--gateway-secret", "No"), "--gateway-secret: 'No'"),
        ({"keys": []}, SECRETS, "without live.keys"),
        ({"link": None}, SECRETS, "reach control through live.link"),
        ({"link": {**LINK, "listen": "127.0.0.1:7002"}}, SECRETS, "reach control through live.link"),
        ({"link": {**LINK, "listen": "0.0.0.0:0"}}, SECRETS, "a port by number"),
        ({"actuator": "local", "services": []}, SECRETS, "start engines in its own pod"),
        ({"access": {"engines": {"bearer_env": "TOKEN"}}}, SECRETS, "TOKEN is a variable of this machine"),
    ],
)
def test_what_cannot_run_in_pods_is_refused(tmp_path: Path, live: dict[str, object], words: tuple[str, ...], said: str) -> None:
    command = ["render", "gateways", str(fleet(tmp_path, **live)), "--image", "x:1", "--gateway-secret", "gateway-tls", *words]
    assert said in str(CliRunner().invoke(app, command).exception)


def test_the_command_writes_settings_that_a_pod_reads_and_a_chart(tmp_path: Path) -> None:
    words = ["render", "gateways", str(fleet(tmp_path)), "--image", "x:1", "--gateway-secret", "gateway-tls", *SECRETS]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    texts = [one["data"]["fleet.yaml"] for one in yaml.safe_load_all(done.stdout) if one["kind"] == "ConfigMap"]
    assert texts[0] == texts[1]
    (tmp_path / "again.yaml").write_text(texts[0], "utf-8")
    again = load_scenario(tmp_path / "again.yaml")
    assert again.live is not None
    assert again.live.clusters["here"].context is None, "it is the pod's own account"
    done = CliRunner().invoke(app, [*words, "--control", "tls://control.example:7002"])
    (text,) = (one["data"]["fleet.yaml"] for one in yaml.safe_load_all(done.stdout) if one["kind"] == "ConfigMap")
    (tmp_path / "far.yaml").write_text(text, "utf-8")
    theirs = settings_mark(load_scenario(fleet(tmp_path)))
    assert settings_mark(load_scenario(tmp_path / "far.yaml")) == theirs, "or control says for ever that they differ"
    out = tmp_path / "chart"
    for _ in range(2):
        done = CliRunner().invoke(app, [*words, "--format", "helm", "-o", str(out)])
        assert done.exit_code == 0, done.output
    assert yaml.safe_load((out / "Chart.yaml").read_text("utf-8"))["name"] == "sageserve-shop-gateways"


@pytest.mark.extended
@pytest.mark.skipif(not HELM, reason="set SAGESERVE_HELM to a Python that has helm-python-sdk")
def test_helm_itself_renders_and_lints_the_chart(settings: Scenario, tmp_path: Path) -> None:
    files = gateway_chart(settings, resolved_yaml(settings), CHOICES, replace(ASKED, most=9), "1.2")
    for name, text in files.items():
        (tmp_path / "chart" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "chart" / name).write_text(text, "utf-8")
    ran = subprocess.run([HELM, "-c", REAL, str(tmp_path / "chart")], capture_output=True, text=True, check=True)  # ours
    said = json.loads(ran.stdout)
    assert (said["errors"], said["refused"]) == ([], True)
    assert len([one for one in said["objects"] if one.strip()]) == len(
        gateway_parts(settings, "x", CHOICES, replace(ASKED, most=9))
    )


@pytest.mark.extended
@pytest.mark.skipif(not VALIDATE, reason="set SAGESERVE_KUBERNETES_VALIDATE to that program")
def test_kubernetes_own_schemas_take_them(settings: Scenario, tmp_path: Path) -> None:
    files = []
    for number, one in enumerate(gateway_parts(settings, "name: x\n", CHOICES, replace(ASKED, most=9))):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(one), "utf-8")
    done = subprocess.run([VALIDATE, "--strict", *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed") == len(files) - 1, "all but the operator's own kind"
