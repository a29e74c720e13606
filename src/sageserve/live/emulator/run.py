"""The emulated engine as a process: port, signals, the slow start, the orderly end.

SIGTERM lets running answers finish and refuses new ones with 503; a second one, or SIGINT, ends at once. The one place that
reads a clock. Read next: `engine.py`; `sageserve engine --help`.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import uvloop

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.base.units import SECOND, Micros
from sageserve.live.address import url_of
from sageserve.live.emulator.connection import ServedConnection
from sageserve.live.emulator.engine import Engine, Served
from sageserve.live.emulator.faults import EngineFaults
from sageserve.live.waiting import within


class SystemClock:
    """The clocks of this process."""

    def monotonic(self) -> Micros:
        """Microseconds that never go back."""
        return time.monotonic_ns() // 1000  # noqa: TID251 # the engine's process is a shell: this is its one clock

    def unix(self) -> int:
        """Seconds since 1970, for `created`."""
        return int(time.time())  # noqa: TID251 # as above; OpenAI's bodies carry the date


@dataclass(frozen=True, slots=True)
class Starting:
    """How the process starts.

    Args:
        host: address to listen on.
        port: 0: any free one.
        delay: before it listens, as loading does.
        fails: it exits after the delay instead.
    """

    host: str = "127.0.0.1"
    port: int = 0
    delay: Micros = 0
    fails: bool = False


def run(served: Served, starting: Starting, faults: EngineFaults, announce: Callable[[str], None]) -> None:
    """Serve until a signal; `announce` is told the URL once the port is open.

    Raises:
        ConfigError: the port cannot be opened.
        SageServeError: the start was told to fail.
    """
    uvloop.run(_serve(served, starting, faults, announce))


async def _serve(served: Served, starting: Starting, faults: EngineFaults, announce: Callable[[str], None]) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    loop.add_signal_handler(signal.SIGINT, _exit_at_once)
    if starting.delay and await within(asked, starting.delay / SECOND):
        return
    if starting.fails:
        raise SageServeError("the model could not be loaded: this start was told to fail", hint="leave out --fail-start")
    engine = Engine(served, SystemClock(), faults, _die)
    connections: set[ServedConnection] = set()
    try:
        server = await loop.create_server(
            lambda: ServedConnection(engine, connections), starting.host, starting.port, backlog=2048
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {starting.host}:{starting.port}: {error.strerror}", hint="--port 0 takes any free port"
        ) from None
    announce(url_of(*server.sockets[0].getsockname()[:2]))
    await asked.wait()
    loop.add_signal_handler(signal.SIGTERM, _exit_at_once)
    engine.draining = True
    await engine.idle.wait()
    server.close()
    for connection in list(connections):
        connection.close()


def _exit_at_once() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die() -> None:
    """As a crash: no farewell on any connection."""
    os.kill(os.getpid(), signal.SIGKILL)
