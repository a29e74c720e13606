"""A fleet of another's on the fake API server, with its autoscaler, and processes of ours that act on it; clocks are set by hand.

Read next: `test_hands.py`.
"""

import asyncio
import copy
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field

from sageserve.base.config import Scenario
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.live.authority.hands import ClusterHands, HandsParts
from sageserve.live.authority.pods import PodSeen
from sageserve.live.authority.target_hand import PoolAsked
from sageserve.live.kubernetes.fake import FakeCluster, Stored
from sageserve.live.kubernetes.fake_api import FakeTransport, fake_config
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import ClusterWriter, ObjectPlace, WriteMark
from tests.live.watch.stage import POOL, one_pool

WALL: Micros = 1_790_000_000 * SECOND
SPACE, NAME = "serving", "llama"
USER = WriteMark("kubectl-client-side-apply")


def acted_on(
    kind: str = "ScaledObject", *, safety: Mapping[str, object] | None = None, guard: str | None = None, **target: object
) -> Scenario:
    """One model in one region, and one target that may be acted on."""
    given = {"cluster": "east", "pool": POOL, "kind": kind, "name": f"{SPACE}/{NAME}", "authority": "floor", "max": 20} | target
    return one_pool(live={"clusters": {"east": {"guard": guard}}, "targets": {"big": given}, "safety": dict(safety or {})})


@dataclass
class Process:
    """One process of ours."""

    hands: ClusterHands
    transport: FakeTransport

    async def keep(self) -> None:
        await self.hands.keeper.keep()

    async def turn(self) -> None:
        """The lease, then a round."""
        await self.hands.keeper.keep()
        await self.hands.round()


@dataclass
class Field:
    """The server, its clock, and what decisions ask for."""

    kind: str = "ScaledObject"
    cluster: FakeCluster = field(default_factory=FakeCluster)
    now: Micros = 0
    wants: int | None = None
    blind: bool = False
    use: float = 0.4
    runs: int = 0
    busy: dict[str, int] = field(default_factory=dict)
    told: list[tuple[str, dict[str, str | int]]] = field(default_factory=list)
    transports: list[FakeTransport] = field(default_factory=list)
    _outside: ClusterWriter | None = None

    @property
    def place(self) -> ObjectPlace:
        return ObjectPlace(self.kind, SPACE, NAME)

    def outside(self) -> ClusterWriter:
        """Who is not one of our processes: the user, and commands."""
        if self._outside is None:
            self._outside = self.writer()
        return self._outside

    def writer(self) -> ClusterWriter:
        self.transports.append(FakeTransport(self.cluster))
        return ClusterWriter(fake_config(), self.transports[-1])

    def process(
        self,
        scenario: Scenario,
        me: str = "one",
        *,
        dry_run: bool = False,
        started: Callable[[str, Micros], None] = lambda *_: None,
        pods: Callable[[str, str], Sequence[PodSeen] | None] = lambda *_: None,
    ) -> Process:
        writer = self.writer()
        parts = HandsParts(
            {"east": writer},
            lambda _: PoolAsked(self.wants, self.use, self.blind, self.now, self.runs, self.busy),
            lambda: self.now,
            lambda: WALL + self.now,
            me,
            lambda act, facts: self.told.append((act, dict(facts))),
            dry_run,
            started,
            pods=pods,
        )
        return Process(ClusterHands(scenario, "east", parts), self.transports[-1])

    async def made(self, low: int | None = 2, high: int = 16, count: int = 4) -> "Field":
        """What the user applied, and what runs."""
        kind = KubeObject({"kind": self.kind}).kind
        keys = ("minReplicas", "maxReplicas") if kind == "HorizontalPodAutoscaler" else ("minReplicaCount", "maxReplicaCount")
        bounds: dict[str, Json] = {keys[1]: high}
        if low is not None:
            bounds[keys[0]] = low
        reference: Json = {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
        spec: Json = {"scaleTargetRef": reference, "triggers": [], **bounds}
        await self.outside().create(self.place, {"spec": spec}, USER)
        self.cluster.put(
            {
                "kind": "Deployment",
                "metadata": {"name": NAME, "namespace": SPACE},
                "spec": {"replicas": count, "selector": {"matchLabels": {"app": NAME}}},
                "status": {"readyReplicas": count},
            }
        )
        return self

    async def user_writes(self, body: Mapping[str, Json], manager: WriteMark = USER) -> None:
        await self.outside().merge(self.place, body, manager)

    def found(self) -> KubeObject:
        held = self.cluster.get(self.kind, SPACE, NAME)
        assert held is not None
        return KubeObject(held)

    def bounds(self) -> tuple[int | None, int | None]:
        names = (
            ("minReplicas", "maxReplicas") if self.kind == "HorizontalPodAutoscaler" else ("minReplicaCount", "maxReplicaCount")
        )
        found = self.found()
        return found.number("spec", names[0]), found.number("spec", names[1])

    def bare(self) -> Stored:
        """The object without versions and managed fields: what the user knows of it."""
        data = copy.deepcopy(dict(self.found().data))
        metadata = data["metadata"]
        assert isinstance(metadata, dict)
        for key in ("managedFields", "resourceVersion"):
            metadata.pop(key)
        return data

    def scaled(self) -> int:
        """Its autoscaler: as many as its bounds let run of what runs."""
        low, high = self.bounds()
        held = self.cluster.get("Deployment", SPACE, NAME)
        assert held is not None
        count = KubeObject(held).number("spec", "replicas") or 0
        count = min(max(count, low or 0), high or 100)

        def change(data: Stored) -> None:
            data |= {"spec": {**KubeObject(data).part("spec").data, "replicas": count}, "status": {"readyReplicas": count}}

        self.cluster.change("Deployment", SPACE, NAME, change)
        return count

    async def run(self, process: Process, length: Micros, every: Micros = 5 * SECOND) -> None:
        """So long, with an autoscaler that follows."""
        for _ in range(length // every):
            self.now += every
            await process.turn()
            self.scaled()

    def writes(self) -> list[str]:
        """Methods of all requests that write, with their paths."""
        asked = [one for transport in self.transports for one in transport.api.requests]
        return [f"{method} {path}" for method, path in asked if method != "GET"]


async def settled(field_: Field, scenario: Scenario, *, dry_run: bool = False) -> Process:
    """A process that has the lease, and to which the minutes before are known."""
    process = field_.process(scenario, dry_run=dry_run)
    field_.now += 10 * MINUTE
    await process.keep()
    return process


def played(story: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(story())
