"""What gateways counted: arrivals by model and service class, from the best counter there is.

A gateway that emits several names of one counter is read once: the first of `names.FRONTS` that is there, for each model. A
counter of a gateway that was there before began at zero, for gateways show a label's first request, and not its absence.
Knows no server and no file. Read next: `collect.py` for engines, `data/rebuild/demand.py` for which of both counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sageserve.base.records import Floats
from sageserve.data.history import counters
from sageserve.data.history.counters import Presence
from sageserve.data.history.histograms import HistogramCollector
from sageserve.data.history.names import FRONTS, FrontAlias, FrontSignal
from sageserve.data.history.raw import RawSeries, hole_after, without_copies
from sageserve.data.history.records import WINDOW, FrontHistory, Grid, HistogramHistory

_PLACE: Final = {alias: row for row, alias in enumerate(FRONTS)}
_ARRIVALS: Final = {alias.metric: alias for alias in FRONTS if alias.signal is FrontSignal.ARRIVALS}
_SIZES: Final = {
    f"{alias.metric}{end}": (alias, end)
    for alias in FRONTS
    if alias.signal is not FrontSignal.ARRIVALS
    for end in ("_bucket", "_sum")
}
REFUSED: Final = frozenset({"400", "401", "403", "404", "405", "413", "422"})
"""Answers to requests that no engine could have served: they are no demand."""


@dataclass(slots=True)
class FrontCollector:
    """Adds up what gateways counted, chunk by chunk, each after the one before.

    Args:
        grid: of the result.
    """

    grid: Grid
    _sums: dict[tuple[FrontAlias, str, str], Floats] = field(default_factory=dict)
    _sizes: dict[tuple[FrontAlias, str, str], HistogramCollector] = field(default_factory=dict)
    _last: dict[tuple[str, ...], tuple[int, float]] = field(default_factory=dict)
    _doors: dict[tuple[FrontAlias, str], Presence] = field(default_factory=dict)

    def add(self, chunk: Iterable[RawSeries]) -> None:
        """Series of the next stretch of time; other metrics are passed over."""
        kept, _ = without_copies(one for one in chunk if len(one) and (one.name in _ARRIVALS or one.name in _SIZES))
        doors: dict[tuple[FrontAlias, str], list[RawSeries]] = {}
        for one in kept:
            if one.name in _SIZES:
                self._size(one)
            else:
                doors.setdefault((_ARRIVALS[one.name], one.instance), []).append(one)
        for (alias, instance), series in doors.items():
            self._see(alias, instance, series)
            for one in series:
                if one.labels.get("code") not in REFUSED:
                    self._count(alias, one)

    def finish(self) -> tuple[FrontHistory, ...]:
        """By model and service class, in order of their names."""
        best: dict[str, FrontAlias] = {}
        for alias, model, _ in self._sums:
            if model not in best or _PLACE[alias] < _PLACE[best[model]]:
                best[model] = alias
        edges = self.grid.edges()
        found = []
        for (alias, model, tier), sums in sorted(self._sums.items(), key=lambda item: item[0][1:]):
            if best[model] is not alias:
                continue
            presences = [presence for (of, _), presence in self._doors.items() if of is alias]
            gaps = counters.gaps_of(*counters.seen_of(presences, edges))
            seen = sums.copy()
            for gap in gaps:
                seen[gap.first : gap.last] = np.nan
            found.append(FrontHistory(model, tier, self.grid, seen, gaps, self._histograms(alias, model, tier), alias.metric))
        return tuple(found)

    def _see(self, alias: FrontAlias, instance: str, series: Sequence[RawSeries]) -> None:
        time = np.unique(np.concatenate([one.time for one in series]))
        presence = self._doors.get((alias, instance))
        if presence is None:
            first = int(time[0])
            presence = self._doors[alias, instance] = Presence(first, first, [(first, first)])
        presence.extend(time[time > presence.last], max(hole_after(time), int(2.5 * self.grid.interval)))

    def _count(self, alias: FrontAlias, one: RawSeries) -> None:
        good = np.isfinite(one.value)
        time, value = one.time[good], one.value[good]
        if len(time) == 0:
            return
        key = alias, one.labels.get(alias.model, ""), one.labels.get(alias.tier, "") if alias.tier else ""
        mine = (one.name, one.instance, *one.part)
        if mine in self._last:
            before, last = self._last[mine]
            time, value = time[time > before], value[time > before]
        elif int(time[0]) > self._doors[alias, one.instance].first:  # the door was there: the label is new
            before, last = int(time[0]) - self.grid.interval, 0.0
        else:
            before, last = int(time[0]), float(value[0])
        time, value = np.concatenate(([before], time)), np.concatenate(([last], value))
        grown = counters.on_grid(time, counters.growth(value, counters.resets([value])), self.grid.edges())
        self._sums[key] = self._sums.get(key, 0.0) + grown
        self._last[mine] = int(time[-1]), float(value[-1])

    def _size(self, one: RawSeries) -> None:
        alias, end = _SIZES[one.name]
        key = alias, one.labels.get(alias.model, ""), one.labels.get(alias.tier, "") if alias.tier else ""
        collector = self._sizes.setdefault(key, HistogramCollector(self.grid.coarser(WINDOW)))
        if end == "_bucket":
            collector.add_bucket(one)
        else:
            collector.add_total(one)

    def _histograms(self, arrivals: FrontAlias, model: str, tier: str) -> dict[str, HistogramHistory]:
        """The best sizes of the same gateway."""
        found: dict[str, HistogramHistory] = {}
        for (alias, of_model, of_tier), collector in sorted(self._sizes.items(), key=lambda item: _PLACE[item[0][0]]):
            mine = alias.front is arrivals.front and (of_model, of_tier) == (model, tier)
            if mine and alias.signal.value not in found and (one := collector.finish()) is not None:
                found[alias.signal.value] = one
        return found
