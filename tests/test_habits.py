"""Habits: commits whose subjects fit a line and whose bodies give the reason, and a changelog that a person can read.

The rule on commits holds for those made since it was stated; without git history, or in a shallow clone, it is skipped and says
so. Read next: CONTRIBUTING.md, CHANGELOG.md.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from sageserve import __version__

ROOT: Final = Path(__file__).resolve().parent.parent
SUBJECT_AT_MOST: Final = 72  # what `git log --oneline` shows in a terminal of 80 columns
# The first under the rule is "Hold names, rooms and paths in prose to a test".
STATED: Final = datetime.fromisoformat("2026-11-26T20:00:00+00:00")
KINDS: Final = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")  # keepachangelog.com
ENTRY = re.compile(r"^## \[(?P<version>[^]]+)\](?: - (?P<day>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def bad_habits(commit: str, message: str) -> Iterator[str]:
    """What is wrong with one commit's message."""
    subject, _, rest = message.strip().partition("\n")
    if len(subject) > SUBJECT_AT_MOST:
        yield f"{commit}: the subject has {len(subject)} characters, {SUBJECT_AT_MOST} at most: {subject}"
    if not rest.strip():
        yield f"{commit}: the body gives no reason: {subject}"
    elif not rest.startswith("\n"):
        yield f"{commit}: leave a line free below the subject: {subject}"


def git(*arguments: str) -> str:
    """What git says of this checkout; the test is skipped where it can say nothing."""
    program = shutil.which("git")
    if program is None or not (ROOT / ".git").exists():
        pytest.skip("commits are checked in a checkout with git, and this is none")
    done = subprocess.run([program, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"commits cannot be checked, git says: {done.stderr.strip()}")
    return done.stdout


def test_commits_say_what_in_a_line_and_why_below_it() -> None:
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("commits are not checked in a shallow clone, which does not hold them: git fetch --unshallow")
    log = git("log", "--no-merges", "--format=%h%x00%aI%x00%B%x01").split("\x01\n")
    commits = [entry.split("\x00") for entry in log if entry.strip("\x01\n")]
    assert commits
    since = [(name, text.rstrip("\x01")) for name, day, text in commits if datetime.fromisoformat(day) >= STATED]
    wrong = [line for name, text in since for line in bad_habits(name, text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("message", ["x" * (SUBJECT_AT_MOST + 1) + "\n\nBecause.", "What", "What\n", "What\nwhy", "What\n\n \n"])
def test_a_bad_message_is_seen(message: str) -> None:
    assert len(list(bad_habits("abc", message))) == 1


def test_a_good_message_is_left_alone() -> None:
    assert list(bad_habits("abc", "x" * SUBJECT_AT_MOST + "\n\nBecause.\n")) == []


def bad_entries(text: str) -> Iterator[str]:
    """What is wrong with a changelog."""
    entries = [(match["version"], match["day"]) for match in ENTRY.finditer(text)]
    if not entries or entries[0] != ("Unreleased", None):
        yield "begin with ## [Unreleased]"
    released = entries[1:]
    if any(day is None for _, day in released):
        yield "a release has its day: ## [1.2.3] - 2026-11-26"
    if [day for _, day in released] != sorted((day for _, day in released), key=str, reverse=True):
        yield "the newest release comes first"
    for kind in re.findall(r"^### (.*)$", text, re.MULTILINE):
        if kind not in KINDS:
            yield f"{kind} is none of {', '.join(KINDS)}"
    if len(re.findall(r"^## ", text, re.MULTILINE)) != len(entries):
        yield "every ## is a release: ## [1.2.3] - 2026-11-26"


def test_the_changelog_has_its_form_and_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert list(bad_entries(text)) == []
    assert [match["version"] for match in ENTRY.finditer(text)][1] == __version__


@pytest.mark.parametrize(
    "text",
    [
        "## [0.1.0] - 2026-11-26\n",
        "## [Unreleased]\n## [0.1.0]\n",
        "## [Unreleased]\n## [0.1.0] - 2026-11-26\n## [0.2.0] - 2026-12-24\n",
        "## [Unreleased]\n### New\n",
        "## [Unreleased]\n## 0.1.0\n",
    ],
)
def test_a_bad_changelog_is_seen(text: str) -> None:
    assert len(list(bad_entries(text))) == 1
