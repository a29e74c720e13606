"""Requests made of counters: they count as the counters did, lengths fill buckets, gaps are named, seeds decide the rest."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.errors import MeasurementError
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.data.history.records import Gap, Grid, HistogramHistory
from sageserve.data.rebuild.demand import DemandStream
from sageserve.data.rebuild.lengths import Buckets, draw_lengths
from sageserve.data.rebuild.recount import compare, own_error, recount
from sageserve.data.rebuild.render import TOKENS
from sageserve.data.rebuild.requests import rebuild, whole_counts
from sageserve.data.rebuild.tiers import hour_of_week, hourly_shares
from sageserve.data.scenarios.load import load_scenario
from tests.worlds import SMALL_FLEET

SCENARIO = load_scenario(SMALL_FLEET)
BEGIN = 19_674 * 24 * HOUR + 9 * HOUR  # a Monday, nine o'clock
GRID = Grid(BEGIN, 15 * SECOND, 240)
BOUNDS = np.array(TOKENS)
MODEL = "llama-2-70b"


def histogram(lengths: np.ndarray, grid: Grid = GRID) -> HistogramHistory:
    """All windows alike, each with these lengths."""
    windows = grid.coarser(5 * MINUTE)
    counts = np.bincount(np.searchsorted(BOUNDS, lengths), minlength=len(BOUNDS) + 1).astype(np.float64)
    return HistogramHistory(windows, BOUNDS, np.tile(counts, (windows.count, 1)), np.full(windows.count, float(lengths.sum())))


def demand(tier: str = "iw-f", **changes: object) -> DemandStream:
    """Twenty requests in each of 240 intervals, 400 in each of 12 windows."""
    rng = stream(5, "lengths")
    prompt, output = (np.ceil(np.exp(rng.normal(mean, 0.8, 400))).clip(1, 8000) for mean in (6.5, 5.0))
    unknown = float("nan")
    arrivals = np.full(240, 20.0)
    sizes = histogram(prompt), histogram(output)
    made = DemandStream("eastus", MODEL, tier, GRID, arrivals, (), *sizes, unknown, unknown, "engines")
    return replace(made, **changes)  # type: ignore[arg-type] # fields of the record, by name


def test_made_requests_count_as_the_history_did() -> None:
    one = demand()
    made = rebuild([one], SCENARIO, 1)
    again = recount(made.trace, [one])[0]
    assert again.arrivals.tolist() == one.arrivals.tolist()
    for before, after in ((one.prompt, again.prompt), (one.output, again.output)):
        assert before is not None
        assert after is not None
        np.testing.assert_array_equal(after.counts, before.counts)
        np.testing.assert_allclose(after.total, before.total, atol=20)
    assert made.lengths == "histograms"
    assert made.trace.start == BEGIN
    assert made.trace.window == HOUR


@given(st.lists(st.floats(0, 50), min_size=1, max_size=200))
def test_fractions_of_requests_are_carried(arrivals: list[float]) -> None:
    counts = whole_counts(np.array(arrivals))
    assert (counts >= 0).all()
    assert np.abs(np.cumsum(counts) - np.cumsum(arrivals)).max() <= 0.5 + 1e-6


@given(
    st.lists(st.integers(0, 40), min_size=len(TOKENS) + 1, max_size=len(TOKENS) + 1).filter(any),
    st.floats(0, 1),
    st.integers(1, 2**32),
)
def test_lengths_fill_their_buckets_and_meet_the_sum(counts: list[int], place: float, seed: int) -> None:
    n = sum(counts)
    blank = Buckets(BOUNDS, np.array(counts, np.float64), float("nan"), 1_000_000)
    low, high = blank.limits()
    least, most = float((low * counts).sum()) / n, float((high * counts).sum()) / n
    mean = least + place * (most - least)
    found = draw_lengths(replace(blank, mean=mean), n, stream(seed, "test"))
    assert np.bincount(np.searchsorted(BOUNDS, found), minlength=len(counts)).tolist() == counts
    assert abs(int(found.sum()) - mean * n) <= len(TOKENS) + 1e-6 * mean * n


def test_more_requests_than_observations_keep_the_shares() -> None:
    buckets = Buckets(BOUNDS, np.array([0, 0, 0, 1, 0, 2, 0, 0, 1] + [0] * 10, np.float64), float("nan"), 4000)
    found = draw_lengths(buckets, 1001, stream(1, "test"))
    rows = np.bincount(np.searchsorted(BOUNDS, found), minlength=19)
    assert np.abs(rows - 1001 * buckets.counts / 4).max() <= 1


def test_tails_of_log_normal_lengths_are_met() -> None:
    truth = np.ceil(np.exp(stream(1, "truth").normal(6.0, 1.0, 200_000))).clip(1)
    counts = np.bincount(np.searchsorted(BOUNDS, truth), minlength=len(BOUNDS) + 1).astype(np.float64)
    made = draw_lengths(Buckets(BOUNDS, counts, float(truth.mean()), 100_000), len(truth), stream(2, "made"))
    for share, off in ((0.5, 0.08), (0.9, 0.08), (0.95, 0.05), (0.99, 0.08), (0.999, 0.08), (0.9999, 0.25)):
        assert np.quantile(made, share) == pytest.approx(np.quantile(truth, share), rel=off), share


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    one, same, other = (rebuild([demand()], SCENARIO, seed).trace for seed in (1, 1, 2))
    assert all((getattr(one, name) == getattr(same, name)).all() for name in ("arrival", "prompt", "output", "tier"))
    assert (one.arrival != other.arrival).any()
    assert (one.prompt != other.prompt).any()
    assert sorted(one.prompt) == pytest.approx(sorted(other.prompt), rel=0.2)


def test_prompt_and_answer_lengths_are_independent() -> None:
    made = rebuild([demand()], SCENARIO, 1).trace
    assert abs(float(np.corrcoef(made.prompt, made.output)[0, 1])) < 0.05


def test_a_gap_is_named_and_filled_with_what_counters_grew_by() -> None:
    arrivals = np.full(240, 20.0)
    arrivals[40:60] = np.nan
    made = rebuild([demand(arrivals=arrivals, gaps=(Gap(40, 60, "not scraped", 100.0),))], SCENARIO, 1)
    inside = (made.trace.arrival >= 600 * SECOND) & (made.trace.arrival < 900 * SECOND)
    assert int(inside.sum()) == 100
    assert "nothing is known of 5m from 2023-11-13T09:10:00 UTC (not scraped)" in made.notes[0]


def test_service_classes_follow_the_settings_hour_by_hour() -> None:
    shares, said = hourly_shares(SCENARIO, "eastus", MODEL)
    assert said == ""
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    made = rebuild([demand(tier="")], SCENARIO, 1).trace
    found = np.bincount(made.tier, minlength=3) / len(made)
    np.testing.assert_allclose(found, shares[hour_of_week(BEGIN)], atol=0.02)
    assert shares[9, 2] != pytest.approx(shares[3, 2], abs=0.02), "every hour has the same shares"


def test_without_settings_equal_shares_are_assumed_and_said() -> None:
    blank = load_scenario(SMALL_FLEET, overrides=["workload.generate.shapes={}", "workload.assign.tier={}"])
    made = rebuild([demand(tier="")], blank.model_copy(update={"workload": type(blank.workload)()}), 1)
    assert any("equal shares are assumed" in note for note in made.notes)


def test_counters_set_the_sum_where_they_agree_with_the_histogram() -> None:
    plain = demand()
    assert plain.prompt is not None
    total = float(plain.prompt.total.sum())
    near = rebuild([demand(prompt_tokens=1.03 * total)], SCENARIO, 1)
    assert near.trace.prompt.sum() == pytest.approx(1.03 * total, rel=1e-3)
    far = rebuild([demand(prompt_tokens=3 * total)], SCENARIO, 1)
    assert far.trace.prompt.sum() == pytest.approx(total, rel=1e-3)
    assert any("3.00 times" in note for note in far.notes)


def test_means_alone_are_labelled() -> None:
    made = rebuild([demand(prompt=None, output=None, prompt_tokens=4800.0 * 700, output_tokens=4800.0 * 70)], SCENARIO, 1)
    assert made.lengths == "means"
    assert set(made.trace.prompt.tolist()) == {700}
    assert any("only the mean length" in note for note in made.notes)
    with pytest.raises(MeasurementError, match="how long"):
        rebuild([demand(prompt=None)], SCENARIO, 1)


def test_a_history_without_requests_is_refused() -> None:
    with pytest.raises(MeasurementError, match="no requests at all"):
        rebuild([demand(arrivals=np.zeros(240))], SCENARIO, 1)
    with pytest.raises(MeasurementError, match="no requests at all"):
        rebuild([demand(arrivals=np.full(240, np.nan), gaps=(Gap(0, 240, "no instance is known"),))], SCENARIO, 1)


def test_its_own_error_is_what_rebuilding_makes_of_it() -> None:
    error = own_error([demand()], SCENARIO)
    assert error.arrivals == 0
    assert abs(error.prompt_tokens) < 1e-3
    assert abs(error.prompt_p95) < 0.02
    truth = rebuild([demand()], SCENARIO, 1).trace
    twice = replace(truth, prompt=truth.prompt * 2)
    assert compare(truth, twice, [demand()]).prompt_p95 == pytest.approx(1.0)
