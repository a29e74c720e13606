"""A copy of the batch queue in one file, and the queue out of such a copy: files, lines, answers and states as of one instant.

SQLite's own way of copying a database that is in use. A copy is looked through before it takes a place, and takes it at once or
not at all. PostgreSQL has pg_dump. Knows no table but what is counted. Read next: `database.py`, `cli/batch_backup.py`.
"""

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from msgspec import Struct
from sqlalchemy import NullPool, create_engine

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.live.private import make_file
from sageserve.live.store.database import check_version, sqlite_url
from sageserve.live.store.interface import STORE_FILE
from sageserve.live.store.sql import SqlStore

_BESIDE: Final = ("-wal", "-shm")  # what belongs to a database file


class Copied(Struct, frozen=True):
    """What a copy holds."""

    batches: int
    jobs: int
    files: int
    bytes: int


def back_up(state: Path, out: Path) -> Copied:
    """Copy the queue of a state folder, also while its fleet runs.

    Args:
        state: the folder.
        out: the copy, for its user alone; one that is there is replaced.

    Raises:
        ConfigError: there is no queue.
        SageServeError: it cannot be copied.
    """
    source = state / STORE_FILE
    if not source.is_file():
        raise ConfigError(f"{state} holds no batch queue", hint="--state names the folder of a fleet whose live.store is sqlite")
    part = out.with_name(f"{out.name}.part")
    try:
        os.close(make_file(part))
        with closing(sqlite3.connect(source)) as there, closing(sqlite3.connect(part)) as copy:
            there.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file
        found = _look_through(part)
        part.replace(out)
    except sqlite3.Error as error:
        raise SageServeError(f"the batch queue cannot be copied to {out}: {error}", hint="is there room on the disk?") from None
    finally:
        part.unlink(missing_ok=True)
    return found


def check_copy(copy: Path, state: Path, *, replace: bool) -> None:
    """Refuse what `restore` would, with nothing written anywhere.

    Raises:
        ConfigError: it is no copy, or there is a queue and it is not to be lost.
        StoreTooNew: a later version made it.
    """
    if (state / STORE_FILE).exists() and not replace:
        raise ConfigError(
            f"{state / STORE_FILE} holds a queue",
            hint="--replace gives it up; `sageserve batch backup FILE` keeps a copy of it",
        )
    still = f"file:{quote(str(copy.absolute()))}?immutable=1"  # else SQLite may put a log beside it
    try:
        with closing(sqlite3.connect(still, uri=True)) as one:
            _count(one)
    except sqlite3.Error as error:
        raise _no_copy(copy, error) from None
    with create_engine(f"sqlite:///{still}&uri=true", poolclass=NullPool).connect() as connection:
        check_version(connection)


def restore(copy: Path, state: Path, *, replace: bool) -> Copied:
    """Put a copy in the place of the queue of a folder in which no fleet runs; the tables are brought to this version's.

    Args:
        copy: as `back_up` made it, by this version or an earlier one; it stays as it is.
        state: the folder; the caller holds its lock.
        replace: the queue that is there is lost.

    Raises:
        ConfigError: it is no copy, or there is a queue and it is not to be lost.
        StoreTooNew: a later version made it.
    """
    check_copy(copy, state, replace=replace)
    target = state / STORE_FILE
    part = target.with_name(f"{STORE_FILE}.restored")
    try:
        with copy.open("rb") as source, os.fdopen(make_file(part), "wb") as out:
            shutil.copyfileobj(source, out)
        SqlStore(sqlite_url(part)).close()  # brings it to this version's tables
        found = _look_through(part)
        with closing(sqlite3.connect(part)) as made:
            made.execute("PRAGMA journal_mode=DELETE")
        _empty_log(target)
        part.replace(target)
    except sqlite3.Error as error:
        raise _no_copy(copy, error) from None
    finally:
        for name in ("", *_BESIDE):
            part.with_name(part.name + name).unlink(missing_ok=True)
    return found


def _empty_log(target: Path) -> None:
    """Bring all of a queue into its file: a crash before another file takes its place must not leave half of it."""
    if target.exists():
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(target)) as old:  # unreadable, and given up all the same
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in _BESIDE:
        target.with_name(target.name + name).unlink(missing_ok=True)


def _no_copy(copy: Path, error: sqlite3.Error) -> ConfigError:
    return ConfigError(f"{copy} is no copy of a batch queue: {error}", hint="`sageserve batch backup FILE` makes one")


def _look_through(path: Path) -> Copied:
    """What is in it, when it is whole."""
    with closing(sqlite3.connect(path)) as one:
        batches, jobs, files = _count(one)
    return Copied(batches, jobs, files, path.stat().st_size)


def _count(one: sqlite3.Connection) -> tuple[int, ...]:
    said = one.execute("PRAGMA integrity_check").fetchone()[0]
    if said != "ok":
        raise sqlite3.DatabaseError(said)
    return tuple(
        int(one.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 # our own names
        for table in ("batches", "jobs", "files")
    )
