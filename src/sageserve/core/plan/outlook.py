"""What the receding-horizon program is told: pools, streams of interactive demand, batch work with deadlines, steps ahead.

Demand is counted in *units* the caller chooses; a way says how many instances of a pool one unit keeps busy, so that GPU types
that differ by tier and by prompt length are exact. Time is hours from now. Knows no solver. Read next: `horizon.py`.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from math import isfinite
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from sageserve.base.errors import PlanError

_LENIENT: Final = 1e-9  # hours: sums of step lengths are not exact


class HorizonPool(Struct, frozen=True):
    """One pool as the program sees it.

    Args:
        name: `region/model/gpu`.
        stock: number of the stock its GPUs come from.
        gpus: GPUs per instance.
        price_per_hour: dollars per hour of an instance.
        start_cost: dollars wasted by one start: price x time to load.
        lead_hours: from the decision to start until the instance serves.
        serving: instances that serve now.
        coming: (hours from now, instances) of starts under way.
        maximum: instances at most, donated ones included.
        stop_cost: dollars wasted by one stop: price x time to drain.
        spot: instances donated and still loaded.
        spot_income_per_hour: dollars per hour of a donated instance.
        reclaim_hours: from the decision to take one back until it serves.
        reclaim_cost: dollars wasted by taking one back.
        pinned: the target it must have, to see what that costs; -1 when it is free.
        carbon_per_hour: by step, what the CO2 of an instance's hour is worth, weighed like its price; empty: nothing.
    """

    name: str
    stock: int
    gpus: int
    price_per_hour: float
    start_cost: float
    lead_hours: float
    serving: int
    maximum: int
    coming: tuple[tuple[float, int], ...] = ()
    stop_cost: float = 0.0
    spot: int = 0
    spot_income_per_hour: float = 0.0
    reclaim_hours: float = 1 / 60
    reclaim_cost: float = 0.0
    pinned: int = -1
    carbon_per_hour: tuple[float, ...] = ()

    @property
    def held(self) -> int:
        """Instances that hold GPUs now."""
        return self.serving + self.spot + sum(count for _, count in self.coming)


class HorizonStock(Struct, frozen=True):
    """GPUs of one type in one region, held or free; `name` is `region/gpu`."""

    name: str
    gpus: int


class Way(Struct, frozen=True):
    """A pool that may serve some work: `use` instances per unit, `cost_per_hour` dollars per unit for the way there."""

    pool: int
    use: float
    cost_per_hour: float = 0.0


class Stream(Struct, frozen=True):
    """Interactive demand of one model and tier group from one region.

    Args:
        name: in words, for explanations.
        ways: the pools that may serve it; what is too far away is left out.
        rate: units by step, with the headroom that the tier's target asks for: capacity is kept for this.
        expected: units by step without headroom: what batch work finds taken.
        level: quantile of demand that `rate` is; 0: not said.
        weight: how bad a unit that cannot be served is, against 1.
    """

    name: str
    ways: tuple[Way, ...]
    rate: tuple[float, ...]
    expected: tuple[float, ...]
    weight: float = 1.0
    level: float = 0.0


class Lot(Struct, frozen=True):
    """Batch work: `work` unit-hours that are there from `arrives` on and must be done by `due` (hours from now)."""

    arrives: float
    due: float
    work: float


class BatchDemand(Struct, frozen=True):
    """Batch work of one model.

    Args:
        name: in words, for explanations.
        ways: the pools that may do it.
        lots: in any order.
        weight: how bad a unit-hour not done by its deadline is, against 1 for interactive work.
        carry_cost: dollars per unit-hour left to after the horizon: what it will probably cost then.
    """

    name: str
    ways: tuple[Way, ...]
    lots: tuple[Lot, ...]
    weight: float = 0.3
    carry_cost: float = 0.0


class Endpoint(Struct, frozen=True):
    """Pools that together keep at least `minimum` instances serving."""

    name: str
    pools: tuple[int, ...]
    minimum: int


class TierKept(Struct, frozen=True):
    """A tier's promise: the share of requests it is for, and that kept lately of those that an idle engine serves in time."""

    tier: str
    promised: float
    kept: float


class Together(Struct, frozen=True):
    """Demands that go the same ways, because a region's prompts are decoded in it: where prefill and decode are apart.

    Args:
        streams: pairs of them, by number: prompts, and the answers to them.
        batches: likewise.
        regions: of the pools, by their numbers.
    """

    streams: tuple[tuple[int, int], ...]
    batches: tuple[tuple[int, int], ...]
    regions: tuple[int, ...]


class Outlook(Struct, frozen=True):
    """Everything the receding-horizon program needs.

    Args:
        steps: lengths in hours, from now on; see `coarsening`.
        pools: in order of their numbers.
        stocks: in order of their numbers.
        streams: interactive demand.
        batches: deferrable work.
        endpoints: with the minimum each keeps.
        margin: every use is multiplied by this: 1.1 holds when instances do a tenth less than believed.
        whole_steps: steps whose numbers are whole; later ones may be fractions, they will be planned again.
        worth: dollars that a request in time was taken to be worth: what rates were made with; 0: not said.
        tiers: what that worth follows from.
        reserve: headroom may be held in donated instances, which are back within a minute; expected demand may not.
        apart: demands that go the same ways; left out where there are none.
    """

    steps: tuple[float, ...]
    pools: tuple[HorizonPool, ...]
    stocks: tuple[HorizonStock, ...]
    streams: tuple[Stream, ...]
    batches: tuple[BatchDemand, ...]
    endpoints: tuple[Endpoint, ...]
    margin: float = 1.0
    whole_steps: int = 1
    reserve: bool = False
    worth: float = 0.0
    tiers: tuple[TierKept, ...] = ()
    apart: Together | UnsetType = UNSET


def coarsening(hours: float, *, first: float = 0.25, fine: int = 8) -> tuple[float, ...]:
    """Lengths of steps that cover `hours`: `fine` steps of `first` hours, then four of each doubled length.

    Decisions of the next step need the next hours in detail, and deadlines of a day only in outline: 24 h take 22 steps, not 96.
    """
    steps: list[float] = []
    length = first
    while sum(steps) < hours - _LENIENT:
        count = fine if length == first else 4
        for _ in range(count):
            left = hours - sum(steps)
            if left > _LENIENT:
                steps.append(min(length, left))
        length *= 2
    return tuple(steps)


def begins(steps: Sequence[float]) -> tuple[float, ...]:
    """When each step begins, and when the last ends: one more than there are steps."""
    return tuple(accumulate(steps, initial=0.0))


def first_step(steps: Sequence[float], hours: float) -> int:
    """First step that begins at or after `hours`; the number of steps when there is none."""
    return bisect_left(begins(steps), hours - _LENIENT, hi=len(steps))


def last_step(steps: Sequence[float], hours: float) -> int:
    """Last step that ends at or before `hours`; -1 when there is none; the number of steps when `hours` is beyond them."""
    times = begins(steps)
    if hours > times[-1] + _LENIENT:
        return len(steps)
    return max((s for s in range(len(steps)) if times[s + 1] <= hours + _LENIENT), default=-1)


def chains(lots: Sequence[Lot], steps: Sequence[float]) -> list[list[tuple[int, int, float]]]:
    """Lots as (first step, last step, unit-hours), in chains where who comes first is due first.

    Within such a chain it is enough to count: not more done than has arrived, not less than is due. Work that arrives within a
    step is done from the next on; work whose deadline is shorter than its steps is due in the first it can be done in.
    """
    spans = sorted((first_step(steps, lot.arrives), last_step(steps, lot.due), lot.work) for lot in lots if lot.work > 0)
    found: list[list[tuple[int, int, float]]] = []
    for first, last, work in spans:
        if first >= len(steps):
            continue
        span = (first, max(first, last), work)
        home = next((chain for chain in found if chain[-1][1] <= span[1]), None)
        if home is None:
            found.append([span])
        else:
            home.append(span)
    return found


def check(outlook: Outlook) -> None:
    """Raise PlanError where sizes do not match or a number is negative or not finite."""
    count = len(outlook.steps)
    _require(count > 0 and all(length > 0 for length in outlook.steps), "steps must have positive lengths")
    _require(outlook.margin > 0 and isfinite(outlook.margin), f"margin is {outlook.margin}")
    for pool in outlook.pools:
        _require(0 <= pool.stock < len(outlook.stocks), f"pool {pool.name}: its stock does not exist")
        numbers = (pool.price_per_hour, pool.start_cost, pool.lead_hours, pool.stop_cost, pool.spot_income_per_hour)
        _require(all(isfinite(x) and x >= 0 for x in numbers), f"pool {pool.name}: prices and times must be finite")
        _require(len(pool.carbon_per_hour) in {0, count}, f"pool {pool.name}: one cost of CO2 per step, or none")
        _require(all(isfinite(x) and x >= 0 for x in pool.carbon_per_hour), f"pool {pool.name}: costs of CO2 must be finite")
        _require(pool.serving >= 0 and pool.spot >= 0 and pool.gpus > 0, f"pool {pool.name}: counts must not be negative")
    for stream in outlook.streams:
        _require(len(stream.rate) == len(stream.expected) == count, f"stream {stream.name}: one rate per step")
        _require(
            all(isfinite(x) and x >= 0 for x in (*stream.rate, *stream.expected)), f"stream {stream.name}: rates must be finite"
        )
    for batch in outlook.batches:
        _require(all(isfinite(lot.work) and lot.work >= 0 for lot in batch.lots), f"batch {batch.name}: work must be finite")
    ways = [way for stream in outlook.streams for way in stream.ways]
    ways += [way for batch in outlook.batches for way in batch.ways]
    _require(all(0 <= way.pool < len(outlook.pools) and way.use > 0 for way in ways), "ways lead to pools and use some of them")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise PlanError(f"the outlook to plan for is not well formed: {message}")
