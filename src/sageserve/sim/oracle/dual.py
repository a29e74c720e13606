"""The least GPU-hours of one model when a missed request costs a price instead of its work: a choice of busy steps.

In each step of time GPUs are held for as long as work takes, and for their floor. Whatever steps are called busy, those hours are
at least the floor of the others and the work that can only be done in busy ones, whatever is held when; of all choices the best
is taken, by runs of busy steps side by side. Where nobody is turned away a late request is work all the same, only later.
Read next: `needs.py`, docs/reference/bound.md.
"""

from dataclasses import dataclass

import numpy as np

from sageserve.base.kernel import kernel
from sageserve.base.records import Floats, Ints
from sageserve.base.units import HOUR
from sageserve.sim.oracle.needs import Needs, edges


@dataclass(frozen=True, slots=True)
class ModelDual:
    """What `least` knows of one model.

    Args:
        needs: in order of their last steps.
        floor: float64[steps], GPU-hours that its minimum instances hold.
        turned_away: whether a missed request may go without an answer.
    """

    needs: Needs
    floor: Floats
    turned_away: bool

    def least(self, cuts: Ints) -> float:
        """GPU-hours, misses at their prices included.

        Args:
            cuts: int64[tiers], rows of `edges()`: the price of a miss in GPU-microseconds.
        """
        needs = self.needs
        entries = needs.tier, needs.bucket, needs.begin, needs.end, needs.count, needs.work
        late = np.zeros_like(self.floor) if self.turned_away else needs.lost / HOUR
        return float(self.floor.sum() + _gained(entries, edges(), cuts, self.floor, (late, self.turned_away)))


@kernel
def _gained(
    entries: tuple[Ints, Ints, Ints, Ints, Floats, Floats], prices: Floats, cuts: Ints, floor: Floats, late: tuple[Floats, bool]
) -> float:
    """GPU-hours that the best runs of busy steps have more than their floor."""
    tier, bucket, begin, end, count, work = entries
    lost, turned_away = late
    steps = len(floor)
    best = np.zeros(steps + 1)  # of all runs that end before a step
    run = np.zeros(steps)  # of one that begins there and ends with the step in hand
    whole = np.zeros(steps)  # the same, with all work in full
    adds, full = np.zeros(steps), lost.copy()
    at = 0
    for j in range(steps):
        adds[:] = 0.0
        while at < len(end) and end[at] == j:
            cut = cuts[tier[at]]
            some = work[at] if bucket[at] < cut else count[at] * prices[cut]
            adds[begin[at]] += some / 3.6e9
            full[begin[at]] += work[at] / 3.6e9
            at += 1
        more, most = 0.0, best[j]
        for i in range(j, -1, -1):
            more += adds[i]
            run[i] += more - floor[j]
            whole[i] -= floor[j]
            most = max(most, best[i] + run[i])
        best[j + 1] = most
    if turned_away:
        return float(best[steps])
    more, most = 0.0, best[steps]
    for i in range(steps - 1, -1, -1):  # what is late is done by the end, or owed
        more += full[i]
        most = max(most, best[i] + whole[i] + more)
    return float(most)
