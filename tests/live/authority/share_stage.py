"""An object that shares requests among two regions, on the fake API server; and random histories of it, with the laws that hold.

Read next: `test_shares.py`; `stage.py`; `tests/core/ladder_history.py`, the same for what has a count.
"""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sageserve.base.config import Scenario, ShareSettings
from sageserve.base.rng import stream
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.authority.shares import MOST
from sageserve.live.authority.hands import ClusterHands, HandsParts
from sageserve.live.authority.orders import change_orders
from sageserve.live.authority.share_hand import give_back_shares
from sageserve.live.authority.share_object import groups_of, original_of, shares_now
from sageserve.live.authority.target_hand import PoolAsked
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import ObjectPlace
from tests.live.authority.stage import SPACE, USER, WALL, Field, Process, acted_on

ROUTE = "llama"
BACKENDS = {
    "AIGatewayRoute": {"east": "pool-e", "west": "pool-w"},
    "ModelService": {"east": "region=east", "west": "region=west"},
}
FLEET = "sageserve-small"


def route(kind: str) -> dict[str, Json]:
    """What its user applied: a list with more in it than is ours."""
    if kind == "AIGatewayRoute":
        rule: Json = {
            "matches": [{"headers": [{"name": "x-ai-eg-model", "value": "big"}]}],
            "backendRefs": [{"name": "pool-e", "weight": 70, "priority": 0}, {"name": "pool-w", "weight": 30}],
        }
        other: Json = {"backendRefs": [{"name": "else", "weight": 3}]}
        return {"spec": {"parentRefs": [{"name": "gateway"}], "rules": [other, rule]}}
    entries: Json = [
        {"selector": {"matchLabels": {"region": "east", "gpu": "h100"}}, "weight": 70},
        {"selector": {"matchLabels": {"region": "west"}}, "weight": 30},
        {"selector": {"matchLabels": {"provider": "saas"}}, "priority": 9},
    ]
    return {"spec": {"endpoints": entries}}


def sharing(kind: str, guard: str | None = None, **more: object) -> Scenario:
    """The stage's fleet, whose target is only observed, and an object with shares."""
    found = acted_on("ScaledObject", guard=guard, authority="observe")
    live = found.live
    assert live is not None
    given = {"cluster": "east", "kind": kind, "name": f"{SPACE}/{ROUTE}", "model": "big", "backends": BACKENDS[kind]}
    one = ShareSettings.model_validate(given | {"authority": "full", "take_over": True} | more)
    return found.model_copy(update={"live": live.model_copy(update={"shares": {"split": one}})})


@dataclass
class ShareField(Field):
    """The server, and what the router would say."""

    kind: str = "AIGatewayRoute"
    wanted: dict[str, int] | None = field(default_factory=lambda: {"east": 50, "west": 50})
    dry_run: bool = False

    @property
    def place(self) -> ObjectPlace:
        return ObjectPlace(self.kind, SPACE, ROUTE)

    async def made(self, *_: object, **__: object) -> "ShareField":
        await self.outside().create(self.place, route(self.kind), USER)
        return self

    def hands(self, scenario: Scenario, me: str = "one") -> Process:
        parts = HandsParts(
            {"east": self.outside()},
            lambda _: PoolAsked(None, 0.5, blind=False, heard=self.now),
            lambda: self.now,
            lambda: WALL + self.now,
            me,
            lambda act, facts: self.told.append((act, dict(facts))),
            self.dry_run,
            shares=lambda _: self.wanted,
        )
        return Process(ClusterHands(scenario, "east", parts), self.transports[-1])

    def found(self) -> KubeObject:
        held = self.cluster.get(self.kind, SPACE, ROUTE)
        assert held is not None
        return KubeObject(held)

    def shares(self, scenario: Scenario) -> dict[str, int]:
        """As they stand."""
        assert scenario.live is not None
        groups = groups_of(self.found(), scenario.live.shares["split"])
        assert not isinstance(groups, str), groups
        return shares_now(groups[0])

    async def step(self, process: Process, length: int = MINUTE) -> None:
        """The lease is kept meanwhile; then a round."""
        for _ in range(max(1, length // (2 * SECOND))):
            self.now += min(length, 2 * SECOND)
            await process.keep()
        await process.hands.round()

    async def release(self, scenario: Scenario) -> object:
        """As the command does, but for the orders."""
        assert scenario.live is not None
        return await give_back_shares(self.outside(), scenario.live.shares["split"], self.place, FLEET)


def without_weights(data: Any) -> Any:  # noqa: ANN401 # what YAML holds
    """The part of an object that is none of ours."""
    if isinstance(data, dict):
        ours = {"weight", "priority", "metadata"}
        return {key: without_weights(value) for key, value in data.items() if key not in ours}
    return [without_weights(one) for one in data] if isinstance(data, list) else data


class ShareHistory:
    """One history: router's answers, blindness, freezes, foreign writes, refusals, lost leases, guards and restarts.

    Args:
        seed: of everything in it.
        folder: for the guard.
        spoilt: makes the process worse than it is; for faults on purpose.
    """

    STEPS = 25

    def __init__(self, seed: int, folder: Path, spoilt: Callable[[Process], None] = lambda _: None) -> None:
        dice: list[float] = stream(seed, "shares").random(self.STEPS * 20 + 50).tolist()
        self._dice = iter(dice)
        self.kind = ("AIGatewayRoute", "ModelService")[seed % 2]
        self._guard = folder / "guard.yaml"
        self._guard.write_text("default: {max: 9, rung: full}\n", "utf-8")
        self.scenario = sharing(self.kind, guard=str(self._guard))
        self._spoilt = spoilt
        self.writes = 0

    def _often(self, share: float) -> bool:
        return bool(next(self._dice) < share)

    def play(self) -> None:
        asyncio.run(self._played())

    def _begun(self) -> Process:
        process = self.field.hands(self.scenario, f"process-{next(self._dice)}")
        self._spoilt(process)
        return process

    async def _played(self) -> None:
        self.field = field = await ShareField(kind=self.kind).made()
        asis, process, frozen, allowed, demoted = field.bare(), self._begun(), False, True, False
        stamps, since, theirs = 0, field.now, False
        for _ in range(self.STEPS):
            field.wanted = None if self._often(0.2) else self._answer()
            if self._often(0.1):
                frozen = not frozen
                await self._freeze(WALL + field.now + 10**15 if frozen else 0)
            if self._often(0.1):
                allowed = not allowed
                stamps += 1
                self._guard.write_text(f"default: {{max: {9 + stamps}, rung: {'full' if allowed else 'bounds'}}}\n", "utf-8")
            if self._often(0.07):
                await process.hands.keeper.let_go()
                process, since = self._begun(), field.now
            if self._often(0.06):
                ours = original_of(field.found()) is not None
                await self._user_writes()
                theirs |= ours
                asis = asis if ours else field.bare()
            leads = not self._often(0.1)
            field.cluster.failing = lambda *_, leads=leads: 0 if leads else 500
            before, shares, asked = field.bare(), field.shares(self.scenario), field.wanted
            field.now += int(5 + 70 * next(self._dice)) * SECOND
            if leads:
                await process.keep()
                await process.keep()
            await process.hands.round()
            field.cluster.failing = lambda *_: 0
            demoted = process.hands.shares[0].ladder.demoted is not None
            after = field.shares(self.scenario)
            wrote = field.bare()["spec"] != before["spec"]
            if not wrote:
                continue
            self.writes += 1
            assert leads, "written although nothing was answered"
            assert asked is not None, "written while blind"
            assert not frozen, "written while frozen"
            assert allowed, "written beyond the guard"
            assert not theirs, "what another wrote was written over"
            assert not demoted, "written without authority"
            assert without_weights(before) == without_weights(field.bare()), "more was changed than weights"
            assert sum(after.values()) == 100
            if all(region in asked for region in shares):
                far = max(abs(after[region] - shares[region]) for region in shares)
                assert far <= MOST, f"a share moved by {far} points"
                assert field.now - since >= MINUTE, "two moves within a minute"
                since = field.now
            for entry in self._entries():
                assert entry.get("weight", 1) >= (0 if self.kind == "AIGatewayRoute" else 1), "a weight that is refused"
        await field.release(self.scenario)
        if not theirs:
            assert field.bare() == asis, "it was not given back as it was found"
        owners = {one.text("manager") for one in field.found().parts("metadata", "managedFields")}
        assert FLEET not in owners, "something of it is still ours"

    def _answer(self) -> dict[str, int]:
        east = int(next(self._dice) * 101)
        both = {"east": east, "west": 100 - east}
        return both if self._often(0.9) else {"west": 100}

    def _entries(self) -> list[dict[str, Any]]:
        spec: Any = copy.deepcopy(self.field.found().data["spec"])
        return list(spec["rules"][1]["backendRefs"] if self.kind == "AIGatewayRoute" else spec["endpoints"])

    async def _user_writes(self) -> None:
        spec: Any = copy.deepcopy(self.field.found().data["spec"])
        entries = spec["rules"][1]["backendRefs"] if self.kind == "AIGatewayRoute" else spec["endpoints"]
        entries[0]["weight"] = 1 + int(next(self._dice) * 60)
        entries[1]["weight"] = 1 + int(next(self._dice) * 60)
        if spec != self.field.found().data["spec"]:
            await self.field.user_writes({"spec": spec})

    async def _freeze(self, until: int) -> None:
        from msgspec import structs  # noqa: PLC0415 # for this alone

        from sageserve.core.authority.records import TargetOrder  # noqa: PLC0415 # likewise
        from sageserve.live.authority.hands import orders_place  # noqa: PLC0415 # likewise

        assert self.scenario.live is not None
        place = orders_place(self.scenario.live, "east", self.scenario.name)
        order = {"split": TargetOrder(frozen_until=until)}
        await change_orders(self.field.outside(), place, lambda orders: structs.replace(orders, targets=order))
