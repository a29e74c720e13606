"""The receding-horizon program as columns and rows: instances, starts, stops, donations, traffic and batch work over steps.

Every demand is elastic, so that there is always an answer; what it leaves out costs far more than any instance. Knows how the
program is built, not what its answer means. Read next: `horizon.py`; docs/reference/planning.md has the same in formulas.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec import UNSET

from sageserve.core.plan.milp import Program
from sageserve.core.plan.outlook import BatchDemand, Outlook, Stream, Together, begins, chains, first_step

SHORTAGE: Final = 1_000.0
"""A missing unit costs this many times the dearest instance that could serve it: only less than 1/1000 of one is left out."""

_OVERFLOW: Final = 10.0  # GPUs beyond the stock against a shortage: only starts under way in a lost region need it
_NUDGE: Final = 1e-6  # breaks ties by the pool's number
_EARLIER: Final = 1e-5  # breaks ties of batch work: of equally cheap hours the earlier, per hour of waiting


@dataclass(slots=True)
class PoolColumns:
    """Columns of one pool, by step, and `ready`: from which step an instance serves that is started in it."""

    ready: list[int]
    serving: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)
    reclaim: list[int] = field(default_factory=list)
    spot: list[int] = field(default_factory=list)
    give: list[int] = field(default_factory=list)


class Taken(NamedTuple):
    """A column of traffic into a pool: instances per unit, and the share of the planned rate that is expected."""

    column: int
    use: float
    share: float


@dataclass(slots=True)
class Columns:
    """Columns of the program, by what they mean.

    Args:
        pools: by pool.
        flow: (stream, step, way) to units.
        short: (stream, step) to units that find no way.
        work: (batch, step) to the columns of units of batch work per way and chain.
        taken: (pool, step) to the interactive traffic it takes.
        worked: (pool, step) to (column, instances per unit) of the batch work done in it.
        late: (batch, step) to the columns of unit-hours overdue at the end of the step.
    """

    pools: list[PoolColumns] = field(default_factory=list)
    flow: dict[tuple[int, int, int], int] = field(default_factory=dict)
    short: dict[tuple[int, int], int] = field(default_factory=dict)
    work: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    taken: dict[tuple[int, int], list[Taken]] = field(default_factory=dict)
    worked: dict[tuple[int, int], list[tuple[int, float]]] = field(default_factory=dict)
    late: dict[tuple[int, int], list[int]] = field(default_factory=dict)


def build(outlook: Outlook) -> tuple[Program, Columns]:
    """The program of an outlook, and where its columns are."""
    program, columns = Program(), Columns()
    for number in range(len(outlook.pools)):
        columns.pools.append(_pool(program, outlook, number))
    for number, stream in enumerate(outlook.streams):
        _stream(program, columns, outlook, number=number, stream=stream)
    for number, batch in enumerate(outlook.batches):
        for chain in chains(batch.lots, outlook.steps):
            _chain(program, columns, outlook, number=number, batch=batch, chain=chain)
    if outlook.apart is not UNSET:
        _together(program, columns, outlook, outlook.apart)
    _capacity(program, columns, outlook)
    _minimum(program, columns, outlook)
    _stock(program, columns, outlook)
    return program, columns


def ready_steps(outlook: Outlook, number: int) -> list[int]:
    """By step, the one from which an instance serves that is started when it begins."""
    lead = outlook.pools[number].lead_hours
    return [first_step(outlook.steps, begin + lead) for begin in begins(outlook.steps)[:-1]]


def arriving(outlook: Outlook, number: int) -> list[int]:
    """Instances under way, by the step from which they serve; those that come later are not counted."""
    counts = [0] * len(outlook.steps)
    for hours, count in outlook.pools[number].coming:
        step = first_step(outlook.steps, hours)
        if step < len(counts):
            counts[step] += count
    return counts


def lost(outlook: Outlook, number: int, step: int) -> float:
    """Share of a step that an instance taken back at its beginning does not serve."""
    return min(1.0, outlook.pools[number].reclaim_hours / outlook.steps[step])


def penalty(outlook: Outlook, work: Stream | BatchDemand) -> float:
    """Dollars per unit-hour that is not done."""
    dearest = max((outlook.pools[way.pool].price_per_hour * way.use for way in work.ways), default=0.0)
    return work.weight * SHORTAGE * outlook.margin * (dearest or 1.0)


def _pool(program: Program, outlook: Outlook, number: int) -> PoolColumns:
    pool, columns = outlook.pools[number], PoolColumns(ready_steps(outlook, number))
    # Serving gives the spot income up. Paying it out for donated instances instead would start instances only to donate them.
    nudged = 1 + _NUDGE * (number + 1) / len(outlook.pools)
    carbon = pool.carbon_per_hour or (0.0,) * len(outlook.steps)
    touch = _NUDGE * (pool.price_per_hour + 1.0)
    most = max(pool.maximum, pool.held)
    for step, hours in enumerate(outlook.steps):
        whole = step < outlook.whole_steps
        useful = columns.ready[step] < len(outlook.steps)
        price = (pool.price_per_hour + pool.spot_income_per_hour + carbon[step]) * nudged
        columns.serving.append(program.column(price * hours, upper=most, whole=whole))
        columns.start.append(program.column(pool.start_cost + touch, upper=most if useful else 0, whole=whole and useful))
        columns.stop.append(program.column(pool.stop_cost + touch, upper=most))
        columns.reclaim.append(program.column(pool.reclaim_cost + touch, upper=most, whole=whole))
        columns.spot.append(program.column(upper=most))
        columns.give.append(program.column(touch, upper=most))
    _balance(program, outlook, number=number, columns=columns)
    return columns


def _balance(program: Program, outlook: Outlook, *, number: int, columns: PoolColumns) -> None:
    """What serves and what is donated follow from the step before; starts serve when they are ready."""
    pool = outlook.pools[number]
    if pool.pinned >= 0:
        change = float(pool.pinned - pool.serving - sum(count for _, count in pool.coming))
        program.row([columns.start[0], columns.reclaim[0], columns.stop[0]], [1.0, 1.0, -1.0], lower=change, upper=change)
    comes: list[list[int]] = [[] for _ in outlook.steps]
    for step, ready in enumerate(columns.ready):
        if ready < len(outlook.steps):
            comes[ready].append(columns.start[step])
    for step, count in enumerate(arriving(outlook, number)):
        now = [columns.serving[step], columns.reclaim[step], columns.stop[step], *comes[step]]
        signs = [1.0, -1.0, 1.0, *[-1.0] * len(comes[step])]
        donated = [columns.spot[step], columns.stop[step], columns.reclaim[step], columns.give[step]]
        if step == 0:
            program.row(now, signs, lower=pool.serving + count, upper=pool.serving + count)
            program.row(donated, [1.0, -1.0, 1.0, 1.0], lower=pool.spot, upper=pool.spot)
        else:
            program.row([*now, columns.serving[step - 1]], [*signs, -1.0], lower=count, upper=count)
            program.row([*donated, columns.spot[step - 1]], [1.0, -1.0, 1.0, 1.0, -1.0], lower=0, upper=0)


def _stream(program: Program, columns: Columns, outlook: Outlook, *, number: int, stream: Stream) -> None:
    cost = penalty(outlook, stream)
    for step, hours in enumerate(outlook.steps):
        if stream.rate[step] <= 0:
            continue
        served = []
        for w, way in enumerate(stream.ways):
            served.append(program.column(way.cost_per_hour * hours))
            columns.flow[number, step, w] = served[-1]
            taken = Taken(served[-1], way.use * outlook.margin, min(1.0, stream.expected[step] / stream.rate[step]))
            columns.taken.setdefault((way.pool, step), []).append(taken)
        columns.short[number, step] = program.column(cost * hours)
        everything = [*served, columns.short[number, step]]
        program.row(everything, [1.0] * len(everything), lower=stream.rate[step], upper=stream.rate[step])


def _chain(
    program: Program, columns: Columns, outlook: Outlook, *, number: int, batch: BatchDemand, chain: list[tuple[int, int, float]]
) -> None:
    """Work done so far is a column: at most what has arrived, at least (or late) what is due."""
    count, times = len(outlook.steps), begins(outlook.steps)
    program.offset += batch.carry_cost * sum(work for _, _, work in chain)
    cost = penalty(outlook, batch)
    before = -1
    for step in range(chain[0][0], count):
        arrived = sum(work for first, _, work in chain if first <= step)
        due = sum(work for _, last, work in chain if last <= step)
        done = program.column(-batch.carry_cost if step == count - 1 else 0.0, upper=arrived)
        parts, factors = [done], [1.0]
        for way in batch.ways:
            wait = _EARLIER * times[step] * outlook.pools[way.pool].price_per_hour * way.use
            part = program.column((way.cost_per_hour + wait) * outlook.steps[step])
            columns.work.setdefault((number, step), []).append(part)
            columns.worked.setdefault((way.pool, step), []).append((part, way.use * outlook.margin))
            parts.append(part)
            factors.append(-outlook.steps[step])
        if before >= 0:
            parts.append(before)
            factors.append(-1.0)
        program.row(parts, factors, lower=0, upper=0)
        if due > 0:
            late = program.column(cost)
            columns.late.setdefault((number, step), []).append(late)
            program.row([done, late], [1.0, 1.0], lower=due)
        before = done


def _together(program: Program, columns: Columns, outlook: Outlook, apart: Together) -> None:
    """Of two demands each region takes the same share, but for what is short of either; of batch work, it does the same share."""
    for step in range(len(outlook.steps)):
        for pair in apart.streams:
            if all(outlook.streams[number].rate[step] > 0 for number in pair):
                rates = [outlook.streams[number].rate[step] for number in pair]
                flows = [_flows(columns, outlook, number, step) for number in pair]
                short = [(columns.short[number, step], -1.0 / rate) for number, rate in zip(pair, rates, strict=True)]
                _same_shares(program, apart, flows, rates, short)
        for pair in apart.batches:
            totals = [sum(lot.work for lot in outlook.batches[number].lots) for number in pair]
            if min(totals) > 0:
                works = [_works(columns, outlook, number, step) for number in pair]
                _same_shares(program, apart, works, totals, [])


def _flows(columns: Columns, outlook: Outlook, number: int, step: int) -> list[tuple[int, int]]:
    """Pool and column of every way of a stream."""
    return [(way.pool, columns.flow[number, step, w]) for w, way in enumerate(outlook.streams[number].ways)]


def _works(columns: Columns, outlook: Outlook, number: int, step: int) -> list[tuple[int, int]]:
    """Pool and column of every way of batch work, of each chain."""
    ways, found = outlook.batches[number].ways, columns.work.get((number, step), [])
    return [(ways[k % len(ways)].pool, column) for k, column in enumerate(found)]


def _same_shares(
    program: Program,
    apart: Together,
    sides: list[list[tuple[int, int]]],
    totals: list[float],
    short: list[tuple[int, float]],
) -> None:
    """What goes to a region of the one, as a share of its total, is at most that of the other and what is short of that."""
    for region in sorted({apart.regions[pool] for side in sides for pool, _ in side}):
        shares = [
            [(column, 1.0 / total) for pool, column in side if apart.regions[pool] == region]
            for side, total in zip(sides, totals, strict=True)
        ]
        for one, other in ((0, 1), (1, 0)):
            _at_most(program, [*shares[one], *((column, -share) for column, share in shares[other]), *short[other : other + 1]])


def _capacity(program: Program, columns: Columns, outlook: Outlook) -> None:
    """Per pool and step: room for demand with headroom; for expected demand plus batch work."""
    for number, pool in enumerate(columns.pools):
        for step in range(len(outlook.steps)):
            taken = columns.taken.get((number, step), [])
            work = columns.worked.get((number, step), [])
            there = [(pool.serving[step], -1.0), (pool.reclaim[step], lost(outlook, number, step))]
            expected = [(one.column, one.use * one.share) for one in taken]
            spare = [(pool.spot[step], -1.0)] if outlook.reserve else []
            _at_most(program, [*((one.column, one.use) for one in taken), *there, *spare])
            if work or spare:
                _at_most(program, [*expected, *work, *there])


def _at_most(program: Program, terms: list[tuple[int, float]], upper: float = 0.0, *, lazy: bool = False) -> None:
    program.row([column for column, _ in terms], [factor for _, factor in terms], upper=upper, lazy=lazy)


def _minimum(program: Program, columns: Columns, outlook: Outlook) -> None:
    for endpoint in outlook.endpoints:
        if not endpoint.pools or endpoint.minimum <= 0:
            continue
        price = max(outlook.pools[p].price_per_hour for p in endpoint.pools) or 1.0
        for step, hours in enumerate(outlook.steps):
            lack = program.column(0.1 * SHORTAGE * price * hours)  # less urgent than demand that is there
            members = [columns.pools[p].serving[step] for p in endpoint.pools]
            program.row([*members, lack], [1.0] * (len(members) + 1), lower=endpoint.minimum)


def _stock(program: Program, columns: Columns, outlook: Outlook) -> None:
    """GPUs held in each step: serving, donated, starting; and the same in instances against each pool's maximum."""
    dearest = max((pool.price_per_hour for pool in outlook.pools), default=0.0) or 1.0
    holding = [_holding(columns, outlook, p) for p in range(len(outlook.pools))]
    for number, stock in enumerate(outlook.stocks):
        members = [p for p, pool in enumerate(outlook.pools) if pool.stock == number]
        for step, hours in enumerate(outlook.steps):
            terms, fixed = [], 0
            for p in members:
                held, coming = holding[p][step]
                terms += [(column, float(outlook.pools[p].gpus)) for column in held]
                fixed += coming * outlook.pools[p].gpus
            over = program.column(_OVERFLOW * SHORTAGE * dearest * hours)
            _at_most(program, [*terms, (over, -1.0)], stock.gpus - fixed, lazy=True)
    for pool, by_step in zip(outlook.pools, holding, strict=True):
        for held, coming in by_step:
            _at_most(program, [(column, 1.0) for column in held], max(pool.maximum, pool.held) - coming)


def _holding(columns: Columns, outlook: Outlook, number: int) -> list[tuple[list[int], int]]:
    """By step: columns of the instances that hold GPUs during it, and how many starts from before do."""
    pool, steps = columns.pools[number], range(len(outlook.steps))
    comes = [(first_step(outlook.steps, hours), count) for hours, count in outlook.pools[number].coming]
    return [
        (
            [pool.serving[step], pool.spot[step], *(pool.start[s] for s in range(step + 1) if pool.ready[s] > step)],
            sum(count for first, count in comes if first > step),
        )
        for step in steps
    ]
