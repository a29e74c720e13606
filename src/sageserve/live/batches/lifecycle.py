"""Takes batches from state to state: read, expire, finish, write, close. Every step may be interrupted and is then done again.

What is to be done follows from the state in the store alone; what became of batches is handed on. A fault of one batch is that
batch's. Must not send jobs.
Read next: `input_file.py`, `output_files.py`; `runner.py`, which hears of changes.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sageserve.base.config import LiveSettings
from sageserve.base.units import MINUTE, NEVER, SECOND, Micros
from sageserve.live.batches.input_file import InputReader, read_batch
from sageserve.live.batches.output_files import write_files
from sageserve.live.batches.store_thread import SteadyWall, StoreThread
from sageserve.live.store.models import LATER, BadData, BadMove, Batch, BatchState, LineError, StoreError, Superseded, Unknown
from sageserve.live.waiting import within

_EVERY_S: Final = 1.0  # how late a batch may expire
_PAUSE_S: Final = 0.1  # between two looks, however much there is to see

_SICK: Final = SECOND
_RETAIN: Final = MINUTE  # between two looks at what keys let be kept
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchChange:
    """A batch came or went.

    Args:
        batch: its number.
        stopped: it ends before its jobs did: none of them runs any more.
    """

    batch: int
    stopped: bool = False


class BatchLifecycle:
    """Looks after all batches; `changes` has what whoever runs their jobs must hear of.

    Args:
        store: where they are.
        models: that are served.
        live: limits.
        time: when they expire.
    """

    def __init__(self, store: StoreThread, models: Sequence[str], live: LiveSettings, time: SteadyWall) -> None:
        self._store = store
        self._models = models
        self._live = live
        self._time = time
        self.changes: asyncio.Queue[BatchChange] = asyncio.Queue()
        self._news = asyncio.Event()
        self._well = True
        self._retained: Micros = -NEVER
        self._sick: dict[int, Micros] = {}  # batches with a fault of their own, and when, by the clock, they are tried again

    def notify(self) -> None:
        """There is something to look at."""
        self._news.set()

    async def run(self) -> None:
        """Look after batches until cancelled.

        Raises:
            Superseded: another process does.
        """
        while True:
            try:
                await self.look()
                self._well = True
            except Superseded:
                raise
            except StoreError as error:
                if self._well:
                    _LOG.error("batches wait for the store: %s", error.message)
                self._well = False
            await asyncio.sleep(_PAUSE_S if self._well else _EVERY_S)
            await within(self._news, _EVERY_S)  # without news, time may have run out for some batch

    async def look(self) -> None:
        """Everything that can be done now.

        Raises:
            StoreError: the store cannot be asked; what was begun is done again.
        """
        self._news.clear()
        keep = self._store.store
        if self._time.sure():
            await self._retain()
            await self._store.call(keep.expire_files, self._time.now())
        for batch in await self._store.call(keep.unfinished):
            if self._sick.get(batch.number, 0) > self._time.clock():
                continue
            try:
                await self._tend(batch)
                self._sick.pop(batch.number, None)
            except (BadMove, Unknown) as error:
                _LOG.info("batch %s changed meanwhile: %s", batch.id, error.message)
                self._news.set()
            except (*LATER, Superseded):
                raise
            except Exception as fault:  # noqa: BLE001 # whatever is wrong with one batch is no other one's concern
                if batch.number not in self._sick:
                    _LOG.exception("batch %s could not be taken on from %s", batch.id, batch.state)
                await self._set_aside(batch, fault)

    async def _retain(self) -> None:
        """Let what is kept of an owner end as its keys say, now and then: also of what was made before they said so."""
        now, clock = self._time.now(), self._time.clock()
        if clock - self._retained < _RETAIN:
            return
        self._retained, keep = clock, self._store.store
        for key in self._live.keys:
            if key.keep is not None:
                await self._store.call(keep.shorten_files, key.name, key.keep)
                await self._store.call(keep.forget_batches, key.name, now - key.keep)

    async def _set_aside(self, batch: Batch, fault: Exception) -> None:
        """A batch with a fault of its own: one that was being read fails, with the reason; another one is tried again later.

        So is one that the store refuses without saying that it is for what it holds.
        """
        self._sick[batch.number] = self._time.clock() + _SICK
        refused = isinstance(fault, StoreError) and not isinstance(fault, BadData)
        if batch.state is BatchState.VALIDATING and not refused:
            said = f"The input file could not be read: {type(fault).__name__}."
            errors = [LineError("internal_error", said)]
            try:
                await self._store.call(self._store.store.reject, batch.number, errors, self._time.now())
            except (*LATER, Superseded):
                raise
            except Exception:  # noqa: BLE001 # then it waits, and nobody with it
                _LOG.exception("batch %s could not be failed either", batch.id)

    async def _tend(self, batch: Batch) -> None:
        keep, now = self._store.store, self._time.now()
        match batch.state:
            case BatchState.VALIDATING:
                await self._read(batch)
            case BatchState.IN_PROGRESS if batch.over:
                await self._store.call(keep.finish, batch.number, now)
                await self._write(batch)
            case BatchState.IN_PROGRESS if now >= batch.expires_at and self._time.sure():
                await self._store.call(keep.expire, batch.number, now)
                await self._write(batch)
            case BatchState.EXPIRING | BatchState.CANCELLING | BatchState.FINALIZING:
                await self._write(batch)
            case _:
                pass  # its jobs run

    async def _read(self, batch: Batch) -> None:
        keep = self._store.store
        reader = InputReader(batch.endpoint, self._models, self._live)
        try:
            await self._store.call(keep.file, batch.owner, batch.input_file)
        except Unknown as error:
            reader.errors.append(LineError("file_not_found", error.message))
        else:
            await read_batch(self._store, batch, reader)
        if reader.errors:
            await self._store.call(keep.reject, batch.number, reader.errors, self._time.now())
            return
        await self._store.call(keep.accept, batch.number, reader.model, self._time.now())
        self.changes.put_nowait(BatchChange(batch.number))

    async def _write(self, batch: Batch) -> None:
        keep = self._store.store
        if batch.state is not BatchState.FINALIZING:
            self.changes.put_nowait(BatchChange(batch.number, stopped=True))
        files = await write_files(self._store, batch, self._time.now())
        await self._store.call(keep.close_batch, batch.number, files, self._time.now())
        self.changes.put_nowait(BatchChange(batch.number))
