"""The bill of materials is what users install: all of it pinned by hash, no tool of contributors, the same each time.

Read next: `bench/sbom.py`; `test_dependencies.py`.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bench.sbom import bill, locked, needed, wanted_by_users

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return bill(LOCK, PROJECT, "1.0")


def test_all_that_users_get_is_there_by_hash_and_no_tool_of_contributors(made: dict[str, Any]) -> None:
    names = {one["name"] for one in made["components"]}
    assert {"numpy", "pydantic", "pydantic-core", "lightkube", "grpcio", "uvicorn", "psycopg-binary"} <= names
    assert not names & {"pytest", "ruff", "mypy", "hypothesis", "playwright", "zensical", "sageserve"}
    for one in made["components"]:
        [files] = [each["hashes"] for each in one["externalReferences"]]
        assert files, one["name"]
        assert {len(each["content"]) for each in files} == {64}
        assert one["purl"] == one["bom-ref"] == f"pkg:pypi/{one['name']}@{one['version']}"


def test_every_reference_is_to_something_that_is_there(made: dict[str, Any]) -> None:
    known = {one["bom-ref"] for one in made["components"]}
    ours = made["metadata"]["component"]["bom-ref"]
    assert {one["ref"] for one in made["dependencies"]} == known | {ours}
    reached, left = set(), [ours]
    needs = {one["ref"]: one["dependsOn"] for one in made["dependencies"]}
    while left:
        reached.add(one := left.pop())
        left += [each for each in needs[one] if each not in reached]
    assert reached == known | {ours}, "nothing is in it for no reason"


def test_the_same_lock_gives_the_same_bytes_and_another_one_another_number(made: dict[str, Any]) -> None:
    assert json.dumps(made) == json.dumps(bill(LOCK, PROJECT, "1.0"))  # two of our own
    first = locked(LOCK)[1].hashes[0]
    assert bill(LOCK.replace(first, "0" * 64), PROJECT, "1.0")["serialNumber"] != made["serialNumber"]


def test_what_is_asked_for_brings_what_it_needs_and_nothing_else() -> None:
    text = "\n".join(
        [
            "a==1 \\",
            f"    --hash=sha256:{'a' * 64}",
            "    # via sageserve (pyproject.toml)",
            "b==2 ; sys_platform == 'win32' \\",
            f"    --hash=sha256:{'b' * 64}",
            "    # via",
            "    #   a",
            "    #   tool",
            "tool==3 \\",
            f"    --hash=sha256:{'c' * 64}",
            "    # via sageserve (pyproject.toml)",
        ]
    )
    project = {"dependencies": ["a>=1"], "optional-dependencies": {"dev": ["tool"], "all": ["sageserve[dev]"]}}
    assert wanted_by_users(project) == {"a"}
    assert [(one.name, one.marker) for one in needed(locked(text), {"a"})] == [("a", ""), ("b", "sys_platform == 'win32'")]
