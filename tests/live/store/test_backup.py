"""A copy of the queue is whole while the queue is in use, and becomes a queue again; what is no copy takes nobody's place."""

from pathlib import Path

import pytest

from sageserve.base.errors import ConfigError
from sageserve.live.store.backup import back_up, restore
from sageserve.live.store.sql import FILE, open_store
from tests.live.store.test_store import file, good, kept, running, take


def test_a_copy_made_in_use_is_a_queue_again_elsewhere(tmp_path: Path) -> None:
    here, there, out = tmp_path / "here", tmp_path / "there", tmp_path / "queue.copy"
    here.mkdir()
    there.mkdir()
    store = open_store("sqlite", here)
    kept(store, file(), b"prompts")
    epoch = store.begin_epoch()
    one = running(store, 3)
    take(store, epoch, 1)
    store.commit(epoch, [], [good(one.number, 1, b"answered")])
    copied = back_up(here, out)  # the store is open, its log not emptied
    assert (copied.batches, copied.jobs, copied.files) == (1, 3, 1)
    assert out.stat().st_mode & 0o077 == 0
    store.close()
    assert restore(out, there, replace=False).jobs == 3
    again = open_store("sqlite", there)
    assert again.piece("file-1", 0) == b"prompts"
    assert again.batch("me", "batch_1").done == 1
    again.close()
    assert sorted(path.name for path in there.iterdir()) == [FILE]


def test_a_queue_is_given_up_only_when_told_so(tmp_path: Path) -> None:
    open_store("sqlite", tmp_path).close()
    out = tmp_path / "copy"
    back_up(tmp_path, out)
    with pytest.raises(ConfigError, match="holds a queue"):
        restore(out, tmp_path, replace=False)
    assert restore(out, tmp_path, replace=True).batches == 0


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_what_is_no_copy_takes_nobodys_place(tmp_path: Path, content: bytes) -> None:
    open_store("sqlite", tmp_path).close()
    before = (tmp_path / FILE).read_bytes()
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    with pytest.raises(ConfigError, match="is no copy of a batch queue"):
        restore(bad, tmp_path, replace=True)
    assert (tmp_path / FILE).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {FILE, "bad"}


def test_there_is_something_to_copy_or_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no batch queue"):
        back_up(tmp_path, tmp_path / "copy")
    assert not list(tmp_path.iterdir())
