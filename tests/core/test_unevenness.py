"""How unevenly requests arrive: nothing where they are Poisson, the variation of the rate where it has one.

Read next: `src/sageserve/core/unevenness.py`, docs/reference/planning.md.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.records import Demand, Floats
from sageserve.base.rng import stream
from sageserve.base.units import MINUTE
from sageserve.core.unevenness import LOADS, MINUTES, Unevenness, loads_found, uneven

TAKEN_IN = 0.1


def poisson(seed: int, rates: Floats) -> Floats:
    return stream(seed, "unevenness/counts").poisson(rates).astype(float)


def gammas(seed: int, quarters: int, variation: float) -> Floats:
    return stream(seed, "unevenness/rates").gamma(1 / variation, variation, (quarters, MINUTES, 1))


@given(st.integers(0, 1000), st.floats(0, 2000), st.integers(1, 30), st.floats(-0.1, 0.1))
def test_requests_at_random_instants_are_even_however_many_and_though_their_rate_rises(
    seed: int, rate: float, quarters: int, slope: float
) -> None:
    rates = rate * (1 + slope * (np.arange(MINUTES) - 7)[None, :, None]) * np.ones((quarters, 1, 2))
    assert uneven(poisson(seed, rates), np.ones(quarters)) == 0.0


@pytest.mark.parametrize("variation", [0.3, 0.7, 1.2])
def test_what_a_rate_varies_is_found(variation: float) -> None:
    counts = poisson(7, 300 * gammas(7, 96, variation))
    seen = (1 - 0.5 ** (96 / 24)) / (1 - 0.5 ** (1 / 24))
    assert uneven(counts, np.ones(96)) == pytest.approx(variation / (1 + 2 / seen) - TAKEN_IN, abs=0.12)


def test_little_that_was_seen_says_less_and_so_does_what_is_long_past() -> None:
    first = poisson(3, 200 * gammas(3, 1, 0.8))
    again = np.concatenate([first] * 8)
    past = np.concatenate([again, np.full((40, MINUTES, 1), 200.0)])
    one, many, old = (uneven(counts, np.ones(len(counts))) for counts in (first, again, past))
    assert 0 < one < many
    assert old < many / 2


def test_copies_of_one_request_are_no_evidence() -> None:
    counts = 10 * poisson(5, np.full((8, MINUTES, 1), 2.0))
    assert uneven(counts, np.full(8, 10.0)) == 0.0
    assert uneven(counts, np.ones(8)) > 0.0


def test_of_what_came_before_copies_are_known_by_their_steps_and_minutes_go_on() -> None:
    counts = 10 * poisson(5, np.full((8 * MINUTES, 2, 1, 2), 2.0))
    earlier = Demand(-len(counts) * MINUTE, MINUTE, counts, counts, counts)
    assert Unevenness((2, 1, 2), earlier).of(0, [0, 1], pooled=False) == 0.0
    swings = np.repeat(gammas(9, 4, 0.8).reshape(-1), 4).reshape(-1, 2, 1, 2)
    heard, known = Unevenness((2, 1, 2)), 100 * swings
    for minute in known:
        heard.see(tuple(minute.round().astype(int).ravel().tolist()), MINUTE)
    both = Unevenness((2, 1, 2), Demand(-len(known) * MINUTE, MINUTE, known, known, known.round()))
    assert heard.of(0, [0], pooled=False) == pytest.approx(both.of(0, [0], pooled=False))
    assert heard.of(0, [0], pooled=True) > 0
    assert Unevenness((2, 1, 2)).of(0, [0], pooled=True) == 0.0


def test_regions_that_share_a_queue_even_each_other_out() -> None:
    heard = Unevenness((2, 1, 1))
    for share in np.tile([1.0, 0.0], 30):  # all of them here, then all there: together always as many
        heard.see((round(400 * share), round(400 * (1 - share))), MINUTE)
    assert heard.of(0, [0], pooled=False) > 0.3
    assert heard.of(0, [0], pooled=True) == 0.0


@given(st.floats(1e-3, 1))
def test_loads_are_those_of_the_requests(variation: float) -> None:
    found = np.array(loads_found(variation))
    assert len(found) == LOADS
    assert (np.diff(found) > 0).all()
    assert found.mean() == pytest.approx(1 + variation)
    assert 1 / found @ np.ones(LOADS) / LOADS == pytest.approx(1, abs=0.12)  # every minute once is the mean rate


def test_even_minutes_have_no_loads() -> None:
    assert loads_found(0.0) == ()
