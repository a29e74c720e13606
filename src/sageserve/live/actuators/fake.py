"""Instances in memory: they are ready, fail and are lost when they are told to, in whatever time is passed in.

For virtual time: `perform` says what shall happen, `next_event` when the next thing does, `play` lets it happen. Things due at
one instant happen in the order they were asked for. Read next: `base.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import assert_never

from sageserve.base.units import NEVER, Micros
from sageserve.core.actions import Donate, Reclaim, Release, Start
from sageserve.core.events import InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.live.actuators.base import EngineAddress, Hear, Heard, Order


@dataclass(frozen=True, slots=True)
class ScriptedOutcome:
    """What comes of a start or a reclaim: it is ready after so long, or fails after so long because of `why`."""

    after: Micros
    why: str = ""


class FakeActuator:
    """Instances that exist on paper.

    Args:
        hear: told what came of things.
        outcome: decides what comes of a start or a reclaim that begins now.
        model: every instance's `served_model`.
    """

    def __init__(self, hear: Hear, outcome: Callable[[Micros, Start | Reclaim], ScriptedOutcome], model: str = "model") -> None:
        self._hear = hear
        self._outcome = outcome
        self._model = model
        self._pending: list[tuple[Micros, int, int, Heard]] = []
        self._made = 0
        self._spell: dict[int, int] = {}  # counts an instance's changes, so that old news is not heard
        self._up: dict[int, bool] = {}  # instances that are ready; whether they are donated

    @property
    def next_event(self) -> Micros:
        """When something happens next; NEVER when nothing does."""
        return self._pending[0][0] if self._pending else NEVER

    def place(self, instance: int) -> EngineAddress:
        """An address of nowhere."""
        return EngineAddress(f"http://fake/{instance}", self._model)

    def play(self, now: Micros) -> None:
        """Let happen what is due."""
        while self._pending and self._pending[0][0] <= now:
            _, _, spell, event = heappop(self._pending)
            if self._spell[event.instance] == spell:
                if isinstance(event, InstanceReady):
                    self._up[event.instance] = False
                elif isinstance(event, StartFailed):
                    self._up.pop(event.instance, None)  # a reclaim that comes to nothing ends the engine
                self._hear(event)

    def perform(self, now: Micros, action: Order) -> None:
        """Begin to do it."""
        i = action.instance
        self._spell[i] = self._spell.get(i, 0) + 1
        match action:
            case Start():
                self._begin(now, action)
            case Reclaim():
                if i in self._up:
                    self._begin(now, action)
                else:
                    self._later(now, StartFailed(i, "it was taken away before it was reclaimed"))
            case Donate():
                if i in self._up:
                    self._up[i] = True
                else:
                    self._later(now, SpotTaken(i))  # it died just now: the news crossed on their way
            case Release():
                self._up.pop(i, None)
            case _:
                assert_never(action)

    def lose(self, now: Micros, instance: int, why: str) -> None:
        """An instance that is ready dies at `now`; a donated one is taken."""
        donated = self._up.pop(instance)
        self._spell[instance] += 1
        self._later(now, SpotTaken(instance) if donated else InstanceLost(instance, why))

    def _begin(self, now: Micros, action: Start | Reclaim) -> None:
        outcome, i = self._outcome(now, action), action.instance
        self._later(now + outcome.after, StartFailed(i, outcome.why) if outcome.why else InstanceReady(i))

    def _later(self, time: Micros, event: Heard) -> None:
        self._made += 1
        heappush(self._pending, (time, self._made, self._spell[event.instance], event))
