"""`sageserve costs`: what a run cost and who pays it, to the cent, as tables, as JSON, or as a file that finance loads.

Knows options and which folder it was given; adds nothing up that `data/billing/` does not. stdout is the result. Read next:
`render_costs.py`, docs/reference/money.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.data.billing.allocations import CostShare, CostTables
    from sageserve.data.results.summary import Summary

EXAMPLES = """[bold]Examples[/bold]

sageserve simulate quickstart --out runs/day && sageserve costs runs/day

sageserve costs runs/day --format focus-csv --begins 2026-11-01 > costs.csv

sageserve costs runs/day --by tier --json | jq '.cost_by.tier | map_values(.per_million_output_tokens)'
"""


def costs(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="a folder of `simulate --out`, or one run of a folder of `compare --out`")
    ],
    by: Annotated[
        Literal["tenant", "tier", "model", "region"] | None,
        typer.Option("--by", help="one table alone", show_default="all there are"),
    ] = None,
    form: Annotated[
        Literal["table", "focus-csv"], typer.Option("--format", help="focus-csv: every line, in the columns of FOCUS 1.2")
    ] = "table",
    begins: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="of the window, for focus-csv: a simulation has no date", show_default="1970-01-01"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print amounts and tables as JSON")] = False,
) -> None:
    """Say what a run cost and who pays it: by tenant, tier, model and region, idle and start cost shared out, to the cent."""
    from sageserve.cli.render_costs import draw_costs

    _refuse_both(form, by=by is not None, begins=begins is not None, as_json=as_json)
    _refuse_many(folder)
    if form == "focus-csv":
        typer.echo(_focus(folder, begins), nl=False)
        return
    summary, found = _tables(folder)
    shown: dict[str, dict[str, CostShare]] = {name: getattr(found, name) for name in (_DIMENSIONS if by is None else (by,))}
    _refuse_nothing(shown, by)
    if as_json:
        head = {"scenario": summary.scenario, "strategy": summary.strategy, "seed": summary.seed, "currency": summary.currency}
        typer.echo(answer_json({**head, "cost_usd": summary.cost_usd, "cost_by": shown}))
    else:
        draw_costs(summary, shown)


_DIMENSIONS = ("tier", "model", "region", "tenant")


def _tables(folder: Path) -> "tuple[Summary, CostTables]":
    """A run's summary, and its tables with every tenant where the folder has them."""
    from sageserve.data.billing.allocations import tables_of
    from sageserve.data.results.run_folder import is_whole, read_run
    from sageserve.data.results.sweep_read import is_sweep, read_kept

    if is_sweep(folder.resolve().parent) and not is_whole(folder):
        kept = read_kept(folder)
        return kept.summary, kept.summary.cost_by
    run = read_run(folder)
    return run.summary, tables_of(run.costs(), most=None)


def _refuse_many(folder: Path) -> None:
    from sageserve.base.errors import ResultError
    from sageserve.data.results.sweep_read import is_sweep, runs_in

    if is_sweep(folder):
        some = next(iter(runs_in(folder)), folder / "RUN")
        raise ResultError(f"{folder} holds many runs", hint=f"name one of them, such as {some}")


def _refuse_both(form: str, *, by: bool, begins: bool, as_json: bool) -> None:
    from sageserve.base.errors import ConfigError

    if form == "table" and begins:
        raise ConfigError("--begins is for --format focus-csv: tables have no dates", hint="leave it out")
    if form != "table" and (by or as_json):
        raise ConfigError(f"--format {form} has all lines in one file", hint="leave --by and --json out")


def _focus(folder: Path, begins: str | None) -> str:
    """The file, and a word on its dates where nobody gave any."""
    from datetime import UTC, datetime, timedelta

    from sageserve.base.errors import ConfigError
    from sageserve.data.billing.focus import PriceOfGpu, Statement, focus_csv
    from sageserve.data.results.run_folder import read_run

    try:
        first = datetime.fromisoformat("1970-01-01" if begins is None else begins)
    except ValueError:
        first = None
    if first is None or not 1900 <= first.year < 2200:  # far from where dates end: zones and months reach beyond the window
        raise ConfigError(f"--begins: {begins!r} is no date", hint="write it as in 2026-11-01 or 2026-11-01T08:00Z")
    run = read_run(folder)
    if begins is None:
        typer.echo("a simulation has no date: its window is said to begin at 1970-01-01; --begins 2026-11-01 says when", err=True)
    found = {}
    for name, line in run.summary.cost_usd.lines.items():
        gpu = next(gpu for gpu in sorted(run.scenario.gpus, key=len, reverse=True) if name.endswith(f"/{gpu}"))
        price = PriceOfGpu(line.on_demand_per_gpu_hour, line.reserved_per_gpu_hour, round(100 * line.reserved))
        found[name.removesuffix(f"/{gpu}"), gpu] = price
    zoned = first if first.tzinfo is not None else first.replace(tzinfo=UTC)
    length = timedelta(seconds=min(run.summary.window_s, run.summary.played_s))
    return focus_csv(run.costs(), found, Statement(run.summary.scenario, run.summary.currency, zoned, length))


def _refuse_nothing(shown: "dict[str, dict[str, CostShare]]", by: str | None) -> None:
    from sageserve.base.errors import ResultError

    if any(shown.values()):
        return
    if by == "tenant":
        hint = "give its column of tenants a name that is known, or --column; see docs/reference/traces.md"
        raise ResultError("the trace of this run names no tenants", hint=hint)
    raise ResultError("this result was written before costs were shared out", hint="simulate again with --out")
