"""The two numerical searches of the calibrations, on scipy: non-negative least squares and a bounded simplex.

Both are deterministic. Knows no engine. Read next: `counters.py`, `logs.py`.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from sageserve.base.records import Floats

STEPS: Final = (0.5, 0.2, 0.5, 0.2, 0.1)
"""How far the corners of each simplex are apart: one that has collapsed is begun again around the best point."""


def nonnegative(columns: Floats, target: Floats) -> Floats:
    """float64[k] >= 0: least squares of float64[n, k] against float64[n]; columns are scaled to length one."""
    from scipy.optimize import nnls  # noqa: PLC0415  # a quarter of a second that simulations need not pay

    size = np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
    found, _ = nnls(columns / size, target)
    return np.asarray(found / size, np.float64)


def smallest(cost: Callable[[Floats], float], start: Floats, *, evaluations: int) -> tuple[Floats, float, int]:
    """The best point a Nelder-Mead simplex finds, its cost, and how often `cost` was asked.

    Args:
        cost: of a point; need not be smooth.
        start: where to begin, float64[k].
        evaluations: of `cost`, at most, about.
    """
    from scipy.optimize import minimize  # noqa: PLC0415  # as in `nonnegative`

    best, least, asked = start, cost(start), 1
    for step in STEPS:
        corners = np.vstack([best, best + step * np.eye(len(best))])
        options = {"maxfev": evaluations // len(STEPS), "xatol": 1e-4, "fatol": 1e-7, "initial_simplex": corners}
        found = minimize(cost, best, method="Nelder-Mead", options=options)
        asked += int(found.nfev)
        if float(found.fun) < least:
            best, least = np.asarray(found.x, np.float64), float(found.fun)
    return best, least, asked
