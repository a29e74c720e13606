"""The page on sizing: what it shows is what is printed, and the file it writes plays and keeps what was said.

Read next: docs/how-to/how-many-gpus.md, `pages.py`.
"""

import os
import sys
from pathlib import Path
from typing import Final

from sageserve.data.scenarios.load import load_scenario
from tests.docs.conftest import Typed
from tests.docs.pages import agree, steps

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "how-many-gpus.md"


def test_the_page_prints_what_it_shows(tmp_path: Path, typed: Typed) -> None:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # noqa: TID251  # commands are found as in a shell
    environment = {**os.environ, "PATH": programs, "COLUMNS": "100", "LC_ALL": "C.UTF-8"}  # noqa: TID251  # likewise
    for step in steps(PAGE.read_text("utf-8")):
        printed = typed(step, environment)
        assert not step.shown or agree(step.shown, printed), f"line {step.shown_line}: {step.text}\nprints\n{printed}"
    sized = load_scenario(tmp_path / "sized.yaml")
    assert sized.strategy.name == "fixed"
    assert sorted(sized.fleet.starts) == sorted(f"{r}/{m}/h200" for r in ("us-east", "us-west") for m in sized.models)
