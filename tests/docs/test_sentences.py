"""Sentences that pages say one will see: somewhere in the code somebody says them.

A sentence of the code has holes, and what a page shows has examples there: between them it must be the same, word for word.
Read next: the tables of docs/how-to/raise-the-floor.md, `test_figures.py`.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
CODE: Final = ROOT / "src" / "sageserve"
HEADS: Final = ("| what you see |", "| it says |")
ROOMS: Final = ("live", "sim/calibration", "core/authority")
COMMANDS: Final = "acting calibrate_benchmark chart_files kube orders render_agent render_chart render_gateways"
FILES: Final = tuple(f"cli/{name}.py" for name in COMMANDS.split())
OF_OTHERS: Final = {
    "roles.rbac.authorization.k8s.io is forbidden",  # Kubernetes
    "values don't meet the specifications of the schema",  # Helm
}
MOST: Final = 0.3  # of the letters; the others are examples
LIKELIEST: Final = 200  # texts that are looked at, by how many words they share
Parts = tuple[str, ...]


@cache
def said() -> dict[str, list[Parts]]:
    """Texts of the code, parted at their holes, by the words in them."""
    paths = [path for room in ROOMS for path in sorted((CODE / room).rglob("*.py"))] + [CODE / name for name in FILES]
    found: dict[str, list[Parts]] = {}
    for node in (node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8")))):
        if isinstance(node, ast.JoinedStr):
            parts = parts_of(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = tuple(re.split(r"\{\w+\}", node.value))
        else:
            continue
        for word in words(" ".join(parts)):
            found.setdefault(word, []).append(parts)
    return found


def words(text: str) -> set[str]:
    """Those of a text that tell it from others."""
    return set(re.findall(r"[\w-]{3,}", text))


def letters_said(piece: str) -> int:
    """Of a piece of a sentence, the letters that one text of the code has."""
    alike = Counter(parts for word in sorted(words(piece)) for parts in said().get(word, ()))
    return max((explained(piece, parts) for parts, _ in alike.most_common(LIKELIEST)), default=0)


def parts_of(text: ast.JoinedStr) -> Parts:
    """What stands before, between and behind the holes."""
    found = [""]
    for one in text.values:
        if isinstance(one, ast.Constant):
            found[-1] += str(one.value)
        else:
            found.append("")
    return tuple(found)


def explained(shown: str, parts: Parts) -> int:
    """Letters of what is shown that a text has; 0: it is no piece of that text."""
    if any(shown in part for part in parts):
        return len(shown)
    return max(_from(shown, parts, first) for first in range(len(parts)))


def _from(shown: str, parts: Parts, first: int) -> int:
    """The same, where what is shown begins in a part, or in the hole before it."""
    begin = next((size for size in range(min(len(parts[first]), len(shown)), 0, -1) if shown.startswith(parts[first][-size:])), 0)
    letters, at = begin, begin
    for part in parts[first + (begin > 0) :]:
        there = shown.find(part, at)
        if there < 0:
            cut = next((size for size in range(len(part), 0, -1) if shown[at:].endswith(part[:size])), 0)
            return letters + cut if cut else 0
        letters, at = letters + len(part), there + len(part)
    return letters


def shown() -> Iterator[tuple[str, str]]:
    """Every page and sentence in the first column of a table of what one sees."""
    for path in sorted((ROOT / "docs" / "how-to").glob("*.md")):
        head = ""
        for line in path.read_text("utf-8").splitlines():
            head = next((one for one in HEADS if line.startswith(one)), head if line.startswith("|") else "")
            cell = line.split("|")[1].strip() if head else ""
            if head and head.strip("| ") != cell and not cell.startswith("---"):
                quoted = re.findall(r"`([^`]+)`", cell)[:1] if cell.startswith("`") else []
                yield from ((path.name, one) for one in quoted or ([cell] if head == HEADS[1] else []))


@pytest.mark.parametrize(("page", "sentence"), [one for one in shown() if one[1] not in OF_OTHERS])
def test_somebody_says_what_a_page_says_is_seen(page: str, sentence: str) -> None:
    pieces = [piece.strip() for piece in re.split("…|; |: ", sentence) if piece.strip()]
    letters = sum(map(letters_said, pieces))
    assert letters >= MOST * sum(map(len, pieces)), f"{page}: nobody says {sentence!r}"


def test_many_sentences_are_held_and_one_that_nobody_says_is_not() -> None:
    assert len(list(shown())) > 60
    assert letters_said("the fleet has gone out for a walk in the park") < 14
