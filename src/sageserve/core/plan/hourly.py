"""The integer program of SageServe (arXiv 2502.14617): targets per pool for the next hour from peak forecasts.

Rates are tokens/s, prices dollars per hour of an instance, start costs dollars. Demand that stock cannot meet is answered with
the least bad plan and a statement of what is short: first the least missing, then the least cost. Knows no fleet, no forecast
and no clock. Read next: `hourly_rows.py` for the constraints, docs/reference/planning.md for the formulas.
"""

import hashlib
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.errors import PlanError
from sageserve.core.plan.highs import Solution, SolverLimits, Status
from sageserve.core.plan.hourly_rows import ConstraintRow, HourlyProblem, Kind, PoolFacts, check, rows_of
from sageserve.core.plan.milp import Program

_NUDGE: Final = 1e-6
"""Share of its price by which a pool is made dearer to break ties: below anyone's interest, above the solver's gap."""

_SPREAD: Final = 0.618034  # an irrational power of the pool's number: different sets of pools have different sums

_TOLERANCE: Final = 1e-6  # the solver's own, in instances


class Constraint(Struct, frozen=True):
    """How one constraint stands under the plan.

    Args:
        name: in words: `demand eastus/llama-2-70b`, `total demand llama-2-70b`, `minimum eastus/llama-2-70b`,
            `stock eastus/h100-80gb`, `maximum eastus/llama-2-70b/h100-80gb`.
        kind: which of these.
        unit: of the next three.
        needed: what is asked for; of stock and maximum, what there is.
        has: what the plan gives; of stock and maximum, what it uses.
        slack: what is left over; negative when short.
        binds: one instance less would break it (of stock and maximum: one more would).
    """

    name: str
    kind: Kind
    unit: str
    needed: float
    has: float
    slack: float
    binds: bool


class Shortfall(Struct, frozen=True):
    """What stock and maxima do not allow: which constraint, by how much, and the same as a sentence."""

    constraint: str
    missing: float
    unit: str
    sentence: str


class Plan(Struct, frozen=True):
    """Targets per pool, what they cost, and what holds them.

    Args:
        target: instances, by pool.
        delta: target minus now, by pool.
        cost_per_hour_before: dollars per hour of the instances there are now.
        cost_per_hour_after: dollars per hour of the targets.
        start_cost: dollars for the instances to be started.
        objective: what was minimised: the change of cost per hour, plus the start cost.
        constraints: all of them.
        short: what is missing; empty when everything holds.
        status: `optimal`, or `limit` when the search ended at the node limit.
        gap: relative distance of the cost to the proven bound.
        input_hash: SHA-256 of the problem's canonical bytes.
    """

    target: tuple[int, ...]
    delta: tuple[int, ...]
    cost_per_hour_before: float
    cost_per_hour_after: float
    start_cost: float
    objective: float
    constraints: tuple[Constraint, ...]
    short: tuple[Shortfall, ...]
    status: Status
    gap: float
    input_hash: str

    @property
    def binding(self) -> tuple[str, ...]:
        """Names of the constraints that bind."""
        return tuple(one.name for one in self.constraints if one.binds)

    @property
    def short_sentences(self) -> tuple[str, ...]:
        """What is short, where and by how much, one sentence each."""
        return tuple(one.sentence for one in self.short)

    @property
    def statement(self) -> str:
        """What is short in one line; empty when everything holds."""
        return "; ".join(self.short_sentences)


def input_hash(problem: Struct) -> str:
    """SHA-256 of the canonical bytes of a problem: its JSON, fields in order of definition."""
    return hashlib.sha256(msgspec.json.encode(problem)).hexdigest()


def limits_for(wholes: int) -> SolverLimits:
    """How hard to look, by the number of integers: measured so that the largest published size (2,000) solves in seconds.

    The program is a set of knapsacks with many near-ties; the last tenth of a percent costs more than all the rest.
    """
    if wholes <= 64:
        return SolverLimits(gap=1e-9, gap_cost=1e-8, nodes=3_000, effort=0.3)
    if wholes <= 500:
        return SolverLimits(gap=2e-4, nodes=200)
    return SolverLimits(gap=2e-3, nodes=1)


def solve(problem: HourlyProblem, limits: SolverLimits | None = None) -> Plan:
    """The cheapest targets that hold every constraint; without such, those that miss least.

    Raises:
        PlanError: sizes do not match, a number is not finite or negative, no numbers satisfy stock, maxima and lowest
            numbers, the solver is missing or gives up.
    """
    plan = attempt(problem, limits)
    if plan is None:
        raise PlanError(
            "no numbers of instances satisfy stock, maxima and lowest numbers",
            hint="a pool's lowest number needs more GPUs than its stock has, or is above its maximum",
        )
    return plan


def attempt(problem: HourlyProblem, limits: SolverLimits | None = None) -> Plan | None:
    """As `solve`, with None where no numbers satisfy stock, maxima and lowest numbers."""
    check(problem)
    limits = limits or limits_for(len(problem.pools))
    rows = rows_of(problem)
    program, _ = _program(problem, rows, elastic=False)
    found = program.solve(limits)
    if found.status == "infeasible":
        found = _least_bad(problem, rows, limits)
    if found.status == "infeasible":
        return None
    return _plan(problem, rows, found)


def _least_bad(problem: HourlyProblem, rows: list[ConstraintRow], limits: SolverLimits) -> Solution:
    """First the least missing, weighted; then, missing no more than that, the least cost."""
    program, missing = _program(problem, rows, elastic=True)
    weights = [row.weight * row.scale for row in rows if row.elastic]
    unit = sum(row.weight * row.needed for row in rows if row.elastic) or 1.0
    costs = program.costs()
    counted = dict(zip(missing, weights, strict=True))
    program.set_costs([1e3 * counted.get(column, 0.0) / unit for column in range(len(costs))])
    first = program.solve(limits)
    if first.status == "infeasible":
        return first
    least = first.objective
    program.row(missing, [1e3 * weight / unit for weight in weights], upper=least + max(1e-6, limits.gap * least))
    program.set_costs(costs)
    return program.solve(limits, start=first.values)


def _program(problem: HourlyProblem, rows: list[ConstraintRow], *, elastic: bool) -> tuple[Program, list[int]]:
    """Columns: targets, then starts, then (elastic) what is missing of each demand, in units of its row."""
    program = Program()
    for number, pool in enumerate(problem.pools):
        price = (pool.price_per_hour + pool.carbon_per_hour) * (1 + _nudge(problem, number))
        program.column(price, lower=pool.lowest, upper=pool.maximum, whole=True)
    for number, pool in enumerate(problem.pools):
        touched = pool.start_cost + _NUDGE * pool.price_per_hour  # of equal answers, the one that starts less
        starts = program.column(touched, upper=max(0, pool.maximum - pool.now))
        program.row([starts, number], [1.0, -1.0], lower=-pool.now)
    missing = []
    for row in rows:
        columns, factors = list(row.pools), [factor / row.scale for factor in row.factors]
        if elastic and row.elastic:
            missing.append(program.column())
            columns, factors = [*columns, missing[-1]], [*factors, 1.0]
        if row.elastic:
            program.row(columns, factors, lower=row.needed / row.scale)
        else:
            program.row(columns, factors, upper=row.needed / row.scale, lazy=True)
    return program, missing


def _nudge(problem: HourlyProblem, number: int) -> float:
    return _NUDGE * ((number + 1) / len(problem.pools)) ** _SPREAD


def _plan(problem: HourlyProblem, rows: list[ConstraintRow], found: Solution) -> Plan:
    target = tuple(round(value) for value in found.values[: len(problem.pools)])
    delta = tuple(to - pool.now for to, pool in zip(target, problem.pools, strict=True))
    before = sum(pool.price_per_hour * pool.now for pool in problem.pools)
    after = sum(pool.price_per_hour * to for pool, to in zip(problem.pools, target, strict=True))
    starts = sum(pool.start_cost * max(0, change) for pool, change in zip(problem.pools, delta, strict=True))
    constraints = [_standing(problem, row, target) for row in rows]
    constraints += [_maximum(pool, to) for pool, to in zip(problem.pools, target, strict=True)]
    demands = [(row, one) for row, one in zip(rows, constraints, strict=False) if row.elastic]
    short = tuple(_shortfall(one) for row, one in demands if one.slack < -_TOLERANCE * row.scale)
    return Plan(
        target=target,
        delta=delta,
        cost_per_hour_before=before,
        cost_per_hour_after=after,
        start_cost=starts,
        objective=after - before + starts,
        constraints=tuple(constraints),
        short=short,
        status=found.status,
        gap=found.gap,
        input_hash=input_hash(problem),
    )


def _standing(problem: HourlyProblem, row: ConstraintRow, target: tuple[int, ...]) -> Constraint:
    has, slack = row.has(target), row.slack(target)
    if row.elastic:
        steps = [f for pool, f in zip(row.pools, row.factors, strict=True) if f > 0 and target[pool] > problem.pools[pool].lowest]
        binds = row.needed > 0 and (not steps or slack < min(steps) - _TOLERANCE * row.scale)
    else:
        steps = [f for pool, f in zip(row.pools, row.factors, strict=True) if target[pool] < problem.pools[pool].maximum]
        binds = bool(steps) and slack < min(steps) - _TOLERANCE * row.scale
    return Constraint(row.name, row.kind, row.unit, row.needed, has, slack, binds)


def _maximum(pool: PoolFacts, target: int) -> Constraint:
    slack = pool.maximum - target
    return Constraint(f"maximum {pool.name}", "maximum", "instances", pool.maximum, target, slack, slack == 0)


def _shortfall(one: Constraint) -> Shortfall:
    missing = -one.slack
    sentence = f"{one.name}: {missing:,.6g} of {one.needed:,.6g} {one.unit} missing"
    return Shortfall(one.name, missing, one.unit, sentence)
