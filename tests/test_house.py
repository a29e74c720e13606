"""The order of the house: one name for one class, rooms of few files, and prose that names only files there are.

The counting is `bench/house.py`'s, which prints the numbers; the direction of imports is checked in `test_tidy.py`. Each rule is
tried on a bad sample before it is trusted. Read next: docs/why/decisions/0006-names-and-rooms.md.
"""

import ast
import builtins
import re
from collections.abc import Container, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from bench.house import ROOT, public_classes, rooms, sources

FILES_PER_ROOM: Final = 10
ALLOWED_AT_MOST: Final = 5
ALLOWED_TWICE: Final[dict[str, str]] = {}  # class name: why two classes must have it; the list only shrinks
PACKAGE: Final = ROOT / "src" / "sageserve"
TOPS: Final = ("src", "tests", "bench", "docs")
LAYERS: Final = ("base", "core", "data", "sim", "live", "show", "cli")
FILE = re.compile(r"(?<![\w./:~$@-])(?P<path>(?:[\w.-]+/)*[\w-]+\.(?:py|md))(?![\w/*])")
INSIDE = re.compile(r"`(?P<path>(?:" + "|".join(TOPS + LAYERS) + r")/[\w./-]*)`")
CLASS = re.compile(r"`(?P<name>[A-Z][a-z]\w*)(?:\.[\w.]+)?`")
RAISED = re.compile(r" *(?P<names>[A-Z][\w.]*(?:, [A-Z][\w.]*)*): ")
WRITTEN = re.compile(r'^```\w+ title="[^"]+"$')  # a file that the reader of a page writes
LINK = re.compile(r"\]\([^)]*\)")  # what a link leads to is checked as a link, with its anchor


@cache
def mentions(name: str, text: str) -> tuple[tuple[int, str], ...]:
    """Lines of a file where prose may name paths: docstrings of code, all of a document but the targets of its links."""
    if not name.endswith(".py"):
        return tuple(enumerate((LINK.sub("]", WRITTEN.sub("```", line)) for line in text.splitlines()), start=1))
    return facts(text).docstrings


def lost_paths(name: str, text: str) -> Iterator[str]:
    """Paths that a file names and that are not beside it, nor beside what it tests, nor in its layer, the package or the root."""
    here = (ROOT / name).parent
    twin = PACKAGE / here.relative_to(ROOT / "tests") if here.is_relative_to(ROOT / "tests") else here
    layer = [PACKAGE / twin.relative_to(PACKAGE).parts[0]] if twin.is_relative_to(PACKAGE) and twin != PACKAGE else []
    starts = [here, twin, *layer, PACKAGE, ROOT]
    for number, line in mentions(name, text):
        for path in sorted({match["path"] for pattern in (FILE, INSIDE) for match in pattern.finditer(line)}):
            if not any((start / path).exists() for start in starts):
                yield f"{name}:{number}: {path} is not there"


def known_names(texts: Iterable[str]) -> set[str]:
    """Every name that code defines, imports or uses."""
    return set().union(*(facts(text).names for text in texts))


class Facts(NamedTuple):
    """What is looked for in a file of code: lines of its docstrings, and every name that it defines, imports or uses."""

    docstrings: tuple[tuple[int, str], ...]
    names: frozenset[str]


@cache
def facts(text: str) -> Facts:
    """Of one file; it is parsed once for all rules."""
    lines: list[tuple[int, str]] = []
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            said := ast.get_docstring(node)
        ):
            lines += enumerate(said.splitlines(), start=node.body[0].lineno)
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.ClassDef(name=name) | ast.alias(name=name):
                names.update(name.split("."))
            case _:
                pass
    return Facts(tuple(lines), frozenset(names))


def lost_errors(name: str, text: str, known: Container[str]) -> Iterator[str]:
    """Errors that docstrings say are raised and that nobody defines: a name that has changed since."""
    raises, before = False, 0
    for number, line in mentions(name, text):
        raises = line.strip() == "Raises:" or (
            raises and line.strip() != "" and number == before + 1
        )  # and in the same docstring
        before = number
        for error in match["names"].split(", ") if raises and (match := RAISED.match(line)) else ():
            if error.rpartition(".")[2] not in known and not hasattr(builtins, error):
                yield f"{name}:{number}: no error is called {error}"


def lost_classes(name: str, text: str, known: Container[str]) -> Iterator[str]:
    """Classes that docstrings name in backticks and that no code knows."""
    for number, line in mentions(name, text):
        for match in CLASS.finditer(line):
            if match["name"] not in known:
                yield f"{name}:{number}: no class is called {match['name']}"


def code() -> list[Path]:
    """Every file of ours that is Python."""
    return sorted(path for top in ("src", "tests", "bench") for path in (ROOT / top).rglob("*.py"))


def prose() -> list[Path]:
    """Every file whose mentions of paths are checked."""
    return sorted([*code(), *ROOT.glob("*.md"), *(ROOT / "bench").glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_no_two_classes_share_a_public_name() -> None:
    classes = public_classes({path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sources(ROOT)})
    assert len(classes) > 100, "the code was not found"
    shared = {name: places for name, places in classes.items() if len(places) > 1}
    unwanted = [f"{name}: {', '.join(places)}" for name, places in shared.items() if name not in ALLOWED_TWICE]
    assert not unwanted, "give each class a name of its own:\n" + "\n".join(unwanted)
    assert ALLOWED_TWICE.keys() <= shared.keys(), "names that nobody shares any more leave the list"
    assert len(ALLOWED_TWICE) <= ALLOWED_AT_MOST
    assert all(len(reason) > 10 for reason in ALLOWED_TWICE.values())


def test_a_shared_name_is_seen() -> None:
    files = {"a.py": "class One: ...\nclass _Two: ...\n", "b.py": "def f():\n    class One: ...\nclass _Two: ...\n"}
    assert public_classes(files) == {"One": ["a.py:1", "b.py:2"]}


def test_rooms_hold_few_files() -> None:
    counted = rooms(ROOT)
    assert {"data/traces", "sim/kernel"} <= counted.keys()
    crowded = [f"{room}: {files} files" for room, files in counted.items() if files > FILES_PER_ROOM]
    assert not crowded, f"make another room at {FILES_PER_ROOM} files: {', '.join(crowded)}"


def test_a_crowded_room_is_seen(tmp_path: Path) -> None:
    room = tmp_path / "src" / "sageserve" / "data" / "traces"
    room.mkdir(parents=True)
    for name in ("__init__", *(f"file_{k}" for k in range(FILES_PER_ROOM + 1))):
        (room / f"{name}.py").touch()
    assert rooms(tmp_path) == {"data/traces": FILES_PER_ROOM + 1}


@pytest.mark.parametrize("said", ["Nowhere: it is", "ValueError, Nowhere: it is", "Known: it is.\n        Nowhere: it is"])
def test_an_error_that_nobody_defines_is_seen(said: str) -> None:
    text = f'def f():\n    """Do.\n\n    Raises:\n        {said}.\n\n    Afterwards: nothing.\n    """\n'
    assert [line.rpartition(" ")[2] for line in lost_errors("a.py", text, {"Known"})] == ["Nowhere"]


def test_errors_that_docstrings_name_are_there() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in sources(ROOT)}
    known = known_names(texts.values())
    lost = [line for name, text in texts.items() for line in lost_errors(name, text, known)]
    assert not lost, "say what is raised by its name today:\n" + "\n".join(lost)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/sageserve/core/a.py", '"""Read next: `fleet_view.py`."""'),
        ("src/sageserve/core/a.py", 'def f():\n    """As docs/reference/nowhere.md says."""'),
        ("src/sageserve/core/a.py", '"""`live/nowhere/` obeys it."""'),
        ("docs/why/a.md", "see `core/nowhere.py`"),
        ("docs/why/a.md", "    pytest tests/nowhere.py"),
        ("README.md", "see `core/forecasts`"),
    ],
)
def test_a_path_that_leads_nowhere_is_seen(name: str, text: str) -> None:
    assert len(list(lost_paths(name, text))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "src/sageserve/core/strategies/a.py",
            '"""`reactive.py`, `fleet.py`, `core/route.py`, `live/wire.py`, docs/index.md."""',
        ),
        ("src/sageserve/core/a.py", 'PATH = "nowhere.py"'),
        ("tests/core/test_a.py", '"""Read next: `route.py`, `driven.py`."""'),
        ("docs/reference/a.md", "`core/forecast`, `tests/parity`, `sim/` and [there](nowhere.md)"),
    ],
)
def test_a_path_that_leads_somewhere_is_left_alone(name: str, text: str) -> None:
    assert list(lost_paths(name, text)) == []


def test_every_path_in_prose_leads_somewhere() -> None:
    lost = [line for path in prose() for line in lost_paths(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))]
    assert not lost, "\n".join(lost)


def test_a_class_that_is_gone_is_seen() -> None:
    known = known_names(["import numpy as np\nclass Fleet(np.Generic): ..."])
    assert known == {"numpy", "Fleet", "np", "Generic"}
    text = '"""Read next: `Fleet`, `Fleet.start`, `Fleets.start`, `H100`."""'
    assert list(lost_classes("src/a.py", text, known)) == ["src/a.py:1: no class is called Fleets"]


def test_every_class_in_docstrings_is_there() -> None:
    texts = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in code()}
    known = known_names(texts.values())
    lost = [line for name, text in texts.items() for line in lost_classes(name, text, known)]
    assert not lost, "\n".join(lost)
