"""Who pays what: lines come to the bills to the cent, each is what the rule says, and a spreadsheet finds the same.

The reference shares fractions and rounds by hand what the rule rounds. Read next: `src/sageserve/sim/results/allocation.py`,
docs/reference/money.md ("Who pays").
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.records import UNSET, Labels
from sageserve.base.units import HOUR, MINUTE
from sageserve.data.billing.allocations import (
    AMOUNTS,
    NO_TENANT,
    OTHERS,
    UNALLOCATED,
    Allocation,
    CostTables,
    tables_of,
)
from sageserve.sim.results.allocation import Cell, CellWork, PoolUse, StockBill, allocate, split
from sageserve.sim.results.summary import costs_of_run, summarise
from sageserve.sim.run import simulate
from tests.core.small import ENGINE, row, scenario, trace

PARTS = {
    "total": AMOUNTS,
    **{use: tuple(name for name in AMOUNTS if name.endswith(use)) for use in ("busy", "idle", "start", "unused")},
    "prompts": ("prompts",),
    "outputs": ("outputs",),
}
CENTS = st.integers(0, 10**8)
TIME = st.integers(0, 10**13)
WORK = st.builds(CellWork, st.integers(0, 9), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**15), TIME)
CELLS = st.dictionaries(st.tuples(st.sampled_from(("iw-f", "niw")), st.sampled_from(("", "a", "b"))), WORK, max_size=4)


@st.composite
def bought(draw: st.DrawFn) -> tuple[list[StockBill], list[PoolUse], dict[int, dict[Cell, CellWork]]]:
    count = draw(st.integers(1, 3))
    bills = [StockBill(f"r{k}", "h100", draw(CENTS), draw(CENTS), draw(CENTS), draw(TIME)) for k in range(count)]
    pool = st.builds(PoolUse, st.sampled_from(("big", "small")), st.integers(0, len(bills) - 1), TIME, TIME, TIME)
    pools = draw(st.lists(pool, max_size=4))
    return bills, pools, {p: draw(CELLS) for p in range(len(pools)) if draw(st.booleans())}


def dealt(cents: int, weights: list[Fraction]) -> list[int]:
    """The rule in words: everybody's share without what is behind the point, and the rest to those who lost most by that."""
    shares = [cents * weight / sum(weights) for weight in weights]
    whole = [share.numerator // share.denominator for share in shares]
    lost = sorted(range(len(shares)), key=lambda k: (whole[k] - shares[k], k))
    return [part + (k in lost[: cents - sum(whole)]) for k, part in enumerate(whole)]


def shared(bills: list[StockBill], pools: list[PoolUse], work: dict[int, dict[Cell, CellWork]]) -> dict[tuple[str, ...], int]:
    """Cents by line and kind, straight from the page."""
    found: dict[tuple[str, ...], int] = {}
    for number, bill in enumerate(bills):
        mine = [(p, pool) for p, pool in enumerate(pools) if pool.stock == number]
        held = [Fraction(pool.busy + pool.idle + pool.start) for _, pool in mine]
        if not sum(held):
            for kind, cents in (("on_demand_idle", bill.on_demand), ("reserved_idle", bill.reserved), ("unused", bill.unused)):
                found[bill.region, UNALLOCATED, UNALLOCATED, UNALLOCATED, kind] = cents
            continue
        spare = dealt(bill.spare, held)
        uses = {}
        for k, (p, pool) in enumerate(mine):
            uses.update({(p, "busy"): pool.busy, (p, "idle"): pool.idle + spare[k], (p, "start"): pool.start})
        weights = [Fraction(use) for use in uses.values()]
        paid = {}
        for kind, cents in (("on_demand", bill.on_demand), ("reserved", bill.reserved)):
            paid.update({(p, f"{kind}_{use}"): part for (p, use), part in zip(uses, dealt(cents, weights), strict=True)})
        paid.update({(p, "unused"): part for (p, _), part in zip(mine, dealt(bill.unused, held), strict=True)})
        for (p, kind), cents in paid.items():
            cells = work.get(p) or {}
            if not cells:
                for q, others in sorted(work.items()):
                    for cell, one in others.items() if pools[q].model == pools[p].model else ():
                        cells = {**cells, cell: one.plus(cells[cell]) if cell in cells else one}
            asked = [Fraction(one.prompt_ns + one.output_ns) for one in cells.values()]
            shares = dict(zip(cells, dealt(cents, asked), strict=True)) if sum(asked) else {(UNALLOCATED, UNALLOCATED): cents}
            for cell, part in shares.items():
                key = (bill.region, pools[p].model, *cell, kind)
                found[key] = found.get(key, 0) + part
    return {key: cents for key, cents in found.items() if cents}


@given(bought())
def test_lines_are_those_of_the_rule_and_come_to_the_bills(
    case: tuple[list[StockBill], list[PoolUse], dict[int, dict[Cell, CellWork]]],
) -> None:
    bills, pools, work = case
    lines = allocate(bills, pools, work)
    found = {
        (line.region, line.model, line.tier, line.tenant, name): getattr(line, name)
        for line in lines
        for name in AMOUNTS
        if getattr(line, name)
    }
    assert found == shared(bills, pools, work)
    for bill in bills:
        mine = [line for line in lines if line.region == bill.region]
        assert sum(line.total for line in mine) == bill.reserved + bill.unused + bill.on_demand
        assert sum(line.unused for line in mine) == bill.unused
    for line in lines:
        assert line.prompts + line.outputs in {line.total, 0}
    assert sum(line.requests for line in lines) == sum(one.requests for cells in work.values() for one in cells.values())
    tables = tables_of(lines, most=None)
    for name in CostTables.__struct_fields__:
        if rows := getattr(tables, name).values():
            for amount, parts in PARTS.items():
                cents = sum(getattr(line, part) for line in lines for part in parts)
                assert sum(round(100 * getattr(one, amount)) for one in rows) == cents


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**18), min_size=1).filter(any))
def test_a_share_is_within_a_cent_and_no_cent_is_lost(cents: int, weights: list[int]) -> None:
    parts = split(cents, weights)
    assert sum(parts) == cents
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(cents * weight, sum(weights))) < 1


def played(*, reserved: int = 0, tenants: Labels | None = None) -> tuple[tuple[Allocation, ...], float]:
    """Two instances of eight GPUs for two hours in the east: `big` works for two tiers, `small` for nobody."""
    stock = {"h100": {"gpus": 32, "reserved": reserved, "price": {"on_demand": "80/h", "reserved": "40/h"}}}
    settings = scenario(
        regions={"east": {"gpus": stock}},
        fleet={"start": 1, "minimum": 1},
        strategy={"name": "fixed"},
        models={name: {"context": 8_000, "engines": {"h100": ENGINE}} for name in ("big", "small")},
    )
    rows = [row(MINUTE * k, tier="iw-f" if k % 4 else "niw", prompt=1000, output=1) for k in range(1, 41)]
    requests = trace(settings, rows, window=2 * HOUR)
    run = simulate(settings, replace(requests, labels={} if tenants is None else {"tenant": tenants}))
    return costs_of_run(run), summarise(run, 1.0).cost_usd.total


def test_by_hand() -> None:
    lines, total = played(reserved=24)  # three VMs of eight at 40 $/h for two hours, two of them in use
    assert total == 240.0
    tables = tables_of(lines)
    assert {name: (one.total, one.unused) for name, one in tables.model.items()} == {"big": (120.0, 40.0), "small": (120.0, 40.0)}
    # thirty requests in time and ten that may wait ask for the same each; nobody asked for the other model
    assert {name: one.total for name, one in tables.tier.items()} == {"iw-f": 90.0, "niw": 30.0, UNALLOCATED: 120.0}
    assert {name: one.requests for name, one in tables.tier.items()} == {"iw-f": 30, "niw": 10, UNALLOCATED: 0}
    assert tables.region["east"].total == 240.0
    assert not tables.tenant
    one = tables.tier["iw-f"]  # 30,000 prompt tokens of 20 us each, and 30 of output
    assert one.prompts + one.outputs == one.total
    assert one.per_million_prompt_tokens == pytest.approx(one.prompts / 0.03)


def test_tenants_pay_for_what_they_asked() -> None:
    codes = np.array([0] * 20 + [1] * 10 + [UNSET] * 10, np.int32)
    lines, total = played(tenants=Labels(codes, ("search", "chat")))
    tenants = tables_of(lines).tenant
    assert total == 320.0
    paid = {UNALLOCATED: 160.0, "search": 80.0, "chat": 40.0, NO_TENANT: 40.0}
    assert {name: one.total for name, one in tenants.items()} == paid
    few = tables_of(lines, most=2).tenant
    assert {name: one.total for name, one in few.items()} == {UNALLOCATED: 160.0, "search": 80.0, OTHERS: 80.0}
