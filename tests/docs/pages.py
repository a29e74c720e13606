"""Pages as they are read: fenced blocks, the commands a reader would type, and what is shown of their output.

    ```sh                 commands; what they print is the next block, if that is ```text
    ```yaml title="F"     a file that the reader writes
    <!-- not run: why --> before a block: nobody runs it

In shown output `…` stands for anything within a line, and a line that is `…` for any lines. Judges no page.

Read next: `test_tutorial.py`.
"""

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FENCE: Final = re.compile(r'^```(?P<kind>\w+)?(?: title="(?P<title>[^"]+)")?\s*$')
_SKIP: Final = re.compile(r"^<!-- not run: .+ -->$")
_ANY: Final = "…"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the line its text begins on (from 1), what it is, the file it stands for, and whether nobody runs it."""

    line: int
    kind: str
    title: str
    skipped: bool
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """What a reader does next: write a file, or type commands and read what they print (empty: nothing is shown)."""

    line: int
    file: str
    text: str
    shown: str = ""
    shown_line: int = 0


def blocks(page: str) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    lines = page.splitlines()
    at = 0
    while at < len(lines):
        if opened := _FENCE.match(lines[at]):
            end = lines.index("```", at + 1)
            skipped = at > 0 and _SKIP.match(lines[at - 1]) is not None
            yield Block(at + 2, opened["kind"] or "", opened["title"] or "", skipped, "\n".join(lines[at + 1 : end]))
            at = end
        at += 1


def steps(page: str) -> Iterator[Step]:
    """What a reader of a page does, in order."""
    found = list(blocks(page))
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.title:
            yield Step(block.line, block.title, block.text)
        elif block.kind == "sh" and not block.skipped:
            shown = after if after is not None and after.kind == "text" and not after.title else None
            yield Step(block.line, "", block.text, shown.text if shown else "", shown.line if shown else 0)


def do(step: Step, folder: Path, environment: Mapping[str, str]) -> str:
    """What a step prints when it is done in a folder.

    Raises:
        AssertionError: a command failed.
    """
    if step.file:
        (folder / step.file).write_text(step.text + "\n", "utf-8")
        return ""
    command = ["bash", "-euo", "pipefail", "-c", step.text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"line {step.line}: {step.text}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def agree(shown: str, printed: str) -> bool:
    """Whether output is what a page shows."""
    parts = [
        r"(?:.*\n)*?" if line.strip() == _ANY else ".*".join(re.escape(part) for part in line.split(_ANY)) + r"\n"
        for line in shown.splitlines()
    ]
    return re.fullmatch("".join(parts), printed + "\n") is not None
