"""A rollout in a fleet of real processes: one that does not start is taken back, another outlives control and is done.

Half a minute of real time, of which most is engines that start: behind SAGESERVE_LONG. Read next:
`tests/live/control/test_live_rollouts.py`, which plays the same in virtual time.
"""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.test_up import MODEL, Fleet, acts, command, until

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="half a minute: set SAGESERVE_LONG=1"),  # noqa: TID251 # by hand
]
FILE = """
extends: local
rollouts:
  - {{model: llama-3.1-8b, judge_after: 1s, judge_requests: 8, {more}}}
"""


def test_a_version_that_does_not_start_is_taken_back_and_another_outlives_control(
    short_folder: Callable[[], Path], tmp_path: Path
) -> None:
    fleet = Fleet(short_folder())
    over, answered = threading.Event(), list[str]()

    def ask() -> None:
        while not over.wait(0.1):
            answered.append(fleet.ask("meanwhile", "priority"))

    def rollout(*words: str) -> dict[str, Any]:
        done = command("rollout", *words, "--state", str(fleet.state), "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found

    def step() -> str:
        done = command("rollout", "show", "--state", str(fleet.state), "--json")
        return str(json.loads(done.stdout)[0]["step"]) if done.returncode == 0 else "control is being started again"

    def begin(more: str) -> None:
        (tmp_path / "rollout.yaml").write_text(FILE.format(more=more), "utf-8")
        rollout("begin", str(tmp_path / "rollout.yaml"))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        begin("engine: {command: [sh, -c, 'echo no such weights; exit 1', '{port}']}")
        until(lambda: step() == "undone")
        assert "not-starting" in {roll["why"] for _, roll in rollout("show")["steps"]}
        assert "no such weights" in "".join(path.read_text("utf-8") for path in (fleet.state / "journal").iterdir())
        begin("engine_time: 0.9")
        until(lambda: step() == "canary" and rollout("show")["new"] > 0)
        fleet.kill("control")
        until(lambda: command("status", "--state", str(fleet.state)).returncode == 0)
        until(lambda: step() == "done")
        shown = rollout("show")
        assert (shown["model"], shown["version"], shown["others"]) == (MODEL, 2, 0)
        refused = command("rollout", "stop", MODEL, "--state", str(fleet.state))
        assert refused.returncode == 2
        assert "there is nothing to stop" in refused.stderr
        assert acts(fleet).count("rollout begin") == 2
    finally:
        over.set()
        asking.join()
        command("down", "--state", str(fleet.state))
    assert len(answered) > 20
    assert all(answered)
