"""The page on tenants that share: what its example shows is what is printed, and that without weights it is as the page says.

Commands are run in this process, which has compiled the simulator already. Read next: docs/how-to/share-among-tenants.md;
`pages.py`.
"""

import json
import runpy
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from sageserve.cli.main import app
from tests.docs.pages import agree, steps

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "share-among-tenants.md"


def printed(line: str) -> str:
    done = CliRunner().invoke(app, [*shlex.split(line)[1:], *(["--no-report"] if " --out " in line else [])])
    assert done.exit_code == 0, done.stderr
    return "\n".join(text.rstrip() for text in done.stdout.splitlines())


def test_the_example_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    page, shown = PAGE.read_text("utf-8"), 0
    for step in steps(page):
        if step.file:
            (tmp_path / step.file).write_text(step.text + "\n", "utf-8")
            if step.file == "rush":
                with redirect_stdout(StringIO()) as said:
                    runpy.run_path(step.file)
                (tmp_path / "rush.csv").write_text(said.getvalue(), "utf-8")
        elif step.shown:
            shown += 1
            told = printed(step.text.splitlines()[-1])
            assert agree(step.shown, told), told
    assert shown == 2
    plain = json.loads(printed("sageserve simulate shared.yaml --trace rush.csv --set tenants=null --json"))
    assert f"{int(plain['tenants']['search']['attainment']['iw-n'] * 10_000) / 100}% of those of `search`" in page
