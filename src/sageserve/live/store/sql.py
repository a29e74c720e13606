"""The durable store: SQLite by default, PostgreSQL when configured, one text for both.

Joins the parts and holds the epoch. Read next: `database.py`, `sql_files.py`, `sql_batches.py`, `sql_queue.py`.
"""

from pathlib import Path

from sqlalchemy import update

from sageserve.live.store.database import Database, sqlite_url
from sageserve.live.store.interface import STORE_FILE, Store
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.models import JobState
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

    def begin_epoch(self) -> int:
        """A control process begins."""
        with self._database.transaction() as connection:
            epoch = connection.scalar(update(EPOCHS).values(epoch=EPOCHS.c.epoch + 1).returning(EPOCHS.c.epoch))
            connection.execute(update(JOBS).where(lost_jobs()).values(state=JobState.QUEUED, epoch=0))
            drop_incomplete(connection)
        assert epoch is not None
        return int(epoch)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()


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
