"""The roofline obeys physics, says what does not fit, and meets the measured runs it was not fitted to.

Read next: `src/sageserve/data/profiles/roofline.py`, `bench/fit_roofline.py`.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import fit_roofline
from sageserve.base.config import ProfileSettings
from sageserve.base.errors import Infeasible
from sageserve.core.engine.timing import curve_time, row_of
from sageserve.data.measured.files import read_measured
from sageserve.data.profiles.bands import UNSEEN, band_of, error_bands
from sageserve.data.profiles.curve import DEVIATION
from sageserve.data.profiles.hardware import Gpu, ModelShape, Precision, gpu_named, gpu_names, model_names, shape
from sageserve.data.profiles.library import profile_entries, profile_named
from sageserve.data.profiles.roofline import (
    ACTIVATIONS,
    BLOCK,
    FITTED,
    KV_LEAST,
    TENSOR_PARALLEL,
    USABLE,
    BatchLimits,
    Parallelism,
    capacity,
    roofline,
    scaled,
)
from sageserve.data.profiles.speed import tpot_ms, ttft_ms

NVLINK = [name for name in gpu_names() if gpu_named(name).link == "nvlink"]


def derived(model: str, gpu: str, tp: int, limits: BatchLimits | None = None) -> ProfileSettings | None:
    try:
        return roofline(shape(model), gpu_named(gpu), Parallelism(tp), name=gpu, limits=limits or BatchLimits())
    except Infeasible:
        return None


@given(st.sampled_from(model_names()), st.sampled_from(NVLINK), st.sampled_from(TENSOR_PARALLEL[:-1]))
def test_more_gpus_decode_a_large_batch_no_slower(model: str, gpu: str, tp: int) -> None:
    one, two = derived(model, gpu, tp), derived(model, gpu, 2 * tp)
    if one and two and shape(model).parameters > 5e9:
        assert tpot_ms(two, 256) <= tpot_ms(one, 256)
        assert two.kv_tokens >= one.kv_tokens


@pytest.mark.parametrize("model", model_names())
@pytest.mark.parametrize(("fast", "slow"), [("h100-80gb", "a100-80gb"), ("h200", "h100-80gb"), ("a100-80gb", "a100-40gb")])
def test_a_faster_gpu_is_no_slower(model: str, fast: str, slow: str) -> None:
    for tp in TENSOR_PARALLEL:
        better, worse = derived(model, fast, tp), derived(model, slow, tp)
        if better and worse:
            for batch in (16, 64, 256):
                assert tpot_ms(better, batch) <= (1 + DEVIATION) * tpot_ms(worse, batch)
            assert ttft_ms(better, 1000) <= ttft_ms(worse, 1000) * (1 + DEVIATION)


def test_a_profile_is_the_arithmetic_of_its_docstring() -> None:
    one, gpu = shape("llama-3.1-70b"), gpu_named("h100-80gb")
    profile = roofline(one, gpu, Parallelism(4), name="h100-80gb", limits=BatchLimits(64, 2048))
    streamed = (one.always + one.output) * 2 / 4 / (3.35e12 * FITTED.bandwidth) * 1e6
    overhead = FITTED.host_us + 80 * FITTED.layer_us + 2 * 80 * 2 * FITTED.exchange_us
    exchanged = 2 * 3 / 4 * 4 * 80 * 8192 / (450e9 * FITTED.link) * 1e6
    multiplied = 2 * one.always / 4 / (989e12 * FITTED.compute) * 1e6
    for tokens in (1, 40, 150, 600, 16_384):
        both = (streamed**FITTED.sharpness + (multiplied * tokens) ** FITTED.sharpness) ** (1 / FITTED.sharpness)
        expected = overhead + exchanged * tokens + both
        assert curve_time(row_of(profile), float(tokens)) == pytest.approx(expected, rel=2 * DEVIATION), tokens
    assert profile.eager_ms == pytest.approx(80 * FITTED.eager_us / 1e3, rel=1e-3)
    output = 2 * one.output / 4 / (989e12 * FITTED.compute) * 1e6
    assert profile.decode_us_per_sequence == pytest.approx(FITTED.sequence_us + output, rel=1e-3)
    assert profile.kv_ns_per_token == pytest.approx(327_680 / 4 / (3.35e12 * FITTED.kv_bandwidth) * 1e9, rel=1e-3)
    assert profile.weights == one.weight_bytes


def test_what_does_not_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        Infeasible, match=r"2 GPUs x \(80GiB x 0.9 - 2GiB for activations\) = 140.0 GiB, less 756.0 GiB of weights"
    ):
        capacity(shape("llama-3.1-405b"), gpu_named("h100-80gb"), Parallelism(2))
    with pytest.raises(Infeasible, match="28 attention heads cannot be split over 8 GPUs"):
        capacity(shape("qwen2.5-7b"), gpu_named("h100-80gb"), Parallelism(8))


@pytest.mark.parametrize("model", model_names())
def test_what_fits_holds_whole_blocks_and_fits(model: str) -> None:
    for gpu in gpu_names():
        for tp in TENSOR_PARALLEL:
            if profile := derived(model, gpu, tp):
                assert profile.kv_tokens % BLOCK == 0
                assert profile.kv_tokens >= KV_LEAST
                assert profile.weights is not None
                assert profile.kv_per_token is not None
                states = profile.max_sequences * shape(model).state_bytes
                assert profile.weights + profile.kv_tokens * profile.kv_per_token + states < 0.9 * tp * gpu_named(gpu).memory
                assert profile.error == str(band_of(shape(model), gpu_named(gpu), "vllm"))


def test_integers_are_unpacked_no_faster_where_memory_is_faster() -> None:
    slow, h200, b200 = (gpu_named(name) for name in ("a100-40gb", "h200", "b200"))
    assert FITTED.streaming("int4", slow) == FITTED.streaming("nvfp4", slow) < FITTED.unpacked_int4, "memory is the slower one"
    assert FITTED.streaming("int4", h200) == FITTED.streaming("int4", b200) == FITTED.unpacked_int4
    assert FITTED.streaming("bf16", b200) / FITTED.streaming("bf16", h200) == pytest.approx(b200.bandwidth / h200.bandwidth)


@pytest.mark.parametrize(
    ("weights", "gpu", "native"),
    [("nvfp4", "b200", True), ("mxfp4", "b300", True), ("mxfp4", "h200", False), ("int4", "b200", False), ("fp8", "b200", False)],
)
def test_tokens_are_sorted_faster_where_units_for_four_bits_multiply(weights: Precision, gpu: str, *, native: bool) -> None:
    found = FITTED.sorting_us(weights, gpu_named(gpu))
    assert found == (FITTED.expert_us_fp4 if native else FITTED.expert_us)


def test_states_take_memory_and_time() -> None:
    one, gpu = shape("qwen3.5-397b-a17b-fp8"), gpu_named("b200")
    four, eight = (roofline(one, gpu, Parallelism(tp), name="b200", limits=BatchLimits(max_sequences=1024)) for tp in (4, 8))
    room = 4 * (gpu.memory * USABLE - ACTIVATIONS) - one.weight_bytes
    assert four.max_sequences == int(room / 2 // one.state_bytes) < 1024 == eight.max_sequences, "half of the room is for states"
    assert four.kv_tokens == int((room - four.max_sequences * one.state_bytes) // (2 * one.kv_bytes)) // BLOCK * BLOCK, (
        "2 heads on 4"
    )
    plain = roofline(one.model_copy(update={"recurrent": None}), gpu, Parallelism(8), name="b200")
    moved = 1e6 * 2 * one.state_bytes / 8 / (gpu.bandwidth * 1e12 * FITTED.kv_bandwidth)
    assert eight.decode_us_per_sequence - plain.decode_us_per_sequence == pytest.approx(moved, rel=0.01)
    assert "45 of 60 layers keep a state" in str(eight.fitted)


def least_ms(one: ModelShape, gpu: Gpu, tp: int, tokens: int) -> float:
    """An iteration takes as long as reading what it reads at full bandwidth, or its arithmetic at peak, whichever is longer."""
    read = (one.always_bytes + one.routed_bytes * one.touched(tokens)) / tp / (gpu.bandwidth * 1e12)
    routed = one.routed * one.routed_share / gpu.peak(one.weights)
    return 1e3 * max(read, 2 * tokens * (one.always / gpu.peak(one.always_weights) + routed) / tp)


@pytest.mark.parametrize("model", [*model_names(), "llama-3.1-8b-fp8", "qwen3-30b-a3b-int4", "deepseek-v3-nvfp4"])
def test_no_profile_is_faster_than_memory_and_arithmetic_allow(model: str) -> None:
    one = shape(model)
    for gpu in gpu_names():
        for tp in TENSOR_PARALLEL:
            if profile := derived(model, gpu, tp):
                row = row_of(profile)
                for tokens in (1, 4, 32, 300, 2_000, 20_000):
                    assert curve_time(row, float(tokens)) / 1e3 > least_ms(one, gpu_named(gpu), tp, tokens)


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3-nvfp4", "minimax-m2.5-kvfp8"])
@pytest.mark.parametrize("ways", [Parallelism(1, 8), Parallelism(1, 8, 8), Parallelism(2, 4, 8), Parallelism(2, 2)])
def test_ranks_hold_and_read_what_is_theirs(model: str, ways: Parallelism) -> None:
    one, gpu = shape(model), gpu_named("b200")
    if one.experts is None and ways.ep > 1:
        return
    profile = roofline(one, gpu, ways, name="b200")
    row = row_of(profile)
    assert profile.weights is not None
    assert profile.kv_per_token is not None
    assert profile.weights == pytest.approx(ways.dp * (one.weight_bytes - one.routed_bytes) + one.routed_bytes, rel=1e-6)
    held = profile.weights + ways.dp * profile.kv_per_token * profile.kv_tokens
    assert held < 0.9 * ways.gpus * gpu.memory, "all ranks together"
    for tokens in (1, 4, 32, 300, 2_000):
        read = (
            (one.always_bytes * ways.dp + one.routed_bytes * one.touched(tokens * ways.dp)) / ways.gpus / (gpu.bandwidth * 1e12)
        )
        assert curve_time(row, float(tokens)) / 1e3 > 1e3 * read, "all ranks have so many, so each GPU reads its part"


def test_experts_that_ranks_share_out_go_by_all_tokens() -> None:
    one, gpu = shape("qwen3-30b-a3b"), gpu_named("h100-80gb")
    profile = roofline(one, gpu, Parallelism(1, 4, 4), name="h100-80gb")
    assert profile.shared_ms is not None
    first, last = profile.shared_ms[0][1], profile.shared_ms[-1][1]
    exchanged = 2 * 48 * FITTED.exchange_us / 1e3  # one step each way, every layer has experts
    touched = one.routed_bytes * one.touched(4) / 4 / (gpu.bandwidth * 1e9 * FITTED.bandwidth)
    assert first == pytest.approx(exchanged + touched, rel=0.02)
    assert last > first
    iteration = dict(profile.iteration_ms)
    assert all(iteration.get(tokens, 1e9) > ms for tokens, ms in profile.shared_ms), "the part is less than the whole"
    alone = roofline(one, gpu, Parallelism(), name="h100-80gb")
    assert profile.kv_tokens > alone.kv_tokens, "a quarter of the experts leaves more room"


@pytest.mark.parametrize("name", profile_entries())
def test_no_measured_profile_is_either(name: str) -> None:
    model, gpu, _ = name.split("/")
    profile = profile_named(name).profile
    row = row_of(profile)
    for tokens in (1, 4, 32, 300, 2_000, 20_000):
        assert curve_time(row, float(tokens)) / 1e3 > least_ms(shape(model), gpu_named(gpu), profile.tp, tokens), tokens


@pytest.mark.parametrize(
    ("model", "gpu", "engine", "percent"),
    [
        ("llama-3.1-70b", "h100-80gb", "vllm 0.19", 17),
        ("deepseek-v3", "h200", "vllm", 28),
        ("deepseek-v3", "gb200", "vllm", 18),
        ("llama-3.1-70b", "rtx-pro-6000", "vllm", UNSEEN),
        ("llama-3.1-70b", "mi300x", "vllm", UNSEEN),
        ("llama-3.1-70b", "b200", "sglang 0.5", 60),
        ("deepseek-v3", "b200", "trtllm 1.2", 81),
        ("llama-3.1-8b", "h100-80gb", "llama.cpp 7000", 60),
    ],
)
def test_the_band_is_that_of_the_engine_the_gpus_and_the_kind_of_model(model: str, gpu: str, engine: str, percent: int) -> None:
    assert band_of(shape(model), gpu_named(gpu), engine).percent == percent
    assert len({(one.engine, one.gpus, one.kind) for one in error_bands()}) == len(error_bands())


def test_scaling_to_a_point_scales_times_and_nothing_else() -> None:
    profile = roofline(shape("llama-3.1-8b"), gpu_named("h100-80gb"), Parallelism(), name="h100-80gb")
    slower = scaled(profile, 1.5, "a run of mine")
    assert tpot_ms(slower, 64) == pytest.approx(1.5 * tpot_ms(profile, 64), rel=1e-3)
    assert (slower.kv_tokens, slower.first_token_ms) == (profile.kv_tokens, profile.first_token_ms)
    assert "times 1.500 to meet a run of mine" in slower.source
    assert slower.error != profile.error


def h100_cases(folder: Path) -> list[fit_roofline.Case]:
    runs = [run for run in read_measured(folder / "validation") if run.quality.startswith("A")]
    return [fit_roofline.case_of(run) for run in runs if run.gpu != "RTX4090"]


@pytest.mark.slow
def test_left_out_models_on_h100_are_within_six_percent_and_within_the_printed_eight_after_one_point(shared_data: Path) -> None:
    cases = h100_cases(shared_data)
    judged = [case for case in cases if case.run.gpu == "H100-80GB"]
    assert len(judged) == 6
    for model in sorted({case.model for case in judged}):
        mine = [case for case in judged if case.model == model]
        efficiency = fit_roofline.fit([case for case in cases if case.model != model], rounds=3)
        assert abs(fit_roofline.errors(mine, efficiency)).max() < 0.06
        for case, other in (mine, mine[::-1]):
            assert abs(fit_roofline.corrected(case, other, efficiency)) < 0.08


def test_the_shipped_efficiencies_meet_the_runs_they_were_fitted_to(shared_data: Path) -> None:
    errors = fit_roofline.errors(h100_cases(shared_data), FITTED)
    assert abs(errors).max() < 0.05
    assert abs(errors).mean() < 0.02


def test_capacity_is_what_engines_report(shared_data: Path) -> None:
    seen = 0
    for run in read_measured(shared_data / "validation"):
        if run.limits.kv_tokens and run.gpu == "H100":
            model, gpu = shape(fit_roofline.SHAPES[run.model]), gpu_named("h100-80gb")
            assert capacity(model, gpu, Parallelism(run.tp)) == pytest.approx(run.limits.kv_tokens, rel=0.02), run.name
            seen += 1
    assert seen >= 6
