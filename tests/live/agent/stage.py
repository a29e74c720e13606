"""A hub, its keys, and agents of one cluster on the fake API server; clocks are set by hand, files are handed over by the test.

Read next: `test_agent.py`; `tests/live/authority/stage.py`.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import structs

from sageserve.base.config import Scenario
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.live.agent.plan_record import ClusterPlan, TargetPlan, encoded
from sageserve.live.agent.process import AgentParts, ClusterAgent
from sageserve.live.agent.sealed import TrustedKeys, key_name, seal
from sageserve.live.agent.sink import FolderSink
from sageserve.live.agent.source import NotFetched, PlanSource
from sageserve.live.authority.hands import HandsParts
from sageserve.live.authority.target_hand import PoolAsked
from tests.live.authority.stage import NAME, SPACE, WALL, Field, acted_on
from tests.live.watch.stage import POOL

SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def trusted(*keys: Ed25519PrivateKey) -> TrustedKeys:
    return {key_name(one.public_key()): one.public_key() for one in keys or (SECRET,)}


def plan(count: int = 4, sequence: int = 7, *, begins: Micros = WALL, length: Micros = HOUR, **more: object) -> ClusterPlan:
    """For the one target of the stage."""
    targets = {"big": TargetPlan(POOL, "ScaledObject", f"{SPACE}/{NAME}", count, "demand")}
    made = ClusterPlan(
        fleet="small",
        cluster="east",
        sequence=sequence,
        plan=f"hash{sequence}",
        not_before=begins,
        valid_until=begins + length,
        targets=targets,
    )
    return structs.replace(made, **more)


def sealed(one: ClusterPlan, key: Ed25519PrivateKey = SECRET) -> bytes:
    return seal(encoded(one), key)


class Handed(PlanSource):
    """What the test hands over; None: the hub is away."""

    def __init__(self, file: bytes | None = None) -> None:
        self.file = file

    async def fetch(self) -> bytes:
        if self.file is None:
            raise NotFetched("the hub is away")
        return self.file


def guarded(folder: Path, guard: str, **target: object) -> Scenario:
    """The stage's fleet, with a guard."""
    (folder / "guard.yaml").write_text(guard, "utf-8")
    return acted_on("ScaledObject", guard=str(folder / "guard.yaml"), safety=None, take_over=True, **target)


@dataclass
class Here:
    """One agent, its hub and its cluster."""

    folder: Path
    scenario: Scenario
    field: Field
    source: Handed = dataclasses.field(default_factory=Handed)
    name: str = "one"
    dry_run: bool = False

    def __post_init__(self) -> None:
        self.state = self.folder / self.name
        self.state.mkdir(exist_ok=True)
        self.agent = self.begun()

    def begun(self) -> ClusterAgent:
        """A process, as after a restart."""
        there = self.field
        hands = HandsParts(
            {"east": there.writer()},
            lambda _: PoolAsked(None, 1.0, blind=True, heard=0),
            lambda: there.now,
            lambda: WALL + there.now,
            self.name,
            lambda act, facts: there.told.append((act, dict(facts))),
            self.dry_run,
        )
        sight = lambda _: PoolAsked(9, there.use, there.blind, there.now, there.runs)  # noqa: E731 # its own wish must not count
        self.agent = ClusterAgent(
            self.scenario, "east", AgentParts(self.source, trusted(), self.state, FolderSink(self.folder), sight, hands)
        )
        return self.agent

    async def turn(self) -> None:
        """The lease, a fetch where it is time, a round, and what is said of it."""
        await self.agent.hands.keeper.keep()
        await self.agent.turn()
        await self.agent.hands.round()
        await self.agent.report()

    async def settle(self) -> None:
        """The lease is there, and the minutes before are known."""
        self.field.now += 10 * MINUTE
        await self.agent.hands.keeper.keep()

    async def run(self, length: Micros, every: Micros = 30_000_000) -> None:
        """So long, with an autoscaler that follows."""
        for _ in range(length // every):
            self.field.now += every
            await self.turn()
            self.field.scaled()
