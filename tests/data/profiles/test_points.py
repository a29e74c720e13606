"""The bench that judges derived profiles on measured points: what it leaves out, and that nothing judges itself.

Read next: `bench/points.py`.
"""

from dataclasses import replace

import numpy as np
import pytest

from bench.points import Judged, anchored, cross_validated, fold_of, judge, left_out, model_of

ROW = {
    "id": "one",
    "gpu": "h100_sxm",
    "mode": "agg",
    "tp": "1",
    "dp": "1",
    "ep": "1",
    "engine": "vllm 0.19.0",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "dtype": "bf16",
    "isl": "1000",
    "osl": "100",
    "concurrency": "8",
    "ttft_ms": "60",
    "tpot_ms": "8",
    "e2e_ms": "850",
    "note": "",
}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"mode": "disagg"}, "different pools"),
        ({"dp": "8"}, "data parallel"),
        ({"note": "attention DP; lengths nominal"}, "data parallel"),
        ({"concurrency": "max"}, "no fixed concurrency"),
        ({"ttft_ms": ""}, "a latency is missing"),
        ({"gpu": "ascend_910"}, "GPU without a name"),
        ({"model": "zhipuai/GLM-5"}, "model or format without a name"),
        ({"dtype": "fp8 or fp4"}, "model or format without a name"),
    ],
)
def test_rows_are_left_out_by_their_columns(changed: dict[str, str], why: str) -> None:
    found = left_out(ROW | changed)
    assert why in found
    assert bool(found) == bool(why)


@pytest.mark.parametrize(
    ("model", "dtype", "name"),
    [
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "fp8", "llama-3.1-8b-fp8"),
        ("meta-llama/Meta-Llama-3-70B-Instruct", "fp16", "llama-3-70b"),
        ("openai/gpt-oss-120b", "fp4", "gpt-oss-120b"),
        ("deepseek-ai/DeepSeek-R1", "fp8", "deepseek-r1"),
        ("nvidia/DeepSeek-R1-NVFP4", "fp4", "deepseek-r1-nvfp4"),
        ("moonshotai/Kimi-K2.5", "int4", "kimi-k2.5"),
        ("meta-llama/Llama-3.1-405B-FP8", "fp8", "llama-3.1-405b-fp8"),
        ("Qwen/Qwen3.5-397B-A17B", "bf16", ""),
    ],
)
def test_names_of_hubs_are_names_of_profiles(model: str, dtype: str, name: str) -> None:
    assert model_of(ROW | {"model": model, "dtype": dtype}) == name


def test_a_point_is_played_with_its_concurrency() -> None:
    few, many = (judge(ROW | {"concurrency": clients}) for clients in ("1", "64"))
    assert isinstance(few, Judged)
    assert isinstance(many, Judged)
    assert (few.engine, few.mixture, few.clients) == ("vllm", False, 1)
    assert few.configuration == many.configuration
    assert (few.off < many.off).all(), "company makes all three latencies longer"
    assert judge(ROW | {"model": "meta-llama/Llama-3.1-70B-Instruct"}) == "does not fit: 1 GPUs x (80GiB x 0.9 - 2GiB for activat"


def points(count: int) -> list[Judged]:
    """Several concurrencies of each configuration, each a tenth slower than predicted but for one."""
    one = judge(ROW)
    assert isinstance(one, Judged)
    off = np.log([1 / 1.1] * 3)
    return [
        replace(one, row=ROW | {"isl": str(isl), "concurrency": str(clients)}, clients=clients, off=off)
        for isl in range(count)
        for clients in (1, 4, 16)
    ]


def test_nothing_is_judged_by_what_it_was_fitted_to() -> None:
    several = points(40)
    odd = replace(several[0], off=np.log([3.0] * 3))
    same = [replace(point, off=odd.off) if point.configuration == odd.configuration else point for point in several]
    left, bands = cross_validated(same, lambda point: point.configuration)
    mine = np.array([point.configuration == odd.configuration for point in same])
    fold = np.array([fold_of(point.configuration) for point in same])
    assert left[~mine, 0] == pytest.approx(0.0), "one factor sets right what all share"
    assert left[mine, 0] == pytest.approx(np.log(3.3)), "its own points did not help it"
    assert bands[fold == fold[0]] == pytest.approx(0.0), "nor did they widen the band they are judged by"


def test_one_point_sets_its_configuration_right() -> None:
    assert anchored(points(3)) == pytest.approx(np.zeros(6))
