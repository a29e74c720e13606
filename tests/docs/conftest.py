"""Commands of a page typed into this process, which has the simulator compiled, instead of processes of their own.

Only commands that start nothing: what serves, and whatever a shell has to do, is done as `pages.py` does it. A comparison's cells
are played here too; that they come out alike with workers and without is `tests/sim/test_sweep.py`'s.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import pytest
from typer.testing import CliRunner

from sageserve.cli.main import app
from sageserve.sim.sweep.cell import Cell, Outcome, Player
from tests.docs.pages import Step, do

Typed = Callable[[Step, Mapping[str, str]], str]
HERE: Final = frozenset(["compare", "diff", "explain", "init", "plan", "scenario", "show", "simulate", "size", "trace"])
SHELL: Final = frozenset("|&><;$`\\")


class SameProcess:
    """Plays cells here, one after another; made as `Processes` are."""

    def __init__(self, _workers: int | None = None) -> None:
        self._player = Player()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Nothing was started."""

    def run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        for number, one in enumerate(cells):
            if interrupted():
                return
            if (outcome := self._player.play(one)) is not None:
                yield number, outcome


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """What a step prints when it is done in the test's folder, with variables of its environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sageserve.sim.sweep.processes.Processes", SameProcess)

    def type_step(step: Step, environment: Mapping[str, str]) -> str:
        lines = [] if step.file or SHELL & set(step.text) else [shlex.split(line) for line in step.text.splitlines()]
        if not lines or not all(words[0] == "sageserve" and words[1] in HERE for words in lines):
            return do(step, tmp_path, environment)
        printed = ""
        for words in lines:
            done = CliRunner().invoke(app, words[1:], env=environment, catch_exceptions=False)
            assert done.exit_code == 0, f"line {step.line}: {shlex.join(words)}\nended with {done.exit_code}\n{done.output}"
            printed += done.stdout
        return "\n".join(line.rstrip() for line in printed.splitlines())

    return type_step
