"""What an autoscaler that asks is told: a count, or why there is none. What is not known is never said, least of all as a 0.

A target without `keda: true` is told its own minimum, which changes nothing. One with it: what decisions ask for, inside the
target's bounds, as long as its pool is seen and the plan behind it holds. Authority, which is about writes, has no say here; what
people say of a target has, where somebody reads it: an override is told, a reviewed plan stands in the place of decisions, and
while nothing is to be carried out it is told again what it was told last. Pure: it is told who asks and what is wanted.
Read next: `service.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

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
class SaidOfTarget:
    """What people say of a target.

    Args:
        override: instances a person wants; None: none are said.
        planned: instances a reviewed plan wants; None: there is no plan.
        frozen: no decision is to be carried out.
    """

    override: int | None = None
    planned: int | None = None
    frozen: bool = False


NOTHING_SAID: Final = SaidOfTarget()


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
    targets: Mapping[str, TargetSettings],
    wish_of: Callable[[str], PoolWish],
    asked: KedaTrigger,
    said_of: Callable[[str], SaidOfTarget] = lambda _: NOTHING_SAID,
    last: Mapping[str, int] | None = None,
) -> TargetCount | NoCount:
    """How many instances, or why not.

    Args:
        targets: by name.
        wish_of: what is wanted of a pool now.
        asked: who asks.
        said_of: what people say of a target.
        last: what was answered of targets before.
    """
    name = target_of(targets, asked)
    if isinstance(name, NoCount):
        return name
    return count_of(name, targets[name], wish_of, said_of(name), (last or {}).get(name))


def count_of(
    name: str, target: TargetSettings, wish_of: Callable[[str], PoolWish], said: SaidOfTarget, before: int | None
) -> TargetCount | NoCount:
    """How many instances a target should have, or why that is not said.

    Args:
        name: of the target.
        target: its settings.
        wish_of: what is wanted of a pool now.
        said: what people say of it.
        before: what was answered before; None: nothing.
    """
    if not target.keda:
        return TargetCount(name, target.min)
    if said.override is not None:
        return bounded(name, target, said.override)
    wish = wish_of(target.pool)
    if wish.unknown:
        return NoCount(RefusalCode.UNAVAILABLE, f"{name}: {wish.unknown}")
    if said.frozen:
        if before is None:
            return NoCount(RefusalCode.UNAVAILABLE, f"{name}: frozen, and what was asked for before is not known")
        return TargetCount(name, before)
    return bounded(name, target, wish.count if said.planned is None else said.planned)


def bounded(name: str, target: TargetSettings, count: int) -> TargetCount:
    """A count within the bounds of its target."""
    return TargetCount(name, min(max(count, target.min), target.max))
