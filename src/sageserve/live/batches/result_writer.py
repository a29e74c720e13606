"""Results on their way into the store: many in one transaction, and none forgotten before it is there.

Waits at most 50 ms for company, 256 results are company enough. When the store cannot write, everything is kept and tried
again; a result that it cannot keep fails its own line and no other one. Must not know jobs' bodies. Read next: `runner.py`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sageserve.live.batches.store_thread import StoreThread
from sageserve.live.store.models import BadData, Committed, Key, Lease, Result, StoreError
from sageserve.live.waiting import within

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
            await within(self._many, WAIT_S)  # fewer than a group in that time go now, too
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
            done = await self._commit(leases, results)
        except StoreError:
            self._some.set()
            raise
        del self._leases[: len(leases)], self._results[: len(results)]
        if self._leases or self._results:
            self._some.set()
        self.trouble = ""
        self.late += done.late
        self._told(results, done)

    async def _commit(self, leases: list[Lease], results: list[Result]) -> Committed:
        """Record a group, in halves where the store takes it not as a whole.

        Raises:
            StoreError: not even that the last one cannot be kept was recorded.
        """
        commit = self._store.store.commit
        try:
            return await self._store.call(commit, self.epoch, leases, results)
        except BadData as error:
            if not results:
                raise
            if len(results) == 1 and not leases:
                _LOG.error("the result of %s cannot be recorded: %s", _named(results[0].key), error.message)
                return await self._store.call(commit, self.epoch, [], [_unkept(results[0], error)])
        first, second = results[: len(results) // 2], results[len(results) // 2 :]
        parts = [await self._commit(leases, first), await self._commit([], second)]
        recorded = tuple(key for part in parts for key in part.recorded)
        return Committed(recorded, sum(part.late for part in parts), any(part.superseded for part in parts))


def _named(key: Key) -> str:
    return f"line {key[1]} of batch number {key[0]}"


def _unkept(result: Result, error: StoreError) -> Result:
    """What is recorded in the place of a result that cannot be."""
    return Result(result.key, False, error=f"the answer could not be recorded: {error.message}".replace("\0", ""))
