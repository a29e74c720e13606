"""`sageserve shadow-report`: would following the decisions of a fleet have done harm, or helped?

Knows options and how the answer looks; `show/shadow/` sums up. stdout is the result. Read next: docs/how-to/watch.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.show.shadow.read import ShadowReport

EXAMPLES = """[bold]Examples[/bold]

sageserve shadow-report [dim]— of all that was kept[/dim]

sageserve shadow-report --last 7d --out shadow.html

sageserve shadow-report ~/.local/state/sageserve [dim]— of a fleet of `sageserve up`[/dim]

sageserve shadow-report --json | jq '.endpoints[] | {endpoint, harm, help}'
"""


def shadow_report(
    state: Annotated[
        Path | None,
        typer.Argument(
            metavar="STATE", help="folder that `watch` or `up` keeps", show_default="~/.local/state/sageserve-watch, or sageserve"
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--last", metavar="DURATION", help="back from the newest minute", show_default="all, five weeks at most"),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="write a page, too")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Sum up a fleet that was watched, or yours: harm, help, lead, agreement of decisions, dollars, broken minutes, forecasts."""
    from sageserve.cli.durations import time_of
    from sageserve.cli.running import recorded_folder
    from sageserve.show.shadow.read import read_shadow

    reading = read_shadow(recorded_folder(state), None if last is None else time_of("--last", last))
    if out is not None:
        from sageserve.show.report import write_page
        from sageserve.show.shadow.shadow_page import shadow_page

        size = write_page(shadow_page(reading), out)
        typer.echo(f"report: {out} ({size / 1e6:.1f} MB)", err=True)
    if as_json:
        typer.echo(answer_json(reading.report))
    else:
        _draw(reading.report)


def _draw(report: "ShadowReport") -> None:
    from sageserve.cli.columns import Column, prose, tables, terminal
    from sageserve.show.format import NONE, money, percent
    from sageserve.show.shadow import shadow_page as words

    out = terminal()
    prose(out, f"[bold]{escape(report.fleet)}[/bold] under {escape(report.strategy)}: {words.span_words(report)}", under=2)
    prose(out, f"[bold]{escape(words.headline(report))}[/bold]", under=2)
    prose(out, escape(words.saving_words(report)), under=2)
    prose(out, f"decisions: {escape(words.decision_words(report))}", under=2, style="dim")
    out.print()
    ends = report.endpoints
    columns = [
        Column("endpoint", [one.endpoint for one in ends]),
        Column("seen\nmin", [f"{one.seen_minutes:,}" for one in ends], beside="seen\nmin"),
        Column("agreed", [percent(one.agreement, 1) for one in ends]),
        Column("harm\ninst-min", [f"{one.harm:,.0f}" for one in ends]),
        Column("help\ninst-min", [f"{one.help:,.0f}" for one in ends]),
        Column("lead\nmin", [NONE if one.lead_minutes is None else f"{one.lead_minutes:g}" for one in ends]),
        Column("followed", [f"{one.followed:,}/{one.wishes:,}" for one in ends]),
        Column("cost\nran", [money(one.did.cost_usd, report.currency) for one in ends]),
        Column("cost\nwould", [money(one.would.cost_usd, report.currency) for one in ends]),
        Column("broken min\nran", [f"{one.did.short_minutes:,}" for one in ends]),
        Column("broken min\nwould", [f"{one.would.short_minutes:,}" for one in ends]),
        Column("broken min\nmeasured", [NONE if one.measured_minutes is None else f"{one.measured_minutes:,}" for one in ends]),
        Column("changes/day\nran", [f"{one.did.changes_per_day:.1f}" for one in ends]),
        Column("changes/day\nwould", [f"{one.would.changes_per_day:.1f}" for one in ends]),
    ]
    scored = [one.forecast for one in ends]
    if any(scored):
        columns.append(Column("forecast\nerror", [NONE if one is None else f"{one.wape:.1%}" for one in scored]))
        columns.append(Column("forecast\nbias", [NONE if one is None else f"{one.bias:+.1%}" for one in scored]))
    for table in tables(columns, out.width):
        out.print(table)
    out.print()
    for line in words.risk_words(report):
        prose(out, escape(line), under=2, style="dim")
    for line in words.next_words(report):
        out.print(escape(line), style="dim", soft_wrap=True)  # commands
