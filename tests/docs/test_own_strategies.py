"""The pages about strategies and rules of one's own: files are written, commands are typed, and what they show is printed.

Commands are run in this process, which has compiled the simulator already.
Read next: docs/how-to/own-strategies.md, docs/how-to/own-routers.md, `pages.py`.
"""

import shlex
import sys
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from sageserve.cli.main import app
from tests.docs.pages import agree, steps

PAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to"


@pytest.mark.parametrize(("page", "files"), [("own-strategies", ["mine.py", "yesterday.py"]), ("own-routers", ["mine.py"])])
def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str, files: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    given = list(steps((PAGES / f"{page}.md").read_text("utf-8")))
    assert [step.file for step in given if step.file] == files
    for step in given:
        if step.file:
            lines = step.text.splitlines()
            assert len(lines) <= 28, "as short as the page promises"
            (tmp_path / step.file).write_text(step.text + "\n", "utf-8")
            continue
        done = CliRunner().invoke(app, shlex.split(step.text)[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        assert not step.shown or agree(step.shown, "\n".join(x.rstrip() for x in done.stdout.splitlines())), done.stdout
    for name in files:
        sys.modules.pop(name.removesuffix(".py"), None)
