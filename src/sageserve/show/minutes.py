"""The timeline of a run as arrays by endpoint, and lines of at most so many points whose highest and lowest values are kept.

A window of many minutes is drawn as two points per bucket, the lowest and the highest of it in the order they came. Reads one
table; draws nothing. Read next: `reduce.py` for requests, `figures/capacity.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, Micros
from sageserve.data.results.run_folder import RunFolder
from sageserve.show.reduce import TimeBuckets

HELD: Final = ("serving", "starting", "reclaiming", "draining")  # what is paid for
_COLUMNS: Final = (*HELD, "spot", "seen", "busy", "batch_waiting", "placed", "finished", "preempted")


@dataclass(frozen=True, slots=True)
class Minutes:
    """Samples of endpoints.

    Args:
        times: int64[T] microseconds.
        endpoints: names, E of them.
        regions: of each endpoint.
        models: of each endpoint.
        columns: [T, E] by name.
    """

    times: Ints
    endpoints: tuple[str, ...]
    regions: tuple[str, ...]
    models: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]

    def of(self, name: str, *, region: str = "", model: str = "") -> Floats:
        """float64[T]: a count, summed over the endpoints of a region and a model; all of them where none is named."""
        found: Floats = self.columns[name][:, self.rows(region, model)].sum(axis=1).astype(np.float64)
        return found

    def held(self, *, region: str = "", model: str = "") -> Floats:
        """float64[T]: instances that are paid for."""
        found: Floats = np.sum([self.of(name, region=region, model=model) for name in HELD], axis=0)
        return found

    def rows(self, region: str = "", model: str = "") -> list[int]:
        """Numbers of the endpoints of a region and a model."""
        pairs = zip(self.regions, self.models, strict=True)
        return [e for e, (one, other) in enumerate(pairs) if region in {"", one} and model in {"", other}]

    def busy_share(self, model: str) -> float:
        """Share of the time of a model's serving instances in which they computed."""
        rows = self.rows(model=model)
        serving = self.columns["serving"][:, rows]
        total = float(serving.sum())
        return float((self.columns["busy"][:, rows] * serving).sum()) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class ThinnedLine:
    """A line over time: `start` and `step` in minutes."""

    start: float
    step: float
    values: Floats


def minutes_of(run: RunFolder) -> Minutes:
    """The timeline of a run."""
    table = run.timeline()
    names = table["endpoint"].to_pylist()[: len(set(table["endpoint"].to_pylist()))]
    count = len(names)
    times = table["time_us"].to_numpy()[::count]

    def words(name: str) -> tuple[str, ...]:
        return tuple(table[name].slice(0, count).to_pylist())

    columns = {name: table[name].to_numpy().reshape(len(times), count) for name in _COLUMNS}
    return Minutes(times, tuple(names), words("region"), words("model"), columns)


def line(times: Ints, values: Floats, grid: TimeBuckets) -> ThinnedLine:
    """A line of all samples where they are no more than two per bucket, else of the lowest and highest of each bucket."""
    step = int(times[1] - times[0]) if len(times) > 1 else MINUTE
    if len(times) <= 2 * grid.count + 1:
        return ThinnedLine(0.0, step / MINUTE, values)
    per = grid.width // step
    buckets = -(-len(values) // per)
    block = np.pad(values, (0, buckets * per - len(values)), mode="edge").reshape(buckets, per)
    low, high = block.argmin(axis=1), block.argmax(axis=1)
    at = np.arange(buckets)
    first, second = np.minimum(low, high), np.maximum(low, high)
    pairs = np.stack((block[at, first], block[at, second]), axis=1).ravel()
    return ThinnedLine(0.0, _minutes(grid.width) / 2, pairs)


def means(times: Ints, values: NDArray[Any], grid: TimeBuckets) -> Floats:
    """float64[buckets, ...]: the mean of each bucket's samples; nan where there is none."""
    at = np.minimum(times // grid.width, grid.count - 1)
    total = np.zeros((grid.count, *values.shape[1:]))
    np.add.at(total, at, values)
    samples = np.bincount(at, minlength=grid.count).astype(np.float64)
    samples[samples == 0] = np.nan
    return total / samples.reshape(-1, *([1] * (values.ndim - 1)))


def _minutes(micros: Micros) -> float:
    return micros / MINUTE
