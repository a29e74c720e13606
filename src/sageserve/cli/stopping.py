"""Parts of a process that go on until it is told to end. Knows nothing of them. Read next: `envoy.py`, `scaler.py`."""

import asyncio
import signal
from collections.abc import Callable, Coroutine


async def until_told(*parts: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run all parts until SIGINT or SIGTERM comes, or one of them ends; returns when every one has ended.

    Raises:
        Exception: the first fault of any part.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

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
    except* Exception as faults:  # noqa: BLE001 # the first of them is raised again
        first: BaseException = faults
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
