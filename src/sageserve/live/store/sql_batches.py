"""Batches in SQL. Their states move by the table of `models.py`, and their jobs with them, in one transaction.

Must not run jobs. Read next: `sql_queue.py`.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from sageserve.base.units import Micros
from sageserve.live.store.database import StorePart
from sageserve.live.store.models import (
    BATCH_MOVES,
    JOB_MOVES,
    OPEN_BATCHES,
    BadMove,
    Batch,
    BatchSignal,
    BatchState,
    File,
    JobSignal,
    JobState,
    LineError,
    LineOutcome,
    ListRange,
    NewJob,
    Result,
    Unknown,
    Usage,
    over_since,
    sources,
    stamped,
)
from sageserve.live.store.sql_files import changed, paged, show_file
from sageserve.live.store.tables import BATCHES, JOBS, RESULTS

_LOG: Final = logging.getLogger(__name__)
_B: Final = BATCHES.c
_J: Final = JOBS.c
_R: Final = RESULTS.c
_TOGETHER: Final = 500  # numbers in one statement
_json: Final = msgspec.json.Encoder().encode
_stamps: Final = msgspec.json.Decoder(dict[str, int]).decode


class SqlBatches(StorePart):
    """The part of a store that keeps batches."""

    def add_batch(self, batch: Batch) -> Batch:
        """A new batch."""
        with self._database.transaction() as connection:
            number = connection.scalar(insert(BATCHES).values(_values(batch)).returning(_B.number))
        assert number is not None
        return replace(batch, number=number)

    def batch(self, owner: str, batch: str) -> Batch:
        """A batch."""
        with self._database.reading() as connection:
            row = connection.execute(select(BATCHES).where(_B.id == batch, _B.owner == owner)).first()
        if row is None:
            raise Unknown(f"No batch found with id '{batch}'.")
        return _batch(row)

    def batches(self, owner: str, page: ListRange) -> list[Batch]:
        """A part of the list."""
        wanted = select(BATCHES).where(_B.owner == owner)
        with self._database.reading() as connection:
            return [_batch(row) for row in connection.execute(paged(connection, wanted, BATCHES, owner, page))]

    def unfinished(self) -> list[Batch]:
        """Batches that still have somewhere to go."""
        with self._database.reading() as connection:
            rows = connection.execute(select(BATCHES).where(_B.state.in_(OPEN_BATCHES)).order_by(_B.number))
            return [batch for row in rows if (batch := _readable(row)) is not None]

    def forget_batches(self, owner: str, before: Micros | None = None) -> int:
        """Forget those that are over."""
        with self._database.transaction() as connection:
            over = _over(connection, owner, before)
            for numbers in (over[k : k + _TOGETHER] for k in range(0, len(over), _TOGETHER)):
                connection.execute(delete(RESULTS).where(_R.batch.in_(numbers)))
                connection.execute(delete(JOBS).where(_J.batch.in_(numbers)))
                connection.execute(delete(BATCHES).where(_B.number.in_(numbers)))
        if over:
            self._database.forget()
        return len(over)

    def begin_reading(self, number: int) -> None:
        """Forget what an interrupted reading left."""
        with self._database.transaction() as connection:
            _forget_held(connection, number)

    def hold(self, number: int, model: str, jobs: Sequence[NewJob]) -> None:
        """Keep some of its lines."""
        with self._database.transaction() as connection:
            batch = _find(connection, number)
            if batch.state is not BatchState.VALIDATING:
                raise _stuck(batch)
            shared = {
                "batch": number,
                "model": model,
                "state": JobState.HELD,
                "deadline": batch.expires_at,
                "epoch": 0,
                "attempts": 0,
            }
            rows = [
                {**shared, "line": job.line, "custom_id": job.custom_id, "size": len(job.body), "body": job.body} for job in jobs
            ]
            connection.execute(insert(JOBS), rows)

    def accept(self, number: int, model: str, now: Micros) -> int:
        """Queue its lines."""
        with self._database.transaction() as connection:
            _move(connection, number, BatchSignal.ACCEPT, now)
            total = _signal(connection, number, JobSignal.ADMIT)
            connection.execute(update(BATCHES).where(_B.number == number).values(model=model, total=total))
        return total

    def reject(self, number: int, errors: Sequence[LineError], now: Micros) -> None:
        """None is run."""
        with self._database.transaction() as connection:
            _move(connection, number, BatchSignal.REJECT, now)
            _forget_held(connection, number)
            connection.execute(update(BATCHES).where(_B.number == number).values(errors=_json(errors).decode()))

    def cancel(self, number: int, now: Micros) -> None:
        """Whatever is not over will not be."""
        self._end(number, BatchSignal.CANCEL, JobSignal.CANCEL, now)

    def expire(self, number: int, now: Micros) -> None:
        """Its time is over."""
        self._end(number, BatchSignal.EXPIRE, JobSignal.EXPIRE, now)

    def finish(self, number: int, now: Micros) -> None:
        """Every job is over."""
        with self._database.transaction() as connection:
            if not _find(connection, number).over:
                raise BadMove(f"batch {number} has jobs that are not over")
            _move(connection, number, BatchSignal.FINISH, now)

    def outcomes(self, number: int, after: int, limit: int) -> list[LineOutcome]:
        """Its jobs after a line."""
        both = JOBS.outerjoin(RESULTS, (_J.batch == _R.batch) & (_J.line == _R.line))
        wanted = (
            select(_J.line, _J.custom_id, _J.state, _R.good, _R.status, _R.request_id, _R.body, _R.error)
            .select_from(both)
            .where(_J.batch == number, _J.line > after)
            .order_by(_J.line)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [
                LineOutcome(
                    line,
                    custom_id,
                    JobState(state),
                    None if good is None else Result((number, line), bool(good), status, request_id, bytes(body), error),
                )
                for line, custom_id, state, good, status, request_id, body, error in connection.execute(wanted)
            ]

    def close_batch(self, number: int, files: tuple[File | None, File | None], now: Micros) -> None:
        """Its files are written."""
        with self._database.transaction() as connection:
            _move(connection, number, BatchSignal.CLOSE, now)
            for file in files:
                if file is not None:
                    show_file(connection, file.id, file.size)
            output, error = (None if file is None else file.id for file in files)
            connection.execute(update(BATCHES).where(_B.number == number).values(output_file=output, error_file=error))
            connection.execute(delete(JOBS).where(_J.batch == number))
            connection.execute(delete(RESULTS).where(_R.batch == number))
        self._database.forget()

    def _end(self, number: int, signal: BatchSignal, end: JobSignal, now: Micros) -> None:
        with self._database.transaction() as connection:
            _move(connection, number, signal, now)
            _forget_held(connection, number)
            ended = _signal(connection, number, end)
            connection.execute(update(BATCHES).where(_B.number == number).values(failed=_B.failed + ended))


def _move(connection: Connection, number: int, signal: BatchSignal, now: Micros) -> None:
    batch = _find(connection, number)
    after = BATCH_MOVES.get((batch.state, signal))
    if after is None:
        raise _stuck(batch)
    stamps = _json(stamped(batch.stamps, after, now)).decode()
    connection.execute(update(BATCHES).where(_B.number == number).values(state=after, stamps=stamps))


def _over(connection: Connection, owner: str, before: Micros | None) -> list[int]:
    """Numbers of those that `Batch.was_over`; of all that are kept, only what may be among them leaves the database."""
    wanted = select(_B.number, _B.created_at, _B.stamps).where(_B.owner == owner, _B.state.not_in(OPEN_BATCHES))
    if before is None:  # to be erased, readable or not
        return list(connection.scalars(wanted))
    over = []
    for number, created_at, text in connection.execute(wanted.where(_B.created_at < before)):
        try:
            stamps = _stamps(text)
        except ValueError as error:  # of msgspec, too
            _LOG.error("batch number %s stays, because when it was over cannot be read: %s", number, error)
            continue
        if over_since(created_at, stamps) < before:
            over.append(number)
    return over


def _signal(connection: Connection, number: int, signal: JobSignal) -> int:
    """Move every job of a batch to which a signal means something; how many."""
    moved = 0
    for before in sources(JOB_MOVES, signal):
        after = JOB_MOVES[before, signal]
        moved += changed(connection.execute(update(JOBS).where(_J.batch == number, _J.state == before).values(state=after)))
    return moved


def _forget_held(connection: Connection, number: int) -> None:
    connection.execute(delete(JOBS).where(_J.batch == number, _J.state == JobState.HELD))


def _find(connection: Connection, number: int) -> Batch:
    row = connection.execute(select(BATCHES).where(_B.number == number).with_for_update()).first()
    if row is None:
        raise Unknown(f"No batch has the number {number}.")
    return _batch(row)


def _stuck(batch: Batch) -> BadMove:
    return BadMove(f"batch {batch.id} is {batch.state}")


def lost_jobs() -> ColumnElement[bool]:
    """Condition of jobs that a dead owner had taken."""
    return _J.state.in_(sources(JOB_MOVES, JobSignal.LOSE))


def count_open(connection: Connection, states: Sequence[JobState]) -> dict[str, int]:
    """Jobs in some states, by model."""
    rows = connection.execute(select(_J.model, func.count()).where(_J.state.in_(states)).group_by(_J.model))
    return {row[0]: row[1] for row in rows}


def _values(batch: Batch) -> dict[str, object]:
    return {
        "id": batch.id,
        "owner": batch.owner,
        "endpoint": batch.endpoint,
        "input_file": batch.input_file,
        "completion_window": batch.window,
        "metadata": _json(batch.metadata).decode(),
        "output_expires": batch.output_expires,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "state": batch.state,
        "model": batch.model,
        "total": batch.total,
        "done": batch.done,
        "failed": batch.failed,
        "prompt_tokens": batch.usage.prompt,
        "cached_tokens": batch.usage.cached,
        "output_tokens": batch.usage.output,
        "reasoning_tokens": batch.usage.reasoning,
        "errors": _json(batch.errors).decode(),
        "output_file": batch.output_file,
        "error_file": batch.error_file,
        "stamps": _json(batch.stamps).decode(),
    }


def _readable(row: Row[*tuple[object, ...]]) -> Batch | None:
    """A batch; None where its row cannot be read, which must not keep the other batches from going on."""
    try:
        return _batch(row)
    except ValueError as error:  # of msgspec, too
        _LOG.error("batch number %s is left out, because what was kept of it cannot be read: %s", row[0], error)
        return None


def _batch(row: Row[*tuple[object, ...]]) -> Batch:
    got = row._mapping  # noqa: SLF001 # SQLAlchemy's name for a public attribute
    tokens = (got["prompt_tokens"], got["cached_tokens"], got["output_tokens"], got["reasoning_tokens"])
    return Batch(
        id=got["id"],
        owner=got["owner"],
        endpoint=got["endpoint"],
        input_file=got["input_file"],
        window=got["completion_window"],
        metadata=msgspec.json.decode(got["metadata"], type=dict[str, str] | None),
        output_expires=got["output_expires"],
        created_at=got["created_at"],
        expires_at=got["expires_at"],
        number=got["number"],
        state=BatchState(got["state"]),
        model=got["model"],
        total=got["total"],
        done=got["done"],
        failed=got["failed"],
        usage=Usage(*tokens),
        errors=msgspec.json.decode(got["errors"], type=tuple[LineError, ...]),
        output_file=got["output_file"],
        error_file=got["error_file"],
        stamps=_stamps(got["stamps"]),
    )
