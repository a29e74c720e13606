"""Which coefficients the measurements tell, and how well: their spread over groups of requests and over equally good answers.

At an answer every time is a straight line in the coefficients. Requests that followed each other were each other's
company and err together, so groups of them count as one observation each (a sandwich of the curvature around the groups'
pulls). Knows no search. Read next: `equations.py`, `calibration/logs.py`.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from sageserve.base.records import Bools, Floats
from sageserve.sim.calibration.fit.equations import Equations

TOLD: Final = 0.05  # a coefficient that may be wrong by more than this share is not told
ERRORS: Final = 4.0  # standard errors that a spread is
GROUP: Final = 10  # requests that arrived one after the other
GRAIN: Final = 5e-5  # relative: iterations end at whole microseconds, half of one in some ten milliseconds
BLIND: Final = 1e-12  # of the largest curvature: directions in which it is less are not known at all
ALIKE: Final = 1.02  # times the least cost: answers that are as good
MOST: Final = 10.0  # a spread above it says no more
NOTHING: Final = 1e-3  # of a time: a coefficient that makes less is as good as none,
VISIBLE: Final = 0.02  # and told if it cannot be a twentieth of what makes so much
MOST_UNITS: Final = 1e6  # of a coefficient: one that has no slope at all


def spread(found: Equations, values: Floats, others: Iterable[Floats] = ()) -> Floats:
    """float64[k]: how far, as a share of itself, each coefficient may be off; at most MOST.

    One that makes less than NOTHING of a time is measured by what would make VISIBLE of it: nothing has no shares.

    Args:
        found: at the answer.
        values: float64[k] > 0, the answer.
        others: answers that are as good.
    """
    made = found.slopes.mean(axis=0)
    visible = VISIBLE / np.maximum(made, VISIBLE / MOST_UNITS)
    sizes = np.where(made * values < NOTHING, np.maximum(values, visible), values)
    shares = found.slopes * sizes
    typical = np.full(len(found.off), GRAIN)
    for kind in np.unique(found.kind):
        same = found.kind == kind
        typical[same] = max(float(np.abs(found.off[same]).mean()), GRAIN)
    curved = (shares * (found.weight / typical)[:, None]).T @ shares
    pulls = shares * (found.weight * np.where(found.off < 0, -1.0, 1.0))[:, None]
    rank = np.unique(found.request, return_inverse=True)[1] // GROUP
    groups = np.zeros((int(rank.max()) + 1, len(values)))
    np.add.at(groups, rank, pulls)
    turned = np.linalg.pinv(curved, rcond=BLIND, hermitian=True)
    variance = np.diag(turned @ (groups.T @ groups) @ turned).copy()
    variance[~_reached(curved)] = MOST**2
    off = [np.abs(other - values) / sizes for other in others]
    return np.minimum(np.max([ERRORS * np.sqrt(variance), *off], axis=0), MOST)


def _reached(curved: Floats) -> Bools:
    """bool[k]: coefficients outside the directions in which nothing is known."""
    size, axes = np.linalg.eigh(curved)
    blind = size <= BLIND * size[-1]
    known: Bools = (axes[:, blind] ** 2).sum(axis=1) < TOLD**2
    return known
