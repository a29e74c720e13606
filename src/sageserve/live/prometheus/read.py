"""Weeks of a pool's samples from a server, chunk by chunk: memory holds one chunk, and a chunk is bounded in samples.

    with PrometheusServer(settings) as server:
        found = read_history(server, [PoolQuery("east/llama/h100", 'model_name="llama"')], HistorySpan(begin, end))

Plain signals are read raw, by an instant query with a range, for that has no limit of points and loses nothing. Histograms are
added up by the server, window by window. What cannot be read is named and left out: it becomes a gap, and never a zero.
Read next: `data/history/collect.py` for what is made of samples, `data/rebuild/` for what is made of that.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np

from sageserve.base.errors import MeasurementError
from sageserve.base.records import Floats
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros
from sageserve.data.history.collect import PoolCollector, spacing
from sageserve.data.history.fronts import FrontCollector
from sageserve.data.history.histograms import bound_of, of_windows
from sageserve.data.history.names import FRONTS, FrontAlias, FrontSignal
from sageserve.data.history.raw import RawSeries
from sageserve.data.history.records import WINDOW, FrontHistory, Grid, HistogramHistory, PoolHistory
from sageserve.live.prometheus import queries
from sageserve.live.prometheus.server import SAMPLES_MAX, NotSeen, NotSeenReason, PrometheusServer, RawAnswer

CHUNK_MOST: Final[Micros] = 6 * HOUR
CHUNK_LEAST: Final[Micros] = MINUTE
PROBE: Final[Micros] = 10 * MINUTE  # in which the scrape interval shows itself
BEYOND: Final = 2  # intervals that are read before and after, so that growth across the first and last edge is known
POINTS_MOST: Final = 2_880  # windows asked for at once: ten days; a server keeps all instances of them in memory
POINTS_LOOKED: Final = 500
TRIES: Final = 3
AGAIN: Final = frozenset(
    {NotSeenReason.UNREACHABLE, NotSeenReason.TIMEOUT, NotSeenReason.STATUS, NotSeenReason.CUT, NotSeenReason.PARTIAL}
)
"""What may be over in a moment."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much of how much is read."""


@dataclass(frozen=True, slots=True)
class PoolQuery:
    """One pool to read: its name, and matchers of its engines' series as PromQL has them between braces."""

    name: str
    labels: str


@dataclass(frozen=True, slots=True)
class HistorySpan:
    """What stretch to read, and in which steps.

    Args:
        begin, end: microseconds since 1970.
        interval: of the result; None: the scrape interval that shows itself, whole seconds.
        pause: seconds before a question is asked again.
        histograms: lengths and times are read, too: most of a server's work.
    """

    begin: Micros
    end: Micros
    interval: Micros | None = None
    pause: float = 1.0
    histograms: bool = True


@dataclass(slots=True)
class ServerHistory:
    """What a server recorded.

    Args:
        pools: in the order they were asked for.
        fronts: gateways, by model and class.
        samples: how many were read.
        unread: what could not be read, in sentences.
    """

    pools: tuple[PoolHistory, ...] = ()
    fronts: tuple[FrontHistory, ...] = ()
    samples: int = 0
    unread: list[str] = field(default_factory=list)


def read_history(
    server: PrometheusServer,
    pools: Sequence[PoolQuery],
    span: HistorySpan,
    progress: Progress | None = None,
    *,
    fronts: str | None = "",
) -> ServerHistory:
    """Read pools, and gateways.

    Args:
        server: whom to ask.
        pools: which.
        span: when.
        progress: told about parts of the whole.
        fronts: matchers of gateways' series; None: gateways are not read.

    Raises:
        MeasurementError: the server answers nothing at all, or knows none of these series.
    """
    return _Reader(server, span, progress, len(pools) + (fronts is not None)).read(pools, fronts)


def first_sample(server: PrometheusServer, pools: Sequence[PoolQuery], begin: Micros, end: Micros) -> Micros | None:
    """Where samples of any of these pools begin, within seconds for a month; None: there are none, or nothing is answered."""
    first: Micros | None = None
    for pool in pools:
        query = f"count({queries.selector(queries.plain_names(), pool.labels)})"
        lower, upper = begin, end if first is None else first
        found = None
        for _ in range(2):  # the second time between the last point without and the first with samples
            step = max(SECOND, (upper - lower) // POINTS_LOOKED)
            answer = server.over(query, lower / SECOND, upper / SECOND, step / SECOND)
            if isinstance(answer, NotSeen) or not any(len(one) for one in answer.series):
                break
            found = min(int(one.time[0]) for one in answer.series if len(one))
            lower, upper = max(begin, found - step), found
            if lower >= upper:
                break
        first = found if first is None else min(first, found or first)
    return first


class _Reader:
    """One reading."""

    def __init__(self, server: PrometheusServer, span: HistorySpan, progress: Progress | None, parts: int) -> None:
        self._server = server
        self._span = span
        self._progress = progress
        self._parts = parts
        self._part = 0
        self._found = ServerHistory()
        self._answered = False

    def read(self, pools: Sequence[PoolQuery], fronts: str | None) -> ServerHistory:
        histories = []
        for pool in pools:
            histories.append(self._pool(pool))
            self._part += 1
        self._found.pools = tuple(histories)
        if fronts is not None:
            grid = histories[0].grid if histories else self._grid(queries.selector(queries.front_names(), fronts))
            self._found.fronts = self._fronts(fronts, grid)
            self._part += 1
        if not self._answered:
            reason = self._found.unread[0] if self._found.unread else "no such series in this stretch of time"
            raise MeasurementError(
                f"{self._server.url} gives nothing to read: {reason}",
                hint="`sageserve doctor` says what is wrong: address, token, labels or retention",
            )
        return self._found

    def _pool(self, pool: PoolQuery) -> PoolHistory:
        selector = queries.selector(queries.plain_names(), pool.labels)
        grid = self._found.pools[0].grid if self._found.pools else self._grid(selector)
        collector = PoolCollector(pool.name, grid)
        self._each_chunk(selector, grid, pool.name, collector.add)
        history = collector.finish()
        histograms = self._histograms(pool.labels, grid) if self._span.histograms else {}
        matched = dict.fromkeys((*history.matched, *(f"{signal}: {names[0]}" for signal, (names, _) in histograms.items())))
        return replace(history, histograms={signal: one for signal, (_, one) in histograms.items()}, matched=tuple(matched))

    def _grid(self, selector: str) -> Grid:
        span = self._span
        interval = span.interval
        if interval is None:
            interval = self._spacing(selector)
        return Grid(span.begin, interval, max(1, -(-(span.end - span.begin) // interval)))

    def _spacing(self, selector: str) -> Micros:
        """Of samples at the end, in the middle or at the begin, wherever there are some."""
        span = self._span
        for end in (span.end, (span.begin + span.end) // 2, span.begin + PROBE):
            answer = self._ask(selector, end - PROBE, end)
            if isinstance(answer, RawAnswer) and any(len(one) > 2 for one in answer.series):
                return max(SECOND, round(spacing(answer.series) / SECOND) * SECOND)
        return spacing(())

    def _each_chunk(self, selector: str, grid: Grid, name: str, take: Callable[[Sequence[RawSeries]], None]) -> None:
        length = self._chunk_length(selector, grid)
        at, end = grid.begin - BEYOND * grid.interval, grid.end + BEYOND * grid.interval
        start = at
        while at < end:
            until = min(at + length, end)
            answer = self._ask(selector, at, until)
            if isinstance(answer, NotSeen) and answer.why is NotSeenReason.TOO_LARGE and length > max(CHUNK_LEAST, grid.interval):
                length = max(CHUNK_LEAST, length // 2 // grid.interval * grid.interval, grid.interval)
                continue
            if isinstance(answer, NotSeen):
                self._unread(name, at, until, answer)
            else:
                self._answered = self._answered or bool(answer.series)
                self._found.samples += sum(map(len, answer.series))
                take(answer.series)
            at = until
            if self._progress is not None:
                done = self._part + (at - start) / (end - start)
                self._progress(round(1000 * done), 1000 * self._parts)

    def _chunk_length(self, selector: str, grid: Grid) -> Micros:
        """As long as holds half the samples that are allowed, by how many series there are at the end."""
        counted = self._server.vector(f"count({selector})", self._span.end / SECOND - 1)
        series = counted[0].value if not isinstance(counted, NotSeen) and counted else 1_000.0
        length = int(SAMPLES_MAX / 2 / max(series, 1.0) * grid.interval)
        return max(grid.interval, min(CHUNK_MOST, length) // grid.interval * grid.interval)

    def _ask(self, selector: str, begin: Micros, end: Micros) -> RawAnswer | NotSeen:
        def ask() -> RawAnswer | NotSeen:
            answer = self._server.raw(selector, (end - begin) / SECOND, end / SECOND)
            if isinstance(answer, RawAnswer) and answer.warnings:
                return NotSeen(NotSeenReason.PARTIAL, f"{self._server.url} answers in part: {answer.warnings[0]}")
            return answer

        return self._patiently(ask)

    def _patiently(self, ask: Callable[[], RawAnswer | NotSeen]) -> RawAnswer | NotSeen:
        answer = ask()
        for _ in range(TRIES - 1):
            if not (isinstance(answer, NotSeen) and answer.why in AGAIN):
                break
            time.sleep(self._span.pause)
            answer = ask()
        return answer

    def _unread(self, name: str, begin: Micros, end: Micros, answer: NotSeen) -> None:
        stretch = f"{np.datetime64(begin // SECOND, 's')} to {np.datetime64(end // SECOND, 's')} UTC"
        self._found.unread.append(f"{name}, {stretch}: {answer.detail}")

    def _histograms(self, labels: str, grid: Grid) -> dict[str, tuple[tuple[str, ...], HistogramHistory]]:
        span = self._span
        recorded = self._server.values(
            "__name__", queries.selector(f"(?:{queries.every_name()})", labels), span.begin / SECOND, span.end / SECOND
        )
        if isinstance(recorded, NotSeen):
            self._found.unread.append(f"histograms: {recorded.detail}")
            return {}
        found = {}
        for signal, names in queries.histogram_names(recorded).items():
            for _, one in self._windows(names, labels, grid, ()):
                found[signal] = (names, one)
        return found

    def _windows(
        self, names: Sequence[str], labels: str, grid: Grid, by: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], HistogramHistory]]:
        """Histograms by window, one for each combination of the labels `by`."""
        windows = grid.coarser(WINDOW)
        buckets: dict[tuple[str, ...], dict[float, Floats]] = {}
        totals: dict[tuple[str, ...], Floats] = {}
        for one in self._grown((names, "_bucket"), labels, windows, (*by, "le")):
            key = tuple(one.labels.get(label, "") for label in by)
            bound = bound_of(one.labels.get("le", ""))
            column = buckets.setdefault(key, {}).setdefault(bound, np.zeros(windows.count))
            column[(one.time - windows.begin) // windows.interval - 1] = np.nan_to_num(one.value)
        for one in self._grown((names, "_sum"), labels, windows, by):
            key = tuple(one.labels.get(label, "") for label in by)
            column = totals.setdefault(key, np.zeros(windows.count))
            column[(one.time - windows.begin) // windows.interval - 1] = np.nan_to_num(one.value)
        for key, cumulative in buckets.items():
            if key in totals:
                yield key, of_windows(windows, cumulative, totals[key])

    def _grown(self, metric: tuple[Sequence[str], str], labels: str, windows: Grid, by: tuple[str, ...]) -> Iterator[RawSeries]:
        """Growth of counters by window, as series whose samples stand at the ends of windows."""
        names, suffix = metric
        seconds = windows.interval // SECOND
        query = queries.growth(names, suffix, labels, seconds, by)
        for first in range(0, windows.count, POINTS_MOST):
            last = min(windows.count, first + POINTS_MOST)
            begin, end = (windows.begin + row * windows.interval for row in (first + 1, last))
            answer = self._windows_answer(query, begin, end, seconds)
            if isinstance(answer, NotSeen):
                self._unread(names[0], begin, end, answer)
            else:
                yield from answer.series

    def _windows_answer(self, query: str, begin: Micros, end: Micros, seconds: int) -> RawAnswer | NotSeen:
        return self._patiently(lambda: self._server.over(query, begin / SECOND, end / SECOND, seconds))

    def _fronts(self, labels: str, grid: Grid) -> tuple[FrontHistory, ...]:
        collector = FrontCollector(grid)
        self._each_chunk(queries.selector(queries.front_names(), labels), grid, "gateways", collector.add)
        found = collector.finish()
        used = {next(alias for alias in FRONTS if alias.metric == one.metric) for one in found}
        sizes: dict[tuple[str, str, str], HistogramHistory] = {}
        for alias in used if self._span.histograms else ():
            sizes |= self._front_sizes(alias, labels, grid)
        return tuple(
            replace(
                one,
                histograms={
                    signal.value: sizes[signal.value, one.model, one.tier]
                    for signal in FrontSignal
                    if (signal.value, one.model, one.tier) in sizes
                },
            )
            for one in found
        )

    def _front_sizes(self, arrivals: FrontAlias, labels: str, grid: Grid) -> dict[tuple[str, str, str], HistogramHistory]:
        """Lengths by (signal, model, class) of a gateway that counts arrivals."""
        found: dict[tuple[str, str, str], HistogramHistory] = {}
        by = (arrivals.model, *((arrivals.tier,) if arrivals.tier else ()))
        for signal in (FrontSignal.PROMPT_SIZE, FrontSignal.OUTPUT_SIZE):
            names = [alias.metric for alias in FRONTS if alias.front is arrivals.front and alias.signal is signal]
            for key, one in self._windows(names, labels, grid, by) if names else ():
                found[signal.value, key[0], key[1] if len(key) > 1 else ""] = one
        return found
