"""Speculative decoding: what is accepted is counted whole, as even as it goes, and adds up to the mean that was stated.

Read next: docs/reference/kernel.md, "Speculation"; tests/sim/cases.py, whose worlds compare the simulator with the reference.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sageserve.base.config import ProfileSettings
from sageserve.base.config.models import ModelSettings, SpeculativeSettings
from sageserve.core.engine.rules import steps_until, steps_within, tokens_made
from sageserve.core.engine.timing import ACCEPTED_PARTS, curve_time, first_time, gain, iteration_time, request_work, row_of
from sageserve.data.profiles.library import profile_named

ENGINE = {
    "gpu": "x", "tp": 1, "gpus": 1, "iteration_ms": [[1, 5.0], [101, 6.0], [1101, 36.0]], "decode_us_per_sequence": 40.0,
    "kv_ns_per_token": 10.0, "attention_ns_per_token2": 2.0, "kv_tokens": 50_000, "max_sequences": 100, "eager_ms": 1.0,
    "source": "made up",
}  # fmt: skip
TOLD = {"tokens": 3, "acceptance": 0.7, "draft": 0.05}

parts = st.integers(0, 32 * ACCEPTED_PARTS)


@given(parts, st.integers(0, 10**9), st.integers(1, 10**6))
def test_each_iteration_gives_the_mean_rounded_down_or_up(extra: int, steps: int, more: int) -> None:
    once = tokens_made(steps + 1, extra) - tokens_made(steps, extra)
    assert once - 1 in (extra // ACCEPTED_PARTS, -(-extra // ACCEPTED_PARTS))
    made = tokens_made(steps + more, extra) - tokens_made(steps, extra)
    assert abs(made - more * (1 + extra / ACCEPTED_PARTS)) < 1 + 1e-6


@given(parts, st.integers(0, 10**9))
def test_steps_and_tokens_turn_round(extra: int, tokens: int) -> None:
    until, within = steps_until(tokens, extra), steps_within(tokens, extra)
    assert tokens_made(until, extra) >= tokens
    assert until == 0 or tokens_made(until - 1, extra) < tokens
    assert tokens_made(within, extra) <= tokens < tokens_made(within + 1, extra)


@given(st.integers(1, 32), st.floats(0, 0.999))
def test_the_gain_is_leviathans(tokens: int, acceptance: float) -> None:
    told = SpeculativeSettings(tokens=tokens, acceptance=acceptance, draft=0)
    assert told.gain == pytest.approx((1 - acceptance ** (tokens + 1)) / (1 - acceptance))
    assert gain(row_of(ProfileSettings.model_validate(ENGINE | {"speculative": told}))) == pytest.approx(told.gain, abs=1e-6)


def test_what_is_drafted_and_the_drafter_take_their_time() -> None:
    plain, row = (row_of(ProfileSettings.model_validate(ENGINE | told)) for told in ({}, {"speculative": TOLD}))
    verified = 1.05 * curve_time(plain, 40.0 + 500.0) + 2 * 0.05 * curve_time(plain, 10.0)
    both = verified + 10 * 40 + 1.15 * 0.01 * 20_000 + 1.05 * 0.002 * 7_000.0 + 1_000
    assert iteration_time(row, 500.0, 7_000.0, 10, 20_000) == pytest.approx(both)
    assert first_time(row, 500, 0) - 1_000 == pytest.approx(1.05 * (first_time(plain, 500, 0) - 1_000)), (
        "one pass over the prompt"
    )


@given(st.integers(1, 4_000), st.integers(2, 2_000), st.floats(0, 1), st.integers(1, 8))
def test_more_that_is_accepted_is_less_work(prompt: int, output: int, acceptance: float, tokens: int) -> None:
    works = []
    for one in (acceptance, min(1.0, acceptance + 0.1)):
        told = {"tokens": tokens, "acceptance": one, "draft": 0.02}
        works.append(
            request_work(row_of(ProfileSettings.model_validate(ENGINE | {"speculative": told})), prompt, 0, float(output))
        )
    assert works[1] <= works[0] * (1 + 1e-5)


def test_nothing_accepted_is_slower_than_no_speculation() -> None:
    plain = row_of(ProfileSettings.model_validate(ENGINE))
    for draft in (0.0, 0.1):
        told = {"tokens": 3, "acceptance": 0.0, "draft": draft}
        row = row_of(ProfileSettings.model_validate(ENGINE | {"speculative": told}))
        assert request_work(row, 100, 0, 200.0) > request_work(plain, 100, 0, 200.0)


def test_a_model_says_it_for_all_its_engines_and_a_profile_for_itself() -> None:
    own = {**TOLD, "tokens": 1}
    engines = {"a": ENGINE, "b": ENGINE | {"speculative": own}}
    model = ModelSettings.model_validate({"context": 100, "speculative": TOLD, "engines": engines})
    assert [one.speculative and one.speculative.tokens for one in model.engines.values()] == [3, 1]


@pytest.mark.parametrize("left", TOLD)
def test_nothing_has_a_default(left: str) -> None:
    told = {name: value for name, value in TOLD.items() if name != left}
    with pytest.raises(ValidationError) as caught:
        ModelSettings.model_validate({"context": 100, "speculative": told, "engines": {"a": ENGINE}})
    assert [(one["loc"], one["type"]) for one in caught.value.errors()] == [(("speculative", left), "missing")], "told once"


def test_drafts_that_leave_no_room_for_prompts_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"100 sequences .* of 4 tokens each, drafts included, are 400;"):
        ProfileSettings.model_validate(ENGINE | {"speculative": TOLD, "max_batched_tokens": 400})
    first = ENGINE | {"speculative": TOLD, "max_batched_tokens": 400, "mixed": False}
    assert ProfileSettings.model_validate(first).speculative is not None, "who prefills first has the whole budget for prompts"


def test_the_library_does_not_speculate() -> None:
    assert profile_named("llama-3.1-70b/h100-80gb/tp4").profile.speculative is None
