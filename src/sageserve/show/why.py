"""A plan in words: why each pool has its number, what binds, what is short, and how theta comes about.

Works on both programs. Changes nothing and solves nothing; numbers come from the problem and its answer.
Read next: `answer.py` for the questions that are solved again.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import UnsetType

from sageserve.base.units import HOUR, SECOND, show_duration
from sageserve.core.handover import DECODE, PREFILL
from sageserve.core.plan.explain import AnyPlan
from sageserve.core.plan.horizon import Binding, HorizonPlan, PlanReason
from sageserve.core.plan.hourly import Plan
from sageserve.core.plan.hourly_rows import ConstraintRow, HourlyProblem, rows_of
from sageserve.core.plan.outlook import Outlook, begins
from sageserve.core.plan.what_if import Question
from sageserve.core.plan_once import Theta
from sageserve.data.results.plans import PoolLine

_SMALL: Final = 1e-6

WHY: Final[Mapping[PlanReason, str]] = {
    PlanReason.SHORT: "short: all that stock and lead times allow",
    PlanReason.DEMAND: "interactive demand with its headroom, now",
    PlanReason.BATCH: "batch work is placed here now",
    PlanReason.MINIMUM: "the endpoint's minimum",
    PlanReason.LATER: "needed later: stopping now would cost more",
    PlanReason.NOTHING: "nothing needs it",
}


def pool_names(question: Question) -> tuple[str, ...]:
    """Names of the pools, in order of their numbers."""
    return tuple(pool.name for pool in question.pools)


def ratio(question: Question, plan: AnyPlan, pool: int) -> tuple[str, ...]:
    """Why there are so many to prefill and so many to decode, in a sentence; nothing where an instance does both."""
    sides = _hour_sides(question, pool) if isinstance(question, HourlyProblem) else _sides(question, pool)
    if sides is None:
        return ()
    region, (prompts, needs), (answers, needed) = sides
    there, then = (sum(plan.target[one] for one in side) for side in (prompts, answers))
    when = "at the peak of the hour" if isinstance(question, HourlyProblem) else "now, headroom included"
    sentence = (
        f"{region} has {there} to prefill and {then} to decode: in all regions prompts take {amount(needs)} instances {when},"
        f" and answers {amount(needed)}; every pool is rounded up, to its minimum at least"
    )
    return (sentence,)


_Side: TypeAlias = tuple[set[int], float]
"""Pools of a region, and the instances that all regions ask for."""


def _sides(outlook: Outlook, pool: int) -> tuple[str, _Side, _Side] | None:
    if isinstance(outlook.apart, UnsetType):
        return None
    regions, pairs = outlook.apart.regions, outlook.apart.streams
    mine = [pair for pair in pairs if any(way.pool == pool for number in pair for way in outlook.streams[number].ways)]
    if not mine:
        return None
    sides = []
    for streams in zip(*([outlook.streams[number] for number in pair] for pair in mine), strict=True):
        here = {way.pool for one in streams for way in one.ways if regions[way.pool] == regions[pool]}
        sides.append((here, sum(one.rate[0] for one in streams) * outlook.margin))
    return outlook.stocks[outlook.pools[pool].stock].name.partition("/")[0], sides[0], sides[1]


def _hour_sides(problem: HourlyProblem, pool: int) -> tuple[str, _Side, _Side] | None:
    here = problem.pools[pool]
    name, _, does = problem.models[here.model].rpartition("/")
    both = [f"{name}/{one}" for one in (PREFILL, DECODE)]
    if does not in {PREFILL, DECODE} or not {*both} <= {*problem.models}:
        return None
    sides = []
    for model in map(problem.models.index, both):
        members = [p for p, one in enumerate(problem.pools) if one.model == model]
        peak = max(sum(row[model] for row in window) for window in problem.demand) + problem.buffer[model]
        most = max(problem.pools[p].theta for p in members)
        sides.append(({p for p in members if problem.pools[p].region == here.region}, peak / most))
    return problem.regions[here.region], sides[0], sides[1]


def held_now(question: Question) -> tuple[int, ...]:
    """Instances that serve or are coming, by pool."""
    if isinstance(question, HourlyProblem):
        return tuple(pool.now for pool in question.pools)
    return tuple(pool.serving + sum(count for _, count in pool.coming) for pool in question.pools)


def pool_lines(question: Question, plan: AnyPlan) -> tuple[PoolLine, ...]:
    """One line per pool: now, target, why, and what the change costs."""
    prices = [pool.price_per_hour for pool in question.pools]
    return tuple(
        PoolLine(name, now, target, reason(question, plan, p), prices[p] * (target - now), prices[p])
        for p, (name, now, target) in enumerate(zip(pool_names(question), held_now(question), plan.target, strict=True))
    )


def reason(question: Question, plan: AnyPlan, pool: int) -> str:
    """Why a pool has its number, in a few words."""
    if isinstance(question, HourlyProblem):
        return _hour_reason(question, plan, pool)
    assert isinstance(plan, HorizonPlan)
    why = plan.why[pool]
    if why is PlanReason.LATER and plan.needed_from[pool] < len(plan.steps):
        first = begins(question.steps)[plan.needed_from[pool]]
        return f"needed in {hours(first)}" if first else "on its way, needed at once"
    return WHY[why]


def _hour_reason(problem: HourlyProblem, plan: AnyPlan, pool: int) -> str:
    target = plan.target[pool]
    mine = [row for row in rows_of(problem) if pool in row.pools]
    if any(row.elastic and row.slack(plan.target) < -_SMALL * row.scale for row in mine):
        full = next((row for row in mine if row.kind == "stock" and row.slack(plan.target) < _factor(row, pool)), None)
        return f"short: {full.name} is used up" if full else "short, at its maximum"
    if target == 0:
        return "nothing needs it"
    need = [row for row in mine if row.elastic and row.slack(plan.target) < _factor(row, pool) - _SMALL * row.scale]
    if not need:
        return "with the others the cheapest that holds"
    most = max(need, key=lambda row: (row.needed - row.has(plan.target) + _factor(row, pool)) / row.needed)
    if most.kind == "minimum":
        return f"the endpoint's minimum of {most.needed:g}"
    less = most.has(plan.target) - _factor(most, pool)
    where = "of the region" if most.kind == "demand" else "of all regions"
    return f"demand {where}: one less holds {amount(less)} of {amount(most.needed)} {most.unit}"


def _factor(row: ConstraintRow, pool: int) -> float:
    return row.factors[row.pools.index(pool)]


def standings(question: Question, plan: AnyPlan, pool: int) -> tuple[str, ...]:
    """How the constraints on a pool stand: what is there, what is asked for, and which of them bind."""
    if isinstance(question, HourlyProblem):
        return tuple(_standing(row, plan, pool) for row in rows_of(question) if pool in row.pools and row.needed > 0)
    assert isinstance(plan, HorizonPlan)
    here = question.pools[pool]
    mine = {f"demand {here.name}", f"batch {here.name}", f"stock {question.stocks[here.stock].name}"}
    mine |= {f"minimum {end.name}" for end in question.endpoints if pool in end.pools}
    return tuple(one for one in _first_binding(question, plan) if one.split(":")[0] in mine)


def _standing(row: ConstraintRow, plan: AnyPlan, pool: int) -> str:
    slack, factor = row.slack(plan.target), _factor(row, pool)
    binds = slack < factor - _SMALL * row.scale
    verb = "has" if row.elastic else "uses"
    spare = f"{amount(abs(slack))} {'short' if slack < -_SMALL * row.scale else 'to spare'}"
    mark = "binds, " if binds else ""
    return f"{row.name}: {verb} {amount(row.has(plan.target))} of {amount(row.needed)} {row.unit} ({mark}{spare})"


def binding(question: Question, plan: AnyPlan) -> tuple[str, ...]:
    """What binds, in sentences; of foresight's plan when each constraint binds first."""
    if isinstance(question, HourlyProblem):
        assert isinstance(plan, Plan)
        return tuple(
            f"{one.name}: {amount(one.has)} of {amount(one.needed)} {one.unit}"
            for one in plan.constraints
            if one.binds and one.needed > 0
        )
    assert isinstance(plan, HorizonPlan)
    return _first_binding(question, plan)


def _first_binding(outlook: Outlook, plan: HorizonPlan) -> tuple[str, ...]:
    times = begins(outlook.steps)
    first: dict[str, Binding] = {}
    for one in plan.binding:
        first.setdefault(one.name, one)
    return tuple(
        f"{name}: {'now' if one.step == 0 else f'in {hours(times[one.step])}'}, {amount(one.slack)} {_unit(name)} left"
        for name, one in first.items()
    )


def _unit(name: str) -> str:
    return "GPUs" if name.startswith("stock ") else "instances"


def theta_texts(thetas: Sequence[Theta]) -> tuple[str, ...]:
    """How the tokens/s of one instance come about, once per model and GPU type."""
    kinds = {theta.pool.partition("/")[2]: theta for theta in thetas}
    return tuple(f"{kind}: {theta_text(theta)}" for kind, theta in kinds.items())


def theta_text(theta: Theta) -> str:
    """How the tokens/s of one instance come about."""
    load = theta.load
    shared = "one instance alone" if load.instances == 1 else f"{load.instances} instances share a queue"
    uneven = f" the rate is taken to vary by {load.mix.uneven**0.5:.0%} from minute to minute," if load.mix.uneven else ""
    return (
        f"{amount(theta.tokens_per_s)} tokens/s = load {load.load:.3f} x 1 s / {theta.engine_us_per_token:.1f} us per token;"
        f" the load because {shared},{uneven} a request takes {load.mix.each_us / SECOND:.2f} s, half of those that can be"
        f" in time may wait {load.mix.slack_us / SECOND:.2f} s, {load.late:.1%} of them are late, and one instance more costs"
        " more than they are worth"
    )


def amount(value: float) -> str:
    """A number with as many digits as say something: 12,345, 98.3, 0.25."""
    if abs(value) < _SMALL:  # what the solver calls nothing
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"


def hours(value: float) -> str:
    """Hours as people say them: 45m, 2h15m."""
    return show_duration(round(value * HOUR))


def dollars(value: float) -> str:
    """Dollars with their sign; nothing for nothing."""
    return f"{value:+,.2f}" if abs(value) >= 0.005 else "0"
