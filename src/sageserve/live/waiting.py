"""Waiting for an event, in tasks that may be cancelled at any moment: for a while, or while parts run. Knows nobody."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

_LOG: Final = logging.getLogger(__name__)


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event at most so long; whether it came.

    Cancelled, it always ends so: `asyncio.wait_for` of Python 3.11 forgets a cancellation that meets the event, and a process
    that is told to end goes on with half of its tasks.
    """
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass  # or it came at that very instant
    return event.is_set()


async def run_until(stop: asyncio.Event, parts: Sequence[Callable[[], Coroutine[None, None, None]]]) -> None:
    """Run all parts until `stop` is set or one of them ends; returns when every one of them has ended.

    Raises:
        Exception: the first fault of any part, as it was raised there; others are logged.
    """

    async def run(part: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await part()
        finally:
            stop.set()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(part)) for part in parts]
            await stop.wait()
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as faults:
        first, *others = _flat(faults)
        for other in others:
            _LOG.error("%s, besides", other, exc_info=other)
        raise first from None


def _flat(faults: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """All faults of a group, those of the groups in it among them."""
    parted = ([*_flat(one)] if isinstance(one, BaseExceptionGroup) else [one] for one in faults.exceptions)
    return [one for some in parted for one in some]
