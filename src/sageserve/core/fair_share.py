"""Fair shares: who of several tenants goes next, and who has to let others go first, in proportion to their weights.

Deficit round robin over tokens (Shreedhar and Varghese, 1995) whose rounds may be of any length: in a round everybody who waits
is given tokens in proportion to weight, and whoever can pay goes. What has been paid so far over the weight is the tenant's
`level`; who has the lowest level can pay first. Nobody saves up while away: who comes back starts at the level of those
who are there, and what was lent to a tenant while nobody else was there is forgotten likewise. So two tenants who both wait
are never further apart than one of the largest pieces of work of each, over its weight.

Used by the batch queue, where work waits (`first`), and by gateways, where it is let in or turned away at once (`lead`). One
account for one capacity: a model's, within a tier. Keeps no time: it comes in. The rule on numbers alone is the functions at the
top, which the simulator compiles; it has rows where this has names (`sim/kernel/choices/shares.py`), and its naive reference has
this. Read next: `live/control/batch_queue.py`, `live/gateway/gateway_shares.py`; docs/reference/gateway.md, "Fair shares".
"""

from collections.abc import Iterable
from typing import Final

from sageserve.base.units import SECOND, Micros

QUANTUM: Final = 1024.0
"""Tokens, over the weight, that a tenant may be ahead of others where work is turned away: a request or two."""
SAVED: Final = 64 * QUANTUM
"""Tokens, over the weight, that somebody may be behind whoever had most: who asked for little may ask for so much at once."""
ROOMY: Final = 0.5
"""Share of a queue's limit up to which nobody asks who is ahead: capacity that others leave is used."""
ASKING: Final = 10 * SECOND
"""Who has asked for nothing for so long does not hold others back."""

_MANY: Final = 64


def standing(level: float, floor: float) -> float:
    """Where somebody stands who was last at a level, when work is done at `floor`: nobody saves up."""
    return max(level, floor)


def charged(level: float, floor: float, tokens: float, weight: float) -> float:
    """The level of somebody who is given so many tokens; less than nothing corrects what was expected too high."""
    return (max(level, floor) if tokens > 0 else level) + tokens / weight


def is_silent(asked: Micros, now: Micros) -> bool:
    """Whether somebody who asked last at `asked` holds back nobody any more."""
    return now - asked > ASKING


def ahead(level: float, lowest: float, highest: float) -> float:
    """By how much somebody is ahead who is to be held back for others: whoever had most is, and nobody who had less than that.

    Of those who ask for less than their share one always had more than another, at random; what they lack, others took.
    """
    return level - lowest if highest - level <= QUANTUM else 0.0


def raised(floor: float, lowest: float, highest: float) -> float:
    """The level at which work is done, when those who ask stand between these two."""
    return max(floor, lowest, highest - SAVED)


def room(lead: float) -> float:
    """The part of a queue's limit that is there for somebody who is so far ahead of others."""
    return 1.0 if lead <= QUANTUM else ROOMY


class FairShare:
    """Accounts of those who share one capacity."""

    __slots__ = ("_asked", "_floor", "_levels")

    def __init__(self) -> None:
        self._levels: dict[str, float] = {}  # tokens over weight
        self._asked: dict[str, Micros] = {}
        self._floor = 0.0  # the level at which work is done now; never falls

    def first(self, waiting: Iterable[str]) -> str:
        """Who goes next of those who wait, each named once and at least one; of equals the one named first."""
        levels, floor = self._levels, self._floor
        chosen, lowest = "", float("inf")
        for tenant in waiting:
            level = standing(levels.get(tenant, floor), floor)
            if level < lowest:
                chosen, lowest = tenant, level
        self._floor = lowest
        return chosen

    def charge(self, tenant: str, weight: float, tokens: float) -> None:
        """Take down what a tenant was given; less than nothing corrects what was expected too high."""
        floor = self._floor
        self._levels[tenant] = charged(self._levels.get(tenant, floor), floor, tokens, weight)
        if len(self._levels) > _MANY + 2 * len(self._asked):  # who is not ahead of anybody begins where all do
            self._levels = {name: level for name, level in self._levels.items() if level > floor}

    def lead(self, tenant: str, now: Micros) -> float:
        """Count that a tenant asks; by how many tokens over its weight it is ahead of whoever else asks, if nobody had more."""
        asked, levels, floor = self._asked, self._levels, self._floor
        asked[tenant] = now
        lowest = highest = level = levels[tenant] = standing(levels.get(tenant, floor), floor)
        for other, at in list(asked.items()):
            if is_silent(at, now):
                del asked[other]
                levels.pop(other, None)
            else:
                stands = standing(levels.get(other, floor), floor)
                lowest, highest = min(lowest, stands), max(highest, stands)
        self._floor = raised(floor, lowest, highest)
        return ahead(level, lowest, highest)
