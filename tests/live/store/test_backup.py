"""A copy of the queue is whole while the queue is in use, and becomes a queue again; what is no copy takes nobody's place."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.cli.running import lives
from sageserve.live.store import backup
from sageserve.live.store.backup import back_up, restore
from sageserve.live.store.interface import STORE_FILE
from sageserve.live.store.models import BatchState, StoreTooNew
from sageserve.live.store.sql import open_store
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
    assert sorted(path.name for path in there.iterdir()) == [STORE_FILE]


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
    before = (tmp_path / STORE_FILE).read_bytes()
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    with pytest.raises(ConfigError, match="is no copy of a batch queue"):
        restore(bad, tmp_path, replace=True)
    assert (tmp_path / STORE_FILE).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {STORE_FILE, "bad"}


def test_there_is_something_to_copy_or_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no batch queue"):
        back_up(tmp_path, tmp_path / "copy")
    assert not list(tmp_path.iterdir())


def test_a_queue_that_is_given_up_is_whole_until_the_copy_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, crashed, out = tmp_path / "here", tmp_path / "crashed", tmp_path / "copy"
    here.mkdir()
    store = open_store("sqlite", here)
    back_up(here, out)
    running(store, 3)
    shutil.copytree(here, crashed)  # as a fleet that was killed leaves it: the last of it is in the log
    store.close()

    def full(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="no room"):
            restore(out, crashed, replace=True)
    again = open_store("sqlite", crashed)
    assert again.batch("me", "batch_1").total == 3
    again.close()
    assert restore(out, crashed, replace=True).batches == 0


def later(out: Path) -> None:
    with closing(sqlite3.connect(out)) as one, one:
        one.execute("UPDATE alembic_version SET version_num = 'later'")


def test_a_copy_that_is_refused_leaves_no_folder_behind(tmp_path: Path) -> None:
    here, out, state = tmp_path / "here", tmp_path / "copy", tmp_path / "new" / "state"
    here.mkdir()
    open_store("sqlite", here).close()
    back_up(here, out)
    later(out)
    for copy, why in ((out, StoreTooNew), (Path(__file__), ConfigError)):
        done = CliRunner().invoke(app, ["batch", "restore", str(copy), "--state", str(state)])
        assert isinstance(done.exception, why)
        assert not state.parent.exists()


def test_no_fleet_begins_while_a_queue_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store("sqlite", tmp_path).close()
    out, state = tmp_path / "copy", tmp_path / "state"
    back_up(tmp_path, out)
    put_back, held = backup.restore, []

    def watched(copy: Path, folder: Path, *, replace: bool) -> backup.Copied:
        held.append(lives(folder))
        return put_back(copy, folder, replace=replace)

    monkeypatch.setattr(backup, "restore", watched)
    done = CliRunner().invoke(app, ["batch", "restore", str(out), "--state", str(state)])
    assert (done.exit_code, held, lives(state)) == (0, [True], False)


@pytest.mark.parametrize("act", ["backup", "restore"])
@pytest.mark.parametrize(
    ("store", "hint"),
    [("memory", "live.store: sqlite keeps one that can be copied"), ("postgresql://me@/db", "pg_dump and pg_restore copy it")],
)
def test_a_queue_that_is_elsewhere_is_refused_with_what_to_do(tmp_path: Path, act: str, store: str, hint: str) -> None:
    (tmp_path / "scenario.yaml").write_text(f"extends: local\nlive: {{store: '{store}'}}\n", "utf-8")
    done = CliRunner().invoke(app, ["batch", act, str(tmp_path / "copy"), "--state", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    assert done.exception.hint == hint
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.yaml"]


def test_a_file_that_waits_at_the_name_of_a_copy_is_not_written_to(tmp_path: Path) -> None:
    open_store("sqlite", tmp_path).close()
    open_for_all = tmp_path / "copy.part"
    with open_for_all.open("wb") as held:
        open_for_all.chmod(0o666)
        back_up(tmp_path, tmp_path / "copy")
        assert os.fstat(held.fileno()).st_size == 0
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0


def test_a_queue_that_the_first_release_left_goes_on(tmp_path: Path) -> None:
    """`state_0001.sql` is what it wrote, and is never made anew: what a later release changes has to lead on from there."""
    with sqlite3.connect(tmp_path / STORE_FILE) as connection:
        connection.executescript((Path(__file__).parent / "state_0001.sql").read_text("utf-8"))
    connection.close()
    store = open_store("sqlite", tmp_path)
    assert store.begin_epoch() == 2
    (mine,) = store.unfinished()
    assert (mine.owner, mine.total, mine.done, mine.metadata) == ("me", 3, 1, {"a": "b"})
    assert len(store.queued("m", 10)) == 2
    answered = store.outcomes(mine.number, 0, 1)[0].result
    assert answered is not None
    assert answered.body == b'{"text": "kept"}'
    assert store.piece("file-1", 0) == b'{"custom_id": "c1"}\n'
    assert store.batch("you", "batch_2").state is BatchState.CANCELLED
    store.close()
