"""How many instances a history shows, as steps that the strategy `recorded` plays, and as a scenario's settings.

An instance that is not seen for a moment was not scraped: it had to be loaded again to be back. So dips shorter than `DIP` are
filled; a stretch in which nothing was seen keeps the count before it. Knows no server. Read next: `core/strategies/recorded.py`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from scipy.ndimage import grey_closing

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import Ints
from sageserve.base.units import MINUTE, Micros, show_duration
from sageserve.data.history.records import NO_INSTANCE, PoolHistory
from sageserve.data.rebuild.places import pool_parts

DIP: Final[Micros] = 3 * MINUTE  # no engine of a size worth scaling is stopped, started and loaded in less
ROOM: Final = 2  # times the most that ever served: the room policies have, and starts that overlap what is still to stop

Steps: TypeAlias = tuple[tuple[Micros, int], ...]
"""(microseconds from the start of the history, instances that serve from then on)."""


def counts_of(history: PoolHistory) -> Steps:
    """Instances of a pool over time; the first step is at 0."""
    width = DIP // history.grid.interval + 1
    padded = np.pad(_held(history), 2 * width)  # so that nothing counts as a dip at an end of the history
    counts: Ints = grey_closing(padded, size=width, mode="nearest")[2 * width : -2 * width]
    changes = np.flatnonzero(np.diff(counts)) + 1
    rows = np.concatenate(([0], changes))
    return tuple((int(row) * history.grid.interval, int(counts[row])) for row in rows)


def _held(history: PoolHistory) -> Ints:
    """int64[count]: instances, with the last count that was seen in gaps; before the first, the first."""
    seen = np.flatnonzero(~np.isnan(history.instances))
    if not len(seen):
        return np.zeros(history.grid.count, np.int64)
    absent = np.zeros(history.grid.count, dtype=np.bool_)
    for gap in history.gaps:
        absent[gap.first : gap.last] |= gap.why == NO_INSTANCE
    last = seen[np.clip(np.searchsorted(seen, np.arange(history.grid.count), side="right") - 1, 0, None)]
    found: Ints = np.rint(history.instances[last]).astype(np.int64)
    found[absent] = 0
    return found


def settings_of(steps: Mapping[str, Steps], scenario: Scenario) -> list[str]:
    """Changes to a scenario with which every strategy begins where the fleet stood, and `recorded` knows what it did.

    Args:
        steps: by pool of the scenario.
        scenario: which must have the GPUs that the history shows.

    Raises:
        ConfigError: the history shows more instances than the scenario has GPUs for.
    """
    for complaint in _too_many(steps, scenario):
        raise complaint
    counts = {pool: [[show_duration(at), count] for at, count in found] for pool, found in steps.items()}
    starts = {pool: found[0][1] for pool, found in steps.items()}
    most = max(count for found in steps.values() for _, count in found)
    room = scenario.fleet.roomy(ROOM * most)
    return [
        f"strategy.recorded.counts={json.dumps(counts, allow_nan=False)}",
        f"fleet.starts={json.dumps(starts, allow_nan=False)}",
        f"fleet.maximum={room.maximum}",
        *([f"fleet.endpoints={json.dumps(maxima, allow_nan=False)}"] if (maxima := room.maxima()) else []),
        "spot.donate=false",
    ]


def _too_many(steps: Mapping[str, Steps], scenario: Scenario) -> Iterator[ConfigError]:
    stocks: dict[tuple[str, str], list[tuple[str, Steps]]] = {}
    for pool, found in steps.items():
        region, _, gpu = pool_parts(pool)
        stocks.setdefault((region, gpu), []).append((pool, found))
    for (region, gpu), pools in stocks.items():
        need = _peak([(found, scenario.models[pool_parts(pool)[1]].engines[gpu].gpus) for pool, found in pools])
        have = scenario.regions[region].gpus[gpu].gpus
        if need > have:
            yield ConfigError(
                f"the history shows {need} GPUs of {gpu} in {region} at once, the scenario has {have}",
                hint=f"set regions.{region}.gpus.{gpu}.gpus, or say how many GPUs an engine has",
            )


def _peak(pools: Sequence[tuple[Steps, int]]) -> int:
    """The most GPUs at once."""
    times = sorted({at for steps, _ in pools for at, _ in steps})
    total = np.zeros(len(times), np.int64)
    for steps, gpus in pools:
        begins = [at for at, _ in steps]
        rows = np.searchsorted(begins, times, side="right") - 1
        total += np.array([count for _, count in steps])[np.maximum(rows, 0)] * gpus
    return int(total.max())
