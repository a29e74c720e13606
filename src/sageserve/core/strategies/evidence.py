"""Whether an endpoint that is seen to be too full is so, where what is seen is noisy.

Metrics that say something else at every scrape are above any mark now and then, and whoever starts an instance each time has too
many. How noisy they are they tell themselves: by how much they differ from one scrape to the next, in the median, which a burst
or an instance more does not move. Noise that is no larger than what the guard allows is what it allows it for, and one look is
enough. Beyond it looks are added up until it is twenty to one that the endpoint is too full (Wald's and Page's sequential test):
a small excess takes several, twice the demand two or three. Reads no clock. Read next: `foresight.py`, which asks.
"""

from collections import deque
from collections.abc import Callable
from math import log
from typing import Final

from sageserve.base.units import Micros
from sageserve.core.events import Observed

_LOOKS: Final = 31  # scrapes that noise is told from: a quarter of an hour at half a minute each
_FEWEST: Final = 17  # of its moves: metrics that rise from nothing when a fleet begins are no noise
_MEDIAN: Final = 0.954  # of how far two numbers lie apart that are normally distributed, in their deviations
_SURE: Final = log(20.0)


class Evidence:
    """What was seen of every endpoint.

    Args:
        endpoints: how many.
        bearable: noise up to which one look is enough: the deviation of the log of a utilisation.
    """

    def __init__(self, endpoints: int, bearable: float) -> None:
        self._bearable = bearable
        self._scraped: Micros | None = None
        self._latest: list[float | None] = [None] * endpoints
        self._moves = [deque[float](maxlen=_LOOKS) for _ in range(endpoints)]
        self._noise = [0.0] * endpoints
        self._odds = [0.0] * endpoints  # log of them, that an endpoint is too full

    def see(self, event: Observed, excess: Callable[[int], float]) -> None:
        """Take in a scrape, once.

        Args:
            event: what was seen.
            excess: of an endpoint, the log of how many times as full it is seen as it may be.
        """
        if event.scraped == self._scraped:
            return
        self._scraped = event.scraped
        for e, one in enumerate(event.endpoints):
            if one.seen <= 0.0 or e in event.blind:
                continue
            latest, self._latest[e] = self._latest[e], log(one.seen)
            if latest is not None:
                self._moves[e].append(abs(log(one.seen) - latest))
                self._noise[e] = self._told(e)
            if self._noise[e] > self._bearable:
                self._odds[e] = max(0.0, self._odds[e] + excess(e) / self._noise[e])

    def _told(self, endpoint: int) -> float:
        moves = self._moves[endpoint]
        return sorted(moves)[len(moves) // 2] / _MEDIAN if len(moves) >= _FEWEST else 0.0

    def noise(self, endpoint: int) -> float:
        """The deviation of the log of its utilisation from scrape to scrape; 0 where too little was seen."""
        return self._noise[endpoint]

    def is_enough(self, endpoint: int) -> bool:
        """Whether an endpoint that is seen to be too full is to be believed."""
        return self._noise[endpoint] <= self._bearable or self._odds[endpoint] >= _SURE

    def used(self, endpoint: int) -> None:
        """An instance was started for it: what was seen before says nothing of what is there then."""
        self._odds[endpoint] = 0.0
