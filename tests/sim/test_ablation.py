"""What parts of foresight are worth, by hand: costs set against what the whole needs for as much kept.

Read next: `src/sageserve/sim/sweep/ablation.py`.
"""

import pytest

from sageserve.data.results.comparison import FrontierPoint
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.sweep.ablation import PARTS, PROMISES, worth_of_parts


def point(knob: str, hours: float, chat: float) -> FrontierPoint:
    kept = {"chat": chat, "batch": 1.0}
    return FrontierPoint(knob, hours, kept, None, {1: (hours, kept)})


WHOLE = point("driven", 90.0, 0.97)
FIXED = (point("worth 1", 80.0, 0.90), point("worth 2", 100.0, 0.98))


def test_a_part_is_worth_what_as_much_kept_costs_more_without_it() -> None:
    found = worth_of_parts(WHOLE, FIXED, [point("forecast", 120.0, 0.975), point("router", 85.0, 0.935)], "chat")
    worths = {one.part: one.gpu_hours for one in found}
    assert worths["forecast"] == pytest.approx(120 - 95), "half way from the whole to the dearer of the fixed"
    assert worths["router"] == pytest.approx(0.0)
    assert worths[PROMISES] == pytest.approx(97.5 - 90), "as much kept with worths that stay"


def test_what_the_whole_never_keeps_has_no_worth() -> None:
    (promises, guard) = worth_of_parts(WHOLE, FIXED, [point("guard", 85.0, 0.99)], "chat")
    assert (guard.same, guard.gpu_hours) == (None, None)
    assert promises.part == PROMISES
    assert [one.part for one in worth_of_parts(point("driven", 90.0, 0.99), FIXED, [], "chat")] == []


def test_every_part_can_be_taken_out_of_any_scenario() -> None:
    for scenario in ("quickstart", "kubernetes-day"):
        plain = load_scenario(scenario, overrides=["strategy.name=foresight"])
        made = [load_scenario(scenario, overrides=["strategy.name=foresight", *part.changes]) for part in PARTS]
        assert len({one.model_dump_json() for one in [plain, *made]}) == len(PARTS) + 1
