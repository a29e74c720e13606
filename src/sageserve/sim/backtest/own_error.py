"""How far an answer is off because its requests were made of counters: measured, by doing it once more where the truth is known.

Requests that were made of the history are taken for the truth and played under `recorded`; what that would have shown is recorded
as the history was, made into requests again, and both are played under every policy. Done five times, for counters do not show
all: as made; with answers that go with prompts, and against them (rank correlation `RHO`), which windows show in part; and with
lengths half of the way to the ends of their buckets, and to their middle. The largest of the differences, and twice the spread
over the seeds on top, is the error that is stated: on traces whose lengths correlate by -0.7 to 0.7 it holds the truth nine times
in ten. Read next: `answer.py`; `exported.py`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import Floats, Trace
from sageserve.base.rng import stream
from sageserve.base.units import HOUR
from sageserve.data.rebuild.demand import DemandStream
from sageserve.data.rebuild.joint import joined
from sageserve.data.rebuild.lengths import Buckets
from sageserve.data.rebuild.recount import recount, rows_of
from sageserve.data.rebuild.requests import rebuild
from sageserve.data.results.comparison import needed
from sageserve.data.results.summary import Summary
from sageserve.sim.backtest.exported import Recording, exported
from sageserve.sim.run import Simulation

RHO: Final = 0.7
HALF: Final = 0.5  # of the way that lengths may be elsewhere in a bucket: a whole one would be no distribution of anything
SERIES: Final = 70  # of one instance
SAMPLES_MOST: Final = 150_000_000  # of a recording in memory: 2.4 GB; a longer one is counted request by request instead
SIGMAS: Final = 2.0  # of the seeds' spread
AGAIN: Final = 1_000  # added to a seed: what is made again is drawn anew


@dataclass(frozen=True, slots=True)
class Pair:
    """Requests that are true, and what became of them on the way through counters."""

    name: str
    true: Trace
    made: Trace


@dataclass(frozen=True, slots=True)
class PolicyError:
    """How far one policy's figures are off: the largest of the pairs.

    Args:
        gpu_hours, cost: relative, of GPU-hours with what is owed and of dollars.
        promise_points: of attainment by tier, in points.
        saving: of the relative difference to the base in GPU-hours, with what is owed; None: the base's error was not measured.
    """

    gpu_hours: float
    cost: float
    promise_points: dict[str, float]
    saving: float | None


def pairs_of(
    made: Trace, recorded: Scenario, recording: Recording, streams: Sequence[DemandStream], seed: int
) -> tuple[Pair, ...]:
    """Play, record and make again.

    Args:
        made: requests that were made of the history.
        recorded: the scenario, with the strategy `recorded`.
        recording: how the history was recorded.
        streams: the history, for its buckets.
        seed: of what is drawn.
    """
    truths = {
        "made": made,
        "correlated": correlated(made, RHO, seed),
        "opposed": correlated(made, -RHO, seed),
        "apart": reshaped(made, streams, HALF),
        "together": reshaped(made, streams, -HALF),
    }
    return tuple(Pair(name, true, _again(true, recorded, recording, streams, seed + AGAIN)) for name, true in truths.items())


def _again(true: Trace, recorded: Scenario, recording: Recording, streams: Sequence[DemandStream], seed: int) -> Trace:
    run = Simulation(recorded, true).play()
    instances = len(np.unique(run.requests["instance"]))
    small = instances * (run.window // recording.interval) * SERIES <= SAMPLES_MOST
    counted = exported(run, recording) if small else recount(true, streams)
    return replace(rebuild(counted, recorded, seed).trace, notes=true.notes)


def reshaped(trace: Trace, streams: Sequence[DemandStream], part: float) -> Trace:
    """The same requests with lengths elsewhere inside their buckets, where counters do not see them.

    Args:
        trace: requests of these streams.
        streams: with the buckets of lengths.
        part: of the way to the nearer end of the bucket (above 0), or to the bucket's mean (below).
    """
    prompt, output = trace.prompt.copy(), trace.output.copy()
    for one in streams:
        rows = rows_of(trace, one)
        for sizes, column in ((one.prompt, prompt), (one.output, output)):
            if sizes is not None:
                column[rows] = _moved(column[rows], sizes.bounds, part)
    return replace(trace, prompt=prompt, output=output)


def _moved(lengths: NDArray[np.int32], bounds: Floats, part: float) -> NDArray[np.int32]:
    if not len(lengths):
        return lengths
    bucket = np.searchsorted(bounds, lengths, side="left")
    count = np.maximum(np.bincount(bucket), 1)
    mean = (np.bincount(bucket, weights=lengths) / count)[bucket]
    low, high = Buckets(bounds, np.ones(len(bounds) + 1), float("nan"), int(lengths.max())).limits()
    end = np.where(lengths > mean, np.maximum(high[bucket], lengths), np.minimum(low[bucket], lengths))
    there = end if part > 0 else mean
    found: NDArray[np.int32] = np.rint(lengths + abs(part) * (there - lengths)).astype(np.int32)
    return np.maximum(found, 1)


def correlated(trace: Trace, rho: float, seed: int) -> Trace:
    """The same requests with answers that go with prompts, within each hour, region, model and tier; all sums as they were.

    Args:
        trace: with lengths in any order.
        rho: correlation of the normal scores of both lengths' ranks.
        seed: of the rest.
    """
    hour = trace.arrival // HOUR
    order = np.lexsort((trace.arrival, trace.tier, trace.model, trace.region, hour))
    keys = np.stack([hour, trace.region, trace.model, trace.tier])[:, order]
    edges = np.flatnonzero(np.any(np.diff(keys, axis=1) != 0, axis=0)) + 1
    noise = stream(seed, "backtest/correlated").standard_normal(len(trace))
    output = trace.output.copy()
    for rows in np.split(order, edges):
        output[rows] = joined(trace.prompt[rows], trace.output[rows], rho, noise[rows])
    return replace(trace, output=output)


def policy_error(runs: dict[str, dict[str, tuple[Summary, Summary]]], policy: str, base: str) -> PolicyError:
    """The error of one policy.

    Args:
        runs: by pair and policy, what the true requests and those made of them came to.
        policy: whose.
        base: what savings are counted from.
    """
    hours, cost, saving = list[float](), list[float](), list[float]()
    points: dict[str, float] = {}
    for by_policy in runs.values():
        true, made = by_policy[policy]
        hours.append(_relative(needed(true), needed(made)))
        cost.append(_relative(true.cost_usd.total, made.cost_usd.total))
        if base in by_policy:
            true_base, made_base = by_policy[base]
            saving.append(_relative(needed(made_base), needed(made)) - _relative(needed(true_base), needed(true)))
        for tier, one in true.tiers.items():
            other = made.tiers[tier].attainment
            if one.attainment is not None and other is not None:
                found = 100 * (other - one.attainment)
                points[tier] = max(points.get(tier, 0.0), found, key=abs)
    return PolicyError(max(hours, key=abs), max(cost, key=abs), points, max(map(abs, saving), default=None))


def with_spread(error: PolicyError, seeds: Mapping[int, Summary], base: Mapping[int, Summary]) -> PolicyError:
    """With twice the standard deviation over the seeds on top: what came is one draw of what counters leave open, too.

    Args:
        error: of making requests of counters.
        seeds: what the policy came to, by seed.
        base: what the policy came to that savings are counted from.
    """
    runs = list(seeds.values())
    points = {
        tier: math.copysign(abs(value) + 100 * _spread([run.tiers[tier].attainment or 0.0 for run in runs]), value)
        for tier, value in error.promise_points.items()
    }
    saved = [needed(run) / needed(base[seed]) for seed, run in seeds.items() if seed in base]
    return PolicyError(
        math.copysign(abs(error.gpu_hours) + _relative_spread([needed(run) for run in runs]), error.gpu_hours),
        math.copysign(abs(error.cost) + _relative_spread([run.cost_usd.total for run in runs]), error.cost),
        points,
        None if error.saving is None else error.saving + _spread(saved),
    )


def _spread(values: Sequence[float]) -> float:
    return SIGMAS * statistics.stdev(values) if len(values) > 1 else 0.0


def _relative_spread(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return _spread(values) / mean if mean else 0.0


def _relative(base: float, value: float) -> float:
    return value / base - 1.0 if base else 0.0
