"""A supervisor in a process of its own, and questions to the system about processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from sageserve.live.supervisor.client import SupervisorClient
from sageserve.live.supervisor.messages import Begin, Process, Restart
from sageserve.live.supervisor.service import SOCKET

_CODE = """
import sys, msgspec
from pathlib import Path
from sageserve.live.supervisor.service import keep
from sageserve.live.supervisor.messages import Begin
services = msgspec.json.decode(sys.argv[2], type=list[Begin])
hang_up = msgspec.json.decode(sys.argv[3], type=Begin | None)
keep(Path(sys.argv[1]), {"PATH": "/usr/bin:/bin"}, services, grace=2_000_000, on_hang_up=hang_up)
"""
SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
)
PARENT = (
    sys.executable,
    "-c",
    """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print(child.pid, flush=True)
time.sleep(600)
""",
)


def order(name: str, argv: tuple[str, ...] = SLEEPER, *, note: str = "", restart: Restart | None = None) -> Begin:
    return Begin(0, name, argv, note=note, restart=restart)


@contextmanager
def supervisor(
    folder: Path, *services: Begin, passed: tuple[int, ...] = (), on_hang_up: Begin | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A supervisor process that has begun to listen; `passed`: sockets that it has."""
    orders = (msgspec.json.encode(services).decode(), msgspec.json.encode(on_hang_up).decode())
    with subprocess.Popen([sys.executable, "-c", _CODE, str(folder), *orders], pass_fds=passed) as process:
        try:
            until(lambda: (folder / SOCKET).exists() or process.poll() is not None)
            assert process.returncode is None
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            finally:
                process.kill()


@asynccontextmanager
async def client(folder: Path, changed: Callable[[Process], None] = lambda _: None) -> AsyncIterator[SupervisorClient]:
    """A connected client."""
    one = await SupervisorClient(folder / SOCKET, changed).connect()
    try:
        yield one
    finally:
        await one.close()


def lives(pid: int) -> bool:
    """Whether there is such a process, and not merely its grave."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def zombies(parent: int) -> list[str]:
    """Dead children that nobody has buried."""
    out = subprocess.run(["/bin/ps", "--ppid", str(parent), "-o", "stat="], capture_output=True, text=True, check=False).stdout
    return [line for line in out.split() if line.startswith("Z")]


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something holds; fails when it does not within some seconds."""
    deadline = time.perf_counter() + seconds
    while not holds():
        assert time.perf_counter() < deadline, "waited in vain"
        time.sleep(0.01)


async def soon(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """As `until`, while the event loop goes on."""
    deadline = time.perf_counter() + seconds
    while not holds():
        assert time.perf_counter() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


def first_line(path: Path) -> str:
    """The first whole line of a log, once it is there."""
    until(lambda: path.exists() and "\n" in path.read_text("utf-8"))
    return path.read_text("utf-8").splitlines()[0]


def kill(pid: int) -> None:
    """As `kill -9`."""
    os.kill(pid, signal.SIGKILL)
