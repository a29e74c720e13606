"""Every command's --json, installed from a wheel, on the real descriptors: one JSON document and nothing else, or nothing at all.

Read next: `commands.py` for how each is called, `test_extras.py` for what a bare install refuses.
"""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.installed.commands import TRIES, answering_in_json, processes_of
from tests.installed.conftest import Installed
from tests.installed.forks import Answer

PATIENCE_S = 60
SERVED = {words for words, one in TRIES.items() if any("{state}" in word for word in one.words)}


def called(installed: Installed, words: str, *, full: bool, state: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return installed.run(*words.split(), *TRIES[words].given(installed.stage, state), "--json", full=full)


def test_no_command_is_forgotten() -> None:
    assert answering_in_json() == set(TRIES)


@pytest.fixture(scope="module")
def answers(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Answer]]:
    """What each command answered without extras and with all of them, by what was installed and by the command."""
    found = {}
    for extras in ("none", "all"):
        full = extras == "all"
        calls = {
            words: [*words.split(), *one.given(installed.stage, None), "--json"]
            for words, one in sorted(TRIES.items())
            if words not in SERVED and (not one.bare if full else not one.needs)
        }
        file = tmp_path_factory.mktemp("calls") / "calls.json"
        file.write_text(json.dumps(calls), "utf-8")
        ran = installed.python(str(Path(__file__).with_name("forks.py")), str(file), full=full)
        assert ran.returncode == 0, ran.stderr
        found[extras] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("words", sorted(set(TRIES) - SERVED))
def test_stdout_is_one_json_document(answers: dict[str, dict[str, Answer]], words: str) -> None:
    """Without extras where it needs none, and with all of them where it does not take seconds and none of them takes part."""
    expected = TRIES[words]
    tried = [one for one in (answers[extras].get(words) for extras in ("none", "all")) if one is not None]
    assert len(tried) == 2 - bool(expected.needs) - expected.bare
    for ran in tried:
        assert ran["code"] == expected.code, ran["err"]
        if expected.code == 2:
            assert ran["out"] == ""
            continue
        documents = ran["out"].splitlines() if expected.lines else [ran["out"]]
        assert documents
        for one in documents:
            json.loads(one)


@pytest.mark.slow
def test_a_fleet_from_a_wheel_answers_in_json_and_leaves_nobody(installed: Installed, short_folder: Callable[[], Path]) -> None:
    state = short_folder() / "state"
    up = installed.run("up", "--detach", "--state", str(state), "--port", "0", "--set", "fleet.maximum=2", full=True)
    try:
        assert up.returncode == 0, up.stderr
        for words in sorted(SERVED):
            ran = called(installed, words, full=True, state=state)
            assert ran.returncode == 0, ran.stderr
            json.loads(ran.stdout)
        file = installed.stage / "jobs.jsonl"
        body = {"model": "llama-3.1-8b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        file.write_text(json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n")
        handed = installed.run("batch", "submit", str(file), "--wait", "--state", str(state), full=True)
        assert handed.returncode == 0, handed.stderr
        answers = installed.run("batch", "fetch", handed.stdout.strip(), "--state", str(state), full=True)
        assert json.loads(answers.stdout)["custom_id"] == "1"
    finally:
        down = installed.run("down", "--state", str(state), full=True)
    assert down.returncode == 0, down.stderr
    for _ in range(PATIENCE_S * 10):  # the supervisor gives the folder free as the last thing it does
        if not processes_of(state):
            break
        time.sleep(0.1)
    assert not processes_of(state)
