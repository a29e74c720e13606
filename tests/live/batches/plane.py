"""The Files and Batch APIs alone, in a process or in a thread: a store, a runner, and a feeder that always has room.

    python plane.py STORE FOLDER PORT GATEWAY LINES     serves until it is killed; prints a line once it does

Read next: `gateway.py`, which answers the jobs.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.records import Names
from sageserve.base.units import Micros
from sageserve.live.batches.api_context import ApiContext
from sageserve.live.batches.routes import routes
from sageserve.live.batches.runner import BatchRunner, Door
from sageserve.live.batches.store_thread import SteadyWall, StoreThread
from sageserve.live.store.interface import Store
from sageserve.live.store.sql import open_store
from tests.core.small import scenario

FEED_S = 0.01


def wall_us() -> Micros:
    return time.time_ns() // 1000  # noqa: TID251 # a shell of its own


def clock_us() -> Micros:
    return time.monotonic_ns() // 1000  # noqa: TID251 # likewise


class Plane:
    """Everything but gateway and engines."""

    def __init__(self, store: Store, gateway: str, live: LiveSettings, wall: Callable[[], Micros] = wall_us) -> None:
        settings: Scenario = scenario(live=live.model_dump(mode="json", exclude_defaults=True))
        names = Names(tuple(settings.models), tuple(settings.regions), tuple(settings.tiers))
        self.models = names.models
        self.clock: Callable[[], Micros] = clock_us
        self.time = SteadyWall(wall, self._tick)
        self.threaded = StoreThread(store)
        self.runner = BatchRunner(self.threaded, settings, names, Door(gateway, "internal-key"), self.time)
        self.fed = True
        counter = ApiContext(self.threaded, self.time, settings.live or LiveSettings(), self.runner.notify, self.runner.tier)
        self.app = Starlette(routes=routes(counter))

    def _tick(self) -> Micros:
        return self.clock()

    async def feed(self) -> None:
        """Room for everything, at endpoint 1."""
        while True:
            for model in range(len(self.models)) if self.fed else ():
                while heads := self.runner.heads(model):
                    self.runner.launch(model, 1, heads[0].owner)
            await asyncio.sleep(FEED_S)

    async def serve(self, port: int, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        config = uvicorn.Config(self.app, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        tasks = [asyncio.create_task(part) for part in (server.serve(), self.runner.run(), self.feed(), stop.wait())]
        while not server.started:  # noqa: ASYNC110 # uvicorn sets a flag
            await asyncio.sleep(0.005)
        ready(server.servers[0].sockets[0].getsockname()[1])
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await tasks[0]
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await self.threaded.close()
        for error in ended:
            if isinstance(error, Exception):
                raise error


@dataclass(slots=True)
class Served:
    """A plane in a thread."""

    plane: Plane
    url: str


@contextmanager
def served(plane: Plane) -> Iterator[Served]:
    """Serve a plane until the block ends."""
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    ports: list[int] = []
    failed: list[BaseException] = []
    up = threading.Event()

    async def main() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        await plane.serve(0, lambda port: (ports.append(port), up.set())[1], stop)  # type: ignore[func-returns-value] # both are done

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 # shown to the test
            failed.append(error)
            up.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert up.wait(20)
    assert not failed, failed
    try:
        yield Served(plane, f"http://127.0.0.1:{ports[0]}")
    finally:
        loop, stop = loops[0]
        if loop.is_running():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
    assert not failed, failed


def main() -> None:
    where, folder, port, gateway, lines = sys.argv[1:6]
    live = LiveSettings.model_validate({"limits": {"lines": int(lines)}, "jobs": {"in_hand": 64}})
    plane = Plane(open_store(where, Path(folder)), gateway, live)
    asyncio.run(plane.serve(int(port), lambda bound: print(bound, flush=True), asyncio.Event()))  # noqa: T201 # read by the parent


if __name__ == "__main__":
    main()
