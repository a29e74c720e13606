"""`sageserve show`: what a run or a comparison came to, told in the terminal, or as JSON.

Knows options and which kind of folder it was given; words are made in `show/`, drawn in `render_show.py`. stdout is the result.
Read next: `render_show.py`, `render_compare.py`, docs/how-to/look-at-results.md.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.cli.streams import answer_json

if TYPE_CHECKING:
    from sageserve.data.results.sweep_read import Sweep
    from sageserve.show.account import Account

EXAMPLES = """[bold]Examples[/bold]

sageserve simulate quickstart --strategy lt-ua --out runs/day && sageserve show runs/day

sageserve compare quickstart --seeds 1..3 --out sweeps/day && sageserve show sweeps/day

sageserve show runs/day --json | jq .verdict.headline
"""


def show(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="a folder of `simulate --out` or of `compare --out`")],
    as_json: Annotated[bool, typer.Option("--json", help="print the account as JSON")] = False,
) -> None:
    """Tell a run in the terminal: verdict, promises, GPU-hours, demand against capacity, decisions and their reasons."""
    from sageserve.cli.render_show import TerminalPage, draw
    from sageserve.data.results.sweep_read import is_sweep, read_sweep

    if is_sweep(folder):
        _show_sweep(read_sweep(folder), as_json=as_json)
        return
    found = _account(folder)
    if as_json:
        typer.echo(answer_json(found))
    else:
        draw(TerminalPage(), found)


def _account(folder: Path) -> "Account":
    """Everything about a run; of a cell of a sweep what its summary says."""
    from sageserve.data.results.run_folder import JOURNAL, REQUESTS, TIMELINE, read_run
    from sageserve.data.results.sweep_read import is_sweep, read_kept
    from sageserve.show.account import account, short_account

    if is_sweep(folder.resolve().parent) and not any((folder / name).exists() for name in (JOURNAL, REQUESTS, TIMELINE)):
        kept = read_kept(folder)
        typer.echo(
            "a comparison keeps summaries alone; for time and decisions:"
            f" sageserve simulate {folder}/scenario.yaml --out DIR && sageserve show DIR",
            err=True,
        )
        return short_account(kept.summary)
    return account(read_run(folder))


def _show_sweep(sweep: "Sweep", *, as_json: bool) -> None:
    import msgspec

    from sageserve.cli.render_compare import comparison_json
    from sageserve.cli.render_compare import draw as draw_tables
    from sageserve.cli.render_show import TerminalPage, draw_left, draw_verdict
    from sageserve.show.verdict import verdict

    bounds = sweep.bounds
    found = verdict(sweep.comparison)
    if as_json:
        value = msgspec.json.decode(comparison_json(sweep.comparison, bounds, []))
        typer.echo(answer_json({"verdict": found, **value}))
        return
    page = TerminalPage()
    draw_verdict(page, found)
    page.print()
    draw_tables(sweep.comparison, bounds, str(sweep.path))
    draw_left(page, sweep)
