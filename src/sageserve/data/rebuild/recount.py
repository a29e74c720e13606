"""Made requests counted again: whether they count as the history did, and how far from the truth such requests are.

`recount` is the check: arrivals by interval, and buckets and tokens by window, of a trace. `own_error` is the error that needs no
truth: what was made is taken for the truth, counted as the history was, and made again. Knows no server and no simulator.
Read next: docs/reference/reconstruction.md for what the figures came to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Bools, Floats, Trace
from sageserve.data.history.records import HistogramHistory
from sageserve.data.rebuild.demand import UNKNOWN, DemandStream
from sageserve.data.rebuild.requests import rebuild


@dataclass(frozen=True, slots=True)
class RebuildError:
    """How far made requests are from the true ones; all but `arrivals` relative to the truth.

    Args:
        arrivals: the largest difference of requests in one interval of one stream.
        prompt_tokens, output_tokens: of the sums.
        prompt_p50, prompt_p95, prompt_p99, output_p50, output_p95, output_p99: of the quantiles of lengths.
    """

    arrivals: int
    prompt_tokens: float
    output_tokens: float
    prompt_p50: float
    prompt_p95: float
    prompt_p99: float
    output_p50: float
    output_p95: float
    output_p99: float


def recount(trace: Trace, streams: Sequence[DemandStream]) -> tuple[DemandStream, ...]:
    """The streams as counters would have shown these requests, each length counted at its request's arrival.

    Args:
        trace: requests, on the streams' window.
        streams: their grids and buckets are used; those without a class count all classes of their model and region.
    """
    return tuple(_recounted(trace, one) for one in streams)


def _recounted(trace: Trace, one: DemandStream) -> DemandStream:
    rows = rows_of(trace, one)
    arrival = trace.arrival[rows]
    counted = np.bincount(arrival // one.grid.interval, minlength=one.grid.count)[: one.grid.count].astype(np.float64)
    return replace(
        one,
        arrivals=counted,
        gaps=(),
        prompt=None if one.prompt is None else _buckets(one.prompt, arrival, trace.prompt[rows]),
        output=None if one.output is None else _buckets(one.output, arrival, trace.output[rows]),
        prompt_tokens=float(trace.prompt[rows].sum()),
        output_tokens=float(trace.output[rows].sum()),
    )


def rows_of(trace: Trace, one: DemandStream) -> Bools:
    """bool[n]: which requests are a stream's."""
    rows: Bools = (trace.region == trace.names.regions.index(one.region)) & (trace.model == trace.names.models.index(one.model))
    return rows if one.tier == UNKNOWN else rows & (trace.tier == trace.names.tiers.index(one.tier))


def _buckets(like: HistogramHistory, arrival: np.ndarray, length: np.ndarray) -> HistogramHistory:
    window = np.minimum(arrival // like.grid.interval, like.grid.count - 1)
    bucket = np.searchsorted(like.bounds, length, side="left")
    buckets = len(like.bounds) + 1
    flat = np.bincount(window * buckets + bucket, minlength=like.grid.count * buckets)
    total = np.bincount(window, weights=length.astype(np.float64), minlength=like.grid.count).astype(np.float64)
    return HistogramHistory(like.grid, like.bounds, flat.reshape(like.grid.count, buckets).astype(np.float64), total)


def compare(truth: Trace, made: Trace, streams: Sequence[DemandStream]) -> RebuildError:
    """How far made requests are from the true ones, on the grid of the streams."""
    apart = 0
    for before, after in zip(recount(truth, streams), recount(made, streams), strict=True):
        apart = max(apart, int(np.abs(before.arrivals - after.arrivals).max()))
    prompt, output = _lengths_apart(truth.prompt, made.prompt), _lengths_apart(truth.output, made.output)
    return RebuildError(apart, prompt[0], output[0], *prompt[1:], *output[1:])


def _lengths_apart(truth: np.ndarray, made: np.ndarray) -> Floats:
    """Relative errors of the sum and of three quantiles."""
    sums = np.array([float(truth.sum()), *np.quantile(truth, (0.5, 0.95, 0.99))])
    found = np.array([float(made.sum()), *np.quantile(made, (0.5, 0.95, 0.99))])
    apart: Floats = found / sums - 1.0
    return apart


def own_error(streams: Sequence[DemandStream], scenario: Scenario, seeds: tuple[int, int] = (1, 2)) -> RebuildError:
    """The error of making requests of this history, as far as the history itself can tell.

    Args:
        streams: the history.
        scenario: as for `rebuild`.
        seeds: of the requests that are taken for true, and of those that are made of their counters.

    Raises:
        MeasurementError: as `rebuild`.
    """
    first = rebuild(streams, scenario, seeds[0]).trace
    second = rebuild(recount(first, streams), scenario, seeds[1]).trace
    return compare(first, second, streams)
