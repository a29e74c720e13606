"""A database that is open: SQLite or PostgreSQL, brought to this version's tables, with transactions that say what went wrong.

SQLite: write-ahead log, every commit on disk before it returns (synchronous=FULL), transactions that take the write lock at
once. PostgreSQL: its own defaults, which do the same; there a process that stands still in the middle of a transaction, or whose
machine is gone, has its locks taken away after seconds, because another one may wait for them. Must not know the tables.
Read next: `migrations/`, `sql.py`.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from sageserve.base.errors import ConfigError
from sageserve.live.store.models import BadData, StoreAway, StoreError, StoreFull, StoreTooNew

_LOG: Final = logging.getLogger(__name__)
_BUSY_MS: Final = 10_000  # SQLite waits so long for another process's transaction, such as a backup
_SETTINGS: Final = ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", f"busy_timeout={_BUSY_MS}")
_NO_ROOM: Final = frozenset([sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR])  # a failed write is an I/O error where quotas end
_PG_NO_ROOM: Final = "53100"
_PG_CROSSED: Final = frozenset(["40001", "40P01", "55P03"])  # two processes waited for each other, or one too long: try again
_PG_IDLE_MS: Final = 5_000  # of a transaction whose process says nothing: it stands still, and others wait for its locks
_PG_LOCK_MS: Final = 10_000  # as long as SQLite's
_PG_GONE: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""How a server that is gone is noticed, within ten seconds, where the address says nothing else."""
_UPGRADES: Final = (
    0x5A6E5E75E  # of the advisory lock: two processes that begin at once bring tables up to date one after the other
)


class Database:
    """One open database.

    Args:
        url: sqlite:///PATH or postgresql://...

    Raises:
        ConfigError: the address cannot be understood.
        StoreTooNew: a later version made it.
        StoreError: it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._remembers = False  # the log may hold what was deleted
        with self.transaction() as connection:
            _upgrade(connection)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Change something: all of it or nothing.

        Raises:
            StoreError: as `reading`.
        """
        with self.reading() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One state of everything.

        Raises:
            StoreFull: no room.
            StoreAway: the database cannot be used at the moment.
            BadData: it cannot keep what it was given.
            StoreError: it refuses for another reason.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise _told(error) from error
        except (OverflowError, UnicodeError) as error:  # from the driver itself, which could not say it in the database's words
            raise BadData(f"the batch store cannot keep this: {error}") from error

    def forget(self) -> None:
        """What was deleted is to be gone: SQLite keeps it in its log until that is emptied. A reader at work puts it off."""
        if self._engine.dialect.name != "sqlite":
            return
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("PRAGMA busy_timeout=0")  # the store has one thread: nobody is to wait for somebody else's reader
            self._remembers = bool(cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            cursor.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        except sqlite3.OperationalError as error:
            self._remembers = True
            _LOG.info("the log of the batch store is emptied later: %s", error)
            connection.invalidate()  # its settings are another's
        finally:
            connection.close()

    def forget_rest(self) -> None:
        """Try again what a reader put off."""
        if self._remembers:
            self.forget()

    @property
    def shared(self) -> bool:
        """Whether processes of other machines may have it open, too."""
        return self._engine.dialect.name != "sqlite"

    def close(self) -> None:
        """Let go of it."""
        self._engine.dispose()


class FencedDatabase(Database):
    """A database in which something is changed only while a condition holds, checked in each transaction that changes something.

    Args:
        whole: the open database.
        check: raises where the condition does not hold, and keeps it from ending before the transaction does.
    """

    def __init__(self, whole: Database, check: Callable[[Connection], None]) -> None:
        self._whole = whole
        self._check = check

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Change something, if that may be."""
        with self._whole.transaction() as connection:
            self._check(connection)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One state of everything, whoever reads."""
        with self._whole.reading() as connection:
            yield connection

    def forget(self) -> None:
        """As the whole."""
        self._whole.forget()

    def forget_rest(self) -> None:
        """As the whole."""
        self._whole.forget_rest()

    def close(self) -> None:
        """The whole is another's to close."""


class StorePart:
    """A part of a store that lives in a database.

    Args:
        database: open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database


def sqlite_url(path: Path) -> str:
    """Address of a SQLite file."""
    return f"sqlite:///{path}"


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":  # parameters are hidden in errors: they hold prompts
            engine = create_engine(parsed, hide_parameters=True)
            event.listen(engine, "connect", _set_up)
            event.listen(engine, "begin", _begin)
            return engine
        if parsed.drivername in {"postgresql", "postgres"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        # A database made in the locale C knows bytes only, and answers in them unless told.
        told = {name: value for name, value in _PG_GONE.items() if name not in parsed.query} | {"client_encoding": "utf8"}
        engine = create_engine(parsed, connect_args=told, pool_size=1, max_overflow=1, pool_pre_ping=True, hide_parameters=True)
        event.listen(engine, "connect", _limit_shared)
        return engine
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"live.store: {error}", hint="write sqlite, memory, or postgresql://user@host/name") from None
    except ModuleNotFoundError as error:
        raise ConfigError(f"live.store: {error.name} is missing", hint="pip install 'sageserve[postgres]'") from None


def _set_up(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # the driver begins no transaction by itself; `_begin` does
    for setting in _SETTINGS:
        connection.execute(f"PRAGMA {setting}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _limit_shared(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Once for each connection, and not in its address: poolers refuse connections that ask for settings."""
    limits = {"idle_in_transaction_session_timeout": _PG_IDLE_MS, "lock_timeout": _PG_LOCK_MS}
    cursor = connection.cursor()
    for name, most in limits.items():
        cursor.execute(f"SET {name} = {most}")
    connection.commit()


def _told(error: DBAPIError) -> StoreError:
    cause = error.orig
    said = str(cause).strip().split("\n")[0]
    if isinstance(error, DataError | IntegrityError):  # PostgreSQL's driver gives it no code, as if nobody had answered
        return BadData(f"the batch store cannot keep this: {said}")
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        full, away = code in _NO_ROOM, code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN}
    else:
        state = getattr(cause, "sqlstate", None) or ""
        full, away = (
            state == _PG_NO_ROOM,
            error.connection_invalidated or state[:2] in {"", "08", "25", "57"} or state in _PG_CROSSED,
        )
    if full:
        return StoreFull(f"the batch store cannot write: {said}", hint="free some disk space; it goes on by itself")
    if away:
        return StoreAway(f"the batch store cannot be used at the moment: {said}", hint="is the database running?")
    return StoreError(f"the batch store refuses: {said}")


def check_version(connection: Connection) -> Config | None:
    """What brings its tables to this version's; None: they are.

    Raises:
        StoreTooNew: a later version made them.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    script = ScriptDirectory.from_config(config)
    known = {step.revision for step in script.walk_revisions()}
    present = MigrationContext.configure(connection).get_current_revision()
    if present is not None and present not in known:
        raise StoreTooNew(
            f"the batch store is of a later version (step {present}, this one knows up to {script.get_current_head()})",
            hint="use the version of SageServe that made it, or another state folder",
        )
    return config if present != script.get_current_head() else None


def _upgrade(connection: Connection) -> None:
    """Apply the steps that are missing."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")  # steps are read from disk meanwhile
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADES})")
    config = check_version(connection)
    if config is not None:
        command.upgrade(config, "head")
