"""What is told of the front door of a simulated fleet: who waits for an endpoint that sleeps, and where there was work.

Nothing of a fleet in which none sleeps. Knows no policy. Read next: `run.py`, `core/zero.py`.
"""

from collections.abc import Iterator

import numpy as np

from sageserve.core.events import DoorSeen
from sageserve.core.layout import Layout
from sageserve.sim.kernel.engine import Kernel


class SimulatedDoor:
    """Looks at the kernel's doors.

    Args:
        layout: for which endpoints sleep.
        kernel: whose doors.
    """

    def __init__(self, layout: Layout, kernel: Kernel) -> None:
        self._kernel = kernel
        self._sleepers = bool(layout.wakes.any())
        self._placed = np.zeros(layout.endpoints, np.int64)  # requests, when it was told last

    def seen(self, *, looked: bool) -> Iterator[DoorSeen]:
        """What is told when the fleet is looked at, and when somebody begins to wait since the kernel was run last."""
        if self._sleepers and (looked or self._kernel.asked):
            rows = self._kernel.endpoints
            worked = (rows["placed"] != self._placed) | (rows["placed"] > rows["finished"])
            self._placed = rows["placed"].copy()
            yield DoorSeen(tuple(self._kernel.held.tolist()), tuple(worked.tolist()))
