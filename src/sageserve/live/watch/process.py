"""The process of a watched fleet: one controller for what others run, told by Prometheus, and everything it would have done.

Wires the loop and the state files of `live/control` to looks at servers instead of gateways, engines and an actuator. Decisions
are written down; `live/authority/` may carry some out. It may be killed at any moment; the next one goes on where it was.
Read next: `sightings.py`, `demand.py`, `live/control/minute_book.py`; `live/control/process.py` for a fleet of ours.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from msgspec import structs

from sageserve.base.config import LiveSettings, Scenario, SpotSettings
from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.core.controller import Controller
from sageserve.core.events import DemandSeen, InstanceComing, InstanceLost, InstanceReady
from sageserve.core.fleet import Fleet, Pool
from sageserve.core.layout import Layout
from sageserve.core.safety import Onlooker
from sageserve.core.strategies import kind_of, layout_of
from sageserve.core.strategies.own import OwnStrategy
from sageserve.core.work import AnyEvent, Entry
from sageserve.data.rebuild.places import WatchedPool
from sageserve.data.results.journal import Stamped
from sageserve.data.watched.minutes import MinuteFiles, PoolMinute, WatchedMinute
from sageserve.live.authority.target_hand import PoolAsked
from sageserve.live.control.day import LastDay
from sageserve.live.control.loop import Loop, WallClock
from sageserve.live.control.minute_book import MinuteBook
from sageserve.live.control.opened import Callbacks
from sageserve.live.control.state_files import DemandFile, JournalFile
from sageserve.live.control.status import GatewayAddress, Sources, Status, status
from sageserve.live.control.thread_worker import ThreadWorker
from sageserve.live.control.wishes import Wishes, follows_plans, plan_holds
from sageserve.live.prometheus.server import PrometheusServer
from sageserve.live.prometheus.sight import blind_after
from sageserve.live.scaler.answers import PoolWish
from sageserve.live.waiting import run_until
from sageserve.live.watch.demand import CountedDemand
from sageserve.live.watch.followed_pods import FollowedPods
from sageserve.live.watch.instances import WatchedInstances
from sageserve.live.watch.looks import ClusterLook, LateCount, late_shares, look_at, unheard
from sageserve.live.watch.pool_wishes import PoolWishes
from sageserve.live.watch.sightings import PoolSighting, sight_pool
from sageserve.live.watch.target_pods import TargetPods
from sageserve.live.watch.view import NobodysEngines, WatchedView, only_watched, tightest_promise_s
from sageserve.live.wire import ToGateway

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchParts:
    """What is made outside and plugged in.

    Args:
        servers: by cluster.
        watched: pools.
        interval: microseconds between two scrapes there.
        every: microseconds between two looks.
        clock: the loop's.
        wall: the wall clock, microseconds since 1970.
        words: a journal line's decisions in sentences.
        wrote: told every line of the journal.
        passed: told every minute that is over and counted.
        looked: called after every look.
        more_notes: what else a person should know.
        acts: whether decisions are carried out, by whoever holds its targets.
        pods: of targets, by cluster, where instances follow them.
    """

    servers: Mapping[str, PrometheusServer]
    watched: Sequence[WatchedPool]
    interval: Micros
    every: Micros
    clock: WallClock
    wall: Callable[[], Micros]
    words: Callable[[Stamped], tuple[str, ...]]
    wrote: Callable[[Stamped], None] = lambda _: None
    passed: Callable[[WatchedMinute], None] = lambda _: None
    looked: Callable[[], None] = lambda: None
    more_notes: Callable[[], tuple[str, ...]] = lambda: ()
    acts: Callable[[], bool] = lambda: False
    pods: Mapping[str, TargetPods] = field(default_factory=dict)


class FleetWatch:
    """One process that watches.

    Args:
        scenario: what the fleet is made of.
        state: folder of its state.
        parts: what is plugged in.
    """

    def __init__(self, scenario: Scenario, state: Path, parts: WatchParts) -> None:
        self.limit: Final = blind_after((scenario.live or LiveSettings()).safety.blind_after, parts.interval)
        self._scenario = scenario = only_watched(scenario, self.limit)
        self._parts = parts
        self.name: Final = scenario.name
        self.layout: Final[Layout] = layout_of(scenario)
        self._pools = [self._pool(one.pool) for one in parts.watched]
        self._demand_file = DemandFile(state / "demand.jsonl", self.layout.names)
        self._journal = JournalFile(state / "journal", self.layout, parts.wall)
        self._minutes = MinuteFiles(state)
        self._engines = NobodysEngines()
        nothing = (0,) * len(self.layout.names.models)
        told = Callbacks(_nobody, self._engines.place, lambda _: None, lambda: nothing)
        self.view = WatchedView(scenario, self.layout, parts.clock.now, told, self._counted)
        self.fleet = Fleet(self.layout.pools, self.layout.stocks, self.layout.instances, self.view.in_flight)
        self.demand = CountedDemand(scenario, self.layout, parts.watched, parts.wall(), parts.interval)
        self.decided: Counter[tuple[str, str]] = Counter()
        self._stumbled: dict[str, None] = {}
        self._promise_s = tightest_promise_s(scenario)
        self._late: dict[str, LateCount] = {}  # by pool, of the newest minute
        self._unheard = ""  # why no server answers; empty: one does
        self._in_flight: Mapping[int, int] = {}  # by row, of the newest look
        self._begun = False  # there was a look
        self._decidable_at: Micros = 0  # the last look at which a server answered
        self._settled = False  # all that an earlier process knew has been looked for
        self._instances = WatchedInstances(self.fleet, state / "instances.json")
        self._pods = FollowedPods(self.fleet, self._instances, parts.pods, state, parts.wall)
        self.pods_in: Final = self._pods.heard_in
        earlier = self._demand_file.load(parts.wall())
        kind = kind_of(scenario)
        self._wishes = Wishes(self.fleet, follows=follows_plans(scenario))
        self._wanted = PoolWishes(self._pools, self._wishes, self.view, plan_holds(scenario), self._nothing_known)
        self.book = MinuteBook(scenario, self.layout, self.fleet, self._wishes.would, earlier)
        self.day = LastDay(scenario, self.layout, state, parts.wall, parts.words)
        strategy = kind(scenario, self.layout, earlier)
        if isinstance(strategy, OwnStrategy):
            strategy.outlive(self._stumbled.setdefault)
        assert scenario.live is not None
        guard = Onlooker(scenario.live.safety, self.layout.endpoints, every=scenario.strategy.check)
        self._worker = ThreadWorker(self._hear)
        self.loop = Loop(
            controller=Controller(self.fleet, strategy, SpotSettings(donate=False), guard),  # what others end is nobody's to give
            view=self.view,
            actuator=self._engines,
            worker=self._worker,
            memory=self,
            check=scenario.strategy.check,
        )

    async def run(self, stop: asyncio.Event, *others: Callable[[], Coroutine[None, None, None]]) -> None:
        """Watch until `stop` is set, with whatever else runs as long."""
        try:
            await self.look()
            pods = lambda: self._pods.run(self.follow_pods)  # noqa: E731 # one line, once
            await run_until(stop, [lambda: self.loop.run(self._parts.clock), self._keep_looking, pods, *others])
        finally:
            self._worker.close()

    def status(self) -> Status:
        """The present state."""
        recent = lambda: list(self._journal.recent)  # noqa: E731 # one line, once
        models = len(self.layout.names.models)
        sources = Sources(
            self._scenario,
            self.fleet,
            self.view,
            self._parts.clock.now,
            lambda: (0,) * models,
            lambda: (None,) * models,
            recent,
            self._parts.words,
            "",
        )
        found = self._pods.told(status(sources, self.notes()))
        urls = tuple(server.url for server in self._parts.servers.values())
        return structs.replace(found, gateway=GatewayAddress("", 0, 0), watched=urls, acting=self._parts.acts())

    def notes(self) -> tuple[str, ...]:
        """What is not seen and why, and what is guessed, in sentences."""
        notes = [f"Nothing is seen: {self._unheard}."] if self._unheard else []
        notes += [f"Not seen: {why}." for why in self.view.unseen.values()] if not self._unheard else []
        for pool, (count, _) in self._instances.unplaced.items():
            there = self._pool(pool)
            rows = there.end - there.begin
            notes.append(
                f"{count:,} instances of {pool} have no place in the settings: its maximum is {rows}, and"
                f" {self.layout.stocks[there.stock].name} has {self.layout.stocks[there.stock].gpus} GPUs."
            )
        behind = self._parts.wall() - self.demand.until
        if behind > self.limit + self.demand.interval:
            notes.append(f"Demand is counted up to {show_duration(behind // SECOND * SECOND)} ago.")
        lost = self._journal.lost + self._minutes.lost
        notes += [f"{lost:,} lines could not be written: is the disk full?"] if lost else []
        return (
            *notes,
            *self._pods.notes(acts=self._parts.acts()),
            *self._parts.more_notes(),
            *self.demand.notes,
            *self.demand.shares.notes,
            *self._stumbled,
        )

    def asked(self, name: str) -> PoolAsked:
        """What decisions ask of a pool, and how its endpoint is; where nothing stands, what runs is agreed with."""
        pool, now = self._pool(name), self._parts.clock.now()
        blind = bool(self.wish(name).unknown)
        use = float(self.view.endpoints["seen"][pool.endpoint])
        busy = {self._engines.names.get(row, ""): count for row, count in self._in_flight.items() if pool.begin <= row < pool.end}
        return PoolAsked(
            None if blind else self._wishes.stands(now, pool.number),
            use,
            blind,
            self._decidable_at,
            self.fleet.serving(pool.number),
            busy,
        )

    def started(self, name: str, took: Micros) -> None:
        """Starts of a pool were measured: plans from now on reckon with what they take, and not with what settings say."""
        self.fleet.measured_start(self._pool(name).number, took)

    def now(self) -> Micros:
        """The loop's clock."""
        return self._parts.clock.now()

    def pools(self) -> tuple[PoolMinute, ...]:
        """What runs and what would, now."""
        return self.book.pools(self._parts.clock.now())

    def wish(self, pool: str) -> PoolWish:
        """What is wanted of a pool (region/model/gpu) now, for whoever acts on it."""
        return self._wanted.of(pool, self._parts.clock.now())

    def _nothing_known(self) -> str:
        """Why nothing can be said of any pool; empty: something can."""
        return self._unheard if self._begun else "nothing was looked at yet"

    def sight_age_s(self, name: str) -> float:
        """How old what is seen of a pool's endpoint is, or the last answer of a server where that is older; seconds."""
        at = self.view.seen_since(self._pool(name).endpoint)
        return (self._parts.clock.now() - min(at, self._decidable_at)) / SECOND

    def rate(self) -> float:
        """Requests per second, of late."""
        return self.book.requests_per_s

    def behind_s(self) -> float:
        """Seconds up to which demand is not counted."""
        return max(0.0, (self._parts.wall() - self.demand.until) / SECOND)

    def _hear(self, event: AnyEvent) -> None:
        self.loop.hear(event)

    # --- looks ---

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._parts.every / SECOND)
            await self.look()

    async def look(self) -> None:
        """Ask all servers once, and take in what they say."""
        parts, wall, asked_at = self._parts, self._parts.wall(), self._parts.clock.now()
        back = max(self.demand.back(wall), 2 * self.limit)
        mine = {name: [one for one in parts.watched if one.cluster == name] for name in parts.servers}
        asked = [asyncio.to_thread(look_at, parts.servers[name], pools, wall, back) for name, pools in mine.items()]
        looks = dict(zip(mine, await asyncio.gather(*asked), strict=True))
        if self.book.due(parts.clock.now()) and self._promise_s is not None:
            late = [
                asyncio.to_thread(late_shares, parts.servers[name], pools, wall, self._promise_s)
                for name, pools in mine.items()
                if looks[name].answered
            ]
            self._late = {pool: count for found in await asyncio.gather(*late) for pool, count in found.items()}
        self.take(looks, wall, asked_at)

    def take(self, looks: Mapping[str, ClusterLook], wall: Micros, asked_at: Micros) -> None:
        """Take in what servers said.

        Args:
            looks: by cluster.
            wall: when they were asked, microseconds since 1970.
            asked_at: the same by the loop's clock.
        """
        unseen: dict[int, str] = {}
        in_flight: dict[int, int] = {}
        waiting: dict[int, float] = {}
        self.follow_pods()
        for pool, one in zip(self._pools, self._parts.watched, strict=True):
            if self._pods.follows(pool):
                found = self._pods.sight(pool, looks[one.cluster], (wall, self.limit))
            else:
                found = sight_pool(pool, looks[one.cluster], self._instances, wall, self.limit)
                self._follow(pool, found)
            if found.why:
                unseen[pool.endpoint] = f"{pool.name}: {found.why}"
            for each in found.seen:
                self.view.saw(each.row, kv=each.kv, in_flight=each.in_flight, waiting=each.waiting, at=asked_at)
                in_flight[each.row] = each.in_flight
                prompts = self.demand.prefill_us(pool.model, each.waiting)
                waiting[pool.endpoint] = waiting.get(pool.endpoint, 0.0) + prompts
        self.view.unseen, self._in_flight = unseen, in_flight
        self._begun = True
        self._lose_left()
        self._unheard = unheard(looks)
        if not self._unheard:
            self._decidable_at = self._parts.clock.now()
            self.demand.take(looks, wall, self.limit)
            self.view.count(self.demand, in_flight, waiting)
        self.view.refresh()
        now = self._parts.clock.now()
        if self.book.due(now):
            self.book.take_down(now, {e: unseen.get(e, "too old") for e in self.view.blind()}, self._late_by_endpoint())
        self._parts.looked()

    def _late_by_endpoint(self) -> dict[int, float]:
        """Share of late requests, of endpoints that somebody asked."""
        sums: dict[int, tuple[float, float]] = {}
        for pool in self._pools:
            if (one := self._late.get(pool.name)) is not None:
                requests, late = sums.get(pool.endpoint, (0.0, 0.0))
                sums[pool.endpoint] = requests + one.requests, late + one.late
        return {endpoint: late / requests for endpoint, (requests, late) in sums.items()}

    def _follow(self, pool: Pool, found: PoolSighting) -> None:
        """Rows of the fleet follow instances."""
        now, first = self._parts.clock.now(), not self._begun
        for row, name in found.change.gone:
            self.loop.hear(InstanceLost(row, f"{name} is recorded no more, and is no target of the server"))
        for row, name in found.change.new:
            if not (gpus := self.fleet.room(pool.number)):
                self._instances.forget(pool, row)
                continue
            self._engines.names[row] = name
            self.fleet.start(row, now, gpus, initial=first)
            if first:  # it was there before
                self.fleet.ready(row, now)
                self.view.adopt(row)
                self.write(Entry(now, InstanceReady(row), (), ()))
            else:
                self.loop.hear(InstanceReady(row))

    def follow_pods(self) -> None:
        """Rows follow pods, where they do; those that were there before we were asked for nothing."""
        now = self._parts.clock.now()
        for pool in self._pools:
            events, begun = self._pods.update(pool)
            for event in events:
                if isinstance(event, InstanceComing):
                    self._engines.names[event.instance] = self._pods.name_of(pool, event.instance)
                if begun:
                    self.loop.hear(event)
                elif isinstance(event, InstanceComing):
                    self.fleet.start(event.instance, now, self.fleet.room(pool.number), initial=True)
                    self.write(Entry(now, event, (), ()))
                elif isinstance(event, InstanceReady):
                    self.fleet.ready(event.instance, now)
                    self.view.adopt(event.instance)
                    self.write(Entry(now, event, (), ()))
        for name, took in self._pods.measured():
            self.started(name, took)

    def _lose_left(self) -> None:
        """Once everything was seen: instances that the journal holds for serving, and that ended while nobody watched."""
        if not self._settled and not self.view.unseen:
            self._settled = True
            for row, name in self._instances.left():
                self.write(Entry(self._parts.clock.now(), InstanceLost(row, f"{name} ended while nobody watched"), (), ()))

    def _counted(self, now: Micros) -> Micros:
        return now - max(0, self._parts.wall() - self.demand.until)

    # --- what the loop keeps ---

    def write(self, entry: Entry) -> None:
        """Keep a line of the journal."""
        self._journal.write(entry)
        self._wishes.hear(entry)
        self.day.hear(self._journal.recent[-1])
        for decision in entry.decisions:
            self.decided[str(decision.reason), str(decision.blocked)] += 1
        self._parts.wrote(self._journal.recent[-1])

    def add(self, seen: DemandSeen) -> None:
        """Keep a minute's demand, and all else of that minute."""
        now = self._parts.clock.now()
        begin = self._parts.wall() - (now - seen.start)
        self._demand_file.add(begin, seen)
        minute = self.book.counted(now, seen, begin)
        self._minutes.add(minute)
        self.day.add(minute)
        self._parts.passed(minute)

    def _pool(self, name: str) -> Pool:
        return next(pool for pool in self.layout.pools if pool.name == name)


def _nobody(gateway: int, message: ToGateway) -> bool:  # noqa: ARG001 # the signature is the protocol's
    """There is no gateway to be told anything."""
    return True
