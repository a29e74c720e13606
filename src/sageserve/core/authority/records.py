"""What a ladder is told and what it answers. Knows no rule. Read next: `steps.py`, `ladder.py`."""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from sageserve.base.config.clusters import Rung
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros

RAMP_OVER: Final[Micros] = MINUTE
PACE_OVER: Final[Micros] = 5 * MINUTE
REFUSED_OVER: Final[Micros] = 10 * MINUTE
REFUSED_MOST: Final = 3
"""Refused writes within `REFUSED_OVER` that take a target's authority away."""


class Withheld(StrEnum):
    """Why a bound is not what was wished: a closed list, so that it can be counted and explained."""

    NOT = "not"
    OBSERVED = "observed"  # the target's authority lets nothing be written
    DEMOTED = "demoted"  # its authority was taken away, until it is thawed
    NO_LEASE = "no-lease"  # another process writes, or nobody may
    FROZEN = "frozen"  # by a person, or a window of the settings
    BLIND = "blind"  # signals too old to lower anything
    TOO_FAST = "too-fast"  # the ramp upwards or the pace downwards is used up
    NO_HEADROOM = "no-headroom"  # the others would be too full
    AT_BOUND = "at-bound"  # of the settings, of the object's other bound, or its own minimum
    OVER_BUDGET = "over-budget"
    GUARD = "guard"  # the cluster owner's word
    NO_STOCK = "no-stock"  # pods of it cannot be scheduled, or a quota holds them back
    OTHER_WRITER = "other-writer"  # somebody else decides the same count, or puts back what is written
    AT_ZERO = "at-zero"  # an HPA whose target has no replicas is off: a minimum does nothing


class DemotionCause(StrEnum):
    """Why a target's authority was taken away."""

    FOREIGN_WRITE = "foreign-write"
    REFUSED_WRITES = "refused-writes"
    OUT_OF_GUARD = "out-of-guard"
    RELEASED = "released"  # by a person, who wants the object as it was


class Demotion(Struct, frozen=True):
    """A target is only observed from an instant on.

    Args:
        cause: the rule.
        detail: what was seen, in one sentence: who wrote what.
        wall: when, microseconds since 1970.
    """

    cause: DemotionCause
    detail: str
    wall: Micros


class GuardRange(Struct, frozen=True):
    """What a cluster's owner lets anybody do to a target, whatever its settings say.

    Args:
        low: instances, never fewer.
        high: instances, never more.
        rung: how far it may be acted on.
        step: most that is added beyond what runs within `RAMP_OVER`, and taken within `PACE_OVER`; None: as the other rules say.
    """

    low: int = 0
    high: int = 100_000
    rung: Rung = "full"
    step: int | None = None


class LadderRules(Struct, frozen=True):
    """What holds for a target.

    Args:
        rung: how far its settings let it be acted on.
        low: instances, never fewer.
        high: instances, never more.
        ramp_up: share of what runs that may be added within a minute; two always may.
        headroom: utilisation that the others may reach when one goes.
        hold_for: for how long a bound stays after nobody decides any more.
        guard: the cluster owner's word.
        stands_at_zero: a minimum does nothing while there are no replicas, as with an HPA.
    """

    rung: Rung
    low: int
    high: int
    ramp_up: float = 0.5
    headroom: float = 0.85
    hold_for: Micros = 6 * HOUR
    guard: GuardRange = GuardRange()
    stands_at_zero: bool = False


class TargetSight(Struct, frozen=True):
    """What is seen of a target at an instant.

    Args:
        low: minimum of its object.
        high: maximum of its object; on rung `full` the settings'.
        count: replicas that are asked for now.
        ready: pods that serve.
        desired: what its autoscaler wants.
        use: utilisation of what serves, a share.
        blind: signals are too old.
        wall: microseconds since 1970.
        own_low: the minimum that was found before the first write; what is written is never below.
        ours: the minimum is as we wrote it; on rung `full` the replicas.
        high_ours: likewise the maximum.
        budget: instances that a budget leaves it; None: there is no budget.
        frozen: a window of the settings is open.
        stuck: pods that are asked for and cannot come.
        rival: who else decides the same, in one sentence; empty: nobody does.
    """

    low: int
    high: int
    count: int
    ready: int
    desired: int
    use: float
    blind: bool
    wall: Micros
    own_low: int = 0
    ours: bool = True
    high_ours: bool = True
    budget: int | None = None
    frozen: bool = False
    stuck: int = 0
    rival: str = ""


class BoundWish(Struct, frozen=True):
    """What decisions want.

    Args:
        count: instances; None: nothing else than what is.
        high: the most that the target's own autoscaler may have, on rung `bounds`; None: as many as the settings allow.
        heard: when somebody who decides was last heard of, by the ladder's clock.
    """

    count: int | None
    high: int | None = None
    heard: Micros = 0


class TargetOrder(Struct, frozen=True):
    """What people have said of a target; instants are microseconds since 1970.

    Args:
        frozen_until: until then no decision is carried out.
        count: instances that a person wants instead of what decisions want.
        until: when that ends.
        why: they want it.
        freeze_why: no decision is to be carried out.
    """

    frozen_until: Micros = 0
    count: int | None = None
    until: Micros = 0
    why: str = ""
    freeze_why: str = ""


class BoundStep(Struct, frozen=True):
    """The next write of a target; every field that its rung lets be written has a value, also one that stays.

    Args:
        low: minimum; None: not to be written.
        high: maximum; likewise.
        count: replicas; likewise.
        changes: whether there is anything to write.
        withheld: why it is not what was wished.
        wished: the count that was wished, within what the settings allow; None: none.
    """

    low: int | None = None
    high: int | None = None
    count: int | None = None
    changes: bool = False
    withheld: Withheld = Withheld.NOT
    wished: int | None = None


class LeaseTimes(Struct, frozen=True):
    """How long a lease holds.

    Args:
        length: without a renewal, before another may take it.
        every: between two renewals.
        give_up: without a renewal, before its holder takes it for lost.
        write_within: of the last renewal; no write begins later.
    """

    length: Micros = 15 * SECOND
    every: Micros = 2 * SECOND
    give_up: Micros = 10 * SECOND
    write_within: Micros = 7 * SECOND


class LeaseRecord(Struct, frozen=True):
    """A lease as it is stored.

    Args:
        holder: who holds it; empty: nobody.
        epoch: how often it changed hands.
        renewed: when, in the holder's words: compared with what it was before, never with a clock.
        version: of the object; empty: there is none yet.
    """

    holder: str
    epoch: int
    renewed: str
    version: str = ""
