"""Pages that show commands behind a `$` and what they print: all of it is printed.

What stands in a block of its own was printed by one of the commands before it. Read next: `pages.py`, `conftest.py`;
docs/how-to/plan-and-explain.md, docs/how-to/look-at-results.md.
"""

from pathlib import Path
from typing import Final

import pytest

from tests.docs.conftest import Typed
from tests.docs.pages import Step, agree, blocks
from tests.extended.conftest import given

PAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to"
AROUND: Final = {"COLUMNS": "100", "LC_ALL": "C.UTF-8"}


def prompts(text: str) -> list[tuple[str, str]]:
    """Commands of a block, and what is shown below each; a command of "" where a block begins with what is shown."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            if not found:
                found.append(("", []))
            found[-1][1].append(line)
    return [(command, "\n".join(shown)) for command, shown in found]


@pytest.mark.parametrize("page", ["plan-and-explain", pytest.param("look-at-results", marks=pytest.mark.extended)])
def test_what_a_page_shows_is_what_its_commands_print(page: str, typed: Typed) -> None:
    if page == "look-at-results" and not given("SAGESERVE_LONG"):
        pytest.skip("three comparisons over seeds, ten seconds: set SAGESERVE_LONG to run it")
    printed, compared = "", 0
    for block in blocks((PAGES / f"{page}.md").read_text("utf-8")):
        if block.kind or block.skipped:
            continue
        for command, shown in prompts(block.text):
            if command:
                more = " --no-report" if "--out" in command else ""  # which says nothing on this page
                said = typed(Step(block.line, "", command + more), AROUND)
                assert not shown or agree(shown, said), f"line {block.line}: {command}\nprints\n{said}"
                printed += f"{said}\n"
            else:
                assert all(f"{part.strip(chr(10))}\n" in printed for part in shown.split("\n…")), (
                    f"line {block.line}: nobody prints\n{shown}"
                )
            compared += bool(shown)
    assert compared >= 3
