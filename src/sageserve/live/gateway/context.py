"""The context: what all requests of one gateway process share, and the little it takes to look something up there.

Must not hold anything that belongs to one request. Read next: `exchange.py`, `server.py`, which keeps it going.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND, Micros
from sageserve.core.admit import come_again
from sageserve.core.feed import DIRECT
from sageserve.core.layout import Layout
from sageserve.live.engine_access import EngineDoors, OpenedAccess
from sageserve.live.gateway.api_error import ApiError, overloaded
from sageserve.live.gateway.budgets import DayBudgets
from sageserve.live.gateway.cross_origin import CrossOrigin
from sageserve.live.gateway.demand_counters import DemandCounters
from sageserve.live.gateway.door_queue import DoorQueue
from sageserve.live.gateway.downstream import Downstream
from sageserve.live.gateway.flex_queue import FlexQueue
from sageserve.live.gateway.gateway_shares import GatewayShares
from sageserve.live.gateway.keys import KeyRing
from sageserve.live.gateway.meter import BREAKS, Meter, Snapshots
from sageserve.live.gateway.request_lines import RequestLines
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.sse import Names, names_of
from sageserve.live.gateway.targets import Placement, Target
from sageserve.live.gateway.tiers import ServiceTiers
from sageserve.live.gateway.upstream import ConnectionPool
from sageserve.live.wire import RoutingTable, ToControl, Trouble

if TYPE_CHECKING:  # loaded only when traces are asked for: 10 MB
    from sageserve.live.gateway.spans import Tracer

LOG: Final = logging.getLogger("sageserve.live.gateway")


class WatchedRequest(Protocol):
    """A request under way, looked at several times a second."""

    def check(self, now: Micros) -> None:
        """Do what is due: a sign of life to the client, or an end to a hung engine."""

    def stop(self) -> None:
        """The gateway stops: end at once."""


@dataclass(frozen=True, slots=True)
class Options:
    """What one gateway process is told beside the scenario.

    Args:
        region: the region it stands in, where requests come from that name none.
        worker: its number among those that share the port.
        admin: address of control's HTTP server, such as http://127.0.0.1:8200; empty: there is none.
        internal: the key of this deployment's own processes; empty: there is none.
        engine_keys: variables that hold keys of engines.
        nonce: names this process like no other: for request ids, and for control to tell it from one with the same number.
        born: seconds since 1970 when it started, shown as `created` of models.
        host: name of the machine or pod, by which control tells processes of equal numbers apart.
    """

    region: int = 0
    worker: int = 0
    admin: str = ""
    internal: str = ""
    engine_keys: Mapping[str, str] = field(default_factory=dict)
    nonce: str = "0"
    born: int = 0
    host: str = ""


class GatewayContext:
    """Everything a request needs.

    Args:
        scenario: the resolved scenario.
        layout: the numbers behind its names.
        options: of this process.
        clock: microseconds that never go back.
        wall: microseconds since 1970, for keys that expire.
        snapshots: of the processes that share the port.

    Raises:
        ConfigError: an option or a live setting cannot work.
    """

    told_at: Micros = 0  # what control said last of engines was true then; own counts do not make it newer

    def __init__(
        self,
        scenario: Scenario,
        layout: Layout,
        *,
        options: Options,
        clock: Callable[[], Micros],
        wall: Callable[[], Micros] = lambda: 0,
        snapshots: Snapshots | None = None,
    ) -> None:
        live = scenario.live or LiveSettings()
        self.scenario = scenario
        self.live = live
        self.layout = layout
        self.names = layout.names
        self.limits = live.limits
        self.options = options
        self.clock = clock
        self.routing = RoutingState(scenario, layout)
        looks = scenario.routing.instance == "affinity" or self.routing.choices.finds
        self.overlap = scenario.routing.overlap if looks else None  # None: load alone
        self._failures_told = 0  # of rules of the user's
        self.lines: RequestLines | None = None  # a line for each request is kept
        self.wall = wall
        self.cross_origin = CrossOrigin(live.cors) if live.cors else None
        self.doors = EngineDoors(live, options.engine_keys)
        self.keys = KeyRing(live.keys, layout.names.tiers, options.internal, wall, scenario.weights())
        self.budgets = DayBudgets(live, layout.names.models, wall, clock)
        self.shares = GatewayShares(self.routing, self.keys)
        self.tiers = ServiceTiers(scenario)
        self.meter = Meter(layout.names.models, layout.names.tiers, layout.names.regions)
        self.snapshots = snapshots or Snapshots(None, options.worker)
        self.demand = DemandCounters(scenario, layout, self.routing)
        self.tell: Callable[[ToControl], bool] = lambda _: False
        self.controlled = False  # there is a control process, though it may be away
        self.hears = False  # it is not
        self.waiting = FlexQueue(self._tell)
        self.door = DoorQueue(layout, self.routing, live.limits, self.demand.refused)
        self.tracer: Tracer | None = None
        self.draining = False
        self.body_bytes = 0  # of all requests in memory
        self.loud = False  # a line in the log for every request
        self.models = {name: k for k, name in enumerate(layout.names.models)}
        self.regions = {name.encode(): k for k, name in enumerate(layout.names.regions)}
        self.held = [tier.batch and layout.feed != DIRECT for tier in scenario.tiers.values()]  # they wait at control
        self.ttft: list[Micros | None] = [tier.ttft for tier in scenario.tiers.values()]
        self.gap: list[Micros | None] = [tier.itl for tier in scenario.tiers.values()]
        self.patience = [tier.patience for tier in scenario.tiers.values()]
        self.told = [
            [f"x-sageserve-region: {region}\r\nx-sageserve-tier: {tier}\r\n".encode() for tier in layout.names.tiers]
            for region in layout.names.regions
        ]
        self.admin = _address(options.admin) if options.admin else None
        self.internal = options.internal  # key of this deployment's own processes; control on another machine tells it
        self.exchanges: dict[WatchedRequest, None] = {}  # requests that are not answered yet, in order of arrival
        self.clients: dict[Downstream, None] = {}
        self._names: dict[tuple[str, int], Names] = {}
        self._pools: dict[tuple[str, int, OpenedAccess | None], ConnectionPool] = {}
        self._prefix = f"req_{options.nonce}".encode()
        self._requests = 0

    def _tell(self, message: ToControl) -> bool:
        return self.tell(message)

    def replace(self, table: RoutingTable) -> None:
        """Control said how everything is."""
        before = self.routing.gateways
        self.told_at = self.clock() - table.age
        self.routing.replace(table, self.clock())
        if self.routing.gateways != before:
            self.keys.share(self.routing.gateways)
        self.door.replace(table)

    def believe(self, secret: str) -> None:
        """Take this for the key of this deployment's own processes."""
        self.internal = secret
        self.keys.believe(secret)

    def request_id(self) -> bytes:
        """An id no other request has."""
        self._requests += 1
        return b"%b%08x" % (self._prefix, self._requests)

    def renamed(self, target: Target, model: int) -> Names | None:
        """How to bring back the client's name of a model from an instance's answers; None when it is the same."""
        name = self.names.models[model]
        if not target.served or target.served == name:
            return None
        found = self._names.get((target.served, model))
        if found is None:
            found = self._names[target.served, model] = names_of(target.served, name)
        return found

    def pool(self, target: Target) -> ConnectionPool:
        """Connections to an instance."""
        return self.pool_at(target.host, target.port, self.doors.at(target.url) if target.secured else None)

    def pool_at(self, host: str, port: int, secured: OpenedAccess | None = None) -> ConnectionPool:
        """Connections to an address; `secured`: under TLS, and how."""
        found = self._pools.get((host, port, secured))
        if found is None:
            found = self._pools[host, port, secured] = ConnectionPool(host, port, self.clock, secured)
        return found

    def engine_key(self, target: Target) -> str:
        """What an instance is told who asks; empty: nothing."""
        access = self.doors.at(target.url) if self.doors.keyed else None
        return access.key if access is not None else ""

    def trouble(self, target: Target, reason: str, *, mute: bool = False) -> None:
        """An instance cannot be reached, broke off what another one answered, or is mute: leave it out, and tell control.

        Not of one whose row is another's by now.
        """
        if self.routing.targets.get(target.row) is not target:
            return
        self.meter.count(BREAKS, ("instance",))
        before = self.routing.unwell
        self.routing.leave_out(target, self.clock(), mute=mute)
        self.tell(Trouble(target.row, reason, mute))
        if target.model not in self.routing.unwell:
            LOG.warning("instance %d at %s left out: %s", target.row, target.url, reason)
        elif target.model not in before:
            name = self.names.models[target.model]
            LOG.warning("every instance of %s is in trouble (%s): requests are sent there all the same", name, reason)

    def overload(self, placed: Placement) -> ApiError:
        """Why a request that was weighed is not let in, and when it would be."""
        tier, limit = self.names.tiers[placed.tier], self.routing.limit(placed)
        if self.routing.admits(placed):
            message = f"{tier} is full, and this key has had more than its share: others go first."
        elif placed.wait > limit:
            message = f"The queue is {placed.wait / SECOND:.1f} s long, {tier} allows {limit / SECOND:g} s."
        else:
            message = "As many requests as may be are in flight."
        return overloaded(message, come_again(placed.wait, limit))

    def tidy(self, now: Micros) -> None:
        """Close idle connections, forget addresses that no instance has any more, and tell of rules that failed."""
        choices = self.routing.choices
        if choices.failures > self._failures_told:
            LOG.warning("%s; the built-in rule decided %d times", choices.failed, choices.failures - self._failures_told)
            self._failures_told = choices.failures
        self.doors.look()
        if self.lines is not None:
            self.lines.tidy()
        used = {(target.host, target.port) for target in self.routing.targets.values()}
        if self.admin is not None:
            used.add(self.admin[:2])
        for address, pool in list(self._pools.items()):
            pool.tidy(now)
            if address[:2] not in used:
                pool.close()
                del self._pools[address]

    def close(self) -> None:
        """Close all connections to engines that are idle."""
        for pool in self._pools.values():
            pool.close()


def _address(url: str) -> tuple[str, int, OpenedAccess | None]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.port is None:
        raise ConfigError(f"{url!r} is no address of control", hint="write it as http://127.0.0.1:8200")
    return parts.hostname, parts.port, None
