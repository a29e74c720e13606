"""Histories of several pools from series that lie in files: whose each is, its labels say.

    found = histories_of(read_files(paths), {"east/llama/h100": {"model_name": "llama"}})

Knows no file. Read next: `data/history/collect.py`; `live/prometheus/read.py` for the same from a server.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sageserve.base.errors import MeasurementError
from sageserve.base.units import Micros
from sageserve.data.history.collect import PoolCollector, plain_metrics, spacing
from sageserve.data.history.fronts import FrontCollector
from sageserve.data.history.names import ALIASES, canonical
from sageserve.data.history.raw import RawSeries, label_matches
from sageserve.data.history.records import FrontHistory, Grid, PoolHistory


@dataclass(frozen=True, slots=True)
class FileHistories:
    """What files hold: pools in the order they were asked for, and gateways."""

    pools: tuple[PoolHistory, ...]
    fronts: tuple[FrontHistory, ...]


def histories_of(
    series: Iterable[RawSeries],
    pools: Mapping[str, Mapping[str, str]],
    interval: Micros | None = None,
    span: tuple[Micros | None, Micros | None] = (None, None),
) -> FileHistories:
    """Collect them.

    Args:
        series: of all files.
        pools: by name, labels of its engines' series; `=~` in front of a value makes it a regular expression.
        interval: microseconds; None: the scrape interval that shows itself.
        span: (begin, end) in microseconds since 1970; None: where samples of engines begin and end.

    Raises:
        MeasurementError: none of them are of an engine.
    """
    everything = [one for one in series if len(one)]
    plain = set(plain_metrics(ALIASES))
    mine = {name: [one for one in everything if _has(one, labels)] for name, labels in pools.items()}
    engines = [one for found in mine.values() for one in found if canonical(one.name) in plain]
    if not engines:
        wanted = "; ".join(f"{name}: {dict(labels)}" for name, labels in pools.items())
        raise MeasurementError(
            f"the files hold no series of an engine with these labels: {wanted}",
            hint="live.targets.NAME.series says which labels a pool's series have",
        )
    step = interval or spacing(engines)
    # engines are scraped at instants of their own: an interval within the ends is needed for all of them to be in it
    begin = min(int(one.time[0]) for one in engines) + step if span[0] is None else span[0]
    end = max(int(one.time[-1]) for one in engines) - step if span[1] is None else span[1]
    begin -= begin % step
    grid = Grid(begin, step, max(1, -(-(end - begin) // step)))
    found = []
    for name in pools:
        collector = PoolCollector(name, grid)
        collector.add(mine[name])
        found.append(collector.finish())
    front = FrontCollector(grid)
    front.add(everything)
    return FileHistories(tuple(found), front.finish())


def _has(one: RawSeries, labels: Mapping[str, str]) -> bool:
    return all(label_matches(one.labels.get(label, ""), value) for label, value in labels.items())
