"""The two numerical searches of the calibrations, on scipy: non-negative least squares and a bounded simplex.

Both are deterministic. Knows no engine. Read next: `counters.py`, `logs.py`.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from sageserve.base.records import Floats

SHRINKING: Final = (1.0, 0.3, 0.1)
"""Sizes of the simplices that follow each other, as shares of the first."""


def nonnegative(columns: Floats, target: Floats) -> Floats:
    """float64[k] >= 0: least squares of float64[n, k] against float64[n]; columns are scaled to length one."""
    from scipy.optimize import nnls  # noqa: PLC0415  # a quarter of a second that simulations need not pay

    size = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    found, _ = nnls(columns / size, target)
    return np.asarray(found / size, np.float64)


def smallest(cost: Callable[[Floats], float], start: Floats, size: Floats, *, evaluations: int) -> tuple[Floats, float]:
    """The best point that Nelder-Mead simplices find near another, and its cost.

    Args:
        cost: of a point; need not be smooth.
        start: where to begin, float64[k].
        size: float64[k], how far the corners of the first simplex are apart; a simplex that has collapsed is begun again.
        evaluations: of `cost`, at most, about.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  # as in `nonnegative`

    best, least = start, cost(start)
    for share in SHRINKING:
        corners = np.vstack([best, best + share * np.diag(size)])
        options = {"maxfev": evaluations // len(SHRINKING), "xatol": 1e-9, "fatol": 1e-9, "initial_simplex": corners}
        found = minimize(cost, best, method="Nelder-Mead", options=options)
        if float(found.fun) < least:
            best, least = np.asarray(found.x, np.float64), float(found.fun)
    return best, least
