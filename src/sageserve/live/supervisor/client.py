"""The control process's end of the supervisor's socket: orders as awaited calls, changes as callbacks.

When the connection ends, however it does, every open call fails with SupervisorError and `lost` is set; connecting again and
listing shows what still runs. Knows no meaning of a note. Read next: `messages.py`, `live/actuators/local.py`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct, structs

from sageserve.base.units import Micros
from sageserve.live.supervisor.messages import (
    Acknowledged,
    Begin,
    Changed,
    End,
    Forget,
    Listing,
    ListProcesses,
    Process,
    Replace,
    SupervisorError,
    ToSupervisor,
    decode_from_supervisor,
    frame,
    next_body,
)


class SupervisorClient:
    """One connection to a supervisor.

    Args:
        path: of its socket.
        changed: called with each process that changed, in the order of the changes.
    """

    def __init__(self, path: Path, changed: Callable[[Process], None]) -> None:
        self.lost = asyncio.Event()
        self._path = path
        self._changed = changed
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._tickets = 0
        self._open: dict[int, asyncio.Future[Acknowledged | Listing]] = {}

    async def connect(self) -> Self:
        """Open the connection.

        Raises:
            SupervisorError: nobody listens there.
        """
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            raise SupervisorError(
                f"no supervisor answers at {self._path}: {error.strerror}", hint="`sageserve up` starts one"
            ) from None
        self.lost.clear()
        self._reading = asyncio.create_task(self._read(reader))
        return self

    async def close(self) -> None:
        """Close the connection; the processes stay."""
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            await self._reading

    async def begin(self, order: Begin) -> None:
        """Start a process; the order's ticket is replaced.

        Raises:
            SupervisorError: as `Children.begin`, or the supervisor is gone.
        """
        await self._ask(order)

    async def replace(self, name: str, *, within: Micros, grace: Micros) -> None:
        """Run a service anew; returns when the new process is ready.

        Raises:
            SupervisorError: there is none of that name, it does not get ready, or the supervisor is gone.
        """
        await self._ask(Replace(0, name, within, grace))

    async def end(self, name: str, grace: Micros) -> None:
        """Stop a process; returns when it is gone.

        Raises:
            SupervisorError: there is none of that name, or the supervisor is gone.
        """
        await self._ask(End(0, name, grace))

    async def forget(self, name: str) -> None:
        """Drop an ended process from the listing.

        Raises:
            SupervisorError: it lives or is not known, or the supervisor is gone.
        """
        await self._ask(Forget(0, name))

    async def look(self) -> tuple[Process, ...]:
        """All processes.

        Raises:
            SupervisorError: the supervisor is gone.
        """
        answer = await self._ask(ListProcesses(0))
        assert isinstance(answer, Listing)
        return answer.processes

    async def _ask(self, order: ToSupervisor) -> Acknowledged | Listing:
        if self._writer is None or self.lost.is_set() or self._writer.is_closing():
            raise _gone(self._path)
        self._tickets += 1
        future: asyncio.Future[Acknowledged | Listing] = asyncio.get_running_loop().create_future()
        self._open[self._tickets] = future
        self._writer.write(frame(_with_ticket(order, self._tickets)))
        answer = await future
        if isinstance(answer, Acknowledged) and answer.error:
            raise SupervisorError(answer.error, hint=answer.hint)
        return answer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = decode_from_supervisor(await next_body(reader))
                if isinstance(message, Changed):
                    self._changed(message.process)
                elif (future := self._open.pop(message.ticket, None)) is not None and not future.done():
                    future.set_result(message)
        except (EOFError, msgspec.DecodeError, UnicodeDecodeError):
            return  # it closed, or is no supervisor of ours
        finally:
            assert self._writer is not None
            self._writer.close()
            for future in self._open.values():
                if not future.done():
                    future.set_exception(_gone(self._path))
            self._open.clear()
            self.lost.set()


def _gone(path: Path) -> SupervisorError:
    return SupervisorError(f"the supervisor at {path} is gone", hint="`sageserve status` says what still runs")


def _with_ticket(order: ToSupervisor, ticket: int) -> ToSupervisor:
    assert isinstance(order, Struct)
    return structs.replace(order, ticket=ticket)
