"""Laws of what is done to whole traces: load, speed, splicing and demand add up and repeat."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Names, Trace
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.data.traces.changes.join import join
from sageserve.data.traces.changes.transform import JITTER, NEAR, demand_of, load, resample, scale_time


def trace_of(n: int, *, seed: int = 0, models: tuple[str, ...] = ("a", "b")) -> Trace:
    """Some requests over an hour; every second one has a deadline ten minutes after it arrives."""
    rng = np.random.Generator(np.random.PCG64(seed))
    arrival = np.sort(rng.integers(0, HOUR, n))
    return Trace(
        arrival=arrival,
        prompt=np.arange(1, n + 1, dtype=np.int32),
        output=rng.integers(1, 500, n).astype(np.int32),
        model=rng.integers(0, len(models), n).astype(np.uint8),
        region=rng.integers(0, 2, n).astype(np.uint8),
        tier=np.zeros(n, dtype=np.uint8),
        names=Names(models, ("east", "west"), ("iw-f",)),
        window=HOUR,
        deadline=np.where(np.arange(n) % 2, UNSET, arrival + 10 * MINUTE),
        cached=np.arange(n, dtype=np.int32),
    ).check()


class TestLoad:
    @given(n=st.integers(1, 400), factor=st.floats(0.01, 5), seed=st.integers(0, 2**40))
    def test_counts_are_exact_and_no_request_is_invented(self, n: int, factor: float, seed: int) -> None:
        trace = trace_of(n)
        wanted = round(n * factor)
        if wanted < 1:
            with pytest.raises(TraceError, match="leaves none"):
                load(trace, factor, seed)
            return
        loaded = load(trace, factor, seed).check()
        assert len(loaded) == wanted
        copies = np.bincount(loaded.prompt, minlength=n + 1)[1:]  # the prompt identifies the original
        assert copies.max() - copies.min() <= 1
        assert loaded.window == trace.window
        assert loaded.cached is not None
        assert np.array_equal(loaded.cached, loaded.prompt - 1)

    def test_copies_stay_near_and_originals_stay_put(self) -> None:
        trace = trace_of(500)
        loaded = load(trace, 3, 7)
        moved = np.abs(loaded.arrival - trace.arrival[loaded.prompt - 1])
        assert moved.max() <= JITTER
        assert (moved == 0).sum() >= 500
        assert (moved > 0).sum() > 900

    def test_deadlines_move_with_their_requests(self) -> None:
        loaded = load(trace_of(100), 2.5, 7)
        assert loaded.deadline is not None
        own = loaded.deadline != UNSET
        assert np.all(loaded.deadline[own] - loaded.arrival[own] == 10 * MINUTE)

    def test_one_is_the_trace_itself_and_seeds_repeat(self) -> None:
        trace = trace_of(300)
        assert load(trace, 1, 7) is trace
        for factor in (0.5, 2.5):
            one, same, other = (load(trace, factor, seed) for seed in (7, 7, 8))
            assert np.array_equal(one.arrival, same.arrival)
            assert not np.array_equal(one.prompt, other.prompt)
            assert f"load × {factor}" in one.notes[-1]
            assert "seed 7" in one.notes[-1]

    @pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
    def test_impossible_factors_are_refused(self, factor: float) -> None:
        with pytest.raises(TraceError, match="--load"):
            load(trace_of(10), factor, 1)


class TestScaleTime:
    @given(factor=st.floats(0.001, 1000))
    def test_order_and_promises_are_kept(self, factor: float) -> None:
        trace = trace_of(50)
        scaled = scale_time(trace, factor).check()
        assert np.allclose(scaled.arrival, trace.arrival * factor, atol=1)
        assert scaled.window == pytest.approx(HOUR * factor, abs=1)
        assert scaled.deadline is not None
        own = scaled.deadline != UNSET
        assert np.all(scaled.deadline[own] - scaled.arrival[own] == 10 * MINUTE)

    @pytest.mark.parametrize("factor", [0.0, -2.0, float("nan"), float("inf"), 1e300])
    def test_impossible_factors_are_refused(self, factor: float) -> None:
        with pytest.raises(TraceError, match="--time-scale"):
            scale_time(trace_of(3), factor)


class TestSplice:
    def test_each_trace_begins_where_the_window_before_ends(self) -> None:
        one, two = trace_of(10), trace_of(20, seed=1, models=("b", "c"))
        joined = join([one, two])
        assert joined.window == 2 * HOUR
        assert len(joined) == 30
        assert np.array_equal(joined.arrival[10:], two.arrival + HOUR)
        assert joined.names.models == ("a", "b", "c")
        old = [two.names.models[code] for code in two.model]
        assert [joined.names.models[code] for code in joined.model[10:]] == old
        assert joined.deadline is not None
        assert joined.deadline[10] == two.arrival[0] + HOUR + 10 * MINUTE
        assert "joined at 1h" in joined.notes[-1]
        assert joined.cached is not None
        assert joined.cached.tolist() == [*range(10), *range(20)]

    def test_a_part_that_does_not_say_what_was_cached_goes_on_not_saying(self) -> None:
        joined = join([trace_of(3), replace(trace_of(2), cached=None)]).check()
        assert joined.cached is not None
        assert joined.cached.tolist() == [0, 1, 2, UNSET, UNSET]
        assert join([replace(trace_of(2), cached=None)] * 2).cached is None

    def test_nothing_cannot_be_joined(self) -> None:
        with pytest.raises(TraceError, match="no trace"):
            join([])


class TestDemand:
    @given(n=st.integers(1, 200), width=st.integers(1, HOUR))
    def test_every_token_is_in_exactly_one_bin(self, n: int, width: int) -> None:
        width = max(width, 10 * SECOND)
        trace = trace_of(n)
        demand = demand_of(trace, width)
        assert demand.requests.sum() == n
        assert demand.prompt_tokens.sum() == trace.prompt.sum()
        assert demand.output_tokens.sum() == trace.output.sum()
        assert demand.requests.shape == (-(-HOUR // width), 2, 2, 1)

    def test_a_request_lands_in_its_own_bin(self) -> None:
        trace = trace_of(50)
        demand = demand_of(trace)
        row = 17
        cell = trace.arrival[row] // MINUTE, trace.region[row], trace.model[row], trace.tier[row]
        alike = (trace.arrival // MINUTE, trace.region, trace.model, trace.tier)
        same = np.logical_and.reduce([column == value for column, value in zip(alike, cell, strict=True)])
        assert demand.output_tokens[cell] == trace.output[same].sum()


class TestResample:
    @given(n=st.integers(1, 300), seed=st.integers(0, 2**40), cut=st.integers(1, MINUTE))
    def test_minutes_are_whole_and_from_nearby(self, n: int, seed: int, cut: int) -> None:
        trace = replace(trace_of(n), window=HOUR + cut)
        drawn = resample(trace, seed).check()
        origin = drawn.prompt - 1  # the prompt identifies the original
        moved = drawn.arrival - trace.arrival[origin]
        assert (moved % MINUTE == 0).all()
        assert (np.abs(moved) <= 2 * NEAR * MINUTE).all()  # mirrored at the ends
        for minute in range(60):
            here = origin[drawn.arrival // MINUTE == minute]
            sources = np.unique(trace.arrival[here] // MINUTE)
            assert len(sources) <= 1
            if len(sources):  # all of it, once
                assert np.array_equal(np.sort(here), np.flatnonzero(trace.arrival // MINUTE == sources[0]))
        assert drawn.window == trace.window
        assert drawn.deadline is not None
        assert (drawn.deadline[drawn.deadline != UNSET] - drawn.arrival[drawn.deadline != UNSET] == 10 * MINUTE).all()

    def test_seeds_are_windows_of_their_own_and_repeat(self) -> None:
        trace = trace_of(400)
        assert np.array_equal(resample(trace, 3).arrival, resample(trace, 3).arrival)
        assert not np.array_equal(resample(trace, 3).prompt, resample(trace, 4).prompt)
        sizes = [len(resample(trace, seed)) for seed in range(30)]
        assert 350 < np.mean(sizes) < 450
        assert np.std(sizes) > 5
