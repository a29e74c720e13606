"""All targets that are acted on, cluster by cluster, round after round: read, hear orders, decide, write.

A round reads objects first and orders afterwards: a target that is given back meanwhile has changed by then, and a write that was
decided on what it was before comes to nothing. The lease is renewed beside. Read next: `target_hand.py`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import structs

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.config.clusters import Rung
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND, Micros
from sageserve.core.authority.records import Demotion, LadderRules, LeaseTimes, TargetOrder
from sageserve.data.watched.freeze_windows import FreezeWindow, freeze_windows
from sageserve.live.authority.bound_hand import BoundHand
from sageserve.live.authority.budget import budget_room
from sageserve.live.authority.count_hand import CountHand
from sageserve.live.authority.guard_file import GuardFile
from sageserve.live.authority.lease_keeper import LeaseKeeper
from sageserve.live.authority.object_hand import HandTools, Told
from sageserve.live.authority.orders import FleetOrders, change_orders, read_orders
from sageserve.live.authority.pods import PodList, PodSeen
from sageserve.live.authority.share_hand import ShareHand
from sageserve.live.authority.target_hand import PoolAsked, TargetHand
from sageserve.live.authority.target_object import TargetObject
from sageserve.live.kubernetes.kinds import ALL_RUNGS, COUNTED, KINDS, SCALERS
from sageserve.live.kubernetes.objects import KubeObject, fleet_object
from sageserve.live.kubernetes.reader import NotRead
from sageserve.live.kubernetes.rights import home_of
from sageserve.live.kubernetes.rivals import rival_of
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace, ObjectWriter, path_of
from sageserve.live.scaler.answers import NOTHING_SAID, SaidOfTarget

ROUND: Final[Micros] = 5 * SECOND
PODS_EVERY: Final[Micros] = 30 * SECOND
Lists: TypeAlias = dict[tuple[str, str], list[KubeObject] | NotRead]


@dataclass(frozen=True, slots=True)
class HandsParts:
    """What is made outside and plugged in.

    Args:
        writers: by cluster.
        asked: what decisions ask of a pool, by its name.
        now: the monotonic clock, the loop's.
        wall: microseconds since 1970.
        me: name of this process; no two have the same.
        told: the audit log.
        dry_run: writes are checked by the server and not kept.
        started: told what a start takes, by the pool's name, as measured on its pods.
        shares: of regions that are open, by the name of live.shares, in points of a hundred; None: nothing is known.
        held: instances that targets have or are held to, by name, as they were last read in whichever cluster.
        pods: those of a cluster and namespace, where somebody follows them and hears; None: they are listed.
    """

    writers: Mapping[str, ObjectWriter]
    asked: Callable[[str], PoolAsked]
    now: Callable[[], Micros]
    wall: Callable[[], Micros]
    me: str
    told: Told
    dry_run: bool = False
    started: Callable[[str, Micros], None] = lambda *_: None
    shares: Callable[[str], Mapping[str, int] | None] = lambda _: None
    held: dict[str, int] = field(default_factory=dict)
    pods: Callable[[str, str], Sequence[PodSeen] | None] = lambda *_: None


def orders_place(live: LiveSettings, cluster: str, fleet: str) -> ObjectPlace:
    """Where the orders of a cluster's targets are: the namespace of its first target, beside its settings."""
    home = home_of(one for one in live.targets.values() if one.cluster == cluster)
    return ObjectPlace("ConfigMap", home, f"{fleet_object(fleet)}-orders")


async def look_at_targets(writer: ObjectWriter, live: LiveSettings, names: Sequence[str]) -> dict[str, TargetObject | str]:
    """Objects of targets of one cluster, with what they scale; a sentence for each that could not be read."""
    places: dict[str, tuple[str, str, str]] = {}
    for name in names:
        space, _, of = live.targets[name].name.partition("/")
        places[name] = live.targets[name].kind, space, of
    lists = await _lists(writer, {(kind, space) for kind, space, _ in places.values()})
    found = {name: _named(lists, *place) for name, place in places.items()}
    more = {("HorizontalPodAutoscaler", space) for kind, space, _ in places.values() if kind == "ScaledObject"}
    more |= {(scaler, space) for kind, space, _ in places.values() if kind in COUNTED for scaler in SCALERS}
    for name, one in found.items():
        if isinstance(one, KubeObject) and one.kind not in COUNTED and (kind := _reference(one)[0]) in KINDS:
            more.add((kind, places[name][1]))
    lists |= await _lists(writer, more - lists.keys())
    return {
        name: one if isinstance(one, str) else _target_object(lists, places[name], one, live.targets[name].authority)
        for name, one in found.items()
    }


def held_by(seen: Mapping[str, TargetObject | str]) -> dict[str, int]:
    """Instances that targets have, or are held to."""
    return {name: max(one.low, one.count) for name, one in seen.items() if isinstance(one, TargetObject)}


def _target_object(lists: Lists, place: tuple[str, str, str], found: KubeObject, rung: Rung) -> TargetObject | str:
    """An object with what it scales; why it cannot be told how many there are, where that is not known."""
    scalers = [each for kind in SCALERS if isinstance(some := lists.get((kind, place[1]), []), list) for each in some]
    if place[0] in COUNTED:
        return TargetObject(found, found, rival=_unknown_scaler(lists, place[1]) or rival_of(found, found, scalers))
    if KINDS[found.kind].count:
        return TargetObject(found, found, rival=found.text("status", "refused", rung) if found.kind in ALL_RUNGS else "")
    kind, name = _reference(found)
    scaled = _named(lists, kind, place[1], name)
    if isinstance(scaled, str):
        return f"how many run is not known: {scaled}"
    made = _named(lists, "HorizontalPodAutoscaler", place[1], f"keda-hpa-{place[2]}")
    return TargetObject(found, scaled, None if isinstance(made, str) else made, rival_of(found, scaled, scalers))


def _unknown_scaler(lists: Lists, namespace: str) -> str:
    """A kind of autoscaler that may be there and cannot be looked at; empty: there is none."""
    for kind in SCALERS:
        if isinstance(found := lists.get((kind, namespace)), NotRead) and found.status != 404:
            return f"whether a {kind} scales it is not known: {found.detail}"
    return ""


async def _lists(writer: ObjectWriter, wanted: set[tuple[str, str]]) -> Lists:
    keys = sorted(wanted)
    answers = await asyncio.gather(*(writer.list(kind, namespace) for kind, namespace in keys))
    return dict(zip(keys, answers, strict=True))


class ClusterHands:
    """The targets of one cluster.

    Args:
        scenario: with them.
        cluster: its name.
        parts: what is plugged in.

    Raises:
        ConfigError: the cluster's guard cannot be read.
    """

    def __init__(self, scenario: Scenario, cluster: str, parts: HandsParts) -> None:
        live = scenario.live
        assert live is not None
        self._scenario, self._live, self._parts, self._cluster = scenario, live, parts, cluster
        self._writer = parts.writers[cluster]
        self._orders = orders_place(live, cluster, scenario.name)
        lease = ObjectPlace("Lease", self._orders.namespace, fleet_object(scenario.name))
        self.keeper: Final = LeaseKeeper(self._writer, lease, parts.me, parts.now, parts.wall)
        tools = HandTools(
            self._writer,
            self.keeper,
            fleet_object(scenario.name),
            self._orders,
            parts.now,
            parts.wall,
            parts.told,
            parts.dry_run,
        )
        self.hands: Final[list[TargetHand]] = [
            (CountHand if one.authority == "full" else BoundHand)(name, one, rules_of(live, name), tools)
            for name, one in live.targets.items()
            if one.cluster == cluster and one.authority != "observe"
        ]
        self.shares: Final = [
            ShareHand(name, one, tools) for name, one in live.shares.items() if one.cluster == cluster and one.authority == "full"
        ]
        self._guard = GuardFile(None if (guard := live.clusters[cluster].guard) is None else Path(guard))
        self._hear_guard()
        self._windows: tuple[FreezeWindow, ...] = freeze_windows(live.safety.freeze)
        self.trouble = ""
        self.pod_trouble = ""
        self._pods_at: Micros | None = None
        self.orders = FleetOrders()

    @property
    def _all(self) -> list[TargetHand | ShareHand]:
        return [*self.hands, *self.shares]

    async def round(self) -> None:
        """Everything once."""
        seen = await look_at_targets(self._writer, self._live, [hand.name for hand in self.hands])
        read = await read_orders(self._writer, self._orders)
        if isinstance(read, NotWritten):
            self.trouble = f"orders cannot be read, so nothing is written: {read.detail}"
            return
        try:
            self._hear_guard()
        except ConfigError as error:
            self.trouble = f"{error.message}; so nothing is written"
            return
        self.trouble = ""
        self.orders, _ = read
        frozen = any(one.open_at(self._parts.wall()) for one in self._windows)
        for hand in self.hands:
            hand.seen = one if isinstance(one := seen.get(hand.name), TargetObject) else None
        await self._look_at_pods()
        self._parts.held.update(held_by(seen))
        for hand in self.hands:
            hand.hear_orders(self.orders.demoted.get(hand.name))
            hand.held = self.orders.held.get(hand.name)
            found = seen.get(hand.name)
            if isinstance(found, TargetObject):
                order = self.orders.targets.get(hand.name, TargetOrder())
                room = budget_room(self._scenario, hand.name, self._held())
                await hand.act(found, self._asked(hand), order, room, frozen=frozen)
                mine = max(self._parts.held[hand.name], hand.step.low or 0, hand.step.count or 0)
                self._parts.held[hand.name] = mine  # the next one finds it taken
            elif found is not None:
                hand.trouble = found
        for share in self.shares:
            await self._share(share, frozen=frozen)
        await self._keep_demotions()

    async def _share(self, hand: ShareHand, *, frozen: bool) -> None:
        """Look at an object with shares, and write them."""
        hand.hear_orders(self.orders.demoted.get(hand.name))
        frozen |= self._parts.wall() < self.orders.targets.get(hand.name, TargetOrder()).frozen_until
        found = await self._writer.get(hand.place.kind, hand.place.name, hand.place.namespace)
        await hand.act(found, self._parts.shares(hand.name), frozen=frozen)

    def _asked(self, hand: TargetHand) -> PoolAsked:
        """What is asked of a target: by a reviewed plan until it expires, else by decisions."""
        asked, plan = self._parts.asked(hand.settings.pool), self.orders.plans.get(hand.name)
        if plan is None or self._parts.wall() >= plan.until:
            return asked
        return replace(asked, count=plan.count, heard=self._parts.now(), plan=plan.plan)

    def _held(self) -> dict[str, int]:
        """What budgets are used by: of targets that nobody here reads, what runs."""
        return {name: self._parts.asked(one.pool).runs for name, one in self._live.targets.items()} | self._parts.held

    async def _look_at_pods(self) -> None:
        """Pods of all targets, now and then: they are many, and change slowly."""
        now = self._parts.now()
        if self._pods_at is not None and now - self._pods_at < PODS_EVERY:
            return
        self._pods_at, self.pod_trouble = now, ""
        for space in dict.fromkeys(hand.place.namespace for hand in self.hands):
            found = await self._pods_in(space)
            for hand in self.hands:
                if hand.place.namespace == space:
                    hand.see_pods(found, self._parts.wall())
                    if (took := hand.starts.quantile(0.5)) is not None:
                        self._parts.started(hand.settings.pool, took)

    async def _pods_in(self, space: str) -> Sequence[PodSeen]:
        """Pods of a namespace: as they are followed, or listed where nobody does, or does not hear."""
        if (followed := self._parts.pods(self._cluster, space)) is not None:
            return followed
        found = await self._writer.read_as(f"{path_of(KINDS['Pod'], space)}?resourceVersion=0", PodList)
        if isinstance(found, PodList):
            return found.items
        self.pod_trouble = f"pods of {space} cannot be read ({found.detail}), so those that cannot come are not known."
        return ()

    def _hear_guard(self) -> None:
        """Take in what the cluster's owner allows now."""
        for hand in self.hands:
            guard = self._guard.range_of(hand.settings.name)
            if hand.settings.authority == "full" and guard.rung != "full":
                guard = structs.replace(guard, rung="observe")  # what has a count has no bounds to fall back on
            hand.ladder.rules = structs.replace(hand.ladder.rules, guard=guard)
        for share in self.shares:
            share.ladder.guard = self._guard.range_of(share.settings.name).rung

    async def _keep_demotions(self) -> None:
        new: dict[str, Demotion] = {
            hand.name: hand.ladder.demoted
            for hand in self._all
            if hand.ladder.demoted is not None and hand.name not in self.orders.demoted
        }
        if not new or self._parts.dry_run or not self.keeper.elector.may_write(self._parts.now()):
            return
        done = await change_orders(
            self._writer, self._orders, lambda orders: structs.replace(orders, demoted=new | orders.demoted)
        )
        if isinstance(done, NotWritten):
            self.trouble = f"a demotion cannot be kept: {done.detail}"
            return
        for name, one in new.items():
            self._parts.told("demoted", {"target": name, "cause": one.cause.value, "detail": one.detail})
        for hand in self._all:
            hand.hear_orders(done.demoted.get(hand.name))

    def said(self, target: str) -> SaidOfTarget:
        """What people say of one of its targets, as it was last read."""
        order, plan, wall = self.orders.targets.get(target, TargetOrder()), self.orders.plans.get(target), self._parts.wall()
        return SaidOfTarget(
            override=order.count if wall < order.until else None,
            planned=None if plan is None or wall >= plan.until else plan.count,
            frozen=wall < order.frozen_until or any(one.open_at(wall) for one in self._windows),
        )

    def notes(self) -> list[str]:
        """What a person should know."""
        found = [one for one in (self.trouble, self.keeper.trouble, self.pod_trouble) if one]
        elector = self.keeper.elector
        if not elector.leads(self._parts.now()) and elector.holder and not self.keeper.trouble:
            found.append(f"{elector.holder} holds the lease, so nothing is written here.")
        return [*found, *(note for hand in self._all if (note := hand.note()))]


class Hands:
    """All targets that are acted on.

    Args:
        scenario: with them.
        parts: what is plugged in.
    """

    def __init__(self, scenario: Scenario, parts: HandsParts) -> None:
        self.clusters: Final = [ClusterHands(scenario, name, parts) for name in parts.writers]

    async def run(self) -> None:
        """Until cancelled; then the lease is given up, and values stay as they are."""
        try:
            await asyncio.gather(*(_keep(one) for one in self.clusters), *(_go_round(one) for one in self.clusters))
        finally:
            await asyncio.gather(*(one.keeper.let_go() for one in self.clusters))

    def said(self, target: str) -> SaidOfTarget:
        """What people say of a target; of one that is only observed, nothing."""
        one = next((each for each in self.clusters if any(hand.name == target for hand in each.hands)), None)
        return NOTHING_SAID if one is None else one.said(target)

    def notes(self) -> tuple[str, ...]:
        """What a person should know, in sentences."""
        return tuple(note for one in self.clusters for note in one.notes())


async def _keep(cluster: ClusterHands) -> None:
    while True:
        await cluster.keeper.keep()
        await asyncio.sleep(LeaseTimes().every / SECOND)


async def _go_round(cluster: ClusterHands) -> None:
    while True:
        await asyncio.sleep(ROUND / SECOND)
        await cluster.round()


def rules_of(live: LiveSettings, name: str) -> LadderRules:
    """The rules of a target's ladder."""
    target, safety = live.targets[name], live.safety
    return LadderRules(
        rung=target.authority,
        low=target.min,
        high=target.max,
        ramp_up=safety.ramp_up,
        headroom=safety.headroom,
        hold_for=safety.hold_for,
        stands_at_zero=target.kind == "HorizontalPodAutoscaler",
    )


def _reference(found: KubeObject) -> tuple[str, str]:
    reference = found.part("spec", "scaleTargetRef")
    return reference.text("kind") or "Deployment", reference.text("name")


def _named(lists: Lists, kind: str, namespace: str, name: str) -> KubeObject | str:
    """An object of a list, or why there is none."""
    found = lists.get((kind, namespace))
    if found is None:
        return f"{kind} {namespace}/{name} was not looked for"
    if isinstance(found, NotRead):
        return f"{kind} {namespace}/{name} cannot be read: {found.detail}"
    one = next((each for each in found if each.name == name), None)
    return f"there is no {kind} {namespace}/{name}" if one is None else one
