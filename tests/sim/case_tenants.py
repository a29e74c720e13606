"""Cases in which tenants share: by weights far apart, one louder than the others, some silent for long enough to be forgotten.

Read next: `cases.py`, which draws the rest; docs/reference/kernel.md, "Tenants that share".
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sageserve.base.records import UNSET, Trace
from sageserve.core.fair_share import ASKING
from sageserve.sim.kernel.rows.shares import Sharers
from sageserve.sim.kernel.state import Setup

RARE = 400_000  # us between scrapes in a world with a long silence: the naive one looks at every scrape
LASTING = 5e6  # half-life there: else nothing is left of what was seen but how sums of it were rounded, by which routes differ


def with_tenants(draw: Callable[[int, int], int], setup: Setup, trace: Trace) -> tuple[Setup, Trace, Sharers | None]:
    """In one of four worlds tenants share, light ones so that few requests put them ahead; in some all are silent for long."""
    if draw(0, 3) != 2:
        return setup, trace, None
    many, loud, n = draw(2, 4), draw(0, 1), len(trace)
    weights = np.array([2.0 ** draw(-9, 2) for _ in range(many)])
    owner = np.array([0 if loud and draw(0, 2) else draw(0, many - 1) for _ in range(n)], np.int32)
    if draw(0, 2) < 2:
        return setup, trace, Sharers(owner, weights)
    later = np.where(np.arange(n) >= draw(0, n - 1), ASKING + draw(0, 2) - 1, 0)
    owner[later > 0] = np.maximum(owner[later > 0], draw(0, 1))  # the first one never comes back, perhaps
    deadline = trace.deadline if trace.deadline is None else trace.deadline + np.where(trace.deadline == UNSET, 0, later)
    told = replace(trace, arrival=trace.arrival + later, deadline=deadline, window=trace.window + 2 * ASKING).check()
    return replace(setup, scrape=max(setup.scrape, RARE), half_life=LASTING), told, Sharers(owner, weights)
