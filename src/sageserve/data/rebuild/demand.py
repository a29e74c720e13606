"""Which counts become demand: what was offered at a gateway before what engines did, per region, model and service class.

    1. a gateway's arrivals, by its labels for service classes
    2. engines: completions and the change of what is inside them, all pools of a model in a region together

Lengths come from the gateway's histograms where it has them by class, else from the engines' for all classes alike.
Knows no server. Read next: `requests.py`, which makes requests of this.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np

from sageserve.base.records import Floats
from sageserve.data.history.histograms import joined
from sageserve.data.history.records import NO_INSTANCE, FrontHistory, Gap, Grid, HistogramHistory, PoolHistory

UNKNOWN: Final = ""
"""The service class of requests that nothing tells apart."""


Column: TypeAlias = Literal["prompt_tokens", "output_tokens"]
_SIDES: Final[tuple[tuple[Literal["prompt", "output"], Column], ...]] = (("prompt", "prompt_tokens"), ("output", "output_tokens"))


@dataclass(frozen=True, slots=True)
class PlacedPool:
    """A pool's history, and where it stands."""

    region: str
    model: str
    history: PoolHistory


@dataclass(frozen=True, slots=True)
class PlacedFront:
    """A gateway's history for one class, and where it stands; `tier` is one of ours, or UNKNOWN."""

    region: str
    model: str
    tier: str
    history: FrontHistory


@dataclass(frozen=True, slots=True)
class DemandStream:
    """Requests of one region, model and class, as they were counted.

    Args:
        region, model, tier: whose they are; tier may be UNKNOWN.
        grid: of the arrays.
        arrivals: float64[count], NaN where nothing was seen.
        gaps: where that is, with what counters grew by meanwhile.
        prompt, output: histograms of lengths; none were recorded.
        prompt_tokens, output_tokens: tokens in all, as counters have them, for the share of this stream; NaN: not known.
        source: what was counted.
    """

    region: str
    model: str
    tier: str
    grid: Grid
    arrivals: Floats
    gaps: tuple[Gap, ...]
    prompt: HistogramHistory | None
    output: HistogramHistory | None
    prompt_tokens: float
    output_tokens: float
    source: Literal["gateway", "engines"]

    def filled(self) -> Floats:
        """float64[count]: arrivals, and in gaps what counters grew by, spread evenly."""
        found = self.arrivals.copy()
        for gap in self.gaps:
            found[gap.first : gap.last] = gap.grown / max(1, gap.last - gap.first)
        return found


def demand_of(pools: Sequence[PlacedPool], fronts: Sequence[PlacedFront] = ()) -> tuple[DemandStream, ...]:
    """All streams, in order of region, model and class.

    Args:
        pools: of any regions and models, on one grid.
        fronts: on the same grid.
    """
    places = sorted({(one.region, one.model) for one in pools} | {(one.region, one.model) for one in fronts})
    found: list[DemandStream] = []
    for region, model in places:
        mine = [one.history for one in pools if (one.region, one.model) == (region, model)]
        doors = [one for one in fronts if (one.region, one.model) == (region, model)]
        found += _offered(doors, mine) if doors else [_engines(region, model, mine)]
    return tuple(_with_tokens(one, found, pools) for one in found)


def _offered(doors: Sequence[PlacedFront], pools: Sequence[PoolHistory]) -> Iterable[DemandStream]:
    tiers: dict[str, list[FrontHistory]] = {}
    for door in doors:
        tiers.setdefault(door.tier, []).append(door.history)
    sizes = {signal: _sizes(pools, signal) for signal in ("prompt_size", "output_size")}
    for tier, histories in sorted(tiers.items()):
        arrivals, gaps = _added([(one.arrivals, one.gaps) for one in histories])
        own = {signal: joined(one.histograms[signal] for one in histories if signal in one.histograms) for signal in sizes}
        yield DemandStream(
            doors[0].region,
            doors[0].model,
            tier,
            histories[0].grid,
            arrivals,
            gaps,
            own["prompt_size"] or sizes["prompt_size"],
            own["output_size"] or sizes["output_size"],
            float("nan"),
            float("nan"),
            "gateway",
        )


def _engines(region: str, model: str, pools: Sequence[PoolHistory]) -> DemandStream:
    arrivals, gaps = _added([(one.arrivals, one.gaps) for one in pools])
    return DemandStream(
        region,
        model,
        UNKNOWN,
        pools[0].grid,
        arrivals,
        gaps,
        _sizes(pools, "prompt_size"),
        _sizes(pools, "output_size"),
        _tokens(pools, "prompt_tokens"),
        _tokens(pools, "output_tokens"),
        "engines",
    )


def _with_tokens(one: DemandStream, all_streams: Sequence[DemandStream], pools: Sequence[PlacedPool]) -> DemandStream:
    """A gateway's stream with its share of the tokens that engines of all regions counted: requests may be served elsewhere."""
    if one.source != "gateway":
        return one
    mine = [pool.history for pool in pools if pool.model == one.model]
    same = [stream for stream in all_streams if stream.model == one.model]
    parts: dict[str, float] = {}
    for side, column in _SIDES:
        weights = [_expected(stream, side) for stream in same]
        weight = _expected(one, side)
        parts[column] = _tokens(mine, column) * weight / sum(weights) if weight > 0 else float("nan")
    return replace(one, prompt_tokens=parts["prompt_tokens"], output_tokens=parts["output_tokens"])


def _expected(one: DemandStream, side: Literal["prompt", "output"]) -> float:
    """Tokens that a stream's requests have by its histogram; 1 each where it has none."""
    sizes: HistogramHistory | None = getattr(one, side)
    counts, total = sizes.summed() if sizes is not None else (np.zeros(1), 0.0)
    return float(np.nansum(one.arrivals)) * (total / float(counts.sum()) if counts.sum() > 0 else 1.0)


def _sizes(pools: Sequence[PoolHistory], signal: str) -> HistogramHistory | None:
    return joined(one.histograms[signal] for one in pools if signal in one.histograms)


def _tokens(pools: Sequence[PoolHistory], column: Column) -> float:
    total = sum(float(np.nansum(getattr(one, column))) for one in pools)
    return total if total > 0 else float("nan")


def _added(found: Sequence[tuple[Floats, tuple[Gap, ...]]]) -> tuple[Floats, tuple[Gap, ...]]:
    """Arrivals of several sources together; not seen where one was not seen, or where none had an instance."""
    count = len(found[0][0])
    known = np.zeros((len(found), count))
    blind = np.zeros(count, dtype=np.bool_)
    absent = np.ones(count, dtype=np.bool_)
    grown = np.zeros(count)
    for row, (arrivals, gaps) in enumerate(found):
        known[row] = np.nan_to_num(arrivals)
        gone = np.zeros(count, dtype=np.bool_)
        for gap in gaps:
            grown[gap.first : gap.last] += gap.grown / max(1, gap.last - gap.first)
            if gap.why == NO_INSTANCE:
                gone[gap.first : gap.last] = True
            else:
                blind[gap.first : gap.last] = True
        absent &= gone
    dark = blind | absent
    total = np.where(dark, np.nan, known.sum(axis=0))
    bounds = np.flatnonzero(np.diff(np.concatenate(([False], dark, [False])).astype(np.int8))).reshape(-1, 2)
    inside = known.sum(axis=0) + grown
    named = tuple(
        Gap(int(first), int(last), _why(found, int(first), int(last)), float(inside[first:last].sum())) for first, last in bounds
    )
    return total, named


def _why(found: Sequence[tuple[Floats, tuple[Gap, ...]]], first: int, last: int) -> str:
    reasons = {gap.why for _, gaps in found for gap in gaps if gap.first < last and gap.last > first}
    return ", ".join(sorted(reasons))
