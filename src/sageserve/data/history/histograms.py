"""Histograms over time: growth of the buckets of many instances, by window, whichever way they were recorded.

Raw buckets are added up here (files); growth by window that a server computed is only put into order (`of_windows`).
Knows no metric. Read next: `collect.py`, `live/prometheus/read.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from sageserve.base.records import Floats
from sageserve.data.history.counters import growth, on_grid, resets
from sageserve.data.history.raw import RawSeries
from sageserve.data.history.records import Grid, HistogramHistory


def bound_of(text: str) -> float:
    """A bucket's upper bound as it stands in `le`; infinite for what is no number, so that nothing is lost."""
    try:
        return float(text)
    except ValueError:
        return float("inf")


@dataclass(slots=True)
class HistogramCollector:
    """Adds up raw buckets and sums, chunk by chunk.

    Args:
        grid: windows.
    """

    grid: Grid
    _buckets: dict[float, Floats] = field(default_factory=dict)
    _total: Floats | None = None
    _last: dict[tuple[str, ...], tuple[int, float]] = field(default_factory=dict)

    def add_bucket(self, one: RawSeries) -> None:
        """Samples of one bucket of one instance, after those that were added before."""
        bound = bound_of(one.labels.get("le", ""))
        if bound not in self._buckets:
            self._buckets[bound] = np.zeros(self.grid.count)
        self._buckets[bound] += self._grown(one)

    def add_total(self, one: RawSeries) -> None:
        """Samples of the sum of one instance."""
        if self._total is None:
            self._total = np.zeros(self.grid.count)
        self._total += self._grown(one)

    def finish(self) -> HistogramHistory | None:
        """All of it; none when there was nothing."""
        if not self._buckets or self._total is None:
            return None
        return of_windows(self.grid, self._buckets, self._total)

    def _grown(self, one: RawSeries) -> Floats:
        key = (one.name, one.instance, *one.part)
        good = np.isfinite(one.value)
        time, value = one.time[good], one.value[good]
        if key in self._last:
            before, last = self._last[key]
            time, value = np.concatenate(([before], time)), np.concatenate(([last], value))
        if len(time) == 0:
            return np.zeros(self.grid.count)
        self._last[key] = int(time[-1]), float(value[-1])
        return on_grid(time, growth(value, resets([value])), self.grid.edges())


def of_windows(grid: Grid, cumulative: dict[float, Floats], total: Floats) -> HistogramHistory:
    """Growth of cumulative buckets by upper bound, as counts by bucket.

    Scrapes and restarts may leave a bucket's growth a little below that of the one before it; it then counts as empty.

    Args:
        grid: of the windows.
        cumulative: float64[windows] by upper bound.
        total: float64[windows].
    """
    bounds = sorted(cumulative)
    stacked = np.maximum.accumulate(np.stack([cumulative[bound] for bound in bounds], axis=1), axis=1)
    counts = np.diff(stacked, axis=1, prepend=0.0)
    if not np.isinf(bounds[-1]):
        counts, bounds = np.concatenate((counts, np.zeros((len(counts), 1))), axis=1), [*bounds, float("inf")]
    return HistogramHistory(grid, np.array(bounds[:-1]), counts, total)


def joined(found: Iterable[HistogramHistory]) -> HistogramHistory | None:
    """Several histograms of the same grid as one; those whose buckets differ from the first's are put into its buckets.

    Returns:
        None when there are none.
    """
    first: HistogramHistory | None = None
    for one in found:
        if first is None:
            first = one
            continue
        rows = np.searchsorted(first.bounds, np.append(one.bounds, np.inf), side="left")
        counts = first.counts.copy()
        for row, column in zip(rows.tolist(), one.counts.T, strict=True):
            counts[:, row] += column
        first = HistogramHistory(first.grid, first.bounds, counts, first.total + one.total)
    return first
