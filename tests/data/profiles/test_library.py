"""Profiles by name: measured before derived, files of one's own, and errors that say what was meant.

Read next: `src/sageserve/data/profiles/library.py`.
"""

from pathlib import Path

import pytest

from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.profiles import hardware
from sageserve.data.profiles.bands import error_bands
from sageserve.data.profiles.engines import engine_named, other_engine
from sageserve.data.profiles.library import library, named, profile_entries, profile_named
from sageserve.data.scenarios.load import load
from tests.worlds import SMALL_FLEET

MINE = """
profiles:
  chat: &chat
    {gpu: h100-80gb, tp: 1, gpus: 1, iteration_ms: [[1, 7.5], [1001, 47.5]], decode_us_per_sequence: 20, kv_ns_per_token: 40,
     attention_ns_per_token2: 0.7, kv_tokens: 400000, source: "a run of mine"}
  other: *chat
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "engines" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(MINE)
    return path


def test_every_entry_of_the_library_loads_and_says_how_far_to_trust_it() -> None:
    found = list(library())
    assert len(found) > 500
    assert len({one.name for one in found}) == len(found)
    assert {one.name for one in found if one.origin == "measured"} == set(profile_entries())
    for one in found:
        assert one.name == f"{one.model}/{one.gpu}/tp{one.tp}"
        assert "%" in one.profile.error
        assert one.profile.source
        assert 0.5 < one.profile.iteration_ms[0][1] < 250


def test_a_measured_profile_wins_over_the_derived_one() -> None:
    assert profile_named("llama-2-70b/h100-80gb/tp8").profile.iteration_ms[0] == (1, 29.95)
    assert profile_named("llama-2-70b/h100-80gb/tp4").origin == "derived"


def test_a_name_says_how_an_engine_is_spread() -> None:
    profile = profile_named("kimi-k2.5-nvfp4/b200/tp1dp4ep4").profile
    assert (profile.tp, profile.dp, profile.ep, profile.gpus, profile.lockstep) == (1, 4, 4, 4, True)
    assert profile.shared_ms is not None
    side = profile_named("llama-3.1-8b/h100-80gb/tp2dp3").profile
    assert (side.gpus, side.lockstep, side.shared_ms) == (6, None, None), "dense ranks have nothing to wait for"
    assert side.iteration_ms == profile_named("llama-3.1-8b/h100-80gb/tp2").profile.iteration_ms
    with pytest.raises(Infeasible, match="tp4ep4: a dense model has no experts"):
        named("llama-3.1-70b/h100-80gb/tp4ep4")
    with pytest.raises(Infeasible, match="8 GPUs cannot be 3 groups of experts"):
        named("qwen3-30b-a3b/h100-80gb/tp1dp8ep3")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("llama-3.1-70/h100-80gb/tp4", "did you mean 'llama-3.1-70b'"),
        ("llama-3.1-70b/h100/tp4", "did you mean 'h100-80gb'"),
        ("llama-3.1-70b/h100-80gb/tp9", "did you mean 'llama-3.1-70b/h100-80gb/tp8'"),
        ("llama-3.1-70b/h100-80gb/tp4dp0", "did you mean 'llama-3.1-70b/h100-80gb/tp4'"),
        ("llama-2-70b/h100-80gb", "did you mean 'llama-2-70b/h100-80gb/tp"),
    ],
)
def test_a_name_nobody_has_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match="no engine profile is called") as error:
        named(name)
    assert meant in error.value.message


def test_a_model_that_does_not_fit_is_refused_with_its_name_and_the_arithmetic() -> None:
    with pytest.raises(Infeasible, match=r"llama-3.1-405b/h100-80gb/tp8: 8 GPUs x .* = 560.0 GiB, less 756.0 GiB of weights"):
        named("llama-3.1-405b/h100-80gb/tp8")


def test_a_file_gives_its_profiles_by_name(mine: Path) -> None:
    assert profile_named(f"{mine}#chat").profile.iteration_ms[0] == (1, 7.5)
    with pytest.raises(ConfigError, match=r"holds 2 profiles"):
        profile_named(str(mine))
    with pytest.raises(ConfigError, match=r"has no profile 'chad'; did you mean 'chat'"):
        profile_named(f"{mine}#chad")
    mine.write_text(MINE.replace("[1, 7.5]", "[2, 7.5]").replace("  other: *chat\n", ""))
    with pytest.raises(ConfigError, match=r"iteration_ms: .*the first knot is at 2 tokens"):
        profile_named(str(mine))
    mine.write_text("models: {}")
    with pytest.raises(ConfigError, match="holds no profiles"):
        profile_named(str(mine))


def test_a_scenario_names_derived_profiles_and_those_of_a_file_beside_it(tmp_path: Path, mine: Path) -> None:
    path = tmp_path / "week.yaml"
    path.write_text(
        f"extends: [{SMALL_FLEET}]\n"
        "models:\n"
        "  llama-2-70b: {engines: {h100-80gb: llama-2-70b/h100-80gb/tp4}}\n"
        "  llama-3.1-8b: {engines: {h100-80gb: ./engines/mine.yaml#chat}}\n"
    )
    loaded = load(path, overrides=["models.llama-3.1-8b.engines.h100-80gb.eager_ms=8"])
    eight = loaded.scenario.models["llama-3.1-8b"].engines["h100-80gb"]
    assert (eight.eager_ms, eight.iteration_ms) == (8.0, ((1, 7.5), (1001, 47.5)))
    assert loaded.scenario.models["llama-2-70b"].engines["h100-80gb"] == profile_named("llama-2-70b/h100-80gb/tp4").profile
    engine = ("models", "llama-3.1-8b", "engines", "h100-80gb")
    assert loaded.origin((*engine, "kv_tokens")) == f"{mine}:5"
    assert loaded.origin((*engine, "eager_ms")).startswith("--set")
    assert loaded.origin(("models", "llama-2-70b", "engines", "h100-80gb", "iteration_ms")) == "derived by the roofline"


def test_a_scenario_with_a_wrong_file_says_so_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "week.yaml"
    path.write_text(f"extends: [{SMALL_FLEET}]\nmodels:\n  llama-3.1-8b: {{engines: {{h100-80gb: ./none.yaml#chat}}}}\n")
    with pytest.raises(ConfigError, match=r"week.yaml:3: models.llama-3.1-8b.engines.h100-80gb: cannot read .*none.yaml"):
        load(path)


def test_a_name_may_end_in_an_engine_whose_limits_it_has() -> None:
    plain = profile_named("qwen3-32b/h200/tp2").profile
    assert (plain.engine, plain.is_mixed, plain.evicts, plain.max_sequences) == ("vllm", True, True, 256)
    first = profile_named("qwen3-32b/h200/tp2@sglang-0.5.9").profile
    assert (first.engine, first.chunked, first.is_mixed, first.max_batched_tokens) == ("sglang 0.5.9", True, False, 8192)
    assert first.iteration_ms == plain.iteration_ms, "how fast an engine is does not follow from its defaults"
    keeps = profile_named("qwen3-32b/h200/tp2@trtllm").profile
    assert (keeps.chunked, keeps.is_mixed, keeps.evicts, keeps.graph_sequences) == (False, True, False, 128)
    large, small = (profile_named(f"llama-3.1-8b/{gpu}/tp1@vllm-0.19").profile for gpu in ("h100-80gb", "a100-80gb"))
    assert (large.max_sequences, large.max_batched_tokens) == (1024, 8192)
    assert (small.max_sequences, small.max_batched_tokens) == (256, 2048), "vLLM excepts the A100 from what large GPUs get"
    graphs = [profile_named(f"llama-3.1-8b/h100-80gb/tp{tp}@sglang").profile.graph_sequences for tp in (2, 4)]
    assert graphs == [256, 512]
    with pytest.raises(ConfigError, match="no defaults of the engine 'vlm' are known; did you mean 'vllm'"):
        named("qwen3-32b/h200/tp2@vlm")
    with pytest.raises(ConfigError, match=r"the defaults of vllm 0.6 are not known, those from 0.9 on are"):
        named("qwen3-32b/h200/tp2@vllm-0.6")


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("vLLM 0.19.0", "vllm 0.19.0"),
        ("trtllm 1.2.0rc6.post3", "trtllm 1.2.0"),
        ("TensorRT-LLM", "trtllm"),
        ("llama.cpp b7000", "llama.cpp 7000"),
        ("vllm 0.6 rocm", "vllm 0.6"),
        ("7 of 9", "None"),
    ],
)
def test_engines_are_known_as_people_write_them(text: str, known: str) -> None:
    assert str(engine_named(text)) == known


def test_a_profile_of_another_engine_or_version_is_told_apart() -> None:
    assert other_engine("vllm 0.19", "vLLM 0.19.1") == other_engine("vllm", "vllm 0.19") == other_engine("vllm 0.19", "") == ""
    assert other_engine("vllm 0.18", "vllm 0.19.1").startswith("is of vllm 0.18, and vllm 0.19.1 serves: versions")
    assert other_engine("vllm 0.18", "sglang").startswith("is of vllm 0.18, and sglang serves: engines")
    assert other_engine("", "sglang 0.5").startswith("does not say")


@pytest.mark.parametrize("text", ["bands: soon\n", "bands: [\n", "others: []\n"])
def test_damaged_facts_are_told(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_FACTS", tmp_path)
    (tmp_path / "bands.yaml").write_text(text)
    with pytest.raises(ConfigError, match="the facts about bands are damaged"):
        error_bands.__wrapped__()
