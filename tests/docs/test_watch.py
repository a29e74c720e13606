"""The page on watching: every command on it is one that is understood, and those that read a state folder are run on one.

`init`, `watch` and what speaks to a running process are tried in tests/live; here their words must only fit.
Read next: `pages.py`, docs/how-to/watch.md.
"""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.units import MINUTE
from sageserve.cli.main import app
from sageserve.data.scenarios.load import resolved_yaml
from tests.docs.pages import blocks
from tests.installed.commands import loaded
from tests.live.watch.stage import POOL, Pod, WatchStage, one_pool

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "watch.md"


def commands() -> list[list[str]]:
    """Words of every `sageserve` line of the page, without comments and what is piped on."""
    lines = [line for block in blocks(PAGE.read_text("utf-8")) if block.kind == "sh" for line in block.text.splitlines()]
    words = [shlex.split(line.partition("|")[0], comments=True) for line in lines]
    return [one[1:] for one in words if one[:1] == ["sageserve"]]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What half an hour of watching leaves."""
    folder = tmp_path_factory.mktemp("watched")
    stage = WatchStage(folder, [Pod("a", per_s=1.0), Pod("b", per_s=1.0)])
    stage.look()
    stage.run(10 * MINUTE)
    (folder / "scenario.yaml").write_text(resolved_yaml(one_pool()), "utf-8")
    return folder


def test_every_command_of_the_page_is_understood() -> None:
    found = commands()
    assert len(found) >= 11
    for words in found:
        command = loaded()
        name, *rest = words
        command.commands[name].make_context(name, [word if word != "STATE" else "/tmp" for word in rest])  # noqa: S108 # a name


def test_reports_are_read_from_a_folder_that_was_watched(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "sageserve-watch").symlink_to(state)
    ran = 0
    for words in commands():
        if words[0] in {"shadow-report", "explain"} and "~/.local/state/sageserve" not in words:
            given = [str(state) if word == "STATE" else POOL if word == "east/llama-70b" else word for word in words]
            answer = CliRunner().invoke(app, given)
            assert answer.exit_code == 0, (words, answer.output, answer.exception)
            ran += 1
            if "--json" in words:
                assert json.loads(answer.stdout)["harm"] == 0.0
    assert ran == 5
    assert (tmp_path / "shadow.html").stat().st_size > 1000


def test_files_that_the_page_names_are_there(state: Path) -> None:
    named = set(re.findall(r"^\| `([a-z./-]+)[A-Z`]", PAGE.read_text("utf-8"), re.MULTILINE))
    assert {"journal/", "minutes/minutes-", "demand.jsonl", "instances.json"} <= named
    assert all(any(str(one.relative_to(state)).startswith(name.rstrip("/")) for one in state.rglob("*")) for name in (
        "journal", "minutes/minutes-", "demand.jsonl", "instances.json",
    ))  # fmt: skip
