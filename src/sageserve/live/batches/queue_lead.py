"""Who of several control processes runs the batch queue: the one whose name stands in the store that they share.

    leader     runs jobs and takes batches on; renews its lease every second
    standby    serves files and batches as the leader does, and looks every second whether the leader still renews

A lease that nobody renewed for `length` is taken by whoever sees that first, with the next epoch. The rules are those of leases
in clusters (`core/authority/lease.py`), the place is another: the database itself, because only there an epoch can be checked in
the transaction that it is to guard (`live/store/sql.py`). So a leader that stood still, or was cut off, changes nothing any more
once another one leads. It begins no job either, later than `write_within` after its last renewal. While the database is away
nobody leads anew, and the leader keeps what it has: it does not give up by itself.

A store that no other machine can have open needs no election: there the process that began last leads.
Read next: `runner.py`, which runs the queue while it is ours.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from sageserve.base.units import NEVER, SECOND, Micros
from sageserve.core.authority.lease import LeaseElector
from sageserve.core.authority.records import LeaseRecord, LeaseTimes
from sageserve.live.batches.store_thread import StoreThread
from sageserve.live.control.status import QueueRole
from sageserve.live.store.models import StoreError

TIMES: Final = LeaseTimes(length=8 * SECOND, every=SECOND, give_up=NEVER, write_within=4 * SECOND)
"""Another leads at most nine seconds after the last renewal; a restart of the database is no reason to give up."""
_AGAIN_S: Final = TIMES.every / SECOND
_LOG: Final = logging.getLogger(__name__)


class QueueLead:
    """Whether this process leads.

    Args:
        store: whose queue it is.
        me: name of this process among those of the store; the same when it is started again in its place.
        clock: that nobody sets.
    """

    def __init__(self, store: StoreThread, me: str, clock: Callable[[], Micros]) -> None:
        self.shared: Final = store.store.shared
        self._store = store
        self._clock = clock
        self._elector = LeaseElector(me, TIMES)
        self._seen: LeaseRecord | None = None  # as it was last read
        self._heard_at: Micros = 0  # when that was
        self._trouble = ""
        self._sole = 0  # the epoch, where nobody else can lead

    @property
    def epoch(self) -> int:
        """Of the term that is ours; 0: none is."""
        return self._sole or self._elector.epoch

    def may_begin(self) -> bool:
        """Whether a job may be begun now."""
        return not self.shared or self._elector.may_write(self._clock())

    def role(self) -> QueueRole | None:
        """What people are told; None: no other process could lead."""
        if not self.shared:
            return None
        if self._seen is None:
            return QueueRole("standby", "", 0, None, self._trouble)
        silent = self._clock() - self._heard_at
        trouble = self._trouble
        if not trouble and silent > TIMES.length:  # it hangs, or is cut off without a word: an error may never come
            trouble = f"the database has not answered for {silent // SECOND} s"
        role: Literal["leader", "standby"] = "leader" if self.epoch else "standby"
        return QueueRole(role, self._seen.holder, self._seen.epoch, silent / SECOND, trouble)

    async def win(self) -> int:
        """Wait until this process leads; the epoch of its term. As long as the store is away nobody does."""
        while not self.epoch:
            await self._try(self._stand if self.shared else self._begin)
            if not self.epoch:
                await asyncio.sleep(_AGAIN_S)
        if self.shared:
            _LOG.info("this process leads the batch queue now, in epoch %d", self.epoch)
        return self.epoch

    async def keep(self) -> None:
        """Renew; returns when another leads."""
        term = self.epoch
        while self.epoch == term:
            await asyncio.sleep(_AGAIN_S)
            if self.shared:
                await self._try(self._stand)

    def lost(self, term: int) -> None:
        """The store says that a term is over, before it was read who leads."""
        if self._elector.epoch == term:
            self._elector.saw_epoch(term + 1)

    async def let_go(self) -> None:
        """Give it up, so that another need not wait."""
        if (free := self._elector.let_go()) is not None:
            try:
                await self._store.call(self._store.store.lead, free)
            except StoreError as error:
                _LOG.warning("the lease of the batch queue is not given up, another process waits for its end: %s", error.message)

    async def _stand(self) -> None:
        """Read who leads; take or renew it when it is time."""
        keep, elector = self._store.store, self._elector
        self._seen = await self._store.call(keep.leader)
        begun = self._heard_at = self._clock()
        elector.read(begun, self._seen)
        wanted = elector.wanted(begun, "")
        if wanted is not None and (stored := await self._store.call(keep.lead, wanted)) is not None:
            self._seen = stored
            elector.wrote(self._clock(), begun, stored)

    async def _begin(self) -> None:
        self._sole = await self._store.call(self._store.store.begin_epoch)

    async def _try(self, do: Callable[[], Awaitable[None]]) -> None:
        try:
            await do()
        except StoreError as error:
            if not self._trouble:
                _LOG.error("who leads the batch queue cannot be read or written: %s", error.message)
            self._trouble = error.message
        else:
            self._trouble = ""
