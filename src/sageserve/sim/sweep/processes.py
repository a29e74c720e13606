"""Cells on the cores of this machine, a process each; one that dies is retried alone, so that it takes nobody with it.

Workers are spawned, not forked: they load compiled code from the cache that this process was told to use (the environment
is inherited). Knows processes and signals, no results. Read next: `cell.py`, `run.py`.
"""

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Final, Self

from sageserve.sim.sweep.cell import Cell, Failed, Outcome, Player
from sageserve.sim.sweep.room import workers_that_fit

_PATIENCE: Final = 0.2  # seconds between two looks whether somebody wants to stop


class Processes:
    """Runs cells in worker processes. As a context it keeps them from one run to the next, for searches that ask again and again.

    Args:
        workers: how many at once; None: as many as fit.
        player: makes what plays the cells in a worker; only tests give another.
    """

    def __init__(self, workers: int | None = None, player: Callable[[], Player] = Player) -> None:
        self._workers = workers
        self._player = player
        self._keep = False
        self._kept: _Crew | None = None

    def __enter__(self) -> Self:
        """Keep the workers of each run for the next."""
        self._keep = True
        return self

    def __exit__(self, *_error: object) -> None:
        """Send them home."""
        self._keep = False
        if self._kept is not None:
            self._kept.dismiss()
            self._kept = None

    def run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        """The number and outcome of each cell, as they come; fewer when it was interrupted."""
        workers = self._workers or workers_that_fit(cells)
        waiting = deque(range(len(cells)))
        suspects: list[int] = []
        while waiting and not interrupted():
            suspects += yield from self._batch(cells, waiting, min(workers, len(waiting)), interrupted)
        for number in suspects:  # each of them may be the one that died
            if (yield from self._batch(cells, deque([number]), 1, interrupted)):
                yield number, Failed("the worker died twice while it played this", "it may need more memory than there is")

    def _batch(
        self, cells: Sequence[Cell], waiting: deque[int], workers: int, interrupted: Callable[[], bool]
    ) -> Generator[tuple[int, Outcome], None, list[int]]:
        """Run what is waiting until all is done, a worker died or somebody wants to stop; returns what was lost with a worker."""
        crew = self._crew(workers)
        flying: dict[Future[Outcome | None], int] = {}
        lost: list[int] = []
        try:
            while (waiting or flying) and not lost and not interrupted():
                lost += _fill(crew.pool, cells, waiting, flying, workers)
                for future in wait(flying, _PATIENCE, FIRST_COMPLETED).done:
                    number = flying.pop(future)
                    outcome = _outcome(future)
                    if outcome is None:
                        lost.append(number)
                    else:
                        yield number, outcome
            return [*lost, *flying.values()] if lost else []
        finally:
            if self._keep and not lost and not flying:
                self._kept = crew
            else:
                crew.dismiss()

    def _crew(self, workers: int) -> "_Crew":
        """Workers that were kept, if they are enough; else others."""
        crew, self._kept = self._kept, None
        if crew is not None and crew.size >= workers:
            return crew
        if crew is not None:
            crew.dismiss()
        return _Crew(workers, self._player)


class _Crew:
    """Worker processes, and what tells them to stop."""

    def __init__(self, size: int, player: Callable[[], Player]) -> None:
        context = get_context("spawn")
        self.size = size
        self._stop = context.Event()
        self.pool = ProcessPoolExecutor(size, context, _begin, (self._stop, player))

    def dismiss(self) -> None:
        """Have them stop what they do, and wait until they are gone."""
        self._stop.set()
        self.pool.shutdown(cancel_futures=True)


def _fill(
    pool: ProcessPoolExecutor, cells: Sequence[Cell], waiting: deque[int], flying: dict[Future[Outcome | None], int], workers: int
) -> list[int]:
    """Hand out as much as there are workers, so that a death is blamed on few; returns what found the workers dead."""
    while waiting and len(flying) < workers:
        number = waiting.popleft()
        try:
            flying[pool.submit(_play, cells[number])] = number
        except BrokenProcessPool:
            return [number]
    return []


def _outcome(future: Future[Outcome | None]) -> Outcome | None:
    """What a worker said; None when it died."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool | MemoryError):
        return None
    if error is not None:
        return Failed(f"{type(error).__name__}: {error}")
    return future.result() or Failed("it was interrupted")


# ------------------------------------------------------------------------------------------------ in the worker


class _Worker:
    """What a worker process has between two cells."""

    player: Player
    stop: Event


def _begin(stop: Event, player: Callable[[], Player]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to stop
    _Worker.stop = stop
    _Worker.player = player()


def _play(cell: Cell) -> Outcome | None:
    return _Worker.player.play(cell, interrupted=_Worker.stop.is_set)
