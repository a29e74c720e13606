"""`sageserve report`: one HTML file about one run, or about several side by side; simulate and compare write it too.

Knows options; `show/report.py` does the work. The file's name goes to stdout, everything else to stderr.
Read next: docs/how-to/read-a-report.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.cli.progress import bar

if TYPE_CHECKING:
    from sageserve.show.page import Preface

EXAMPLES = """[bold]Examples[/bold]

sageserve report runs/day -o day.html

sageserve report runs/reactive runs/foresight -o both.html

sageserve report sweeps/peak   [dim]# a folder of compare --out[/dim]

sageserve report ~/.local/state/sageserve --last 24h   [dim]# of the fleet that runs, or ran[/dim]
"""


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="folders of simulate --out or compare --out, or a live fleet's state folder"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="the page", show_default="report.html in the first folder; of a live fleet, here"
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--last", metavar="DURATION", help="of a live fleet: back from its newest minute", show_default="all"),
    ] = None,
) -> None:
    """Write a page to look at: verdict, strategies side by side, and what happened over time. Needs no network."""
    from sageserve.cli.lived import refuse_last, state_folders
    from sageserve.data.results.run_folder import REPORT

    live = state_folders(folders)
    if live:
        typer.echo(_write_lived(live, Path(REPORT) if out is None else out, last))
        return
    refuse_last(last)
    typer.echo(write(folders, folders[0] / REPORT if out is None else out))


def _write_lived(folders: Sequence[Path], out: Path, last: str | None) -> Path:
    from sageserve.base.errors import ConfigError
    from sageserve.cli.lived import length
    from sageserve.show.lived.lived_page import lived_page
    from sageserve.show.lived.read import read_lived
    from sageserve.show.report import write_page

    if len(folders) > 1:
        raise ConfigError("a report is of one live fleet", hint="`sageserve diff` sets two side by side")
    size = write_page(lived_page(read_lived(folders[0], length(last))), out)
    typer.echo(f"report: {out} ({size / 1e6:.1f} MB)", err=True)
    return out


def write(folders: Sequence[Path], out: Path, preface: "Preface | None" = None) -> Path:
    """Write the report, and say on stderr how large it became."""
    from sageserve.show.report import write_report

    with bar("report") as tell:
        size = write_report(folders, out, tell, preface)
    typer.echo(f"report: {out} ({size / 1e6:.1f} MB)", err=True)
    return out
