"""What happened over the window as short rows of numbers: demand, capacity, utilisation, the batch queue, region flows.

Each row has at most `BINS` values, so that it fits a line of text. Reads a run's tables part by part; a run of ten million
requests takes 16 bytes per batch job. Draws nothing. Read next: `account.py`, `spark.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, NEVER, SECOND
from sageserve.core.handover import DECODE, PREFILL
from sageserve.data.results.run_folder import RunFolder

BINS: Final = 48
COLUMNS: Final = ("arrival_us", "model", "tier", "region", "served_region", "state", "ttft_us", "deadline_us")
_Key: TypeAlias = tuple[str, str]


class EndpointLine(Struct, frozen=True):
    """One model in one region, the pools of all roles together, or those that prefill, or that decode; one value per bin.

    Args:
        region: its name.
        model: its name.
        role: `prefill` or `decode` where these are apart; left out where they are not.
        demand: requests per second that arrived in this region.
        serving: instances, mean.
        utilisation: of the signal policies see, at most 1, mean over serving instances; None where none served.
    """

    region: str
    model: str
    demand: tuple[float, ...]
    serving: tuple[float, ...]
    utilisation: tuple[float | None, ...]
    role: str | UnsetType = UNSET

    @property
    def name(self) -> str:
        """`region/model`, with `/role` where prefill and decode are apart."""
        return f"{self.region}/{self.model}" + ("" if isinstance(self.role, UnsetType) else f"/{self.role}")


class BacklogLine(Struct, frozen=True):
    """Batch work of one model in all regions; the highest of each bin.

    Args:
        model: its name.
        waiting: jobs in the batch queue.
        oldest_s: seconds that the oldest job without a first token had waited.
    """

    model: str
    waiting: tuple[int, ...]
    oldest_s: tuple[float, ...]


class RegionFlow(Struct, frozen=True):
    """Requests of one region and where they were served; `share` is of those of the region that were served."""

    origin: str
    served: str
    requests: int
    share: float


class RunLines(Struct, frozen=True):
    """Everything over time; bins have equal length and cover the window."""

    bin_s: float
    endpoints: tuple[EndpointLine, ...]
    backlog: tuple[BacklogLine, ...]
    flows: tuple[RegionFlow, ...]


@dataclass(slots=True)
class _Counts:
    """What the requests add up to, part by part."""

    width: float
    bins: int
    demand: dict[_Key, Floats] = field(default_factory=dict)
    flows: dict[_Key, int] = field(default_factory=dict)
    jobs: dict[str, list[tuple[Ints, Ints]]] = field(default_factory=dict)  # arrival and first token


def lines_of(run: RunFolder) -> RunLines:
    """Make the lines of a run; an interrupted one has them up to where it was played."""
    length = min(run.summary.window_s, run.summary.played_s)
    window = max(round(length * SECOND), 1)
    bins = max(1, min(BINS, window // MINUTE))
    counts = _Counts(window / bins, bins)
    batch = {name for name, tier in run.scenario.tiers.items() if tier.batch}
    for part in run.request_parts(list(COLUMNS)):
        _count(counts, part, batch)
    timeline = run.timeline()
    code = _bins(timeline.column("time_us").to_numpy(), counts)
    return RunLines(
        bin_s=counts.width / SECOND,
        endpoints=_endpoints(timeline, code, counts),
        backlog=_backlog(timeline, code, counts),
        flows=_flows(counts),
    )


def _bins(times: Ints, counts: _Counts) -> Ints:
    """The bin of each instant; `counts.bins` stands for after the window."""
    return np.minimum((times / counts.width).astype(np.int64), counts.bins)


def _count(counts: _Counts, part: pa.Table, batch: set[str]) -> None:
    arrival = part.column("arrival_us").to_numpy()
    bins = np.minimum(_bins(arrival, counts), counts.bins - 1)
    regions, models, tiers, served = (_words(part, name) for name in ("region", "model", "tier", "served_region"))
    for key, rows in _pairs(regions, models):
        here = np.bincount(bins[rows], minlength=counts.bins).astype(np.float64)
        counts.demand[key] = counts.demand.get(key, np.zeros(counts.bins)) + here
    for key, rows in _pairs(regions, served):
        counts.flows[key] = counts.flows.get(key, 0) + len(rows)
    state = part.column("state")
    known = pc.not_equal(state, "refused").to_numpy()
    first = part.column("ttft_us").fill_null(NEVER).to_numpy()
    first = np.where(first == NEVER, NEVER, arrival + np.minimum(first, NEVER - arrival))
    given_up = pc.equal(state, "shed").to_numpy()  # such a job waits no longer
    first = np.where(given_up, part.column("deadline_us").to_numpy(), first)
    jobs = known & np.logical_or.reduce([tiers.mask(name) for name in batch] or [np.zeros(len(known), np.bool_)])
    for model in models.names:
        rows = jobs & models.mask(model)
        if rows.any():
            counts.jobs.setdefault(model, []).append((arrival[rows], first[rows]))


@dataclass(frozen=True, slots=True)
class _Words:
    """A column of names as codes; -1 where there is none."""

    names: tuple[str, ...]
    codes: NDArray[np.int64]

    def mask(self, name: str) -> NDArray[np.bool_]:
        return self.codes == self.names.index(name) if name in self.names else np.zeros(len(self.codes), np.bool_)


def _pairs(first: _Words, second: _Words) -> Iterator[tuple[_Key, Ints]]:
    """Rows of each pair of names that there are; rows without a name belong to none."""
    known = np.flatnonzero((first.codes >= 0) & (second.codes >= 0))
    code = first.codes[known] * len(second.names) + second.codes[known]
    for each in np.unique(code).tolist():
        yield (first.names[each // len(second.names)], second.names[each % len(second.names)]), known[code == each]


def _words(table: pa.Table, column: str) -> _Words:
    found = table.column(column)
    whole = found.unify_dictionaries().combine_chunks()
    array = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return _Words(tuple(array.dictionary.to_pylist()), codes)


def _endpoints(timeline: pa.Table, code: Ints, counts: _Counts) -> tuple[EndpointLine, ...]:
    regions, models, roles = (_words(timeline, name) for name in ("region", "model", "role"))
    serving = timeline.column("serving").to_numpy().astype(np.float64)
    used = np.minimum(timeline.column("seen").to_numpy(), 1) * serving
    found = []
    samples = np.bincount(_bins(np.unique(timeline.column("time_us").to_numpy()), counts), minlength=counts.bins + 1)[:-1]
    for (region, model), together in _pairs(regions, models):
        demand = counts.demand.get((region, model), np.zeros(counts.bins)) / (counts.width / SECOND)
        for role, rows in _sides(roles, together):
            held = _sums(code[rows], serving[rows], counts.bins)
            busy = _sums(code[rows], used[rows], counts.bins)
            found.append(
                EndpointLine(
                    region,
                    model,
                    tuple(demand.tolist()),
                    tuple((held / np.maximum(samples, 1)).tolist()),
                    tuple(b / h if h else None for b, h in zip(busy.tolist(), held.tolist(), strict=True)),
                    role,
                )
            )
    return tuple(found)


def _sides(roles: _Words, rows: Ints) -> Iterator[tuple[str | UnsetType, Ints]]:
    """Rows of a model in a region: of those that prefill and of those that decode, or all of them."""
    sides = {role: rows[roles.mask(role)[rows]] for role in (PREFILL, DECODE)}
    if not all(len(side) for side in sides.values()):
        yield UNSET, rows
        return
    yield from sides.items()


def _sums(code: Ints, weights: Floats, bins: int) -> Floats:
    return np.bincount(code, weights=weights, minlength=bins + 1)[:bins].astype(np.float64)


def _backlog(timeline: pa.Table, code: Ints, counts: _Counts) -> tuple[BacklogLine, ...]:
    models = _words(timeline, "model")
    waiting = timeline.column("batch_waiting").to_numpy()
    times = np.unique(timeline.column("time_us").to_numpy())
    found = []
    for model in models.names:
        if model not in counts.jobs:
            continue
        rows = models.mask(model)
        most = np.zeros(counts.bins + 1, np.int64)
        np.maximum.at(most, code[rows], waiting[rows])
        ages = _oldest(counts.jobs[model], times) / SECOND
        oldest = np.zeros(counts.bins + 1)
        np.maximum.at(oldest, _bins(times, counts), ages)
        found.append(BacklogLine(model, tuple(most[:-1].tolist()), tuple(oldest[:-1].tolist())))
    return tuple(found)


def _oldest(parts: Sequence[tuple[Ints, Ints]], times: Ints) -> Ints:
    """Microseconds that the oldest job without a first token had waited, at each instant."""
    arrival = np.concatenate([one for one, _ in parts])
    first = np.concatenate([one for _, one in parts])
    order = np.argsort(first, kind="stable")
    earliest = np.minimum.accumulate(arrival[order][::-1])[::-1]  # of the jobs whose first token comes at this rank or later
    rank = np.searchsorted(first[order], times, side="right")
    oldest = np.append(earliest, NEVER)[rank]
    age: Ints = np.maximum(times - oldest, 0)
    return age


def _flows(counts: _Counts) -> tuple[RegionFlow, ...]:
    sums: dict[str, int] = {}
    for (origin, _), requests in counts.flows.items():
        sums[origin] = sums.get(origin, 0) + requests
    ordered = sorted(counts.flows.items(), key=lambda each: (each[0][0], -each[1], each[0][1]))
    return tuple(RegionFlow(origin, served, requests, requests / sums[origin]) for (origin, served), requests in ordered)
