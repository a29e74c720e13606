"""A fleet view on a stage: its clock is set by hand, gateways are told to it, and what it says is kept.

Read next: `test_fleet_view.py`.
"""

from sageserve.base.units import SECOND
from sageserve.core.events import InstanceDrained
from sageserve.core.layout import Layout
from sageserve.live.actuators.base import EngineAddress
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.opened import Callbacks
from sageserve.live.wire import (
    VERSION,
    AnswerCount,
    CellCount,
    EndpointCount,
    Hello,
    InstanceCount,
    Report,
    RoutingTable,
    ToGateway,
)
from tests.core.small import layout_of, scenario

BLIND_AFTER = 30 * SECOND


def address(instance: int) -> EngineAddress:
    return EngineAddress(f"http://127.0.0.1:{9000 + instance}", "m")


class Scene:
    """A fleet view whose clock is set by hand, and everything it said."""

    def __init__(self, **changes: object) -> None:
        self.settings = scenario(gpus=80, **{"live": {"safety": {"blind_after": "30s"}}, **changes})
        self.layout: Layout = layout_of(self.settings)
        self.now = 0
        self.sent: list[tuple[int, ToGateway]] = []
        self.drained: list[InstanceDrained] = []
        told = Callbacks(self.send, address, self.drained.append, lambda: (0, 0))
        self.view = FleetView(self.settings, self.layout, "epoch", lambda: self.now, told)

    def send(self, gateway: int, message: ToGateway) -> bool:
        self.sent.append((gateway, message))
        return True

    def table(self, gateway: int) -> RoutingTable:
        return next(m for g, m in reversed(self.sent) if g == gateway and isinstance(m, RoutingTable))

    def report(
        self,
        gateway: int = 0,
        *,
        version: int | None = None,
        cells: tuple[CellCount, ...] = (),
        endpoints: tuple[EndpointCount, ...] = (),
        instances: tuple[InstanceCount, ...] = (),
        answers: tuple[AnswerCount, ...] = (),
    ) -> None:
        means = (200.0,) * (len(self.layout.names.models) * len(self.layout.names.tiers))
        self.view.heard(
            gateway,
            Report(
                self.view._version if version is None else version, endpoints, instances, cells, (), means, 0, answers=answers
            ),
        )

    def hello(self, gateway: int = 0, nonce: str = "one", worker: int | None = None, *, stays: bool = False) -> None:
        self.view.heard(gateway, Hello(VERSION, gateway if worker is None else worker, nonce, stays=stays))


def cell(number: int, *, prompt: int = 0, output: int = 0, requests: int = 0, work: float = 0.0) -> CellCount:
    return CellCount(number, prompt, output, requests, work, requests, 0, requests)
