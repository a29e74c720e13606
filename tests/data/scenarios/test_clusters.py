"""Settings of clusters and targets: names resolve at load, unknown keys are refused with a guess, minima fit what there is."""

from pathlib import Path

import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.scenarios.load import load_scenario
from tests.worlds import SMALL_FLEET

LIVE = (
    f"extends: {SMALL_FLEET}"
    """
live:
  clusters:
    east:
      context: use1
      prometheus:
        url: https://prom.east
        bearer_file: token
        ca_file: ca.pem
        headers: {X-Scope-OrgID: llm}
      namespaces: [serving]
  targets:
    llama70:
      cluster: east
      pool: eastus/llama-2-70b/h100-80gb
      kind: ScaledObject
      name: serving/llama70
      authority: floor
      min: 2
      max: 10
      gpus: 8
      series: {model_name: meta-llama/Llama-2-70b, pod: "=~llama70-.*"}
  tiers: {iw-f: {priority: 100}, iw-n: {priority: 0}, niw: {priority: -10}}
  safety: {blind_after: 90s, budget: {gpus: {eastus/h100-80gb: 64}, per_hour: 900/h}}
"""
)


def loaded(folder: Path, *changes: tuple[str, str]) -> Scenario:
    text = LIVE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "live.yaml"
    path.write_text(text, "utf-8")
    return load_scenario(path)


def test_clusters_and_targets_load(tmp_path: Path) -> None:
    live = loaded(tmp_path).live
    assert live is not None
    assert live.targets["llama70"].authority == "floor"
    assert live.clusters["east"].prometheus is not None
    assert live.tiers["niw"].priority == -10
    assert live.safety.budget.gpus == {"eastus/h100-80gb": 64}


def test_a_target_only_watches_unless_told_otherwise(tmp_path: Path) -> None:
    live = loaded(tmp_path, ("      authority: floor\n", "")).live
    assert live is not None
    assert live.targets["llama70"].authority == "observe"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cluster: east\n", "cluster: eest\n", "cluster 'eest' is not defined; did you mean 'east'?"),
        ("llama-2-70b/h100-80gb", "llama-2-70b/h100-80g", "did you mean 'eastus/llama-2-70b/h100-80gb'?"),
        ("authority: floor", "authority: flor", "'flor' is not one of observe, floor, bounds, full"),
        ("      max: 10", "      maxx: 10", "unknown key; did you mean 'max'?"),
        ("bearer_file", "bearer", "unknown key; did you mean 'bearer_file'?"),
        ("kind: ScaledObject", "kind: ScaledObjects", "is not one of Deployment"),
        ("name: serving/llama70", "name: llama70", "live.targets.llama70.name"),
        ("niw: {priority", "nwi: {priority", "tier 'nwi' is not defined; did you mean 'niw'?"),
        ("gpus: {eastus/h100-80gb", "gpus: {eastus/h100", "stock 'eastus/h100' is not defined"),
        ('pod: "=~llama70-.*"', 'pod: "=~"', "=~ needs a regular expression"),
        ("url: https://prom.east", "url: prom.east", "live.clusters.east.prometheus.url"),
        ("url: https://prom.east", "url: https://prom.east:99999", "'https://prom.east:99999' is no URL"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, (old, new))
    assert said in caught.value.message
    assert "live.yaml:" in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("min: 2", "min: 11", "min 11 > max 10 instances"),
        ("min: 2", "min: 9", "llama70 9 x 8 = 72 > 64 GPUs of eastus/h100-80gb"),
        ("per_hour: 900/h", "per_hour: 100/h", "/h > $100.00/h"),
        (
            "kind: ScaledObject\n      name: serving/llama70\n      authority: floor",
            "kind: HorizontalPodAutoscaler\n      name: serving/l\n      authority: full",
            "no replicas",
        ),
    ],
)
def test_what_cannot_be_is_shown_with_its_arithmetic(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(Infeasible) as caught:
        loaded(tmp_path, (old, new))
    assert said in caught.value.message


def test_two_targets_on_one_object_are_refused(tmp_path: Path) -> None:
    second = LIVE[LIVE.index("      cluster: east") : LIVE.index("  tiers:")]
    with pytest.raises(Infeasible, match="is already target 'llama70'"):
        loaded(tmp_path, ("  tiers: {iw-f", f"    again:\n{second}  tiers: {{iw-f"))


def test_a_tier_that_may_not_leave_needs_a_target_where_it_enters(tmp_path: Path) -> None:
    with pytest.raises(Infeasible, match="no target serves llama-2-70b in centralus"):
        loaded(tmp_path, ("live:\n", "tiers: {iw-f: {regions: origin}}\nlive:\n"))


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("agent: https://plans.example/\n      context: use1", "nobody here asks its API server"),
        ("agent: https://plans.example/\n      pods: true", "nobody here asks its API server"),
        ("agent: ftp://plans.example/", "live.clusters.east.agent.plans"),
        ("agent: {plans: 'http://x/', bearer_file: /t}", "a token is not sent in the clear"),
        ("agent: {plan: 'https://x/'}", "did you mean 'plans'?"),
        ("agent: https://plans.example/", ""),
        ("agent: https://plans.example:99999/", "is no URL"),
        ("agent: 'https://[::1'", "is no URL"),
        ("agent: {plans: /p, report: 'https://bob:hunter2@x/'}", "with a password"),
        ("agent: {plans: /p, report: 'https://x/?sig=1'}", "neither a query"),
        ("agent: plans/", "is not a URL or an absolute folder"),
    ],
)
def test_a_cluster_of_an_agent_is_asked_by_nobody_else(tmp_path: Path, new: str, said: str) -> None:
    if not said:
        live = loaded(tmp_path, ("context: use1", new)).live
        assert live is not None
        assert live.clusters["east"].agent is not None
        assert live.clusters["east"].agent.plans == "https://plans.example/"
        return
    with pytest.raises((ConfigError, Infeasible)) as caught:
        loaded(tmp_path, ("context: use1", new))
    assert said in str(caught.value)


SHARES = """  shares:
    split: {cluster: east, kind: AIGatewayRoute, name: serving/llama, model: llama-2-70b, backends: {eastus: e, centralus: w}}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ""),
        ("cluster: east,", "cluster: eest,", "cluster 'eest' is not defined"),
        ("model: llama-2-70b", "model: llama", "model 'llama' is not defined"),
        ("centralus: w", "mars: w", "region 'mars' is not defined"),
        ("", "", "nobody here sees llama-2-70b in centralus"),
        ("{eastus: e, centralus: w}", "{eastus: e}", "live.shares.split.backends"),
        ("centralus: w", "centralus: e", "each region has a backend of its own"),
        ("split:", "llama70:", "a target has that name already"),
        ("AIGatewayRoute", "HTTPRoute", "is not one of"),
        ("model: llama", "tier: iw, model: llama", "tier 'iw' is not defined"),
    ],
)
def test_shares_of_regions_name_what_there_is(tmp_path: Path, old: str, new: str, said: str) -> None:
    central = "    far: {cluster: east, pool: centralus/llama-2-70b/h100-80gb, kind: ScaledObject, name: serving/far, max: 10}\n"
    mine = SHARES.replace(old, new, 1)
    shares = ("  tiers: {iw-f", (central if "nobody" not in said else "") + mine + "  tiers: {iw-f")
    if not said:
        live = loaded(tmp_path, shares).live
        assert live is not None
        assert live.shares["split"].authority == "observe"
        return
    with pytest.raises((ConfigError, Infeasible)) as caught:
        loaded(tmp_path, shares)
    assert said in str(caught.value)


GATES = """  gates:
    llama: {redis: "redis://r:6379", control_key: key, pool_id: p, region: eastus, model: llama-2-70b}
    west: {redis: "redis://r:6379", control_key: west, pool_id: q, region: centralus, model: llama-2-70b}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ""),
        ("region: eastus", "region: mars", "region 'mars' is not defined"),
        ("model: llama-2-70b", "model: llama", "model 'llama' is not defined"),
        ("region: centralus", "region: eastus", "engines of llama-2-70b in eastus have one gate, llama already"),
        ("control_key: west", "control_key: key", "llama has that key already"),
        ("redis://r:6379", "redis://sage:hunter2@r:6379", "no user or password in an address: write redis://r:6379"),
        ("redis://r:6379", "http://r:6379", "no address of a Redis"),
        ("pool_id: p", "pool_id: p, user: sage", "give password_file"),
        ("pool_id: p", "pool_id: p, ca_file: /ca.pem", "write rediss://"),
        ("pool_id: p", "pool_id: p, authority: floor", "is not one of"),
    ],
)
def test_gates_name_what_there_is_and_no_password(tmp_path: Path, old: str, new: str, said: str) -> None:
    gates = ("  tiers: {iw-f", GATES.replace(old, new, 1) + "  tiers: {iw-f")
    if not said:
        live = loaded(tmp_path, gates).live
        assert live is not None
        assert live.gates["llama"].authority == "observe"
        return
    with pytest.raises((ConfigError, Infeasible)) as caught:
        loaded(tmp_path, gates)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
