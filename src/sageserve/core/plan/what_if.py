"""The same problem under other circumstances: `demand=1.3,us-east/h100=0` and its like.

Factors multiply (`demand`, `batch`, `theta`, `price`, or the demand of a model, endpoint or stream by its name); a stock by its
name is set to a number of GPUs. Knows no solver. Read next: `explain.py`.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from typing import TypeAlias, overload

from msgspec.structs import replace

from sageserve.base.errors import PlanError
from sageserve.core.plan.hourly_rows import HourlyProblem
from sageserve.core.plan.outlook import Outlook, Stream

Question: TypeAlias = HourlyProblem | Outlook
"""What can be planned: the next hour with the paper's program, or hours ahead with ours."""


def parse(text: str) -> dict[str, float]:
    """`demand=1.3,us-east/h100=0` as names and numbers.

    Raises:
        PlanError: a part is not NAME=NUMBER with a number of at least 0.
    """
    changes: dict[str, float] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not equals or not isfinite(value) or value < 0:
            raise PlanError(f"{part!r} is not a change to try", hint="write NAME=NUMBER, for example demand=1.3,us-east/h100=0")
        changes[name.strip()] = value
    return changes


def names(problem: Question) -> tuple[str, ...]:
    """What can be changed."""
    common = ("demand", "batch", "theta", "price", *(stock.name for stock in problem.stocks))
    if isinstance(problem, Outlook):
        return (*common, *(stream.name for stream in problem.streams))
    return (*common, *problem.models, *(f"{region}/{model}" for region in problem.regions for model in problem.models))


@overload
def change(problem: HourlyProblem, changes: Mapping[str, float]) -> HourlyProblem: ...
@overload
def change(problem: Outlook, changes: Mapping[str, float]) -> Outlook: ...
@overload
def change(problem: Question, changes: Mapping[str, float]) -> Question: ...
def change(problem: Question, changes: Mapping[str, float]) -> Question:
    """The problem with these changes, one after the other.

    Raises:
        PlanError: a name is not one of `names`.
    """
    known = names(problem)
    for name, value in changes.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known[:12])}"
            raise PlanError(f"there is no {name!r} to change", hint=hint)
        problem = _paper(problem, name, value) if isinstance(problem, HourlyProblem) else _outlook(problem, name, value)
    return problem


def _paper(problem: HourlyProblem, name: str, value: float) -> HourlyProblem:
    match name:
        case "demand":
            return scale_demand(problem, dict.fromkeys(range(len(problem.models)), value))
        case "batch":
            return replace(problem, buffer=tuple(value * rate for rate in problem.buffer))
        case "theta":
            return replace(problem, pools=tuple(replace(pool, theta=value * pool.theta) for pool in problem.pools))
        case "price":
            pools = (
                replace(pool, price_per_hour=value * pool.price_per_hour, start_cost=value * pool.start_cost)
                for pool in problem.pools
            )
            return replace(problem, pools=tuple(pools))
        case _ if name in problem.models:
            return scale_demand(problem, {problem.models.index(name): value})
        case _ if name in (stock.name for stock in problem.stocks):
            return _stock(problem, name, value)
        case _:
            region, _, model = name.partition("/")
            return scale_demand(problem, {problem.models.index(model): value}, region=problem.regions.index(region))


def scale_demand(problem: HourlyProblem, factors: Mapping[int, float], *, region: int | None = None) -> HourlyProblem:
    """Demand of some models times a factor, everywhere or in one region."""
    demand = tuple(
        tuple(
            tuple(rate * (factors.get(m, 1.0) if region in {None, g} else 1.0) for m, rate in enumerate(row))
            for g, row in enumerate(window)
        )
        for window in problem.demand
    )
    return replace(problem, demand=demand)


def _stock(problem: HourlyProblem, name: str, gpus: float) -> HourlyProblem:
    number = [stock.name for stock in problem.stocks].index(name)
    held = sum(pool.gpus * pool.now for pool in problem.pools if pool.stock == number)
    stocks = (replace(stock, free=int(gpus) - held) if stock.name == name else stock for stock in problem.stocks)
    return replace(problem, stocks=tuple(stocks))


def _outlook(problem: Outlook, name: str, value: float) -> Outlook:
    match name:
        case "demand":
            return replace(problem, streams=tuple(_stream(stream, value) for stream in problem.streams))
        case "batch":
            batches = (
                replace(batch, lots=tuple(replace(lot, work=value * lot.work) for lot in batch.lots)) for batch in problem.batches
            )
            return replace(problem, batches=tuple(batches))
        case "theta":
            if value <= 0:
                raise PlanError("theta=0 would leave no instance that does anything", hint="give a factor above 0")
            return replace(problem, margin=problem.margin / value)
        case "price":
            pools = (
                replace(pool, price_per_hour=value * pool.price_per_hour, start_cost=value * pool.start_cost)
                for pool in problem.pools
            )
            return replace(problem, pools=tuple(pools))
        case _ if name in (stock.name for stock in problem.stocks):
            stocks = (replace(stock, gpus=int(value)) if stock.name == name else stock for stock in problem.stocks)
            return replace(problem, stocks=tuple(stocks))
        case _:
            streams = (_stream(stream, value) if stream.name == name else stream for stream in problem.streams)
            return replace(problem, streams=tuple(streams))


def _stream(stream: Stream, factor: float) -> Stream:
    rate, expected = (tuple(factor * x for x in series) for series in (stream.rate, stream.expected))
    return replace(stream, rate=rate, expected=expected)
