"""What of a difference between two sides may be chance: t intervals over seeds, and the sampling of requests within one run.

    found = paired([192.1, 192.0, 192.3], [240.1, 240.0, 240.4])     # equal seeds, in the same order
    found.change, found.low, found.high, found.p                     # 48.03, 47.9, 48.2, 1e-6

Quantiles are SciPy's. Knows no summary and no strategy; must not decide what a difference is worth.
Read next: `comparison.py`, `show/verdict.py`, which use it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scipy import special

LEVEL: Final = 0.95
"""Of intervals."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and what it may be.

    Args:
        change: second side less the first.
        low: lower end of the interval at `LEVEL`.
        high: upper end.
        p: how often chance alone makes a difference at least as large, if there is none.
    """

    change: float
    low: float
    high: float
    p: float

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2


def paired(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Student's interval of the mean difference over equal seeds: what a seed does to both sides cancels.

    Args:
        first: by seed, two or more.
        second: the same seeds in the same order.
    """
    changes = [b - a for a, b in zip(first, second, strict=True)]
    error = statistics.stdev(changes) / math.sqrt(len(changes))
    return _interval(statistics.fmean(changes), error, len(changes) - 1)


def welch(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Welch's interval of the difference of means, for seeds that are not the same (Welch 1947).

    Args:
        first: two or more.
        second: two or more.
    """
    parts = [(statistics.variance(side) / len(side), len(side)) for side in (first, second)]
    square = sum(part for part, _ in parts)
    change = statistics.fmean(second) - statistics.fmean(first)
    if square == 0:
        return _interval(change, 0.0, 1)
    freedom = square**2 / sum(part**2 / (n - 1) for part, n in parts)
    return _interval(change, math.sqrt(square), freedom)


def proportions(first: float, first_of: int, second: float, second_of: int) -> Interval:
    """Interval of the difference of two shares of requests, each counted on its own (Agresti and Caffo 2000).

    It knows the sampling of requests only: requests that miss together, and what another seed would do, are not in it.

    Args:
        first: a share, of `first_of` requests (at least one).
        second: a share, of `second_of` requests.
    """
    p1, n1 = (first * first_of + 1) / (first_of + 2), first_of + 2
    p2, n2 = (second * second_of + 1) / (second_of + 2), second_of + 2
    error = math.sqrt(p1 * (1 - p1) / n1 + p2 * (1 - p2) / n2)
    middle, half = p2 - p1, float(special.ndtri((1 + LEVEL) / 2)) * error
    return Interval(second - first, middle - half, middle + half, 2 * float(special.ndtr(-abs(middle) / error)))


def beyond_chance(p_values: Sequence[float]) -> list[bool]:
    """Which of many differences to call real, so that at most 1 - `LEVEL` of those called so are chance.

    Looking at forty numbers at 95 % finds two changes where there are none; this does not (Benjamini and Hochberg 1995).
    """
    order = sorted(p_values)
    limits = [p for rank, p in enumerate(order, start=1) if p <= (1 - LEVEL) * rank / len(order)]
    most = max(limits, default=-1.0)
    return [p <= most for p in p_values]


def _interval(change: float, error: float, freedom: float) -> Interval:
    if error == 0:  # the same difference for every seed
        return Interval(change, change, change, 1.0 if change == 0 else 0.0)
    half = _t_quantile(freedom, (1 + LEVEL) / 2) * error
    return Interval(change, change - half, change + half, 2 * _tail(freedom, -abs(change) / error))


def _t_quantile(freedom: float, level: float) -> float:
    return float(special.stdtrit(freedom, level))


def _tail(freedom: float, value: float) -> float:
    return float(special.stdtr(freedom, value))
