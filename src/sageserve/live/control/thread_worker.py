"""What fits forecasts and solves programs beside the loop, in one thread. Read next: `loop.py`, whose `Worker` it is."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sageserve.core.work import AnyEvent, Work, perform
from sageserve.live.actuators.base import ending


class ThreadWorker:
    """Solves and fits in one thread: a plan is never made twice at once.

    Args:
        hear: told the answer, in the loop's thread.
    """

    def __init__(self, hear: Callable[[AnyEvent], None]) -> None:
        self._hear = hear
        self._threads = ThreadPoolExecutor(1, "solver")
        self._open: set[asyncio.Future[AnyEvent]] = set()

    def submit(self, work: Work) -> None:
        """Begin to do it; the answer is heard as an event."""
        future: asyncio.Future[AnyEvent] = asyncio.get_running_loop().run_in_executor(self._threads, perform, work)
        self._open.add(future)
        future.add_done_callback(partial(self._finish, work))

    def close(self) -> None:
        """Take no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _finish(self, work: Work, future: "asyncio.Future[AnyEvent]") -> None:
        self._open.discard(future)
        if not future.cancelled():
            with ending(work, self._hear):
                self._hear(future.result())
