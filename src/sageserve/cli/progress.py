"""Long work on a terminal: a progress bar on stderr, Ctrl-C heard, and the word that the first run compiles.

What a command prints is its own. Read next: `kernels.py`, where compiled functions are kept.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

import typer
from rich.console import Console
from rich.markup import escape

from sageserve.cli import kernels

Tell = Callable[[int, int], None]
"""Told how much of how much is done."""
STDERR: Final = 2


@dataclass(slots=True)
class Interruption:
    """Ctrl-C, remembered until the simulation asks; the second one is not waited for."""

    asked: bool = False

    @contextmanager
    def heard(self) -> "Iterator[Interruption]":
        """Take SIGINT for as long as the block lasts."""
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # Past sys.stderr: a signal may come while its buffer is written to, which must not be entered twice.
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        clear = b"\r\x1b[K" if os.isatty(STDERR) else b""  # the bar is drawn again below
        os.write(STDERR, clear + b"stopping: a partial result follows (Ctrl-C again to give up at once)\n")


def compile_once() -> None:
    """Have the simulator compiled, and say so when that takes long."""
    if kernels.is_warm():
        return
    typer.echo("compiling the simulator for this machine, once (twenty seconds or more)", err=True)
    if not sys.stderr.isatty():
        kernels.warm_up()
        return
    with Console(stderr=True).status("compiling") as status, kernels.counted(lambda n: status.update(f"{n} functions compiled")):
        kernels.warm_up()


@contextmanager
def bar(what: str) -> Iterator[Tell]:
    """A progress bar on stderr while the work lasts; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield _nobody
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(what), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _nobody(_done: int, _total: int) -> None:
    """Take no notice."""
