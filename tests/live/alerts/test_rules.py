"""Alert rules, checked and played by promtool: they fire when promises break, and are silent when they are kept, or nobody asks.

Read next: `src/sageserve/live/alerts/rules.py`, docs/how-to/alerts.md.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.live.alerts.rules import BURNS, RUNBOOK, Source, as_yaml, late_ratio, promises_of, rules_of
from sageserve.live.gateway import meter as m
from tests.core.small import scenario
from tests.live.prometheus.real import program

ROOT = Path(__file__).resolve().parents[3]
TIERS: dict[str, object] = {
    "fast": {"ttft": "1s", "percentile": 0.95},
    "slow": {"ttft": "60s", "percentile": 0.9, "priority": 1},
    "batch": {"deadline": "24h", "priority": 2},
}


def written(folder: Path, source: Source, others: Mapping[str, object] = {}) -> Path:
    path = folder / f"{source}.yaml"
    tiers = {name: tier for name, tier in {**TIERS, **others}.items() if tier is not None}
    path.write_text(as_yaml(rules_of(scenario(tiers=tiers), source), name="x", operator=False), "utf-8")
    return path


def series(histogram: str, labels: str, bound: str, late: float, per_minute: int = 100) -> list[dict[str, str]]:
    """A histogram of which a share is later than a bound, from the beginning."""
    kept = round(per_minute * (1 - late))
    return [
        {"series": f'{histogram}_bucket{{{labels},le="{bound}"}}', "values": f"0+{kept}x400"},
        {"series": f"{histogram}_count{{{labels}}}", "values": f"0+{per_minute}x400"},
    ]


FAST = 'gen_ai_request_model="m",tier="fast"'
GATEWAY = "gen_ai_server_time_to_first_token_seconds"
HERE = {"series": "sageserve_gpus_held", "values": "0x400"}


def fired(found: list[dict[str, Any]], name: str, at: str, labels: list[dict[str, str]]) -> dict[str, Any]:
    """A test of promtool: at a time, an alert fires with these labels; none: it is silent."""
    return {
        "interval": "1m",
        "input_series": [HERE, *found],
        "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": [{"exp_labels": one} for one in labels]}],
    }


def play(folder: Path, source: Source, tests: list[dict[str, Any]], more: Mapping[str, object] = {}) -> None:
    rules = written(folder, source, {} if source == "engines" else {"slow": None, **more})  # a tier less is half of the work
    silenced = yaml.safe_load(rules.read_text("utf-8"))
    for group in silenced["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)  # whose text is for people
    rules.write_text(yaml.safe_dump(silenced), "utf-8")
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [rules.name], "evaluation_interval": "1m", "tests": tests}), "utf-8")
    ran = subprocess.run([program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def burn(severity: str, tier: str = "fast", by: str = "gen_ai_request_model") -> dict[str, str]:
    return {"severity": severity, "tier": tier, by: "m"}


GROWS = {"fast": {"ttft": "1s", "ttft_per_1k_tokens": "200ms"}}


def test_of_a_promise_that_grows_with_the_prompt_the_gateway_counts_who_was_late() -> None:
    tiers = TIERS | GROWS
    text = as_yaml(rules_of(scenario(tiers=tiers), "gateway"), name="x", operator=False)
    assert "promised are 1s and 200ms for every 1,000 tokens of the prompt for 95.00%" in " ".join(text.split())
    (fast,) = [one for one in promises_of(scenario(tiers=tiers), "gateway") if one.tier == "fast"]
    (slow,) = [one for one in promises_of(scenario(tiers=tiers), "gateway") if one.tier == "slow"]
    counted = f'sum by (gen_ai_request_model) (rate({m.LATE}{{tier="fast"}}[1h]))'
    assert late_ratio(fast, "1h") == f'{counted} / sum by (gen_ai_request_model) (rate({GATEWAY}_count{{tier="fast"}}[1h]))'
    assert m.LATE not in late_ratio(slow, "1h")
    with pytest.raises(ConfigError, match="engines do not say how long late ones were"):
        rules_of(scenario(tiers=tiers), "engines")


def test_a_growing_promise_that_breaks_wakes_somebody(tmp_path: Path) -> None:
    tests = []
    for late, severities in ((80, ("page", "ticket")), (4, ())):
        counted = [
            {"series": f"{m.LATE}{{{FAST}}}", "values": f"0+{late}x400"},
            {"series": f"{GATEWAY}_count{{{FAST}}}", "values": "0+100x400"},
        ]
        tests.append(fired(counted, "SageServePromiseBurn", "40m", [burn(one) for one in severities]))
    play(tmp_path, "gateway", tests, GROWS)


@pytest.mark.parametrize("source", ["gateway", "engines"])
def test_prometheus_takes_the_rules(tmp_path: Path, source: Source) -> None:
    path = written(tmp_path, source)
    ran = subprocess.run([program("promtool"), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")  # what it has against a rule's form it says there, and ends well


def test_a_promise_that_breaks_wakes_somebody_and_one_that_is_kept_does_not(tmp_path: Path) -> None:
    name = "SageServePromiseBurn"
    tests = [
        fired(series(GATEWAY, FAST, "1", 0.80), name, "40m", [burn("page"), burn("ticket")]),  # 16 times the budget of 5 %
        fired(
            series(GATEWAY, FAST, "1", 0.60), name, "40m", [burn("page"), burn("ticket")]
        ),  # 12 times: less than 14.4, more than 6
        fired(series(GATEWAY, FAST, "1", 0.20), name, "40m", [burn("ticket")]),  # 4 times
        fired(series(GATEWAY, FAST, "1", 0.04), name, "40m", []),  # within the budget
        fired(series(GATEWAY, FAST, "1", 0.80, per_minute=0), name, "40m", []),  # nobody asks
    ]
    play(tmp_path, "gateway", tests)


def test_the_first_hour_of_a_trouble_is_enough(tmp_path: Path) -> None:
    sudden = [
        {"series": f'{GATEWAY}_bucket{{{FAST},le="1"}}', "values": "0+100x300 30000+0x100"},  # from five hours on all are late
        {"series": f"{GATEWAY}_count{{{FAST}}}", "values": "0+100x400"},
    ]
    name = "SageServePromiseBurn"
    early = fired(sudden, name, "330m", [])  # half of an hour's requests, an eleventh of the last six hours'
    late = fired(sudden, name, "352m", [burn("page"), burn("ticket")])  # 52 minutes of an hour, 15 % of six: less than 30 %
    play(tmp_path, "gateway", [early | {"alert_rule_test": early["alert_rule_test"] + late["alert_rule_test"]}])


def test_an_alert_ends_soon_after_the_trouble_does(tmp_path: Path) -> None:
    found = [
        {"series": f'{GATEWAY}_bucket{{{FAST},le="1"}}', "values": "0x120 0+100x400"},  # two hours in which all are late
        {"series": f"{GATEWAY}_count{{{FAST}}}", "values": "0+100x400"},
    ]
    name = "SageServePromiseBurn"
    during, after = fired(found, name, "119m", [burn("page"), burn("ticket")]), fired(found, name, "260m", [burn("ticket")])
    play(tmp_path, "gateway", [during | {"alert_rule_test": during["alert_rule_test"] + after["alert_rule_test"]}])


def test_engines_are_held_to_what_breaks_every_promise(tmp_path: Path) -> None:
    vllm = "vllm:time_to_first_token_seconds"
    name, labels = "SageServePromiseBurn", 'model_name="m"'
    slow = burn("page", "slow", "model_name")
    tests = [
        fired(series(vllm, labels, "40.0", 0.95), name, "80m", [slow, slow | {"severity": "ticket"}]),
        fired(series(vllm, labels, "40.0", 0.05), name, "80m", []),
        fired(series(vllm, labels, "1.0", 0.95), name, "80m", []),  # late for fast alone, and nobody knows who asked
    ]
    play(tmp_path, "engines", tests)


def test_errors_blindness_silence_and_too_few(tmp_path: Path) -> None:
    requests = "sageserve_gateway_requests_total"

    def answers(code: str, each: int) -> dict[str, str]:
        return {"series": f'{requests}{{gen_ai_request_model="m",code="{code}"}}', "values": f"0+{each}x200"}

    def leaders(*runs: int) -> list[dict[str, str]]:
        return [{"series": f'sageserve_batch_leader{{instance="{k}"}}', "values": f"{one}x200"} for k, one in enumerate(runs)]

    blind = {"series": 'sageserve_blind{region="r",model="m"}', "values": "1x200"}
    play(
        tmp_path,
        "gateway",
        [
            fired(
                [answers("200", 98), answers("502", 2)],
                "SageServeErrors",
                "70m",
                [{"severity": "page", "gen_ai_request_model": "m"}],
            ),
            fired([answers("200", 995), answers("502", 5)], "SageServeErrors", "70m", []),
            fired([answers("200", 90), answers("429", 10)], "SageServeErrors", "70m", []),  # turned away, and told so
            fired([blind], "SageServeBlind", "20m", [{"severity": "ticket", "region": "r", "model": "m"}]),
            fired([blind], "SageServeBlind", "10m", []),
            fired(leaders(0, 0), "SageServeUnled", "10m", [{"severity": "page"}]),
            fired(leaders(0, 0), "SageServeUnled", "4m", []),
            fired(leaders(0, 1), "SageServeUnled", "10m", []),
            fired([], "SageServeUnled", "10m", []),  # no other process could run it
            fired([], "SageServeGone", "20m", []),
            {**fired([], "SageServeGone", "20m", [{"severity": "page"}]), "input_series": [blind]},
        ],
    )
    scraped = 'instance="here:8110",job="watch"'  # as Prometheus adds to whatever it scrapes
    needed = {"series": f'sageserve_needed_instances{{region="r",model="org/m",{scraped}}}', "values": "3x200"}

    def serving(count: float) -> list[dict[str, str]]:
        return [
            needed,
            {"series": f'sageserve_serving_instances{{region="r",model="org/m",{scraped}}}', "values": f"{count}x200"},
        ]

    few = {"severity": "ticket", "region": "r", "model": "org/m"}
    play(
        tmp_path,
        "engines",
        [fired(serving(2.5), "SageServeTooFew", "20m", [few]), fired(serving(3), "SageServeTooFew", "20m", [])],
    )


def test_a_bound_is_that_bucket_alone() -> None:
    text = as_yaml(rules_of(scenario(tiers={"fast": {"ttft": "1s", "percentile": 0.95}}), "engines"), name="x", operator=False)
    found = set(re.findall(r'le=~"([^"]+)"', text))
    assert found
    for pattern in found:
        assert [le for le in ("1", "1.0", "10", "160", "100.0") if re.fullmatch(pattern, le)] == ["1", "1.0"]


def test_the_operators_object_has_a_name_that_kubernetes_takes() -> None:
    found = yaml.safe_load(as_yaml({}, name="sageserve-Org/my_Fleet.v2-", operator=True))
    assert found["metadata"]["name"] == "sageserve-org-my-fleet.v2"


def test_a_rate_that_nothing_can_reach_makes_no_rule() -> None:
    loose = rules_of(scenario(tiers={"lax": {"ttft": "1s", "percentile": 0.8}}), "gateway")
    groups: Any = loose["groups"]
    rules = [rule for rule in groups[1]["rules"] if rule["alert"] == "SageServePromiseBurn"]
    marks = [float(found) for rule in rules for found in re.findall(r"> ([0-9.]+)", rule["expr"])]
    assert marks
    assert max(marks) < 1
    assert {one.rate * 0.2 for one in BURNS} - {float(f"{mark:.6g}") for mark in marks} >= {14.4 * 0.2, 6.0 * 0.2}


def test_every_alert_has_a_page_that_is_there() -> None:
    page = (ROOT / RUNBOOK).read_text("utf-8").lower()
    sources: tuple[Source, ...] = ("gateway", "engines")
    for source in sources:
        groups: Any = rules_of(scenario(tiers=TIERS), source)["groups"]
        for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
            path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
            assert path == RUNBOOK
            assert f"### {anchor}\n" in page, f"{RUNBOOK} says nothing of {anchor}"


def test_a_scenario_without_promises_is_refused() -> None:
    with pytest.raises(ConfigError, match="no tier that promises"):
        rules_of(scenario(tiers={"batch": {"deadline": "24h"}}), "gateway")


def test_the_command_writes_what_prometheus_or_its_operator_reads(tmp_path: Path) -> None:
    out = tmp_path / "rules.yaml"
    ran = CliRunner().invoke(app, ["alerts", "quickstart", "-o", str(out)])
    assert ran.exit_code == 0, ran.output
    assert yaml.safe_load(out.read_text("utf-8")).keys() == {"groups"}
    (tmp_path / "link.yaml").symlink_to(out)
    ran = CliRunner().invoke(app, ["alerts", "quickstart", "--operator", "-o", str(tmp_path / "link.yaml")])
    assert (tmp_path / "link.yaml").is_symlink()
    assert yaml.safe_load(out.read_text("utf-8"))["kind"] == "PrometheusRule", "a link leads where it did"
    ran = CliRunner().invoke(app, ["alerts", "quickstart", "--operator", "--runbooks", "https://docs.here/"])
    found = yaml.safe_load(ran.stdout)
    assert (found["kind"], found["metadata"]["name"]) == ("PrometheusRule", "sageserve-quickstart")
    links = {
        rule["annotations"]["runbook_url"] for group in found["spec"]["groups"] for rule in group["rules"] if "alert" in rule
    }
    assert all(link.startswith("https://docs.here/how-to/alerts#sageserve") for link in links)
