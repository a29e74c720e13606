"""The engine model: coefficients arrive in microseconds, iterations follow the formula, a block is the sum of its iterations.

Read next: `src/sageserve/core/perf.py`.
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import ProfileSettings
from sageserve.core.perf import PROFILE, block_time, decode_work, iteration_time, prefill_work, profile_rows
from sageserve.data.scenarios.load import load_scenario

ODD = {
    "gpu": "h100",
    "tp": 8,
    "gpus": 8,
    "base_ms": 5.0,
    "prefill_us_per_token": 30.0,
    "decode_us_per_sequence": 40.0,
    "kv_ns_per_token": 10.0,
    "attention_ns_per_token2": 2.0,
    "prefill_floor_ms": 12.0,
    "first_token_ms": 7.0,
    "prefix_caching": True,
    "kv_tokens": 500_000,
    "max_sequences": 100,
    "max_batched_tokens": 5_000,
    "source": "made up",
}


def test_units_by_hand() -> None:
    (row,) = profile_rows([ProfileSettings.model_validate(ODD)])
    # 5 ms + 1000 x 30 us + 10 x 40 us + 20,000 x 10 ns + 1000 x (2000 + 500) x 2 ns
    assert iteration_time(row, 1000, 1000 * 2500, 10, 20_000) == pytest.approx(5_000 + 30_000 + 400 + 200 + 5_000)
    assert iteration_time(row, 10, 50, 0, 0) == 12_000, "the floor of an iteration that only prefills"
    assert iteration_time(row, 10, 50, 1, 0) == pytest.approx(5_000 + 300 + 40 + 0.1)


def test_expected_work_by_hand() -> None:
    (row,) = profile_rows([ProfileSettings.model_validate(ODD)])
    assert prefill_work(row, 1000, 0) == pytest.approx(1000 * (30 + 1) + 1000 * 500 * 0.002)
    assert prefill_work(row, 1000, 400) == pytest.approx(600 * (30 + 1) + 600 * (400 + 300) * 0.002)
    assert decode_work(row, 1000, 200.0) == pytest.approx(200 * (40 + 0.01 * 1100 + 5_000 / 100))
    assert decode_work(row, 400_000, 200.0) == pytest.approx(200 * (40 + 0.01 * 400_100 + 5_000 / (500_000 / 400_200)))


@given(st.floats(0, 1e6), st.floats(0, 1e3), st.integers(1, 3_000))
def test_the_closed_form_of_a_block_is_the_sum_of_its_iterations(first: float, step: float, iterations: int) -> None:
    total = math.fsum(first + j * step for j in range(iterations))
    assert abs(block_time(first, step, iterations) - max(1, total)) <= 0.5 + 1e-9 * total


@given(st.floats(0, 1e6), st.floats(0, 1e3), st.integers(1, 3_000))
def test_time_goes_on_inside_a_block(first: float, step: float, iterations: int) -> None:
    now, later = block_time(first, step, iterations), block_time(first, step, iterations + 1)
    assert 1 <= now <= later


def test_a_decode_step_costs_the_same_per_sequence_whatever_the_batch() -> None:
    (row,) = profile_rows([ProfileSettings.model_validate(ODD | {"base_ms": 0.0})])
    times = [iteration_time(row, 0, 0, n, 1_000 * n) / n for n in (1, 10, 100)]
    assert times == pytest.approx([times[0]] * 3)


def test_memory_of_the_built_in_models_counts_key_and_value_heads_once() -> None:
    """80 layers of 8 KV heads of 128 are 320 KiB per token in 16 bits; 64 heads would be 2.5 MiB."""
    scenario = load_scenario("o365-week")
    llama = scenario.models["llama-2-70b"].engines["h100-80gb"]
    assert llama.kv_per_token == 2 * 80 * 8 * 128 * 2
    assert llama.kv_tokens * llama.kv_per_token < 8 * 80 * 2**30
    assert llama.kv_tokens > 1_000_000


def test_no_column_of_a_profile_is_forgotten() -> None:
    (row,) = profile_rows([ProfileSettings.model_validate(ODD)])
    assert {name: row[name] for name in PROFILE.names or ()} == {
        "base": 5_000,
        "prefill": 30,
        "decode": 40,
        "kv": pytest.approx(0.01),
        "attention": pytest.approx(0.002),
        "floor": 12_000,
        "kv_tokens": 500_000,
        "weight": 1000,
        "max_sequences": 100,
        "max_batched": 5_000,
        "chunked": 1,
        "caching": 1,
        "entry": 7_000,
        "gpus": 8,
    }
