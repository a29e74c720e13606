"""The tutorial: every command of it is run in order, and prints what the page shows; what serves, as a reader would.

Read next: docs/tutorial/ten-minutes.md, `pages.py`.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.docs.conftest import Typed
from tests.docs.pages import Step, agree, steps

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "tutorial" / "ten-minutes.md"
SHORT: Final = "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 # a socket's path has 107 bytes, whatever TMPDIR is
PORT: Final = "8100"
WIDTH: Final = "100"  # columns of the terminal that the page shows


@pytest.mark.slow
def test_the_tutorial_prints_what_it_shows(typed: Typed) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("the tutorial is typed into bash and asks with curl, and one of them is not here")
    given = list(steps(PAGE.read_text("utf-8")))
    assert sum(bool(step.shown) for step in given) > 5
    port = free_port()
    environment = as_a_reader()
    try:
        for step in [elsewhere(one, port) for one in given]:
            printed = typed(step, environment)
            assert not step.shown or agree(step.shown, printed), (
                f"{PAGE.name}:{step.shown_line} shows\n{step.shown}\n\nand\n{step.text}\nprints\n{printed}"
            )
    finally:
        subprocess.run([sys.executable, "-m", "sageserve.cli.main", "down"], env=environment, capture_output=True, check=False)
        shutil.rmtree(environment["XDG_STATE_HOME"])


def as_a_reader() -> dict[str, str]:
    """The environment of somebody who has installed SageServe and knows nothing more; state has a short path, as at home."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # noqa: TID251  # commands are found as in a shell
    own = {"PATH": programs, "COLUMNS": WIDTH, "LC_ALL": "C.UTF-8", "XDG_STATE_HOME": tempfile.mkdtemp(dir=SHORT)}
    return {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | own  # noqa: TID251  # likewise


def elsewhere(step: Step, port: str) -> Step:
    """The same step with a port of its own: another fleet may have the usual one."""
    text = step.text.replace("sageserve up", f"sageserve up --port {port}")
    return replace(step, text=text.replace(PORT, port), shown=step.shown.replace(PORT, port))


def free_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def test_the_first_screen_is_what_the_tutorial_shows_and_the_demo_plays() -> None:
    tutorial = {step.text: step.shown for step in steps(PAGE.read_text("utf-8"))}
    (first,) = (step for step in steps((ROOT / "README.md").read_text("utf-8")) if step.shown)
    assert first.shown == tutorial[first.text]
    assert f"\n\t@$(BIN)/{first.text}\n" in (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb", "a\nb", True),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\n…", "a", True),
        ("up … s", "up 14 s", True),
        ("a", "a\nb", False),
        ("a\n…\nd", "a\nb\nc", False),
        ("80.48%", "80.49%", False),
        ("1.5", "1x5", False),
        ("a\nb", "a", False),
    ],
)
def test_output_that_is_not_as_shown_is_seen(shown: str, printed: str, same: bool) -> None:
    assert agree(shown, printed) is same


def test_steps_are_what_a_reader_does() -> None:
    page = (
        'Write\n```yaml title="a.yaml"\nx: 1\n```\nthen\n```sh\ncat a.yaml\n```\n\n```text\nx: 1\n```\n'
        "<!-- not run: it takes a day -->\n```sh\nsleep 86400\n```\n```text\nno output of anything\n```\n"
    )
    assert list(steps(page)) == [Step(3, "a.yaml", "x: 1"), Step(7, "", "cat a.yaml", "x: 1", 11)]
