"""A first scenario: it loads, says what it guessed, matches names to profiles, and is as large as the traffic asks for.

Read next: `test_edit.py`, docs/how-to/your-own-fleet.md.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from sageserve.base.errors import ConfigError
from sageserve.data.scenarios.draft import (
    Draft,
    DraftModel,
    ModelTraffic,
    draft_model,
    draft_text,
    left_to_decide,
    scenario_name,
    traffic_of,
)
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.workload.generate import generate

GPU = "h100-80gb"
BUSY = ModelTraffic(peak={"east": 20.0}, seen=True)


def drafted(tmp_path: Path, *models: DraftModel, tiers: tuple[str, ...] = (), regions: tuple[str, ...] = ("east", "west")) -> str:
    text = draft_text(Draft("mine", "a.csv", models, regions, tiers))
    (tmp_path / "mine.yaml").write_text(text, "utf-8")
    return text


@pytest.mark.parametrize(
    ("name", "profile", "sure"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b/h100-80gb/tp1", True),
        ("Qwen/Qwen3-32B", "qwen3-32b/h100-80gb/tp2", True),
        ("my-company/assistant-8b", "llama-3-8b/h100-80gb/tp1", False),
        ("gpt-4o", "llama-3.1-70b/h100-80gb/tp4", False),
    ],
)
def test_a_model_is_matched_by_name_then_by_size_and_says_when_it_is_unsure(name: str, profile: str, sure: bool) -> None:
    found = draft_model(name, GPU, ModelTraffic())
    assert (found.profile, not found.candidates) == (profile, sure)
    assert profile not in found.candidates


def test_a_draft_loads_and_every_guess_is_listed(tmp_path: Path) -> None:
    text = drafted(tmp_path, draft_model("gpt-4o", GPU, ModelTraffic()), tiers=("iw-f", "chat", "batch-nightly", "on"))
    scenario = load_scenario(tmp_path / "mine.yaml")
    assert [tier.batch for tier in scenario.tiers.values()] == [False, False, True, False]
    listed = list(left_to_decide(text))
    assert {text.splitlines()[number - 1].strip().split(" #")[0] for number, _ in listed} >= {"per_vm: 8", "on_demand: 98.32/h"}
    assert sum("its name is not known" in said for _, said in listed) == 1
    assert len(listed) == text.count("# guess: ") + text.count("# unsure: ")
    few = load_scenario(tmp_path / "mine.yaml", overrides=["workload.generate.requests=10"])
    assert len(generate(few)) > 0


def test_a_fleet_starts_with_what_the_peak_needs_at_half_load(tmp_path: Path) -> None:
    one, ten = ModelTraffic(peak={"east": 10.0}, seen=True), ModelTraffic(peak={"east": 100.0}, seen=True)
    drafted(tmp_path, draft_model("llama-3.1-8b", GPU, one))
    few = load_scenario(tmp_path / "mine.yaml").fleet
    drafted(tmp_path, draft_model("llama-3.1-8b", GPU, ten))
    many = load_scenario(tmp_path / "mine.yaml").fleet
    pool = f"east/llama-3.1-8b/{GPU}"
    assert many.starts[pool] > 5 * max(few.starts.get(pool, 2), 2)
    assert many.maximum == 2 * many.starts[pool]
    assert pool.replace("east", "west") not in many.starts


def test_traffic_is_measured_by_model_and_region() -> None:
    scenario = load_scenario("quickstart", overrides=["workload.generate.requests=5000"])
    trace = generate(scenario)
    found = traffic_of(trace)
    assert set(found) == set(trace.names.models)
    assert sum(one.share for one in found.values()) == pytest.approx(1, abs=1e-3)
    for code, name in enumerate(trace.names.models):
        mine, one = trace.model == code, found[name]
        assert one.longest == int((trace.prompt[mine] + trace.output[mine]).max())
        assert one.prompt[0] == (0.0, int(trace.prompt[mine].min()))
        assert one.prompt[-1] == (1.0, int(trace.prompt[mine].max()))
        assert sum(one.hours) == pytest.approx(24, abs=0.1)
        assert max(one.peak.values()) * 300 >= mine.sum() * 300 * 1_000_000 / trace.window / len(one.peak)


def test_names_that_yaml_or_a_scenario_would_not_have_are_quoted_or_changed(tmp_path: Path) -> None:
    assert scenario_name("llama3:8b instruct") == "llama3-8b-instruct"
    assert scenario_name("???") == "unnamed"
    odd = replace(draft_model("llama-3.1-8b", GPU, BUSY), name="2024")
    drafted(tmp_path, odd, regions=("no", "1e3"), tiers=("true", "42"))
    scenario = load_scenario(tmp_path / "mine.yaml")
    assert (list(scenario.models), list(scenario.regions), list(scenario.tiers)) == (["2024"], ["no", "1e3"], ["true", "42"])


def test_what_cannot_be_drafted_is_said() -> None:
    with pytest.raises(ConfigError, match="no GPU is called 'h101'"):
        draft_model("llama-3.1-8b", "h101", BUSY)
    with pytest.raises(ConfigError, match="no profile on l4 holds"):
        draft_model("deepseek-v3", "l4", BUSY)
