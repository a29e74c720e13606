"""What a fleet keeps is its user's alone, whatever stood there before; and control answers nobody but its own fleet.

Read next: `src/sageserve/live/private.py`, `src/sageserve/live/control/door.py`.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from sageserve.base.errors import ConfigError
from sageserve.live.control.door import FleetOnly
from sageserve.live.private import make_private, open_private, write_private
from sageserve.live.store.interface import STORE_FILE
from sageserve.live.store.models import File
from sageserve.live.store.sql import SqlStore, open_store


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_folder_that_was_open_is_closed_with_all_that_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    (folder / "journal").mkdir(parents=True)
    (folder / "journal" / "one.jsonl").write_text("{}")
    (folder / STORE_FILE).touch(0o644)
    folder.chmod(0o777)
    make_private(folder)
    store = open_store("sqlite", folder)
    store.close()
    (folder / "later").touch()
    write_private(folder / "fleet.json", b"{}")
    found = {path.relative_to(folder).as_posix(): mode(path) for path in folder.rglob("*")}
    assert mode(folder) == 0o700
    assert found.pop("journal") == 0o700
    assert set(found) >= {STORE_FILE, "journal/one.jsonl", "later", "fleet.json"}
    assert set(found.values()) == {0o600}


@pytest.mark.parametrize("where", [".", "up.log", "scenario.yaml.part", "logs", "journal/one"])
def test_links_are_refused_before_anything_is_written(tmp_path: Path, where: str) -> None:
    folder, target = tmp_path / "state", tmp_path / "target"
    target.mkdir()
    (target / "precious").write_text("mine")
    link = folder / where
    link.parent.mkdir(parents=True, exist_ok=True)
    if where == ".":
        folder.rmdir() if folder.exists() else None
        folder.symlink_to(target)
    else:
        link.symlink_to(target / "precious")
    beside = link.parent / "a program"
    if where != ".":
        beside.touch(0o755)
    with pytest.raises(ConfigError, match="is a link"):
        make_private(folder)
    assert (target / "precious").read_text() == "mine"
    assert mode(target) != 0o700
    assert where == "." or mode(beside) == 0o755, "nothing is changed in a folder that is refused"
    if where != ".":
        link.unlink()
        make_private(folder)
        assert mode(beside) == 0o700, "its owner may run it still"


def test_no_write_follows_a_link_that_came_later(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("fleet.json", "fleet.json.part", "up.log"):
        (tmp_path / name).symlink_to(precious)
    write_private(tmp_path / "fleet.json", b"new")
    assert (tmp_path / "fleet.json").read_bytes() == b"new"
    with pytest.raises(OSError, match=r"symbolic links|Too many"):
        open_private(tmp_path / "up.log")
    assert precious.read_text() == "mine"


def test_somebody_elses_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted").touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="another user"):
        make_private(tmp_path)


def test_deleted_prompts_are_in_no_file_any_more(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / STORE_FILE}")
    words = b"a very private prompt"
    store.begin_file(File("f", "me", "in", "batch", 0, None))
    store.append("f", 0, words)
    store.finish_file("f", len(words))
    kept = sqlite3.connect(tmp_path / STORE_FILE)  # as a process that holds the database open
    assert any(words in path.read_bytes() for path in tmp_path.iterdir())
    store.delete_file("me", "f")
    assert not any(words in path.read_bytes() for path in tmp_path.iterdir())
    kept.close()
    store.close()


@pytest.mark.parametrize(("known", "said", "status"), [("s", "s", 200), ("s", "t", 403), ("s", None, 403), ("", "", 403)])
def test_control_answers_its_own_fleet_only(known: str, said: str | None, status: int) -> None:
    app = Starlette(routes=[Route("/v1/files", lambda _: PlainTextResponse("prompts"))])
    headers = {"x-sageserve-key": "somebody", **({} if said is None else {"x-sageserve-secret": said})}
    got = TestClient(FleetOnly(app, known)).get("/v1/files", headers=headers)
    assert got.status_code == status
    assert ("prompts" in got.text) == (status == 200)
