"""Every event in every state of an instance, and every action that cannot be carried out: nothing is left open.

The loop is the real one, on the stage of `loop_stage.py`. Read next: `src/sageserve/live/control/loop.py`,
`src/sageserve/core/fleet.py` for the moves.
"""

import asyncio
from collections.abc import Callable
from itertools import product
from typing import get_args

import numpy as np
import pytest

from sageserve.base.errors import LawBroken, SageServeError
from sageserve.base.units import HOUR
from sageserve.core.actions import (
    Action,
    Decision,
    Donate,
    Drain,
    Feed,
    Reason,
    Reclaim,
    Release,
    Roll,
    RolloutStep,
    RolloutWhy,
    Source,
    Start,
)
from sageserve.core.events import (
    InstanceDrained,
    InstanceLost,
    InstanceReady,
    SpotTaken,
    StartFailed,
)
from sageserve.core.fleet import State
from sageserve.core.history import BIN
from sageserve.core.invariants import check_fleet
from sageserve.core.work import (
    AnyAction,
    AnyEvent,
    Fit,
    Fitted,
    Solve,
    SolveAhead,
    Solved,
    SolvedAhead,
    Work,
    came_to_nothing,
)
from sageserve.live.control import thread_worker
from sageserve.live.control.thread_worker import ThreadWorker
from tests.core.driven import Driven, asked
from tests.core.small import scenario
from tests.live.control.loop_stage import Stage
from tests.live.supervisor.supervising import soon

GPUS = tuple(range(8))


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
    assert kinds == (set(get_args(Action)) - {Roll}) | set(get_args(Work))
    assert all(came_to_nothing(action, "why") == event for _, action, event, _ in ACTIONS.values())


def test_a_step_of_a_rollout_is_asked_of_nobody_who_could_refuse_it() -> None:
    step = Roll(0, 1, RolloutStep.CANARY, RolloutWhy.DUE)
    assert came_to_nothing(step, "why") is None
    stage = Stage()
    stage.refuses = SageServeError("why")
    stage.loop._perform(0, (step,))
    assert (stage.told, stage.loop.heard.is_set()) == ([], False)
    assert stage.refuses is not None, "nobody was asked"


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

    monkeypatch.setattr(thread_worker, "perform", fails)
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
    driven = Driven(scenario(gpus=160, strategy={"name": name, "foresight": {"worth": 0.0}}))
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
        assert all(rate == pytest.approx(5.0 / 0.9, rel=1e-3) for stream in program.outlook.streams for rate in stream.expected)
