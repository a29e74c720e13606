"""A trace of requests that counts as the history did.

    made = rebuild(demand_of(pools, fronts), scenario, seed=1)
    made.trace, made.notes

In each interval as many requests as arrived, at even chances within it; lengths window by window (`lengths.py`); within a window
answers go with prompts as far as windows show that they do (`joint.py`). Equal histories and seeds give equal bytes.
Read next: `recount.py` for what that is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import MeasurementError
from sageserve.base.records import Floats, Ints, Names, Trace
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, show_duration
from sageserve.data.history.records import HistogramHistory
from sageserve.data.rebuild.demand import UNKNOWN, DemandStream
from sageserve.data.rebuild.joint import joined_by_window, length_ranks
from sageserve.data.rebuild.lengths import Buckets, draw_lengths
from sageserve.data.rebuild.tiers import HOURS, hour_of_week, hourly_shares

SEEDS: Final = (1, 2, 3, 4, 5)
"""Histories are rebuilt this many times: what differs between them is not known from counters."""

REQUESTS_LEAST: Final = 200  # observations of a window; with fewer, single lengths decide
TOKENS_APART: Final = 0.2  # of counters and histograms; if they differ by more, they do not count the same requests


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Requests that were made of a history.

    Args:
        trace: they themselves; `trace.start` is where the history begins.
        lengths: `histograms`, or `means` where only totals were recorded: every request then has the mean length, queues look
            shorter than they were, and promises safer.
        notes: what the user should know, in sentences; gaps among them.
    """

    trace: Trace
    lengths: Literal["histograms", "means"]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Columns of one stream."""

    arrival: Ints
    prompt: NDArray[np.int32]
    output: NDArray[np.int32]
    tier: NDArray[np.uint8]
    means: bool


def rebuild(streams: Sequence[DemandStream], scenario: Scenario, seed: int) -> Rebuilt:
    """Make requests.

    Args:
        streams: on one grid; regions, models and tiers are the scenario's.
        scenario: names, contexts, and shares of service classes that were not recorded.
        seed: of everything that counters leave open.

    Raises:
        MeasurementError: nothing arrived in any of them, or not even token totals say how long requests were.
    """
    if not any(np.nansum(one.filled()) >= 1 for one in streams):
        raise MeasurementError(
            "the history shows no requests at all", hint="choose another window, or let `sageserve doctor` say what is not seen"
        )
    notes: list[str] = []
    ranks = length_ranks(streams)
    drawn = [_draw(one, scenario, (seed, ranks[one.model, one.tier].found), notes) for one in streams]
    names = Names(tuple(scenario.models), tuple(scenario.regions), tuple(scenario.tiers))
    lengths = [len(one.arrival) for one in drawn]
    arrival = np.concatenate([one.arrival for one in drawn])
    order = np.argsort(arrival, kind="stable")
    region = np.repeat([names.regions.index(one.region) for one in streams], lengths)
    model = np.repeat([names.models.index(one.model) for one in streams], lengths)
    grid = streams[0].grid
    trace = Trace(
        arrival=arrival[order],
        prompt=np.concatenate([one.prompt for one in drawn])[order],
        output=np.concatenate([one.output for one in drawn])[order],
        model=model.astype(np.uint8)[order],
        region=region.astype(np.uint8)[order],
        tier=np.concatenate([one.tier for one in drawn])[order],
        names=names,
        window=grid.count * grid.interval,
        start=grid.begin,
        notes=tuple(dict.fromkeys(notes)),
    ).check()
    means = any(one.means for one in drawn)
    return Rebuilt(trace, "means" if means else "histograms", trace.notes)


def _draw(one: DemandStream, scenario: Scenario, how: tuple[int, float], notes: list[str]) -> _Drawn:
    seed, rho = how
    who = f"{one.region}/{one.model}" + (f"/{one.tier}" if one.tier != UNKNOWN else "")
    counts = whole_counts(one.filled())
    rng = stream(seed, f"rebuild/times/{who}")
    arrival = np.repeat(np.arange(one.grid.count) * one.grid.interval, counts)
    arrival += rng.integers(0, one.grid.interval, size=len(arrival))
    arrival.sort()
    notes += [_gap_note(one, who, gap.first, gap.last, gap.why) for gap in one.gaps[:3]]
    if len(one.gaps) > 3:
        notes.append(f"{who}: {len(one.gaps) - 3} more gaps")
    longest = scenario.models[one.model].context - 1
    columns, means = [], False
    for side, sizes, tokens in (("prompt", one.prompt, one.prompt_tokens), ("output", one.output, one.output_tokens)):
        drawn = stream(seed, f"rebuild/{side}/{who}")
        if sizes is None or not sizes.counts.sum() > 0:
            means = True
            columns.append(_alike(tokens, len(arrival), (who, side), notes))
            continue
        columns.append(_lengths(sizes, arrival, (tokens, longest, f"{who}: {side}"), drawn, notes))
    prompt, output = columns
    if rho and not means and one.output is not None:
        kind = "longer" if rho > 0 else "shorter"
        notes.append(f"{who}: longer prompts have {kind} answers (rank correlation {rho:.2f}, by how windows differ)")
        rows = _rows(one.output, arrival)[1]
        output = joined_by_window((prompt, output), rows, rho, stream(seed, f"rebuild/joint/{who}"))
    return _Drawn(arrival, prompt, output, _tiers(one, scenario, arrival, seed, notes), means)


def whole_counts(arrivals: Floats) -> Ints:
    """Whole requests by interval; what is left over is carried, so that no sum is ever off by more than a half."""
    found: Ints = np.diff(np.floor(np.round(np.cumsum(arrivals), 9) + 0.5), prepend=0.0).astype(np.int64)
    return found


def _lengths(
    sizes: HistogramHistory,
    arrival: Ints,
    told: tuple[float, int, str],
    rng: np.random.Generator,
    notes: list[str],
) -> NDArray[np.int32]:
    """Lengths by window, at each window's own shares and mean; all together with as many tokens as counters have."""
    tokens, longest, who = told
    edges, rows = _rows(sizes, arrival)
    counts = np.add.reduceat(sizes.counts, edges[:-1], axis=0)
    means = np.add.reduceat(sizes.total, edges[:-1]) / np.maximum(counts.sum(axis=1), 1e-9)
    n = np.diff(rows)
    factor = tokens / float((n * means).sum()) if (n * means).sum() > 0 else float("nan")
    if not abs(factor - 1) < TOKENS_APART:
        if np.isfinite(factor):
            notes.append(
                f"{who} tokens of counters are {factor:.2f} times those of histograms: they do not count the same requests, "
                "histograms are believed"
            )
        factor = 1.0
    found = np.empty(len(arrival), np.int32)
    for window in range(len(n)):
        one = Buckets(sizes.bounds, counts[window], float(means[window]) * factor, longest)
        found[rows[window] : rows[window + 1]] = draw_lengths(one, int(n[window]), rng)
    return found


def _rows(sizes: HistogramHistory, arrival: Ints) -> tuple[Ints, Ints]:
    """Where windows begin, and the last ends: in the histogram, and among requests."""
    edges = _windows(sizes)
    rows = np.searchsorted(arrival, edges * sizes.grid.interval)
    rows[0], rows[-1] = 0, len(arrival)
    return edges, rows


def _windows(sizes: HistogramHistory) -> Ints:
    """int64[k + 1], rising from 0 to all: windows joined until each has REQUESTS_LEAST observations."""
    per_window = sizes.counts.sum(axis=1)
    edges, held = [0], 0.0
    for window, count in enumerate(per_window.tolist()):
        held += count
        if held >= REQUESTS_LEAST:
            edges.append(window + 1)
            held = 0.0
    if len(edges) == 1:
        edges.append(len(per_window))
    edges[-1] = len(per_window)
    return np.array(edges, np.int64)


def _alike(tokens: float, n: int, whose: tuple[str, str], notes: list[str]) -> NDArray[np.int32]:
    """Every length the mean, because nothing else was recorded."""
    who, side = whose
    if n and not tokens > 0:
        raise MeasurementError(
            f"{who}: nothing recorded says how long {side}s are",
            hint="scrape the engine's histograms of lengths, or give a trace file with --trace",
        )
    mean = max(1.0, tokens / max(n, 1)) if tokens > 0 else 1.0
    notes.append(
        f"{who}: only the mean length of {side}s was recorded ({mean:,.0f} tokens): queues look shorter than they were, "
        "promises safer"
    )
    found: NDArray[np.int32] = np.maximum(np.diff(np.rint(mean * np.arange(n + 1))), 1).astype(np.int32)
    return found


def _tiers(one: DemandStream, scenario: Scenario, arrival: Ints, seed: int, notes: list[str]) -> NDArray[np.uint8]:
    if one.tier != UNKNOWN:
        return np.full(len(arrival), tuple(scenario.tiers).index(one.tier), np.uint8)
    shares, said = hourly_shares(scenario, one.region, one.model)
    if said:
        notes.append(said)
    hours = (hour_of_week(one.grid.begin) + (arrival + one.grid.begin % HOUR) // HOUR) % HOURS
    drawn = stream(seed, f"rebuild/tiers/{one.region}/{one.model}").random(len(arrival))
    cumulative = np.cumsum(shares, axis=1)[:, :-1]
    found: NDArray[np.uint8] = (drawn[:, None] >= cumulative[hours]).sum(axis=1).astype(np.uint8)
    return found


def _gap_note(one: DemandStream, who: str, first: int, last: int, why: str) -> str:
    begin = np.datetime64((one.grid.begin + first * one.grid.interval) // 1_000_000, "s")
    length = show_duration((last - first) * one.grid.interval)
    return f"{who}: nothing is known of {length} from {begin} UTC ({why})"
