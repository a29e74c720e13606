"""Plans that people review: two of them side by side, and one as patches for a repository.

Read next: `test_plan.py` for how plans are made.
"""

import json
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace
from typer.testing import CliRunner

from sageserve.base.config.clusters import RAY, TargetSettings
from sageserve.base.errors import ConfigError, PlanError
from sageserve.cli.main import app
from sageserve.data.results.plans import PlanFile, read_plan, write_plan
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.patches import kustomization, patches_of
from tests.worlds import SMALL_FLEET

FLEET = (
    f"extends: {SMALL_FLEET}"
    """
workload: {generate: {requests: 2000, length: 3h, history: 0}}
fleet: {minimum: 1}
live:
  clusters: {c: {prometheus: {url: "http://127.0.0.1:9"}}}
  targets:
    chat: {cluster: c, pool: eastus/llama-2-70b/h100-80gb, kind: ScaledObject, name: serving/chat, max: 20}
    small: {cluster: c, pool: eastus/llama-3.1-8b/h100-80gb, kind: Deployment, name: serving/small, min: 7, max: 20}
"""
)
CHAT = "eastus/llama-2-70b/h100-80gb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet and its plan."""
    found = tmp_path_factory.mktemp("plans")
    (found / "fleet.yaml").write_text(FLEET, "utf-8")
    ran = CliRunner().invoke(app, ["plan", str(found / "fleet.yaml"), "--at", "2h", "-o", str(found / "plan.json")])
    assert ran.exit_code == 0, ran.output
    return found


@pytest.fixture
def plan(folder: Path) -> PlanFile:
    return read_plan(folder / "plan.json")


@pytest.mark.parametrize("words", [["show"], ["render", "{fleet}"]])
def test_counts_that_somebody_wrote_into_a_plan_are_not_taken(folder: Path, plan: PlanFile, words: list[str]) -> None:
    edited = folder / "edited.json"
    write_plan(edited, replace(plan, pools=(replace(plan.pools[0], target=9), *plan.pools[1:])))
    command, *more = words
    ran = CliRunner().invoke(app, ["plan", command, str(edited), *(one.format(fleet=folder / "fleet.yaml") for one in more)])
    assert isinstance(ran.exception, PlanError)
    assert "its counts are not those that were solved" in str(ran.exception)


def test_two_plans_side_by_side(folder: Path, plan: PlanFile) -> None:
    first = plan.pools[0]
    more = replace(first, target=first.target + 2)
    write_plan(
        folder / "later.json", replace(plan, made_at=plan.made_at + 1, scenario_hash="0" * 64, pools=(more, *plan.pools[2:]))
    )
    words = ("plan", "diff", str(folder / "plan.json"), str(folder / "later.json"))
    ran = CliRunner().invoke(app, [*words, "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert (found["same_inputs"], found["same_scenario"], found["changed"]) == (True, False, 2)
    one, gone = found["pools"][:2]
    assert (one["pool"], one["target"]) == (first.pool, [first.target, first.target + 2])
    assert one["cost_per_hour"] == pytest.approx(2 * first.price_per_hour)
    assert gone["target"] == [plan.pools[1].target, None]
    assert found["cost_per_hour"] == pytest.approx(2 * first.price_per_hour - plan.pools[1].target * plan.pools[1].price_per_hour)
    told = CliRunner().invoke(app, list(words)).stdout
    assert "made under different settings" in told
    assert f"2 of {len(plan.pools)} targets change" in told


def test_a_plan_as_patches_for_a_repository(folder: Path, plan: PlanFile) -> None:
    out = folder / "deploy"
    ran = CliRunner().invoke(app, ["plan", "render", str(folder / "plan.json"), str(folder / "fleet.yaml"), "-o", str(out)])
    assert ran.exit_code == 0, ran.output
    target = {line.pool: line.target for line in plan.pools}[CHAT]
    assert yaml.safe_load((out / "chat.yaml").read_text("utf-8")) == {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {
            "name": "chat",
            "namespace": "serving",
            "annotations": {
                "sageserve.io/plan": f"sha256-{plan.solved.plan.input_hash[:12]}",
                "sageserve.io/strategy": plan.strategy,
            },
        },
        "spec": {"minReplicaCount": target},
    }
    assert yaml.safe_load((out / "small.yaml").read_text("utf-8"))["spec"] == {"replicas": 7}
    assert "small: spec.replicas = 7 (the plan's " in ran.stderr, "it is told that the target's bound won"
    assert "left out, for no target has them: centralus" in ran.stderr
    assert yaml.safe_load((out / "kustomization.yaml").read_text("utf-8"))["patches"] == [
        {"path": "chat.yaml"},
        {"path": "small.yaml"},
    ]
    printed = CliRunner().invoke(app, ["plan", "render", str(folder / "plan.json"), str(folder / "fleet.yaml")]).stdout
    assert [one["kind"] for one in yaml.safe_load_all(printed)] == ["Component", "ScaledObject", "Deployment"]


def test_nothing_half_written_is_left_where_a_patch_cannot_be(folder: Path) -> None:
    out = folder / "barred"
    (out / "chat.yaml").mkdir(parents=True)
    ran = CliRunner().invoke(app, ["plan", "render", str(folder / "plan.json"), str(folder / "fleet.yaml"), "-o", str(out)])
    assert isinstance(ran.exception, ConfigError)
    assert ran.exception.message.startswith(f"{out}/chat.yaml cannot be written")
    assert not list(out.glob(".*"))


def test_a_plan_of_other_settings_is_not_rendered(folder: Path) -> None:
    words = ["plan", "render", str(folder / "plan.json"), str(folder / "fleet.yaml"), "--set", "fleet.maximum=39"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code != 0
    assert "made under other settings" in str(ran.exception)


def test_every_kind_of_target_has_a_field_for_its_count() -> None:
    for kind in TargetSettings.model_fields["kind"].annotation.__args__:  # type: ignore[union-attr] # a Literal
        target = TargetSettings(cluster="c", pool="a/b/c", kind=kind, name="space/name", max=9)
        patches = patches_of({"a/b/c": 12}, {"prod/t": target}, {})
        if kind == RAY:
            assert not patches, "no object of Kubernetes, and nothing that Kustomize could patch"
            continue
        (patch,) = patches
        assert patch.file == "prod--t.yaml", "a file of the folder itself"
        found = yaml.safe_load(patch.text)
        for part in patch.field.split("."):
            found = found[part]
        assert (found, patch.count, patch.wanted) == (9, 9, 12)
        assert yaml.safe_load(patch.text)["apiVersion"] == KINDS[kind].api_version
        assert patch.file in kustomization((patch,))


def test_no_target_takes_the_file_of_another_or_of_the_component() -> None:
    target = TargetSettings(cluster="c", pool="a/b/c", kind="Deployment", name="space/name", max=9)
    names = ("kustomization", "Kustomization", "a/b", "a--b", "a--b-patch")
    patches = patches_of({"a/b/c": 1}, dict.fromkeys(names, target), {})
    assert len({one.file.lower() for one in patches} | {"kustomization.yaml"}) == len(names) + 1
    assert patches[2].file == "a--b.yaml"


def test_a_plan_of_an_hour_is_a_schedule_until_it_expires(folder: Path, plan: PlanFile) -> None:
    words = ["plan", "render", str(folder / "plan.json"), str(folder / "fleet.yaml"), "--format", "keda-cron"]
    ran = CliRunner().invoke(app, [*words, "--begin", "2026-11-30T14:00", "--timezone", "Europe/Berlin"])
    assert ran.exit_code == 0, ran.output
    component, (trigger,) = yaml.safe_load_all(ran.stdout)
    assert component["kind"] == "Component"
    assert component["patches"][0]["target"]["kind"] == "ScaledObject"
    ends = 14 + (plan.expires_at - plan.made_at) // 3_600_000_000
    wanted = next(line.target for line in plan.pools if line.pool == CHAT)
    assert trigger["value"]["metadata"] == {
        "timezone": "Europe/Berlin", "start": "0 14 30 11 *", "end": f"0 {ends} 30 11 *", "desiredReplicas": str(wanted)
    }  # fmt: skip
    assert "eastus/llama-3.1-8b" in ran.stderr, "a Deployment has no schedule, and that is told"
    assert "come again a year later" in ran.stderr
    assert "in the past: is --begin 2020-01-01 00:00" in CliRunner().invoke(app, [*words, "--begin", "2020-01-01"]).stderr
    for more, said in (
        ([], "needs --begin"),
        (["--begin", "soon"], "'soon' is no time"),
        (["--begin", "2026-11-30T14:00", "--timezone", "Mars/Olympus"], "there is no zone"),
        (["--begin", "9999-12-31T23:59"], "the year 9999"),
        (["--begin", "2026-10-25T01:30", "--timezone", "Europe/Berlin"], "2026-10-25 02:30 comes twice in Europe/Berlin"),
    ):
        assert said in str(CliRunner().invoke(app, [*words, *more]).exception)
    ran = CliRunner().invoke(app, [*words[:-1], "aibrix-schedules", "--begin", "2026-11-30T14:00"])
    assert "is a PodAutoscaler" in str(ran.exception)
