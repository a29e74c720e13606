"""Cases whose answers travel, and cases in which endpoints sleep while nothing of them is open.

Read next: `cases.py`, which draws the rest.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sageserve.sim.kernel.state import Setup

ODD = 1.0471975511965976  # pi/3: coefficients with a full mantissa, so that no sum falls on half a microsecond by design


def with_distances(draw: Callable[[int, int], int], setup: Setup, grain: int) -> Setup:
    """In half of the worlds answers travel, and engines of one model in four keep no conversations."""
    if draw(0, 1):
        return setup
    caches = tuple(draw(0, 3) > 0 for _ in range(setup.models))
    rtt = [draw(0, 3_000) // grain * grain for _ in range(setup.regions**2)]
    return replace(setup, caches=caches, rtt=np.array(rtt, np.int64).reshape(setup.regions, setup.regions))


def with_sleepers(draw: Callable[[int, int], int], setup: Setup) -> Setup:
    """In three of five worlds some endpoints, or all, sleep while they have no open instance."""
    if draw(0, 4) < 2:
        return setup
    share = draw(1, 4)
    return replace(setup, sleeps=tuple(draw(1, 4) <= share for _ in range(setup.endpoints)))


def with_admission(draw: Callable[[int, int], int], setup: Setup) -> Setup:
    """In two of five worlds requests are turned away: by a tight or loose promise, by a small or large cap."""
    if draw(0, 4) < 3:
        return setup
    return replace(setup, admission=True, admission_wait=draw(1, 40) / 16 * ODD, admission_queued=draw(1, 4))
