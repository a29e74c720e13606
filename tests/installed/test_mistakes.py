"""Mistakes made with an installed wheel: each gets a sentence that is true and a next step, exit code 2, and no traceback.

They are made one after another in one process. Readers that left and full disks are in `tests/cli/test_streams.py`, narrow
terminals in `tests/cli/test_widths.py`, missing extras in `test_extras.py`. Read next: `mistakes.py`, which has the list;
`src/sageserve/cli/main.py`, where errors become text.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from sageserve.cli.main import MISTAKE, run
from tests.installed.conftest import Installed
from tests.installed.mistakes import CASES


@pytest.fixture(scope="module")
def answers(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was said to each, as the interpreter of the environment has it."""
    folder = tmp_path_factory.mktemp("mistakes")
    ran = installed.python(str(Path(__file__).with_name("mistakes.py")), str(folder), full=True)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_there_are_more_than_fifty() -> None:
    assert len({line for line, _ in CASES}) == len(CASES) >= 140


@pytest.mark.parametrize(("line", "truth"), CASES, ids=[line for line, _ in CASES])
def test_a_mistake_is_answered_by_a_sentence_and_a_next_step(line: str, truth: str, answers: dict[str, Any]) -> None:
    answer = answers[line]
    said = answer["err"]
    assert answer["code"] == MISTAKE, said
    assert not answer["out"]
    assert "Traceback" not in said
    assert re.search(truth, re.sub(r"[│\s]+", " ", said)), said
    assert re.search(r"^try: \S|^Try '", said, re.MULTILINE), "what to do next"
    assert answer["left"] == [], "nothing is left behind"


def test_a_narrow_terminal_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys, "argv", ["sageserve", "simulate", "quikstart"])
    with pytest.raises(SystemExit) as left:
        run()
    assert left.value.code == MISTAKE
    assert "did you mean 'quickstart'?" in capsys.readouterr().err


def test_what_an_extra_brings_is_named_where_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sageserve.cli.extras.find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["sageserve", "top", "--state", "nowhere"])
    with pytest.raises(SystemExit) as left:
        run()
    assert left.value.code == MISTAKE
    assert "pip install 'sageserve[live]'" in capsys.readouterr().err
