"""The output and the error file of a batch that is over: every line of the input is in exactly one of them, in its order.

Written anew from the store's results whenever it was interrupted; shown, all at once, when the batch is closed.
Must not decide whether a batch is over. Read next: `runner.py`, the caller.
"""

from dataclasses import replace
from typing import Final

from sageserve.base.units import SECOND, Micros
from sageserve.live.batches.api_models import result_line
from sageserve.live.batches.store_thread import StoreThread
from sageserve.live.store.interface import PIECE
from sageserve.live.store.models import Batch, File, JobState

_TOGETHER: Final = 64  # results read at once; an answer may have megabytes


class _Written:
    """A file that grows."""

    def __init__(self, store: StoreThread, file: File) -> None:
        self._store = store
        self._file = file
        self._pieces = 0
        self._size = 0
        self._open: list[bytes] = []
        self._ahead = 0

    async def add(self, line: bytes) -> None:
        if not self._size:
            await self._store.call(self._store.store.begin_file, self._file)
        self._open.append(line)
        self._ahead += len(line)
        self._size += len(line)
        while self._ahead >= PIECE:
            await self._put(PIECE)

    async def end(self) -> File | None:
        """The file with its size; None: it has no line."""
        if self._ahead:
            await self._put(self._ahead)
        return replace(self._file, size=self._size) if self._size else None

    async def _put(self, size: int) -> None:
        data = b"".join(self._open)
        await self._store.call(self._store.store.append, self._file.id, self._pieces, data[:size])
        self._open, self._ahead = [data[size:]], len(data) - size
        self._pieces += 1


async def write_files(store: StoreThread, batch: Batch, now: Micros) -> tuple[File | None, File | None]:
    """Write what became of the jobs of a batch; output and error file, not shown yet."""
    output, error = (_Written(store, _file(batch, kind, now)) for kind in ("output", "error"))
    last = 0
    while rows := await store.call(store.store.outcomes, batch.number, last, _TOGETHER):
        for outcome in rows:
            target = output if outcome.state is JobState.DONE else error
            await target.add(result_line(batch, outcome))
        last = rows[-1].line
    return await output.end(), await error.end()


def _file(batch: Batch, kind: str, now: Micros) -> File:
    """Its id follows from the batch's, so that writing it again replaces what was interrupted."""
    name = f"{batch.id}_{kind}.jsonl"
    ends = now + batch.output_expires * SECOND
    return File(f"file-{batch.id.removeprefix('batch_')}-{kind}", batch.owner, name, "batch_output", now, ends)
