"""The Helm chart is the manifests: rendered with its own values it gives the same objects, and values change what they say.

Helm's language is played by a few lines here; with SAGESERVE_HELM, a Python that has helm-python-sdk, the real one renders it.
"""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from sageserve.base.config import Scenario
from sageserve.cli.main import app
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.live.kubernetes.helm import helm_chart
from sageserve.live.kubernetes.manifests import as_documents, manifests
from tests.live.agent.stage import SECRET
from tests.live.kubernetes.test_manifests import CHOICES, scenario, target

RULES = "kind: PrometheusRule\nmetadata: {name: x}\nannotation: '{{ $labels.pool }}'\n"
HELM = os.environ.get("SAGESERVE_HELM", "")  # noqa: TID251 # named by hand
REAL = """
import json, sys, helm_python
chart = helm_python.Chart.load(sys.argv[1])
found = helm_python.lint(sys.argv[1], strict=True)
try:
    refused = not chart.render({"imaeg": "x"})
except helm_python.HelmError:
    refused = True
print(json.dumps({"objects": list(chart.render({}, namespace="ns").values()), "errors": found["errors"], "refused": refused}))
"""


FILTERS: dict[str, Callable[[Any], str]] = {
    "toJson": lambda value: json.dumps(value, allow_nan=False),
    "sha256sum": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "trunc 16": lambda text: str(text)[:16],
}


def settings_of(folder: Path, rung: str = "bounds") -> Scenario:
    return scenario(
        folder,
        targets={"small": target(authority=rung) | {"keda": True}, "other": target(name="other/small")},
        scaler={"listen": "0.0.0.0:7001"},
    )


def agent_words(folder: Path) -> list[str]:
    """Options of agents, with the files that they name."""
    (folder / "guard.yaml").write_text("default: {max: 8, rung: floor}\n", "utf-8")
    (folder / "hub.pub").write_bytes(SECRET.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return ["--plans", "https://x/", "--guard", str(folder / "guard.yaml"), "--key", str(folder / "hub.pub"), "--no-watch"]


def rendered(files: dict[str, str], namespace: str, **more: object) -> list[dict[str, Any]]:
    """Objects of a chart, as Helm would give them."""
    values = yaml.safe_load(files["values.yaml"]) | more
    found = []
    for name, text in files.items():
        if name.startswith("templates/"):
            found += [one for one in yaml.safe_load_all(_played(text, files, values, namespace)) if one]
    return found


def _played(text: str, files: dict[str, str], values: dict[str, Any], namespace: str) -> str:
    def condition(match: re.Match[str]) -> str:
        return match[2] if _of(values, match[1]) else ""

    def value(match: re.Match[str]) -> str:
        first, *filters = [part.strip() for part in match[1].split("|")]
        here: Any = namespace if first == ".Release.Namespace" else None
        if first.startswith(".Values."):
            here = _of(values, first.removeprefix(".Values."))
        elif first.startswith(".Files.Get"):
            here = files[first.split('"')[1]]
        for each in filters:
            here = FILTERS[each](here)
        return str(here)

    inner = r"\{\{- if \.Values\.([\w.]+) \}\}((?:(?!\{\{- if ).)*?)\{\{- end \}\}"
    while (done := re.sub(inner, condition, text, flags=re.DOTALL)) != text:
        text = done
    return re.sub(r"\{\{ (\.(?:Values|Files|Release).*?) \}\}", value, text)


def _of(values: dict[str, Any], path: str) -> Any:  # noqa: ANN401 # what YAML holds
    for key in path.split("."):
        values = values[key]
    return values


def _bare(one: Any) -> Any:  # noqa: ANN401 # what YAML holds
    """Without what is empty: an empty list of tolerations is none."""
    if isinstance(one, dict):
        return {key: _bare(value) for key, value in one.items() if value not in ({}, [])}
    return [_bare(each) for each in one] if isinstance(one, list) else one


@pytest.mark.parametrize(
    ("rung", "change"),
    [
        ("observe", {}),
        ("bounds", {"acts": True}),
        ("floor", {"acts": True, "monitored": False}),
        ("observe", {"namespace": "elsewhere", "secrets": {}}),
        ("bounds", {"storage": "9Gi", "image": "x"}),
        ("observe", {"namespace": "serving", "followers": 3}),
    ],
)
@pytest.mark.parametrize("name", ["tiny", "my.fleet-scaler", "n" * 100])
def test_a_chart_with_its_own_values_is_the_manifests(tmp_path: Path, rung: str, change: dict[str, Any], name: str) -> None:
    settings, choices = settings_of(tmp_path, rung).model_copy(update={"name": name}), replace(CHOICES, **change)
    text = resolved_yaml(settings)
    files = helm_chart(settings, text, choices, "", "1.2")
    plain = list(yaml.safe_load_all(as_documents(manifests(settings, text, choices))))
    key = lambda one: (one["kind"], one["metadata"]["namespace"], one["metadata"]["name"])  # noqa: E731 # one line, once
    assert sorted(map(_bare, rendered(files, choices.namespace)), key=key) == sorted(map(_bare, plain), key=key)


def test_values_change_what_they_say_and_the_schema_knows_each(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    files = helm_chart(settings, "name: x\n", CHOICES, RULES, "1.2")
    found = {one["kind"]: one for one in rendered(files, "ns", image="y:2", storage="1Gi", nodeSelector={"gpu": "no"})}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert (pod["containers"][0]["image"], pod["nodeSelector"]) == ("y:2", {"gpu": "no"})
    assert found["PersistentVolumeClaim"]["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert found["PrometheusRule"]["annotation"] == "{{ $labels.pool }}"  # not Helm's to fill in
    kinds = {one["kind"] for one in rendered(files, "ns", serviceMonitor=False)}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
    more = helm_chart(settings, "name: x\n", replace(CHOICES, followers=2), RULES, "1.2")
    grown = [one["spec"]["replicas"] for one in rendered(more, "ns", followers=5) if one["kind"] == "Deployment"]
    assert sorted(grown) == [1, 5]
    assert json.loads(more["values.schema.json"])["properties"]["followers"]["minimum"] == 1
    schema = json.loads(files["values.schema.json"])
    assert schema["additionalProperties"] is False
    assert set(yaml.safe_load(files["values.yaml"])) == set(schema["properties"]) - {"global"}
    changed = {**files, "fleet.yaml": "name: y\n"}
    marks = [one["spec"]["template"]["metadata"]["annotations"] for one in rendered(changed, "ns") if one["kind"] == "Deployment"]
    assert marks != [found["Deployment"]["spec"]["template"]["metadata"]["annotations"]]  # settings that change start it anew


def test_the_command_writes_a_folder_and_overwrites_nothing_of_others(tmp_path: Path) -> None:
    scenario(tmp_path, targets={"small": target()})
    words = ["render", "chart", str(tmp_path / "fleet.yaml"), "--image", "x:1", "--format", "helm", "--operator"]
    assert "writes a folder" in str(CliRunner().invoke(app, words).exception)
    out = tmp_path / "chart"
    for _ in range(2):
        done = CliRunner().invoke(app, [*words, "-o", str(out)])
        assert done.exit_code == 0, done.output
    assert sorted(one.name for one in out.iterdir()) == [
        "Chart.yaml",
        "fleet.yaml",
        "rules.yaml",
        "templates",
        "values.schema.json",
        "values.yaml",
    ]
    (out / "templates" / "mine.yaml").write_text("kind: ConfigMap\n", "utf-8")
    assert "also holds mine.yaml" in str(CliRunner().invoke(app, [*words, "-o", str(out)]).exception)


def test_rendering_anew_keeps_values_and_the_version_of_its_user(tmp_path: Path) -> None:
    scenario(tmp_path, targets={"small": target()})
    words = ["render", "chart", str(tmp_path / "fleet.yaml"), "--format", "helm", "-o", str(out := tmp_path / "chart")]
    assert CliRunner().invoke(app, [*words, "--image", "x:1"]).exit_code == 0
    chart, values = out / "Chart.yaml", out / "values.yaml"
    mine = values.read_text("utf-8").replace("nodeSelector: {}", "nodeSelector: {gpu: 'no'}  # mine")
    values.write_text(mine, "utf-8")
    text = chart.read_text("utf-8").replace("version: 0.1.0", "version: 0.7.0  # mine")
    chart.write_text(re.sub("appVersion: .*", "appVersion: 0.0.1", text), "utf-8")
    (out / "templates" / "deployment.yaml").unlink()
    done = CliRunner().invoke(app, [*words, "--image", "x:2", "--storage", "9Gi"])
    assert (done.exit_code, "differs in image, storage, nodeSelector: " in done.stderr) == (0, True), done.output
    assert (values.read_text("utf-8"), chart.read_text("utf-8")) == (mine, text)
    assert (out / "templates" / "deployment.yaml").exists()
    values.unlink()
    assert "differs" not in CliRunner().invoke(app, [*words, "--image", "x:2"]).stderr
    assert yaml.safe_load(values.read_text("utf-8"))["image"] == "x:2"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("Chart.yaml", "name: nginx\nversion: 1.0.0\n", "is of another chart, nginx"),
        ("Chart.yaml", "name: sageserve-other\ndescription: by sageserve render chart\n", "of another chart, sageserve-other"),
        ("Chart.yaml", "{", "is of another chart"),
        ("templates/deployment.yaml", "kind: Deployment\n", "is no chart, and holds templates/deployment.yaml"),
        ("fleet.yaml", "name: mine\n", "is no chart, and holds fleet.yaml"),
    ],
)
def test_a_folder_of_another_is_refused_as_it_is(tmp_path: Path, name: str, text: str, said: str) -> None:
    scenario(tmp_path, targets={"small": target()})
    file = tmp_path / "chart" / name
    file.parent.mkdir(parents=True)
    file.write_text(text, "utf-8")
    words = ["render", "chart", str(tmp_path / "fleet.yaml"), "--image", "x:1", "--format", "helm"]
    assert said in str(CliRunner().invoke(app, [*words, "-o", str(tmp_path / "chart")]).exception)
    assert [one for one in (tmp_path / "chart").rglob("*") if one.is_file()] == [file]
    assert file.read_text("utf-8") == text


@pytest.mark.extended
@pytest.mark.skipif(not HELM, reason="set SAGESERVE_HELM to a Python that has helm-python-sdk")
@pytest.mark.parametrize("rung", ["observe", "floor", "bounds", "agent"])
def test_helm_itself_renders_the_manifests_and_finds_nothing_wrong(tmp_path: Path, rung: str) -> None:
    scenario(tmp_path, targets={"small": target(authority="floor" if rung == "agent" else rung)})
    words = ["render", "chart", str(tmp_path / "fleet.yaml"), "--image", "x:1", "--operator", "-n", "ns"]
    words += {"observe": [], "agent": agent_words(tmp_path)}.get(rung, ["--act"])
    for more in (["-o", str(tmp_path / "plain.yaml")], ["--format", "helm", "-o", str(tmp_path / "chart")]):
        assert CliRunner().invoke(app, [*words, *more]).exit_code == 0
    ran = subprocess.run([HELM, "-c", REAL, str(tmp_path / "chart")], capture_output=True, text=True, check=True)  # ours
    told = json.loads(ran.stdout)
    assert (told["errors"], told["refused"]) == ([], True)
    found = [one for text in told["objects"] for one in yaml.safe_load_all(text) if one]
    plain = list(yaml.safe_load_all((tmp_path / "plain.yaml").read_text("utf-8")))
    key = lambda one: (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"])  # noqa: E731 # one line, once
    assert sorted(map(_bare, found), key=key) == sorted(map(_bare, plain), key=key)
