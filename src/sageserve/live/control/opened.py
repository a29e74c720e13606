"""What a fleet view knows of one instance, and who it speaks to. Plain values. Read next: `fleet_view.py`, the owner."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from sageserve.base.units import NEVER, Micros
from sageserve.core.events import InstanceDrained, RevisionsSeen
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.wire import AsleepRow, ToGateway


class Missed(Enum):
    """An instance that a scrape did not see."""

    BLIND = "blind"  # it answers, and does not say how it is
    SILENT = "silent"  # nothing answers there


@dataclass(frozen=True, slots=True)
class MissedScrape:
    """A scrape that did not succeed, and why, in words."""

    how: Missed
    why: str


@dataclass(slots=True)
class Opened:
    """An instance that serves or drains."""

    place: EngineAddress
    opened_at: Micros
    open: bool = True
    closed_version: int = 0  # of the first table that says it receives nothing
    closed_at: Micros = 0  # when that was sent
    seen_at: Micros = -NEVER  # of the last scrape that succeeded
    kv: float = 0.0  # share of its memory, or of its places, in use
    in_flight: int = 0  # requests that run or wait there, by its own account
    waiting: int = 0  # of these, in its queues
    trouble: Micros = -NEVER  # when a gateway last could not reach it
    answers: bool = True  # something answered there when it was last asked
    why: str = ""  # the last scrape did not succeed; empty: it did
    made: float | None = None  # tokens it has worked through, by its own count
    mute: bool = False  # a gateway says that it takes requests and nothing comes back; `liveness.py` finds out
    well: bool = True  # as far as `liveness.py` knows

    @property
    def gives(self) -> bool:
        """Whether work sent there comes back, as far as is known."""
        return self.answers and self.well

    def is_suspect(self, since: Micros) -> bool:
        """A gateway could not reach it after it was last seen, and that is later than `since`."""
        return self.mute or (self.trouble >= self.seen_at and self.trouble > since)


def not_yet(_gateway: int, _message: ToGateway) -> bool:
    """Tell a gateway nothing: what runs is not known yet, and it goes on with the table that it has."""
    return False


class Trials:
    """Rollouts that are judged: none, unless there are some; `live_rollouts.py` has them."""

    def trial(self, instance: int) -> tuple[int, bool]:  # of the one who has some
        """The revision of an instance whose requests are judged by it (-1: they are not), and whether it is a canary."""
        return -1, False

    def seen(self, now: Micros) -> Iterable[RevisionsSeen]:  # likewise
        """What requests got so far by revision."""
        return ()


@dataclass(slots=True)
class Callbacks:
    """Who is told what, and who is asked: the sides of a fleet view.

    Args:
        send: tells a gateway; False when it is gone; `LinkServer.send`.
        place: where an instance that became ready answers.
        drained: told when a draining instance is empty.
        waiting: batch jobs that wait, by model.
        trials: rollouts that are judged.
        asked: told when somebody begins to wait for an endpoint that sleeps.
        asleep: endpoints that sleep.
    """

    send: Callable[[int, ToGateway], bool]
    place: Callable[[int], EngineAddress]
    drained: Callable[[InstanceDrained], None]
    waiting: Callable[[], tuple[int, ...]]
    trials: Trials = field(default_factory=Trials)
    asked: Callable[[], None] = lambda: None
    asleep: Callable[[], tuple[AsleepRow, ...]] = lambda: ()
