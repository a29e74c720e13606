"""Cells in this process, one after the other: for notebooks, where there may be no main module that workers could import.

Read next: `processes.py` for the cores of a machine.
"""

from collections.abc import Callable, Iterator, Sequence

from sageserve.sim.sweep.cell import Cell, Outcome, Player


class Alone:
    """Runs cells where it is."""

    def __init__(self) -> None:
        self._player = Player()

    def run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        """The number and outcome of each cell, in order; fewer when it was interrupted."""
        for number, cell in enumerate(cells):
            outcome = self._player.play(cell, interrupted=interrupted)
            if outcome is None:
                return
            yield number, outcome
