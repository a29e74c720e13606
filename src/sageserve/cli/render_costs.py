"""The cost of a run as tables that fit the terminal: what was bought, and who pays it.

Draws what it is given; amounts are shown to the cent. Read next: `data/billing/allocations.py`, docs/reference/money.md.
"""

from collections.abc import Mapping

from rich.markup import escape

from sageserve.base.units import money_sign, show_money
from sageserve.cli.columns import Column, prose, tables, terminal
from sageserve.cli.render import header
from sageserve.data.billing.allocations import CostShare
from sageserve.data.results.summary import StockCost, Summary

_NONE = "–"


def draw_costs(summary: Summary, shown: Mapping[str, Mapping[str, CostShare]]) -> None:
    """Print what a run cost on stdout.

    Args:
        summary: of the run.
        shown: tables by what they are by.
    """
    console = terminal()
    prose(console, header(summary), under=2)
    cost = summary.cost_usd
    total, reserved, on_demand = (show_money(one, summary.currency) for one in (cost.total, cost.reserved, cost.on_demand))
    console.print(f"cost [bold]{total}[/bold]: {reserved} reserved and {on_demand} on demand")
    sign = money_sign(summary.currency)
    for columns in (_bought(cost.lines, sign), *(_shared(name, rows, sign) for name, rows in shown.items() if rows)):
        if columns:
            console.print()
            for table in tables(columns, console.width):
                console.print(table)


def _amounts(amounts: list[float]) -> list[str]:
    return [f"{amount:,.2f}" for amount in amounts]


def _summed(amounts: list[float]) -> list[str]:
    """Amounts, and below them what they come to, in cents."""
    return _amounts([*amounts, sum(round(100 * amount) for amount in amounts) / 100])


def _bought(lines: Mapping[str, StockCost], sign: str) -> list[Column]:
    found = list(lines.values())
    if not found:
        return []
    columns = [Column("bought", [*lines, "total"])]
    if any(line.reserved_gpus for line in found):
        columns += [
            Column("reserved\nGPU-h", [*_amounts([line.reserved_gpu_hours for line in found]), ""]),
            Column(f"{sign} per\nGPU-h", [*(f"{line.reserved_per_gpu_hour:,.4g}" for line in found), ""]),
            Column(f"reserved\n{sign}", _summed([line.reserved for line in found])),
            Column(f"of it\nunused {sign}", _summed([line.unused for line in found])),
        ]
    return [
        *columns,
        Column("on demand\nGPU-h", [*_amounts([line.on_demand_gpu_hours for line in found]), ""]),
        Column(f"{sign} per\nGPU-h", [*(f"{line.on_demand_per_gpu_hour:,.4g}" for line in found), ""]),
        Column(f"on demand\n{sign}", _summed([line.on_demand for line in found])),
    ]


def _shared(name: str, rows: Mapping[str, CostShare], sign: str) -> list[Column]:
    found = list(rows.values())
    columns = [
        Column(f"by {name}", [*map(escape, rows), "total"]),
        Column("finished", [f"{count:,}" for count in (*(row.requests for row in found), sum(row.requests for row in found))]),
        Column(f"cost\n{sign}", _summed([row.total for row in found]), style="bold"),
        Column(f"busy\n{sign}", _summed([row.busy for row in found])),
        Column(f"idle\n{sign}", _summed([row.idle for row in found])),
        Column(f"starting\n{sign}", _summed([row.start for row in found])),
    ]
    if any(row.unused for row in found):
        columns.append(Column(f"unused\n{sign}", _summed([row.unused for row in found])))
    return [
        *columns,
        Column(f"{sign}/M prompt\ntokens", [*(_price(row.per_million_prompt_tokens) for row in found), ""]),
        Column(f"{sign}/M output\ntokens", [*(_price(row.per_million_output_tokens) for row in found), ""]),
    ]


def _price(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.2f}" if value >= 1 else f"{value:,.4f}"
