"""Processes that go on until they are told to end. Knows nothing of what they do. Read next: `envoy.py`, `agent.py`."""

import asyncio
import signal
from collections.abc import Callable, Coroutine

from sageserve.live.waiting import run_until


def told_to_end() -> asyncio.Event:
    """What SIGINT and SIGTERM set, in the loop that runs."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def until_told(*parts: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run all parts until SIGINT or SIGTERM comes, or one of them ends; returns when every one has ended.

    Raises:
        Exception: the first fault of any part.
    """
    await run_until(told_to_end(), parts)
