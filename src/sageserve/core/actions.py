"""What the controller asks for, and the decisions behind it. Every action ends in an event, so that nothing is done unheard.

    Start    -> InstanceReady | StartFailed          Reclaim -> InstanceReady | StartFailed | SpotTaken
    Drain    -> InstanceDrained                      Donate  -> (later) SpotTaken, or nothing
    Release  -> nothing: the GPUs are free at once   Feed, Roll -> nothing: they hold from now on

An instance may also be lost at any moment (InstanceLost), whatever was asked for.

Knows no policy and no clock.
"""

from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct


class Reason(StrEnum):
    """Why a pool was changed: a closed list, so that decisions can be counted and explained."""

    UTILISATION_HIGH = "utilisation-high"
    UTILISATION_LOW = "utilisation-low"
    BELOW_MINIMUM = "below-minimum"
    PLANNED = "planned"
    AHEAD_OF_PLAN = "demand-above-plan"
    BEHIND_PLAN = "demand-below-plan"
    QUEUE_LATE = "queue-late"
    QUEUE_EMPTY = "queue-empty"
    METRIC_HIGH = "metric-high"
    METRIC_LOW = "metric-low"
    RECORDED = "recorded"
    WOKEN = "woken"  # requests waited where nothing was open
    IDLE = "idle"  # nobody asked for long
    OWN_RULE = "own-rule"  # of a strategy of the user's
    CANARY = "canary"  # of a rollout, as are the next two
    ROLLING = "rolling"
    ROLLING_BACK = "rolling-back"


class Blocked(StrEnum):
    """Why a wanted change was not made, or not wholly."""

    NOT = "not"
    NO_STOCK = "no-stock"
    NO_SLOT = "no-slot"
    AT_MINIMUM = "at-minimum"
    BLIND = "blind"  # signals too old to take anything away
    TOO_FAST = "too-fast"  # as many were drained within the hour as the safety rules allow
    NO_HEADROOM = "no-headroom"  # the others would be too full
    SHADOW = "shadow"  # decisions are only written down


class Source(StrEnum):
    """Where a starting instance comes from, which decides how long it takes."""

    INITIAL = "initial"  # serves from the first instant
    VM = "vm"  # a fresh VM, then weights
    GPUS = "gpus"  # GPUs that served another model from the spot market: weights only
    SPOT = "spot"  # a donated instance of the same model, still loaded there


class RolloutStep(StrEnum):
    """How far a rollout is."""

    WAITING = "waiting"
    CANARY = "canary"  # a share of the instances is new, and judged
    ROLLING = "rolling"  # the others follow
    DONE = "done"
    BACK = "back"  # the new ones are replaced by old ones
    UNDONE = "undone"
    STOPPED = "stopped"  # what is new stays, and nothing more becomes new


class RolloutWhy(StrEnum):
    """Why a rollout took a step."""

    DUE = "due"  # its time has come
    KEPT = "kept"  # the new revision was judged, and does not break promises that the old one keeps
    BROKEN = "broken"  # it does
    NOT_STARTING = "not-starting"  # its starts came to nothing, several in a row
    REPLACED = "replaced"  # nothing is left to replace
    ASKED = "asked"  # by a person


class Start(Struct, frozen=True, tag="start", omit_defaults=True):
    """Bring up an instance on these GPUs (numbers within its region and GPU type), in a revision: 0 is that of the start."""

    instance: int
    source: Source
    gpus: tuple[int, ...]
    revision: int = 0


class Reclaim(Struct, frozen=True, tag="reclaim"):
    """Take a donated instance back; its model is still loaded."""

    instance: int


class Drain(Struct, frozen=True, tag="drain"):
    """Let an instance finish what it has and receive nothing more."""

    instance: int


class Donate(Struct, frozen=True, tag="donate"):
    """Hand an empty instance to the spot market."""

    instance: int


class Release(Struct, frozen=True, tag="release"):
    """Give an empty instance's GPUs back."""

    instance: int


class Feed(Struct, frozen=True, tag="feed"):
    """From now on give an endpoint one batch job below one utilisation, two below another."""

    endpoint: int
    one_below: float
    two_below: float


class Roll(Struct, frozen=True, tag="roll"):
    """A rollout takes a step; what was asked of the judged tier by either revision, and kept, is -1 where nothing was judged."""

    model: int
    revision: int
    step: RolloutStep
    why: RolloutWhy
    tier: int = -1
    old_asked: int = -1
    old_kept: int = -1
    new_asked: int = -1
    new_kept: int = -1


Action: TypeAlias = Start | Reclaim | Drain | Donate | Release | Feed | Roll


class Decision(Struct, frozen=True):
    """One decision on one pool, with what it was based on.

    Args:
        pool: number of the pool.
        change: instances wanted more (or fewer).
        done: instances really started, reclaimed or drained.
        reason: why.
        blocked: why `done` differs from `change`.
        seen: the utilisation that was looked at.
        age: microseconds since it was scraped.
        serving: instances that served before.
        coming: instances that were starting or being reclaimed before.
        target: the planned number, -1 when the strategy has none.
    """

    pool: int
    change: int
    reason: Reason
    seen: float
    age: int
    serving: int
    coming: int
    done: int = 0
    blocked: Blocked = Blocked.NOT
    target: int = -1
