"""What an autoscaler that asks is told: a count, or why there is none. What is not known is never said, least of all as a 0.

A target without `keda: true` is told its own minimum, which changes nothing. One with it: what decisions ask for, inside the
target's bounds, as long as its pool is seen and the plan behind it holds. Authority, which is about writes, has no say here, nor
have orders about them. Pure: it is told who asks and what is wanted.
Read next: `service.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from sageserve.base.config import TargetSettings
from sageserve.live.scaler.messages import KedaTrigger


class RefusalCode(Enum):
    """Why there is no number; gRPC's names."""

    NOT_FOUND = "not-found"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class NoCount:
    """No number.

    Args:
        code: gRPC's.
        why: a sentence, which KEDA shows in the events of its ScaledObject.
    """

    code: RefusalCode
    why: str


@dataclass(frozen=True, slots=True)
class PoolWish:
    """What is wanted of a pool now.

    Args:
        count: instances that decisions ask for.
        unknown: why it cannot be said; empty: it can.
    """

    count: int
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class TargetCount:
    """A number.

    Args:
        target: name of it.
        count: instances.
    """

    target: str
    count: int


def target_of(targets: Mapping[str, TargetSettings], asked: KedaTrigger) -> str | NoCount:
    """Which target a trigger means: the one it names, else the one whose object asks.

    A trigger that was copied to another object would carry one deployment's count to another; it is refused.
    """
    name = asked.metadata.get("target", "")
    if not name:
        mine = [each for each, one in targets.items() if one.kind == "ScaledObject" and one.name == asked.place]
        if len(mine) == 1:
            return mine[0]
        said = f"the trigger of {asked.place} has no `target`, and no target is this ScaledObject"
        return NoCount(RefusalCode.NOT_FOUND, f"{said}; targets are {', '.join(targets)}")
    if name not in targets:
        return NoCount(RefusalCode.NOT_FOUND, f"there is no target {name!r}; targets are {', '.join(targets)}")
    target = targets[name]
    theirs = target.name if target.kind == "ScaledObject" else target.name.partition("/")[0]
    if theirs != (asked.place if target.kind == "ScaledObject" else asked.namespace):
        return NoCount(RefusalCode.NOT_FOUND, f"target {name} is {target.kind} {target.name}, and {asked.place} asks")
    return name


def answer(
    targets: Mapping[str, TargetSettings], wish_of: Callable[[str], PoolWish], asked: KedaTrigger
) -> TargetCount | NoCount:
    """How many instances, or why not.

    Args:
        targets: by name.
        wish_of: what is wanted of a pool now.
        asked: who asks.
    """
    name = target_of(targets, asked)
    if isinstance(name, NoCount):
        return name
    target = targets[name]
    if not target.keda:
        return TargetCount(name, target.min)
    wish = wish_of(target.pool)
    if wish.unknown:
        return NoCount(RefusalCode.UNAVAILABLE, f"{name}: {wish.unknown}")
    return TargetCount(name, min(max(wish.count, target.min), target.max))
