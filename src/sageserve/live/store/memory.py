"""The store in memory: for tests, for trying things out, and for those who do not mind losing it.

The plainest way to do what `interface.py` says; the SQL store is held to it by a state machine of random calls.
Must not know SQL. Read next: `sql.py`.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import TypeVar

from sageserve.base.units import Micros
from sageserve.core.authority.records import LeaseRecord
from sageserve.live.store.interface import SMALL, Store
from sageserve.live.store.models import (
    BATCH_MOVES,
    JOB_MOVES,
    OPEN_BATCHES,
    OPEN_JOBS,
    BadData,
    BadMove,
    Batch,
    BatchSignal,
    BatchState,
    Committed,
    File,
    Job,
    JobSignal,
    JobState,
    Key,
    Lease,
    LineError,
    LineOutcome,
    ListRange,
    NewJob,
    Result,
    Superseded,
    Unknown,
    share_of_each,
    stamped,
)

_T = TypeVar("_T")


@dataclass(slots=True)
class _Kept:
    model: str
    custom_id: str
    body: bytes
    state: JobState = JobState.HELD
    attempts: int = 0
    result: Result | None = None

    def move(self, signal: JobSignal) -> bool:
        after = JOB_MOVES.get((self.state, signal))
        if after is None:
            return False
        self.state = after
        return True


@dataclass(slots=True)
class _Counts:
    """What is neither file nor batch: shared by all who have the store."""

    made: int = 0
    leader: LeaseRecord = field(default_factory=lambda: LeaseRecord("", 0, "0", "0"))


class MemoryStore(Store):
    """A store that is gone with the process."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._pieces: dict[str, list[bytes]] = {}
        self._batches: dict[int, Batch] = {}
        self._jobs: dict[Key, _Kept] = {}
        self._counts = _Counts()
        self.epoch: int | None = None  # of who leads, or did; None: anybody

    @property
    def shared(self) -> bool:
        """Nobody else can."""
        return False

    def at(self, epoch: int) -> "MemoryStore":
        """What the leader of an epoch may do."""
        term = copy(self)  # all that is kept is shared
        term.epoch = epoch
        return term

    def _check(self) -> None:
        if self.epoch not in {None, self._counts.leader.epoch}:
            raise Superseded("another control process leads the batch queue")

    def begin_epoch(self) -> int:
        """A control process begins."""
        now = self.leader()
        begun = self.lead(LeaseRecord(now.holder, now.epoch + 1, "", now.version))
        assert begun is not None
        return begun.epoch

    def leader(self) -> LeaseRecord:
        """Who leads."""
        return self._counts.leader

    def lead(self, wanted: LeaseRecord) -> LeaseRecord | None:
        """Lead, go on leading, or give it up."""
        now = self._counts.leader
        if wanted.version != now.version:
            return None
        beat = str(int(now.version) + 1)
        self._counts.leader = LeaseRecord(wanted.holder, wanted.epoch, beat, beat)
        if wanted.epoch != now.epoch:
            self._begin_term()
        return self._counts.leader

    def _begin_term(self) -> None:
        for job in self._jobs.values():
            job.move(JobSignal.LOSE)
        for file in [one.id for one in self._files.values() if not one.ready]:
            self.drop_file(file)

    def close(self) -> None:
        """Nothing is held."""

    # --- files ---

    def begin_file(self, file: File) -> None:
        """A file that is not complete."""
        self._check()
        self.drop_file(file.id)
        self._files[file.id] = file
        self._pieces[file.id] = []

    def append(self, file: str, number: int, data: bytes) -> None:
        """Its next piece."""
        self._check()
        if file not in self._files:
            raise Unknown(f"No such File object: {file}")
        assert number == len(self._pieces[file])
        self._pieces[file].append(data)

    def finish_file(self, file: str, size: int) -> None:
        """It is complete."""
        self._check()
        if file not in self._files:
            raise Unknown(f"No such File object: {file}")
        self._files[file] = replace(self._files[file], size=size, ready=True)

    def drop_file(self, file: str) -> None:
        """Forget one that is not complete."""
        self._check()
        if file in self._files and not self._files[file].ready:
            del self._files[file], self._pieces[file]

    def file(self, owner: str, file: str) -> File:
        """A complete file."""
        found = self._files.get(file)
        if found is None or found.owner != owner or not found.ready:
            raise Unknown(f"No such File object: {file}")
        return found

    def files(self, owner: str, page: ListRange, purpose: str | None) -> list[File]:
        """Complete files."""
        found = [one for one in self._files.values() if one.owner == owner and one.ready]
        rows = _paged([(one.id, one) for one in found], page)
        return [one for one in rows if purpose in {None, one.purpose}][: page.limit]

    def piece(self, file: str, number: int) -> bytes | None:
        """A part of the content."""
        pieces = self._pieces.get(file, [])
        return pieces[number] if number < len(pieces) else None

    def delete_file(self, owner: str, file: str) -> None:
        """Remove a complete file."""
        self._check()
        self.file(owner, file)
        del self._files[file], self._pieces[file]

    def expire_files(self, now: Micros) -> int:
        """Remove those whose time is over."""
        self._check()
        late = [one.id for one in self._files.values() if one.ready and one.expires_at is not None and one.expires_at <= now]
        for file in late:
            del self._files[file], self._pieces[file]
        return len(late)

    def shorten_files(self, owner: str, keep: Micros) -> int:
        """Let an owner's files end sooner."""
        self._check()
        long = [
            one
            for one in self._files.values()
            if one.owner == owner and one.ready and (one.expires_at is None or one.expires_at > one.created_at + keep)
        ]
        for one in long:
            self._files[one.id] = replace(one, expires_at=one.created_at + keep)
        return len(long)

    # --- batches ---

    def add_batch(self, batch: Batch) -> Batch:
        """A new batch."""
        self._check()
        if any(other.id == batch.id for other in self._batches.values()):
            raise BadData(f"there is a batch {batch.id} already")
        self._counts.made += 1
        made = replace(batch, number=self._counts.made)
        self._batches[self._counts.made] = made
        return made

    def batch(self, owner: str, batch: str) -> Batch:
        """A batch."""
        for found in self._batches.values():
            if found.id == batch and found.owner == owner:
                return found
        raise Unknown(f"No batch found with id '{batch}'.")

    def batches(self, owner: str, page: ListRange) -> list[Batch]:
        """A part of the list."""
        return _paged([(one.id, one) for one in self._batches.values() if one.owner == owner], page)[: page.limit]

    def unfinished(self) -> list[Batch]:
        """Batches that still have somewhere to go."""
        return [one for one in self._batches.values() if one.state in OPEN_BATCHES]

    def forget_batches(self, owner: str, before: Micros | None = None) -> int:
        """Forget those that are over."""
        self._check()
        over = [n for n, one in self._batches.items() if one.owner == owner and one.was_over(before)]
        for number in over:
            del self._batches[number]
            for key in [key for key in self._jobs if key[0] == number]:
                del self._jobs[key]
        return len(over)

    def begin_reading(self, number: int) -> None:
        """Forget what an interrupted reading left."""
        self._check()
        for key in [key for key, job in self._jobs.items() if key[0] == number and job.state is JobState.HELD]:
            del self._jobs[key]

    def hold(self, number: int, model: str, jobs: Sequence[NewJob]) -> None:
        """Keep some of its lines."""
        self._check()
        if (batch := self._batches[number]).state is not BatchState.VALIDATING:
            raise BadMove(f"batch {batch.id} is {batch.state}")
        self._jobs.update({(number, job.line): _Kept(model, job.custom_id, job.body) for job in jobs})

    def accept(self, number: int, model: str, now: Micros) -> int:
        """Queue its lines."""
        self._check()
        self._move(number, BatchSignal.ACCEPT, now)
        total = self._signal(number, JobSignal.ADMIT)
        self._batches[number] = replace(self._batches[number], model=model, total=total)
        return total

    def reject(self, number: int, errors: Sequence[LineError], now: Micros) -> None:
        """None is run."""
        self._check()
        self._move(number, BatchSignal.REJECT, now)
        self.begin_reading(number)
        self._batches[number] = replace(self._batches[number], errors=tuple(errors))

    def cancel(self, number: int, now: Micros) -> None:
        """Whatever is not over will not be."""
        self._end(number, BatchSignal.CANCEL, JobSignal.CANCEL, now)

    def expire(self, number: int, now: Micros) -> None:
        """Its time is over."""
        self._end(number, BatchSignal.EXPIRE, JobSignal.EXPIRE, now)

    def finish(self, number: int, now: Micros) -> None:
        """Every job is over."""
        self._check()
        if not self._find(number).over:
            raise BadMove(f"batch {number} has jobs that are not over")
        self._move(number, BatchSignal.FINISH, now)

    def outcomes(self, number: int, after: int, limit: int) -> list[LineOutcome]:
        """Its jobs after a line."""
        lines = sorted(line for batch, line in self._jobs if batch == number and line > after)[:limit]
        kept = [(line, self._jobs[number, line]) for line in lines]
        return [LineOutcome(line, job.custom_id, job.state, job.result) for line, job in kept]

    def close_batch(self, number: int, files: tuple[File | None, File | None], now: Micros) -> None:
        """Its files are written."""
        self._check()
        for file in files:
            if file is not None and file.id not in self._files:
                raise Unknown(f"No such File object: {file.id}")
        self._move(number, BatchSignal.CLOSE, now)
        for file in files:
            if file is not None:
                self.finish_file(file.id, file.size)
        output, error = (None if file is None else file.id for file in files)
        self._batches[number] = replace(self._batches[number], output_file=output, error_file=error)
        for key in [key for key in self._jobs if key[0] == number]:
            del self._jobs[key]

    def _end(self, number: int, signal: BatchSignal, end: JobSignal, now: Micros) -> None:
        self._check()
        self._move(number, signal, now)
        self.begin_reading(number)
        ended = self._signal(number, end)
        batch = self._batches[number]
        self._batches[number] = replace(batch, failed=batch.failed + ended)

    def _find(self, number: int) -> Batch:
        found = self._batches.get(number)
        if found is None:
            raise Unknown("This batch is gone.")
        return found

    def _move(self, number: int, signal: BatchSignal, now: Micros) -> None:
        batch = self._find(number)
        after = BATCH_MOVES.get((batch.state, signal))
        if after is None:
            raise BadMove(f"batch {batch.id} is {batch.state}")
        self._batches[number] = replace(batch, state=after, stamps=stamped(batch.stamps, after, now))

    def _signal(self, number: int, signal: JobSignal) -> int:
        return sum(job.move(signal) for key, job in self._jobs.items() if key[0] == number)

    # --- jobs ---

    def queued(self, model: str, limit: int) -> list[Job]:
        """Those that are due first of each owner."""
        found = [(key, job) for key, job in self._jobs.items() if job.state is JobState.QUEUED and job.model == model]
        jobs = sorted((self._job(key, job) for key, job in found), key=lambda job: (job.deadline, job.key))
        owners = {one.owner for one in self._batches.values() if one.state is BatchState.IN_PROGRESS and one.model == model}
        each = share_of_each(limit, len(owners))
        shares = (islice((job for job in jobs if job.owner == owner), each) for owner in owners)
        return sorted(chain.from_iterable(shares), key=lambda job: (job.deadline, job.key))

    def _job(self, key: Key, kept: _Kept) -> Job:
        batch, size = self._batches[key[0]], len(kept.body)
        body = kept.body if size <= SMALL else None
        return Job(batch.expires_at, key, kept.model, batch.endpoint, batch.created_at, kept.attempts, size, body, batch.owner)

    def unfinished_jobs(self) -> dict[str, int]:
        """How many wait or run."""
        counts: dict[str, int] = {}
        for job in self._jobs.values():
            if job.state in OPEN_JOBS:
                counts[job.model] = counts.get(job.model, 0) + 1
        return counts

    def body(self, key: Key) -> bytes | None:
        """Of a job."""
        found = self._jobs.get(key)
        return None if found is None else found.body

    def commit(self, epoch: int, leases: Sequence[Lease], results: Sequence[Result]) -> Committed:
        """Take down leases, then results."""
        if epoch != self._counts.leader.epoch:
            return Committed((), 0, True)
        for lease in leases:
            job = self._jobs.get(lease.key)
            if job is not None and job.move(JobSignal.LEASE):
                job.attempts = lease.attempts
        recorded = tuple(result.key for result in results if self._record(result))
        return Committed(recorded, len(results) - len(recorded), False)

    def _record(self, result: Result) -> bool:
        job = self._jobs.get(result.key)
        if job is None or not job.move(JobSignal.SUCCEED if result.good else JobSignal.FAIL):
            return False
        job.result = result
        batch = self._batches[result.key[0]]
        self._batches[batch.number] = replace(
            batch,
            done=batch.done + result.good,
            failed=batch.failed + (not result.good),
            usage=batch.usage + result.usage,
        )
        return True


def _paged(rows: list[tuple[str, _T]], page: ListRange) -> list[_T]:
    """Rows (oldest first) from where the page begins."""
    ordered = rows[::-1] if page.newest_first else rows
    if page.after is not None:
        ids = [name for name, _ in ordered]
        if page.after not in ids:
            raise Unknown(f"There is nothing with the id {page.after!r} to begin after.")
        ordered = ordered[ids.index(page.after) + 1 :]
    return [row for _, row in ordered]
