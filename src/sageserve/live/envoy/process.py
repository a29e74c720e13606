"""The process between control and an Envoy: files out when control says something new, a report in when Envoy was asked.

To control it is a gateway. What it reports as known is what Envoy says it does, not what the files say: control takes an
instance for drained only when Envoy has no request there and sends none. While Envoy cannot be asked nothing is reported, and
control counts on its own eyes. Must not decide. Read next: `resources.py`, `counts.py`; `live/gateway/server.py`, its sibling.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import httpx
from msgspec.structs import replace

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.errors import ConfigError, in_words
from sageserve.base.units import SECOND, Micros
from sageserve.base.urls import shown_url
from sageserve.core.layout import Layout
from sageserve.core.strategies import layout_of
from sageserve.live.envoy.counts import CLUSTERS, STATS, AdminPage, EnvoyCounts, Place, bytes_in, hosts_in, is_carried_out
from sageserve.live.envoy.folder import EnvoyFolder
from sageserve.live.envoy.names import cluster_of, used
from sageserve.live.envoy.resources import EnvoyHost, ModelRoute, files
from sageserve.live.envoy.shares import Traffic, shares_of
from sageserve.live.gateway.demand_counters import DemandCounters
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.targets import Target
from sageserve.live.link import LinkClient
from sageserve.live.wire import VERSION, Hello, RoutingTable, ToGateway, Trouble, layout_mark

LOG: Final = logging.getLogger(__name__)
LOOK_S: Final = 0.5
_LATE: Final = 20  # looks
_PATIENCE_S: Final = 5.0
_RESOLVED: Final = 30 * SECOND  # names of hosts are asked for again then
_RESOLVE_S: Final = 2.0  # at most for one
WORKER: Final = 1_000_000
"""Its number among gateways: behind all of ours."""


@dataclass(frozen=True, slots=True)
class EnvoyBinding:
    """Between what.

    Args:
        control: socket of the control process.
        folder: where the files are.
        admin: URL of Envoy's admin page.
        region: where its requests come from.
        tier: of them.
        nonce: of this process.
        told: called with sentences of what changed, for whoever looks on.
    """

    control: Path
    folder: Path
    admin: str
    region: int = 0
    tier: int = 0
    nonce: str = ""
    told: Callable[[str], None] = field(default=lambda _: None)


def layout_for(scenario: Scenario) -> Layout:
    """The layout of a fleet that an Envoy can stand in front of.

    Raises:
        ConfigError: it needs what only our gateways do.
    """
    layout, live = layout_of(scenario), scenario.live or LiveSettings()
    ours = "put `sageserve gateway` in front of it"
    if any(layout.apart):
        name = layout.names.models[layout.apart.index(True)]
        raise ConfigError(f"{name} has prefill and decode apart: each request is sent to two instances in turn", hint=ours)
    if layout.wakes.any():
        name = layout.names.models[int(layout.wakes.argmax()) // len(layout.roles) % len(layout.names.models)]
        raise ConfigError(f"{name} sleeps when nobody asks for it, and Envoy lets no request wait for an instance", hint=ours)
    if live.access:
        raise ConfigError(f"live.access ({', '.join(live.access)}): Envoy does not know the keys of engines", hint=ours)
    return layout


class EnvoyPublisher:
    """Speaks with control and with one Envoy.

    Args:
        scenario: of the fleet, resolved.
        place: between what.
        now: the clock.

    Raises:
        ConfigError: the fleet needs what only our gateways do.
    """

    def __init__(self, scenario: Scenario, place: EnvoyBinding, now: Callable[[], Micros]) -> None:
        self.layout = layout_for(scenario)
        self._place, self._now = place, now
        self._scrape = scenario.signals.scrape
        self._routing = RoutingState(scenario, self.layout)
        self._counters = DemandCounters(scenario, self.layout, self._routing)
        self._counts = EnvoyCounts(self._routing, self._counters, place.region, place.tier)
        self._models = [model for model in range(len(self.layout.names.models)) if self._walk(model)]
        self._clusters = {endpoint: cluster_of(self.layout, endpoint) for endpoint in used(self.layout)}
        self._table: RoutingTable | None = None
        self._news = asyncio.Event()
        self._addresses: dict[str, str] = {}  # by name of a host; empty: there is none
        self._resolved: dict[str, Micros] = {}  # when, by name of a host
        self._folder = EnvoyFolder(place.folder)
        self._writes = asyncio.Lock()
        self._wanted: dict[Place, bool] = {}  # who is to be sent requests, as files say
        self._places: dict[Place, int] = {}  # rows of instances
        self._version = self._known = -1  # of the table in files, and of the one that Envoy does
        self._late = 0  # looks since Envoy did what files say
        self._said: dict[str, str] = {}
        self._ends = False
        hello = Hello(VERSION, WORKER, place.nonce or os.urandom(6).hex(), layout_mark(self.layout), stays=True)
        self._link = LinkClient(place.control, hello, self._hear, self._control_changed)

    async def run(self, begun: Callable[[], None] = lambda: None) -> None:
        """Go on until cancelled. What is in files stays there.

        Args:
            begun: called once the folder is ours.

        Raises:
            ConfigError: files cannot be written, or the folder is another process's.
        """
        limits = httpx.Limits(max_connections=2)
        who = f"`sageserve envoy run`, process {os.getpid()}, which control at {self._place.control} tells"
        with self._folder.held(who):
            begun()
            await self._work(limits)

    async def _work(self, limits: httpx.Limits) -> None:
        async with httpx.AsyncClient(base_url=self._place.admin, timeout=_PATIENCE_S, limits=limits) as client:
            self._link.start()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._publish_all())
                    group.create_task(self._repair_all())
                    group.create_task(self._look_all(client))
            finally:
                self._ends = True
                await self._link.close()

    # --- control ---

    def _hear(self, message: ToGateway) -> None:
        if isinstance(message, RoutingTable):
            self._routing.replace(message, self._now())
            self._table = message
            self._news.set()

    def _control_changed(self, connected: bool) -> None:
        if self._ends:
            return
        self._tell(
            "control",
            "" if connected else "control is gone, or has other settings than this: Envoy goes on with what it was told last",
        )

    async def _publish_all(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._table is not None:
                await self._publish(self._table)

    async def _publish(self, table: RoutingTable) -> None:
        targets = list(self._routing.targets.values())
        await self._resolve(targets)
        hosts: dict[int, list[EnvoyHost]] = {endpoint: [] for endpoint in self._clusters}
        wanted: dict[Place, bool] = {}
        places: dict[Place, int] = {}
        for target in targets:
            if self._unfit(target):
                continue
            host = EnvoyHost(self._addresses[target.host], target.port, target.weight, target.open)
            hosts[target.endpoint].append(host)
            place = self._clusters[target.endpoint], host.address, host.port
            wanted[place], places[place] = target.open, target.row
        told = files({self._clusters[endpoint]: some for endpoint, some in hosts.items()}, self._routes(table, hosts))
        async with self._writes:
            changed = await asyncio.to_thread(self._folder.write, told)
        self._wanted, self._places, self._version = wanted, places, table.version
        if changed:
            LOG.debug("table %d: %s", table.version, ", ".join(changed))

    async def _repair_all(self) -> None:
        while True:
            await self._repair()
            await asyncio.sleep(LOOK_S)

    async def _repair(self) -> None:
        """Files say what control said, whoever changed them or took them away."""
        async with self._writes:
            harmed = await asyncio.to_thread(self._folder.repair)
        if harmed:
            more = f" and {len(harmed) - 1} more" if len(harmed) > 1 else ""
            self._place.told(f"{self._place.folder / harmed[0]}{more} was changed or deleted by another: written again")

    def _routes(self, table: RoutingTable, hosts: Mapping[int, list[EnvoyHost]]) -> list[ModelRoute]:
        """Shares of every model, of endpoints that Envoy can send requests to."""
        traffic = Traffic(self._counts.rates, self._now() - table.age, self._scrape, self._place.region, self._place.tier)
        found = []
        for model in self._models:
            walk = [endpoint for endpoint in self._walk(model) if any(host.open for host in hosts[endpoint])]
            shares = shares_of(self._routing, walk, traffic)
            found.append(ModelRoute(self._name(model), {self._clusters[endpoint]: n for endpoint, n in shares.items()}))
        return found

    def _unfit(self, target: Target) -> bool:
        """Whether Envoy cannot send requests to an instance; said once, with the reason."""
        why = ""
        if target.secured:
            why = "it speaks TLS, and the clusters of Envoy are plain"
        elif target.prefix:
            why = f"its URL has a path, {target.prefix.decode()}, and Envoy sends requests to the path that they came for"
        elif target.served not in {"", self._name(target.model)}:
            why = f"its engine knows the model as {target.served}, and Envoy changes no names in bodies"
        elif not self._addresses[target.host]:
            why = f"there is no address of {target.host}"
        self._tell(target.url, f"{target.url} is left out: {why}" if why else "")
        return bool(why)

    async def _resolve(self, targets: list[Target]) -> None:
        """Envoy wants addresses where we may have names, and what a name stands for may change."""
        now = self._now()
        old = {
            host for host, at in self._resolved.items() if self._addresses[host] and (now - at < _RESOLVED or is_address(host))
        }
        hosts = sorted({target.host for target in targets} - old)
        for host, address in zip(hosts, await asyncio.gather(*map(self._address, hosts)), strict=True):
            self._addresses[host], self._resolved[host] = address, now

    async def _address(self, host: str) -> str:
        """Of a host; the one it had while that is one of its own, or none is said. Empty: it never had one."""
        before = self._addresses.get(host, "")
        try:
            asked = asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            async with asyncio.timeout(_RESOLVE_S if before else None):
                found = await asked
        except (OSError, UnicodeError):  # a time-out is one of the first, too
            return before
        found.sort(key=lambda one: one[0] != socket.AF_INET)  # engines that listen on one kind listen on this
        addresses = [str(one[4][0]) for one in found]
        return before if before in addresses else addresses[0]

    # --- Envoy ---

    async def _look_all(self, client: httpx.AsyncClient) -> None:
        while True:
            await self._look(client)
            await asyncio.sleep(LOOK_S)

    async def _look(self, client: httpx.AsyncClient) -> None:
        try:
            pages = [await client.get(page) for page in (CLUSTERS, STATS)]
            hosts, (sent, up_s) = hosts_in(pages[0].raise_for_status().content), bytes_in(pages[1].raise_for_status().content)
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            unseen = "what it does is not seen, and nothing is reported"
            self._tell("envoy", f"Envoy cannot be asked: {shown_url(self._place.admin)}: {in_words(error)}: {unseen}")
            return
        self._tell("envoy", "")
        ours = set(self._clusters.values())
        self.take(AdminPage({place: said for place, said in hosts.items() if place[0] in ours}, sent, up_s))

    def take(self, page: AdminPage) -> None:
        """Take in what Envoy says, and tell control."""
        if self._version < 0:
            return  # nothing was said by control yet: what Envoy has is of an earlier process
        if is_carried_out(page.hosts, self._wanted):
            self._known, self._late = self._version, 0
        self._late += 1
        stale = f"Envoy does not do what the files in {self._place.folder} say: its log says why" if self._late > _LATE else ""
        self._tell("files", stale)
        known = self._routing.targets
        targets = {place: known[row] for place, row in self._places.items() if row in known}
        before = self._counts.unknown
        for target in self._counts.take(page, targets, self._now()):
            self._link.send(Trouble(target.row, "Envoy could not connect"))
        if lost := self._counts.unknown - before:
            gap = self._counts.gap // SECOND
            self._place.told(f"{lost:,} requests came in {gap:,} s in which Envoy was not seen: they are in no count")
        self._link.send(replace(self._counters.report(self._counts.streams), version=self._known))

    # --- the rest ---

    def _walk(self, model: int) -> list[int]:
        here = self._routing.walk[self._place.region][model][self._place.tier]
        return [endpoint for endpoint in here if endpoint in set(used(self.layout))]

    def _name(self, model: int) -> str:
        return self.layout.names.models[model]

    def _tell(self, about: str, sentence: str) -> None:
        """Say something once, and that it is over."""
        before = self._said.get(about, "")
        if sentence and sentence != before:
            self._place.told(sentence)
        elif before and not sentence:
            self._place.told(f"over: {before}")
        self._said[about] = sentence


def is_address(host: str) -> bool:
    """Whether it is no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
