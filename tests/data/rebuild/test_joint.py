"""Whether answers go with prompts, from windows alone: found where it is so, not where it is not, and put into made requests."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.data.history.records import Grid, HistogramHistory
from sageserve.data.rebuild.demand import DemandStream
from sageserve.data.rebuild.joint import LengthRank, joined, joined_by_window, length_ranks
from sageserve.data.rebuild.recount import recount
from sageserve.data.rebuild.requests import rebuild
from tests.data.rebuild.test_rebuild import BOUNDS, MODEL, SCENARIO, demand

WINDOWS, EACH = 288, 200
GRID = Grid(0, 15 * SECOND, WINDOWS * 20)


def recorded(rho: float, seed: int, rise: float = 0.0, windows: int = WINDOWS) -> DemandStream:
    """A day of windows of lengths that correlate; both rise over it by so many standard deviations."""
    rng = stream(seed, "joint")
    first, rest = rng.standard_normal((2, windows, EACH))
    drift = np.linspace(0.0, rise, windows)[:, None]
    prompt, output = np.exp(6.5 + first + drift), np.exp(5.0 + rho * first + (1.0 - rho**2) ** 0.5 * rest + drift)
    grid = replace(GRID, count=windows * 20)
    return replace(demand(), grid=grid, arrivals=np.full(grid.count, EACH / 20), prompt=counted(prompt), output=counted(output))


def counted(lengths: NDArray[np.float64]) -> HistogramHistory:
    windows = Grid(0, 5 * MINUTE, len(lengths))
    counts = np.stack([np.bincount(np.searchsorted(BOUNDS, row), minlength=len(BOUNDS) + 1) for row in lengths])
    return HistogramHistory(windows, BOUNDS, counts.astype(np.float64), lengths.sum(axis=1))


def rank_of(*streams: DemandStream) -> LengthRank:
    (found,) = length_ranks(streams).values()
    return found


@pytest.mark.parametrize("rho", [-0.9, -0.7, -0.4, 0.4, 0.7, 0.9])
def test_what_windows_show_is_the_correlation_of_requests(rho: float) -> None:
    found = [rank_of(recorded(rho, seed)) for seed in range(20)]
    assert np.mean([one.found for one in found]) == pytest.approx(rho, abs=0.05)
    assert sum(abs(one.found - rho) <= 2.5 * one.error for one in found) >= 18


def test_none_is_found_where_there_is_none() -> None:
    assert sum(rank_of(recorded(0.0, seed)).found == 0.0 for seed in range(100)) >= 90


def test_a_rise_of_both_over_the_day_is_no_correlation() -> None:
    assert sum(rank_of(recorded(0.0, seed, rise=2.0)).found == 0.0 for seed in range(20)) >= 17


def test_regions_are_looked_at_together_and_few_windows_say_nothing() -> None:
    short = [recorded(0.7, seed, windows=10) for seed in range(8)]
    assert rank_of(short[0]) == LengthRank(0.0, float("inf"))
    assert rank_of(*short).found == pytest.approx(0.7, abs=0.3)
    blind = replace(recorded(0.7, 1), output=None)
    assert rank_of(blind).found == 0.0
    assert set(length_ranks([demand("iw-f"), demand("niw")])) == {(MODEL, "iw-f"), (MODEL, "niw")}
    assert rank_of(demand()).found == 0.0, "windows that are all alike say nothing"


@pytest.mark.parametrize("rho", [-0.7, 0.0, 0.7, 1.0])
def test_answers_are_put_in_order_and_none_is_lost(rho: float) -> None:
    rng = stream(1, "joined")
    prompt, output = (np.ceil(np.exp(rng.normal(5.0, 1.0, 6000))).astype(np.int32) for _ in range(2))
    found = joined(prompt, output, rho, rng.standard_normal(6000))
    assert sorted(found) == sorted(output)
    assert np.corrcoef(np.log(prompt), np.log(found))[0, 1] == pytest.approx(rho, abs=0.03)
    rows = np.array([0, 10, 10, 2500, 6000])
    apart = joined_by_window((prompt, output), rows, rho, rng)
    assert all(sorted(apart[a:b]) == sorted(output[a:b]) for a, b in pairwise(rows.tolist()))
    assert len(joined(prompt[:0], output[:0], rho, np.zeros(0))) == 0


@pytest.mark.parametrize("rho", [-0.7, 0.7])
def test_made_requests_have_it_and_count_as_before(rho: float) -> None:
    one = recorded(rho, 3)
    made = rebuild([one], SCENARIO, 1)
    assert np.corrcoef(np.log(made.trace.prompt), np.log(made.trace.output))[0, 1] == pytest.approx(rho, abs=0.15)
    assert ("longer prompts have longer answers" if rho > 0 else "longer prompts have shorter answers") in made.notes[0]
    (again,) = recount(made.trace, [one])
    assert again.output is not None
    assert one.output is not None
    np.testing.assert_array_equal(again.output.counts, one.output.counts)
    assert rank_of(again).found == pytest.approx(rho, abs=0.25), "and what was made shows it again"
    assert made.trace.window == WINDOWS * 5 * MINUTE == 24 * HOUR
