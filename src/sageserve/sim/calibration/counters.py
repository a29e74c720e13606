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
from sageserve.sim.calibration.coefficients import with_values
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
        seconds: rows that were fitted.
        range: what load they covered, for people.
        heldout: relative error of the time the later half of the seconds should have taken; None when all were fitted.
        notes: what could not be told, in sentences.
    """

    profile: ProfileSettings
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
    predicted = _predict(found.profile, late)
    error = float(np.abs(predicted - late.duration).sum() / late.duration.sum())
    return CountersFit(found.profile, found.seconds, found.range, error, found.notes)


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
    values = np.zeros(6)
    values[0], values[1], values[2] = found[0] * 1e3, found[1] * 1e6, found[2] * 1e6
    values[3] = found[3] * 1e9 if apart else 0.0
    notes = () if apart else ("the cost of KV tokens is inside decode_us_per_sequence, at the mean context of these seconds",)
    if values[0] <= 0 or values[1] <= 0:
        raise MeasurementError(
            "the counters give an iteration or a prompt token no cost at all: they do not fit the engine model",
            hint="use per-request logs (sageserve calibrate logs), or a longer recording with more varied load",
        )
    reach = f"{len(kept.duration)} s of counters, {kept.running.min():.0f}-{kept.running.max():.0f} running requests"
    return CountersFit(with_values(blank, values), len(kept.duration), reach, None, notes)


def _windows(column: Floats) -> Floats:
    """Sums over WINDOW rows that follow each other."""
    return np.convolve(column, np.ones(WINDOW), "valid")


def _predict(profile: ProfileSettings, table: _Table) -> Floats:
    return (
        profile.base_ms * 1e-3 * table.iterations
        + profile.prefill_us_per_token * 1e-6 * table.prompt
        + profile.decode_us_per_sequence * 1e-6 * table.output
        + profile.kv_ns_per_token * 1e-9 * table.kv
    )
