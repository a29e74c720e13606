"""Stores of every kind, empty.

Read next: `test_store.py`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from sageserve.live.store.interface import Store
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.sql import SqlStore, open_store

KINDS = ("memory", "sqlite", "postgres")


def driver(url: str) -> str:
    """The address as SQLAlchemy wants it; a PostgreSQL that was made in the locale C answers in bytes unless told."""
    return f"{url.replace('postgresql:', 'postgresql+psycopg:')}&client_encoding=utf8" if url.startswith("postgresql:") else url


def _emptied(url: str) -> str:
    engine = create_engine(driver(url))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture(params=KINDS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the store; for the durable ones each call opens the same one again."""
    opened: list[Store] = []
    kept = MemoryStore()
    url = _emptied(request.getfixturevalue("postgres")) if request.param == "postgres" else ""

    def again() -> Store:
        if request.param == "memory":
            return kept
        opened.append(SqlStore(url) if url else open_store("sqlite", tmp_path))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


@pytest.fixture
def store(fresh: Callable[[], Store]) -> Store:
    """An empty store of each kind."""
    return fresh()
