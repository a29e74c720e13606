"""What a store does. Every call is one transaction: it happened completely or not at all, also when the process is killed.

Synchronous: the control process calls it from one thread. Every implementation passes tests/live/store.
Read next: `memory.py`, the shortest; `sql.py`, the durable one.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from sageserve.base.units import Micros
from sageserve.core.authority.records import LeaseRecord
from sageserve.live.store.models import (
    Batch,
    Committed,
    File,
    Job,
    Key,
    Lease,
    LineError,
    LineOutcome,
    ListRange,
    NewJob,
    Result,
)

STORE_FILE: Final = "store.db"
"""Name of the SQLite file in the state folder."""
PIECE: Final = 1 << 20
"""Bytes of a file that are kept together, at most: an upload in progress needs no more memory than a few of them."""
SMALL: Final = 64 << 10
"""Bodies up to so many bytes come with their job; larger ones are asked for one by one."""


class Files(Protocol):
    """Files and their content."""

    def begin_file(self, file: File) -> None:
        """A file that is not complete; one of the same id that was not complete either is dropped."""
        ...

    def append(self, file: str, number: int, data: bytes) -> None:
        """Its next piece; pieces are numbered from 0.

        Raises:
            Unknown: it was dropped.
        """
        ...

    def finish_file(self, file: str, size: int) -> None:
        """It is complete.

        Raises:
            Unknown: it was dropped.
        """
        ...

    def drop_file(self, file: str) -> None:
        """Forget one that is not complete."""
        ...

    def file(self, owner: str, file: str) -> File:
        """A complete file.

        Raises:
            Unknown: not there, or not this owner's.
        """
        ...

    def files(self, owner: str, page: ListRange, purpose: str | None) -> list[File]:
        """Complete files.

        Raises:
            Unknown: the page begins after a file that is not there.
        """
        ...

    def piece(self, file: str, number: int) -> bytes | None:
        """A part of the content; None after the last."""
        ...

    def delete_file(self, owner: str, file: str) -> None:
        """Remove a complete file.

        Raises:
            Unknown: not there, or not this owner's.
        """
        ...

    def expire_files(self, now: Micros) -> int:
        """Remove those whose time is over; how many."""
        ...

    def shorten_files(self, owner: str, keep: Micros) -> int:
        """Let an owner's complete files end so long after they were made, where they would later; how many."""
        ...


class Batches(Protocol):
    """Batches. Those that change one raise BadMove, and change nothing, where its state does not allow it."""

    def add_batch(self, batch: Batch) -> Batch:
        """A new batch, whose lines are not read yet; comes back with its number.

        Raises:
            BadData: there is one with its id.
        """
        ...

    def batch(self, owner: str, batch: str) -> Batch:
        """A batch.

        Raises:
            Unknown: not there, or not this owner's.
        """
        ...

    def batches(self, owner: str, page: ListRange) -> list[Batch]:
        """A part of the list.

        Raises:
            Unknown: the page begins after a batch that is not there.
        """
        ...

    def unfinished(self) -> list[Batch]:
        """Everyone's batches that still have somewhere to go, oldest first."""
        ...

    def begin_reading(self, number: int) -> None:
        """Its lines are read, from the first: forget what an interrupted reading left."""
        ...

    def hold(self, number: int, model: str, jobs: Sequence[NewJob]) -> None:
        """Keep some of its lines; nobody runs them yet. Raises BadMove once the batch is not being read any more."""
        ...

    def accept(self, number: int, model: str, now: Micros) -> int:
        """All lines are good: queue them; how many."""
        ...

    def reject(self, number: int, errors: Sequence[LineError], now: Micros) -> None:
        """Some line is not good: none is run."""
        ...

    def cancel(self, number: int, now: Micros) -> None:
        """Whatever is not over will not be; lines that were not queued yet are forgotten."""
        ...

    def expire(self, number: int, now: Micros) -> None:
        """Its time is over: whatever is not done will not be."""
        ...

    def finish(self, number: int, now: Micros) -> None:
        """Every job is over: its files are written next. Raises BadMove while one is not."""
        ...

    def outcomes(self, number: int, after: int, limit: int) -> list[LineOutcome]:
        """Its jobs after a line, in order of lines."""
        ...

    def forget_batches(self, owner: str, before: Micros | None = None) -> int:
        """Forget an owner's batches that are over, with all that is kept of their lines; how many. Files are another matter.

        Args:
            owner: whose.
            before: only those that were over before then, microseconds since 1970; None: all.
        """
        ...

    def close_batch(self, number: int, files: tuple[File | None, File | None], now: Micros) -> None:
        """Output and error file (of known size) are written: show them, and forget jobs and results, which they hold now."""
        ...


class Queue(Protocol):
    """Jobs."""

    def queued(self, model: str, limit: int) -> list[Job]:
        """Those that are due first, in order of (deadline, key): so many, shared out evenly among their owners."""
        ...

    def unfinished_jobs(self) -> dict[str, int]:
        """How many wait or run, by model."""
        ...

    def body(self, key: Key) -> bytes | None:
        """Of a job; None when it is gone."""
        ...

    def commit(self, epoch: int, leases: Sequence[Lease], results: Sequence[Result]) -> Committed:
        """Take down leases, then results, in one go.

        Nothing counts when `epoch` is not the latest; a result when it is its job's first.
        """
        ...


class Store(Files, Batches, Queue, Protocol):
    """All of it."""

    @property
    def shared(self) -> bool:
        """Whether processes of other machines may have it open, too, so that one of them has to lead."""
        ...

    def at(self, epoch: int) -> "Store":
        """The same store, in which nothing changes once another epoch has begun: every call that would raises Superseded."""
        ...

    def begin_epoch(self) -> int:
        """The only control process begins: what earlier ones had taken is queued again, half-written files are dropped."""
        ...

    def leader(self) -> LeaseRecord:
        """Who leads a store that is shared."""
        ...

    def lead(self, wanted: LeaseRecord) -> LeaseRecord | None:
        """Keep who leads, if that is what it was made from (`version`); what was stored, None: another was quicker.

        With another epoch a term begins, as with `begin_epoch`.
        """
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...
