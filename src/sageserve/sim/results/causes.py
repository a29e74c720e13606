"""Why requests missed their promise: one cause each, so that causes add up to what was missed.

In this order, the first that fits: an idle engine would have missed it too (`alone`), or with the way there (`network`); it was
`refused` for its length, turned away (`shed`), or `unfinished`; its tokens came too slowly (`pace`); else it waited (`queue`, for
other requests or for an instance). The idle engine is the fastest of those that the fleet can hold. Read next: `meter.py`,
docs/reference/summary.md.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.kernel import kernel
from sageserve.base.records import UNSET, Ints
from sageserve.core.perf import first_time

if TYPE_CHECKING:  # what a kernel's file imports is compiled in, and a run imports everything
    from sageserve.sim.results.meter import RequestBlock
    from sageserve.sim.run import Run

CAUSES: Final = ("alone", "network", "refused", "shed", "unfinished", "pace", "queue")
KEPT: Final = len(CAUSES)
"""Of requests that missed nothing, or of which it is not known."""


def causes_of(run: "Run", block: "RequestBlock") -> NDArray[np.uint8]:
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
    alone = _idle(run, late)
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


def _way(run: "Run", block: "RequestBlock", missed: Ints) -> Ints:
    """int64[n]: microseconds on the network, as they were drawn where a token came back; else the median."""
    late, served, ttft = block.rows[missed], block.served[missed], block.ttft[missed]
    origin = late["region"].astype(np.int64)
    median = run.layout.rtt[origin, np.where(served == UNSET, origin, served)]
    return np.where(ttft == UNSET, median, ttft - (late["first"] - late["arrival"]))


def _idle(run: "Run", rows: NDArray[Any]) -> Ints:
    """int64[n]: microseconds until an idle engine's first token; none where no engine runs the model."""
    times = np.zeros(len(rows), np.int64)
    for m in range(len(run.layout.names.models)):
        at = np.flatnonzero(rows["model"] == m)
        fastest = run.layout.fastest(m)
        if len(at) and fastest >= 0:
            profile = run.layout.profiles[fastest]
            _first_times(profile, rows["prompt"][at], rows["cached"][at], times, at)
    return times


@kernel
def _first_times(profile: Any, prompt: Ints, cached: Ints, into: Ints, at: Ints) -> None:  # noqa: ANN401 # a PROFILE row
    for k in range(len(prompt)):
        into[at[k]] = int(first_time(profile, prompt[k], cached[k])) + profile["entry"]
