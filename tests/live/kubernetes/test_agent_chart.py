"""Agents in a cluster: a Role of what guard and authority both allow, options that there are, a chart with switches for both.

Read next: `test_helm.py`, whose few lines of Helm are used here; `tests/live/agent/test_agent.py`.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sageserve.base.config.clusters import RUNGS, Rung, TargetSettings
from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.cli.menu import load
from sageserve.data.scenarios.load import load_scenario, resolved_yaml
from sageserve.live.agent.sealed import key_name, trusted_keys
from sageserve.live.authority.guard_file import read_guard
from sageserve.live.doctor.facts import WRITES
from sageserve.live.kubernetes.agent_manifests import AgentChoices, allowed, parts_of
from sageserve.live.kubernetes.helm import helm_chart
from sageserve.live.kubernetes.manifests import as_documents
from tests.live.agent.stage import SECRET
from tests.live.kubernetes.test_helm import _bare, rendered, settings_of
from tests.live.kubernetes.test_manifests import CHOICES, scenario, target

GUARD = "default: {min: 0, max: 8, rung: floor}\ntargets:\n  serving/small: {min: 1, max: 6, rung: bounds}\n"
AGENT = AgentChoices(
    "https://plans.example/", {"0123.pub": "PEM\n"}, GUARD, {"small": "bounds", "other": "floor"}, "https://plans.example/status/"
)


def key(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]


@pytest.mark.parametrize("watches", [True, False])
@pytest.mark.parametrize("change", [{}, {"monitored": False}, {"namespace": "serving", "followers": 2}])
@pytest.mark.parametrize("name", ["tiny", "n" * 100])
def test_a_chart_with_agents_is_the_manifests(tmp_path: Path, change: dict[str, Any], name: str, *, watches: bool) -> None:
    settings, choices = settings_of(tmp_path).model_copy(update={"name": name}), replace(CHOICES, **change)
    text = resolved_yaml(settings)
    files = helm_chart(settings, text, choices, "", "1.2", agent=AGENT, watches=watches)
    plain = list(yaml.safe_load_all(as_documents(parts_of(settings, text, choices, AGENT, watches=watches))))
    assert sorted(map(_bare, rendered(files, choices.namespace)), key=key) == sorted(map(_bare, plain), key=key)
    called = {one["metadata"]["name"].removeprefix(f"sageserve-{name[:37]}")[-6:] for one in plain}
    assert {"-agent", "-guard"} <= called
    assert (not called - {"-agent", "-guard"}) is not watches
    off = rendered(files, choices.namespace, agent={**yaml.safe_load(files["values.yaml"])["agent"], "enabled": False})
    assert bool(off) is watches
    assert not [one for one in off if one["metadata"]["name"].endswith(("-agent", "-guard"))]


def test_values_of_agents_change_what_they_say_and_the_schema_knows_each(tmp_path: Path) -> None:
    files = helm_chart(settings_of(tmp_path), "name: x\n", CHOICES, "", "1.2", agent=AGENT, watches=False)
    values = yaml.safe_load(files["values.yaml"])
    schema = json.loads(files["values.schema.json"])["properties"]
    for part in ("agent", "watch"):
        assert set(values[part]) == set(schema[part]["properties"])
        assert schema[part]["additionalProperties"] is False
    assert (values["watch"], values["agent"]["enabled"]) == ({"enabled": False}, True)
    mine = values["agent"] | {"plans": "https://other/", "replicas": 3, "every": "9s", "report": ""}
    found = [one for one in rendered(files, "ns", agent=mine) if one["kind"] == "Deployment"]
    (container,) = found[0]["spec"]["template"]["spec"]["containers"]
    words = dict(zip(container["args"][2::2], container["args"][3::2], strict=True))
    assert (words["--plans"], words["--every"], words["--report"], found[0]["spec"]["replicas"]) == (
        "https://other/",
        "9s",
        "",
        3,
    )
    changed = {**files, "guard.yaml": "default: {max: 1}\n"}
    (guard,) = [one for one in rendered(changed, "ns") if one["metadata"]["name"].endswith("-guard")]
    assert guard["data"] == {"guard.yaml": "default: {max: 1}\n"}


@given(st.sampled_from(RUNGS), st.sampled_from(RUNGS))
def test_who_is_allowed_less_writes_less(authority: Rung, guard: Rung) -> None:
    made = TargetSettings(cluster="here", pool="a/b/c", kind="Deployment", name="serving/small", max=6, authority=authority)
    found = allowed(made, guard)
    assert found in {authority, guard, "observe"}
    assert RUNGS.index(found) <= min(RUNGS.index(authority), RUNGS.index(guard))
    if authority == "full" and guard != "full":
        assert found == "observe", "replicas have no bounds to fall back on"
    elif RUNGS.index(guard) >= RUNGS.index(authority):
        assert found == authority


@pytest.mark.parametrize(
    ("guard", "writes"),
    [
        ("bounds", {("scaledobjects", "patch")}),
        ("floor", {("scaledobjects", "patch")}),
        ("observe", set()),
    ],
)
def test_the_role_of_agents_is_no_larger_than_the_guard(tmp_path: Path, guard: Rung, writes: set[tuple[str, str]]) -> None:
    settings = scenario(tmp_path, targets={"small": target(authority="bounds")})
    found = parts_of(settings, "", CHOICES, replace(AGENT, rungs={"small": guard}), watches=False)
    (role,) = [one for one in yaml.safe_load_all(as_documents(found)) if one["kind"] == "Role"]
    held = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    ours = {(name, verb) for name in ("leases", "configmaps") for verb in ("create", "update")}
    assert {one for one in held if one[1] in WRITES} - ours == writes
    assert ("scaledobjects", "list") in held, "what is observed is read"


def agents(folder: Path, *more: str) -> Any:  # noqa: ANN401 # what YAML holds, or the refusal
    (folder / "guard.yaml").write_text(GUARD, "utf-8")
    (folder / "hub.pub").write_bytes(SECRET.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    words = ["render", "chart", str(folder / "fleet.yaml"), "--image", "x:1", "--plans", "https://plans.example/"]
    words += ["--guard", str(folder / "guard.yaml"), "--key", str(folder / "hub.pub"), *more]
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, ConfigError):
        return f"{done.exception}"
    assert done.exit_code == 0, done.output + str(done.exception)
    return list(yaml.safe_load_all(done.stdout))


def test_the_container_runs_an_agent_with_files_that_it_has(tmp_path: Path) -> None:
    scenario(tmp_path, clusters={"here": {}}, targets={"small": target(authority="floor")})
    found = agents(tmp_path, "--no-watch", "--secret", "plans:/var/run/plans", "--bearer-file", "/var/run/plans/token")
    kinds = {key(one)[::2]: one for one in found}
    pod = kinds["Deployment", "sageserve-tiny-agent"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = {name for one in load("agent").params for name in one.opts}
    words = dict(zip(container["args"][2::2], container["args"][3::2], strict=True))
    assert set(words) <= options
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    settings = kinds["ConfigMap", "sageserve-tiny-agent"]["data"]
    name = key_name(SECRET.public_key())
    assert (set(settings), words["--key"]) == ({"fleet.yaml", f"{name}.pub"}, f"/etc/sageserve/{name}.pub")
    for file, text in {**settings, **kinds["ConfigMap", "sageserve-tiny-guard"]["data"]}.items():
        (tmp_path / "in" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / file).write_text(text, "utf-8")
    assert list(trusted_keys([tmp_path / "in" / f"{name}.pub"])) == [name]
    assert read_guard(tmp_path / "in" / "guard.yaml").targets["serving/small"].rung == "bounds"
    assert load_scenario(str(tmp_path / "in" / "fleet.yaml")).live is not None
    look = {one: container[one]["httpGet"]["port"] for one in container if one.endswith("Probe")}
    assert set(look.values()) == {"metrics"} == {one["name"] for one in container["ports"]}
    assert words["--listen"].endswith(str(container["ports"][0]["containerPort"]))
    assert pod["serviceAccountName"] == "sageserve-tiny-agent"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--act",), "two would contend"),
        (("--plans", "plans/"), "the pod has no such folder"),
        (("--plans", "http://x/", "--secret", "a:/a", "--bearer-file", "/a/t"), "not sent in the clear"),
        (("--report", "ftp://x/"), "--report ftp://x/"),
        (("--bearer-file", "/var/token"), "no --secret stands there"),
        (("--set", "live.targets.small.authority=observe"), "lets no target be acted on"),
        (("--set", "live.targets.small.authority=full"), "full is not what a ScaledObject is acted on by"),
        (("--plans", ""), "--guard is of agents"),
        (("--no-watch", "--followers", "2", "--set", "live.scaler.listen=0.0.0.0:7001"), "--followers ask the process"),
    ],
)
def test_what_cannot_be_an_agent_is_refused(tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    scenario(tmp_path, targets={"small": target(authority="floor") | {"keda": True}})
    assert said in str(agents(tmp_path, *more))
