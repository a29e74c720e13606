"""What Envoy counted, as our gateways count: requests that came, what is where, work by endpoint.

Envoy says of each instance how many requests it was sent and how many it has; that is turned into requests that arrive at, are
sent to and leave the routing state of a gateway, so that the report is one of a gateway. Prompts are as long as the bytes sent
there say, answers as long as the mean; when a first token came Envoy does not say, so that no promise is judged.
Knows no socket. Read next: `gateway/demand_counters.py`; `process.py`.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from sageserve.base.units import SECOND, Micros
from sageserve.live.envoy.resources import CLOSED
from sageserve.live.gateway.demand_counters import DemandCounters
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.targets import Placement, Target

Place: TypeAlias = tuple[str, str, int]
"""Cluster, address and port."""
_GAP: Final = 5 * SECOND  # what came in a longer time without a look came at times that nobody knows
_USUAL_BYTES: Final = 4000  # of a request, until one was seen


@dataclass(frozen=True, slots=True)
class HostCount:
    """What Envoy says of an instance; all but `active` since it began.

    Args:
        total: requests sent.
        good: of these, answered with a success.
        active: requests that are there now.
        failed: connections that could not be made.
        closed: it is sent nothing new.
    """

    total: int = 0
    good: int = 0
    active: int = 0
    failed: int = 0
    closed: bool = False


@dataclass(frozen=True, slots=True)
class AdminPage:
    """What Envoy's admin page says.

    Args:
        hosts: counts by place.
        sent: bytes by cluster.
        up_s: for how long it runs.
    """

    hosts: Mapping[Place, HostCount]
    sent: Mapping[str, int]
    up_s: int = 0


class _Socket(Struct, frozen=True):
    address: str = ""
    port_value: int = 0


class _Address(Struct, frozen=True):
    socket_address: _Socket = _Socket()


class _Stat(Struct, frozen=True):
    name: str
    value: str | int | float = 0  # Envoy leaves a 0 out, and writes large numbers as text


class _Health(Struct, frozen=True):
    eds_health_status: str = ""


class _Host(Struct, frozen=True):
    address: _Address = _Address()
    stats: tuple[_Stat, ...] = ()
    health_status: _Health = _Health()


class _Cluster(Struct, frozen=True):
    name: str
    host_statuses: tuple[_Host, ...] = ()


class _Clusters(Struct, frozen=True):
    cluster_statuses: tuple[_Cluster, ...] = ()


class _Stats(Struct, frozen=True):
    stats: tuple[_Stat, ...] = ()


_PREFIX: Final = "cluster."
_SUFFIX: Final = ".upstream_cx_tx_bytes_total"
_UPTIME: Final = "server.uptime"
STATS: Final = "/stats?format=json&filter=upstream_cx_tx_bytes_total$|^server.uptime$"
CLUSTERS: Final = "/clusters?format=json"


def hosts_in(page: bytes) -> dict[Place, HostCount]:
    """The page `/clusters?format=json`.

    Raises:
        ValueError: it is none.
    """
    found: dict[Place, HostCount] = {}
    for cluster in msgspec.json.decode(page, type=_Clusters).cluster_statuses:
        for host in cluster.host_statuses:
            numbers = {one.name: int(one.value) for one in host.stats}
            at = host.address.socket_address
            found[cluster.name, at.address, at.port_value] = HostCount(
                numbers.get("rq_total", 0),
                numbers.get("rq_success", 0),
                numbers.get("rq_active", 0),
                numbers.get("cx_connect_fail", 0),
                host.health_status.eds_health_status == CLOSED,
            )
    return found


def bytes_in(page: bytes) -> tuple[dict[str, int], int]:
    """Bytes sent to each cluster, of the page `/stats`, and for how many seconds Envoy runs.

    A colon in a name is an underscore there.

    Raises:
        ValueError: it is none.
    """
    found = msgspec.json.decode(page, type=_Stats).stats
    up = next((int(one.value) for one in found if one.name == _UPTIME), 0)
    sent = {one.name.removeprefix(_PREFIX).removesuffix(_SUFFIX): int(one.value) for one in found if one.name.startswith(_PREFIX)}
    return sent, up


@dataclass(slots=True)
class _There:
    """An instance: what Envoy said last, and its requests as we count them."""

    target: Target
    last: HostCount
    placed: deque[tuple[Placement, int]] = field(default_factory=deque)  # and the cell of each; -1: it came before us


class EnvoyCounts:
    """Keeps a gateway's routing state and counters as if Envoy's requests were its own.

    Args:
        routing: where instances are.
        counters: what is reported.
        region: from which requests come.
        tier: of them.
    """

    def __init__(self, routing: RoutingState, counters: DemandCounters, region: int, tier: int) -> None:
        self.streams = 0
        self.unknown = 0  # requests that came while nobody looked for long, and are of no time
        self.gap: Micros = 0  # how long that was, the last time
        self.rates: dict[int, float] = {}  # engine time per time sent to endpoints of late
        self._routing, self._counters = routing, counters
        self._region, self._tier = region, tier
        self._there: dict[Place, _There] = {}
        self._bytes: dict[str, int] = {}
        self._size: dict[str, float] = {}  # bytes of a request, by cluster
        self._looked: Micros = -1
        self._up_s = 0
        self._offered: dict[int, float] = {}

    def take(self, page: AdminPage, targets: Mapping[Place, Target], now: Micros) -> list[Target]:
        """Take in what Envoy says; gives instances that it could not connect to since the last time.

        Args:
            page: what it says.
            targets: instances by place.
            now: the clock.
        """
        first, hosts = self._looked < 0, page.hosts
        gap = not first and now - self._looked > _GAP
        if gap:
            self.gap = now - self._looked
        if page.up_s < self._up_s:  # it began anew, and counts from 0
            self._bytes.clear()
            for one in self._there.values():
                one.last = HostCount()
        self._up_s = page.up_s
        self._learn_sizes(hosts, page.sent)
        for place in [place for place, one in self._there.items() if targets.get(place) is not one.target]:
            self._forget(self._there.pop(place), now)
        failed = []
        for place, target in targets.items():
            said = hosts.get(place, HostCount())
            there = self._there.get(place)
            if there is None:
                there = self._there[place] = _There(target, said if first else HostCount())
            if said.total < there.last.total:  # another is at this place now, or time is too coarse
                there.last = HostCount()
            if gap:
                self.unknown += said.total - there.last.total
                there.last = replace(there.last, total=said.total, good=said.good)
            self._count(place, there, said, now)
            if said.failed > there.last.failed:
                failed.append(target)
            there.last = said
        self.streams = sum(len(there.placed) for there in self._there.values())
        self._learn_rates(now, known=not gap)
        return failed

    def _count(self, place: Place, there: _There, said: HostCount, now: Micros) -> None:
        routing, counters, tier = self._routing, self._counters, self._tier
        model = routing.model_of(there.target.endpoint)
        prompt = counters.prompt_tokens(model, round(self._size.get(place[0], _USUAL_BYTES)))
        for one, _ in there.placed:
            routing.begin(one)  # a look ago at the latest
        come = [counters.arrived(self._region, model, tier, prompt) for _ in range(said.total - there.last.total)]
        strangers = max(0, said.active - len(there.placed) - len(come))
        for cell in [-1] * strangers + come:
            one = routing.weigh(there.target, prompt, model, tier)
            routing.place(one)
            there.placed.append((one, cell))
        good = said.good - there.last.good
        while len(there.placed) > said.active:
            one, cell = there.placed.popleft()
            routing.end(one, None, now)
            if cell >= 0 and good > 0:
                good -= 1
                counters.answered(cell, round(routing.output_mean[model * routing.tiers + tier]))

    def _forget(self, there: _There, now: Micros) -> None:
        for one, _ in there.placed:
            self._routing.end(one, None, now)

    def _learn_sizes(self, hosts: Mapping[Place, HostCount], sent: Mapping[str, int]) -> None:
        come: dict[str, int] = {}
        for place, said in hosts.items():
            there = self._there.get(place)
            come[place[0]] = come.get(place[0], 0) + max(0, said.total - (there.last.total if there is not None else 0))
        for cluster, requests in come.items():
            total = sent.get(cluster.replace(":", "_"), 0)
            news = total - self._bytes.get(cluster, 0)
            if requests and news > 0 and self._looked >= 0:
                self._size[cluster] = news / requests
            self._bytes[cluster] = total

    def _learn_rates(self, now: Micros, *, known: bool) -> None:
        """As control smooths what gateways report; what came in a gap is not known, and the rates before it stand."""
        routing, passed = self._routing, now - self._looked
        for endpoint, load in enumerate(routing.loads):
            news = load.offered - self._offered.get(endpoint, 0.0)
            if known and self._looked >= 0 and passed > 0:
                before = self.rates.get(endpoint, 0.0)
                self.rates[endpoint] = before + (1.0 - 2.0 ** (-passed / routing.half_life)) * (news / passed - before)
            self._offered[endpoint] = load.offered
        self._looked = now


def is_carried_out(hosts: Mapping[Place, HostCount], wanted: Mapping[Place, bool]) -> bool:
    """Whether Envoy does what the files say: each instance that is open (True) takes requests, and no closed one does."""
    return all(place in hosts and hosts[place].closed != is_open for place, is_open in wanted.items()) and all(
        place in wanted for place in hosts
    )


def targets_at(places: Mapping[int, Place], targets: Sequence[Target]) -> dict[Place, Target]:
    """Instances by place, of those that have one."""
    return {places[target.row]: target for target in targets if target.row in places}
