"""The command line's root: which commands there are, and the one place where errors become text and exit codes.

Exit codes: 0 done, 1 a fault of SageServe itself, 2 a mistake in what was given or what is missing here, 130 interrupted, 141
nobody reads the answer any more. Knows no command's work; heavy modules are imported by the commands when they run. Read next:
`menu.py` for the commands, `streams.py`.
"""

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from sageserve.base.errors import LawBroken, SageServeError
from sageserve.base.version import __version__
from sageserve.cli.extras import extra_of, lacking
from sageserve.cli.menu import Menu
from sageserve.cli.streams import guard

PACKAGE = Path(__file__).resolve().parents[1]
GARBAGE = 250_000  # objects between two looks for circles: with Python's 700 a tenth of the quickstart is such looks at imports
MISTAKE = 2
FAULT = 1

_HELP = """Decide how a fleet of LLM engines is scaled, routed and scheduled.

Play last week's traffic, or a generated one, through a fleet in many regions before any of it touches a GPU.

[bold]Start here[/bold]

  sageserve simulate quickstart [dim]— a day on a small fleet, in seconds[/dim]

  sageserve simulate quickstart --strategy siloed [dim]— the same day, another way[/dim]

  sageserve compare quickstart --strategies hpa,foresight --baseline hpa [dim]— what SageServe saves[/dim]

  sageserve simulate quickstart --out runs/day [dim]— keep every request and decision, and a page to look at[/dim]

[bold]Then with your own[/bold]

  sageserve trace inspect FILE [dim]— what is in a trace[/dim]

  sageserve init fleet.yaml --trace FILE [dim]— a scenario of your own, to be made yours[/dim]

  sageserve simulate fleet.yaml --trace FILE

  sageserve size fleet.yaml --trace FILE [dim]— how many GPUs, of which type, where, and what they cost[/dim]

  sageserve scenario show quickstart [dim]— every setting, and where it comes from[/dim]

  sageserve validate --data RUNS [dim]— simulated against measured runs of your engines[/dim]

[bold]And for real[/bold]

  sageserve up [dim]— a fleet on this machine: gateway, controller, emulated engines[/dim]

  sageserve reload [dim]— give that fleet the settings that its file has now[/dim]

  sageserve doctor --local [dim]— is that fleet sound and safe?[/dim]

  sageserve watch fleet.yaml --prometheus URL [dim]— what it would do with the fleet you have; nothing is changed[/dim]
"""

app = typer.Typer(
    name="sageserve",
    cls=Menu,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # errors are shown by `main`, on one screen
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sageserve {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and stop")]
Debug = Annotated[bool, typer.Option("--debug", help="show the Python traceback of an error")]


@app.callback()
def root(version: Version = False, debug: Debug = False) -> None:  # read by `_version` and by `main`
    """Take the options that stand before the command."""


def show_error(error: BaseException, *, debug: bool) -> int:
    """Print what went wrong on stderr, and return the exit code that says so."""
    from rich.console import Console
    from rich.markup import escape

    if isinstance(error, ImportError) and (extra := extra_of(error)) is not None:
        error = lacking(str(error.name), extra)
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    if debug:
        console.print(escape("".join(traceback.format_exception(error))))
    if isinstance(error, OSError):
        error = _place_at_fault(error)
    if isinstance(error, SageServeError) and not isinstance(error, LawBroken):
        console.print(f"[bold red]error:[/bold red] {escape(error.message)}")
        if error.hint:
            console.print(f"[bold]try:[/bold] {escape(error.hint)}")
        return MISTAKE
    console.print(f"[bold red]sageserve failed:[/bold red] {escape(f'{type(error).__name__}: {error}')}")
    console.print("This is a fault of SageServe, not yours. Please report it with the command you gave and what")
    console.print(f"`sageserve --debug {escape(' '.join(sys.argv[1:]))}` prints (version {__version__}).")
    return FAULT


def _place_at_fault(error: OSError) -> Exception:
    """What a system's error about a path of the user's means; the error itself where it is about none.

    A path that cannot even be tidied up fails a second time, and the first error then says more.
    """
    if isinstance(error.__context__, SageServeError):
        return error.__context__
    place = "" if error.filename is None else os.fsdecode(error.filename)
    if not place or Path(place).is_relative_to(PACKAGE):
        return error
    return SageServeError(f"{place}: {error.strerror}", hint="check the path, its permissions and the space on its disk")


def main() -> None:
    """The entry point of `sageserve`: a command, in a process of its own."""
    guard()
    try:
        run()
    finally:
        gc.freeze()  # the process ends: a last look for circles among all that was loaded takes half as long as --help


def run() -> None:
    """Run the command that `sys.argv` names, and leave with its exit code."""
    gc.set_threshold(GARBAGE)
    try:
        _stand_somewhere()
        try:
            app(prog_name="sageserve")
        finally:
            sys.stdout.flush()  # here, where a full disk or a reader that left can still be told
    except Exception as error:  # noqa: BLE001 # the one boundary: every error is shown, none is passed over
        sys.exit(show_error(error, debug="--debug" in sys.argv[1:]))


def _stand_somewhere() -> None:
    """A shell may still be in a folder that was removed: no path means anything there.

    Raises:
        SageServeError: it is gone.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise SageServeError("the folder that this was typed in is not there any more", hint="cd to one that is") from None


if __name__ == "__main__":
    main()
