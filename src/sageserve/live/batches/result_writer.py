"""Results on their way into the store: many in one transaction, and none forgotten before it is there.

Waits at most 50 ms for company, 256 results are company enough. When the store cannot write, everything is kept and tried
again. Must not know jobs' bodies. Read next: `runner.py`.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sageserve.live.batches.store_thread import StoreThread
from sageserve.live.store.models import Committed, Lease, Result, StoreError

GROUP: Final = 256
WAIT_S: Final = 0.050
_AGAIN_S: Final = 1.0  # a full disk or a database that restarts

_LOG: Final = logging.getLogger(__name__)


class ResultWriter:
    """What is not recorded yet.

    Args:
        store: records it.
        told: of every group that was recorded.
    """

    def __init__(self, store: StoreThread, told: Callable[[list[Result], Committed], None]) -> None:
        self.trouble = ""  # why nothing can be recorded now; empty: it can
        self.late = 0  # results that came when their job was over
        self.epoch = 0
        self._store = store
        self._told = told
        self._leases: list[Lease] = []
        self._results: list[Result] = []
        self._some = asyncio.Event()
        self._many = asyncio.Event()

    def lease(self, lease: Lease) -> None:
        """A job is taken. Nothing waits for this: a job that is killed before it is written runs again, as it would after."""
        self._leases.append(lease)
        self._some.set()

    def record(self, result: Result) -> None:
        """A job has ended."""
        self._results.append(result)
        self._some.set()
        if len(self._results) >= GROUP:
            self._many.set()

    async def run(self) -> None:
        """Record until cancelled."""
        while True:
            await self._some.wait()
            with suppress(TimeoutError):  # fewer than a group came in time: they go now
                await asyncio.wait_for(self._many.wait(), WAIT_S)
            try:
                await self.flush()
            except StoreError as error:
                if not self.trouble:
                    _LOG.error("results of jobs cannot be recorded; they are kept and tried again: %s", error.message)
                self.trouble = error.message
                await asyncio.sleep(_AGAIN_S)

    async def flush(self) -> None:
        """Record everything now.

        Raises:
            StoreError: it was not recorded; it is kept.
        """
        leases, results = self._leases[:], self._results[:]
        self._some.clear()
        self._many.clear()
        try:
            done = await self._store.call(self._store.store.commit, self.epoch, leases, results)
        except StoreError:
            self._some.set()
            raise
        del self._leases[: len(leases)], self._results[: len(results)]
        if self._leases or self._results:
            self._some.set()
        self.trouble = ""
        self.late += done.late
        self._told(results, done)
