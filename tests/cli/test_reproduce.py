"""`sageserve reproduce paper`: every study can be played, and what is said of a number beside the published one is right.

Read next: docs/how-to/reproduce-the-paper.md.
"""

import json
from typing import get_args

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.columns import WIDTH
from sageserve.cli.main import app
from sageserve.cli.reproduce import verdict
from sageserve.data.results.studies import QUICK, SCENARIO, Finding, StudyProfile, released_memory, studies
from sageserve.data.scenarios.load import load_scenario

TINY = (
    *("--set", "workload.generate.requests=3000", "--set", "workload.generate.length=20m"),
    *("--set", "workload.generate.history=0", "--set", "fleet.start=3"),
)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("profile", get_args(StudyProfile))
def test_every_case_is_a_scenario_and_every_finding_has_its_cases(quick: bool, profile: StudyProfile) -> None:
    found = studies(quick=quick, profile=profile)
    assert set(found) == {"unified", "strategies", "orders", "bursts", "mixes", "a100", "trigger", "check"}
    for study in found.values():
        assert study.findings
        for changes in study.cases.values():
            load_scenario(SCENARIO, overrides=[*(QUICK if quick else ()), *changes])
        for one in study.findings:
            assert one.case in study.cases
            assert one.base in {*study.cases, ""}
            assert bool(one.published) == bool(one.source)


def test_a_burst_comes_on_top_of_the_usual_requests() -> None:
    (changes, *_) = studies(quick=True)["bursts"].cases.values()
    found = load_scenario(SCENARIO, overrides=[*QUICK, *changes]).workload.generate
    batch = found.requests * (1 - found.interactive)
    assert batch == pytest.approx(1_980_000 * 0.28, rel=1e-3)


def test_engines_of_the_released_code_hold_keys_and_values_of_every_query_head() -> None:
    ours = load_scenario(SCENARIO)
    theirs = released_memory(ours)
    gpu = "h100-80gb"
    fewer = {
        name: model.engines[gpu].kv_tokens // theirs.models[name].engines[gpu].kv_tokens for name, model in ours.models.items()
    }
    assert fewer == {"llama-2-70b": 8, "bloom-176b": 1, "llama-3.1-8b": 4, "llama-3.2-3b": 3}


def test_what_is_set_by_hand_wins_over_a_study_and_the_profile_is_told() -> None:
    words = ["reproduce", "paper", "--only", "unified", *TINY, "--set", "signals.kind=busy", "--profile"]
    told = {}
    for profile in get_args(StudyProfile):
        result = CliRunner().invoke(app, [*words, profile, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        told[profile] = json.loads(result.stdout)
        assert told[profile]["profile"] == profile
    cases = [one["studies"]["unified"]["cases"]["siloed"] for one in told.values()]
    assert [sum(tier["requests"] for tier in case["tiers"].values()) for case in cases] == [3000, 3000]
    assert cases[0] != cases[1], "marks and silos are others"


def test_findings_are_those_of_the_cases() -> None:
    result = CliRunner().invoke(app, ["reproduce", "paper", "--only", "unified", *TINY, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    (study,) = json.loads(result.stdout)["studies"].values()
    siloed, reactive = (study["cases"][name]["gpu_hours"]["total"] for name in ("siloed", "reactive"))
    assert study["findings"][0]["ours"] == pytest.approx(reactive / siloed - 1)
    assert study["findings"][0]["published"] == [-0.345]
    fast = next(one for one in study["findings"] if one["what"].startswith("siloed"))
    assert fast["ours"] == study["cases"]["siloed"]["tiers"]["iw-f"]["attainment"]


def test_the_table_fits_and_says_where_ours_differs() -> None:
    result = CliRunner().invoke(app, ["reproduce", "paper", "--only", "unified", *TINY], catch_exceptions=False)
    assert max(len(line) for line in result.stdout.splitlines()) <= WIDTH
    assert "-34.5%" in result.stdout
    assert "agrees" in result.stdout
    assert "fast tier kept" in result.stdout


def test_verdicts() -> None:
    one = Finding("x", "hours", "a", "b", (-0.25,), "paper")
    span = Finding("x", "hours", "a", "b", (-0.242, -0.197), "paper")
    number = Finding("x", "ttft", "a", "", (10.0,), "paper")
    assert verdict(one, -0.21) == "agrees"
    assert verdict(one, -0.35) == "DIFFERS -10"
    assert verdict(one, -0.24, -0.1) == "agrees, owed +15"
    assert verdict(span, -0.22) == "agrees"
    assert verdict(span, -0.1) == "DIFFERS +10"
    assert verdict(number, 5.0) == "0.5×"
    assert verdict(Finding("x", "hours", "a"), 5.0) == ""
    assert verdict(one, None) == ""


def test_an_unknown_study_is_refused() -> None:
    result = CliRunner().invoke(app, ["reproduce", "paper", "--only", "unifid"])
    assert isinstance(result.exception, ConfigError)
    assert "unified" in result.exception.hint
