"""The glossary: its words are used, its files are the right ones, and no name of the code is missing from it.

Names are read from the code's own tables, so that a new tier, state, reason or strategy must be documented.
Read next: docs/reference/glossary.md.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final, get_args

import pytest
import yaml

from sageserve.base.config import BatchSettings, OrderSettings, SignalSettings
from sageserve.base.config.settings import Settings
from sageserve.cli.compare import ORACLE
from sageserve.core.actions import Blocked, Reason, RolloutStep, RolloutWhy
from sageserve.core.fleet import State
from sageserve.core.plan.horizon import PlanReason
from sageserve.core.route import ROUTES
from sageserve.core.strategies import STRATEGIES
from sageserve.core.strategies.fixed import PREFIX, STARTED
from sageserve.core.strategies.recorded import NAME as RECORDED
from sageserve.live.store.models import BatchState, JobState
from sageserve.live.supervisor.messages import Life
from sageserve.live.telemetry.seen import BlindReason
from sageserve.sim.results.export import STATES

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "src" / "sageserve"
PAGE: Final = (ROOT / "docs" / "reference" / "glossary.md").read_text("utf-8")
WORDS: Final = ("The fleet", "Requests", "Decisions", "Around it")
OF_THE_FIELD: Final = ("SLO", "attainment", "replica", "autoscaler", "queue manager", "circuit breaker")


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of the one table below a heading."""
    section = re.split(r"^#+ ", page.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def choices(settings: type[Settings], name: str) -> tuple[str, ...]:
    """The words a setting may have."""
    return get_args(settings.model_fields[name].annotation)


def builtin_tiers() -> set[str]:
    files = [yaml.safe_load(path.read_text("utf-8")) for path in (PACKAGE / "data" / "builtin").glob("*.yaml")]
    return {name for file in files for name, tier in (file.get("tiers") or {}).items() if tier is not None}


NAMES: Final[dict[str, set[str]]] = {
    "Tiers": builtin_tiers(),
    "Strategies": {*STRATEGIES, RECORDED, STARTED, f"{PREFIX}N", ORACLE},
    "Signals": set(choices(SignalSettings, "kind")),
    "Routing": set(ROUTES),
    "Orders": set(choices(OrderSettings, "kind")),
    "Feeds": set(choices(BatchSettings, "feed")),
    "States of an instance": {state.name.lower() for state in State},
    "States of a simulated request": set(STATES.values()),
    "States of a job": {state.name.lower() for state in JobState},
    "States of a batch": set(BatchState),
    "States of a process": set(Life),
    "Reasons of decisions": set(Reason),
    "Steps of a rollout": set(RolloutStep),
    "Why a rollout took a step": set(RolloutWhy),
    "What stands in the way of a decision": set(Blocked),
    "Why an engine is not seen": set(BlindReason),
    "Why a pool has its number in foresight's plan": set(PlanReason),
}
TERMS: Final = [row for title in WORDS for row in rows(PAGE, title)]
SOURCES: Final = "\n".join(
    path.read_text("utf-8") for end in ("*.py", "*.yaml") for path in sorted(PACKAGE.rglob(end)) if "facts" not in path.parts
).lower()


def is_used(word: str) -> bool:
    """Whether a word, or its plural, stands in the source."""
    return re.search(rf"(?<![a-z]){re.escape(word)}(?:s|es)?(?![a-z])", SOURCES) is not None


@cache
def said_by(file: str) -> str:
    """The docstring of a module, on one line."""
    return " ".join((ast.get_docstring(ast.parse((PACKAGE / file).read_text("utf-8"))) or "").split())


@pytest.mark.parametrize("title", NAMES)
def test_every_name_of_the_code_is_explained_and_no_other(title: str) -> None:
    assert NAMES[title]
    assert {row[0].strip("`") for row in rows(PAGE, title)} == NAMES[title]


def test_a_name_that_is_missing_is_seen() -> None:
    page = "## Feeds\n\n| a | b |\n|---|---|\n| `steps` | one by one |\n\n## Orders\n\n| a | b |\n|---|---|\n| `edf` | c |\n"
    assert rows(page, "Feeds") == [["`steps`", "one by one"]]


@pytest.mark.parametrize("term", [term for row in TERMS for term in row[0].split(", ")])
def test_every_term_is_used(term: str) -> None:
    assert is_used(term)


def test_a_word_that_nobody_uses_is_seen() -> None:
    assert not is_used("hypervisor")


def test_no_term_is_explained_twice() -> None:
    terms = [term for row in TERMS for term in row[0].split(", ")]
    assert len(terms) > 30
    assert sorted(terms) == sorted(set(terms))
    assert all(row[2] for row in TERMS)


@pytest.mark.parametrize("row", TERMS, ids=lambda row: row[0])
def test_every_term_says_where_to_begin(row: list[str]) -> None:
    """In the file that is named, the module's docstring speaks of the term or of one of the field's words for it."""
    said = said_by(row[3].strip("`")).lower()
    field = re.sub(r"\(.*?\)", "", row[1])
    words = [word.strip() for word in f"{row[0]}, {field}".lower().split(",") if word.strip()]
    assert any(re.search(rf"\b{re.escape(word)}", said) for word in words), f"{row[3]} speaks of none of {', '.join(words)}"


@pytest.mark.parametrize("word", OF_THE_FIELD)
def test_a_search_for_the_fields_word_finds_the_place(word: str) -> None:
    [row] = [row for row in TERMS if re.search(rf"(?:^|, ){re.escape(word)}(?:$|,| \()", f"{row[1]}, {row[0]}")]
    assert re.search(rf"\b{re.escape(word)}s?\b", said_by(row[3].strip("`")), re.IGNORECASE)


def test_the_index_leads_here() -> None:
    assert "reference/glossary.md" in (ROOT / "docs" / "index.md").read_text("utf-8")
