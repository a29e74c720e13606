"""Waiting for a while: cancellations that meet the event are not lost. Read next: `src/sageserve/live/waiting.py`."""

import asyncio
from pathlib import Path

import pytest

import sageserve
from sageserve.live.waiting import within


def test_it_says_whether_the_event_came() -> None:
    async def play() -> list[bool]:
        event = asyncio.Event()
        late = await within(event, 0.001)
        event.set()
        return [late, await within(event, 0.001), await within(event, 0)]

    assert asyncio.run(play()) == [False, True, True]


def test_a_cancellation_that_meets_the_event_is_not_lost() -> None:
    """A process that is told to end while news comes would go on with half of its tasks."""

    async def play() -> None:
        event = asyncio.Event()

        async def work() -> None:
            while True:
                await within(event, 10)
                event.clear()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        event.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(5):
                await task
        assert task.cancelled()

    asyncio.run(play())


def test_nothing_waits_in_the_way_that_loses_them() -> None:
    source = Path(sageserve.__file__).parent
    assert [path.name for path in source.rglob("*.py") if "wait_for(" in path.read_text("utf-8")] == []
