"""The store's own thread, and a wall clock that does not jump.

One thread serves all calls in the order they were made: that is what lets the runner compare what it holds with what it read.
Must not know files or batches. Read next: `result_writer.py`.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from sageserve.base.units import Micros
from sageserve.live.store.interface import Store

_P = ParamSpec("_P")
_T = TypeVar("_T")


class StoreThread:
    """A store that may be called from the event loop.

    Args:
        store: called from one thread only.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._threads = ThreadPoolExecutor(1, "store")

    async def call(self, do: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a method of the store in its turn. A caller that is cancelled does not undo what it began."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(do, *args, **kwargs))

    async def close(self) -> None:
        """Let go of the store when all calls are done."""
        await self.call(self.store.close)
        self._threads.shutdown(wait=False)


class SteadyWall:
    """Wall time as it was first read, and from then on by a clock that nobody sets.

    A step of the machine's clock, in whichever direction, neither expires a batch nor keeps one alive; the next process goes by
    the new time.

    Args:
        wall: microseconds since 1970.
        clock: the loop's, which deadlines are told by.
    """

    def __init__(self, wall: Callable[[], Micros], clock: Callable[[], Micros]) -> None:
        self._wall = wall
        self._clock = clock
        self._origin: Micros | None = None

    @property
    def origin(self) -> Micros:
        """Wall time at which the clock began."""
        if self._origin is None:
            self._origin = self._wall() - self._clock()
        return self._origin

    def now(self) -> Micros:
        """Microseconds since 1970."""
        return self.origin + self._clock()
