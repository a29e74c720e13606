"""The control process: one controller for one fleet, and everything it hears and says.

Wires the loop (`loop.py`) to the fleet view (gateways, scrapes), the actuator (processes), the batch queue and the pages. It may
be killed at any moment: engines and gateways go on, the next one adopts what runs, reads past demand, and takes the queue up
where it was. Must not decide anything. Read next: `loop.py`, `fleet_view.py`, `batch_queue.py`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from starlette.routing import BaseRoute

from sageserve.base.config import LiveSettings, Scenario, SpotSettings
from sageserve.base.units import SECOND, Micros
from sageserve.core.controller import Controller
from sageserve.core.events import DemandSeen
from sageserve.core.fleet import Fleet
from sageserve.core.layout import Layout
from sageserve.core.safety import Guard
from sageserve.core.strategies import kind_of, layout_of, sleepers_of
from sageserve.core.strategies.own import OwnStrategy
from sageserve.core.work import AnyEvent, Entry
from sageserve.data.growing import append_lines
from sageserve.data.results.journal import Stamped
from sageserve.live.actuators.base import Actuator, Adopted, EngineAddress, Hear
from sageserve.live.actuators.revisions import EngineRevisions
from sageserve.live.control.admin import CapacityCollector, routes
from sageserve.live.control.batch_queue import BatchQueue, JobQueue
from sageserve.live.control.day import LastDay
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.live_rollouts import LiveRollouts, RolloutSides
from sageserve.live.control.liveness import Liveness, Probed
from sageserve.live.control.loop import Clock, Loop
from sageserve.live.control.opened import Callbacks, Missed, MissedScrape, not_yet
from sageserve.live.control.own_minutes import OwnMinutes
from sageserve.live.control.pages import Pages, served
from sageserve.live.control.rollout_file import RolloutFile
from sageserve.live.control.rollout_routes import rollout_routes
from sageserve.live.control.sleeping import Sleeping, begun_before
from sageserve.live.control.spending import SpendingFile
from sageserve.live.control.state_files import DemandFile, JournalFile
from sageserve.live.control.status import QueueRole, Sources, Status, differing, status
from sageserve.live.control.thread_worker import ThreadWorker
from sageserve.live.link import LinkKind, LinkServer
from sageserve.live.waiting import run_until, within
from sageserve.live.wire import Gone, Hello, Spent, ToControl, Wait, layout_mark

_LOG: Final = logging.getLogger(__name__)
_FEED_EVERY_S: Final = 0.25  # as often as gateways report
_ALIVE_S: Final = 1.0
LASTING: Final = 3  # starts that fail in a row: one may have met a port that another program took just then
_STUMBLES: Final = 5  # different errors of an own strategy that are told
SOCKET: Final = "control.sock"


@dataclass(frozen=True, slots=True)
class Home:
    """Where a control process works.

    Args:
        state: its folder.
        host: of its HTTP server.
        port: likewise.
        url: of the gateway.
        epoch: differs from that of every other control process of this fleet.
        secret: that other processes of the fleet know.
    """

    state: Path
    host: str
    port: int
    url: str
    epoch: str
    secret: str


class ManagedActuator(Actuator, Protocol):
    """An actuator with a beginning and an end."""

    async def connect(self) -> tuple[Adopted, ...]:
        """Get ready, and say which instances there are already; those without GPUs are given some."""
        ...

    def hung(self) -> Mapping[str, int]:
        """Names of the fleet's own processes that hung since it began, and how often each."""
        ...

    def end(self, instance: int, why: str) -> bool:
        """Have an instance that hangs killed, which is heard of as its loss; False where that cannot be done."""
        ...

    def failing(self, least: int = 1) -> tuple[str, ...]:
        """A sentence for each pool of which so many starts have failed in a row: why, how often, when the next one is."""
        ...

    async def watch(self) -> None:
        """Return, or raise, when instances cannot be started or stopped any more."""
        ...

    async def close(self) -> None:
        """Let go; instances stay."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What is made outside and plugged in.

    Args:
        actuator: made with the function that hears its events.
        scrape: looks at one engine: share of memory in use (None: it does not say), requests in flight, and those of them
            that wait, tokens it worked through (None: it does not say); or why it was missed.
        probe: asks one engine for one token.
        jobs: the durable queue.
        queue_routes: of files and batches.
        background: what else runs as long as the process, such as the runner of jobs.
        clock: the loop's.
        wall: the wall clock, microseconds since 1970.
        words: a journal line's decisions in sentences.
        ready: called once gateways can be told what is open.
        alive: called every second from then on.
        link: to the gateways.
        pages: what serves pages on a host and a port to whoever knows the secret.
        append: adds whole lines to a file.
        revisions: how engines of rollouts are run, which the actuator is told.
        sure: whether the wall clock is believed: demand of a day that never was would push the true past out.
        role: which of the control processes that share the batch queue this one is; None: no other could have it open.
    """

    actuator: Callable[[Hear, Layout], ManagedActuator]
    scrape: Callable[[EngineAddress], Coroutine[None, None, tuple[float | None, int, int, float | None] | Missed | MissedScrape]]
    probe: Callable[[EngineAddress], Coroutine[None, None, Probed]]
    jobs: JobQueue
    queue_routes: list[BaseRoute]
    background: tuple[Callable[[], Coroutine[None, None, None]], ...]
    clock: Clock
    wall: Callable[[], Micros]
    words: Callable[[Stamped], tuple[str, ...]]
    ready: Callable[[], None] = lambda: None
    alive: Callable[[], None] = lambda: None
    link: LinkKind = LinkServer
    pages: Pages = served
    append: Callable[[Path, bytes], None] = append_lines
    revisions: EngineRevisions = field(default_factory=EngineRevisions)
    sure: Callable[[], bool] = lambda: True
    role: Callable[[], QueueRole | None] = lambda: None


class Control:
    """One control process.

    Args:
        scenario: as it is served.
        home: where.
        parts: what is plugged in.
    """

    def __init__(self, scenario: Scenario, home: Home, parts: Parts) -> None:
        live = scenario.live or LiveSettings()
        kind = kind_of(scenario)
        self.layout = layout_of(scenario)
        self.clock = parts.clock
        self._scenario = scenario
        self._home = home
        self._parts = parts
        self._initial = kind.initial(scenario, self.layout)
        self._link = parts.link(self._from_gateway, self._gateway_left, layout_mark(self.layout))
        self._demand = DemandFile(home.state / "demand.jsonl", self.layout.names, parts.append)
        self._journal = JournalFile(home.state / "journal", self.layout, parts.wall, parts.append)
        self._spending = SpendingFile(home.state / "spending.json", self._link.send)
        self._decided: Counter[tuple[str, str]] = Counter()
        self._stumbled: Counter[str] = Counter()
        self._actuator = parts.actuator(self._hear, self.layout)
        told = Callbacks(not_yet, self._actuator.place, self._hear, self._waiting)
        self.view = FleetView(scenario, self.layout, home.epoch, self.clock.now, told)
        self.queue = BatchQueue(scenario, self.view, parts.jobs, self._link.send, self.clock.now)
        self.fleet = Fleet(self.layout.pools, self.layout.stocks, self.layout.instances, self.view.in_flight)
        self._ours = live.ours  # what others run is not ours to start or stop
        self.liveness = Liveness(self.view, parts.probe, self._end, live.safety.hung_after, self.clock.now)
        rules = live.safety.model_copy(update={"act": live.safety.act and self._ours})
        guard = Guard(rules, self.layout.endpoints, every=scenario.strategy.check)
        earlier = self._demand.load(parts.wall())
        self._minutes = OwnMinutes(scenario, self.layout, self.fleet, home.state, earlier)
        self._day = LastDay(scenario, self.layout, home.state, parts.wall, parts.words)
        strategy = kind(scenario, self.layout, earlier)
        if isinstance(strategy, OwnStrategy):
            strategy.outlive(self._stumbles)
        spot = scenario.spot if self._ours else SpotSettings(donate=False)  # what others end is nobody's to give away
        controller = Controller(self.fleet, strategy, spot, guard, sleepers=sleepers_of(scenario, self.layout))
        told.trials = self.rollouts = self._live_rollouts(controller)
        self.sleeping = Sleeping(self.layout, self.fleet, self.view.held, self.clock.now)
        told.asleep = self.sleeping.rows
        self._worker = ThreadWorker(self._hear)
        self.loop = Loop(
            controller=controller,
            view=self.view,
            actuator=self._actuator,
            worker=self._worker,
            memory=self,
            check=scenario.strategy.check,
        )
        told.asked = self.loop.wake

    async def run(self, stop: asyncio.Event) -> None:
        """Control until `stop` is set."""
        async with AsyncExitStack() as held:  # whatever fails, the rest is let go of
            held.push_async_callback(self._link.close)
            held.push_async_callback(self._actuator.close)
            held.callback(self._worker.close)
            await self._link.open(self._home.state / SOCKET)
            await self._adopt()
            self.view.speak(self._link.send)
            self._parts.ready()
            await self._all(stop)

    def _live_rollouts(self, controller: Controller) -> LiveRollouts:
        """Those that were begun, with how their engines are run: before any of these is found again."""
        home, now, wall = self._home, self.clock.now, self._parts.wall
        file = RolloutFile(home.state, home.secret, layout_mark(self.layout), wall() - now(), len(self._scenario.tiers))
        sides = RolloutSides(self._scenario, self.layout, self._parts.revisions, self.view.by_revision, now, wall)
        found = LiveRollouts(sides, file)
        found.attach(controller.rollouts, self.fleet)
        return found

    def status(self) -> Status:
        """The present state."""
        sources = Sources(
            self._scenario,
            self.fleet,
            self.view,
            self.clock.now,
            self.queue.waiting,
            self.queue.slack,
            lambda: list(self._journal.recent),
            self._parts.words,
            self._home.url,
            self.sleeping,
            self._parts.role,
        )
        failing, lasting = self._actuator.failing(), self._actuator.failing(LASTING)
        notes = (*failing, *self._notes(), *self._link.turned_away(), *differing(sources))
        return status(sources, notes, self.liveness.ended, lasting, self.rollouts.status())

    def _notes(self) -> tuple[str, ...]:
        lost = self._journal.lost + self._minutes.files.lost
        full = (f"{lost} journal lines could not be written: is the disk full?",) if lost else ()
        last = tuple(
            f"Every instance of {name} is in trouble: requests are sent there all the same." for name in self.view.unwell()
        )
        stumbled = tuple(f"{said}; its answer was left out, {n:,} times so far." for said, n in self._stumbled.items())
        hung = tuple(f"{name}: hung and was started again, {n:,} x so far." for name, n in self._actuator.hung().items())
        shared = () if (role := self._parts.role()) is None else (role.words,)
        later = last + stumbled + shared + self.rollouts.notes() + self.sleeping.notes()
        return full + hung + self._unseen() + self.view.away() + self.liveness.notes() + later

    def _unseen(self) -> tuple[str, ...]:
        """Why instances are not seen; each reason once."""
        found: dict[str, list[int]] = {}
        for i, why in self.view.why_not_seen():
            found.setdefault(why, []).append(i)
        pools, pool_of = self.layout.pools, self.fleet.pool_of
        more = {why: f" and {len(rows) - 1} more" if len(rows) > 1 else "" for why, rows in found.items()}
        return tuple(f"{pools[pool_of[rows[0]]].name}{more[why]} is not seen: {why}." for why, rows in found.items())

    def _stumbles(self, said: str) -> None:
        """An own strategy raised an exception, or gave what cannot be used."""
        if said not in self._stumbled:
            if len(self._stumbled) >= _STUMBLES:
                del self._stumbled[next(iter(self._stumbled))]  # the oldest: a message with a number in it is new each time
            _LOG.error("%s; its answer is left out, and the fleet stays as it is", said)
        self._stumbled[said] += 1

    async def _adopt(self) -> None:
        for one in await self._actuator.connect():
            gpus = one.gpus or self.fleet.room(self.fleet.pool_of[one.instance])
            self.fleet.start(one.instance, 0, gpus, initial=True, revision=one.revision)
            if one.serves:
                self.fleet.ready(one.instance, 0)
                self.view.adopt(one.instance)
        if self._ours:
            self.rollouts.recall()
            again = begun_before(self._home.state, self._home.secret)
            self.loop.begin(self.sleeping.left_asleep(self._initial) if again else self._initial)

    async def _all(self, stop: asyncio.Event) -> None:
        capacity = CapacityCollector(self._minutes.book, self.clock.now)
        found = [*routes(self.status, lambda: dict(self._decided), self._day.view, [capacity]), *rollout_routes(self.rollouts)]
        found += self._parts.queue_routes
        home, scrape = self._home, self._scenario.signals.scrape
        pages = self._parts.pages(found, home.secret, home.host, home.port)
        clock, actuator = self.clock, self._actuator
        parts = [lambda: self.loop.run(clock), self._look_around, self._feed, pages, actuator.watch]
        parts += [lambda: self.liveness.run(scrape), self._spending.run, self._live]
        await run_until(stop, [*parts, *self._parts.background])

    async def _live(self) -> None:
        """Say that the loop goes round."""
        while True:
            self._parts.alive()
            await asyncio.sleep(_ALIVE_S)

    async def _feed(self) -> None:
        while True:
            await within(self.queue.news, _FEED_EVERY_S)  # gateways report as often
            self.queue.news.clear()
            self.queue.run()

    async def _look_around(self) -> None:
        """Scrape all engines at once, every scrape period."""
        while True:
            rows, asked = [(i, here.place) for i, here in self.view.opened.items()], self.clock.now()
            seen = await asyncio.gather(*(self._parts.scrape(place) for _, place in rows))
            for (i, _), found in zip(rows, seen, strict=True):
                if isinstance(found, Missed | MissedScrape):
                    self.view.missed(i, *((found,) if isinstance(found, Missed) else (found.how, found.why)))
                else:
                    self.view.saw(i, kv=found[0], in_flight=found[1], waiting=found[2], made=found[3], at=asked)
            self.view.refresh()
            self._minutes.look(self.clock.now(), self.view.blind())
            self.queue.scraped()
            await asyncio.sleep(self._scenario.signals.scrape / SECOND)

    def _end(self, instance: int, why: str) -> bool:
        act = self._scenario.live is None or self._scenario.live.safety.act
        return act and self._actuator.end(instance, why)

    def _hear(self, event: AnyEvent) -> None:
        self.loop.hear(event)

    def _waiting(self) -> tuple[int, ...]:
        return self.queue.waiting()

    def write(self, entry: Entry) -> None:
        """Keep a line of the journal."""
        self._journal.write(entry)
        self._minutes.hear(entry)
        self._day.hear(self._journal.recent[-1])
        for decision in entry.decisions:
            self._decided[str(decision.reason), str(decision.blocked)] += 1
        if self.rollouts.noted() | self.sleeping.hear(entry):
            self.view.publish()

    def _from_gateway(self, gateway: int, message: ToControl) -> None:
        if isinstance(message, Wait | Gone):
            self.queue.hear(gateway, message)
        elif isinstance(message, Spent):
            self._spending.take(gateway, message)
        else:
            if isinstance(message, Hello):
                self._spending.meet(gateway, message.nonce)
            self.view.heard(gateway, message)

    def _gateway_left(self, gateway: int) -> None:
        self.queue.left(gateway)
        self._spending.left(gateway)
        self.view.left(gateway)

    def add(self, seen: DemandSeen) -> None:
        """Keep a minute's demand."""
        begin = self._parts.wall() - seen.length
        if self._parts.sure():
            self._demand.add(begin, seen)
        backlog = dict(zip(self.layout.names.models, zip(self.queue.waiting(), self.queue.slack(), strict=True), strict=True))
        self._day.add(self._minutes.counted(self.clock.now(), seen, begin, backlog))
