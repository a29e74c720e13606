"""Every event in every state of an instance, and every action that cannot be carried out: nothing is left open.

The loop is the real one, with a controller, a strategy that wants what a test tells it to, and sides that note what they are
told. Read next: `src/sageserve/live/control/loop.py`, `src/sageserve/core/fleet.py` for the moves.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import product
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sageserve.base.errors import LawBroken, SageServeError
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros
from sageserve.core.actions import Action, Decision, Donate, Drain, Feed, Reason, Reclaim, Release, Source, Start
from sageserve.core.controller import Controller
from sageserve.core.events import (
    DemandSeen,
    EndpointSeen,
    InstanceDrained,
    InstanceLost,
    InstanceReady,
    Observed,
    SpotTaken,
    StartFailed,
)
from sageserve.core.fleet import Fleet, State
from sageserve.core.history import BIN
from sageserve.core.invariants import check_fleet
from sageserve.core.work import (
    AnyAction,
    AnyEvent,
    Entry,
    Fit,
    Fitted,
    Solve,
    SolveAhead,
    Solved,
    SolvedAhead,
    Work,
    came_to_nothing,
)
from sageserve.live.actuators.base import EngineAddress, Order
from sageserve.live.control import process
from sageserve.live.control.loop import Counters, Loop
from sageserve.live.control.process import ThreadWorker
from tests.core.driven import Driven, asked
from tests.core.small import fleet_of, layout_of, scenario
from tests.live.supervisor.supervising import soon

CHECK = 15 * SECOND
GPUS = tuple(range(8))


class Wants:
    """A strategy that wants, at the next event, what it was told to want."""

    def __init__(self) -> None:
        self.next: list[Decision | Feed | Work] = []
        self.heard: list[AnyEvent] = []

    def handle(self, now: Micros, event: AnyEvent, fleet: Fleet) -> Iterable[Decision | Feed | Work]:
        self.heard.append(event)
        wanted, self.next = self.next, []
        return wanted


class Stage:
    """A loop, and all its sides in one: they note what they are told, and refuse what `refuses` says.

    Args:
        donate: instances that are not needed go to the spot market.
    """

    def __init__(self, *, donate: bool = True) -> None:
        settings = scenario(spot={"donate": donate})
        self.layout = layout_of(settings)
        self.fleet = fleet_of(self.layout)
        self.wants = Wants()
        self.told: list[str] = []
        self.orders: list[AnyAction] = []
        self.lines: list[Entry] = []
        self.minutes: list[DemandSeen] = []
        self.refuses: Exception | None = None
        self.counted = [np.zeros(12, np.int64) for _ in range(3)]
        self.loop = Loop(
            controller=Controller(self.fleet, self.wants, settings.spot),
            view=self,
            actuator=self,
            worker=self,
            memory=self,
            check=CHECK,
        )

    def _take(self, words: str) -> None:
        if self.refuses is not None:
            error, self.refuses = self.refuses, None
            raise error
        self.told.append(words)

    # --- the view ---

    def look(self) -> Observed:
        return Observed(0, (EndpointSeen(0.5, 0.5, 0.5),) * self.layout.endpoints, (0, 0))

    def counters(self) -> Counters:
        prompt, output, requests = (one.copy() for one in self.counted)
        return prompt, output, requests, prompt.astype(np.float64)

    def open(self, instance: int) -> None:
        self._take(f"open {instance}")

    def close(self, instance: int) -> None:
        self._take(f"close {instance}")

    def forget(self, instance: int) -> None:
        self._take(f"forget {instance}")

    def set_feed(self, endpoint: int, *, one_below: float, two_below: float) -> None:
        self._take(f"feed {endpoint}")

    # --- the actuator, the worker and the recorder ---

    def perform(self, now: Micros, action: Order) -> None:
        self._take(type(action).__name__.lower() + f" {action.instance}")
        self.orders.append(action)

    def place(self, instance: int) -> EngineAddress:
        return EngineAddress(f"http://engine-{instance}", "m")

    def submit(self, work: Work) -> None:
        self._take(f"{type(work).__name__.lower()} {work.number}")

    def write(self, entry: Entry) -> None:
        self.lines.append(entry)

    def add(self, seen: DemandSeen) -> None:
        self.minutes.append(seen)

    # --- what tests do ---

    def bring(self, i: int, state: State) -> None:
        """Instance `i` into a state, by the fleet's own verbs."""
        pool = self.fleet.pool_of[i]
        if state is State.OFF:
            return
        self.fleet.start(i, 0, self.fleet.room(pool))
        steps: dict[State, list[Callable[[int, Micros], None]]] = {
            State.STARTING: [],
            State.SERVING: [self.fleet.ready],
            State.DRAINING: [self.fleet.ready, self.fleet.drain],
            State.SPOT: [self.fleet.ready, self.fleet.drain, self.fleet.donate],
            State.RECLAIMING: [self.fleet.ready, self.fleet.drain, self.fleet.donate, self.fleet.reclaim],
        }
        for verb in steps[state]:
            verb(i, 0)

    def hear(self, *events: AnyEvent) -> None:
        for event in events:
            self.loop.hear(event)
        self.loop.step(self.fleet.now + 1)


# --- every event in every state ---

EVENTS: dict[str, Callable[[int], AnyEvent]] = {
    "ready": InstanceReady,
    "failed": lambda i: StartFailed(i, "why"),
    "drained": InstanceDrained,
    "lost": lambda i: InstanceLost(i, "why"),
    "taken": SpotTaken,
}
MOVES: dict[tuple[State, str], tuple[State, list[str]]] = {
    (State.STARTING, "ready"): (State.SERVING, ["open 0"]),
    (State.RECLAIMING, "ready"): (State.SERVING, ["open 0"]),
    (State.STARTING, "failed"): (State.OFF, ["forget 0"]),
    (State.RECLAIMING, "failed"): (State.OFF, ["forget 0"]),
    (State.DRAINING, "drained"): (State.SPOT, ["donate 0"]),
    (State.SERVING, "lost"): (State.OFF, ["forget 0"]),
    (State.DRAINING, "lost"): (State.OFF, ["forget 0"]),
    (State.SPOT, "taken"): (State.OFF, []),
    (State.RECLAIMING, "taken"): (State.OFF, []),
    (State.OFF, "ready"): (State.OFF, ["forget 0", "release 0"]),  # it came up after it was given up: stop it
}
"""What is done, and what the sides are told; any other pair is news that crossed a decision, and changes nothing."""


@pytest.mark.parametrize(("state", "event"), list(product(State, EVENTS)))
def test_every_event_in_every_state(state: State, event: str) -> None:
    stage = Stage()
    stage.bring(0, state)
    counts = [row[:] for row in stage.fleet.counts]
    stage.hear(EVENTS[event](0))
    after, told = MOVES.get((state, event), (state, []))
    assert stage.fleet.state[0] is after
    assert stage.told == told
    moved = (state, event) in MOVES and state is not State.OFF
    assert len(stage.lines) == moved, "what changes nothing is not written down"
    assert moved or stage.fleet.counts == counts
    check_fleet(stage.fleet, stage.fleet.now)


@pytest.mark.parametrize("state", State)
def test_an_instance_without_a_market_is_released_when_it_is_drained(state: State) -> None:
    stage = Stage(donate=False)
    stage.bring(0, state)
    stage.hear(InstanceDrained(0))
    drained = state is State.DRAINING
    assert stage.fleet.state[0] is (State.OFF if drained else state)
    assert stage.told == (["forget 0", "release 0"] if drained else [])


@pytest.mark.parametrize(("first", "second"), list(product(EVENTS, EVENTS)))
@pytest.mark.parametrize("state", State)
def test_two_pieces_of_news_in_one_step_break_nothing(state: State, first: str, second: str) -> None:
    stage = Stage()
    stage.bring(0, state)
    stage.hear(EVENTS[first](0), EVENTS[second](0))
    between, _ = MOVES.get((state, first), (state, []))
    after, _ = MOVES.get((between, second), (between, []))
    assert stage.fleet.state[0] is after
    check_fleet(stage.fleet, stage.fleet.now)


def test_a_death_that_crosses_the_theft_of_its_gpus_is_old_news() -> None:
    """The donated instance died; before that is heard, its GPUs go to the other model."""
    stage = Stage()
    stage.bring(0, State.SPOT)
    (other,) = (pool for pool in stage.layout.pools if (pool.region, pool.model) == (0, 1))
    stage.wants.next = [Decision(other.number, 1, Reason.PLANNED, 0.0, 0, serving=0, coming=0)]
    stage.hear(Fitted(0, ()), SpotTaken(0))
    assert stage.told == ["forget 0", "release 0", f"start {other.begin}"]
    assert (stage.fleet.state[0], stage.fleet.state[other.begin]) == (State.OFF, State.STARTING)


# --- actions that cannot be carried out ---


def works() -> tuple[Fit, Solve, SolveAhead]:
    """One of each kind, as strategies ask for them."""
    hourly, ahead = (Driven(scenario(gpus=160, strategy={"name": name})) for name in ("lt-u", "foresight"))
    for one in (hourly, ahead):
        one.hear(1_000.0, until=BIN)
    fit = asked(hourly.look(BIN))
    program = asked(hourly.answer(BIN, fit))
    outlook = asked(ahead.answer(BIN, asked(ahead.look(BIN))))
    assert isinstance(fit, Fit)
    assert isinstance(program, Solve)
    assert isinstance(outlook, SolveAhead)
    return fit, program, outlook


FIT, SOLVE, AHEAD = works()
ACTIONS: dict[str, tuple[State, AnyAction, AnyEvent | None, State]] = {
    "start": (State.STARTING, Start(0, Source.VM, GPUS), StartFailed(0, "why"), State.OFF),
    "reclaim": (State.RECLAIMING, Reclaim(0), StartFailed(0, "why"), State.OFF),
    "drain": (State.DRAINING, Drain(0), InstanceDrained(0), State.SPOT),
    "donate": (State.SPOT, Donate(0), SpotTaken(0), State.OFF),
    "release": (State.OFF, Release(0), None, State.OFF),
    "feed": (State.OFF, Feed(0, 0.5, 0.4), None, State.OFF),
    "fit": (State.OFF, FIT, Fitted(FIT.number, (), "why"), State.OFF),
    "solve": (State.OFF, SOLVE, Solved(SOLVE.number, None, "why"), State.OFF),
    "solve ahead": (State.OFF, AHEAD, SolvedAhead(AHEAD.number, None, "why"), State.OFF),
}
"""State of the instance when the action is asked for, the event that must follow, the state after it."""


def test_every_kind_of_action_is_tried_here() -> None:
    kinds = {type(action) for _, action, _, _ in ACTIONS.values()}
    assert kinds == set(get_args(Action)) | set(get_args(Work))
    assert all(came_to_nothing(action, "why") == event for _, action, event, _ in ACTIONS.values())


@pytest.mark.parametrize("error", [SageServeError("why"), OSError("why"), KeyError("why"), LawBroken("why")], ids=repr)
@pytest.mark.parametrize("kind", ACTIONS)
def test_an_action_that_is_refused_ends_in_its_event(kind: str, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    before, action, event, after = ACTIONS[kind]
    stage = Stage()
    stage.bring(0, before)
    stage.refuses = error
    stage.loop._perform(0, (action,))
    assert stage.loop.heard.is_set() is (event is not None), "the loop wakes up for it"
    stage.loop.step(1)
    heard = [
        came_to_nothing(action, "why") if getattr(one, "why", getattr(one, "failure", "")) else one for one in stage.wants.heard
    ]
    assert heard == ([] if event is None else [event])
    assert stage.fleet.state[0] is after
    check_fleet(stage.fleet, 1)
    (record,) = caplog.records
    assert "why" in record.getMessage()
    assert bool(record.exc_info) is isinstance(error, KeyError), "a traceback of what nobody foresaw, and of nothing else"


def test_what_comes_after_a_refused_action_is_still_done() -> None:
    stage = Stage()
    stage.refuses = SageServeError("why")
    stage.loop._perform(0, (Feed(0, 0.5, 0.4), Feed(1, 0.5, 0.4), FIT))
    assert stage.told == ["feed 1", f"fit {FIT.number}"]


@pytest.mark.parametrize("kind", ["fit", "solve", "solve ahead"])
def test_work_that_fails_in_its_thread_ends_in_its_event(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, work, event, _ = ACTIONS[kind]
    assert isinstance(work, Fit | Solve | SolveAhead)

    def fails(work: Work) -> AnyEvent:
        raise ValueError("why")

    monkeypatch.setattr(process, "perform", fails)
    heard: list[AnyEvent] = []

    async def run() -> None:
        worker = ThreadWorker(heard.append)
        worker.submit(work)
        await soon(lambda: heard)
        worker.close()

    asyncio.run(run())
    assert heard == [came_to_nothing(work, "ValueError: why")]
    assert type(heard[0]) is type(event)


def test_work_that_succeeds_is_heard_once() -> None:
    heard: list[AnyEvent] = []

    async def run() -> None:
        worker = ThreadWorker(heard.append)
        worker.submit(FIT)
        await soon(lambda: heard)
        worker.close()

    asyncio.run(run())
    (fitted,) = heard
    assert isinstance(fitted, Fitted)
    assert (len(fitted.forecasts), fitted.failure) == (len(FIT.series), "")


@pytest.mark.parametrize("name", ["lt-i", "lt-u", "lt-ua", "foresight"])
def test_a_plan_is_made_from_the_last_hour_when_forecasts_fail(name: str) -> None:
    driven = Driven(scenario(gpus=160, strategy={"name": name}))
    driven.hear(50_000.0, until=HOUR)
    fit = asked(driven.look(HOUR))
    assert isinstance(fit, Fit)
    failed = came_to_nothing(fit, "it cannot")
    assert failed is not None
    (program,) = driven.controller.handle(HOUR, failed)
    if isinstance(program, Solve):
        assert np.array(program.problem.demand) == pytest.approx(np.full((1, 2, 2), 50_000.0))
    else:
        assert isinstance(program, SolveAhead)
        assert all(rate == pytest.approx(5.0) for stream in program.outlook.streams for rate in stream.expected)


# --- the minute's demand, however late the loop is ---


def arrive(stage: Stage, amount: int) -> None:
    stage.counted = [column + amount for column in stage.counted]


def test_demand_of_minutes_that_were_slept_through_is_told_in_equal_parts_and_none_is_lost() -> None:
    stage = Stage()
    arrive(stage, 1000)
    stage.loop.step(7 * MINUTE)
    assert [seen.start for seen in stage.minutes] == [k * MINUTE for k in range(7)]
    told = [seen.prompt_tokens[0] for seen in stage.minutes]
    assert sum(told) == 1000
    assert set(told) == {142, 143}
    assert sum(seen.work[0] for seen in stage.minutes) == pytest.approx(1000.0)
    stage.loop.step(8 * MINUTE)
    assert stage.minutes[-1].prompt_tokens[0] == 0, "and nothing is told twice"


@given(st.lists(st.tuples(st.integers(1, 10 * MINUTE), st.integers(0, 2000)), min_size=1, max_size=20))
def test_all_that_was_counted_is_told_once_minute_by_minute(steps: list[tuple[Micros, int]]) -> None:
    stage, now, total = Stage(), 0, 0
    for passed, amount in steps:
        arrive(stage, amount)
        total += amount
        now += passed
        before = len(stage.minutes)
        stage.loop.step(now)
        assert len(stage.minutes) == now // MINUTE, "every minute that is over, and no other"
        told = [seen.requests[5] for seen in stage.minutes[before:]]
        assert max(told, default=0) - min(told, default=0) <= 1
        assert stage.loop.next > now
    arrive(stage, 7)
    stage.loop.step(now + MINUTE)
    for name in ("prompt_tokens", "output_tokens", "requests"):
        assert sum(getattr(seen, name)[3] for seen in stage.minutes) == total + 7
    assert [seen.start for seen in stage.minutes] == [k * MINUTE for k in range(len(stage.minutes))]
    assert {seen.length for seen in stage.minutes} == {MINUTE}
    assert [event for event in stage.wants.heard if isinstance(event, DemandSeen)] == stage.minutes


def test_at_one_instant_news_come_first_then_the_minute_then_the_look() -> None:
    stage = Stage()
    stage.bring(0, State.STARTING)
    stage.loop.hear(InstanceReady(0))
    stage.loop.step(MINUTE)
    assert [type(event) for event in stage.wants.heard] == [InstanceReady, DemandSeen, Observed]


@given(st.lists(st.integers(1, 3 * CHECK), min_size=1, max_size=30))
@example([CHECK - 1, 1, CHECK, CHECK])
def test_a_look_is_never_further_away_than_a_period(steps: list[Micros]) -> None:
    stage, now, last = Stage(), 0, 0
    for passed in steps:
        now += passed
        before = sum(isinstance(event, Observed) for event in stage.wants.heard)
        stage.loop.step(now)
        looked = sum(isinstance(event, Observed) for event in stage.wants.heard) - before
        assert looked == (now >= last + CHECK), "at the period exactly, and once however late it is"
        last = now if looked else last


def test_a_fleet_whose_laws_are_broken_stops_the_loop() -> None:
    stage = Stage()
    stage.fleet.counts[0][State.OFF] += 1
    with pytest.raises(LawBroken):
        stage.loop.step(MINUTE)


def test_a_loop_that_is_stopped_returns() -> None:
    class Soon:
        def now(self) -> Micros:
            return 5

        async def wait(self, until: Micros, news: asyncio.Event) -> None:
            await asyncio.wait_for(news.wait(), 20)

    async def run() -> None:
        stage = Stage()
        running = asyncio.create_task(stage.loop.run(Soon()))
        await asyncio.sleep(0)
        stage.loop.hear(InstanceReady(0))
        await asyncio.sleep(0)
        assert not running.done()
        stage.loop.stop()
        await asyncio.wait_for(running, 20)

    asyncio.run(run())


@pytest.mark.parametrize(("initial", "held", "started"), [(2, 0, 2), (2, 1, 1), (2, 2, 0), (2, 3, 0), (0, 0, 0)])
def test_it_begins_with_what_is_missing_beside_what_was_adopted(initial: int, held: int, started: int) -> None:
    stage = Stage()
    for i in range(held):
        stage.bring(i, State.SERVING if i else State.STARTING)
    stage.loop.begin((initial,))
    mine = [order for order in stage.orders if isinstance(order, Start) and order.instance < stage.layout.slots]
    assert len(mine) == started
    assert len(stage.orders) == started + 3 * min(initial, 4), "and at the other three endpoints all"
