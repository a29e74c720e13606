"""Who pays what of a run, to the cent: the rule of docs/reference/money.md ("Who pays") over what pools held and did.

Amounts are whole cents, weights whole microseconds and nanoseconds; every split gives all of its cents away. Read next:
`costs.py` for the amounts, `work.py` for the engine time of requests, `data/billing/allocations.py` for the lines.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np

from sageserve.base.records import UNSET, Floats
from sageserve.core.fleet import State
from sageserve.data.billing.allocations import AMOUNTS, NO_TENANT, UNALLOCATED, Allocation
from sageserve.data.results.summary import Cost
from sageserve.sim.results.meter import blocks
from sageserve.sim.results.work import SUMS, add_work
from sageserve.sim.run import Run

Cell: TypeAlias = tuple[str, str]
"""Tier and tenant."""
_KEY: Final = ("region", "gpu", "model", "role", "tier", "tenant")
Rows: TypeAlias = dict[tuple[str, ...], dict[str, int]]
"""Values by region, GPU type, model, role, tier and tenant."""


class CellWork(NamedTuple):
    """What finished requests of one tier and tenant asked of a pool's engines."""

    requests: int
    prompt_tokens: int
    output_tokens: int
    prompt_ns: int
    output_ns: int

    @property
    def weight(self) -> int:
        """Nanoseconds of engine time."""
        return self.prompt_ns + self.output_ns

    def plus(self, other: "CellWork") -> "CellWork":
        """Both together."""
        return CellWork(*(mine + its for mine, its in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class PoolUse:
    """GPU-microseconds that a pool held: at work, with nothing to do, and coming.

    Args:
        model: its name.
        stock: number of the region and GPU type that it takes from.
        role: prefill or decode, where these are apart.
    """

    model: str
    stock: int
    busy: int
    idle: int
    start: int
    role: str = ""

    @property
    def held(self) -> int:
        """All of them."""
        return self.busy + self.idle + self.start


@dataclass(frozen=True, slots=True)
class StockBill:
    """What GPUs of one type in one region cost, in cents.

    Args:
        reserved: for what VMs in use needed.
        unused: reserved, for what none of them needed.
        on_demand: beyond what is reserved.
        spare: GPU-microseconds of VMs in use that no instance held.
    """

    region: str
    gpu: str
    reserved: int
    unused: int
    on_demand: int
    spare: int


def split(cents: int, weights: Sequence[int]) -> list[int]:
    """Cents in proportion to weights, all of them given away: the largest remainders are rounded up, the first of equal ones."""
    total = sum(weights)
    parts = [cents * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda k: (-(cents * weights[k] % total), k))
    for k in by_remainder[: cents - sum(parts)]:
        parts[k] += 1
    return parts


def allocate(
    bills: Sequence[StockBill], pools: Sequence[PoolUse], work: Mapping[int, Mapping[Cell, CellWork]]
) -> tuple[Allocation, ...]:
    """Share bills among tiers and tenants.

    Args:
        bills: one for each stock.
        pools: in order of their numbers.
        work: by pool; a pool that nothing finished on need not be there.

    Returns:
        Lines in order of stocks, models, tiers and tenants as they come; their cents are those of the bills.
    """
    rows: Rows = {}
    everywhere = _by_model(pools, work)
    for number, bill in enumerate(bills):
        mine = [p for p, pool in enumerate(pools) if pool.stock == number]
        for p, amounts in zip(mine, _by_pool(bill, [pools[p] for p in mine]), strict=False):
            place = bill.region, bill.gpu, pools[p].model, pools[p].role
            _charge(rows, place, amounts, work.get(p) or everywhere.get(pools[p].model, {}))
        if not any(pools[p].held for p in mine):
            amounts = [0, bill.on_demand, 0, 0, bill.reserved, 0, bill.unused]
            _charge(rows, (bill.region, bill.gpu, UNALLOCATED, ""), amounts, {})
    for p, cells in work.items():
        bill = bills[pools[p].stock]
        for cell, one in cells.items():
            _add(rows, (bill.region, bill.gpu, pools[p].model, pools[p].role, *cell), zip(SUMS[:3], one[:3], strict=True))
    return tuple(msgspec.convert({**dict(zip(_KEY, key, strict=True)), **row}, Allocation) for key, row in rows.items())


def _by_model(pools: Sequence[PoolUse], work: Mapping[int, Mapping[Cell, CellWork]]) -> dict[str, dict[Cell, CellWork]]:
    """What each model did, on all its pools."""
    found: dict[str, dict[Cell, CellWork]] = {}
    for p in sorted(work):
        mine = found.setdefault(pools[p].model, {})
        for cell, one in work[p].items():
            mine[cell] = mine[cell].plus(one) if cell in mine else one
    return found


def _by_pool(bill: StockBill, pools: Sequence[PoolUse]) -> list[list[int]]:
    """What each pool of a stock pays, by AMOUNTS; nothing where none of them held anything."""
    held = [pool.held for pool in pools]
    if not sum(held):
        return []
    spare = split(bill.spare, held)
    uses = [time for pool, more in zip(pools, spare, strict=True) for time in (pool.busy, pool.idle + more, pool.start)]
    on_demand, reserved, unused = split(bill.on_demand, uses), split(bill.reserved, uses), split(bill.unused, held)
    return [[*on_demand[3 * k : 3 * k + 3], *reserved[3 * k : 3 * k + 3], unused[k]] for k in range(len(pools))]


def _charge(rows: Rows, place: tuple[str, str, str, str], amounts: Sequence[int], cells: Mapping[Cell, CellWork]) -> None:
    """Share what a pool pays among the tiers and tenants that it worked for."""
    if not any(amounts):
        return
    weights = [one.weight for one in cells.values()]
    if not sum(weights):
        _add(rows, (*place, UNALLOCATED, UNALLOCATED), zip(AMOUNTS, amounts, strict=True))
        return
    parts = [split(amount, weights) for amount in amounts]
    for k, (cell, one) in enumerate(cells.items()):
        mine = [part[k] for part in parts]
        prompts, outputs = split(sum(mine), (one.prompt_ns, one.output_ns)) if one.weight else (0, 0)
        named = (*zip(AMOUNTS, mine, strict=True), ("prompts", prompts), ("outputs", outputs))
        _add(rows, (*place, *cell), named)


def _add(rows: Rows, key: tuple[str, ...], values: Iterable[tuple[str, int]]) -> None:
    row = rows.setdefault(key, {})
    for name, value in values:
        row[name] = row.get(name, 0) + value


# ------------------------------------------------------------------------------------------------ of a run


def allocations_of(run: Run, cost: Cost, idle: Floats) -> tuple[Allocation, ...]:
    """Who pays what of a run.

    Args:
        run: finished or interrupted.
        cost: of it.
        idle: float64[endpoints], share of their serving time in which instances had nothing to do.
    """
    return allocate(_bills(run, cost), uses_of(run, idle), _work(run))


def _bills(run: Run, cost: Cost) -> list[StockBill]:
    found = []
    for number, stock in enumerate(run.layout.stocks):
        line = cost.lines[stock.name]
        reserved, unused, on_demand = (round(100 * amount) for amount in (line.reserved, line.unused, line.on_demand))
        found.append(StockBill(stock.region, stock.gpu, reserved - unused, unused, on_demand, spare_of(run, number)))
    return found


def spare_of(run: Run, stock: int) -> int:
    """GPU-microseconds of VMs in use that no instance held."""
    bought = run.fleet.ledger.purchases[stock]
    return bought.on_demand_us + bought.reserved_us - bought.unused_us - bought.held_us


def uses_of(run: Run, idle: Floats) -> list[PoolUse]:
    """What each pool held its GPUs for.

    Args:
        run: finished or interrupted.
        idle: float64[endpoints], share of their serving time in which instances had nothing to do.
    """
    found = []
    for pool, time in zip(run.layout.pools, run.fleet.ledger.gpu_us, strict=True):
        unused = min(round(float(idle[pool.endpoint]) * time[State.SERVING]), time[State.SERVING])
        busy = time[State.SERVING] - unused + time[State.DRAINING]
        start = time[State.STARTING] + time[State.RECLAIMING]
        role = run.layout.role_name(pool.endpoint) if run.layout.apart[pool.model] else ""
        found.append(PoolUse(run.layout.names.models[pool.model], pool.stock, busy, unused, start, role))
    return found


def _work(run: Run) -> dict[int, dict[Cell, CellWork]]:
    """By pool, then tier and tenant in order of their codes."""
    tiers = run.layout.names.tiers
    names = ("",) if run.tenants is None else (NO_TENANT, *run.tenants.names)
    pool_of = np.array(run.fleet.pool_of, np.int64)
    profile_of = np.array([pool.profile for pool in run.layout.pools], np.int32)
    sums: dict[int, CellWork] = {}
    end = 0
    for block in blocks(run):
        first, end = end, end + len(block.rows)
        done = block.finished
        tenant = 0 if run.tenants is None else run.tenants.codes[first:end][done].astype(np.int64) - UNSET
        keys = (pool_of[block.rows["instance"][done]] * len(tiers) + block.rows["tier"][done]) * len(names) + tenant
        found, numbers = np.unique(keys, return_inverse=True)
        into = np.zeros((len(found), len(SUMS)), np.int64)
        cells = np.full(len(done), UNSET, np.int64)
        cells[done] = numbers
        add_work(block.rows, cells, profile_of[found // len(names) // len(tiers)], run.layout.profiles, into)
        for key, values in zip(found.tolist(), into.tolist(), strict=True):
            one = CellWork(*values)
            sums[key] = sums[key].plus(one) if key in sums else one
    work: dict[int, dict[Cell, CellWork]] = {}
    for key in sorted(sums):
        place, tenant_code = divmod(key, len(names))
        pool, tier = divmod(place, len(tiers))
        work.setdefault(pool, {})[tiers[tier], names[tenant_code]] = sums[key]
    return _by_side(run, work)


def _by_side(run: Run, work: dict[int, dict[Cell, CellWork]]) -> dict[int, dict[Cell, CellWork]]:
    """The same where prefill and decode are apart: prompts of what a pool decoded are work of those that prefilled there."""
    pools = run.layout.pools
    for p in sorted(work):
        here = pools[p]
        if not run.layout.apart[here.model] or here.role == 0:
            continue
        sides = [pool.number for pool in pools if (pool.region, pool.model, pool.role) == (here.region, here.model, 0)]
        for cell, one in work[p].items():
            prompts = CellWork(0, 0, 0, one.prompt_ns, 0)
            for side in sides:
                mine = work.setdefault(side, {})
                mine[cell] = mine[cell].plus(prompts) if cell in mine else prompts
        work[p] = {cell: one._replace(prompt_ns=0) for cell, one in work[p].items()}
    return work
