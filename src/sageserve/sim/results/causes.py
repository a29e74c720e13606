"""Why requests missed their promise: one cause each, so that causes add up to what was missed.

In this order, the first that fits: an idle engine would have missed it too (`alone`), or with the way there (`network`); it was
`refused` for its length, turned away (`shed`), or `unfinished`; its tokens came too slowly (`pace`); else it waited (`queue`, for
other requests or for an instance). The idle engine is the fastest of those that the fleet can hold. Read next: `meter.py`,
docs/reference/summary.md.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import UNSET, Ints
from sageserve.sim.faults import true_layout
from sageserve.sim.reach import idle_times
from sageserve.sim.results.meter import RequestBlock
from sageserve.sim.run import Run

CAUSES: Final = ("alone", "network", "refused", "shed", "unfinished", "pace", "queue")
KEPT: Final = len(CAUSES)
"""Of requests that missed nothing, or of which it is not known."""


def causes_of(run: Run, block: RequestBlock) -> NDArray[np.uint8]:
    """uint8[n]: rows of CAUSES, KEPT where there is none."""
    rows = block.rows
    found = np.full(len(rows), KEPT, np.uint8)
    missed = np.flatnonzero(~block.met & ~block.undecided)
    if not len(missed):
        return found
    late = rows[missed]
    tiers = list(run.scenario.tiers.values())
    batch = np.array([tier.batch for tier in tiers])[late["tier"]]
    allowed = np.where(batch, 2**62, late["deadline"] - late["arrival"])
    alone = idle_times(true_layout(run.scenario, run.layout), late["model"], late["prompt"], late["cached"])
    in_time = (block.ttft[missed] != UNSET) & (block.ttft[missed] <= allowed) & ~batch
    tests = (
        alone > allowed,
        alone + _way(run, block, missed) > allowed,
        block.refused[missed],
        block.shed[missed],
        ~block.finished[missed],
        in_time,
    )
    found[missed] = np.select(tests, np.arange(len(tests)), len(tests)).astype(np.uint8)
    return found


def _way(run: Run, block: RequestBlock, missed: Ints) -> Ints:
    """int64[n]: microseconds on the network, as they were drawn where a token came back; else the median."""
    late, served, ttft = block.rows[missed], block.served[missed], block.ttft[missed]
    origin = late["region"].astype(np.int64)
    median = run.layout.rtt[origin, np.where(served == UNSET, origin, served)]
    return np.where(ttft == UNSET, median, ttft - (late["first"] - late["arrival"]))
