"""The page on scale to zero: what its example shows is what is printed.

Commands are run in this process, which has compiled the simulator already. Read next: docs/how-to/scale-to-zero.md, `pages.py`.
"""

import shlex
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from sageserve.cli.main import app
from tests.docs.pages import agree, steps

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "scale-to-zero.md"


def test_the_example_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shown = 0
    for step in steps(PAGE.read_text("utf-8")):
        if step.file:
            (tmp_path / step.file).write_text(step.text + "\n", "utf-8")
        if step.file or not step.shown:
            continue
        shown += 1
        printed = ""
        for line in step.text.splitlines():
            done = CliRunner().invoke(app, [*shlex.split(line)[1:], *(["--no-report"] if " --out " in line else [])])
            assert done.exit_code == 0, done.stderr
            printed += done.stdout
        assert agree(step.shown, "\n".join(x.rstrip() for x in printed.splitlines())), printed
    assert shown == 2
