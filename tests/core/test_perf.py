"""The engine model: coefficients arrive in microseconds, iterations follow the formula, a block is the sum of its iterations.

Read next: `src/sageserve/core/engine/timing.py`.
"""

import math
from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sageserve.base.config import ProfileSettings
from sageserve.core import perf
from sageserve.core.engine import timing
from sageserve.core.engine.timing import EngineRow, block_time, first_time, iteration_time, prefill_work, request_work, row_of
from sageserve.core.perf import PROFILE, profile_rows
from sageserve.data.profiles.library import profile_named
from sageserve.data.scenarios.load import load_scenario

ODD = {
    "gpu": "h100",
    "tp": 8,
    "gpus": 8,
    "iteration_ms": [[1, 5.0], [101, 6.0], [1_101, 36.0]],
    "eager_ms": 12.0,
    "decode_us_per_sequence": 40.0,
    "kv_ns_per_token": 10.0,
    "attention_ns_per_token2": 2.0,
    "first_token_ms": 7.0,
    "prefix_caching": True,
    "kv_tokens": 500_000,
    "max_sequences": 100,
    "max_batched_tokens": 5_000,
    "source": "made up",
}


def row(**changes: object) -> EngineRow:
    return row_of(ProfileSettings.model_validate(ODD | changes))


def test_an_iteration_by_hand() -> None:
    # 1,010 tokens: 6 ms + 909 x 30 us; 10 sequences x 40 us + 20,000 KV tokens x 10 ns; 1000 x (2000 + 500) x 2 ns; 12 ms eager
    both = 6_000 + 909 * 30 + 400 + 200 + 5_000 + 12_000
    assert iteration_time(row(), 1000, 1000 * 2500, 10, 20_000) == pytest.approx(both)
    assert iteration_time(row(), 0, 0.0, 11, 100) == pytest.approx(5_000 + 10 * 10 + 11 * 40 + 1), "decoding runs in a graph"
    assert iteration_time(row(), 2_101, 0.0, 0, 0) == pytest.approx(36_000 + 1_000 * 30 + 12_000), "the last line goes on"


def test_the_first_token_of_an_idle_engine_by_hand() -> None:
    assert first_time(row(), 1_101, 0) == pytest.approx(36_000 + 12_000 + 1_101**2 * 0.001)
    # 7,000 tokens of which 1,000 are found: 5,000 and 1,000 at a time, each without a graph
    long = (36_000 + 3_899 * 30) + (6_000 + 899 * 30) + 2 * 12_000 + 0.001 * (7_000**2 - 1_000**2)
    assert first_time(row(), 7_000, 1_000) == pytest.approx(long)
    whole = 36_000 + 5_899 * 30 + 12_000 + 0.001 * 7_000**2
    assert first_time(row(chunked=False), 7_000, 0) == pytest.approx(whole), "prefill first takes a prompt whole"


def test_expected_prefill_by_hand() -> None:
    whole = (36_000 + 3_899 * 30 + 12_000) / 5_000
    assert prefill_work(row(), 1000, 0) == pytest.approx(1000 * whole + 1000 * 500 * 0.002)
    assert prefill_work(row(), 1000, 400) == pytest.approx(600 * whole + 600 * (400 + 300) * 0.002)


def test_expected_work_by_hand() -> None:
    # 100 sequences of 200 iterations each: one comes every second iteration, half of them prefill 1,000 tokens beside 99.5
    beside = 6_000 + 998.5 * 30 + 12_000
    between = 5_000 + 98.5 * 10
    work = 2 * (beside / 2 + between / 2) + 199 * (40 + 0.01 * 1100) + 1000 * 500 * 0.002
    assert request_work(row(), 1000, 0, 200.0) == pytest.approx(work)
    # memory for 5: 400,000 + 100 tokens each take 80 iterations of 5,000 less what decodes
    assert request_work(row(kv_tokens=2_000_500), 400_000, 0, 200.0) > 80 * 36_000


@given(
    st.integers(1, 20_000),
    st.integers(0, 19_999),
    st.floats(1, 5_000),
    st.booleans(),
    st.integers(1, 4_000),
    st.integers(2, 10**6),
)
def test_work_grows_with_what_is_asked_and_never_ends(
    context: int, cached: int, output: float, chunked: bool, sequences: int, memory: int
) -> None:
    cached = min(cached, context - 1)
    engine = row(chunked=chunked, max_sequences=sequences, kv_tokens=memory)
    work = request_work(engine, context, cached, output)
    assert math.isfinite(work)
    assert 0 < work <= request_work(engine, context, cached, output + 10) * (1 + 1e-9)
    assert work <= request_work(engine, context, 0, output) * (1 + 1e-9), "what is found need not be computed"


@given(st.integers(0, 9_000), st.integers(0, 10**7), st.integers(0, 300), st.integers(0, 10**6), st.integers(1, 9_000))
def test_compiled_and_plain_are_one(prefill: int, attention: int, sequences: int, kv: int, context: int) -> None:
    for name in ("llama-2-70b/h100-80gb/tp8", "gpt-oss-120b/h200/tp2"):
        profile = profile_named(name).profile
        plain, compiled = row_of(profile), profile_rows([profile])[0]
        pairs: list[tuple[Callable[..., float], Callable[..., float], tuple[float, ...]]] = [
            (timing.iteration_time, perf.iteration_time, (float(prefill), attention / 2, sequences, kv)),
            (timing.first_time, perf.first_time, (context, context // 3)),
            (timing.request_work, perf.request_work, (context, context // 3, float(sequences))),
        ]
        for ours, theirs, arguments in pairs:
            assert ours(plain, *arguments) == float(theirs(cast("EngineRow", compiled), *arguments))


@given(st.floats(0, 1e6), st.floats(0, 1e3), st.integers(1, 3_000))
def test_the_closed_form_of_a_block_is_the_sum_of_its_iterations(first: float, step: float, iterations: int) -> None:
    total = math.fsum(first + j * step for j in range(iterations))
    assert abs(block_time(first, step, iterations) - max(1, total)) <= 0.5 + 1e-9 * total


@given(st.floats(0, 1e6), st.floats(0, 1e3), st.integers(1, 3_000))
def test_time_goes_on_inside_a_block(first: float, step: float, iterations: int) -> None:
    now, later = block_time(first, step, iterations), block_time(first, step, iterations + 1)
    assert 1 <= now <= later


@pytest.mark.parametrize(
    ("knots", "sentence"),
    [
        ([[2, 5.0], [3, 6.0]], "the first knot is at 2 tokens"),
        ([[1, 5.0], [1, 6.0]], "tokens must rise"),
        ([[1, 5.0], [9, 4.0]], "more tokens cannot take less time"),
        ([[1, 5.0]], "at least 2 items"),
        ([[k + 1, 5.0] for k in range(17)], "at most 16 items"),
    ],
)
def test_a_curve_that_makes_no_sense_is_refused(knots: list[list[float]], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        row(iteration_ms=knots)


def test_memory_of_the_built_in_models_counts_key_and_value_heads_once() -> None:
    """80 layers of 8 KV heads of 128 are 320 KiB per token in 16 bits; 64 heads would be 2.5 MiB."""
    scenario = load_scenario("o365-week")
    llama = scenario.models["llama-2-70b"].engines["h100-80gb"]
    assert llama.kv_per_token == 2 * 80 * 8 * 128 * 2
    assert llama.kv_tokens * llama.kv_per_token < 8 * 80 * 2**30
    assert llama.kv_tokens > 1_000_000


def test_no_column_of_a_profile_is_forgotten() -> None:
    (compiled,) = profile_rows([ProfileSettings.model_validate(ODD)])
    plain = row()
    assert list(plain) == list(PROFILE.names or ())
    assert {name: np.array(compiled[name]).tolist() for name in plain} == plain
    assert plain["tokens"][:4] == [1, 101, 1_101, math.inf]
    assert plain["time"][:3] == [5_000, 6_000, 36_000]
    assert plain["slope"][:3] == pytest.approx([10, 30, 30])
    assert [plain[name] for name in ("eager", "decode", "kv", "attention")] == pytest.approx([12_000, 40, 0.01, 0.002])
    assert [plain[name] for name in ("kv_tokens", "weight", "max_sequences", "max_batched")] == [500_000, 1_000, 100, 5_000]
    assert [plain[name] for name in ("chunked", "caching", "entry", "gpus")] == [1, 1, 7_000, 8]
