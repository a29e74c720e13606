"""Measured points are read, named and predicted, or it is said why not.

Read next: `src/sageserve/sim/points/predict.py`, `src/sageserve/data/measured/points.py`.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from sageserve.base.errors import MeasurementError
from sageserve.data.measured.points import MeasuredPoint, read_points
from sageserve.data.profiles.naming import known_gpu, model_in
from sageserve.data.profiles.roofline import Parallelism
from sageserve.sim.points.pools import PointPools, pools_of
from sageserve.sim.points.predict import group_of, judge, predict, shape_of, ways_of

POINT = MeasuredPoint(
    id="one",
    gpu="h100_sxm",
    model="meta-llama/Llama-3.1-8B-Instruct",
    dtype="bf16",
    kv_dtype="",
    engine="vllm 0.19.0",
    mode="agg",
    tp=1,
    gpus=0,
    dp=1,
    ep=1,
    prompt=1000,
    output=100,
    clients=8,
    rate=0.0,
    e2e_ms=850.0,
    ttft_ms=60.0,
    tpot_ms=8.0,
    note="",
)
ONE_TO_TWO = "disagg: prefill 1x(tp1,dp1) decode 2x(tp2,dp1,ep1); lengths uniform 0.8-1.0 of nominal"
HEADER = "id,gpu,tp,model,dtype,isl,osl,concurrency,e2e_ms\n"


@pytest.mark.parametrize(
    ("model", "weights", "name"),
    [
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "fp8", "llama-3.1-8b-fp8"),
        ("meta-llama/Meta-Llama-3-70B-Instruct", "fp16", "llama-3-70b"),
        ("openai/gpt-oss-120b", "fp4", "gpt-oss-120b"),
        ("deepseek-ai/DeepSeek-R1", "fp8", "deepseek-r1"),
        ("nvidia/DeepSeek-R1-NVFP4", "fp4", "deepseek-r1-nvfp4"),
        ("moonshotai/Kimi-K2.5", "int4", "kimi-k2.5"),
        ("meta-llama/Llama-3.1-405B-FP8", "fp8", "llama-3.1-405b-fp8"),
        ("Qwen/Qwen3.5-397B-A17B", "bf16", "qwen3.5-397b-a17b"),
        ("somebody/Grok-9", "bf16", None),
        ("Qwen/Qwen3-32B", "fp8 or fp4", None),
    ],
)
def test_names_of_hubs_are_names_of_profiles(model: str, weights: str, name: str | None) -> None:
    assert model_in(model, weights) == name


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("h100_sxm", "h100-80gb"),
        ("H100", "h100-80gb"),
        ("b200_sxm", "b200"),
        ("gb200", "gb200"),
        ("NVIDIA-A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("h2", None),
        ("rtx", None),
    ],
)
def test_a_gpu_is_known_by_whole_words(said: str, name: str | None) -> None:
    assert known_gpu(said) == name


def times(**changed: object) -> tuple[float, float, float]:
    """Predicted E2E, TTFT and TPOT of a point."""
    found = predict(replace(POINT, **changed))  # type: ignore[arg-type] # fields by name
    assert found.e2e_ms is not None
    assert found.ttft_ms is not None
    assert found.tpot_ms is not None
    assert found.low_ms == pytest.approx(found.e2e_ms / 1.17, rel=1e-4)
    assert found.high_ms == pytest.approx(found.e2e_ms / 0.83, rel=1e-4)
    return found.e2e_ms, found.ttft_ms, found.tpot_ms


def test_company_makes_every_latency_longer() -> None:
    few, many = times(clients=1), times(clients=64)
    for e2e, ttft, tpot in (few, many):
        assert e2e == pytest.approx(ttft + 99 * tpot, rel=0.01)
    assert all(later > one for one, later in zip(few, many, strict=True))


def test_a_rate_is_an_open_loop() -> None:
    slow, fast = times(clients=0, rate=0.5)[0], times(clients=0, rate=20.0)[0]
    assert slow == pytest.approx(times(clients=1)[0], rel=0.05), "nearly alone"
    assert fast > 1.2 * slow


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mode": "disagg"}, "how many instances prefill and how many decode is not said"),
        ({"mode": "disagg", "note": "disagg: prefill 0x(tp8,dp1) decode 0x(tp8,dp1,ep8)"}, "is not said"),
        ({"mode": "disagg", "note": ONE_TO_TWO, "clients": 0, "rate": 2.0}, "at a fixed concurrency alone"),
        ({"mode": "both"}, "neither agg nor disagg"),
        ({"tp": 1, "dp": 8, "ep": 4}, "parallelism is not clear"),
        ({"tp": 4, "dp": 3, "gpus": 4}, "parallelism is not clear"),
        ({"note": "tp_size is the product tp*ep"}, "parallelism is not clear"),
        ({"tp": 0}, "not known"),
        ({"clients": 0}, "neither a fixed concurrency nor a rate"),
        ({"gpu": "p100"}, "GPU p100"),
        ({"model": "somebody/Grok-9"}, "no shape is known of somebody/Grok-9"),
        ({"model": "meta-llama/Llama-3.1-70B"}, "1 GPUs x"),
        ({"tp": 3}, "heads cannot be split over 3 GPUs"),
        ({"prompt": 900_000}, "does not fit into a KV cache"),
    ],
)
def test_what_is_not_predicted_has_a_reason(changed: dict[str, object], reason: str) -> None:
    found = predict(replace(POINT, **changed))  # type: ignore[arg-type] # fields by name
    assert found.reason is not None
    assert reason in found.reason
    assert found.e2e_ms is None


@pytest.mark.parametrize(
    ("columns", "ways"),
    [
        ({"tp": 4, "dp": 1, "gpus": 4}, Parallelism(4)),
        ({"tp": 4, "dp": 2}, Parallelism(4, 2)),
        ({"tp": 4, "dp": 2, "gpus": 8, "ep": 8}, Parallelism(4, 2, 8)),
        (
            {"tp": 4, "dp": 4, "gpus": 4, "ep": 16},
            Parallelism(1, 4, 4),
        ),  # tp counts the GPUs of all ranks, and so ep their square
        ({"tp": 1, "dp": 8, "gpus": 8, "ep": 8}, Parallelism(1, 8, 8)),
    ],
)
def test_gpus_say_what_tp_counts(columns: dict[str, int], ways: Parallelism) -> None:
    assert ways_of(replace(POINT, **columns)) == ways  # type: ignore[arg-type] # fields by name


def test_ranks_share_what_arrives() -> None:
    one, eight = predict(POINT), predict(replace(POINT, clients=64, dp=8))
    assert (eight.e2e_ms, eight.ttft_ms) == (one.e2e_ms, one.ttft_ms), "a dense model's ranks are engines side by side"
    unknown = predict(replace(POINT, engine="NIM 1.8.0 (trtllm)"))
    assert (unknown.low_ms or 0) < (one.low_ms or 0), "of an engine of which no point is known"


def test_pools_are_as_the_note_says_and_prompts_hold_nobody_up() -> None:
    assert pools_of(replace(POINT, note="disagg: prefill 2x(tp1,dp8) decode 1x(tp1,dp32,ep32)")) == PointPools(
        2, Parallelism(1, 8, 8), 1, Parallelism(1, 32, 32)
    )
    point = replace(POINT, mode="disagg", note=ONE_TO_TWO, prompt=4_000, clients=16)
    found, together = predict(point), predict(replace(point, mode="agg", clients=8, tp=2))
    assert group_of(point) == "vllm, dense, disaggregated"
    assert found.tpot_ms is not None
    assert together.tpot_ms is not None
    assert found.tpot_ms < together.tpot_ms, "eight sequences an engine in both, of which none waits for prompts in the one"


def test_fewer_bits_of_cache_are_read_faster_and_recipes_of_new_gpus_have_them() -> None:
    point = {"gpu": "b200", "tp": 4, "model": "MiniMaxAI/MiniMax-M2.5", "dtype": "fp8", "prompt": 8_000, "clients": 64}
    found = {kind: predict(replace(POINT, **point, kv_dtype=kind)).e2e_ms for kind in ("", "fp8", "bf16")}  # type: ignore[arg-type] # fields by name
    assert found[""] == found["fp8"]
    assert found["fp8"] is not None
    assert found["bf16"] is not None
    assert found["fp8"] < found["bf16"]
    assert shape_of(replace(POINT, gpu="h200", model="MiniMaxAI/MiniMax-M2.5", dtype="fp8")).cache == "bf16"


def test_groups_are_engines_dense_or_not_and_their_figures_are_plain_arithmetic() -> None:
    e2e = predict(POINT).e2e_ms
    assert e2e is not None
    measured = [e2e / 1.1, e2e * 1.25, e2e]
    points = [replace(POINT, e2e_ms=value) for value in measured]
    mixture = replace(POINT, model="openai/gpt-oss-120b", dtype="mxfp4", engine="sglang 0.5.9", e2e_ms=None)
    verdict = judge([*points, mixture, replace(POINT, mode="disagg")])
    assert [point.reason is None for point in verdict.points] == [True] * 4 + [False]
    assert list(verdict.groups) == ["vllm, dense"], "who was not measured is predicted and not judged"
    assert group_of(mixture) == "sglang, mixture"
    group = verdict.groups["vllm, dense"]
    assert group.n == 3
    assert group.e2e_mape == pytest.approx((0.1 + 0.2 + 0.0) / 3, rel=1e-4)
    assert group.median == pytest.approx(0.0, abs=1e-4)
    assert group.within_15 == pytest.approx(2 / 3, rel=1e-4)
    assert group.covered == pytest.approx(2 / 3, rel=1e-4)
    assert group.width == pytest.approx(0.17, abs=1e-4)


def test_a_table_is_read_with_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(f"{HEADER}a,H100,1,Qwen/Qwen3-8B,bf16,1000,100,8,900\nb,H100,,Qwen/Qwen3-8B,bf16,,100,poisson 2.5/s,\n")
    first, second = read_points(path)
    assert (first.clients, first.rate, first.tp, first.dp, first.mode, first.e2e_ms, first.ttft_ms) == (
        8,
        0,
        1,
        1,
        "agg",
        900,
        None,
    )
    assert (second.clients, second.rate, second.tp, second.prompt, second.e2e_ms) == (0, 2.5, 0, 0, None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,gpu\n", "has no column tp, model, dtype, isl, osl, concurrency"),
        (HEADER, "has a header and no points below it"),
        (f"{HEADER}a,H100,one,m,bf16,1000,100,8,900\n", "row 1: tp: 'one' is not a number above 0"),
        (
            "id,gpu,tp,model,dtype,isl,osl,concurrency,kv_dtype\na,H100,1,m,bf16,1,1,8,e4m3\n",
            "row 1: kv_dtype: 'e4m3' is not a format",
        ),
        (f"{HEADER}a,H100,1,m,bf16,1000,100,8,-900\n", "row 1: e2e_ms: '-900' is not a number above 0"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(MeasurementError) as error:
        read_points(path)
    assert sentence in error.value.message
    with pytest.raises(MeasurementError, match="does not exist"):
        read_points(tmp_path / "none.csv")
