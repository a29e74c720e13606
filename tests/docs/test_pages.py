"""Every page: links lead somewhere, commands exist with their options, lists stand apart, and the site's menu has all of them.

Links and headings are checked as a checkout shows them; `make docs` checks them again as the site does.
Read next: `pages.py`, zensical.toml.
"""

import importlib.util
import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Final

import pytest
from typer.core import TyperCommand, TyperGroup

from sageserve.live.actuators.local import LocalActuator
from tests.docs.pages import blocks
from tests.installed.commands import loaded

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "bench" / "README.md"])
LINK: Final = re.compile(r"(?<!!)\[[^]]*\]\((?P<to>[^)\s]+)\)")
ITEM: Final = re.compile(r"^(?:[*-]|\d+\.) ")
COMMAND: Final = re.compile(r"^(?:\$ |    )?(?P<text>(?:(?:python|make|sageserve) .*))$")
UNLESS_NAMED: Final = {"plan": "make"}  # `sageserve plan SCENARIO` is `sageserve plan make SCENARIO`
OPERATORS: Final = {"|", "&", ">", "<", "&&", ";"}
Rule = Callable[[str, str], Iterator[str]]
PLACES: Final = re.compile(r"[A-Z][A-Z_/.…]*|…|\.\.\.")  # words that stand for something of the reader's


def prose(page: str) -> Iterator[tuple[int, str]]:
    """Lines outside fenced blocks, numbered from 1."""
    fenced = {n for block in blocks(page) for n in range(block.line - 1, block.line + block.text.count("\n") + 2)}
    return ((n, line) for n, line in enumerate(page.splitlines(), start=1) if n not in fenced)


def anchors(page: str) -> set[str]:
    """What links may name of a page: its headings, as GitHub writes them."""
    titles = [re.sub(r"^#+ ", "", line) for _, line in prose(page) if re.match(r"^#+ ", line)]
    plain = [LINK.sub(lambda match: match[0][1:].split("](")[0], title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


def lost_links(name: str, page: str) -> Iterator[str]:
    """Links within the repository that lead nowhere."""
    here = ROOT / name
    for number, line in prose(page):
        for match in LINK.finditer(re.sub(r"`[^`]*`", "``", line)):
            path, _, anchor = match["to"].partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            there = (here.parent / path).resolve() if path else here
            if path and not there.exists():
                yield f"{name}:{number}: {path} is not there"
            elif anchor and anchor not in anchors(page if there == here else there.read_text("utf-8")):
                yield f"{name}:{number}: {match['to']}: no such heading"


def run_on(name: str, page: str) -> Iterator[str]:
    """Lists and tables that begin in the middle of a paragraph, and paragraphs that begin in the middle of a list."""
    last = (0, "")
    for number, line in prose(page):
        adjacent = last[1] if last[0] == number - 1 else ""
        in_list = ITEM.match(adjacent) is not None or (adjacent.startswith("  ") and not adjacent.startswith("    "))
        if ITEM.match(line) and adjacent.strip() and not in_list and not adjacent.startswith("#"):
            yield f"{name}:{number}: leave a line free before a list"
        if line.startswith("|") and adjacent.strip() and not adjacent.startswith(("|", "#")):
            yield f"{name}:{number}: leave a line free before a table"
        if in_list and line.strip() and not line.startswith(" ") and not ITEM.match(line):
            yield f"{name}:{number}: leave a line free after a list"
        last = (number, line)


def typed(page: str) -> Iterator[tuple[int, list[str]]]:
    """Commands of ours in blocks and indented lines, as words up to the first operator of the shell."""
    fenced = [(block.line, block.text) for block in blocks(page) if block.kind in {"", "sh"}]
    indented = "\n".join(line if line.startswith("    ") else "" for line in page.splitlines())
    for begin, text in [*fenced, (1, indented)]:
        for number, line in enumerate(re.sub(r"\\\n", " \0", text).splitlines(), start=begin):
            if match := COMMAND.match(line.replace("\0", " ")):
                yield number, list(takewhile(lambda word: word not in OPERATORS, shlex.split(match["text"], comments=True)))


def unknown_words(words: list[str], tree: TyperGroup, targets: Mapping[str, object]) -> Iterator[str]:
    """What of a command there is not: a make target, a module of bench, a subcommand, an option."""
    match words:
        case ["make", *rest]:
            yield from (f"make {word}" for word in rest if "=" not in word and not word.startswith("-") and word not in targets)
        case ["python", "-m", module, *_]:
            if module.startswith("bench") and importlib.util.find_spec(module) is None:
                yield f"module {module}"
        case ["sageserve", *rest]:
            yield from unknown_options(rest, tree)
        case _:
            pass


def unknown_options(words: list[str], command: object) -> Iterator[str]:
    """Subcommands and options that a command does not have."""
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        name = words[0] if words[0] in command.commands else UNLESS_NAMED.get(command.name or "", words[0])
        below = command.commands.get(name)
        if below is None:
            if not PLACES.fullmatch(name):
                yield f"sageserve {name}"
            return
        words = words[name == words[0] :]
        command = below
    assert isinstance(command, TyperCommand | TyperGroup)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h"}
    for word in words:
        if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known:
            yield f"{command.name} {word}"


def make_targets() -> dict[str, object]:
    lines = (ROOT / "Makefile").read_text("utf-8").splitlines()
    return {match[1]: None for line in lines if (match := re.match(r"^([a-z][a-z-]*):(?!=)", line))}


def wrong_commands(name: str, page: str) -> Iterator[str]:
    """Commands on a page that would not work as they stand there."""
    tree = loaded()
    targets = make_targets()
    for number, words in typed(page):
        yield from (f"{name}:{number}: there is no {what}" for what in unknown_words(words, tree, targets))


RULES: Final[tuple[Rule, ...]] = (lost_links, run_on, wrong_commands)
BAD_SAMPLES: Final[list[tuple[Rule, str, str]]] = [
    (lost_links, "docs/a.md", "see [there](nowhere.md)"),
    (lost_links, "docs/a.md", "see [there](index.md#nowhere)"),
    (lost_links, "docs/a.md", "# Here\nsee [below](#there)"),
    (lost_links, "README.md", "see [there](../docs/index.md)"),
    (run_on, "docs/a.md", "Three things:\n* one"),
    (run_on, "docs/a.md", "It is\n400. Really"),
    (run_on, "docs/a.md", "* one\n  and more\nAnd so on."),
    (run_on, "docs/a.md", "Rows:\n| a | b |"),
    (wrong_commands, "docs/a.md", "```sh\nmake nothing\n```"),
    (wrong_commands, "docs/a.md", "    sageserve simulate quickstart --nothing 3"),
    (wrong_commands, "docs/a.md", "```sh\nsageserve simulate \\\n  --nothing\n```"),
    (wrong_commands, "docs/a.md", "```\n$ sageserve simulates quickstart\n```"),
    (wrong_commands, "docs/a.md", "```sh\npython -m bench.nothing\n```"),
]
GOOD: Final = """# Two words: `here` and there

See [below](#two-words-here-and-there), [the index](index.md) and [the web](https://example.org/#x).

* one
  and more
* two

```sh
sageserve simulate quickstart --strategy lt-ua --out run     # --nothing
make test PY=python3.12 | less --nothing
* no list
```
"""


@pytest.mark.parametrize(("rule", "name", "page"), BAD_SAMPLES)
def test_rule_sees_what_it_is_for(rule: Rule, name: str, page: str) -> None:
    assert len(list(rule(name, page))) == 1


@pytest.mark.parametrize("rule", RULES)
def test_rule_leaves_a_good_page_alone(rule: Rule) -> None:
    assert list(rule("docs/a.md", GOOD)) == []


@pytest.mark.parametrize("rule", RULES)
def test_pages_keep_the_rule(rule: Rule) -> None:
    found = [line for path in PAGES for line in rule(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))]
    assert not found, "\n".join(found)


def test_the_menu_has_every_page_once_and_no_other() -> None:
    menu = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    assert sorted(entries(menu)) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert [title for part in menu for title in part] == ["SageServe", "Tutorial", "How to", "Reference", "Why"]


def entries(menu: object) -> Iterator[str]:
    """Pages of a menu, whatever they are grouped by."""
    match menu:
        case str():
            yield menu
        case dict():
            for below in menu.values():
                yield from entries(below)
        case list():
            for below in menu:
                yield from entries(below)
        case _:
            raise AssertionError(menu)


def test_engines_of_examples_listen_on_this_machine_alone() -> None:
    """Without --host vLLM is open to everyone who reaches the machine; {host} is the loopback address."""
    commands = [line for page in PAGES for line in page.read_text("utf-8").splitlines() if "command: [vllm, serve" in line]
    assert commands
    assert all('--host, "{host}"' in line for line in commands), commands
    assert inspect.signature(LocalActuator).parameters["host"].default == "127.0.0.1"
