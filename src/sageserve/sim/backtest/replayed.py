"""Is the profile true? `recorded`, replayed, must look as the history did: waiting times and what is inside, hour by hour.

What is compared is read of both sides in one way: quantiles of the same buckets of TTFT, each counted when its token came, and
the mean of what ran and waited. An hour counts where the history saw enough of it. Read next: `answer.py` for what is said of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sageserve.base.records import Floats, Ints
from sageserve.base.units import HOUR, SECOND, Micros
from sageserve.data.history.histograms import joined
from sageserve.data.history.records import HistogramHistory
from sageserve.data.rebuild.demand import PlacedPool
from sageserve.sim.run import Run

WITHIN: Final = 0.15  # of what was measured
LEAST: Final = 100  # first tokens in an hour: below, a p95 is a handful of requests
HOURS_WITHIN: Final = 0.75  # of the hours: one profile that is true has nearly all, one that is wrong by 2 times few or none
ONE: Final = 1.0  # request, running or waiting: an hour's mean of few is off by as much by chance

Measure: TypeAlias = Literal["ttft_s_p50", "ttft_s_p95", "inside"]
QUANTILES: Final[tuple[tuple[Measure, float], ...]] = (("ttft_s_p50", 0.5), ("ttft_s_p95", 0.95))
MEASURES: Final[tuple[Measure, ...]] = ("ttft_s_p50", "ttft_s_p95", "inside")


class HourCheck(Struct, frozen=True):
    """One hour of one endpoint.

    Args:
        endpoint: region/model.
        hour: from the start of the history, the first is 0.
        requests: first tokens that were measured.
        measured, replayed: by measure; None where there was nothing to measure.
        apart: replayed over measured, less 1.
    """

    endpoint: str
    hour: int
    requests: int
    measured: dict[Measure, float | None]
    replayed: dict[Measure, float | None]
    apart: dict[Measure, float | None]


class ProfileCheck(Struct, frozen=True):
    """Whether the profile can be believed.

    Args:
        state: `unknown`: the history has no TTFT histograms, or too few requests in any hour.
        within: share of the hours within 15 %, by measure; None: never measured.
        apart: median of replayed over measured less 1, by measure.
        hours: all that were compared.
    """

    state: Literal["ok", "wrong", "unknown"]
    within: dict[Measure, float | None]
    apart: dict[Measure, float | None]
    hours: tuple[HourCheck, ...]


def check_replay(pools: Sequence[PlacedPool], run: Run, skip: Micros) -> ProfileCheck:
    """Compare a replay with its history.

    Args:
        pools: what was measured.
        run: `recorded` on requests that were made of it.
        skip: microseconds from the start that are not compared: nothing could be started before, and queues were empty.
    """
    hours: list[HourCheck] = []
    for place in dict.fromkeys((one.region, one.model) for one in pools):
        mine = [one for one in pools if (one.region, one.model) == place]
        hours += _endpoint(place, mine, run, -(-skip // HOUR))
    within: dict[Measure, float | None] = {}
    apart: dict[Measure, float | None] = {}
    for measure in MEASURES:
        found = np.array([value for one in hours if (value := one.apart[measure]) is not None])
        within[measure] = round(float((np.abs(found) <= WITHIN).mean()), 4) if len(found) else None
        apart[measure] = round(float(np.median(found)), 4) if len(found) else None
    known = [value for value in within.values() if value is not None]
    if within["ttft_s_p50"] is None:
        return ProfileCheck("unknown", within, apart, tuple(hours))
    return ProfileCheck("ok" if min(known) >= HOURS_WITHIN else "wrong", within, apart, tuple(hours))


def _endpoint(place: tuple[str, str], mine: Sequence[PlacedPool], run: Run, first: int) -> Iterator[HourCheck]:
    measured = joined(one.history.histograms["ttft"] for one in mine if "ttft" in one.history.histograms)
    inside = np.sum([one.history.running + one.history.waiting for one in mine], axis=0)
    grid = mine[0].history.grid
    interval = grid.interval
    here = _served(run, _endpoints(run, place))
    first_tokens, waited = _first_tokens(here)
    replayed = np.where(np.isnan(inside), np.nan, mean_inside(_stays(run, here), grid.edges() - grid.begin))
    for hour in range(first, int(run.window // HOUR)):
        begin, end = hour * HOUR, (hour + 1) * HOUR
        seen = _hour(measured, begin, end)
        count = 0 if seen is None else int(seen.counts.sum())
        part = slice(begin // interval, end // interval)
        shown: dict[Measure, float | None] = {"ttft_s_p50": None, "ttft_s_p95": None, "inside": _mean(inside[part])}
        played: dict[Measure, float | None] = shown | {"inside": _mean(replayed[part])}
        if seen is not None and count >= LEAST:
            same = _bucketed(seen, waited[(first_tokens >= begin) & (first_tokens < end)])
            for measure, share in QUANTILES:
                shown[measure], played[measure] = _number(seen.quantile(share)), _number(same.quantile(share))
        if count >= LEAST or measured is None:
            name = "/".join(place)
            yield HourCheck(name, hour, count, shown, played, {one: _apart(one, shown[one], played[one]) for one in MEASURES})


def _endpoints(run: Run, place: tuple[str, str]) -> list[int]:
    names = run.layout.names
    code = names.regions.index(place[0]), names.models.index(place[1])
    return sorted({pool.endpoint for pool in run.layout.pools if (pool.region, pool.model) == code})


def _served(run: Run, endpoints: Sequence[int]) -> NDArray[Any]:
    """Requests that were given to instances of these endpoints."""
    pool_of = np.array([*run.fleet.pool_of, -1], np.int64)
    endpoint_of = np.array([*(pool.endpoint for pool in run.layout.pools), -1], np.int64)
    served: NDArray[Any] = run.requests[np.isin(endpoint_of[pool_of[run.requests["instance"]]], endpoints)]
    return served


def _first_tokens(rows: NDArray[Any]) -> tuple[Ints, Floats]:
    """When first tokens came, and seconds that they took."""
    rows = rows[rows["first"] >= 0]
    first = rows["first"].astype(np.int64)
    return first, (first - rows["arrival"]) / SECOND


def _stays(run: Run, rows: NDArray[Any]) -> tuple[Ints, Ints]:
    """From when to when requests ran or waited at engines; what waits in a queue of ours before them is not there yet.

    Not the timeline's counts: a prompt that is being worked on is in neither of them, and those are up to a fifth of what is
    inside.
    """
    begin, end = rows["arrival"].astype(np.int64), rows["finish"].astype(np.int64)
    end = np.where(end < 0, run.window, end)
    if run.scenario.batch.feed != "direct":
        held = np.array([tier.batch for tier in run.scenario.tiers.values()])[rows["tier"]]
        begin = np.where(held, np.where(rows["first"] >= 0, rows["first"], end), begin)
    return begin, end


def mean_inside(stays: tuple[Ints, Ints], edges: Ints) -> Floats:
    """How many were inside on average between each edge and the next.

    Args:
        stays: when each came and went.
        edges: int64[n + 1], rising.
    """
    spent = np.zeros(len(edges))  # by all of them together until each edge
    for column, sign in zip(stays, (1.0, -1.0), strict=True):
        at = np.sort(column).astype(np.float64)
        sums = np.concatenate(([0.0], np.cumsum(at)))
        before = np.searchsorted(at, edges)
        spent += sign * (before * edges.astype(np.float64) - sums[before])
    found: Floats = np.diff(spent) / np.diff(edges)
    return found


def _hour(measured: HistogramHistory | None, begin: Micros, end: Micros) -> HistogramHistory | None:
    if measured is None:
        return None
    part = slice(begin // measured.grid.interval, end // measured.grid.interval)
    return HistogramHistory(measured.grid, measured.bounds, measured.counts[part], measured.total[part])


def _bucketed(like: HistogramHistory, seconds: Floats) -> HistogramHistory:
    counts = np.bincount(np.searchsorted(like.bounds, seconds, side="left"), minlength=len(like.bounds) + 1).astype(np.float64)
    return HistogramHistory(like.grid, like.bounds, counts[None], np.array([seconds.sum()]))


def _mean(values: Floats) -> float | None:
    seen = values[~np.isnan(values)]
    return round(float(seen.mean()), 4) if len(seen) else None


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)


def _apart(measure: Measure, measured: float | None, replayed: float | None) -> float | None:
    if not measured or replayed is None:
        return None
    if measure == "inside" and abs(replayed - measured) < ONE:
        return 0.0
    return round(replayed / measured - 1.0, 4)


def as_numbers(found: Mapping[Measure, float | None]) -> list[str]:
    """For people: `TTFT p50 +3 %`."""
    words = {"ttft_s_p50": "TTFT p50", "ttft_s_p95": "TTFT p95", "inside": "running + waiting"}
    return [f"{words[measure]} {value:+.0%}" for measure, value in found.items() if value is not None]
