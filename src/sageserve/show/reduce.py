"""Millions of requests as a few thousand numbers, one row group at a time: what the figures of a report are drawn from.

    digest = digest_of(run, Grid.over(window))
    digest.work[region, model, 0]          # busy instances that interactive demand asks for, by bucket of time

Latencies go into bins of 1.8 % (128 per decade); shares and counts are exact. Memory is that of one row group. Knows parquet
columns; draws nothing. Read next: `minutes.py` for the timeline, `figures/` for what is drawn.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import ResultError
from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.history import BIN
from sageserve.core.layout import Layout
from sageserve.core.perf import engine_times
from sageserve.core.strategies import layout_of
from sageserve.data.results.run_folder import REQUESTS, RunFolder

INTERACTIVE: Final = 0
BATCH: Final = 1
PER_DECADE: Final = 128
SHORTEST: Final = 3  # decades of microseconds: latencies start at a millisecond
_DECADES: Final = 9  # to 10^12 us, eleven days
BINS: Final = PER_DECADE * _DECADES
_WIDTHS: Final = tuple(k * MINUTE for k in (1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 240, 480, 720, 1440, 7 * 1440))
_FINE: Final = 20_160  # minutes of two weeks: how exactly the age of the oldest job is known
_LATE: Final = np.iinfo(np.int64).max
_COLUMNS: Final = [
    *("arrival_us", "model", "tier", "region", "prompt_tokens", "output_tokens", "deadline_us"),
    *("served_region", "state", "ttft_us", "e2e_us", "met"),
]


@dataclass(frozen=True, slots=True)
class TimeBuckets:
    """Buckets of equal width over the window; the last may reach beyond its end."""

    width: Micros
    count: int
    window: Micros

    @staticmethod
    def over(window: Micros, most: int = 720) -> "TimeBuckets":
        """The finest grid of whole minutes with at most so many buckets (none finer than a minute)."""
        width = next((one for one in _WIDTHS if -(-window // one) <= most), _WIDTHS[-1])
        return TimeBuckets(width, max(1, -(-window // width)), window)

    def at(self, times: Ints) -> Ints:
        """The bucket of each time; what lies after the window is in none (`count`)."""
        return np.minimum(times // self.width, self.count)

    def lengths(self) -> Floats:
        """Seconds of each bucket inside the window."""
        ends = np.minimum((np.arange(self.count) + 1) * self.width, self.window)
        return np.maximum(ends - np.arange(self.count) * self.width, 1) / SECOND


@dataclass(frozen=True, slots=True)
class BatchSeries:
    """Batch work over time, by bucket.

    Args:
        outstanding: jobs that arrived and are neither done nor given up at the end of the bucket.
        oldest_s: age of the oldest of them (to within a minute in windows of two weeks), 0 when there is none.
        slack_s: the least time to its deadline of the jobs that finished in the bucket; nan when none did.
        patience_s: the longest that a tier's jobs may wait; the deadlines of single jobs may be others.
    """

    outstanding: Ints
    oldest_s: Floats
    slack_s: Floats
    patience_s: float


@dataclass(frozen=True, slots=True)
class Digest:
    """The requests of a run, summed up. R regions, M models, K tiers, B buckets.

    Args:
        grid: of B.
        layout: what the numbers mean.
        work: float64[R, M, 2, B], instances of the model's fastest engine that what arrived keeps busy: interactive, batch.
        tokens: float64[R, M, bins of 15 minutes], interactive prompt tokens/s by region of origin.
        arrived: int64[K, B].
        met: int64[K, B], of those, how many promises were kept.
        ttft: int64[K, BINS], finished requests by latency; see `edges_s`.
        e2e: int64[K, BINS], likewise.
        pace: int64[K, BINS], likewise by time per token after the first, of those with several.
        flows: int64[M, R, R + 1], requests by origin and by the region that served them; last: none.
        hopeless: int64[K], requests whose prompt alone takes an idle engine longer than the promised time to the first token.
        jobs: of the batch tiers; None without such.
    """

    grid: TimeBuckets
    layout: Layout
    work: Floats
    tokens: Floats
    arrived: Ints
    met: Ints
    ttft: Ints
    e2e: Ints
    pace: Ints
    flows: Ints
    hopeless: Ints
    jobs: BatchSeries | None


def edges_s() -> Floats:
    """float64[BINS], seconds: upper edges of the latency bins."""
    return 10.0 ** (SHORTEST + (np.arange(BINS) + 1) / PER_DECADE) / SECOND


def digest_of(run: RunFolder, grid: TimeBuckets) -> Digest:
    """Read a run's requests once and sum them up.

    Raises:
        ResultError: requests.parquet cannot be read.
    """
    sums = _Sums(run.scenario, grid)
    try:
        with pq.ParquetFile(run.path / REQUESTS) as file:
            for group in range(file.num_row_groups):
                sums.add(file.read_row_group(group, columns=_COLUMNS))
    except (OSError, pa.ArrowInvalid) as error:
        raise ResultError(f"{run.path / REQUESTS} cannot be read ({error})", hint="simulate again with --out") from None
    return sums.digest()


@dataclass(frozen=True, slots=True)
class _Part:
    """The columns of a row group, as codes and numbers; -1 where there is nothing."""

    arrival: Ints
    model: Ints
    tier: Ints
    region: Ints
    served: Ints
    prompt: Ints
    output: Ints
    deadline: Ints
    ttft: Ints
    e2e: Ints
    met: NDArray[np.bool_]
    shed: NDArray[np.bool_]


class _Sums:
    """What a digest is made of, while it is being made."""

    def __init__(self, scenario: Scenario, grid: TimeBuckets) -> None:
        self.layout = layout_of(scenario)
        names = self.layout.names
        regions, models, tiers = len(names.regions), len(names.models), len(names.tiers)
        self.grid = grid
        self.batch = np.array([tier.batch for tier in scenario.tiers.values()])
        self.kept_to_ttft = ~self.batch
        queued = scenario.batch.feed != "direct"
        self.forecast = ~self.batch if queued else np.ones(tiers, np.bool_)  # the tiers that planners forecast
        self.patience_s = max((tier.patience for tier in scenario.tiers.values() if tier.batch), default=0) / SECOND
        self.engine = [_fastest(self.layout, m) for m in range(models)]
        bins = max(1, -(-grid.window // BIN))
        self.work = np.zeros((regions, models, 2, grid.count + 1))
        self.tokens = np.zeros((regions, models, bins + 1))
        self.arrived = np.zeros((tiers, grid.count + 1), np.int64)
        self.met = np.zeros_like(self.arrived)
        self.ttft = np.zeros((tiers, BINS), np.int64)
        self.e2e = np.zeros((tiers, BINS), np.int64)
        self.pace = np.zeros((tiers, BINS), np.int64)
        self.flows = np.zeros((models, regions, regions + 1), np.int64)
        self.hopeless = np.zeros(tiers, np.int64)
        self.came = np.zeros(grid.count + 1, np.int64)
        self.went = np.zeros(grid.count + 1, np.int64)
        self.fine = TimeBuckets.over(grid.window, _FINE)
        self.first = np.full(self.fine.count + 1, _LATE)  # earliest arrival of a batch job, by fine bucket of arrival
        self.last = np.full(self.fine.count + 1, -1)  # latest finish of those
        self.slack = np.full(grid.count + 1, _LATE)

    def add(self, table: pa.Table) -> None:
        """Take in a row group."""
        part = self._part(table)
        if len(part.arrival) == 0:
            return
        bucket = self.grid.at(part.arrival)
        self._demand(part, bucket)
        _count(self.arrived, part.tier, bucket)
        _count(self.met, part.tier[part.met], bucket[part.met])
        done = part.e2e >= 0
        for into, value in ((self.ttft, part.ttft), (self.e2e, part.e2e)):
            _count(into, part.tier[done], _bin(value[done]))
        several = done & (part.output > 1)
        _count(self.pace, part.tier[several], _bin((part.e2e - part.ttft)[several] // (part.output[several] - 1)))
        place = np.where(part.served < 0, self.flows.shape[2] - 1, part.served)
        _count(self.flows, part.model, part.region, place)
        if self.batch.any():
            self._jobs(part, bucket)

    def digest(self) -> Digest:
        """What has come together."""
        ends = self.grid.lengths() * SECOND
        keep = slice(self.grid.count)
        bins = np.diff(np.minimum(np.arange(self.tokens.shape[2]) * BIN, self.grid.window)) / SECOND
        return Digest(
            self.grid,
            self.layout,
            self.work[..., keep] / ends,
            self.tokens[..., :-1] / np.maximum(bins, 1e-9),
            self.arrived[:, keep],
            self.met[:, keep],
            self.ttft,
            self.e2e,
            self.pace,
            self.flows,
            self.hopeless,
            self._queue() if self.batch.any() else None,
        )

    def _part(self, table: pa.Table) -> _Part:
        names = self.layout.names

        def number(name: str) -> Ints:
            found: Ints = table[name].fill_null(-1).to_numpy().astype(np.int64, copy=False)
            return found

        return _Part(
            arrival=number("arrival_us"),
            model=_codes(table["model"], names.models),
            tier=_codes(table["tier"], names.tiers),
            region=_codes(table["region"], names.regions),
            served=_codes(table["served_region"], names.regions),
            prompt=number("prompt_tokens"),
            output=number("output_tokens"),
            deadline=number("deadline_us"),
            ttft=number("ttft_us"),
            e2e=number("e2e_us"),
            met=table["met"].to_numpy(),
            shed=pc.equal(table["state"], "shed").to_numpy(),
        )

    def _demand(self, part: _Part, bucket: Ints) -> None:
        alone = np.zeros(len(part.arrival))
        work = np.zeros(len(part.arrival))
        for model, engine in enumerate(self.engine):
            rows = np.flatnonzero(part.model == model)
            if engine is not None and len(rows):
                mine = np.zeros((2, len(rows)))
                engine_times(engine, part.prompt[rows], part.output[rows], mine)
                work[rows], alone[rows] = mine
        kind = self.batch[part.tier].astype(np.int64)
        _count(self.work, part.region, part.model, kind, bucket, weights=work)
        wanted = self.forecast[part.tier]
        bins = np.minimum(part.arrival // BIN, self.tokens.shape[2] - 1)
        index = (part.region[wanted], part.model[wanted], bins[wanted])
        _count(self.tokens, *index, weights=part.prompt[wanted].astype(np.float64))
        stuck = self.kept_to_ttft[part.tier] & (alone > part.deadline - part.arrival)
        _count(self.hopeless, part.tier[stuck])

    def _jobs(self, part: _Part, bucket: Ints) -> None:
        mine = self.batch[part.tier]
        arrival, e2e, at = part.arrival[mine], part.e2e[mine], bucket[mine]
        finish = np.where(e2e >= 0, arrival + e2e, _LATE)
        finish = np.where(part.shed[mine], part.deadline[mine], finish)
        np.add.at(self.came, at, 1)
        fine = self.fine.at(arrival)
        np.minimum.at(self.first, fine, arrival)
        np.maximum.at(self.last, fine, finish)
        over = finish < _LATE
        np.add.at(self.went, self.grid.at(finish[over]), 1)
        done = e2e >= 0
        np.minimum.at(self.slack, self.grid.at(finish[done]), part.deadline[mine][done] - finish[done])

    def _queue(self) -> BatchSeries:
        count = self.grid.count
        ends = np.minimum((np.arange(count) + 1) * self.grid.width, self.grid.window)
        # the first bucket of arrival where the highest finish so far lies ahead; it never falls, so it can be searched
        at = np.searchsorted(np.maximum.accumulate(self.last), ends, side="right")
        began = np.append(self.first, _LATE)[at]
        oldest = np.where(began < ends, ends - began, 0)
        slack = self.slack[:count]
        return BatchSeries(
            np.cumsum(self.came[:count] - self.went[:count]),
            np.maximum(oldest, 0) / SECOND,
            np.where(slack == _LATE, np.nan, slack / SECOND),
            self.patience_s,
        )


def _fastest(layout: Layout, model: int) -> Any:  # noqa: ANN401 # a PROFILE row has no static type
    rows = {pool.profile for pool in layout.pools if pool.model == model}
    return layout.profiles[min(rows, key=lambda row: (int(layout.profiles[row]["weight"]), row))] if rows else None


def _count(into: NDArray[Any], *index: Ints, weights: Floats | None = None) -> None:
    """Add one (or a weight) at each index."""
    flat = np.ravel_multi_index(index, into.shape)
    into += np.bincount(flat, weights=weights, minlength=into.size).reshape(into.shape).astype(into.dtype, copy=False)


def _bin(latency: Ints) -> Ints:
    """The bin of each latency: (edge below, edge above]."""
    place = np.ceil((np.log10(np.maximum(latency, 1)) - SHORTEST) * PER_DECADE).astype(np.int64) - 1
    bins: Ints = np.clip(place, 0, BINS - 1)
    return bins


def _codes(column: pa.ChunkedArray, names: tuple[str, ...]) -> Ints:
    """Names as their numbers, null as -1; the dictionary of a file need not be in order."""
    one = column.combine_chunks()
    if isinstance(one, pa.ChunkedArray):
        one = (
            one.chunk(0)
            if one.num_chunks
            else pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], pa.string()))
        )
    lookup = np.array([*(names.index(word) for word in one.dictionary.to_pylist()), -1], np.int64)
    codes: Ints = lookup[one.indices.fill_null(len(lookup) - 1).to_numpy()]
    return codes
