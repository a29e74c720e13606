"""What must hold whatever goes wrong: each law has a name, and is told what really happened, not what control believes.

A law that is broken is noted once per story, with the first thing that broke it. Changes nothing in the world.
Read next: `world.py`; `story.py`, which asks the laws of the end; docs/reference/swarm.md.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

from sageserve.base.errors import LawBroken
from sageserve.base.units import SECOND, Micros
from sageserve.core.actions import Donate, Drain, Reclaim, Release, Start
from sageserve.core.events import (
    InstanceComing,
    InstanceDrained,
    InstanceLeaving,
    InstanceLost,
    InstanceReady,
    SpotTaken,
    StartFailed,
)
from sageserve.core.fleet import MOVES, Fleet, Signal, State
from sageserve.core.invariants import check_fleet
from sageserve.core.work import Entry
from sageserve.live.swarm.engines import SwarmEngine
from sageserve.live.swarm.ground import StoryGround
from sageserve.live.swarm.virtual_time import VirtualProcess
from sageserve.live.wire import Report, RoutingTable, ToControl

LAWS: Final[Mapping[str, str]] = {
    "control-goes-on": "no fault around it ends a control process by an error of its own",
    "fleet-adds-up": "counts, GPUs and the ledger of the fleet agree with one another",
    "one-engine-per-gpu": "no two engines are started on one GPU, nor one on a GPU that is not there",
    "minimum-kept": "no drain leaves an endpoint below its minimum",
    "maximum-kept": "no pool has more engines than its maximum",
    "blind-keeps": "nothing is drained at an endpoint that nothing was heard of for too long",
    "pace-kept": "no more is drained within an hour than the safety rules allow a control process",
    "drained-in-peace": "an engine is taken away only when no gateway has a request there",
    "closed-gets-nothing": "a gateway sends nothing to an instance that its table says is closed",
    "fails-static": "without control a gateway goes on sending requests to the instances it knows",
    "one-fate": "every request is answered or refused exactly once",
    "no-wait-for-ever": "no request is left without an answer once the faults are over",
    "lines-kept": "every line of a batch that was taken on is in exactly one of its files",
    "erased-is-gone": "once a tenant was erased nothing of it is kept, and nothing of others is gone",
    "batches-end": "every batch ends once the faults are over; none that is sound is rejected",
    "requests-counted": "control counts every request once, whatever links and processes do",
    "refusals-counted": "control counts every refusal once",
    "demand-is-whole": "no minute's demand is negative, and all of them are not more than arrived",
    "journal-replays": "the journal's lines lead from the fleet that was adopted to the fleet as it is",
    "journal-is-whole": "every line of the journal is in its files, or counted as lost",
    "fleet-is-real": "once the faults are over the fleet has the engines that run, and no others",
    "fleet-recovers": "once the faults are over every endpoint has its minimum, and what stands still under requests is replaced",
    "nothing-unheard": "no callback or task fails unheard",
}
"""Names, and what they say."""

_Count: TypeAlias = tuple[int, int]
"""Requests and refusals."""
_SLACK: Final[Micros] = 3 * SECOND  # of what is seen: the time from a scrape's answer to the next look
_SIGNALS: Final[Mapping[type, Signal]] = {
    InstanceReady: Signal.READY,
    StartFailed: Signal.FAIL,
    InstanceLost: Signal.LOSE,
    SpotTaken: Signal.TAKE,
    InstanceComing: Signal.START,
    InstanceLeaving: Signal.DRAIN,
    Start: Signal.START,
    Drain: Signal.DRAIN,
    Donate: Signal.DONATE,
    Reclaim: Signal.RECLAIM,
}


class Laws:
    """Those of one story.

    Args:
        ground: they stand on.
    """

    def __init__(self, ground: StoryGround) -> None:
        self.broken: dict[str, str] = {}
        self.arrived: Counter[int] = Counter()  # requests by gateway process
        self.turned_away: Counter[int] = Counter()
        self.reports: dict[int, tuple[_Count, _Count]] = {}  # by gateway process: what this control process heard first, and last
        self.seen_at: dict[int, Micros] = {}  # when control last got an answer of an instance's metrics
        self.heard_at: Micros = 0  # when control last heard a gateway
        self._ground = ground
        self._replayed: list[State] = []
        self._adopted_at: Micros = 0
        self._opened_at: dict[int, Micros] = {}
        self._drained: Counter[int] = Counter()  # by endpoint, of this control process
        self.demanded = 0  # requests in minutes of all control processes
        self.written = 0  # journal lines

    def breaks(self, law: str, what: str) -> None:
        """A law is broken."""
        assert law in LAWS
        if law not in self.broken:
            self.broken[law] = what
            self._ground.note(f"BROKEN {law}: {what}")

    # --- engines ---

    def starts(self, row: int, gpus: tuple[int, ...], held: Mapping[int, tuple[int, ...]]) -> None:
        """An engine is to start on some GPUs while others hold theirs."""
        layout, pool_of = self._ground.layout, self._ground.pool_of
        pool = pool_of[row]
        stock = layout.stocks[pool.stock]
        for other, theirs in held.items():
            if pool_of[other].stock == pool.stock and set(theirs) & set(gpus):
                self.breaks("one-engine-per-gpu", f"instance {row} starts on GPUs {gpus}, instance {other} holds {theirs}")
        if not all(0 <= one < stock.gpus for one in gpus):
            self.breaks("one-engine-per-gpu", f"instance {row} starts on GPUs {gpus} of {stock.gpus}")
        many = 1 + sum(pool_of[other] is pool for other in held)
        if many > self._ground.scenario.fleet.maximum:
            self.breaks("maximum-kept", f"{pool.name} has {many} engines")

    def takes_away(self, engine: SwarmEngine, reached: Callable[[VirtualProcess], bool]) -> None:
        """An engine is released or given away by a decision; control can reach some gateways.

        What others sent counts if it was there when the engine was last seen. What came after it was given away does
        not: a gateway that stood still meanwhile goes by an old table for a moment, and tries elsewhere when that breaks. Nor
        does what such a gateway sent since it went on, a moment ago, which nobody has heard of yet.
        """
        seen = self.seen_at.get(engine.row, 0)
        mine = [one for one in engine.inside if one.taken_at <= engine.given_at and not one.sender.killed]
        lately = self._ground.loop.now - _SLACK
        heard = [one for one in mine if reached(one.sender) and not lately < one.sender.thawed_at <= one.taken_at]
        left = heard or [one for one in mine if one.taken_at < seen - _SLACK]
        if left and engine.honest:
            self.breaks("drained-in-peace", f"instance {engine.row} is taken away with {len(left)} requests of live gateways")

    # --- gateways ---

    def came(self, gateway: int) -> None:
        """A request came to a gateway process."""
        self.arrived[gateway] += 1

    def refused(self, gateway: int) -> None:
        """A gateway process turned one away."""
        self.turned_away[gateway] += 1

    def sent(self, gateway: int, table: RoutingTable | None, row: int) -> None:
        """A gateway process sends a request to an instance."""
        said = None if table is None else next((one for one in table.instances if one.row == row), None)
        if said is None or not said.open:
            self.breaks("closed-gets-nothing", f"gateway {gateway} sends to instance {row}, which is closed in its table")

    def found_nobody(self, gateway: int, table: RoutingTable | None, endpoints: Collection[int]) -> None:
        """A gateway process has nowhere to send a request to that may go to some endpoints."""
        if table is not None and any(one.open and one.endpoint in endpoints for one in table.instances):
            self.breaks("fails-static", f"gateway {gateway} has nowhere to send to, and knows an open instance")

    # --- control ---

    def starts_control(self) -> None:
        """A control process begins, and knows nothing."""
        self.heard_at = self._ground.loop.now
        self.reports = {}

    def hears(self, gateway: int, message: ToControl) -> None:
        """A control process hears a gateway process."""
        self.heard_at = self._ground.loop.now
        if isinstance(message, Report):
            count = sum(cell.requests for cell in message.cells), sum(cell.refused for cell in message.cells)
            self.reports[gateway] = self.reports[gateway][0] if gateway in self.reports else count, count

    def begins(self, fleet: Fleet) -> None:
        """A control process has adopted what runs."""
        self._replayed = list(fleet.state)
        self._adopted_at = self._ground.loop.now
        self._opened_at = {}
        self._drained = Counter()

    def decides(self, entry: Entry, fleet: Fleet) -> None:
        """A control process has written a line: it has done what stands there."""
        now = self._ground.loop.now
        self.written += 1
        self._replay(type(entry.event), getattr(entry.event, "instance", -1))
        if isinstance(entry.event, InstanceReady):
            self._opened_at[entry.event.instance] = now
        drains = [action.instance for action in entry.actions if isinstance(action, Drain)]
        for action in entry.actions:
            if isinstance(action, Release):
                self._replay_release(action.instance)
            else:
                self._replay(type(action), getattr(action, "instance", -1))
        for done, i in enumerate(drains, 1):
            self._drains(i, len(drains) - done, fleet, now)
        self.holds(fleet)

    def _drains(self, i: int, later: int, fleet: Fleet, now: Micros) -> None:
        """Instance `i` was drained, and so many others after it at the same instant."""
        pools = {pool.number: pool for pool in fleet.pools if pool.endpoint == self._ground.pool_of[i].endpoint}
        here, name = self._ground.pool_of[i].endpoint, self._ground.layout.endpoint_name(self._ground.pool_of[i].endpoint)
        serving = sum(fleet.serving(number) for number in pools)
        safety = self._ground.safety
        if serving < (least := self._ground.pool_of[i].minimum):
            self.breaks("minimum-kept", f"{name} is left with {serving} of {least} instances")
        before = serving + later + 1
        self._drained[here] += 1
        allowed = max(1, int(safety.change_per_hour * (before + self._drained[here] - 1)))
        if self._drained[here] > allowed:
            self.breaks("pace-kept", f"{name} has lost {self._drained[here]} instances to decisions, {allowed} are allowed")
        patience = safety.blind_after + self._ground.scenario.strategy.check + _SLACK
        if now - self.heard_at > patience:
            self.breaks("blind-keeps", f"instance {i} is drained and no gateway was heard of for {_seconds(now - self.heard_at)}")
        for other in range(fleet.pools[0].begin, len(fleet.state)):
            if fleet.state[other] is State.SERVING and fleet.pool_of[other] in pools:
                seen = max(self.seen_at.get(other, 0), self._opened_at.get(other, self._adopted_at))
                if now - seen > patience:
                    self.breaks("blind-keeps", f"{i} of {name} is drained, and {other} was not seen for {_seconds(now - seen)}")

    def _replay(self, kind: type, i: int) -> None:
        if (signal := _SIGNALS.get(kind)) is None:
            if kind is InstanceDrained:
                return  # what is done about it says what becomes of it
            return
        self._move(i, signal)

    def _replay_release(self, i: int) -> None:
        state = self._replayed[i]
        if state is not State.OFF:
            self._move(i, Signal.RELEASE if state is State.DRAINING else Signal.TAKE)

    def _move(self, i: int, signal: Signal) -> None:
        after = MOVES.get((self._replayed[i], signal))
        if after is None:
            self.breaks("journal-replays", f"instance {i} is {self._replayed[i].name} by the journal and cannot {signal.name}")
        else:
            self._replayed[i] = after

    def holds(self, fleet: Fleet) -> None:
        """The fleet agrees with itself and with its journal."""
        try:
            check_fleet(fleet, fleet.now)
        except LawBroken as error:
            self.breaks("fleet-adds-up", error.message)
        for i, (told, state) in enumerate(zip(self._replayed, fleet.state, strict=True)):
            if told is not state:
                self.breaks("journal-replays", f"instance {i} is {state.name}, by the journal {told.name}")
                return

    def minute(self, requests: tuple[int, ...]) -> None:
        """A minute's demand was told."""
        if min(requests) < 0:
            self.breaks("demand-is-whole", f"a minute has {min(requests)} requests")
        self.demanded += sum(requests)
        if self.demanded > (came := sum(self.arrived.values())):
            self.breaks("demand-is-whole", f"minutes hold {self.demanded} requests, {came} came")


def _seconds(time: Micros) -> str:
    return f"{time / SECOND:.1f} s"
