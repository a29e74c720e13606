"""Waiting for an event for a while, in tasks that may be cancelled at any moment. Knows nobody."""

import asyncio


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
