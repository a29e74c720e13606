"""`sageserve profile`: tables fit a terminal, JSON is for machines, and numbers are those of the engine model.

Read next: `src/sageserve/cli/profile.py`.
"""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.columns import WIDTH
from sageserve.cli.profile import app
from sageserve.core.engine.timing import curve_time, row_of
from sageserve.data.profiles.hardware import gpu_names
from sageserve.data.profiles.library import NOT_MODELLED, profile_named
from sageserve.data.profiles.speed import speed, ttft_ms


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    assert "--json" in arguments or all(len(line) <= WIDTH for line in result.stdout.splitlines())
    return result.stdout


def test_list_shows_where_each_model_fits() -> None:
    cells: dict[tuple[str, str], str] = {}
    gpus: list[str] = []
    for line in printed("list").splitlines():
        name, *found = line.split() or [""]
        if name == "model":
            gpus = found
        elif len(found) == len(gpus):
            cells |= {(name, gpu): cell for gpu, cell in zip(gpus, found, strict=True)}
    assert {gpu for _, gpu in cells} == set(gpu_names())
    assert cells["llama-2-70b", "h100-80gb"] == "2+*"
    assert cells["llama-2-70b", "rtx-4090"] == "8"
    assert cells["deepseek-v3", "h100-80gb"] == "–"
    assert cells["deepseek-v3", "b300"] == "4+"


def test_list_of_a_model_names_every_profile_and_json_holds_them_whole() -> None:
    text = printed("list", "--model", "llama-3.1-8b", "--gpu", "h100-80gb")
    assert [line.split()[0] for line in text.splitlines()[1:]] == [f"llama-3.1-8b/h100-80gb/tp{tp}" for tp in (1, 2, 4, 8)]
    found = json.loads(printed("list", "--model", "llama-3.1-8b", "--gpu", "h100-80gb", "--json"))
    assert [one["origin"] for one in found] == ["derived", "derived", "derived", "measured"]
    assert found[0]["profile"]["tp"] == 1


def test_show_says_coefficients_trust_and_meaning() -> None:
    text = printed("show", "llama-3.1-70b/h100-80gb/tp4", "--gpu-hour", "3")
    profile = profile_named("llama-3.1-70b/h100-80gb/tp4").profile
    for part in (
        f"{profile.iteration_ms[0][1]:.4g}",
        "486,880",
        "320 KiB",
        "roofline",
        "±17 % E2E (held by 90 % of 110 measured points",
        "requests/s",
        "per million tokens",
    ):
        assert part in text
    shown = json.loads(printed("show", "llama-3.1-70b/h100-80gb/tp4", "--json"))
    assert shown["profile"]["iteration_ms"] == [list(knot) for knot in profile.iteration_ms]
    assert [pace["batch"] for pace in shown["speed"]["paces"]] == [1, 16, 64, 256]
    assert shown["speed"]["usd_per_million"] is None


def test_show_says_what_a_profile_does_not_know() -> None:
    limits = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "limits.md").read_text("utf-8").lower()
    text = " ".join(printed("show", "llama-3.1-70b/h100-80gb/tp4").split())
    assert json.loads(printed("show", "llama-3.1-70b/h100-80gb/tp4", "--json"))["not_modelled"] == list(NOT_MODELLED)
    for one in NOT_MODELLED:
        assert one in text
        assert one.lower() in limits


def test_show_counts_speculation_in_and_refuses_what_is_not_whole() -> None:
    name, told = "llama-3.1-70b/h100-80gb/tp4", "{tokens: 3, acceptance: 0.7, draft: 0.05}"
    plain, shown = (json.loads(printed("show", name, *more, "--json"))["speed"] for more in ((), ("--speculative", told)))
    gained = [one["tpot_ms"] / two["tpot_ms"] for one, two in zip(plain["paces"], shown["paces"], strict=True)]
    assert 1.8 < gained[0] < 2.53
    assert gained == sorted(gained, reverse=True), "the fuller the batch the less there is to gain"
    assert shown["ttft_ms"] == pytest.approx(1.05 * plain["ttft_ms"], rel=0.03)
    assert "2.53" in printed("show", name, "--speculative", told)
    with pytest.raises(ConfigError, match="acceptance: Field required"):
        printed("show", name, "--speculative", "{tokens: 3, draft: 0}")


def test_show_reads_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "profiles: {chat: {gpu: x, tp: 1, gpus: 1, iteration_ms: [[1, 10], [10, 10], [1000, 60]], decode_us_per_sequence: 0,"
        " kv_ns_per_token: 0, attention_ns_per_token2: 0, kv_tokens: 13000, source: a run of mine}}"
    )
    shown = json.loads(printed("show", str(path), "--json"))
    assert shown["origin"] == "file"
    assert shown["speed"]["ttft_ms"] == pytest.approx(10 + 50)
    assert [(pace["batch"], pace["tpot_ms"]) for pace in shown["speed"]["paces"]] == [(1, 10.0), (10, 10.0)], "memory holds ten"
    assert shown["speed"]["paces"][1]["tokens_per_s"] == pytest.approx(1000)


def test_what_one_instance_sustains_is_below_what_full_batches_do_and_costs_follow() -> None:
    profile = profile_named("llama-3.1-8b/h100-80gb/tp1").profile
    means = speed(profile, gpu_hour=3.6)
    assert 0 < means.requests_per_s < means.requests_per_s_most
    assert means.usd_per_million == pytest.approx(3.6 / 3600 / (means.requests_per_s * 1300) * 1e6)


def test_a_prompt_longer_than_the_token_budget_takes_several_iterations() -> None:
    profile = profile_named("llama-3.1-8b/h100-80gb/tp1").profile.model_copy(update={"attention_ns_per_token2": 0.0})
    budget = profile.max_batched_tokens
    assert ttft_ms(profile, 2 * budget) - ttft_ms(profile, budget) == pytest.approx(
        curve_time(row_of(profile), float(budget)) / 1e3 + profile.eager_ms
    )


def test_compare_gives_ratios_to_the_first() -> None:
    text = printed("compare", "llama-3.1-70b/h100-80gb/tp4", "llama-3.1-70b/h200/tp2", "--gpu-hour", "3")
    row = next(line for line in text.splitlines() if line.startswith("GPUs"))
    assert row.split()[1:] == ["4", "2", "(0.50x)"]
    assert "$ per million tokens" in text
    assert len(json.loads(printed("compare", "llama-3.1-70b/h100-80gb/tp4", "llama-3.1-70b/h200/tp2", "--json"))) == 2


def test_compare_wants_two_to_four() -> None:
    with pytest.raises(ConfigError, match="1 profiles to compare"):
        printed("compare", "llama-3.1-8b/h100-80gb/tp1")
