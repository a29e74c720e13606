"""Why a plan has this number, why not one less or one more, and what would change it: solved again, not guessed.

Works on both programs. Amounts are those of the plan's objective: per hour for the paper's program, over the horizon for ours.
Knows no fleet and no clock. Read next: `what_if.py`, docs/reference/planning.md for how to read what binds.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from msgspec import UNSET, Struct
from msgspec.structs import replace

from sageserve.base.units import show_money
from sageserve.core.plan import horizon
from sageserve.core.plan import hourly as paper
from sageserve.core.plan.horizon import HorizonPlan
from sageserve.core.plan.hourly import Plan
from sageserve.core.plan.hourly_rows import HourlyProblem, rows_of
from sageserve.core.plan.what_if import Question, change, parse, scale_demand, whole_models

AnyPlan: TypeAlias = Plan | HorizonPlan
What: TypeAlias = Literal["demand", "price"]
_Change: TypeAlias = Callable[[Question, int, float], Question]

_PROBES: Final[Mapping[str, tuple[float, ...]]] = {"up": (1.1, 1.3, 1.6, 2.0, 3.0), "down": (0.9, 0.7, 0.5, 0.3, 0.0)}
"""Factors tried in order until the number changes; then the interval is halved."""

_SMALL: Final = 1e-6  # the solver's tolerance
_PRECISION: Final = 0.01  # of the factor: finer than any forecast


class Other(Struct, frozen=True):
    """What another number of one pool would mean.

    Args:
        pool: its name.
        planned: its target in the plan.
        asked: the number asked about.
        possible: there is a plan with that number.
        dollars: what that plan costs more than this one; 0 when it is not possible.
        breaks: what that plan would be short of and this one is not, in sentences.
        alone: constraints that break when nothing else changes.
        moves: (pool, instances) that would change with it.
        sentence: the answer in words.
    """

    pool: str
    planned: int
    asked: int
    possible: bool
    dollars: float
    breaks: tuple[str, ...]
    alone: tuple[str, ...]
    moves: tuple[tuple[str, int], ...]
    sentence: str


class Threshold(Struct, frozen=True):
    """At which factor a pool's number changes: up to `same` it does not, at `factor` it is `target`.

    `factor` is 0 and `target` that of the plan when nothing between the outermost probes changes it.
    """

    what: What
    direction: str
    same: float
    factor: float
    target: int
    sentence: str


def solve(problem: Question) -> AnyPlan:
    """The plan of either program."""
    return paper.solve(problem) if isinstance(problem, HourlyProblem) else horizon.solve(problem)


def what_if(problem: Question, changes: Mapping[str, float] | str) -> AnyPlan:
    """The plan under other circumstances: `demand=1.3,us-east/h100=0` or the same as names and numbers.

    Raises:
        PlanError: a change is not understood, or the changed problem has no plan.
    """
    return solve(change(problem, parse(changes) if isinstance(changes, str) else changes))


def why_not(problem: Question, plan: AnyPlan, pool: int, by: int, currency: str = "USD") -> Other:
    """What it would mean for a pool to have `by` instances more (or, negative, fewer) than planned, at prices in a currency."""
    names = _names(problem)
    name, planned = names[pool], plan.target[pool]
    asked = planned + by
    alone = _alone(problem, plan, pool, asked)
    other = _pinned(problem, pool, asked)
    if other is None:
        reason = alone[0] if alone else "there cannot be fewer than none" if asked < 0 else "what holds GPUs now leaves no room"
        return Other(name, planned, asked, False, 0.0, (), alone, (), f"{name} cannot have {asked}: {reason}")
    moves = tuple(
        (one, to - was)
        for p, (one, was, to) in enumerate(zip(names, plan.target, other.target, strict=True))
        if p != pool and to != was
    )
    breaks = tuple(one for one in other.short_sentences if one not in plan.short_sentences)
    dollars = other.objective - plan.objective
    price = f"{show_money(abs(dollars), currency)} {'more' if dollars >= 0 else 'less'}"
    sentence = _sentence(name, asked, price, breaks=breaks, moves=moves)
    return Other(name, planned, asked, True, dollars, breaks, alone, moves, sentence)


def what_would_change(problem: Question, plan: AnyPlan, pool: int) -> tuple[Threshold, ...]:
    """The factors of demand and of this pool's price at which its number changes, up and down."""
    found = []
    for what, changed in _CHANGES.items():
        for direction, probes in _PROBES.items():
            found.append(_threshold(problem, pool, (what, direction, probes), changed=changed, was=plan.target[pool]))
    return tuple(found)


def _threshold(
    problem: Question, pool: int, probing: tuple[What, str, tuple[float, ...]], *, changed: _Change, was: int
) -> Threshold:
    what, direction, probes = probing
    same = 1.0
    for probe in probes:
        target = solve(changed(problem, pool, probe)).target[pool]
        if target == was:
            same = probe
            continue
        factor = probe
        while abs(factor - same) > _PRECISION:
            middle = 0.5 * (factor + same)
            found = solve(changed(problem, pool, middle)).target[pool]
            if found == was:
                same = middle
            else:
                factor, target = middle, found
        return Threshold(what, direction, same, factor, target, f"{what} x {factor:.2f} makes it {target}")
    return Threshold(what, direction, same, 0.0, was, f"no {what} between x 1 and x {probes[-1]:g} changes it")


def _sentence(name: str, asked: int, price: str, *, breaks: tuple[str, ...], moves: tuple[tuple[str, int], ...]) -> str:
    if breaks:
        return f"with {asked} in {name}, short: {'; '.join(breaks)}"
    moved = ", ".join(f"{other} {by:+d}" for other, by in moves)
    return f"with {asked} in {name} the plan costs {price}" + (f", with {moved}" if moved else "")


def _alone(problem: Question, plan: AnyPlan, pool: int, asked: int) -> tuple[str, ...]:
    """Constraints that break when only this pool changes."""
    if isinstance(problem, HourlyProblem):
        target = [asked if p == pool else to for p, to in enumerate(plan.target)]
        broken = [
            row.name
            for row in rows_of(problem)
            if pool in row.pools and row.slack(target) < -1e-6 < 1e-6 + row.slack(plan.target)
        ]
        return (*broken, *([f"maximum {problem.pools[pool].name}"] if asked > problem.pools[pool].maximum else []))
    assert isinstance(plan, HorizonPlan)
    less, step = asked < plan.target[pool], plan.needed_from[pool]
    name, stock = problem.pools[pool].name, problem.stocks[problem.pools[pool].stock].name
    ends = {
        one.name
        for endpoint in problem.endpoints
        if pool in endpoint.pools
        for one in plan.binding
        if one.name.endswith(endpoint.name)
    }
    sought = {f"demand {name}", f"batch {name}", *ends} if less else {f"stock {stock}"}
    return tuple(dict.fromkeys(one.name for one in plan.binding if one.name in sought and one.step <= step))


def _names(problem: Question) -> tuple[str, ...]:
    if isinstance(problem, HourlyProblem):
        return tuple(pool.name for pool in problem.pools)
    return tuple(pool.name for pool in problem.pools)


def _pinned(problem: Question, pool: int, asked: int) -> AnyPlan | None:
    """The plan that has this number, or None when there is none."""
    if asked < 0:
        return None
    if isinstance(problem, HourlyProblem):
        if asked > problem.pools[pool].maximum:
            return None
        pools = (replace(one, lowest=asked, maximum=asked) if p == pool else one for p, one in enumerate(problem.pools))
        return paper.attempt(replace(problem, pools=tuple(pools)))
    fixed = (replace(one, pinned=asked) if p == pool else one for p, one in enumerate(problem.pools))
    return horizon.attempt(replace(problem, pools=tuple(fixed)))


def _with_demand(problem: Question, pool: int, factor: float) -> Question:
    """Demand that this pool may serve, times a factor; where prefill and decode are apart, that of the other part with it."""
    if isinstance(problem, HourlyProblem):
        models = whole_models(problem.models)
        alike = [k for k, model in enumerate(models) if model == models[problem.pools[pool].model]]
        return scale_demand(problem, factor, [g * len(models) + k for g in range(len(problem.regions)) for k in alike])
    mine = {number for number, one in enumerate(problem.streams) if any(way.pool == pool for way in one.ways)}
    pairs = () if problem.apart is UNSET else problem.apart.streams
    return scale_demand(problem, factor, mine.union(*(pair for pair in pairs if mine & {*pair})))


def _with_price(problem: Question, pool: int, factor: float) -> Question:
    price = factor * problem.pools[pool].price_per_hour
    if isinstance(problem, HourlyProblem):
        pools = (replace(one, price_per_hour=price) if p == pool else one for p, one in enumerate(problem.pools))
        return replace(problem, pools=tuple(pools))
    priced = (replace(one, price_per_hour=price) if p == pool else one for p, one in enumerate(problem.pools))
    return replace(problem, pools=tuple(priced))


_CHANGES: Final[Mapping[What, _Change]] = {"demand": _with_demand, "price": _with_price}
