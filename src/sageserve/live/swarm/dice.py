"""Numbers of one seed: everything that a story leaves to chance is drawn here, in one order.

Read next: `faults.py`, `world.py`.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from sageserve.base.rng import stream

_TOGETHER: Final = 512  # drawn at once: one by one they cost a microsecond more
_T = TypeVar("_T")


class Dice:
    """A stream of numbers.

    Args:
        seed: of the story.
        name: what they are for.
    """

    def __init__(self, seed: int, name: str) -> None:
        self._numbers = stream(seed, f"swarm/{name}")
        self._drawn: list[float] = []

    def share(self) -> float:
        """At least 0, below 1."""
        if not self._drawn:
            self._drawn = self._numbers.random(_TOGETHER).tolist()
        return self._drawn.pop()

    def chance(self, share: float) -> bool:
        """Whether something happens that happens so often."""
        return self.share() < share

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self.share() * (high - low + 1))

    def pick(self, things: Sequence[_T]) -> _T:
        """One of them."""
        return things[int(self.share() * len(things))]
