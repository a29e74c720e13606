"""The odd moments of the live loop: minutes it slept through, several things at one instant, its begin and its end.

Read next: `loop_stage.py`; `test_loop_events.py` for what happens to instances.
"""

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sageserve.base.errors import LawBroken
from sageserve.base.units import MINUTE, Micros
from sageserve.core.actions import Start
from sageserve.core.events import (
    DemandSeen,
    EnginesSeen,
    InstanceReady,
    Observed,
)
from sageserve.core.fleet import State
from tests.live.control.loop_stage import CHECK, Stage


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
    assert sum(seen.mixes[0][0] for seen in stage.minutes) == pytest.approx(1000.0)
    assert (sum(seen.could[0] for seen in stage.minutes), sum(seen.missed[0] for seen in stage.minutes)) == (1000, 0)
    stage.loop.step(8 * MINUTE)
    assert stage.minutes[-1].prompt_tokens[0] == 0, "and nothing is told twice"


def test_a_minute_that_is_not_counted_yet_is_told_once_it_is_and_never_as_nothing() -> None:
    stage = Stage()
    stage.behind = 2 * MINUTE
    stage.loop.step(2 * MINUTE)
    assert stage.minutes == []
    assert stage.loop.next == 2 * MINUTE + CHECK, "it waits for the next look, and does not spin"
    arrive(stage, 100)
    stage.loop.step(3 * MINUTE)
    assert [(seen.start, seen.requests[0]) for seen in stage.minutes] == [(0, 100)]
    arrive(stage, 60)
    stage.behind = 0
    stage.loop.step(4 * MINUTE)
    assert [seen.requests[0] for seen in stage.minutes] == [100, 20, 20, 20]


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
    assert [type(event) for event in stage.wants.heard] == [InstanceReady, DemandSeen, EnginesSeen, Observed]


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
    stage.loop.begin((initial,) * len(stage.layout.pools))
    mine = [order for order in stage.orders if isinstance(order, Start) and order.instance < stage.layout.slots]
    assert len(mine) == started
    assert len(stage.orders) == started + 3 * min(initial, 4), "and at the other three endpoints all"
