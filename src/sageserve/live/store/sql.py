"""The durable store: SQLite by default, PostgreSQL when configured, one text for both.

Joins the parts and holds who leads. Of several control processes on one PostgreSQL one runs the queue. Who that is stands in
the database itself, a row with the epoch that every change is checked against in its own transaction. A Lease of a cluster could
not be read there, so that a process which stood still would write on behind it; an advisory lock would stay with such a process
as long as its connection does. Read next: `database.py`, `sql_queue.py`; `batches/queue_lead.py`, who stands for election.
"""

from copy import copy
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, select, update

from sageserve.core.authority.records import LeaseRecord
from sageserve.live.store.database import Database, FencedDatabase, StorePart, sqlite_url
from sageserve.live.store.interface import STORE_FILE, Store
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.models import JobState, Superseded
from sageserve.live.store.sql_batches import SqlBatches, lost_jobs
from sageserve.live.store.sql_files import SqlFiles, drop_incomplete
from sageserve.live.store.sql_queue import SqlQueue
from sageserve.live.store.tables import EPOCHS, JOBS


class SqlStore(SqlFiles, SqlBatches, SqlQueue, Store):
    """Files, batches and jobs in a database.

    Args:
        url: sqlite:///PATH or postgresql://...

    Raises:
        ConfigError: the address cannot be understood.
        StoreError: it cannot be opened, or a later version made it.
    """

    def __init__(self, url: str) -> None:
        super().__init__(Database(url))

    @property
    def shared(self) -> bool:
        """Whether other processes may have it open."""
        return self._database.shared

    def at(self, epoch: int) -> Store:
        """What the leader of an epoch may do."""
        term = copy(self)
        StorePart.__init__(term, FencedDatabase(self._database, partial(check_epoch, epoch=epoch)))
        return term

    def begin_epoch(self) -> int:
        """A control process begins."""
        with self._database.transaction() as connection:
            epoch = connection.scalar(select(EPOCHS.c.epoch).with_for_update())
            assert epoch is not None
            connection.execute(update(EPOCHS).values(epoch=epoch + 1, beat=EPOCHS.c.beat + 1))
            _begin_term(connection)
        return int(epoch) + 1

    def leader(self) -> LeaseRecord:
        """Who leads."""
        with self._database.reading() as connection:
            return _leader(connection)

    def lead(self, wanted: LeaseRecord) -> LeaseRecord | None:
        """Lead, go on leading, or give it up."""
        with self._database.transaction() as connection:
            now = _leader(connection, lock=True)
            if now.version != wanted.version:
                return None
            stored = update(EPOCHS).values(holder=wanted.holder, epoch=wanted.epoch, beat=EPOCHS.c.beat + 1)
            connection.execute(stored)
            if wanted.epoch != now.epoch:
                _begin_term(connection)
            return _leader(connection)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()


def check_epoch(connection: Connection, epoch: int) -> None:
    """Nobody begins another epoch before this transaction is over.

    Raises:
        Superseded: somebody has.
    """
    if connection.scalar(select(EPOCHS.c.epoch).with_for_update(read=True)) != epoch:
        raise Superseded("another control process leads the batch queue", hint="it is run there; this one stands by")


def _leader(connection: Connection, *, lock: bool = False) -> LeaseRecord:
    wanted = select(EPOCHS.c.holder, EPOCHS.c.epoch, EPOCHS.c.beat)
    holder, epoch, beat = connection.execute(wanted.with_for_update() if lock else wanted).one()
    return LeaseRecord(holder, epoch, str(beat), str(beat))


def _begin_term(connection: Connection) -> None:
    """What the one before had taken is queued again, and what it was writing is dropped."""
    connection.execute(update(JOBS).where(lost_jobs()).values(state=JobState.QUEUED, epoch=0))
    drop_incomplete(connection)


def open_store(setting: str, state: Path) -> Store:
    """The store that `live.store` names.

    Args:
        setting: memory, sqlite, or an address.
        state: folder of the SQLite file.

    Raises:
        ConfigError: the address cannot be understood.
        StoreError: it cannot be opened, or a later version made it.
    """
    if setting == "memory":
        return MemoryStore()
    return SqlStore(sqlite_url(state / STORE_FILE) if setting == "sqlite" else setting)
