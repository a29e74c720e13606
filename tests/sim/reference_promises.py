"""What tiers promise, and which promises were missed, worked out from the rows of requests: the slow way to the kernel's counts.

Read next: `reference_fleet.py`; `DemandSeen` in `src/sageserve/core/events.py`.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.sim.kernel.state import DONE, SHED, Setup

_PLACE = 63  # of a request's state; beside it there are flags


@dataclass(frozen=True, slots=True)
class Tier:
    """One TIER row."""

    urgent: int
    expired: int
    rank: int
    patience: int
    growth: int
    batch: bool

    def promised(self, prompt: int) -> int:
        """Microseconds until the promise of a prompt of so many tokens."""
        return int(Fraction(self.patience) + Fraction(self.growth * prompt, 1000))


def missed_of(requests: NDArray[Any], setup: Setup) -> NDArray[np.int64]:
    """int64[regions x models x tiers]: requests that were answered too late, network and front end included, or turned away."""
    found = np.zeros((setup.regions, setup.models, len(setup.tiers)), np.int64)
    ended = requests[np.isin(requests["state"] & _PLACE, (DONE, SHED))]
    names = ("state", "region", "model", "tier", "instance", "first", "finish", "deadline")
    columns = (ended[name].tolist() for name in names)
    for state, region, model, tier, instance, first, finish, deadline in zip(*columns, strict=True):
        late = True
        if state & _PLACE == DONE:
            served = instance // (setup.slots * setup.roles * setup.models)
            way = setup.rtt[region, served] if setup.rtt.size else 0
            late = (finish if setup.tiers[tier]["batch"] else first) + way > deadline
        found[region, model, tier] += late
    return found.ravel()
