"""The same problem under other circumstances: `demand=1.3,us-east/h100=0` and its like.

Factors multiply (`demand`, `batch`, `theta`, `price`, or the demand of a model, of a region's, of a part or of a stream by its
name); a stock by its name is set to a number of GPUs. Knows no solver. Read next: `explain.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from typing import NamedTuple, TypeAlias, overload

from msgspec.structs import replace

from sageserve.base.errors import PlanError
from sageserve.core.handover import DECODE, PREFILL
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


class _Called(NamedTuple):
    """What a demand is called, the widest first: where nothing is apart, and no tiers are, several of these are one name."""

    model: str
    endpoint: str
    part: str
    endpoint_part: str
    own: str


def names(problem: Question) -> tuple[str, ...]:
    """What can be changed."""
    demands = (name for alike in zip(*_called(problem), strict=True) for name in alike)
    return tuple(dict.fromkeys(("demand", "batch", "theta", "price", *(stock.name for stock in problem.stocks), *demands)))


def whole_models(parts: Sequence[str]) -> tuple[str, ...]:
    """The model of each row of a plan: one for two rows, where its prefill and decode are apart."""
    roles = PREFILL, DECODE
    prompts, answers = ({part.removesuffix(f"/{does}") for part in parts if part.endswith(f"/{does}")} for does in roles)
    wholes = {f"{name}/{does}": name for name in prompts & answers for does in roles}
    return tuple(wholes.get(part, part) for part in parts)


def _called(problem: Question) -> list[_Called]:
    """The names of every demand: of streams in order, or of every region's rows."""
    if isinstance(problem, HourlyProblem):
        rows = list(zip(whole_models(problem.models), problem.models, strict=True))
        return [
            _Called(model, f"{region}/{model}", part, f"{region}/{part}", f"{region}/{part}")
            for region in problem.regions
            for model, part in rows
        ]
    parts = [batch.name.removeprefix("batch ") for batch in problem.batches]
    models = dict(zip(parts, whole_models(parts), strict=True))
    return [_stream_called(stream.name, models) for stream in problem.streams]


def _stream_called(name: str, models: Mapping[str, str]) -> _Called:
    """The names of a stream, `region/part` or `region/part (tiers)`."""
    of = name.partition(" ")[0]
    part = max((one for one in models if of.endswith(f"/{one}")), key=len, default="")
    if not part:
        return _Called(*[name] * len(_Called._fields))
    return _Called(models[part], of.removesuffix(part) + models[part], part, of, name)


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
            return scale_demand(problem, value)
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
        case _ if name in (stock.name for stock in problem.stocks):
            return _stock(problem, name, value)
        case _:
            return scale_demand(problem, value, [d for d, called in enumerate(_called(problem)) if name in called])


@overload
def scale_demand(problem: HourlyProblem, factor: float, some: Collection[int] | None = None) -> HourlyProblem: ...
@overload
def scale_demand(problem: Outlook, factor: float, some: Collection[int] | None = None) -> Outlook: ...
def scale_demand(problem: Question, factor: float, some: Collection[int] | None = None) -> Question:
    """All demand, or some, times a factor: streams by number, or region x models + row."""
    if isinstance(problem, Outlook):
        streams = (
            _stream(stream, factor) if some is None or number in some else stream for number, stream in enumerate(problem.streams)
        )
        return replace(problem, streams=tuple(streams))
    width = len(problem.models)
    demand = tuple(
        tuple(
            tuple(rate * (factor if some is None or g * width + k in some else 1.0) for k, rate in enumerate(row))
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
            return scale_demand(problem, value)
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
            return scale_demand(problem, value, [d for d, called in enumerate(_called(problem)) if name in called])


def _stream(stream: Stream, factor: float) -> Stream:
    rate, expected = (tuple(factor * x for x in series) for series in (stream.rate, stream.expected))
    return replace(stream, rate=rate, expected=expected)
