"""What the paper's program is told, and its constraints as rows over the pools' targets.

A row knows its name in words, so that a plan can say what binds. Knows no solver. Read next: `hourly.py`, which solves them.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Final, Literal, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sageserve.base.errors import PlanError

Kind: TypeAlias = Literal["demand", "total demand", "minimum", "stock", "maximum"]

_ELSEWHERE: Final = 0.1
"""Weight of a token/s missing in its region, against 1 for one missing everywhere: traffic can travel, if there is room."""


class PoolFacts(Struct, frozen=True):
    """One pool as the program sees it.

    Args:
        name: `region/model/gpu`.
        region: number of its region.
        model: number of its model.
        stock: number of the stock its GPUs come from.
        gpus: GPUs per instance.
        price_per_hour: dollars per hour of an instance.
        start_cost: dollars that starting one instance wastes: price x time to load.
        theta: tokens/s one instance sustains within its targets.
        now: instances that serve, or will.
        maximum: instances at most.
        lowest: instances at least, come what may; what is merely wished belongs in the problem's `minimum`.
        carbon_per_hour: what the CO2 of an instance's hour is worth, weighed like its price.
    """

    name: str
    region: int
    model: int
    stock: int
    gpus: int
    price_per_hour: float
    start_cost: float
    theta: float
    now: int
    maximum: int
    lowest: int = 0
    carbon_per_hour: float = 0.0


class StockFacts(Struct, frozen=True):
    """GPUs of one type in one region: `name` is `region/gpu`; `free` are those that instances counted in `now` do not hold."""

    name: str
    free: int


class HourlyProblem(Struct, frozen=True):
    """Everything the paper's program needs.

    Args:
        regions: names.
        models: names.
        stocks: in order of their numbers.
        pools: in order of their numbers.
        demand: tokens/s by window, region, model: forecasts of the hour ahead.
        buffer: tokens/s of batch work per model, on top of the total.
        minimum: instances by region and model that an endpoint with pools keeps.
        epsilon: share of a region's peak that its own pools must be able to serve; the router takes the rest elsewhere.
        weight: per model, how bad a missing token/s is; ones when empty.
    """

    regions: tuple[str, ...]
    models: tuple[str, ...]
    stocks: tuple[StockFacts, ...]
    pools: tuple[PoolFacts, ...]
    demand: tuple[tuple[tuple[float, ...], ...], ...]
    buffer: tuple[float, ...]
    minimum: tuple[tuple[int, ...], ...]
    epsilon: float = 0.8
    weight: tuple[float, ...] = ()


class ConstraintRow(Struct, frozen=True):
    """One constraint over targets: sum of factor x target >= needed when elastic, <= needed otherwise.

    `scale` divides the row before it is solved, so that factors are about one; `weight` is per missing unit.
    """

    name: str
    kind: Kind
    unit: str
    pools: tuple[int, ...]
    factors: tuple[float, ...]
    needed: float
    elastic: bool
    scale: float
    weight: float = 0.0

    def has(self, target: Sequence[int]) -> float:
        """What these numbers give; of a stock, what they use."""
        return sum(factor * target[pool] for pool, factor in zip(self.pools, self.factors, strict=True))

    def slack(self, target: Sequence[int]) -> float:
        """What is left over with these numbers; negative when short."""
        return self.has(target) - self.needed if self.elastic else self.needed - self.has(target)


def windows(demand: NDArray[np.float64]) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Demand for a `HourlyProblem` from an array [window, region, model], or [region, model] for one window."""
    stack = demand if demand.ndim == 3 else demand[None]
    return tuple(tuple(tuple(float(rate) for rate in region) for region in window) for window in stack)


def check(problem: HourlyProblem) -> None:
    """Raise PlanError where sizes do not match or a number is negative or not finite."""
    regions, models = len(problem.regions), len(problem.models)
    shapes = [len(window) == regions and all(len(row) == models for row in window) for window in problem.demand]
    _require(bool(shapes) and all(shapes), f"demand must be [windows, {regions} regions, {models} models]")
    _require(len(problem.minimum) == regions and all(len(row) == models for row in problem.minimum), "minimum per region, model")
    _require(len(problem.buffer) == models, f"buffer must have {models} values, one per model")
    _require(len(problem.weight) in {0, models}, f"weight must have {models} values, one per model")
    rates = [rate for window in problem.demand for row in window for rate in row]
    _require(all(isfinite(rate) and rate >= 0 for rate in [*rates, *problem.buffer, *problem.weight]), "demand must be finite")
    _require(0 <= problem.epsilon <= 1, f"epsilon is {problem.epsilon}, and must be between 0 and 1")
    for pool in problem.pools:
        numbers = (pool.price_per_hour, pool.start_cost, pool.theta, pool.carbon_per_hour)
        _require(all(isfinite(x) and x >= 0 for x in numbers), f"pool {pool.name}: costs and theta must be finite")
        _require(pool.gpus > 0 and pool.now >= 0 and pool.maximum >= 0, f"pool {pool.name}: counts must not be negative")
        inside = 0 <= pool.region < regions and 0 <= pool.model < models and 0 <= pool.stock < len(problem.stocks)
        _require(inside, f"pool {pool.name}: its region, model or stock does not exist")
    for number, stock in enumerate(problem.stocks):
        _require(_owned(problem, number) >= 0, f"stock {stock.name} has less than no GPUs")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise PlanError(f"the planning problem is not well formed: {message}")


def rows_of(problem: HourlyProblem) -> list[ConstraintRow]:
    """All constraints; an endpoint without pools has none of its own, because nothing could hold them."""
    rows: list[ConstraintRow] = []
    for region in range(len(problem.regions)):
        for model in range(len(problem.models)):
            rows += _endpoint_rows(problem, region, model)
    for model in range(len(problem.models)):
        rows.append(_total_row(problem, model))
    rows += [_stock_row(problem, number) for number in range(len(problem.stocks))]
    return rows


def _endpoint_rows(problem: HourlyProblem, region: int, model: int) -> list[ConstraintRow]:
    members = tuple(p for p, pool in enumerate(problem.pools) if pool.region == region and pool.model == model)
    if not members:
        return []
    name = f"{problem.regions[region]}/{problem.models[model]}"
    peak = problem.epsilon * max(window[region][model] for window in problem.demand)
    theta = _thetas(problem, members)
    weight = _ELSEWHERE * _weight(problem, model)
    kept = float(problem.minimum[region][model])
    ones = (1.0,) * len(members)
    slowest = min((rate for rate in theta if rate > 0), default=1.0)
    return [
        ConstraintRow(f"demand {name}", "demand", "tokens/s", members, theta, peak, True, _scale(theta), weight),
        ConstraintRow(f"minimum {name}", "minimum", "instances", members, ones, kept, True, 1.0, weight * slowest),
    ]


def _total_row(problem: HourlyProblem, model: int) -> ConstraintRow:
    members = tuple(p for p, pool in enumerate(problem.pools) if pool.model == model)
    theta = _thetas(problem, members)
    peak = max(sum(region[model] for region in window) for window in problem.demand) + problem.buffer[model]
    name = f"total demand {problem.models[model]}"
    return ConstraintRow(name, "total demand", "tokens/s", members, theta, peak, True, _scale(theta), _weight(problem, model))


def _stock_row(problem: HourlyProblem, number: int) -> ConstraintRow:
    members = tuple(p for p, pool in enumerate(problem.pools) if pool.stock == number)
    gpus = tuple(float(problem.pools[p].gpus) for p in members)
    name = f"stock {problem.stocks[number].name}"
    return ConstraintRow(name, "stock", "GPUs", members, gpus, float(_owned(problem, number)), False, max(gpus, default=1.0))


def _owned(problem: HourlyProblem, stock: int) -> int:
    """GPUs of a stock, free or held."""
    return problem.stocks[stock].free + sum(pool.gpus * pool.now for pool in problem.pools if pool.stock == stock)


def _thetas(problem: HourlyProblem, members: Sequence[int]) -> tuple[float, ...]:
    return tuple(problem.pools[p].theta for p in members)


def _scale(theta: Sequence[float]) -> float:
    return max(theta, default=0.0) or 1.0


def _weight(problem: HourlyProblem, model: int) -> float:
    return problem.weight[model] if problem.weight else 1.0
