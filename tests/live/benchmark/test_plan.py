"""What is sent when: lengths within the context, levels within the engine's limits, arrivals at the wished rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.errors import MeasurementError
from sageserve.base.rng import stream
from sageserve.live.benchmark.plan import BenchmarkOptions, fixed_lengths, levels_of, mix_for, poisson_arrivals
from sageserve.live.benchmark.prompts import TokenPrompts, WordPrompts, words_from_trials


def options(**changes: object) -> BenchmarkOptions:
    return BenchmarkOptions(url="http://h", model="m", **changes)  # type: ignore[arg-type]  # one place for many settings


@given(
    context=st.one_of(st.none(), st.integers(64, 200_000)),
    tpot=st.floats(1, 1e6),
    level_us=st.floats(1e5, 1e8),
    slow=st.integers(1, 10**7),
    seed=st.integers(0, 99),
)
def test_prompt_and_answer_fit_the_context(context: int | None, tpot: float, level_us: float, slow: int, seed: int) -> None:
    lengths = fixed_lengths(options(), context)
    mix = mix_for(options(), context, ttft=dict.fromkeys(lengths, slow), tpot=tpot, level_us=level_us)
    for _ in range(20):
        prompt, output = mix.draw(stream(seed, "test"))
        assert mix.prompt_low <= prompt <= mix.prompt_high
        assert mix.output_low <= output <= mix.output_high
        assert context is None or prompt + output <= context


def test_a_slow_engine_gets_shorter_prompts_and_answers() -> None:
    fast = mix_for(options(), None, ttft={128: 10_000, 4096: 90_000}, tpot=10_000, level_us=40e6)
    slow = mix_for(options(), None, ttft={128: 900_000, 4096: 30_000_000}, tpot=400_000, level_us=40e6)
    assert (fast.prompt_high, fast.output_high) == (4096, 512)
    assert (slow.prompt_high, slow.output_high) == (128, 20)


def test_levels_end_at_the_engines_limit() -> None:
    assert levels_of(options(max_sequences=8)) == (1, 4, 8)
    assert levels_of(options()) == (1, 4, 16, 64, 256)
    with pytest.raises(MeasurementError, match="never varies"):
        levels_of(options(max_sequences=1))


def test_the_key_is_in_no_text() -> None:
    assert "secret" not in repr(options(key="secret"))


def test_arrivals_come_at_the_wished_rate() -> None:
    due = poisson_arrivals(50.0, 60.0, stream(1, "test"))
    gaps = np.diff(due)
    assert len(due) == pytest.approx(3000, rel=0.06)
    assert due[-1] < 60e6
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.1)  # exponential
    assert len(poisson_arrivals(0.0, 60.0, stream(1, "test"))) == 0


def test_prompts_differ_from_their_first_block_on() -> None:
    rng = stream(1, "test")
    made = [tuple(TokenPrompts().make(128, rng)) for _ in range(200)]
    assert {len(prompt) for prompt in made} == {128}
    assert len({prompt[:16] for prompt in made}) == 200


@given(fixed=st.integers(0, 40), per_word=st.floats(0.8, 3.0), wanted=st.integers(100, 4000))
def test_words_are_as_many_as_trials_say(fixed: int, per_word: float, wanted: int) -> None:
    prompts = words_from_trials((32, round(fixed + 32 * per_word)), (256, round(fixed + 256 * per_word)))
    words = len(prompts.make(wanted, stream(1, "test")).split())
    assert abs(fixed + per_word * words - wanted) <= 0.03 * wanted + per_word + 1


def test_trials_that_make_no_sense_are_not_believed() -> None:
    assert words_from_trials((32, 50), (256, 50)) == WordPrompts()
