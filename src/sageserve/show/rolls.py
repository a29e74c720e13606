"""Rollouts in words: what step was taken, and on what grounds. Read next: `core/rollout.py`, which takes them; `story.py`."""

from collections.abc import Iterable, Mapping
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.units import Micros, show_duration
from sageserve.core.actions import Reason, Roll, RolloutStep, RolloutWhy

ROLLS: Final[Mapping[Reason, str]] = {
    Reason.CANARY: "a rollout tries its new version on a share of the instances",
    Reason.ROLLING: "a rollout replaces old instances by new ones",
    Reason.ROLLING_BACK: "a rollout replaces new instances by old ones again",
}
STEPS: Final[Mapping[RolloutStep, str]] = {
    RolloutStep.WAITING: "is to come",
    RolloutStep.CANARY: "canaries",
    RolloutStep.ROLLING: "the others follow",
    RolloutStep.DONE: "done",
    RolloutStep.BACK: "taken back",
    RolloutStep.UNDONE: "undone",
    RolloutStep.STOPPED: "stopped",
}
WHY: Final[Mapping[RolloutWhy, str]] = {
    RolloutWhy.DUE: "it was due",
    RolloutWhy.KEPT: "no promise is broken that the old version keeps",
    RolloutWhy.BROKEN: "it breaks a promise that the old version keeps better",
    RolloutWhy.NOT_STARTING: "its starts came to nothing, several in a row",
    RolloutWhy.REPLACED: "nothing is left to replace",
    RolloutWhy.ASKED: "somebody asked for it",
}


def roll_notes(rolls: Iterable[tuple[Micros, Roll]], scenario: Scenario) -> tuple[str, ...]:
    """The steps of a model's rollouts, a sentence each.

    Args:
        rolls: the steps, and when each was taken.
        scenario: whose models they are.
    """
    return tuple(f"{_name(roll, scenario)} at {show_duration(at)}: {words(roll, scenario)}" for at, roll in rolls)


def words(roll: Roll, scenario: Scenario) -> str:
    """A step and its reason, with what was counted."""
    text = f"{STEPS[roll.step]}, because {WHY[roll.why]}"
    if roll.tier < 0:
        return text
    name, tier = list(scenario.tiers.items())[roll.tier]
    return (
        f"{text}: of {name} the new one kept {_share(roll.new_kept, roll.new_asked)}, the old one"
        f" {_share(roll.old_kept, roll.old_asked)}, {tier.percentile:.4g} is promised"
    )


def _name(roll: Roll, scenario: Scenario) -> str:
    return f"rollout {roll.revision}, of {list(scenario.models)[roll.model]},"


def _share(kept: int, asked: int) -> str:
    return f"{kept / asked:.4f} of {asked:,}" if asked else "nothing of 0"
