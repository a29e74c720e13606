"""How sure it is that a promise holds in a window that was not played, from those that were.

Windows of the same traffic differ. What is asked for is not the mean of their shares but the next one, so the limit is that of
one new observation (a prediction limit), not of the mean: x - t(n-1, c) s sqrt(1 + 1/n), over log-odds of the share kept, because
shares are bounded and windows that go wrong go wrong far. Where all windows are alike, requests are a sample all the
same: the chance that a window of as many misses more than it may is binomial. The lower of both answers counts. Several promises
share what may go wrong evenly (Bonferroni), so that all of them together hold with the confidence that was asked for.

The windows that prove a fleet are those it was chosen on: the least fleet that passes has had the luck of the choice, and its
safety is told a little too high. Only windows that had no part in the search could say by how much.
"""

from collections.abc import Sequence
from math import ceil, floor, inf, sqrt

import numpy as np
from msgspec import Struct
from scipy import special, stats


class KeptShare(Struct, frozen=True):
    """Of one promise in one window."""

    kept: int
    requests: int

    @property
    def share(self) -> float:
        """Of the requests."""
        return self.kept / self.requests


class Proof(Struct, frozen=True):
    """What windows say of a promise.

    Args:
        safety: chance that it holds in a window that was not played.
        low: the share that such a window keeps at least, with the confidence that was asked for.
    """

    safety: float
    low: float


def each_of(confidence: float, promises: int) -> float:
    """The confidence that each of some promises needs, so that all of them hold together with `confidence`."""
    return 1.0 - (1.0 - confidence) / max(promises, 1)


def may_miss(requests: float, percentile: float) -> int:
    """Of so many requests, how many may be late."""
    return floor(requests * (1.0 - percentile) + 1e-9)


def prove(windows: Sequence[KeptShare], percentile: float, confidence: float) -> Proof:
    """What is known of the next window.

    Args:
        windows: two or more, each with requests.
        percentile: that is promised.
        confidence: of `low`, for this promise alone.
    """
    kept = np.array([one.kept for one in windows], float)
    requests = np.array([one.requests for one in windows], float)
    n, typical = len(windows), float(requests.mean())
    odds = np.log((kept + 0.5) / (requests - kept + 0.5))
    needed = ceil(typical * percentile - 1e-9)
    mark = float(np.log((needed + 0.5) / (max(typical - needed, 0.0) + 0.5)))  # of less than one request it needs one
    mean, width = float(odds.mean()), float(odds.std(ddof=1)) * sqrt(1 + 1 / n)
    late = (float((requests - kept).sum()) + 0.5) / (float(requests.sum()) + 1.0)
    each = max(1, round(typical))
    by_count = float(stats.binom.cdf(may_miss(each, percentile), each, late))
    lowest = 1.0 - float(stats.binom.ppf(confidence, each, late)) / each
    if width == 0.0:
        return Proof(by_count if mean >= mark else 0.0, lowest)
    by_spread = float(stats.t.cdf((mean - mark) / width, n - 1))
    low = float(special.expit(mean - float(stats.t.ppf(confidence, n - 1)) * width))
    return Proof(min(by_spread, by_count), min(low, lowest))


def worst(proofs: Sequence[Proof]) -> Proof:
    """The least sure of several, for what holds of all of them."""
    return Proof(min((one.safety for one in proofs), default=1.0), min((one.low for one in proofs), default=inf))
