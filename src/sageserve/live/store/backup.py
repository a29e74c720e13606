"""A copy of the batch queue in one file, and the queue out of such a copy: files, lines, answers and states as of one instant.

SQLite's own way of copying a database that is in use. A copy is looked through before it takes a place, and takes it at once or
not at all. PostgreSQL has pg_dump. Knows no table but what is counted. Read next: `database.py`, `cli/batch_backup.py`.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from msgspec import Struct

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.live.store.database import sqlite_url
from sageserve.live.store.sql import FILE, SqlStore

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
    source = state / FILE
    if not source.is_file():
        raise ConfigError(f"{state} holds no batch queue", hint="--state names the folder of a fleet whose live.store is sqlite")
    part = out.with_name(f"{out.name}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600))
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


def restore(copy: Path, state: Path, *, replace: bool) -> Copied:
    """Put a copy in the place of the queue of a folder in which no fleet runs; the tables are brought to this version's.

    Args:
        copy: as `back_up` made it, by this version or an earlier one; it stays as it is.
        state: the folder.
        replace: the queue that is there is lost.

    Raises:
        ConfigError: it is no copy, or there is a queue and it is not to be lost.
        StoreTooNew: a later version made it.
    """
    target = state / FILE
    if target.exists() and not replace:
        raise ConfigError(
            f"{target} holds a queue", hint="--replace gives it up; `sageserve batch backup FILE` keeps a copy of it"
        )
    part = target.with_name(f"{FILE}.restored")
    try:
        part.unlink(missing_ok=True)
        with copy.open("rb") as source, os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            shutil.copyfileobj(source, out)
        _look_through(part)
        SqlStore(sqlite_url(part)).close()  # brings it to this version's tables
        found = _look_through(part)
        with closing(sqlite3.connect(part)) as made:
            made.execute("PRAGMA journal_mode=DELETE")
        for name in _BESIDE:
            target.with_name(target.name + name).unlink(missing_ok=True)
        part.replace(target)
    except sqlite3.Error as error:
        raise ConfigError(
            f"{copy} is no copy of a batch queue: {error}", hint="`sageserve batch backup FILE` makes one"
        ) from None
    finally:
        for name in ("", *_BESIDE):
            part.with_name(part.name + name).unlink(missing_ok=True)
    return found


def _look_through(path: Path) -> Copied:
    """What is in it, when it is whole."""
    with closing(sqlite3.connect(path)) as one:
        said = one.execute("PRAGMA integrity_check").fetchone()[0]
        if said != "ok":
            raise sqlite3.DatabaseError(said)
        batches, jobs, files = (
            int(one.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 # our own names
            for table in ("batches", "jobs", "files")
        )
    return Copied(batches, jobs, files, path.stat().st_size)
