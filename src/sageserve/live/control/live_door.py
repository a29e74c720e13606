"""The front door of a live fleet: who waits for an endpoint that sleeps, and where there was work; as gateways report it.

Nothing of a fleet in which none sleeps. Knows no policy. Read next: `core/zero.py`, who is told; `sim/doors.py`, the simulated
one; `sleeping.py` for what is said of endpoints that sleep.
"""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from sageserve.core.events import DoorSeen
from sageserve.core.layout import Layout
from sageserve.live.control.gateway_reports import GatewayReports


class LiveDoor:
    """Looks at what gateways reported.

    Args:
        layout: for which endpoints sleep.
        reports: of gateways.
        endpoints: ENDPOINT rows.
    """

    def __init__(self, layout: Layout, reports: GatewayReports, endpoints: NDArray[Any]) -> None:
        self._reports = reports
        self._endpoints = endpoints
        self._sleepers = bool(layout.wakes.any())
        self._slots = layout.slots
        self._placed = endpoints["placed"].copy()  # requests, when it was told last

    @property
    def asked(self) -> bool:
        """Whether somebody began to wait since it was told last."""
        return self._sleepers and self._reports.asked

    def seen(self, *, looked: bool) -> Iterator[DoorSeen]:
        """What is told when the fleet is looked at, and when the first of a kind begins to wait."""
        if not self._sleepers or not (looked or self._reports.asked):
            return
        self._reports.asked = False
        has_some = self._reports.in_flight.reshape(-1, self._slots).sum(axis=1) > 0
        worked = (self._endpoints["placed"] != self._placed) | has_some
        self._placed = self._endpoints["placed"].copy()
        yield DoorSeen(tuple(self._reports.held.tolist()), tuple(worked.tolist()))
