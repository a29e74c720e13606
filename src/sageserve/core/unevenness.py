"""How unevenly requests arrive: by how much minutes of a quarter of an hour differ beyond chance, and the loads that makes.

Requests that come one by one at an even rate are a Poisson number each minute, whose variance is its mean. What counted minutes
vary more than that (their index of dispersion), after a straight line through each quarter of an hour, is the *unevenness*: the
squared coefficient of variation of the rate itself. Two quarters of an hour of even minutes that nobody saw stand beside those
that were seen, and what a fleet's guard and other regions take in anyway is left out: then traffic that is about even is even.
Rates are taken for gamma distributed; what requests find is that distribution with one more in its shape, because more of them
come in full minutes. Pure arithmetic. Read next: `response.py`, docs/reference/planning.md.
"""

from typing import Final

import numpy as np

from sageserve.base.kernel import kernel
from sageserve.base.records import Demand, Floats
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.pace import gamma_tail

MINUTES: Final = 15  # that are compared with each other: those of a bin of demand, which forecasts and plans go by
LOADS: Final = 16  # that stand for a distribution, each of as many requests

_LINE: Final = np.arange(MINUTES) - (MINUTES - 1) / 2
_FREE: Final = MINUTES - 2  # what a straight line leaves of so many minutes
_FADE: Final = 0.5 ** (MINUTES * MINUTE / (6 * HOUR))  # of sums per quarter of an hour; as fast as engine time per token
_UNSEEN: Final = 2.0  # quarters of an hour of even minutes
_FEW: Final = 10.0  # requests in a minute that say little of its rate
_SURE: Final = 2.0  # standard deviations that a variance must be above the mean
_TAKEN_IN: Final = 0.1  # unevenness that changes nothing: rates that vary by a third
_MOST: Final = 4.0  # a rate that varies by twice its mean; more is an outage
_PAST: Final[Micros] = 24 * HOUR  # beyond, it is forgotten


class Unevenness:
    """What minutes of interactive requests say.

    Args:
        shape: numbers of regions, models and tiers.
        earlier: what arrived before the first instant, in minutes; None when nothing is known.
    """

    def __init__(self, shape: tuple[int, int, int], earlier: Demand | None = None) -> None:
        self._shape = shape
        self._open: list[Floats] = []  # minutes of the quarter of an hour that is being filled
        self._closed: list[Floats] = []  # float64[MINUTES, regions, models, tiers], the newest last
        self._units: list[float] = []  # requests that one seen request stands for
        if earlier is None or earlier.bin != MINUTE:
            return
        rows = earlier.requests[-(_PAST // MINUTE) :]
        steps = np.diff(np.unique(np.concatenate(([0.0], rows.ravel()))))
        unit = float(steps.min()) if len(steps) else 1.0  # counts of a trace that was made n times as dense are multiples of n
        for row in rows[len(rows) % MINUTES :]:
            self._add(row, unit)

    def see(self, requests: tuple[int, ...], length: Micros) -> None:
        """Count what arrived in a minute, by region x model x tier; anything else than a minute says nothing."""
        if length == MINUTE:
            self._add(np.array(requests, float).reshape(self._shape), 1.0)

    def _add(self, minute: Floats, unit: float) -> None:
        self._open.append(minute)
        if len(self._open) == MINUTES:
            self._closed.append(np.array(self._open))
            self._units.append(unit)
            self._open.clear()
            del self._closed[: -(_PAST // (MINUTES * MINUTE))], self._units[: -(_PAST // (MINUTES * MINUTE))]

    def of(self, model: int, tiers: list[int], *, pooled: bool) -> float:
        """Unevenness of a model's requests of some tiers.

        Args:
            model: its number.
            tiers: interactive ones.
            pooled: all regions share a queue; else it is that within regions.
        """
        if not self._closed:
            return 0.0
        counts = np.array([one[:, :, model, tiers].sum(axis=-1) for one in self._closed])  # quarters, minutes, regions
        if pooled:
            counts = counts.sum(axis=2, keepdims=True)
        return uneven(counts, np.array(self._units))


def uneven(counts: Floats, units: Floats) -> float:
    """The unevenness of float64[quarters of an hour, MINUTES, queues] counted requests, the newest last.

    With m for the mean of a quarter of an hour, s² for the variance about a straight line through its minutes, and u for the
    requests that one seen request stands for: (Σ s² − (1 + 2 √(2 / free)) Σ u m) / (Σ m² + that of two more like the mean +
    10 Σ u m), less what changes nothing. The root is the deviation of an index of dispersion of Poisson counts.
    """
    fade = _FADE ** np.arange(len(counts))[::-1, None]
    mean = counts.mean(axis=1)
    slope = np.einsum("qmr,m->qr", counts, _LINE) / (_LINE**2).sum()
    rest = counts - mean[:, None] - slope[:, None] * _LINE[None, :, None]
    squares = float((mean**2 * fade).sum())
    if squares <= 0.0:
        return 0.0
    seen = float(fade.sum())
    chance = float((mean * units[:, None] * fade).sum())
    sure = chance * (1.0 + _SURE * (2.0 / (_FREE * seen * counts.shape[2])) ** 0.5)
    excess = float(((rest**2).sum(axis=1) / _FREE * fade).sum()) - sure
    found = excess / (squares * (1.0 + _UNSEEN / seen) + _FEW * chance)
    return min(max(found - _TAKEN_IN, 0.0), _MOST)


@kernel
def _quantile(shape: float, above: float) -> float:
    """What a gamma distributed number of this shape and of scale 1 is above with such a chance."""
    low, high = 0.0, 4.0 * shape + 40.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        if gamma_tail(shape, middle) > above:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def loads_found(unevenness: float) -> tuple[float, ...]:
    """The rates, in means, of the minutes in which equal shares of the requests come, rising; none where all are even."""
    if unevenness <= 0.0:
        return ()
    shape = 1.0 / unevenness + 1.0
    found = np.array([_quantile(shape, 1.0 - (k + 0.5) / LOADS) for k in range(LOADS)])
    return tuple((found / found.mean() * (1.0 + unevenness)).tolist())
