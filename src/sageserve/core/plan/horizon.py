"""foresight's plan: instances, traffic and batch work over the coming hours in one program; only its first step is acted on.

Beyond the published program: headroom per tier, batch work placed by deadline, traffic between regions, lead times, spot
income, margins against a wrong engine model. Knows no fleet and no clock. Read next: `outlook.py` for what goes in,
`horizon_rows.py` for the constraints.
"""

from enum import StrEnum
from itertools import accumulate
from math import ceil
from typing import Final

from msgspec import Struct

from sageserve.base.errors import PlanError
from sageserve.core.plan.highs import Solution, SolverLimits, Status
from sageserve.core.plan.horizon_rows import Columns, build, lost
from sageserve.core.plan.hourly import input_hash
from sageserve.core.plan.outlook import Outlook, check

_NEAR: Final = 0.1
"""Share of one instance's price in the first step that a better plan may be cheaper by: only that step is acted on."""

_AMPLE: Final = 0.75  # of a stock held now: beyond, it is asked first which stocks bind, and the answer is the same
_SMALL: Final = 1e-6  # the solver's tolerance
_SEEN: Final = 1e-3  # units: what is missing less than this is not worth a sentence; see SHORTAGE


class PlanReason(StrEnum):
    """Why a pool has its number and not one less: a closed list, the strongest reason first."""

    SHORT = "short"  # there is less than asked for: everything that stock allows
    DEMAND = "demand"  # interactive demand with its headroom needs them now
    BATCH = "batch"  # batch work is being done in them
    MINIMUM = "minimum"
    LATER = "later"  # stopping now and starting again costs more than staying, or would be too late
    NOTHING = "nothing"  # there are none


class Binding(Struct, frozen=True):
    """A constraint that one instance less would break (of stock: one more), and in which step."""

    name: str
    step: int
    slack: float


class Step(Struct, frozen=True):
    """One step: instances by pool, unit-hours done by batch, units short by stream, unit-hours late by batch."""

    hours: float
    serving: tuple[float, ...]
    start: tuple[float, ...]
    stop: tuple[float, ...]
    reclaim: tuple[float, ...]
    spot: tuple[float, ...]
    done: tuple[float, ...]
    short: tuple[float, ...]
    late: tuple[float, ...]


class PlannedFlow(Struct, frozen=True):
    """Units of a stream that a pool takes in the first step."""

    stream: int
    pool: int
    units: float


class Costs(Struct, frozen=True):
    """Dollars over the horizon by part.

    Args:
        serving: price x time of instances that serve.
        starts: starting, stopping and taking back.
        travel: the ways of requests between regions.
        forgone: spot income given up by serving; what makes an hour of serving dearer where donating pays.
        spot_income: what donated instances earn; not part of the objective.
        penalty: no money: what shortages, lateness and work left to after the horizon count.
        carbon: no money either: what the CO2 of instances that serve is worth.
    """

    serving: float
    starts: float
    travel: float
    forgone: float
    spot_income: float
    penalty: float
    carbon: float = 0.0


class HorizonPlan(Struct, frozen=True):
    """What to do now, and what it is part of.

    Args:
        target: instances that should serve or be coming, by pool.
        start: instances to start now, by pool.
        stop: instances to stop now (they are donated).
        reclaim: donated instances to take back now.
        give: donated instances to let go for good now, because their GPUs are needed elsewhere or earn nothing.
        why: reason of each pool's number.
        needed_from: by pool, the first step in which one instance less than the target would not do; past the last when none.
        steps: the trajectory.
        flows: traffic of the first step.
        binding: constraints that bind, earliest first.
        short: what is missing, in sentences.
        costs: over the horizon.
        status: `optimal` (within the gap) or `limit`.
        gap: relative distance to the proven bound.
        objective: what was minimised.
        bound: no plan costs less.
        input_hash: SHA-256 of the outlook's canonical bytes.
    """

    target: tuple[int, ...]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    reclaim: tuple[int, ...]
    give: tuple[int, ...]
    why: tuple[PlanReason, ...]
    needed_from: tuple[int, ...]
    steps: tuple[Step, ...]
    flows: tuple[PlannedFlow, ...]
    binding: tuple[Binding, ...]
    short: tuple[str, ...]
    costs: Costs
    status: Status
    gap: float
    objective: float
    bound: float
    input_hash: str

    @property
    def short_sentences(self) -> tuple[str, ...]:
        """What is short, where and by how much, one sentence each."""
        return self.short

    @property
    def statement(self) -> str:
        """What is short, where and by how much; empty when everything holds."""
        return "; ".join(self.short)


def solve(outlook: Outlook, limits: SolverLimits | None = None) -> HorizonPlan:
    """The cheapest trajectory that serves demand and batch deadlines; without such, the one that misses least by weight.

    Raises:
        PlanError: the outlook is not well formed, pinned numbers cannot be had, the solver is missing or gives up.
    """
    plan = attempt(outlook, limits)
    if plan is None:
        raise PlanError(
            "no trajectory has the pinned numbers", hint="a pool cannot have more than its maximum, or stop what starts"
        )
    return plan


def attempt(outlook: Outlook, limits: SolverLimits | None = None) -> HorizonPlan | None:
    """As `solve`, with None where the pinned numbers cannot be had."""
    check(outlook)
    program, columns = build(outlook)
    dearest = max((pool.price_per_hour for pool in outlook.pools), default=0.0)
    near = SolverLimits(gap=0.0, gap_cost=_NEAR * dearest * outlook.steps[0], nodes=100, effort=0.0)
    found = program.solve(limits or near, ample=_ample(outlook))
    if found.status == "infeasible":
        return None
    return _Reading(outlook, columns, found).plan()


def _ample(outlook: Outlook) -> bool:
    """Whether so much of every stock is free now that the coming hours will probably not use it up."""
    held = [0] * len(outlook.stocks)
    for pool in outlook.pools:
        held[pool.stock] += pool.held * pool.gpus
    return all(used <= _AMPLE * stock.gpus for used, stock in zip(held, outlook.stocks, strict=True))


class _Reading:
    """A solution read as a plan."""

    def __init__(self, outlook: Outlook, columns: Columns, found: Solution) -> None:
        self.outlook, self.columns, self.found = outlook, columns, found
        self.pools = range(len(outlook.pools))
        self.at = [0.0 if abs(value) < _SMALL else value for value in found.values].__getitem__  # of a column
        self.members = [[p for p in self.pools if outlook.pools[p].stock == number] for number in range(len(outlook.stocks))]
        self.held = [self.holding(p) for p in self.pools]
        self.rooms = [[self.room(p, s) for s in range(len(outlook.steps))] for p in self.pools]

    def plan(self) -> HorizonPlan:
        start, stop, reclaim = self.now("start"), self.now("stop"), self.now("reclaim")
        give = tuple(
            ceil(self.at(pool.give[0]) - _SMALL) for pool in self.columns.pools
        )  # half an instance's GPUs need all of it
        target = tuple(
            pool.serving + sum(count for _, count in pool.coming) + start[p] + reclaim[p] - stop[p]
            for p, pool in enumerate(self.outlook.pools)
        )
        binding = self.binding()
        return HorizonPlan(
            target=target,
            start=start,
            stop=stop,
            reclaim=reclaim,
            give=give,
            why=tuple(self.why(p, target[p], binding) for p in self.pools),
            needed_from=tuple(self.needed_from(p, target[p]) for p in self.pools),
            steps=tuple(self.step(s) for s in range(len(self.outlook.steps))),
            flows=self.flows(),
            binding=binding,
            short=self.short(),
            costs=self.costs(),
            status=self.found.status,
            gap=self.found.gap,
            objective=self.found.objective,
            bound=self.found.bound,
            input_hash=input_hash(self.outlook),
        )

    def now(self, what: str) -> tuple[int, ...]:
        return tuple(round(self.at(getattr(pool, what)[0])) for pool in self.columns.pools)

    def by_pool(self, what: str, step: int) -> tuple[float, ...]:
        return tuple(self.at(getattr(pool, what)[step]) for pool in self.columns.pools)

    def step(self, s: int) -> Step:
        hours, columns = self.outlook.steps[s], self.columns
        batches = range(len(self.outlook.batches))
        return Step(
            hours=hours,
            serving=self.by_pool("serving", s),
            start=self.by_pool("start", s),
            stop=self.by_pool("stop", s),
            reclaim=self.by_pool("reclaim", s),
            spot=self.by_pool("spot", s),
            done=tuple(hours * sum(self.at(part) for part in columns.work.get((b, s), [])) for b in batches),
            short=tuple(self.missing(d, s) for d in range(len(self.outlook.streams))),
            late=tuple(sum(self.at(part) for part in columns.late.get((b, s), [])) for b in batches),
        )

    def missing(self, stream: int, step: int) -> float:
        column = self.columns.short.get((stream, step), -1)
        return self.at(column) if column >= 0 else 0.0

    def flows(self) -> tuple[PlannedFlow, ...]:
        found = []
        for (d, step, w), column in self.columns.flow.items():
            if step == 0 and self.at(column) > 0:
                found.append(PlannedFlow(d, self.outlook.streams[d].ways[w].pool, self.at(column)))
        return tuple(found)

    def room(self, p: int, s: int) -> tuple[float, float, float]:
        """Instances left over: beside demand with headroom; beside expected demand and batch work; and how many do batch work."""
        pool = self.columns.pools[p]
        there = self.at(pool.serving[s]) - lost(self.outlook, p, s) * self.at(pool.reclaim[s])
        taken = self.columns.taken.get((p, s), [])
        work = sum(use * self.at(column) for column, use in self.columns.worked.get((p, s), []))
        peak = sum(one.use * self.at(one.column) for one in taken)
        expected = sum(one.use * one.share * self.at(one.column) for one in taken)
        return there - peak, there - expected - work, work

    def binding(self) -> tuple[Binding, ...]:
        found = []
        for s in range(len(self.outlook.steps)):
            for p, pool in enumerate(self.outlook.pools):
                peak, mean, work = self.rooms[p][s]
                some = self.at(self.columns.pools[p].serving[s]) > 0
                if some and peak < 1 - _SMALL:
                    found.append(Binding(f"demand {pool.name}", s, peak))
                if some and work > _SEEN and mean < 1 - _SMALL:
                    found.append(Binding(f"batch {pool.name}", s, mean))
            found += self.minimum_binding(s)
            found += self.stock_binding(s)
        return tuple(found)

    def minimum_binding(self, s: int) -> list[Binding]:
        found = []
        for endpoint in self.outlook.endpoints:
            slack = sum(self.at(self.columns.pools[p].serving[s]) for p in endpoint.pools) - endpoint.minimum
            if endpoint.minimum > 0 and slack < 1 - _SMALL:
                found.append(Binding(f"minimum {endpoint.name}", s, slack))
        return found

    def stock_binding(self, s: int) -> list[Binding]:
        found = []
        for stock, members in zip(self.outlook.stocks, self.members, strict=True):
            used = sum(self.outlook.pools[p].gpus * self.held[p][s] for p in members)
            least = min((self.outlook.pools[p].gpus for p in members), default=1)
            if stock.gpus - used < least - _SMALL:
                found.append(Binding(f"stock {stock.name}", s, stock.gpus - used))
        return found

    def holding(self, p: int) -> list[float]:
        """By step: instances that serve in it or were started and do not yet; donated ones can be let go."""
        pool, facts = self.columns.pools[p], self.outlook.pools[p]
        before = facts.serving + sum(count for _, count in facts.coming)
        moves = zip(pool.start, pool.reclaim, pool.stop, strict=True)
        changes = (self.at(start) + self.at(reclaim) - self.at(stop) for start, reclaim, stop in moves)
        return [before + ever for ever in accumulate(changes)]

    def needed_from(self, p: int, target: int) -> int:
        for s in range(len(self.outlook.steps)):
            peak, mean, work = self.rooms[p][s]
            serving = self.at(self.columns.pools[p].serving[s])
            spare = min(peak, mean) if work > _SEEN else peak
            if serving - spare > target - 1 + _SMALL:
                return s
        return len(self.outlook.steps)

    def why(self, p: int, target: int, binding: tuple[Binding, ...]) -> PlanReason:
        name, first = self.outlook.pools[p].name, {one.name for one in binding if one.step == 0}
        if any(
            self.missing(d, 0) > _SEEN and any(way.pool == p for way in one.ways) for d, one in enumerate(self.outlook.streams)
        ):
            return PlanReason.SHORT
        if target == 0:
            return PlanReason.NOTHING
        if target > self.at(self.columns.pools[p].serving[0]) + _SMALL:
            return PlanReason.LATER
        if f"demand {name}" in first:
            return PlanReason.DEMAND
        if f"batch {name}" in first:
            return PlanReason.BATCH
        if any(f"minimum {one.name}" in first and p in one.pools for one in self.outlook.endpoints):
            return PlanReason.MINIMUM
        return PlanReason.LATER

    def short(self) -> tuple[str, ...]:
        found = []
        for d, stream in enumerate(self.outlook.streams):
            missing = [(self.missing(d, s), s) for s in range(len(self.outlook.steps))]
            worst, at = max(missing)
            if worst > _SEEN:
                times = sum(amount > _SEEN for amount, _ in missing)
                found.append(
                    f"demand {stream.name}: {worst:,.4g} of {stream.rate[at]:,.4g} units missing at worst, in {times} steps"
                )
        for b, batch in enumerate(self.outlook.batches):
            late = max(
                (sum(self.at(part) for part in parts) for (k, _), parts in self.columns.late.items() if k == b), default=0.0
            )
            if late > _SEEN:
                found.append(f"batch {batch.name}: {late:,.4g} unit-hours late at worst")
        for endpoint in self.outlook.endpoints:
            serving = [
                sum(self.at(self.columns.pools[p].serving[s]) for p in endpoint.pools) for s in range(len(self.outlook.steps))
            ]
            if endpoint.pools and min(serving) < endpoint.minimum - _SEEN:
                found.append(f"minimum {endpoint.name}: {min(serving):.4g} of {endpoint.minimum} instances at worst")
        return tuple(found)

    def costs(self) -> Costs:
        serving = starts = travel = forgone = income = carbon = 0.0
        for facts, pool in zip(self.outlook.pools, self.columns.pools, strict=True):
            for s, hours in enumerate(self.outlook.steps):
                serving += facts.price_per_hour * hours * self.at(pool.serving[s])
                forgone += facts.spot_income_per_hour * hours * self.at(pool.serving[s])
                carbon += facts.carbon_per_hour[s] * hours * self.at(pool.serving[s]) if facts.carbon_per_hour else 0.0
                income += facts.spot_income_per_hour * hours * self.at(pool.spot[s])
                starts += facts.start_cost * self.at(pool.start[s]) + facts.stop_cost * self.at(pool.stop[s])
                starts += facts.reclaim_cost * self.at(pool.reclaim[s])
        for (d, s, w), column in self.columns.flow.items():
            travel += self.outlook.streams[d].ways[w].cost_per_hour * self.outlook.steps[s] * self.at(column)
        rest = self.found.objective - serving - starts - travel - forgone - carbon
        return Costs(serving, starts, travel, forgone, income, rest, carbon)
