"""Which batches are forgotten as time goes by: by what the database holds, however much that is, and readable or not.

Read next: `src/sageserve/live/store/sql_batches.py`; `test_store.py` for what is forgotten with them.
"""

import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from sageserve.live.store.interface import STORE_FILE, Store
from sageserve.live.store.models import Batch
from sageserve.live.store.sql import open_store
from tests.live.store.test_store import batch


def rejected(store: Store, *batches: Batch) -> None:
    for one in batches:
        store.reject(store.add_batch(one).number, [], 2000)


def test_a_batch_is_not_over_before_it_was_made_however_the_clock_was_set(store: Store) -> None:
    rejected(store, replace(batch(), created_at=5000))
    assert [store.forget_batches("me", before) for before in (2001, 5000, 5001)] == [0, 0, 1]


@pytest.mark.parametrize(("column", "over", "stay"), [("metadata", 2, 0), ("errors", 2, 0), ("stamps", 1, 1)])
def test_what_cannot_be_read_of_a_batch_keeps_no_other_one_and_is_erased(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str, over: int, stay: int
) -> None:
    store = open_store("sqlite", tmp_path)
    rejected(store, batch(1), batch(2))
    with sqlite3.connect(tmp_path / STORE_FILE) as direct:
        direct.execute(f"UPDATE batches SET {column} = '{{broken' WHERE id = 'batch_1'")  # noqa: S608 # a column of this file
    with caplog.at_level(logging.ERROR):
        assert store.forget_batches("me", 2001) == over
    assert [record.message.partition(",")[0] for record in caplog.records] == ["batch number 1 stays"] * stay
    assert store.forget_batches("me") == stay
    store.close()


def test_what_is_kept_longer_is_not_looked_at_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("sqlite", tmp_path)
    looked: list[str] = []

    def look(text: str) -> dict[str, int]:
        looked.append(text)
        return {"failed": 2000}

    rejected(store, *map(batch, range(1, 30)))
    monkeypatch.setattr("sageserve.live.store.sql_batches._stamps", look)
    assert store.forget_batches("me", 1003) == 0
    assert len(looked) == 2, "those that were made before then and ended later"
    store.close()
