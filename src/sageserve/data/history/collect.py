"""Raw series of a pool, chunk by chunk, become what the pool did: memory holds sums by interval, not samples.

    collector = PoolCollector("east/llama/h100", Grid(begin, 15 * SECOND, 5760))
    for chunk in chunks:            # in order of time; each holds whole series of its stretch
        collector.add(chunk)
    history = collector.finish()

Of several names of a signal the first that an instance has is taken, and older ones only where it has no sample. Knows no
server and no file. Read next: `counters.py` for the arithmetic, `names.py` for the names.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from sageserve.base.records import Bools, Floats, Ints
from sageserve.base.units import SECOND
from sageserve.data.history import counters
from sageserve.data.history.counters import Presence
from sageserve.data.history.histograms import HistogramCollector
from sageserve.data.history.names import PREFIXES, Alias, EngineKind, EngineSignal, aliases_of, canonical
from sageserve.data.history.raw import Copies, RawSeries, hole_after, without_copies
from sageserve.data.history.records import WINDOW, Grid, PoolHistory

PLAIN: Final = (
    EngineSignal.RUNNING,
    EngineSignal.WAITING,
    EngineSignal.SUCCESS,
    EngineSignal.PROMPT_TOKENS,
    EngineSignal.OUTPUT_TOKENS,
)
"""Signals that are read sample by sample."""

HISTOGRAMS: Final = (
    EngineSignal.PROMPT_SIZE,
    EngineSignal.OUTPUT_SIZE,
    EngineSignal.TTFT,
    EngineSignal.QUEUE,
    EngineSignal.E2E,
)
"""Signals that are read by window."""

PACE: Final = 2.0  # times as fast as soon after: engines take as much at once as ever when a fleet is short of them
SOON: Final = 4  # samples in which that shows

_COUNTED: Final = (EngineSignal.SUCCESS, EngineSignal.PROMPT_TOKENS, EngineSignal.OUTPUT_TOKENS)
_SUMS: Final = ("arrivals", "completed", "prompt_tokens", "output_tokens")

Named = Mapping[str, Sequence[RawSeries]]
"""The series of one instance by canonical name."""


@dataclass(slots=True)
class _Instance:
    """One instance: when it was seen, its last row, and what the next arrivals owe."""

    presence: Presence
    row: dict[EngineSignal, float]
    owed: float = 0.0


class PoolCollector:
    """Adds up one pool.

    Args:
        name: of the pool.
        grid: of the result.
    """

    def __init__(self, name: str, grid: Grid) -> None:
        self._name = name
        self._grid = grid
        self._edges = grid.edges()
        self._sums: dict[str, Floats] = {key: np.zeros(grid.count) for key in (*_SUMS, "running", "waiting")}
        self._instances: dict[str, _Instance] = {}
        self._histograms = {signal: HistogramCollector(grid.coarser(WINDOW)) for signal in HISTOGRAMS}
        self._matched: dict[str, None] = {}
        self._copies: Counter[str] = Counter()
        self._dropped = 0
        self._resets = 0
        self._uncounted: set[str] = set()

    def add(self, chunk: Iterable[RawSeries]) -> None:
        """Series of the next stretch of time, all of that stretch; other metrics are passed over."""
        kept, copies = without_copies(chunk)
        self._note_copies(copies)
        by_instance: dict[str, dict[str, list[RawSeries]]] = {}
        for one in kept:
            by_instance.setdefault(one.instance, {}).setdefault(canonical(one.name), []).append(self._finite(one))
        for instance, named in sorted(by_instance.items()):
            kind = _kind(named)
            if kind is not None:
                self._add_plain(instance, kind, named)
                self._add_histograms(kind, named)

    def finish(self) -> PoolHistory:
        """What the pool did."""
        known, seen = counters.seen_of([one.presence for one in self._instances.values()], self._edges)
        gaps = counters.gaps_of(known, seen)
        gaps = tuple(replace(gap, grown=float(self._sums["arrivals"][gap.first : gap.last].sum())) for gap in gaps)
        dark = np.zeros(self._grid.count, dtype=np.bool_)
        for gap in gaps:
            dark[gap.first : gap.last] = True
        sums = {key: np.where(dark, np.nan, values) for key, values in self._sums.items()}
        histograms = {signal.value: found for signal, one in self._histograms.items() if (found := one.finish()) is not None}
        return PoolHistory(
            name=self._name,
            grid=self._grid,
            arrivals=sums["arrivals"],
            completed=sums["completed"],
            prompt_tokens=sums["prompt_tokens"],
            output_tokens=sums["output_tokens"],
            running=sums["running"],
            waiting=sums["waiting"],
            instances=np.where(dark, np.nan, seen),
            gaps=gaps,
            histograms=histograms,
            resets=self._resets,
            matched=tuple(self._matched),
            notes=self._notes(),
        )

    def _finite(self, one: RawSeries) -> RawSeries:
        good = np.isfinite(one.value)
        if good.all():
            return one
        self._dropped += int(len(good) - good.sum())
        return RawSeries(one.labels, one.time[good], one.value[good])

    def _add_plain(self, instance: str, kind: EngineKind, named: Named) -> None:
        time = _times(kind, named)
        old = self._instances.get(instance)
        if old is not None:
            time = time[time > old.presence.last]
        if len(time) == 0:
            return
        hole = max(hole_after(time), int(2.5 * self._grid.interval))
        before = {} if old is None else old.row
        values = {
            signal: _filled(self._aligned(kind, signal, named, (time, hole)), before.get(signal, 0.0), counted=signal in _COUNTED)
            for signal in PLAIN
        }
        if old is None:
            old = _Instance(Presence(int(time[0]), int(time[0]), [(int(time[0]), int(time[0]))]), {})
            self._instances[instance] = old
            rows, whole = self._begin(kind, time, values)
        else:
            rows = {key: np.concatenate(([old.row[key]], column)) for key, column in values.items()}
            whole = np.concatenate(([old.presence.last], time))
        self._grow(old, whole, rows)
        self._hold(whole, time, values)
        old.presence.extend(time, hole)
        old.row = {key: float(column[-1]) for key, column in values.items()}

    def _begin(
        self, kind: EngineKind, time: Ints, values: Mapping[EngineSignal, Floats]
    ) -> tuple[Mapping[EngineSignal, Floats], Ints]:
        """Samples of an instance that is first seen, with zeros before them where it began in mid-history.

        What it counted until its first sample arrived since it began: in an interval at most. One that has counted for longer
        was not scraped before, and brings what is inside it: that arrived a moment ago.
        """
        if completions(kind) == ():
            self._uncounted.add(kind.value)
        first = int(time[0])
        if not self._grid.begin + 2.5 * self._grid.interval < first < self._grid.end:
            return values, time
        inside = float(values[EngineSignal.RUNNING][0] + values[EngineSignal.WAITING][0])
        if not _young(values[EngineSignal.SUCCESS], inside):
            self._sums["arrivals"][(first - self._grid.begin) // self._grid.interval] += inside
            return values, time
        rows = {signal: np.concatenate(([0.0], column)) for signal, column in values.items()}
        return rows, np.concatenate(([first - self._grid.interval], time))

    def _grow(self, one: _Instance, time: Ints, rows: Mapping[EngineSignal, Floats]) -> None:
        """Counters: by how much they grew, and what arrived."""
        if len(time) < 2:
            return
        reset = counters.resets([rows[signal] for signal in _COUNTED])
        self._resets += int(reset.sum())
        completed = counters.growth(rows[EngineSignal.SUCCESS], reset)
        inside = rows[EngineSignal.RUNNING] + rows[EngineSignal.WAITING]
        arrived, one.owed = counters.arrivals(completed, inside, reset, one.owed)
        grown = {
            "arrivals": arrived,
            "completed": completed,
            "prompt_tokens": counters.growth(rows[EngineSignal.PROMPT_TOKENS], reset),
            "output_tokens": counters.growth(rows[EngineSignal.OUTPUT_TOKENS], reset),
        }
        part, edges = self._part(time)
        for key, each in grown.items():
            self._sums[key][part] += counters.on_grid(time, each, edges)

    def _hold(self, whole: Ints, time: Ints, values: Mapping[EngineSignal, Floats]) -> None:
        """Gauges: their mean by interval."""
        part, edges = self._part(time if len(whole) == len(time) else whole[1:])
        if len(edges) < 2:
            return
        for key, signal in (("running", EngineSignal.RUNNING), ("waiting", EngineSignal.WAITING)):
            self._sums[key][part] += counters.mean_on_grid(time, values[signal], edges)

    def _part(self, time: Ints) -> tuple[slice, Ints]:
        """The intervals that these samples touch, and their edges."""
        first, last = (np.array([time[0], time[-1]]) - self._grid.begin) // self._grid.interval
        first, last = max(0, int(first)), min(self._grid.count, int(last) + 1)
        return slice(first, max(first, last)), self._edges[first : max(first, last) + 1]

    def _aligned(self, kind: EngineKind, signal: EngineSignal, named: Named, when: tuple[Ints, int]) -> Floats:
        """A signal of an instance at these times: all parts added; NaN where it is not there for as long as a hole."""
        time, hole = when
        found = np.full(len(time), np.nan)
        for metric in metrics_of(kind, signal):
            series = named.get(metric, ())
            missing: Bools = np.isnan(found)
            if not series or not missing.any():
                continue
            self._matched[f"{signal}: {metric}"] = None
            found = np.where(missing, _sum_at(series, time, hole), found)
        return found

    def _add_histograms(self, kind: EngineKind, named: Named) -> None:
        for signal, collector in self._histograms.items():
            for alias in aliases_of(kind, signal):
                buckets = named.get(f"{alias.metric}_bucket", ())
                if not buckets:
                    continue
                self._matched[f"{signal}: {alias.metric}"] = None
                for one in buckets:
                    collector.add_bucket(one)
                for one in named.get(f"{alias.metric}_sum", ()):
                    collector.add_total(one)
                break

    def _note_copies(self, copies: Iterable[Copies]) -> None:
        for one in copies:
            self._copies[", ".join(one.labels) or "nothing"] += 1

    def _notes(self) -> tuple[str, ...]:
        notes = [
            f"{count:,} series are there several times, told apart by {labels}: each was read once"
            for labels, count in self._copies.items()
        ]
        if self._dropped:
            notes.append(f"{self._dropped:,} samples are no finite numbers: left out")
        notes += [
            f"{kind} does not count completions: arrivals are what its queue rose by, and too few"
            for kind in sorted(self._uncounted)
        ]
        return tuple(notes)


def _young(completed: Floats, inside: float) -> bool:
    """Whether a counter began within an interval before its first sample, by how fast it grows and what is inside."""
    grown = float(np.diff(completed[: SOON + 1]).max(initial=0.0))
    return float(completed[0]) <= PACE * max(grown, inside)


def _kind(named: Named) -> EngineKind | None:
    """The engine whose metrics these are."""
    return next((kind for kind, prefix in PREFIXES.items() if any(name.startswith(prefix) for name in named)), None)


def completions(kind: EngineKind) -> tuple[str, ...]:
    """Counters of completions, best first; a histogram of whole requests counts them too."""
    counted = [alias.metric for alias in aliases_of(kind, EngineSignal.SUCCESS)]
    return (*counted, *(f"{alias.metric}_count" for alias in aliases_of(kind, EngineSignal.E2E)))


def metrics_of(kind: EngineKind, signal: EngineSignal) -> tuple[str, ...]:
    """Canonical names of a signal's series, best first."""
    if signal is EngineSignal.SUCCESS:
        return completions(kind)
    return tuple(alias.metric for alias in aliases_of(kind, signal))


def plain_metrics(aliases: Iterable[Alias]) -> set[str]:
    """Canonical names of everything that is read sample by sample."""
    kinds = {alias.engine for alias in aliases}
    return {metric for kind in kinds for signal in PLAIN for metric in metrics_of(kind, signal)}


def _filled(value: Floats, before: float, *, counted: bool) -> Floats:
    """Without NaN: a gauge that is not there is 0; a counter stays as it was, and is 0 before it is first there."""
    there = ~np.isnan(value)
    if there.all():
        return value
    if not counted:
        return np.nan_to_num(value)
    last = np.maximum.accumulate(np.where(there, np.arange(len(value)), -1))
    return np.where(last >= 0, value[np.maximum(last, 0)], before)


def _times(kind: EngineKind, named: Named) -> Ints:
    """When an instance was scraped: what all engines show at each scrape is how many requests run."""
    series = [one for metric in metrics_of(kind, EngineSignal.RUNNING) for one in named.get(metric, ())]
    if not series:
        return np.zeros(0, np.int64)
    first = series[0].time
    if all(len(one.time) == len(first) and bool((one.time == first).all()) for one in series[1:]):
        return first
    every: Ints = np.unique(np.concatenate([one.time for one in series]))
    return every


def _sum_at(series: Sequence[RawSeries], time: Ints, hole: int) -> Floats:
    """All parts added, as they were last before each time, or else soon after; NaN where no part was seen within a hole."""
    total, there = np.zeros(len(time)), np.zeros(len(time), dtype=np.bool_)
    for one in series:
        if len(one.time) == len(time) and bool((one.time == time).all()):
            total += one.value
            there[:] = True
            continue
        if len(one.time) == 0:
            continue
        before = np.searchsorted(one.time, time, side="right") - 1
        fresh = (before >= 0) & (time - one.time[np.maximum(before, 0)] < hole)
        after = np.minimum(before + 1, len(one.time) - 1)
        soon = ~fresh & (one.time[after] >= time) & (one.time[after] - time < hole)
        total += np.where(fresh, one.value[np.maximum(before, 0)], np.where(soon, one.value[after], 0.0))
        there |= fresh | soon
    return np.where(there, total, np.nan)


def spacing(found: Iterable[RawSeries]) -> int:
    """Microseconds between two samples, as it usually is; a minute when nothing says so."""
    steps = [int(np.median(np.diff(one.time))) for one in found if len(one.time) > 2]
    return max(SECOND, int(np.median(steps))) if steps else 60 * SECOND
