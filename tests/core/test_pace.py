"""Answers slower than promised: closed forms, what makes the share rise or fall, and fewer requests for instances that keep it.

How near it is to the simulator is measured by `python -m bench.response --itl`. Read next: `src/sageserve/core/pace.py`.
"""

from math import exp, factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sageserve.base.config import ProfileSettings
from sageserve.base.units import MINUTE
from sageserve.core.events import DemandSeen
from sageserve.core.pace import (
    ANSWER_WIDTH,
    DOUBLINGS,
    FOLLOWING,
    PARTS,
    DecodingLoad,
    found,
    gamma_tail,
    guessed_answers,
    length_column,
    note_answer,
    slow_by_load,
    stall,
)
from sageserve.core.perf import profile_rows
from sageserve.core.response import RequestMix, held, late, slow_share
from sageserve.core.strategies.demand_estimates import DemandEstimates
from tests.core.small import ENGINE, TIERS, layout_of, scenario

ROW = profile_rows([ProfileSettings.model_validate(ENGINE)])[0]
ASKED = DecodingLoad(each_us=150_000.0, prefill_us=30_000.0, variation=0.5, prompt=1_500.0)
CHAT = guessed_answers([0], (1, ANSWER_WIDTH), 100.0)


def shares(gap: float, asked: DecodingLoad = ASKED) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """float64[DOUBLINGS, PARTS + 1]: slow ones where a token may take so many microseconds; an idle engine takes 10,000."""
    return np.array(slow_by_load(ROW, asked, CHAT, np.array([gap]))).reshape(DOUBLINGS, PARTS + 1)


@given(st.integers(1, 200), st.floats(0.01, 400))
def test_the_tail_of_a_whole_shape_is_that_of_poisson(shape: int, x: float) -> None:
    term = total = 1.0
    for k in range(1, shape):
        term *= x / k
        total += term
    assert gamma_tail(float(shape), x) == pytest.approx(exp(-x) * total, abs=1e-9 if shape <= 60 else 2e-4)


@given(st.floats(0.05, 6), st.integers(1, 12))
def test_a_request_finds_what_an_even_spread_leaves_at_the_emptiest(others: float, servers: int) -> None:
    mean = others * servers
    chances = [exp(-mean) * mean**n / factorial(n) for n in range(160)]
    by_hand = sum(chance * (n // servers) for n, chance in enumerate(chances))
    assert found(others, float(servers)) == pytest.approx(by_hand, rel=1e-6, abs=1e-6)


def test_many_are_as_good_as_normal() -> None:
    for servers in (4.0, 16.0, 32.0):
        at = 80.0 / servers
        assert found(at * 1.0001, servers) == pytest.approx(found(at * 0.9999, servers), abs=0.02)


def test_a_prompt_takes_what_its_iteration_takes_more() -> None:
    assert stall(ROW, 500.0, 4.0) == pytest.approx(500 * 20)  # 20 us per token
    paused = ROW.copy()
    paused["mixed"] = 0
    assert stall(paused, 500.0, 4.0) == pytest.approx(10_000 + 500 * 20)


@given(st.floats(1.05, 20), st.floats(1.05, 20), st.floats(0, 2))
def test_more_are_slow_at_more_load_and_fewer_at_a_slower_pace(one: float, other: float, variation: float) -> None:
    asked = replace(ASKED, variation=variation)
    fast, slow = (shares(10_020 * times, asked) for times in sorted((one, other)))
    assert (fast >= 0).all()
    assert (fast <= 1 + 1e-9).all()
    assert (np.diff(fast, axis=1) >= 0).all()
    assert (fast[:, 0] == 0).all()
    assert (fast >= slow - 1e-9).all()


def test_nobody_is_slow_where_nothing_is_promised_nothing_answered_or_no_engine_fast_enough() -> None:
    assert slow_by_load(ROW, ASKED, CHAT, np.zeros(1)) == ()
    assert slow_by_load(ROW, ASKED, np.zeros_like(CHAT), np.array([20_000.0])) == ()
    assert not shares(9_000.0).any(), "no number of instances saves these"


def test_decoding_alone_is_slow_from_the_load_on_at_which_its_batch_is_too_large() -> None:
    """Iterations of 10 ms and 1 ms for each sequence: 21 of them take 30 ms, however evenly they come."""
    row = profile_rows([ProfileSettings.model_validate(ENGINE | {"decode_us_per_sequence": 1_000.0})])[0]
    asked = DecodingLoad(each_us=200_000.0, prefill_us=1.0, variation=0.0, prompt=1.0)
    answers = np.zeros((1, ANSWER_WIDTH))
    answers[0, length_column(200)] = 1.0
    many = np.array(slow_by_load(row, asked, answers, np.array([30_000.0]))).reshape(DOUBLINGS, -1)[-1]
    first = int(np.flatnonzero(many > 0.5)[0]) / PARTS
    tokens = float(FOLLOWING[length_column(200)])
    assert first == pytest.approx(20 * 200_000 / (tokens * 30_000), abs=0.05)


@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=30))
def test_answers_are_counted_by_lengths_that_are_known_to_an_eighth(lengths: list[int]) -> None:
    counted = np.zeros(ANSWER_WIDTH)
    for length in lengths:
        note_answer(counted, length)
        near = FOLLOWING[length_column(length)]
        assert near == (pytest.approx(length - 1, rel=0.125) if 1 < length < 65_000 else near)
    assert counted.sum() == len(lengths)
    assert counted[0] == sum(length == 1 for length in lengths)


def test_slow_ones_are_late_and_call_for_instances() -> None:
    mix = RequestMix(30_000.0, 0.5, 120_000.0, 10_020.0, (5e6,), (1.0,))
    paced = replace(mix, slow=tuple(shares(25_000.0).ravel().tolist()))
    for servers, load in ((1, 0.3), (3, 0.5), (64, 0.7)):
        slow = slow_share(servers, load, np.array(paced.slow))
        prompts = late(servers, load, mix)
        assert late(servers, load, paced) == pytest.approx(prompts + (1 - prompts) * slow)
    plain, enough = held(mix, 1e9, 12), held(paced, 1e9, 12)
    assert (enough <= plain + 1e-9).all()
    assert (np.diff(enough) >= 0).all()
    assert enough[12] < 0.8 * plain[12]
    assert held(paced, 0.0, 12) == pytest.approx(held(mix, 0.0, 12)), "worth nothing, as if nothing were promised"


def test_whoever_plans_keeps_the_pace() -> None:
    def busy(itl: str | None) -> float:
        tiers = TIERS if itl is None else TIERS | {"iw-f": {"ttft": "1s", "itl": itl}}
        settings = scenario(tiers=tiers)
        prospects = DemandEstimates(settings, layout_of(settings), None, foresight=True)
        cells = 12
        answers = np.zeros((6, ANSWER_WIDTH))
        answers[:2, length_column(150)] = 900.0
        mixes = ((900.0, 900 * 3e4, 900 * 1e9, 900 * 3e4, *((0.0,) * 30), 900.0, *((0.0,) * 33)),) * 2
        told = tuple(map(tuple, answers.tolist())) if itl else ()
        tokens = (900 * 1_500,) * cells
        prospects.history.add(DemandSeen(0, MINUTE, tokens, tokens, (900,) * cells, (9e7,) * cells, mixes, (), (), told))
        prospects.sustainable_loads(np.array([2.0, 2.0]))
        return prospects.busy_most(0, 4)

    assert busy("13ms") < busy("17ms") < busy(None)
    assert busy("10s") == pytest.approx(busy(None), rel=0.01)
