"""A run as its engines and a gateway would have shown it: counters and histograms, made into demand as a history's are.

The way back to requests is then that of `data/rebuild/`, so that what it does to an answer can be measured where the truth is
known. Read next: `own_error.py`; `data/rebuild/render.py` for the series.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.units import MINUTE, Micros
from sageserve.core.events import InstanceDrained, InstanceLost, InstanceReady
from sageserve.data.history.collect import PoolCollector
from sageserve.data.history.fronts import FrontCollector
from sageserve.data.history.raw import RawSeries
from sageserve.data.history.records import Grid
from sageserve.data.rebuild.demand import DemandStream, PlacedFront, PlacedPool, demand_of
from sageserve.data.rebuild.render import PlayedRequests, PodLife, render, render_front
from sageserve.sim.run import Run

AFTER: Final[Micros] = 10 * MINUTE  # that series go on beyond the window, as a history's do


@dataclass(frozen=True, slots=True)
class Recording:
    """How series are recorded.

    Args:
        begin: microseconds since 1970 of the window's start.
        interval: microseconds between two scrapes.
        tiers: a gateway tells service classes apart.
    """

    begin: Micros
    interval: Micros
    tiers: bool


def exported(run: Run, recording: Recording) -> tuple[DemandStream, ...]:
    """What the engines of a finished run would have shown, as demand."""
    names, grid = run.layout.names, Grid(recording.begin, recording.interval, -(-run.window // recording.interval))
    pools, fronts = [], []
    for code, region in enumerate(names.regions):
        collectors = {model: PoolCollector(f"{region}/{model}", grid) for model in names.models}
        by_model: dict[str, list[RawSeries]] = {model: [] for model in names.models}
        for one in engine_series(run, recording, region=code):
            by_model[one.labels["model_name"]].append(one)
        for model, collector in collectors.items():
            collector.add(by_model[model])
            pools.append(PlacedPool(region, model, collector.finish()))
        if recording.tiers:
            front = FrontCollector(grid)
            front.add(front_series(run, recording, region=code))
            fronts += [PlacedFront(region, one.model, names.tiers[int(one.tier)], one) for one in front.finish()]
    return demand_of(pools, fronts)


def engine_series(run: Run, recording: Recording, *, region: int, lives: bool = False) -> Iterator[RawSeries]:
    """Series of all engines of a region.

    Args:
        run: finished.
        recording: how.
        region: code.
        lives: instances have series only while they are there, as their pods would.
    """
    pool_of = np.array([*run.fleet.pool_of, -1], np.int64)
    regions = np.array([*(pool.region for pool in run.layout.pools), -1], np.int64)
    rows = run.requests[regions[pool_of[run.requests["instance"]]] == region]
    there = tuple(one for one in lives_of(run) if regions[pool_of[one.instance]] == region) if lives else ()
    played = _played(rows, run, there)
    yield from render(played, recording.begin, run.window + AFTER, recording.interval)


def front_series(run: Run, recording: Recording, *, region: int) -> Iterator[RawSeries]:
    """Series of an endpoint picker in front of a region; the priority of a tier is its code."""
    rows = run.requests[(run.requests["region"] == region) & (run.requests["instance"] >= 0)]
    when = recording.begin, run.window + AFTER, recording.interval
    yield from render_front(_played(rows, run), rows["tier"].astype(np.int64), when)


def lives_of(run: Run) -> Iterator[PodLife]:
    """From when to when each instance could be scraped: from its first moment of service until it was empty."""
    begun: dict[int, Micros] = {}
    for line in run.journal:
        match line.event:
            case InstanceReady(instance=i):
                begun[i] = line.now
            case InstanceDrained(instance=i) | InstanceLost(instance=i) if i in begun:
                yield _life(run, i, begun.pop(i), line.now)
            case _:
                pass
    yield from (_life(run, i, begin, run.window + AFTER) for i, begin in begun.items())


def _life(run: Run, instance: int, begin: Micros, end: Micros) -> PodLife:
    pool = run.layout.pools[run.fleet.pool_of[instance]]
    where = {"region": run.layout.names.regions[pool.region], "gpu": run.layout.stocks[pool.stock].gpu}
    return PodLife(instance, pool.model, begin, end, where)


def _played(rows: NDArray[Any], run: Run, lives: tuple[PodLife, ...] = ()) -> PlayedRequests:
    return PlayedRequests(
        arrival=rows["arrival"].copy(),
        first=rows["first"].copy(),
        finish=rows["finish"].copy(),
        prompt=rows["prompt"].copy(),
        output=rows["output"].copy(),
        instance=rows["instance"].copy(),
        model=rows["model"].copy(),
        models=run.layout.names.models,
        lives=lives,
    )
