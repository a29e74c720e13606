"""The page on prefill and decode apart: the plan that it shows is the plan that is made.

The days that its tables are of take minutes, and nobody plays them here. Read next: docs/how-to/disaggregate.md, `pages.py`.
"""

from pathlib import Path
from typing import Final

from tests.docs.conftest import Typed
from tests.docs.pages import agree, steps

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "disaggregate.md"


def test_the_plan_that_is_shown_is_made(typed: Typed) -> None:
    shown = 0
    for step in steps(PAGE.read_text("utf-8")):
        if not step.file and not step.shown:
            continue
        printed = typed(step, {"COLUMNS": "100", "LC_ALL": "C.UTF-8"})
        assert not step.shown or agree(step.shown, printed), f"line {step.shown_line}: {step.text}\nprints\n{printed}"
        shown += bool(step.shown)
    assert shown == 1
