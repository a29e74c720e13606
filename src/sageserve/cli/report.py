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
"""


def report(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="folders of simulate --out or compare --out")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="the page", show_default="report.html in the first folder")
    ] = None,
) -> None:
    """Write a page to look at: verdict, strategies side by side, and what happened over time. Needs no network."""
    from sageserve.data.results.run_folder import REPORT

    typer.echo(write(folders, folders[0] / REPORT if out is None else out))


def write(folders: Sequence[Path], out: Path, preface: "Preface | None" = None) -> Path:
    """Write the report, and say on stderr how large it became."""
    from sageserve.show.report import write_report

    with bar("report") as tell:
        size = write_report(folders, out, tell, preface)
    typer.echo(f"report: {out} ({size / 1e6:.1f} MB)", err=True)
    return out
