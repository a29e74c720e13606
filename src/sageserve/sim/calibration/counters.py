"""Coefficients from what a scrape sees every second, without a single request's timing.

Over a second the engine is busy all the time, so its iterations add up to it:

    seconds = base * iterations + prefill * prompt tokens + decode * generated tokens + kv * KV tokens read

Iterations are not counted by engines: every decoding sequence makes one token in each, so there were as many as
generated tokens / mean running sequences. Non-negative least squares gives the coefficients. What sequences and KV tokens cost
apart cannot be told where KV use is unknown or follows the sequences; then `decode` holds both, at the context there was.
Refuses what cannot be fitted, with the reason. Read next: `logs.py`, which does better where requests were logged.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.base.records import Bools, Floats
from sageserve.base.units import SECOND
from sageserve.data.measured.runs import MeasuredSeries
from sageserve.sim.calibration.search import nonnegative

WINDOW: Final = 2  # rows per equation: running is seen at instants, and half of its noise goes with a second instant
SECONDS_LEAST: Final = 20  # usable seconds for three or four unknowns; 10 to 30 minutes are advised
VARIED_LEAST: Final = 0.25  # (p90 - p10) / median of running sequences: below it base and decode cannot be told apart
FULL: Final = 0.95  # share of the KV cache above which engines preempt, where preemptions are not counted
FULL_MOST: Final = 0.5  # of the busy seconds may be so full
ALIKE: Final = 0.95  # correlation of KV use with running sequences above which their costs are not told apart


@dataclass(frozen=True, slots=True)
class CountersFit:
    """Coefficients from counters.

    Args:
        profile: with the coefficients.
        costs: float64[4], seconds per iteration, prompt token, generated token and KV token read; the last is 0 where unknown.
        seconds: rows that were fitted.
        range: what load they covered, for people.
        heldout: relative error of the time the later half of the seconds should have taken; None when all were fitted.
        notes: what could not be told, in sentences.
    """

    profile: ProfileSettings
    costs: Floats
    seconds: int
    range: str
    heldout: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Table:
    """Per row: seconds that passed, and iterations, prompt, generated and KV tokens in them."""

    duration: Floats
    iterations: Floats
    prompt: Floats
    output: Floats
    kv: Floats
    running: Floats
    full: Bools

    def rows(self, chosen: Bools) -> "_Table":
        return _Table(*(getattr(self, name)[chosen] for name in self.__slots__))


def fit_counters(series: MeasuredSeries, blank: ProfileSettings, *, capacity_known: bool) -> CountersFit:
    """Fit all seconds that can be used.

    Args:
        series: the counters.
        blank: a profile with the engine's limits.
        capacity_known: its kv_tokens is the engine's, so that shares of the KV cache are tokens.

    Raises:
        MeasurementError: the counters cannot support a profile; says why.
    """
    table = _usable(_table(series, blank.kv_tokens if capacity_known else 0))
    _refuse(table)
    return _fit(table, blank)


def judge_counters(series: MeasuredSeries, blank: ProfileSettings, *, capacity_known: bool) -> CountersFit:
    """Fit the earlier half of the usable seconds, and say how far off the time of the later half is.

    Raises:
        MeasurementError: as for `fit_counters`.
    """
    table = _usable(_table(series, blank.kv_tokens if capacity_known else 0))
    early = np.arange(len(table.duration)) < len(table.duration) // 2
    first = table.rows(early)
    _refuse(first, "the earlier half of ")
    found = _fit(first, blank)
    late = table.rows(~early)
    predicted = _predict(found.costs, late)
    error = float(np.abs(predicted - late.duration).sum() / late.duration.sum())
    return CountersFit(found.profile, found.costs, found.seconds, found.range, error, found.notes)


def first_seconds(series: MeasuredSeries) -> MeasuredSeries:
    """The earlier half of the rows."""
    return series.rows(np.arange(len(series)) < len(series) // 2)


def _table(series: MeasuredSeries, kv_tokens: int) -> _Table:
    duration = np.diff(series.time, prepend=0) / SECOND
    before = np.concatenate((series.running[:1], series.running[:-1]))
    running = 0.5 * (before + series.running)
    output = series.output_rate * duration
    share = np.nan_to_num(series.kv_share, nan=0.0)
    iterations = output / np.maximum(running, 1.0)
    full = share > FULL if series.preemptions is None else series.preemptions > 0
    return _Table(duration, iterations, series.prompt_rate * duration, output, iterations * share * kv_tokens, running, full)


def _usable(table: _Table) -> _Table:
    """Seconds in which the engine was busy throughout; the first two and the last two of a busy stretch are part idle."""
    busy = (table.running > 0) & (table.output > 0) & (table.duration > 0)
    padded = np.concatenate(([False, False], busy, [False, False]))
    inner = busy & padded[:-4] & padded[1:-3] & padded[3:-1] & padded[4:]
    return table.rows(inner)


def _refuse(table: _Table, which: str = "") -> None:
    count = len(table.duration)
    advice = "record 10 to 30 minutes while the load goes up and down"
    if count < SECONDS_LEAST:
        raise MeasurementError(
            f"{which}the counters show {count} seconds of steady work; {SECONDS_LEAST} are the least",
            hint=f"{advice}: seconds without generated tokens do not count",
        )
    full = float(table.full.mean())
    if full > FULL_MOST:
        raise MeasurementError(
            f"in {full:.0%} of the seconds of {which}the counters the engine preempts, or its KV cache is more than {FULL:.0%}"
            " full: what it computes again is in no counter",
            hint="use per-request logs (sageserve calibrate logs), or counters of a less loaded engine",
        )
    kept = table.rows(~table.full)
    if float(kept.prompt.sum()) <= 0:
        raise MeasurementError(f"{which}the counters show no prompt tokens", hint=advice)
    low, middle, high = np.percentile(kept.running, (10, 50, 90))
    if high - low < VARIED_LEAST * middle:
        raise MeasurementError(
            f"{which}the counters show between {low:.0f} and {high:.0f} running requests: load hardly varied, so what an "
            "iteration costs cannot be told from what a sequence costs",
            hint=advice,
        )


def _fit(table: _Table, blank: ProfileSettings) -> CountersFit:
    kept = table.rows(~table.full)
    apart = float(kept.kv.sum()) > 0 and abs(float(np.corrcoef(kept.kv, kept.output)[0, 1])) < ALIKE
    columns = [kept.iterations, kept.prompt, kept.output] + ([kept.kv] if apart else [])
    found = nonnegative(np.stack([_windows(column) for column in columns], axis=1), _windows(kept.duration))
    base, prefill, decode = found[0] * 1e3, found[1] * 1e6, found[2] * 1e6
    notes = () if apart else ("the cost of KV tokens is inside decode_us_per_sequence, at the mean context of these seconds",)
    if base <= 0 or prefill <= 0:
        raise MeasurementError(
            "the counters give an iteration or a prompt token no cost at all: they do not fit the engine model",
            hint="use per-request logs (sageserve calibrate logs), or a longer recording with more varied load",
        )
    reach = f"{len(kept.duration)} s of counters, {kept.running.min():.0f}-{kept.running.max():.0f} running requests"
    profile = _lines(blank, base, prefill, decode, most=float(kept.running.max()))
    costs = found if apart else np.append(found, 0.0)
    profile = profile.model_copy(update={"kv_ns_per_token": float(f"{costs[3] * 1e9:.6g}")})
    return CountersFit(profile, costs, len(kept.duration), reach, None, notes)


def _lines(blank: ProfileSettings, base: float, prefill: float, decode: float, *, most: float) -> ProfileSettings:
    """A profile whose iterations take `base` ms, `decode` us per sequence and `prefill` us per prompt token.

    Seconds do not say how both go together in one iteration: up to `most` sequences the curve has the lesser slope, and ends at
    what prompts take. What a sequence takes beyond a token of a prompt is its own.
    """
    slope, largest = min(prefill, decode), blank.max_batched_tokens
    bend = min(max(round(most), 2), largest - 1)
    knots = ((1, base + slope / 1e3), (bend, base + slope * bend / 1e3), (largest, base + prefill * largest / 1e3))
    rounded = tuple((tokens, float(f"{ms:.6g}")) for tokens, ms in knots)
    return blank.model_copy(
        update={"iteration_ms": rounded, "decode_us_per_sequence": float(f"{max(decode - prefill, 0.0):.6g}")}
    )


def _windows(column: Floats) -> Floats:
    """Sums over WINDOW rows that follow each other."""
    return np.convolve(column, np.ones(WINDOW), "valid")


def _predict(costs: Floats, table: _Table) -> Floats:
    return np.stack([table.iterations, table.prompt, table.output, table.kv], axis=1) @ costs
