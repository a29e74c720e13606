"""Reading a history for `sageserve backtest`: from Prometheus servers or from files, placed on a scenario's pools.

Knows options, servers and files; makes no requests. Read next: `backtest.py`; `data/rebuild/places.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from sageserve.base.errors import ConfigError, MeasurementError
from sageserve.base.units import MINUTE, SECOND, Micros, duration_us, show_duration
from sageserve.cli.progress import bar
from sageserve.data.history.records import Grid, PoolHistory
from sageserve.data.rebuild.demand import DemandStream, PlacedFront, PlacedPool, demand_of
from sageserve.data.rebuild.places import WatchedPool, place_fronts, place_pools, watched_pools

if TYPE_CHECKING:
    from sageserve.base.config import PrometheusSettings, Scenario

COARSEST: Final[Micros] = 5 * MINUTE
"""Longer intervals are refused: in means over an hour nobody sees the minutes in which promises were broken."""


MISSING: Final[Micros] = 5 * MINUTE
"""Without samples at the begin of what is asked for, more is left out."""


@dataclass(frozen=True, slots=True)
class HistoryOptions:
    """Where the history is, and which stretch of it.

    Args:
        files: OpenMetrics text or answers of query_range; none: servers are asked.
        url: of a server; empty: those of live.clusters.
        until: a date; empty: now, or where the files end.
        last: a duration back from there; empty: a day, or where the files begin.
        interval: between two samples; empty: as they show.
    """

    files: tuple[Path, ...] = ()
    url: str = ""
    until: str = ""
    last: str = ""
    interval: str = ""


@dataclass(slots=True)
class PlacedHistory:
    """What was read.

    Args:
        watched: pools of the scenario, in the order of `pools`.
        pools: what their engines did.
        streams: demand.
        notes: what the reader should know, in sentences.
    """

    watched: tuple[WatchedPool, ...]
    pools: tuple[PlacedPool, ...]
    streams: tuple[DemandStream, ...]
    notes: list[str] = field(default_factory=list)

    @property
    def grid(self) -> Grid:
        """Of everything."""
        return self.streams[0].grid


def read_placed(scenario: "Scenario", options: HistoryOptions) -> PlacedHistory:
    """Read it.

    Raises:
        ConfigError: nothing says where, which pools, or when.
        MeasurementError: nothing can be read, or samples are too far apart.
    """
    watched = watched_pools(scenario)
    notes: list[str] = []
    if options.files:
        histories, fronts = _from_files(scenario, watched, options, notes)
    else:
        histories, fronts = _from_servers(scenario, watched, options, notes)
    interval = histories[0].grid.interval
    if interval > COARSEST:
        raise MeasurementError(
            f"the history has a sample every {show_duration(interval)}: bursts that break promises do not show in it",
            hint=f"give samples at most {show_duration(COARSEST)} apart; a downsampled store also has raw ones, of less time",
        )
    pools = place_pools(watched, histories)
    for one in histories:
        notes += [f"{one.name}: {note}" for note in one.notes]
    return PlacedHistory(watched, pools, demand_of(pools, fronts), notes)


def _from_files(
    scenario: "Scenario", watched: Sequence[WatchedPool], options: HistoryOptions, notes: list[str]
) -> tuple[Sequence[PoolHistory], list[PlacedFront]]:
    from sageserve.data.history.files import read_files
    from sageserve.data.rebuild.filed import histories_of

    until = _date(options.until) if options.until else None
    last = _length("--last", options.last) if options.last else None
    if last is not None and until is None:
        raise ConfigError("--last with files needs --until: nothing else says where it ends", hint="give --until DATE")
    begin = None if last is None or until is None else until - last
    interval = _length("--interval", options.interval) if options.interval else None
    with bar("read history") as tell:
        series = read_files(list(options.files), tell)
        found = histories_of(series, {one.pool: one.labels for one in watched}, interval, (begin, until))
    return found.pools, list(place_fronts(scenario, watched, found.fronts, notes))


def _from_servers(
    scenario: "Scenario", watched: Sequence[WatchedPool], options: HistoryOptions, notes: list[str]
) -> tuple[Sequence[PoolHistory], list[PlacedFront]]:
    from sageserve.live.prometheus.queries import matchers
    from sageserve.live.prometheus.read import HistorySpan, PoolQuery, read_history
    from sageserve.live.prometheus.server import PrometheusServer

    until = _date(options.until) if options.until else time.time_ns() // 1000
    until -= until % MINUTE
    begin = until - _length("--last", options.last or "24h")
    interval = _length("--interval", options.interval) if options.interval else None
    begin = _where_it_begins(scenario, watched, options.url, (begin, until), notes)
    by_pool: dict[str, PoolHistory] = {}
    fronts: list[PlacedFront] = []
    for cluster in dict.fromkeys(one.cluster for one in watched):
        mine = [one for one in watched if one.cluster == cluster]
        with PrometheusServer(server_of(scenario, cluster, options.url)) as server, bar(f"read {server.url}") as tell:
            found = read_history(
                server,
                [PoolQuery(one.pool, matchers(one.labels)) for one in mine],
                HistorySpan(begin, until, interval),
                tell,
            )
        interval = found.pools[0].grid.interval  # one grid for all
        by_pool |= {one.pool: history for one, history in zip(mine, found.pools, strict=True)}
        fronts += place_fronts(scenario, mine, found.fronts, notes)
        notes += [f"not read: {line}" for line in found.unread]
    return [by_pool[one.pool] for one in watched], fronts


def _where_it_begins(
    scenario: "Scenario", watched: Sequence[WatchedPool], url: str, span: tuple[Micros, Micros], notes: list[str]
) -> Micros:
    """Of the stretch that is asked for, where samples begin: a fleet that nobody saw needed no instances, whatever is played."""
    from sageserve.live.prometheus.queries import matchers
    from sageserve.live.prometheus.read import PoolQuery, first_sample
    from sageserve.live.prometheus.server import PrometheusServer

    found = []
    for cluster in dict.fromkeys(one.cluster for one in watched):
        mine = [PoolQuery(one.pool, matchers(one.labels)) for one in watched if one.cluster == cluster]
        with PrometheusServer(server_of(scenario, cluster, url)) as server:
            found.append(first_sample(server, mine, *span))
    known = [one for one in found if one is not None]
    first = -(-min(known) // MINUTE) * MINUTE if known else span[0]
    if first - span[0] <= MISSING or first >= span[1]:
        return span[0]
    date = datetime.fromtimestamp(first / SECOND, UTC)
    notes.append(f"samples begin at {date:%Y-%m-%d %H:%M} UTC: the {show_duration(first - span[0])} before are left out")
    return first


def server_of(scenario: "Scenario", cluster: str, url: str) -> "PrometheusSettings":
    """The server of a cluster: at `url` where one is given.

    Raises:
        ConfigError: nothing says where it is.
    """
    from sageserve.base.config.clusters import prometheus_at

    if url:
        return prometheus_at(url)
    settings = scenario.live.clusters[cluster].prometheus if scenario.live is not None and cluster else None
    if settings is None:
        raise ConfigError(
            f"nothing says where the history is{f' of cluster {cluster}' if cluster else ''}",
            hint="give --prometheus URL, files, or live.clusters.NAME.prometheus in the scenario",
        )
    return settings


def _date(text: str) -> Micros:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--until {text!r} is no date", hint="write 2026-11-20 or 2026-11-20T18:00:00Z") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * SECOND)


def _length(option: str, text: str) -> Micros:
    try:
        found = duration_us(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}", hint="write 15s, 6h or 7d") from None
    if found <= 0:
        raise ConfigError(f"{option} {text} is no time at all", hint="write 15s, 6h or 7d")
    return found


def tell_notes(notes: Sequence[str]) -> None:
    """On stderr, each once."""
    for line in dict.fromkeys(notes):
        typer.echo(line, err=True)
