"""Clocks that step, and a machine that slept: the live loop goes by a clock that nobody sets.

What the loop decides is held to the simulator's journals in `tests/parity`. Read next: `src/sageserve/live/control/loop.py`.
"""

import asyncio
import time

import pytest

from sageserve.base.units import SECOND
from sageserve.live.batches.store_thread import SteadyWall
from sageserve.live.control.loop import WallClock

YEAR_NS = 365 * 86_400 * 10**9


def wall() -> int:
    """Microseconds since 1970, by the machine's clock."""
    return time.time_ns() // 1000  # noqa: TID251  # the clock that is stepped here


@pytest.mark.parametrize("step_ns", [-YEAR_NS, YEAR_NS])
def test_a_step_of_the_machines_clock_does_not_reach_the_loop(monkeypatch: pytest.MonkeyPatch, step_ns: int) -> None:
    clock = WallClock()
    steady = SteadyWall(wall, clock.now)
    before, wall_before = clock.now(), steady.now()
    stepped = 1000 * wall() + step_ns
    monkeypatch.setattr(time, "time_ns", lambda: stepped)
    monkeypatch.setattr(time, "time", lambda: stepped / 1e9)

    async def wait() -> None:
        await clock.wait(clock.now() + SECOND // 50, asyncio.Event())

    asyncio.run(wait())
    assert SECOND // 50 <= clock.now() - before < 20 * SECOND
    assert 0 <= steady.now() - wall_before < 20 * SECOND, "no batch expires, none is kept alive"
    assert SteadyWall(wall, clock.now).now() == pytest.approx(stepped // 1000, abs=20 * SECOND)


def test_news_end_a_wait() -> None:
    async def wait() -> float:
        clock, news = WallClock(), asyncio.Event()
        asyncio.get_running_loop().call_later(0.02, news.set)
        begun = clock.now()
        await clock.wait(begun + 3600 * SECOND, news)
        return clock.now() - begun

    assert asyncio.run(wait()) < 20 * SECOND
