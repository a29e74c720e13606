"""What a recorded history holds, interval by interval: what arrived, how long it was, what ran, and where nothing was seen.

All arrays stand on one grid of equal intervals. NaN is "not seen" and never zero: an interval without samples is in a `Gap`.
Knows no metric names and no files. Read next: `collect.py`, which makes these; `data/rebuild/`, which makes requests of them.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, Micros

WINDOW: Final[Micros] = 5 * MINUTE  # shortest stretch whose lengths are told apart from its neighbours'
SEEN_LEAST: Final = 0.9  # share of the instances that must have been scraped for an interval to count as seen

NO_INSTANCE: Final = "no instance is known"
NOT_SCRAPED: Final = "not scraped"


@dataclass(frozen=True, slots=True)
class Grid:
    """Equal intervals.

    Args:
        begin: microseconds since 1970.
        interval: microseconds.
        count: how many.
    """

    begin: Micros
    interval: Micros
    count: int

    @property
    def end(self) -> Micros:
        """Where the last interval ends."""
        return self.begin + self.count * self.interval

    def edges(self) -> Ints:
        """int64[count + 1]: where intervals begin, and where the last one ends."""
        return self.begin + np.arange(self.count + 1) * self.interval

    def coarser(self, interval: Micros) -> "Grid":
        """Longer intervals over the same stretch; the last one may reach beyond it."""
        step = max(interval, self.interval)
        return Grid(self.begin, step, -(-(self.count * self.interval) // step))


@dataclass(frozen=True, slots=True)
class Gap:
    """Intervals [first, last) in which too few instances were seen.

    Args:
        first: number of the first interval.
        last: number of the first interval after it.
        why: NO_INSTANCE, NOT_SCRAPED, or what kept it from being read.
        grown: requests that counters of instances seen before and after say came in it; when in it is not known.
    """

    first: int
    last: int
    why: str
    grown: float = 0.0


@dataclass(frozen=True, slots=True)
class HistogramHistory:
    """A histogram over time; all windows have the same buckets.

    Args:
        grid: of its windows.
        bounds: float64[buckets - 1], upper bounds of all buckets but the last, which has none.
        counts: float64[windows, buckets], observations in each window and bucket.
        total: float64[windows], sum of the observations.
    """

    grid: Grid
    bounds: Floats
    counts: Floats
    total: Floats

    def summed(self) -> tuple[Floats, float]:
        """Counts by bucket, and the sum, over all windows."""
        return self.counts.sum(axis=0), float(self.total.sum())

    def quantile(self, share: float) -> float:
        """Value below which that share of all observations lies, straight within its bucket; NaN when there are none.

        In the last bucket it is that bucket's lower bound, as PromQL's histogram_quantile has it.
        """
        counts, _ = self.summed()
        if not counts.sum() > 0:
            return float("nan")
        cumulative = np.cumsum(counts)
        rank = share * cumulative[-1]
        bucket = int(np.searchsorted(cumulative, rank))
        low = float(self.bounds[bucket - 1]) if bucket else 0.0
        if bucket >= len(self.bounds):
            return low
        inside = (rank - (cumulative[bucket - 1] if bucket else 0.0)) / counts[bucket] if counts[bucket] else 1.0
        return low + (float(self.bounds[bucket]) - low) * float(inside)


@dataclass(frozen=True, slots=True)
class PoolHistory:
    """What the instances of one pool did.

    Args:
        name: of the pool, as it was asked for.
        grid: of all arrays below.
        arrivals: float64[count], requests that arrived at its engines: completions and the change of what is inside.
        completed: float64[count].
        prompt_tokens: float64[count], prompt tokens that were processed.
        output_tokens: float64[count], tokens that were generated.
        running: float64[count], mean over the interval of all instances together.
        waiting: float64[count].
        instances: float64[count], instances that were seen.
        gaps: stretches that were not seen; the arrays are NaN there.
        histograms: `prompt_size`, `output_size`, `ttft`, `queue`, `e2e`, as far as they were recorded.
        resets: restarts of engines that counters show.
        matched: which names were found, as `signal: metric`.
        notes: what the user should know, in sentences.
    """

    name: str
    grid: Grid
    arrivals: Floats
    completed: Floats
    prompt_tokens: Floats
    output_tokens: Floats
    running: Floats
    waiting: Floats
    instances: Floats
    gaps: tuple[Gap, ...] = ()
    histograms: dict[str, HistogramHistory] = field(default_factory=dict)
    resets: int = 0
    matched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FrontHistory:
    """What was offered at a gateway, for one model and service class.

    Args:
        model: as the gateway names it.
        tier: its label for the service class; empty: it has none.
        grid: of `arrivals`.
        arrivals: float64[count], NaN where the gateway was not seen.
        gaps: stretches that were not seen.
        histograms: `prompt_size`, `output_size`, if it has them.
        metric: which counter was read.
    """

    model: str
    tier: str
    grid: Grid
    arrivals: Floats
    gaps: tuple[Gap, ...]
    histograms: dict[str, HistogramHistory] = field(default_factory=dict)
    metric: str = ""
