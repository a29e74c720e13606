"""Engines behind a Service or a label selector, followed: where each answers, and whether it is to be given requests.

    EndpointSlices of a Service    an endpoint that is ready is open; one that terminates is left alone and finishes what it has
    pods by labels                 the same of pods: Ready, and told to end

An address is in several slices while they are made anew: it is open where one of them says so. A pod that has addresses of two
types is one engine, at its IPv4 address. Decides nothing.
Read next: `follower.py`; `live/actuators/followed.py`, which makes rows of them.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct, field

from sageserve.base.config import ServiceSettings
from sageserve.live.kubernetes.follower import FollowTimes, ObjectFollower
from sageserve.live.kubernetes.kinds import KINDS
from sageserve.live.kubernetes.reader import ClusterReader
from sageserve.live.kubernetes.writer import path_of

SERVICE_LABEL: Final = "kubernetes.io/service-name"
_TYPES: Final = ("IPv4", "IPv6", "FQDN")  # of addresses, the first that a pod has


class _Named(Struct, frozen=True, rename="camel"):
    name: str = ""
    deletion_timestamp: str = ""


class _EndpointConditions(Struct, frozen=True):
    ready: bool | None = None  # not told is ready, as the API has it
    terminating: bool | None = None


class _Target(Struct, frozen=True):
    """The pod of an endpoint."""

    name: str = ""
    uid: str = ""


class _Endpoint(Struct, frozen=True, rename="camel"):
    addresses: list[str] = field(default_factory=list)
    conditions: _EndpointConditions = _EndpointConditions()
    target_ref: _Target | None = None

    @property
    def pod(self) -> str:
        """Whose it is; empty: nobody says so, as in slices that a person wrote."""
        return "" if self.target_ref is None else self.target_ref.uid or self.target_ref.name


class _Port(Struct, frozen=True):
    name: str | None = None
    port: int | None = None


class SliceSeen(Struct, frozen=True, rename="camel"):
    """An EndpointSlice, as far as anybody here asks; one without endpoints has null there."""

    metadata: _Named = _Named()
    address_type: str = ""
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None

    @property
    def rank(self) -> int:
        """Of its type of addresses: the lowest that a pod has is used."""
        return _TYPES.index(self.address_type) if self.address_type in _TYPES else len(_TYPES)


class _PodCondition(Struct, frozen=True):
    type: str = ""
    status: str = ""


class _ContainerPort(Struct, frozen=True, rename="camel"):
    name: str = ""
    container_port: int = 0


class _Container(Struct, frozen=True):
    ports: list[_ContainerPort] = field(default_factory=list)


class _PodSpec(Struct, frozen=True):
    containers: list[_Container] = field(default_factory=list)


class _PodStatus(Struct, frozen=True):
    phase: str = ""
    pod_ip: str = field(default="", name="podIP")
    conditions: list[_PodCondition] = field(default_factory=list)


class EnginePod(Struct, frozen=True):
    """A pod that is an engine."""

    metadata: _Named = _Named()
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


class ServiceEngines:
    """Engines of one entry of live.services.

    Args:
        settings: of it.
        reader: of its cluster.
        times: of lists and pauses.
    """

    def __init__(self, settings: ServiceSettings, reader: ClusterReader, times: FollowTimes | None = None) -> None:
        self.changed = asyncio.Event()
        self.name = settings.name
        self._settings, self._reader = settings, reader
        space, tell = settings.space, self.changed.set
        self._slices: ObjectFollower[SliceSeen] | None = None
        self._pods: ObjectFollower[EnginePod] | None = None
        if settings.service:
            of = f"{SERVICE_LABEL}={settings.service.partition('/')[2]}"
            path = path_of(KINDS["EndpointSlice"], space)
            self._slices = ObjectFollower(reader, path, SliceSeen, tell, labels=of, times=times)
        else:
            of = ",".join(f"{key}={value}" for key, value in settings.pods.items())
            self._pods = ObjectFollower(reader, path_of(KINDS["Pod"], space), EnginePod, tell, labels=of, times=times)

    async def run(self) -> None:
        """Follow until cancelled; then the reader is closed."""
        async with self._reader:
            for one in (self._slices, self._pods):
                if one is not None:
                    await one.run()

    @property
    def trouble(self) -> str:
        """Why what is known may be old; empty: it is not."""
        return next(one.trouble for one in (self._slices, self._pods) if one is not None)

    def engines(self) -> dict[str, bool | None] | None:
        """Addresses: True where requests may be sent, None where what is there is about to end, False where it is not ready.

        None: nothing was ever listed.
        """
        if self._slices is not None:
            return _merged(self._of_slices(self._slices.objects)) if self._slices.listed else None
        assert self._pods is not None
        return _merged(self._of_pods(self._pods.objects)) if self._pods.listed else None

    def _of_slices(self, slices: Mapping[str, SliceSeen]) -> Iterator[tuple[str, bool | None]]:
        listed: list[tuple[int, int, _Endpoint]] = []
        for found in slices.values():
            port = next((each.port for each in found.ports or () if self._is_port(each.name or "", each.port)), None)
            if port is not None:
                listed += [(found.rank, port, endpoint) for endpoint in found.endpoints or ()]
        best: dict[str, int] = {}  # by pod: the rank that is used
        for rank, _, endpoint in listed:
            best[endpoint.pod] = min(rank, best.get(endpoint.pod, rank))
        for rank, port, endpoint in listed:
            if rank == best[endpoint.pod]:
                told = endpoint.conditions
                state = None if told.terminating else told.ready is not False
                yield from ((self._url(one, port), state) for one in endpoint.addresses[:1])  # the others are the same pod

    def _of_pods(self, pods: Mapping[str, EnginePod]) -> Iterator[tuple[str, bool | None]]:
        for pod in pods.values():
            ports = [each for container in pod.spec.containers for each in container.ports]
            port = next((each.container_port for each in ports if self._is_port(each.name, each.container_port)), None)
            port = self._settings.number if port is None else port
            if port is None or not pod.status.pod_ip or pod.status.phase in {"Failed", "Succeeded"}:
                continue
            ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)
            yield self._url(pod.status.pod_ip, port), None if pod.metadata.deletion_timestamp else ready

    def _is_port(self, name: str, number: int | None) -> bool:
        asked = self._settings.port
        return not asked or asked in {name, str(number)}

    def _url(self, address: str, port: int) -> str:
        host = f"[{address}]" if ":" in address else address
        return f"{self._settings.scheme}://{host}:{port}"


def _merged(found: Iterable[tuple[str, bool | None]]) -> dict[str, bool | None]:
    """One state an address: open where anybody says so, about to end before not ready."""
    states: dict[str, bool | None] = {}
    for url, state in found:
        before = states.get(url, state)
        states[url] = True if True in (before, state) else None if None in (before, state) else False
    return states
