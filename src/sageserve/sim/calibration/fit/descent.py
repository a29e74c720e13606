"""A way down a rough landscape: from each replay's equations to the coefficients that would have been right, again and again.

The errors are absolute values, so most equations hold exactly at an exact answer and a few outliers do not matter
(iteratively reweighted least squares). Every set of equations proposes a step, all are played, and the best is taken,
damped as Levenberg and Marquardt do; a step a little uphill is taken too, a few times. Deterministic. Knows vectors and
what a look at one shows. Read next: `equations.py`, `calibration/logs.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.records import Floats
from sageserve.sim.calibration.fit.equations import Equations
from sageserve.sim.calibration.search import nonnegative

ROUNDS: Final = 9  # of reweighting per step
ZERO: Final = 0.1  # of the median error: errors below it count as squares
FLAT: Final = 1e-9  # relative: the least of that
VISIBLE: Final = 0.02  # of a time: a coefficient that makes less of it may go to zero and come back
STRIDE: Final = 5.0  # no coefficient changes by a larger factor in one step
DAMPED: Final = (1e-4, 1e-9, 1e2)  # first, least and most damping
EASIER: Final = 0.1  # what damping is multiplied by after a step that helped,
HARDER: Final = 30.0  # and after one that did not
UPHILL: Final = 1.5  # times the least cost so far that a step may lead to,
UPHILL_MOST: Final = 3  # so many times in a row
STILL: Final = 1e-7  # a step smaller than this share of every coefficient is none
EXACT: Final = 1e-7  # a cost from which nothing is left to find


@dataclass(frozen=True, slots=True)
class Look:
    """What one replay shows.

    Args:
        values: float64[k] that were played.
        cost: what a search makes small.
        error: the part of it that measurements make; the rest is distance from the anchor.
        ways: sets of equations, at least one.
    """

    values: Floats
    cost: float
    error: float
    ways: tuple[Equations, ...]


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a descent takes place.

    Args:
        look: plays coefficients.
        least: float64[k] > 0, the smallest coefficients there are.
        typical: float64[k], no more than which one that is hidden comes back with.
        anchor: float64[k]: coefficients to stay near, 0 where none is known; None: nothing is known.
        pull: the anchor's part of a cost is `pull * error * sum(ln(values / anchor)^2)`.
    """

    look: Callable[[Floats], Look]
    least: Floats
    typical: Floats
    anchor: Floats | None = None
    pull: float = 0.0


def farness(values: Floats, anchor: Floats | None) -> float:
    """Sum of squared logarithms of what values are of the anchor's, where it has one."""
    if anchor is None:
        return 0.0
    known = anchor > 0
    return float((np.log(values[known] / anchor[known]) ** 2).sum())


def descend(ground: Ground, start: Floats, looks: int) -> Look:
    """The best look on the way down from `start`.

    Args:
        ground: what is searched.
        start: float64[k].
        looks: replays to spend, at most.
    """
    here = best = ground.look(np.maximum(start, ground.least))
    damping, uphill, spent = DAMPED[0], 0, 1
    while spent + len(here.ways) <= looks and best.error > EXACT:
        size = _sizes(ground, here)
        found = [ground.look(_step(ground, here, way, damping, size)) for way in here.ways]
        spent += len(found)
        new = min(found, key=lambda look: look.cost)
        moved = float(np.abs((new.values - here.values) / size).max())
        if new.cost < here.cost or (uphill < UPHILL_MOST and new.cost < UPHILL * best.cost):
            uphill = 0 if new.cost < here.cost else uphill + 1
            here, damping = new, max(damping * EASIER, DAMPED[1])
            best = min(best, here, key=lambda look: look.cost)
        else:
            damping *= HARDER
        if moved < STILL or damping > DAMPED[2]:
            break
    return best


def _sizes(ground: Ground, look: Look) -> Floats:
    """float64[k]: each coefficient, or what would be VISIBLE of a time where it is less, but not more than is typical."""
    share = look.ways[0].slopes.mean(axis=0)
    seen = share > 0
    visible = np.where(seen, VISIBLE / np.where(seen, share, 1.0), 0.0)
    return np.maximum(look.values, np.minimum(visible, ground.typical))


def _step(ground: Ground, here: Look, way: Equations, damping: float, size: Floats) -> Floats:
    """float64[k]: where one set of equations says the coefficients are, no farther than STRIDE away."""
    counts = way.weight > 0
    slopes, weight = way.slopes[counts] * size, way.weight[counts]
    values = here.values / size
    goal, off = slopes @ values - way.off[counts], np.abs(way.off[counts])
    stiff, drawn = _lean(ground, here, size)
    middle = len(off) // 2
    for _ in range(ROUNDS):
        zero = max(ZERO * float(np.partition(off, middle)[middle]), FLAT)
        trust = weight / np.maximum(off, zero)
        held = damping * float(trust.sum())
        left = (slopes.T * trust) @ slopes
        left.flat[:: len(values) + 1] += held + stiff
        values = _nonnegative_normal(left, slopes.T @ (trust * goal) + held * here.values / size + drawn)
        off = np.abs(slopes @ values - goal)
    found = np.clip(values * size, here.values / STRIDE, here.values * STRIDE + size)
    return np.maximum(found, ground.least)


def _lean(ground: Ground, here: Look, size: Floats) -> tuple[Floats, Floats]:
    """The anchor's part of the diagonal and of the right side of normal equations, its logarithm straightened at `here`."""
    if ground.anchor is None:
        return np.zeros(len(size)), np.zeros(len(size))
    known = ground.anchor > 0
    ratio = np.where(known, ground.anchor, here.values) / here.values
    part = np.where(known, 2.0 * ground.pull * here.error * (size / here.values) ** 2, 0.0)
    return part, part * here.values / size * (1.0 + np.log(ratio))


def _nonnegative_normal(left: Floats, right: Floats) -> Floats:
    """float64[k] >= 0 that solves normal equations in least squares."""
    left.flat[:: len(left) + 1] += FLAT**2 * np.trace(left) + np.finfo(np.float64).tiny
    root = np.linalg.cholesky(left)
    return nonnegative(np.asarray(root.T, np.float64), np.asarray(np.linalg.solve(root, right), np.float64))
