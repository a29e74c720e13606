"""The order of the house, counted: names that stand for two things, files per room, arrows that point back, sizes.

    python -m bench.house [CHECKOUT]        one JSON line per figure, of this checkout or of another one

Judges nothing: `tests/test_house.py` does, by the same functions. An arrow is an import between two members of one folder; those
that point back are what grimp would take out so that no circle is left. Read next: docs/why/decisions/0006-names-and-rooms.md.
"""

import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import grimp

ROOT: Final = Path(__file__).resolve().parent.parent
ROOMY: Final = ("data", "sim")  # layers whose files stand in rooms


def sources(checkout: Path) -> Iterator[Path]:
    """Every file of the package, in order."""
    return iter(sorted((checkout / "src" / "sageserve").rglob("*.py")))


def public_classes(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Where each public class name is defined, classes inside classes and functions included.

    Args:
        files: the text of each file by its name.
    """
    found = defaultdict(list)
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(f"{name}:{node.lineno}")
    return dict(found)


def rooms(checkout: Path) -> dict[str, int]:
    """Files of every folder of the layers that have rooms, without `__init__.py`."""
    package = checkout / "src" / "sageserve"
    found: dict[str, int] = defaultdict(int)
    for layer in ROOMY:
        for path in (package / layer).rglob("*.py"):
            found[path.parent.relative_to(package).as_posix()] += path.name != "__init__.py"
    return dict(found)


def arrows(checkout: Path) -> Iterator[tuple[str, int, int]]:
    """(package, imports between its members, how many of these must go so that no circle is left), for every package."""
    sys.path.insert(0, str(checkout / "src"))
    try:
        graph = grimp.build_graph("sageserve", cache_dir=None)
    finally:
        sys.path.remove(str(checkout / "src"))
    for package in sorted(module for module in graph.modules if graph.find_children(module)):
        members = {one: child for child in graph.find_children(package) for one in {child, *graph.find_descendants(child)}}
        pairs = {
            (members[one], members[other])
            for one in members
            for other in graph.find_modules_directly_imported_by(one)
            if members.get(other, members[one]) != members[one]
        }
        back = {(members[one], members[other]) for one, other in graph.nominate_cycle_breakers(package)}
        yield package, len(pairs), len(back)


def longest(checkout: Path) -> tuple[int, int]:
    """Lines of the longest file and of the longest function."""
    texts = [path.read_text("utf-8") for path in sources(checkout)]
    functions = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return max(len(text.splitlines()) for text in texts), max(functions)


def show(name: str, value: int, what: str) -> None:
    """Print one figure."""
    print(json.dumps({"name": name, "value": value, "unit": what}))


def main(checkout: Path) -> None:
    """Print every figure of a checkout."""
    files = {path.relative_to(checkout).as_posix(): path.read_text("utf-8") for path in sources(checkout)}
    classes = public_classes(files)
    crowds = rooms(checkout)
    siblings = list(arrows(checkout))
    file_lines, function_lines = longest(checkout)
    show("classes", len(classes), "public class names")
    show("shared", sum(len(places) > 1 for places in classes.values()), "public class names that stand for several classes")
    show("room", max(crowds.values()), "files in the fullest folder of data and sim")
    show("arrows", sum(count for _, count, _ in siblings), "imports between members of one folder")
    show("back", sum(back for _, _, back in siblings), "of these, what must go so that no circle is left")
    show("circles", sum(back > 0 for _, _, back in siblings), "folders with a circle")
    show("file", file_lines, "lines of the longest file")
    show("function", function_lines, "lines of the longest function")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT)
