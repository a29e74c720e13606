"""The store's own thread, and a wall clock that does not jump.

One thread serves all calls in the order they were made: that is what lets the runner compare what it holds with what it read.
Must not know files or batches. Read next: `result_writer.py`.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from typing import Final, ParamSpec, Self, TypeVar

from sageserve.base.units import DAY, HOUR, MINUTE, Micros
from sageserve.live.store.interface import Store

_LOG: Final = logging.getLogger(__name__)
DOUBT: Final = DAY
GRACE: Final = HOUR
_STEP: Final = MINUTE
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

    def at(self, epoch: int) -> Self:
        """The same thread and store, in which nothing changes once another epoch has begun."""
        term = copy(self)
        term.store = self.store.at(epoch)
        return term

    async def close(self) -> None:
        """Let go of the store when all calls are done."""
        await self.call(self.store.close)
        self._threads.shutdown(wait=False)


def _never() -> Micros | None:
    return None


class SteadyWall:
    """Wall time as it was first read, and from then on by a clock that nobody sets.

    A step of the machine's clock, in whichever direction, neither expires a batch nor keeps one alive; the next process goes by
    the new time. A process that begins long after anything was written down doubts it: the fleet was away, or the clock is
    wrong for a moment. Until it has been so for an hour nothing is over (`sure`); when it is set meanwhile, that time counts.

    Args:
        wall: microseconds since 1970.
        clock: the loop's, which deadlines are told by.
        newest: when this fleet last wrote something down, not in doubt, microseconds since 1970; None: never.
        noted: hears that time, and the one that is believed from now on (None: it is doubted), for the process that comes next.
    """

    def __init__(
        self,
        wall: Callable[[], Micros],
        clock: Callable[[], Micros],
        newest: Callable[[], Micros | None] = _never,
        noted: Callable[[Micros, Micros | None], None] = lambda *_: None,
    ) -> None:
        self._wall = wall
        self._clock = clock
        self._newest = newest
        self._noted = noted
        self._origin: Micros | None = None
        self._known: Micros | None = None
        self._doubted: Micros | None = None  # since when, by the clock

    @property
    def origin(self) -> Micros:
        """Wall time at which the clock began."""
        if self._origin is None:
            self._known = self._newest()
            self._origin = self._wall() - self._clock()
            self._doubt()
        return self._origin

    def sure(self) -> bool:
        """Whether what is over by this time may be ended and deleted."""
        origin = self.origin
        if self._doubted is None:
            return True
        present = self._wall() - self._clock()
        if abs(present - origin) > _STEP:
            self._origin = present
            self._doubt()
        elif self._clock() - self._doubted >= GRACE:
            self._doubted = None
            self._note()
        return self._doubted is None

    def _doubt(self) -> None:
        odd = self._known is not None and self.now() - self._known > DOUBT
        self._doubted = self._clock() if odd else None
        self._note()
        if odd:
            _LOG.warning("the clock is more than a day after what was written last: nothing is deleted or given up for an hour")

    def _note(self) -> None:
        if self._known is not None:
            self._noted(self._known, self.now() if self._doubted is None else None)

    def now(self) -> Micros:
        """Microseconds since 1970."""
        return self.origin + self._clock()

    def clock(self) -> Micros:
        """By the clock that nobody sets: what this process waits for. While it is doubted, `now` may yet jump by years."""
        return self._clock()
