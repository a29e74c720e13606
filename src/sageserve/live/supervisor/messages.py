"""What is asked of the supervisor and what it tells: msgpack with four bytes of length in front, over a Unix socket.

    client -> supervisor    Begin, Replace, End, Forget, Look    each with a ticket that the answer repeats
    supervisor -> client    Done (or why not), Listing     and Changed, to everyone connected, whenever a process changed

Knows no socket. Read next: `children.py` for what the words do, `service.py` and `client.py` for both ends.
"""

import asyncio
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from sageserve.base.errors import SageServeError
from sageserve.base.units import MINUTE, SECOND, Micros

FRAME_MAX: Final = 4 << 20  # bytes: a listing of ten thousand processes is about 3 MB
_LENGTH: Final = 4


class SupervisorError(SageServeError):
    """The supervisor cannot do what it was asked, or cannot be reached."""


class Life(StrEnum):
    """Where a process is."""

    RUNNING = "running"
    STOPPING = "stopping"  # was told to end
    RESTING = "resting"  # died, and is started again soon
    ENDED = "ended"


class Restart(Struct, frozen=True):
    """A service is started again when it dies: after `first`, then twice as long each time up to `most`.

    One that ran for `calm` begins with `first` again.
    """

    first: Micros = SECOND // 5
    most: Micros = 10 * SECOND
    calm: Micros = MINUTE


class Process(Struct, frozen=True):
    """One process as the supervisor knows it."""

    name: str
    life: Life
    pid: int  # of the latest run
    code: int | None  # exit code of the latest run; negative: the signal that killed it
    runs: int  # how often it was started
    note: str  # as given; the supervisor does not read it
    hangs: int = 0  # how often it, or a process of it, was killed because nothing was heard of it

    @property
    def how_it_ended(self) -> str:
        """Its latest run, in words."""
        return f"killed by signal {-self.code}" if self.code is not None and self.code < 0 else f"exited with code {self.code}"


class Begin(Struct, frozen=True, tag="begin"):
    """Start a process under a name that no living one has.

    Args:
        ticket: repeated in the answer.
        name: letters, digits, '.', '_' and '-'; its log is `<name>.log`.
        argv: program and arguments; no shell.
        environment: variables beside the supervisor's basic ones.
        note: anything, for whoever adopts the process later.
        restart: for services; none: it stays dead when it dies.
        descriptors: of the supervisor's open sockets that it is given under the same numbers. Who has some stands in front of the
            others, and is ended before them.
        signs: processes of it that say through the descriptor in SAGESERVE_READY once they are ready; 0: it says nothing of that.
        silence: one that has said that it goes on, and says it no more for so long, is killed; 0: nobody listens.
    """

    ticket: int
    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    note: str = ""
    restart: Restart | None = None
    descriptors: tuple[int, ...] = ()
    signs: int = 0
    silence: Micros = 0


class Replace(Struct, frozen=True, tag="replace"):
    """Run a service anew, as it was begun; answered when the new process is ready.

    With sockets of the supervisor's the new one begins first and the old one is told to end when it is ready: nobody is refused
    meanwhile. One that does not get ready is ended, and the old one goes on. Without sockets the old one ends first.

    Args:
        ticket: repeated in the answer.
        name: of the service.
        within: how long the new one may take to be ready.
        grace: what the old one has to end.
    """

    ticket: int
    name: str
    within: Micros
    grace: Micros


class End(Struct, frozen=True, tag="end"):
    """Send SIGTERM, and SIGKILL to all its process group after `grace`; answered when it is gone."""

    ticket: int
    name: str
    grace: Micros


class Forget(Struct, frozen=True, tag="forget"):
    """Drop a process that has ended from the listing."""

    ticket: int
    name: str


class ListProcesses(Struct, frozen=True, tag="look"):
    """List all processes, ended ones that were not forgotten included."""

    ticket: int


class Acknowledged(Struct, frozen=True, tag="done"):
    """What was asked is done; or not, and why."""

    ticket: int
    error: str = ""
    hint: str = ""


class Listing(Struct, frozen=True, tag="listing"):
    """All processes in the order of their first start."""

    ticket: int
    processes: tuple[Process, ...]


class Changed(Struct, frozen=True, tag="changed"):
    """A process began, was told to end, or ended."""

    process: Process


ToSupervisor: TypeAlias = Begin | Replace | End | Forget | ListProcesses
FromSupervisor: TypeAlias = Acknowledged | Listing | Changed

_encode: Final = msgspec.msgpack.Encoder().encode
decode_to_supervisor: Final = msgspec.msgpack.Decoder(ToSupervisor).decode
decode_from_supervisor: Final = msgspec.msgpack.Decoder(FromSupervisor).decode


def frame(message: ToSupervisor | FromSupervisor) -> bytes:
    """A message as it goes over the socket."""
    body = _encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


async def next_body(reader: asyncio.StreamReader) -> bytes:
    """The body of the next message.

    Raises:
        EOFError: the other side closed, or breaks the framing.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
        if length > FRAME_MAX:
            raise EOFError(f"a frame of {length} bytes")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError("the other side is gone") from error
