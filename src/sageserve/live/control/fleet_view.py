"""What the control process knows of gateways and engines, and tells them: counts in, signals and tables out.

Gateways report what they sent, scrapes say how full engines are; every scrape turns both into the signals of
docs/reference/kernel.md and into one RoutingTable per gateway. An endpoint whose engines or gateways were not heard of for
`safety.blind_after` is blind, which is not the same as idle. Decides nothing, opens no socket.
Read next: `loop.py`, whose `ControllerView` this is; `gateway_reports.py` for the counts; `live/wire.py`; `batch_queue.py`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.units import NEVER, SECOND, Micros
from sageserve.core.columns import ENDPOINT
from sageserve.core.events import DoorSeen, EndpointSeen, EnginesSeen, InstanceDrained, Observed, RevisionsSeen
from sageserve.core.layout import Layout
from sageserve.core.perf import OUTPUT_GUESS
from sageserve.core.signals import SIGNALS, busyness, signal, smoothed
from sageserve.live.control.gateway_reports import LINGERS, Gateway, GatewayReports
from sageserve.live.control.live_door import LiveDoor
from sageserve.live.control.loop import ControllerView, Counters
from sageserve.live.control.opened import Callbacks, Missed, Opened
from sageserve.live.wire import EndpointRow, Hello, InstanceRow, Report, RoutingTable, ToControl, ToGateway, Trouble

_LEARNT_AFTER: Final = 3  # half-lives: a rate that is learned from nothing has then reached 7/8 of the truth
_FEW: Final = 8  # gateways; a table for each of 50, of 1,000 instances, takes 0.15 s, and as often as there are gateways 3 s
_CROWD: Final = SECOND // 4  # within which they come when control is started anew


class FleetView(ControllerView):
    """Gateways and engines of one fleet.

    Args:
        scenario: for signals and safety.
        layout: numbers of endpoints and instances.
        epoch: names this control process; gateways tell its tables from an earlier one's by it.
        now: the loop's clock.
        told: the other sides.
    """

    def __init__(self, scenario: Scenario, layout: Layout, epoch: str, now: Callable[[], Micros], told: Callbacks) -> None:
        live = scenario.live or LiveSettings()
        self.layout = layout
        self.endpoints = np.zeros(layout.endpoints, ENDPOINT)
        self.opened: dict[int, Opened] = {}
        self._reports = GatewayReports(layout, self.endpoints, OUTPUT_GUESS)
        self.gateways = self._reports.gateways
        self.in_flight = self._reports.in_flight  # by gateways' account; the fleet reads it
        self.totals = self._reports.totals
        self.held = self._reports.held  # requests that wait for an instance, by cell
        self._door = LiveDoor(layout, self._reports, self.endpoints)
        self.by_revision = self._reports.revisions
        self.freed = self._reports.freed
        self.output_mean = self._reports.output_mean
        self.scraped: Micros = 0
        self._scenario = scenario
        self._blind_after = live.safety.blind_after
        self._kind = SIGNALS.index(scenario.signals.kind)
        self._epoch = epoch
        self._now = now
        self._told = told
        self._version = 0
        self._opened_version = 0  # the first table that has every instance that was opened
        self._learnt_at = np.zeros(layout.endpoints, np.int64)  # until then an endpoint's rate is too low
        self._crowd_at: Micros | None = None  # when the first gateway came or went that the others have not been told of
        self._closing: set[int] = set()
        self._unsure_until: Micros = -NEVER  # until then a gateway that is not connected may have requests somewhere
        self._reach: tuple[frozenset[int], frozenset[int]] | None = None  # cut off, endpoints that take work; None: changed
        self.endpoints["model"] = np.arange(layout.endpoints) // len(layout.roles) % len(layout.names.models)
        self.endpoints["feeds"] = layout.feeds
        self.endpoints["one_below"], self.endpoints["two_below"] = scenario.batch.one_below, scenario.batch.two_below

    # --- what the loop sees and sets ---

    def knowing(self) -> int:
        """Gateways that know of every instance that may receive requests."""
        return sum(map(self.knows, self.gateways.values()))

    def knows(self, gateway: Gateway) -> bool:
        """Whether a gateway does."""
        return gateway.version >= self._opened_version

    def look(self) -> Observed:
        """The fleet as it was last scraped, and where that is too old or too new to be believed."""
        columns = zip(*(self.endpoints[name].tolist() for name in ("seen", "kv", "busy")), strict=True)
        learning = np.flatnonzero(self._learnt_at > self._now()).tolist()
        new = {self._endpoint(i) for i, here in self.opened.items() if here.open and here.seen_at < 0}
        unsure = tuple(sorted({*self.blind(), *learning, *new}))
        return Observed(self.scraped, tuple(EndpointSeen(*row) for row in columns), self._told.waiting(), unsure)

    def engines(self) -> EnginesSeen:
        """What engines said of their queues when they were last scraped."""
        return EnginesSeen(self.scraped, tuple(self.endpoints["running"].tolist()), tuple(self.endpoints["waiting"].tolist()))

    def revisions(self, now: Micros) -> Iterable[RevisionsSeen]:
        """What requests got so far by revision, of models that are rolled out and judged."""
        return self._told.trials.seen(now)

    def doors(self, *, looked: bool) -> Iterable[DoorSeen]:
        """Who waits for an endpoint that sleeps, and where there was work."""
        return self._door.seen(looked=looked)

    def counters(self) -> Counters:
        """What has arrived and finished so far."""
        return self.totals.counted()

    def open(self, instance: int) -> None:
        """From now on the instance may receive requests."""
        self.opened[instance] = Opened(self._told.place(instance), self._now())
        self._closing.discard(instance)  # one that drains may be opened again
        self._opened_version = self._version + 1
        self._count_open(instance, 1)
        self.publish()

    def adopt(self, instance: int) -> None:
        """It served before this process began: how busy it is has yet to be learned, and nothing is taken away meanwhile."""
        self.open(instance)
        self.opened[instance].opened_at = -NEVER
        learnt_at = self._now() + _LEARNT_AFTER * self._scenario.signals.half_life
        self._learnt_at[self._endpoint(instance)] = learnt_at
        self._unsure_until = self._now() + LINGERS

    def close(self, instance: int) -> None:
        """From now on it receives none; told as drained once it has none."""
        here = self.opened[instance]
        here.open = False
        here.closed_version, here.closed_at = self._version + 1, self._now()
        self._closing.add(instance)
        self._count_open(instance, -1)
        self.publish()
        self._tell_drained()

    def forget(self, instance: int) -> None:
        """It is gone: nothing of it counts any more."""
        here = self.opened.get(instance)
        if here is None:
            return
        self._drop(instance)
        if here.open:
            self._count_open(instance, -1)
        self.publish()

    def set_feed(self, endpoint: int, *, one_below: float, two_below: float) -> None:
        """Change when an endpoint is given batch jobs."""
        self.endpoints[endpoint]["one_below"], self.endpoints[endpoint]["two_below"] = one_below, two_below

    def blind(self) -> tuple[int, ...]:
        """Endpoints of which some open instance, every gateway, or one that had requests was not heard of for too long."""
        now = self._now()
        if self._reports.away(now, self._blind_after) or not any(
            now - gateway.heard_at <= self._blind_after for gateway in self.gateways.values()
        ):
            return tuple(range(self.layout.endpoints))
        known = [(i, max(here.seen_at, here.opened_at)) for i, here in self.opened.items() if here.open]
        return tuple(sorted({self._endpoint(i) for i, at in known if now - at > self._blind_after}))

    def away(self) -> tuple[str, ...]:
        """Who had requests and is gone or silent, in sentences; until when nothing is taken away."""
        return self._reports.away_in_words(self._now(), self._blind_after)

    # --- what gateways say ---

    def heard(self, gateway: int, message: ToControl) -> None:
        """Take in a message of a gateway; waits and their ends are the batch queue's."""
        now = self._now()
        if isinstance(message, Hello):
            self._reports.meet(gateway, message, now)
            self._tell_crowd(now, gateway)
        elif isinstance(message, Report):
            if self._reports.take(gateway, message, now):
                learnt_at = now + _LEARNT_AFTER * self._scenario.signals.half_life
                self._learnt_at[:] = np.maximum(self._learnt_at, learnt_at)
            self._tell_drained()
            if self._door.asked:
                self._told.asked()
            if self._crowd_at is not None and now - self._crowd_at >= _CROWD:
                self.publish()
        elif isinstance(message, Trouble) and message.row in self.opened:
            self.opened[message.row].trouble = now
            self.opened[message.row].mute |= message.mute

    def left(self, gateway: int) -> None:
        """A gateway is gone: what it had sent is gone with it, or will be reported again under another number."""
        self._reports.leave(gateway)
        self._unsure_until = self._now() + LINGERS
        self._tell_crowd(self._now())

    def _tell_crowd(self, now: Micros, new: int = -1) -> None:
        """Others share with one more, or one less: they are told at once where they are few, else once for a whole crowd."""
        if len(self.gateways) <= _FEW:
            self.publish()
            return
        self._crowd_at = now if self._crowd_at is None else self._crowd_at
        if new in self.gateways:
            self._told.send(new, self.table(new))

    def _tell_drained(self) -> None:
        """Tell of closed instances where nothing runs and nothing will."""
        now = self._now()
        for i in sorted(self._closing):
            if self._is_left_alone(i, self.opened[i], now):
                self._drop(i)
                self._told.drained(InstanceDrained(i))

    def _is_left_alone(self, i: int, here: Opened, now: Micros) -> bool:
        """Whether every gateway that is heard of has nothing there and knows that it is closed.

        While one is not heard of, there is none, or one is lost that may go on by itself, the engine is asked too: it must have
        been seen empty since it was closed.
        """
        heard = [gateway for gateway in self.gateways.values() if now - gateway.heard_at <= self._blind_after]
        if any(gateway.version < here.closed_version or gateway.has(i) for gateway in heard):
            return False
        if heard and len(heard) == len(self.gateways) and now >= self._unsure_until:
            return True
        return here.in_flight == 0 and here.seen_at > here.closed_at

    def _drop(self, instance: int) -> None:
        del self.opened[instance]
        self._closing.discard(instance)
        self._reports.forget(instance)
        self._reach = None

    # --- what scrapes say ---

    def saw(
        self, instance: int, *, kv: float | None, in_flight: int, waiting: int = 0, made: float | None = None, at: Micros = NEVER
    ) -> None:
        """A scrape of an instance succeeded.

        Args:
            instance: its row.
            kv: share of its memory in use; None: the engine does not say, and the share of its places that are taken stands
                in for it, because unknown is not empty.
            in_flight: requests that run or wait there.
            waiting: those of them that wait.
            made: tokens it has worked through since it began; None: it does not say.
            at: when it was asked; a process that stood still reads old answers late. NEVER: now.
        """
        if instance in self.opened:
            here = self.opened[instance]
            self._set_answers(here, answers=True)
            share = min(1.0, in_flight / self._of_ranks(instance, "max_sequences")) if kv is None else kv
            here.seen_at, here.kv, here.in_flight, here.waiting = min(at, self._now()), share, in_flight, waiting
            here.made, here.why = made, ""

    def missed(self, instance: int, how: Missed, why: str = "") -> None:
        """A scrape of an instance did not succeed: no signals, and if nothing answers there, no requests either."""
        if instance in self.opened:
            here = self.opened[instance]
            here.why = why
            self._set_answers(here, answers=how is not Missed.SILENT)

    def why_not_seen(self) -> list[tuple[int, str]]:
        """Open instances that were not seen for too long, and why not as far as that was said."""
        late = self._now() - self._blind_after
        told = ((i, here) for i, here in self.opened.items() if here.open and here.why)
        return [(i, here.why) for i, here in told if max(here.seen_at, here.opened_at) < late]

    def _set_answers(self, here: Opened, *, answers: bool) -> None:
        if here.answers != answers:
            here.answers, self._reach = answers, None

    def set_well(self, instance: int, *, well: bool) -> None:
        """Whether it makes tokens; told to gateways at once when that changed."""
        here = self.opened.get(instance)
        if here is not None and (here.well != well or (well and here.mute)):
            here.well, here.mute, self._reach = well, here.mute and not well, None
            self.publish()

    def cut_off(self) -> frozenset[int]:
        """Instances that nothing reaches or comes from, where another one of the model answers: requests go there.

        If none of a model answers they are all left open: then it is this process that is cut off, or trying costs nothing.
        """
        return self._reachable()[0]

    def takes(self, endpoint: int) -> bool:
        """Whether work can be sent to an endpoint."""
        return endpoint in self._reachable()[1]

    def drains(self, endpoint: int) -> bool:
        """Whether an instance of an endpoint is closed and may still have requests."""
        return any(self._endpoint(i) == endpoint for i in self._closing)

    def _reachable(self) -> tuple[frozenset[int], frozenset[int]]:
        """Instances cut off, and endpoints that take work; found anew when something changed, for it is asked very often."""
        if self._reach is None:
            answering = {self._model(i) for i, here in self.opened.items() if here.open and here.gives}
            out = frozenset(i for i, here in self.opened.items() if not here.gives and self._model(i) in answering)
            self._reach = out, frozenset(self._endpoint(i) for i, here in self.opened.items() if here.open and i not in out)
        return self._reach

    def first_engine(self, endpoint: int) -> Any:  # noqa: ANN401 # as `_profile`
        """The PROFILE row of the first open instance of an endpoint that has one."""
        slots = range(endpoint * self.layout.slots, (endpoint + 1) * self.layout.slots)
        return self._profile(next(i for i in slots if i in self.opened and self.opened[i].open))

    def refresh(self) -> None:
        """Turn what was counted and seen since the last time into signals, and tell every gateway."""
        now = self._now()
        elapsed, half_life = now - self.scraped, float(self._scenario.signals.half_life)
        used = np.zeros(self.layout.endpoints)
        self.endpoints["running"] = self.endpoints["waiting"] = 0
        for i, here in self.opened.items():
            if here.open:
                used[self._endpoint(i)] += here.kv * self._of_ranks(i, "kv_tokens")
                self.endpoints["running"][self._endpoint(i)] += here.in_flight - here.waiting
                self.endpoints["waiting"][self._endpoint(i)] += here.waiting
        for e, row in enumerate(self.endpoints):
            row["rate"] = smoothed(float(row["rate"]), float(row["offered"]), elapsed, half_life)
            row["offered"] = row["fed_work"] = row["fed_tokens"] = row["kv"] = row["busy"] = 0.0
            if row["open"] > 0:
                row["kv"] = used[e] / row["kv_tokens"]
                row["busy"] = busyness(float(row["rate"]), float(row["backlog"]), half_life, int(row["open"]))
            row["seen"] = signal(self._kind, float(row["kv"]), float(row["busy"]))
        self.scraped = now
        self.publish()
        self._tell_drained()

    # --- what gateways are told ---

    def speak(self, send: Callable[[int, ToGateway], bool]) -> None:
        """What runs is known: from now on gateways are told."""
        self._told.send = send
        self.publish()

    def publish(self) -> None:
        """Send every gateway the present state."""
        self._version += 1
        self._crowd_at = None
        for number in list(self.gateways):
            self._told.send(number, self.table(number))

    def table(self, gateway: int) -> RoutingTable:
        """The present state for one gateway."""
        now, out = self._now(), self.cut_off() | self.left_out()
        names = ("seen", "kv", "busy", "rate", "backlog", "kv_tokens", "open")
        columns = zip(*(self.endpoints[name].tolist() for name in names), strict=True)
        own, reports = self.gateways[gateway], self._reports
        instances = tuple(
            InstanceRow(
                i,
                self._endpoint(i),
                here.place.url,
                here.place.served_model,
                here.open and i not in out,
                int(reports.outstanding[i]) - own.outstanding(i),
                int(self.layout.slot_profile[i]),
                here.gives,
                int(reports.unfinished[i]) - own.unfinished(i),
                *self._told.trials.trial(i),
            )
            for i, here in sorted(self.opened.items())
        )
        return RoutingTable(
            version=self._version,
            epoch=self._epoch,
            scraped=self.scraped,
            age=now - self.scraped,
            endpoints=tuple(EndpointRow(*row) for row in columns),
            instances=instances,
            output_mean=tuple(self.output_mean.tolist()),
            gateways=max(len(self.gateways), 1),
            asleep=self._told.asleep(),
        )

    def left_out(self) -> frozenset[int]:
        """Instances in trouble, where another one of the model is well; where none is they are all left open."""
        now, out, scrape = self._now(), self.cut_off(), self._scenario.signals.scrape
        suspect = {i for i, here in self.opened.items() if here.open and i not in out and here.is_suspect(now - scrape)}
        well = {self._model(i) for i, here in self.opened.items() if here.open and i not in out and i not in suspect}
        return frozenset(i for i in suspect if self._model(i) in well)

    def unwell(self) -> tuple[str, ...]:
        """Models all of whose instances are in trouble or silent, and used all the same."""
        now, scrape = self._now(), self._scenario.signals.scrape
        ill = {i for i, here in self.opened.items() if here.open and (not here.gives or here.is_suspect(now - scrape))}
        well = {self._model(i) for i, here in self.opened.items() if here.open and i not in ill}
        return tuple(sorted({self.layout.names.models[self._model(i)] for i in ill if self._model(i) not in well}))

    def _count_open(self, instance: int, change: int) -> None:
        self._reach = None
        row = self.endpoints[self._endpoint(instance)]
        row["open"] += change
        row["kv_tokens"] += change * self._of_ranks(instance, "kv_tokens")

    def _of_ranks(self, instance: int, column: str) -> int:
        return int(self._profile(instance)["ranks"] * self._profile(instance)[column])

    def _endpoint(self, instance: int) -> int:
        return instance // self.layout.slots

    def _model(self, instance: int) -> int:
        return int(self.endpoints[self._endpoint(instance)]["model"])

    def _profile(self, instance: int) -> Any:  # noqa: ANN401 # a row of a structured array has no static type
        return self.layout.profiles[self.layout.slot_profile[instance]]
