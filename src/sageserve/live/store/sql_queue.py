"""Jobs in SQL: which are due first, and what became of them.

A group of leases and results is one transaction, so that a disk that can sync a hundred times a second keeps up with thousands
of jobs. Must not know HTTP. Read next: `batches/runner.py`, the caller.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, case, insert, or_, select, update

from sageserve.base.units import Micros
from sageserve.live.store.database import StorePart
from sageserve.live.store.interface import SMALL
from sageserve.live.store.models import (
    JOB_MOVES,
    NO_USAGE,
    OPEN_JOBS,
    BatchState,
    Committed,
    Job,
    JobSignal,
    JobState,
    Key,
    Lease,
    Result,
    first_of_each,
    share_of_each,
    sources,
)
from sageserve.live.store.sql_batches import count_open
from sageserve.live.store.tables import BATCHES, EPOCHS, JOBS, RESULTS

_B: Final = BATCHES.c
_J: Final = JOBS.c
_LEASE: Final = (
    update(JOBS)
    .where(
        _J.batch == bindparam("of"),
        _J.line == bindparam("at"),
        or_(*(_J.state == before for before in sources(JOB_MOVES, JobSignal.LEASE))),
    )
    .values(state=JobState.RUNNING, epoch=bindparam("by"), attempts=bindparam("tried"))
)
_END: Final = update(JOBS).where(_J.batch == bindparam("of"), _J.line == bindparam("at")).values(state=bindparam("after"))


class SqlQueue(StorePart):
    """The part of a store that keeps jobs."""

    def queued(self, model: str, limit: int) -> list[Job]:
        """Those that are due first of each owner: batch by batch, as all jobs of one are due at once."""
        running = select(_B.owner, _B.number, _B.expires_at).where(_B.state == BatchState.IN_PROGRESS, _B.model == model)
        with self._database.reading() as connection:
            batches: dict[str, list[tuple[int, Micros]]] = {}
            for owner, number, deadline in connection.execute(running.order_by(_B.expires_at, _B.number)):
                batches.setdefault(owner, []).append((number, deadline))
            each = share_of_each(limit, len(batches))
            found: list[Job] = []
            for theirs in batches.values():
                left = each
                for number, deadline in theirs:
                    some = _next_lines(connection, model, number, deadline, left)
                    found += some
                    left -= len(some)
                    if left == 0:
                        break
        return sorted(found, key=lambda job: (job.deadline, job.key))

    def unfinished_jobs(self) -> dict[str, int]:
        """How many wait or run."""
        with self._database.reading() as connection:
            return count_open(connection, OPEN_JOBS)

    def body(self, key: Key) -> bytes | None:
        """Of a job."""
        with self._database.reading() as connection:
            found = connection.scalar(select(_J.body).where(_J.batch == key[0], _J.line == key[1]))
        return None if found is None else bytes(found)

    def commit(self, epoch: int, leases: Sequence[Lease], results: Sequence[Result]) -> Committed:
        """Take down leases, then results."""
        with self._database.transaction() as connection:
            if connection.scalar(select(EPOCHS.c.epoch).with_for_update(read=True)) != epoch:
                return Committed((), 0, True)
            if leases:
                rows = [{"of": lease.key[0], "at": lease.key[1], "by": epoch, "tried": lease.attempts} for lease in leases]
                connection.execute(_LEASE, rows)
            first = first_of_each(results)
            _lock_batches(connection, {key[0] for key in first})
            taken = _still_open(connection, first.values())
            if taken:
                _record(connection, taken)
        return Committed(tuple(result.key for result in taken), len(results) - len(taken), False)


def _next_lines(connection: Connection, model: str, batch: int, deadline: Micros, limit: int) -> list[Job]:
    """Jobs of one batch that wait; the index has them in order."""
    small = case((_J.size <= SMALL, _J.body))
    wanted = (
        select(_J.line, _B.endpoint, _B.created_at, _J.attempts, _J.size, small, _B.owner)
        .join(BATCHES, _B.number == _J.batch)
        .where(_J.model == model, _J.state == JobState.QUEUED, _J.deadline == deadline, _J.batch == batch)
        .order_by(_J.line)
        .limit(limit)
    )
    return [
        Job(deadline, (batch, line), model, url, created, attempts, size, None if body is None else bytes(body), owner)
        for line, url, created, attempts, size, body, owner in connection.execute(wanted)
    ]


def _lock_batches(connection: Connection, numbers: set[int]) -> None:
    """Batches before their jobs, as whoever cancels one has them, so that no two processes wait for each other."""
    connection.execute(select(_B.number).where(_B.number.in_(numbers)).order_by(_B.number).with_for_update())


def _still_open(connection: Connection, results: Iterable[Result]) -> list[Result]:
    """Those whose job waits for a result."""
    lines: dict[int, list[int]] = {}
    found = list(results)
    for result in found:
        lines.setdefault(result.key[0], []).append(result.key[1])
    states: dict[Key, JobState] = {}
    for batch, group in lines.items():
        rows = connection.execute(select(_J.line, _J.state).where(_J.batch == batch, _J.line.in_(group)).with_for_update())
        states.update({(batch, line): JobState(state) for line, state in rows})
    return [one for one in found if one.key in states and (states[one.key], _ending(one)) in JOB_MOVES]


def _ending(result: Result) -> JobSignal:
    return JobSignal.SUCCEED if result.good else JobSignal.FAIL


def _record(connection: Connection, results: Sequence[Result]) -> None:
    rows = [
        {
            "batch": one.key[0],
            "line": one.key[1],
            "good": one.good,
            "status": one.status,
            "request_id": one.request_id,
            "body": one.body,
            "error": one.error,
        }
        for one in results
    ]
    connection.execute(insert(RESULTS), rows)
    after = {True: JobState.DONE, False: JobState.FAILED}
    connection.execute(_END, [{"of": one.key[0], "at": one.key[1], "after": after[one.good]} for one in results])
    good = Counter(one.key[0] for one in results if one.good)
    for batch, ended in Counter(one.key[0] for one in results).items():
        used = sum((one.usage for one in results if one.key[0] == batch), NO_USAGE)
        counts = {
            "done": _B.done + good[batch],
            "failed": _B.failed + ended - good[batch],
            "prompt_tokens": _B.prompt_tokens + used.prompt,
            "cached_tokens": _B.cached_tokens + used.cached,
            "output_tokens": _B.output_tokens + used.output,
            "reasoning_tokens": _B.reasoning_tokens + used.reasoning,
        }
        connection.execute(update(BATCHES).where(_B.number == batch).values(counts))
