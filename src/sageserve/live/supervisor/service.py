"""The supervisor's process: a Unix socket for orders, signals for the end, and one supervisor per state folder.

    <folder>/supervisor.sock    orders    <folder>/supervisor.lock    held while it lives    <folder>/logs/    of the children

The first SIGTERM or SIGINT stops all children with patience, the second at once. SIGHUP runs the command it was given for
that, or does nothing: it comes from a closed terminal as well as from an operator. Reads no environment and no scenario: the
command line passes what it needs. Read next: `children.py`, `client.py`.
"""

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, assert_never

import msgspec

from sageserve.base.units import SECOND, Micros
from sageserve.live.supervisor.children import Children
from sageserve.live.supervisor.logs import Logs
from sageserve.live.supervisor.messages import (
    Acknowledged,
    Begin,
    Changed,
    End,
    Forget,
    FromSupervisor,
    Listing,
    ListProcesses,
    Process,
    Replace,
    SupervisorError,
    ToSupervisor,
    decode_to_supervisor,
    frame,
    next_body,
)

_LOG: Final = logging.getLogger(__name__)
SOCKET: Final = "supervisor.sock"
_LOCK: Final = "supervisor.lock"
_LOOKS: Final = 10  # at the lock, so long apart
_LOOK_S: Final = 0.02
_TURN_OVER_S: Final = 10.0  # how often the sizes of logs are looked at
_BEHIND_MAX: Final = 8 << 20  # bytes a client may leave unread before it is dropped


class Supervisor:
    """Children and the clients who order them about.

    Args:
        folder: of state; private.
        environment: variables every child gets.
        told: called with each process that changed, besides the clients.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], told: Callable[[Process], None] | None = None) -> None:
        self.children = Children(Logs(folder / "logs"), environment, self._tell)
        self._folder = folder
        self._told = told
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> asyncio.Server:
        """Take orders; the caller holds the lock."""
        private = self._folder / f"{SOCKET}.new"
        private.unlink(missing_ok=True)  # of a supervisor that was killed: the lock says that it is gone
        server = await asyncio.start_unix_server(self._meet, private)
        private.chmod(0o600)
        private.rename(self._folder / SOCKET)  # who finds it is answered
        return server

    def hang_up(self) -> None:
        """Close all connections."""
        for client in list(self._clients):
            client.close()

    def run_once(self, order: Begin | None) -> None:
        """Start a process that ends by itself, unless it is at work; None: nothing."""
        if order is not None:
            task = asyncio.create_task(self._run_once(order))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_once(self, order: Begin) -> None:
        try:
            await self.children.begin(order)
        except (SupervisorError, OSError) as error:
            _LOG.error("%s was not started: %s", order.name, error)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            while True:
                order = decode_to_supervisor(await next_body(reader))
                task = asyncio.create_task(self._obey(order, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (EOFError, msgspec.DecodeError, UnicodeDecodeError):
            self._clients.discard(writer)
            writer.close()

    async def _obey(self, order: ToSupervisor, writer: asyncio.StreamWriter) -> None:
        try:
            self._send(writer, await self._do(order))
        except SupervisorError as error:
            self._send(writer, Acknowledged(order.ticket, error.message, error.hint))
        except OSError as error:
            self._send(writer, Acknowledged(order.ticket, f"the system refuses: {error.strerror}"))
        except Exception as error:  # noqa: BLE001 # whoever asked waits for an answer
            _LOG.error("an order could not be carried out: %s", error, exc_info=error)
            self._send(writer, Acknowledged(order.ticket, f"{type(error).__name__}: {error}"))

    async def _do(self, order: ToSupervisor) -> FromSupervisor:
        match order:
            case Begin():
                await self.children.begin(order)
            case Replace():
                await self.children.replace(order.name, within=order.within, grace=order.grace)
            case End():
                self.children.close_sockets(order.name)
                await self.children.end(order.name, order.grace)
            case Forget():
                self.children.forget(order.name)
            case ListProcesses():
                return Listing(order.ticket, self.children.listing())
            case _:
                assert_never(order)
        return Acknowledged(order.ticket)

    def _tell(self, process: Process) -> None:
        if self._told is not None:
            self._told(process)
        for client in list(self._clients):
            self._send(client, Changed(process))

    def _send(self, writer: asyncio.StreamWriter, message: FromSupervisor) -> None:
        if writer.is_closing():
            return
        writer.write(frame(message))
        if writer.transport.get_write_buffer_size() > _BEHIND_MAX:  # it has stopped reading
            writer.transport.abort()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases however this process ends.

    Raises:
        SupervisorError: another supervisor holds it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not _locked(lock):
            raise SupervisorError(f"a fleet runs already in {folder}", hint=f"sageserve down --state {folder} stops it")
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    """Whether the lock is ours; who only looks whether somebody holds it has it for a moment."""
    for tries in range(_LOOKS):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_S * (tries < _LOOKS - 1))
        else:
            return True
    return False


def keep(
    folder: Path,
    environment: Mapping[str, str],
    services: Sequence[Begin],
    *,
    grace: Micros = 30 * SECOND,
    on_hang_up: Begin | None = None,
    told: Callable[[Process], None] | None = None,
) -> None:
    """Run a supervisor until a signal, with these services from the start; returns when all children are gone.

    Args:
        folder: of state; is made, private.
        environment: variables every child gets.
        services: started in this order; the sockets they are given are closed here when the end begins.
        grace: what children have to end.
        on_hang_up: what SIGHUP runs, unless it runs already; none: SIGHUP does nothing.
        told: called with each process that changed.

    Raises:
        SupervisorError: another supervisor runs there, or a service has no program.
    """
    with only_one(folder):
        asyncio.run(_keep(Supervisor(folder, environment, told), folder, services, grace, on_hang_up))


async def _keep(supervisor: Supervisor, folder: Path, services: Sequence[Begin], grace: Micros, on_hang_up: Begin | None) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    loop.add_signal_handler(signal.SIGHUP, supervisor.run_once, on_hang_up)
    server = await supervisor.listen()
    turning = asyncio.create_task(_turn_logs_over(supervisor.children))
    try:
        for service in services:
            await supervisor.children.begin(service)
        await asked.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.children.kill_all)
        supervisor.children.close_sockets()
        await supervisor.children.end_all(grace)
        turning.cancel()
        server.close()
        supervisor.hang_up()
        (folder / SOCKET).unlink(missing_ok=True)


async def _turn_logs_over(children: Children) -> None:
    while True:
        await asyncio.sleep(_TURN_OVER_S)
        await asyncio.to_thread(children.turn_logs_over)
