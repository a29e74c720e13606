"""The SQL store as a database: its tables are those the migrations make, later versions are refused, a full disk is survived.

Read next: `src/sageserve/live/store/database.py`.
"""

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from sageserve.base.errors import ConfigError
from sageserve.core.authority.records import LeaseRecord
from sageserve.live.store.database import sqlite_url
from sageserve.live.store.interface import STORE_FILE
from sageserve.live.store.models import File, StoreAway, StoreFull, StoreTooNew
from sageserve.live.store.sql import SqlStore, open_store
from sageserve.live.store.tables import METADATA
from tests.live.store.conftest import _emptied, driver
from tests.live.store.test_store import batch, good, running


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_migrations_make_the_tables_that_the_code_knows(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    url = sqlite_url(tmp_path / STORE_FILE) if kind == "sqlite" else request.getfixturevalue("postgres")
    SqlStore(url).close()
    engine = create_engine(driver(url))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_database_of_a_later_version_is_refused(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    url = sqlite_url(tmp_path / STORE_FILE) if kind == "sqlite" else request.getfixturevalue("postgres")
    SqlStore(url).close()
    engine = create_engine(driver(url))
    with engine.begin() as connection:
        before = connection.scalar(text("SELECT version_num FROM alembic_version"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreTooNew, match="9999"):
        SqlStore(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": before})
    engine.dispose()


def test_a_database_that_knows_bytes_only_keeps_words(postgres: str) -> None:
    engine = create_engine(driver(postgres), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"))
    engine.dispose()
    address = postgres.replace("/postgres?", "/bytes?")
    store = SqlStore(address)
    store.begin_file(File("file-1", "Müller", "größe.jsonl", "batch", 1, None))
    store.finish_file("file-1", 0)
    store.close()
    again = SqlStore(address)
    found = again.file("Müller", "file-1")
    again.close()
    assert (found.owner, found.name) == ("Müller", "größe.jsonl")


def test_sqlite_writes_every_commit_to_disk(tmp_path: Path) -> None:
    store = SqlStore(sqlite_url(tmp_path / STORE_FILE))
    with store._database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


@pytest.mark.parametrize("address", ["nonsense", "oracle+nothing://x", "://"])
def test_an_address_that_means_nothing_is_a_setting_that_is_wrong(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError):
        open_store(address, tmp_path)


def test_a_database_that_is_not_there_is_said_to_be_away(tmp_path: Path) -> None:
    with pytest.raises(StoreAway):
        open_store(f"postgresql://nobody@/none?host={tmp_path}", tmp_path)


def test_a_database_held_by_someone_else_is_said_to_be_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sageserve.live.store.database._SETTINGS", ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=50"))
    store = open_store("sqlite", tmp_path)
    other = sqlite3.connect(tmp_path / STORE_FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreAway):
        store.begin_epoch()
    other.execute("ROLLBACK")
    other.close()
    assert store.begin_epoch() == 1
    store.close()


def test_a_process_that_stands_still_in_a_transaction_keeps_nobody_from_leading(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sageserve.live.store.database._PG_IDLE_MS", 100)
    first, second = (open_store(_emptied(postgres) if k == 0 else postgres, tmp_path) for k in range(2))
    assert isinstance(first, SqlStore)
    term = first.at(first.begin_epoch())
    assert isinstance(term, SqlStore)

    def write_late() -> None:
        with term._database.transaction() as still:
            free = second.leader()
            assert second.lead(LeaseRecord("other", free.epoch + 1, "", free.version)) is not None
            still.execute(text("UPDATE epochs SET holder = 'late'"))

    with pytest.raises(StoreAway):
        write_late()
    assert first.leader().holder == "other"
    first.close()
    second.close()


def test_two_that_begin_at_once_make_the_tables_once(postgres: str, tmp_path: Path) -> None:
    url = _emptied(postgres)
    with ThreadPoolExecutor(3) as threads:
        for store in list(threads.map(lambda _: open_store(url, tmp_path), range(3))):
            assert store.leader().epoch == 0
            store.close()


def test_what_was_deleted_is_gone_once_no_reader_is_at_work(tmp_path: Path) -> None:
    store = open_store("sqlite", tmp_path)
    assert isinstance(store, SqlStore)
    store.begin_file(File("file-1", "me", "n", "batch", 1, None))
    store.append("file-1", 0, b"a secret of somebody")
    store.finish_file("file-1", 20)
    reader = sqlite3.connect(tmp_path / STORE_FILE, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM files").fetchall()
    store.delete_file("me", "file-1")
    log = tmp_path / f"{STORE_FILE}-wal"
    assert b"a secret of somebody" in log.read_bytes(), "the reader needs it"
    with store._database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000
    reader.close()
    assert store.expire_files(0) == 0
    assert log.stat().st_size == 0
    assert b"a secret of somebody" not in (tmp_path / STORE_FILE).read_bytes()
    store.close()


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_survived(tmp_path: Path) -> None:
    store = open_store("sqlite", tmp_path)
    epoch = store.begin_epoch()
    one = running(store, 3)
    store.commit(epoch, [], [good(one.number, 1)])
    store.begin_file(File("file-1", "me", "n", "batch", 1, None))
    with no_file_grows_beyond(200_000), pytest.raises(StoreFull, match="cannot write"):
        store.append("file-1", 0, b"x" * 1_000_000)
    with no_file_grows_beyond(4096), pytest.raises(StoreFull):
        store.commit(epoch, [], [good(one.number, 2, b"y" * 10_000)])
    assert store.commit(epoch, [], [good(one.number, 2, b"y" * 10_000)]).recorded == ((one.number, 2),)
    assert store.batch("me", "batch_1").done == 2
    store.close()


KILLED = """
import os, sys
from pathlib import Path
from sageserve.live.store.sql import open_store
from tests.live.store.conftest import driver
from tests.live.store.test_store import good, running
store = open_store(sys.argv[1], Path(sys.argv[2]))
epoch = store.begin_epoch()
one = running(store, 2)
store.commit(epoch, [], [good(one.number, 1)])
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_was_answered_survives_kill_9(request: pytest.FixtureRequest, tmp_path: Path, repo_root: Path, kind: str) -> None:
    setting = "sqlite" if kind == "sqlite" else request.getfixturevalue("postgres")
    before = 0
    if kind == "postgres":
        store = open_store(setting, tmp_path)
        before = len(store.unfinished())
        store.close()
    ended = subprocess.run([sys.executable, "-c", KILLED, setting, str(tmp_path)], cwd=repo_root, check=False)
    assert ended.returncode == -9
    store = open_store(setting, tmp_path)
    found = store.unfinished()
    assert len(found) == before + 1
    assert (found[-1].total, found[-1].done) == (2, 1)
    assert found[-1].id == batch().id
    store.close()
