"""The answer of `sageserve size` as tables that fit the terminal: the fleet, what is bought, which promises hold, why not less.

Draws what it is given, and adds up lines. Read next: `sim/sizing/records.py`.
"""

from collections.abc import Iterator
from typing import Final

from rich.markup import escape

from sageserve.base.units import DAY, SECOND, WEEK, money_sign, show_money
from sageserve.cli.columns import Column, prose, tables, terminal
from sageserve.sim.sizing.conditions import KINDS
from sageserve.sim.sizing.records import CostLine, OneLess, PromiseProof, Sizing

_NONE: Final = "–"


def draw_sizing(sizing: Sizing, following: str) -> None:
    """Print an answer on stdout.

    Args:
        sizing: what to print.
        following: a command to go on with.
    """
    console = terminal()
    gpus = sizing.gpus
    which = "every promise" if all(one.reach is None for one in sizing.proof.values()) else "every promise that is in reach"
    if sizing.strategy:
        which = f"what {escape(sizing.strategy)} needs at most"
    prose(
        console,
        f"[bold]{escape(sizing.scenario)}[/bold]: [bold]{gpus:,} GPUs[/bold] {'are' if sizing.strategy else 'keep'} {which},"
        f" {show_money(sizing.cost_per_month_usd, sizing.currency)} a month",
        under=2,
    )
    for line in (*_conditions(sizing), *_quota(sizing)):
        prose(console, f"  {line}", under=4)
    played = f"  {sizing.windows} windows of about {sizing.requests:,} requests; {sizing.plays:,} were played"
    prose(console, played, under=4, style="dim")
    for note in sizing.notes:
        prose(console, f"  {escape(note)}", under=4, style="dim")
    for columns in (_counts(sizing) if sizing.strategy else _fleet(sizing), _bought(sizing), _promises(sizing)):
        console.print()
        for table in tables(columns, console.width):
            console.print(table)
    console.print(f"\nnext: {escape(following)}", soft_wrap=True)


def _conditions(sizing: Sizing) -> Iterator[str]:
    """What each condition adds; that on losses comes on top of that on traffic."""
    whole = sizing.gpus, sizing.cost_per_month_usd
    lost, more = sizing.survive, sizing.growth
    before = whole if lost is None else (lost.gpus_without, lost.cost_per_month_usd_without)
    if more is not None:
        without = more.gpus_without, more.cost_per_month_usd_without
        yield f"for {more.factor:g} times the traffic: {_added(before, without, sizing.currency)} for what there is"
    if lost is not None:
        yield f"to survive the loss of {KINDS[lost.what]}: {_added(whole, before, sizing.currency)} without"


def _quota(sizing: Sizing) -> Iterator[str]:
    """By when which quota must be asked for, and what one more nine of safety takes."""
    if sizing.nine is not None:
        safer, whole = sizing.nine, (sizing.gpus, sizing.cost_per_month_usd)
        words = "no fleet was found that is as safe"
        if safer.gpus is not None and safer.cost_per_month_usd is not None:
            words = _added((safer.gpus, safer.cost_per_month_usd), whole, sizing.currency)
        yield f"one more nine, {100 * safer.safety:.6g} % safe: {words}"
    if sizing.lead is None:
        return
    asks = [f"{line.ask:,} GPUs of {name}" for name, line in sizing.quota.items() if line.ask]
    if not asks:
        yield "quota: nothing to ask for, the stock is enough"
        return
    due, lead = _weeks(abs(sizing.lead.due_s)), _weeks(sizing.lead.lead_s)
    when = f"within {due}" if sizing.lead.due_s > 0 else "now" if sizing.lead.due_s > -DAY / SECOND else f"now, {due} late"
    why = "the traffic is there" if not sizing.lead.reached_s else f"the traffic is there in {_weeks(sizing.lead.reached_s)}"
    yield f"quota: ask for {' and '.join(asks)} {when}: it takes {lead}, and {why}"


def _weeks(seconds: float) -> str:
    """Weeks with a digit: 12 weeks, 1.9 weeks."""
    weeks = f"{seconds * SECOND / WEEK:.1f}".removesuffix(".0")
    return f"{weeks} week{'' if weeks == '1' else 's'}"


def _added(found: tuple[int, float], without: tuple[int, float], currency: str) -> str:
    gpus, more = found[0] - without[0], found[1] - without[1]
    return (
        f"{gpus:+,} GPUs and {'' if more < 0 else '+'}{show_money(more, currency)} a month,"
        f" against {without[0]:,} and {show_money(without[1], currency)}"
    )


def share(value: float | None) -> str:
    """A share with the digits that tell it from its neighbours: 94.3 %, 99.98 %."""
    if value is None:
        return _NONE
    if value == 1.0:
        return "100 %"
    digits = 1 if value < 0.995 else 2 if value < 0.9995 else 4
    return f"{int(value * 100 * 10**digits + 1e-6) / 10**digits:.{digits}f} %"


def _fleet(sizing: Sizing) -> list[Column]:
    why = {line.pool: line for line in sizing.less}
    return [
        Column("pool", [line.pool for line in sizing.fleet]),
        Column("instances", [str(line.instances) for line in sizing.fleet], style="bold"),
        Column("GPUs", [f"{line.gpus:,}" for line in sizing.fleet]),
        Column("with one less", [_less(why[line.pool]) for line in sizing.fleet], words=True),
    ]


def _counts(sizing: Sizing) -> list[Column]:
    counts = list(sizing.counts.values())
    return [
        Column("pool, GPUs held", list(sizing.counts)),
        Column("peak", [f"{one.peak:,}" for one in counts], style="bold"),
        Column("p99", [f"{one.p99:,}" for one in counts]),
        Column("mean", [f"{one.mean:,.1f}" for one in counts]),
        Column("least", [f"{one.minimum:,}" for one in counts]),
        Column("instances\nat most", [str(line.instances) for line in sizing.fleet]),
    ]


def _less(line: OneLess) -> str:
    match line.why:
        case "breaks":
            return f"{line.tier} keeps {share(line.share)}{f' without {line.without}' if line.without else ''}"
        case "unsure":
            return f"{line.tier} is {share(line.share)} safe, {share(line.needed)} needed"
        case "backlog":
            return "work is left over"
        case "minimum":
            return "below the minimum"
        case "last":
            return "the only one of its model"
        case "none":
            return "others carry it"
        case "unused":
            return "nothing asks for it"


def _bought(sizing: Sizing) -> list[Column]:
    rows = list(sizing.quota)
    quota, cost = [sizing.quota[row] for row in rows], [sizing.cost[row] for row in rows]
    total, sign = sum(line.reserved + line.on_demand for line in cost), money_sign(sizing.currency)
    columns = [
        Column("to have", [*rows, "total"]),
        Column("GPUs", [*(f"{line.gpus:,}" for line in quota), f"{sum(line.gpus for line in quota):,}"]),
        Column("VMs", [*(f"{line.vms:,}" for line in quota), f"{sum(line.vms for line in quota):,}"]),
        Column("stock", [*(f"{line.stock:,}" for line in quota), ""]),
        Column("to ask\nfor", [*(f"{line.ask:,}" if line.ask else _NONE for line in quota), ""]),
        Column(f"{sign} per\nGPU-h", [*map(_price, cost), ""]),
    ]
    if any(line.reserved_gpus for line in cost):
        columns += [
            Column(f"reserved\n{sign}/month", _summed([line.reserved for line in cost])),
            Column(f"on demand\n{sign}/month", _summed([line.on_demand for line in cost])),
        ]
    columns.append(Column(f"{sign}/month", [*(f"{line.reserved + line.on_demand:,.2f}" for line in cost), f"{total:,.2f}"]))
    if sizing.reserve:
        best = [sizing.reserve.get(row) for row in rows]
        columns += [
            Column("cheapest\nto reserve", [*(_NONE if one is None else f"{one.gpus:,}" for one in best), ""]),
            Column(f"then\n{sign}/month", [*(_NONE if one is None else f"{one.per_month:,.2f}" for one in best), ""]),
        ]
    return columns


def _summed(amounts: list[float]) -> list[str]:
    """Amounts, and below them what they come to."""
    return [f"{amount:,.2f}" for amount in (*amounts, sum(amounts))]


def _price(line: CostLine) -> str:
    on_demand, reserved = f"{line.on_demand_per_gpu_hour:.2f}", f"{line.reserved_per_gpu_hour:.2f}"
    if not line.reserved_gpus:
        return on_demand
    return f"{reserved}, {on_demand}" if line.on_demand_gpus else reserved


def _promises(sizing: Sizing) -> list[Column]:
    proofs = list(sizing.proof.values())
    return [
        Column("promise", list(sizing.proof)),
        Column("promised", [share(one.percentile) for one in proofs]),
        Column("sized\nfor", [share(one.target) for one in proofs]),
        Column("kept at\nleast", [share(one.kept_least) for one in proofs]),
        Column("kept in\nthe next", [f"≥ {share(one.low)}" for one in proofs]),
        Column("safety", [*_safety(proofs)]),
        Column("needed", [share(one.needed) for one in proofs]),
        Column("tightest for", [one.model for one in proofs], words=True),
    ]


def _safety(proofs: list[PromiseProof]) -> Iterator[str]:
    for one in proofs:
        yield "out of reach" if one.reach is not None else f"{'✓' if one.kept else '✗'} {share(one.safety)}"
