"""A rule of the user's that never ends holds nobody: it is broken off, the built-in rule decides, and that is counted and told.

What a rule cannot be broken off in is the supervisor's to see (`tests/live/supervisor/test_supervisor.py`).
Read next: `src/sageserve/live/gateway/rule_limit.py`.
"""

import sys
import time
from pathlib import Path

import pytest

from sageserve.core.own_rules import own_rules
from sageserve.live.gateway.own_choices import OwnChoices
from sageserve.live.gateway.rule_limit import LONGEST_S, RuleLimit, RuleTooLong
from tests.core.small import scenario

RULE = """
def stuck(wait, prompt):
    while prompt == 77:
        wait = wait + 1.0
    return wait < 5.0
"""


def test_a_loop_without_end_is_broken_off_and_the_next_request_is_asked_about_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hanging.py").write_text(RULE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rules = own_rules(scenario(admission={"rule": "hanging:stuck"}))
    sys.modules.pop("hanging", None)
    choices = OwnChoices(rules, [(0, False)], {})
    numbers = {"prompt": 77.0, "wait": 1.0}
    begun = time.process_time()
    assert choices.admits(numbers) is None
    assert LONGEST_S / 2 < time.process_time() - begun < 20 * LONGEST_S
    assert choices.failures == 1
    assert "took more than 0.1 s" in choices.failed
    assert "left out of the next 10 decisions" in choices.failed
    sound = {"prompt": 5.0, "wait": 1.0}
    assert [choices.admits(sound) for _ in range(10)] == [None] * 10
    assert choices.admits(sound) is True
    assert choices.admits(numbers) is None
    assert choices.failures == 2
    assert "left out of the next 20 decisions" in choices.failed
    assert [choices.admits(numbers) for _ in range(20)] == [None] * 20
    assert choices.failures == 2, "it was not asked, so that a loop without end costs no request any time meanwhile"
    assert choices.admits(sound) is True


def test_outside_of_a_rule_nothing_is_broken_off() -> None:
    limit = RuleLimit()
    with limit:
        pass
    end = time.process_time() + 2 * LONGEST_S
    while time.process_time() < end:
        pass
    with pytest.raises(RuleTooLong):
        _without_end(limit)


def _without_end(limit: RuleLimit) -> None:
    with limit:
        while True:
            pass
