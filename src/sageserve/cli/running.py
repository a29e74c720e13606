"""The fleet that runs in a state folder, for every command that speaks to it: where it is, and how it is.

Starts and stops nothing. Read next: `up.py`.
"""

import fcntl
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec
import typer
from msgspec import Struct

from sageserve.base.errors import SageServeError, in_words

if TYPE_CHECKING:
    from sageserve.live.control.status import Status
    from sageserve.live.supervisor.messages import Process

Answer = TypeVar("Answer")

FLEET: Final = "fleet.json"
LOCK: Final = "supervisor.lock"  # held by the supervisor while it lives
State = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="of this fleet", show_default="~/.local/state/sageserve")
]


class Running(Struct, frozen=True):
    """What the state folder says of a fleet."""

    pid: int  # of the supervisor
    url: str  # of the gateway; empty: the fleet is another's, and only watched
    control_url: str
    scenario: str
    secret: str  # of its processes; the file is its user's alone
    door: str = ""  # of the gateway, for commands of this machine, where the public one is TLS
    source: str = ""  # the scenario as it was named: `reload` reads it again
    overrides: tuple[str, ...] = ()  # laid over it
    applied: str = ""  # mark of the settings that the processes have


def state_folder(given: Path | None) -> Path:
    """The folder of a fleet: as given, or the user's own."""
    if given is not None:
        return given.expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "sageserve"


def watched_folder(given: Path | None) -> Path:
    """The state folder of what is watched: as given, or the user's own, beside that of a fleet of ours."""
    if given is not None:
        return given.expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "sageserve-watch"


def recorded_folder(given: Path | None) -> Path:
    """The state folder whose minutes are asked for: as given, or of what is watched, or else of a fleet of ours."""
    watched = watched_folder(given)
    return watched if given is not None or watched.is_dir() else state_folder(None)


def running(state: Path | None) -> Running:
    """What runs in a state folder.

    Raises:
        SageServeError: nothing does.
    """
    folder = state_folder(state)
    try:
        found = msgspec.json.decode((folder / FLEET).read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        if (folder / "minutes").is_dir() and not (folder / "logs").exists():  # what a process that watches leaves
            raise SageServeError(f"nobody watches in {folder} any more", hint=_seen_in(folder)) from None
        raise SageServeError(f"no fleet runs in {folder}", hint=f"start one: sageserve up --detach{named(folder)}") from None
    if not lives(folder):
        if not found.url:
            raise SageServeError(f"the process that watched in {folder} has died", hint=_seen_in(folder))
        again = shlex.join(["sageserve", "up", found.source or found.scenario, "--detach", *_laid_over(found)])
        raise SageServeError(f"the fleet in {folder} is not running any more", hint=f"start it again: {again}{named(folder)}")
    return found


def named(folder: Path) -> str:
    """The option that names a fleet's state folder, for a command to be typed; none where it is the user's own."""
    return "" if folder == state_folder(None) else f" --state {shlex.quote(str(folder))}"


def _seen_in(folder: Path) -> str:
    place = shlex.quote(str(folder))
    return f"sum up what was seen: sageserve shadow-report {place}; to go on: sageserve watch SCENARIO --state {place}"


def _laid_over(found: Running) -> list[str]:
    return [word for one in found.overrides for word in ("--set", one)]


def running_url(state: Path | None) -> str:
    """Where the gateway of the running fleet is.

    Raises:
        SageServeError: nothing runs.
    """
    found = running(state)
    refuse_watched(found)
    return found.door or found.url


def refuse_watched(found: Running) -> None:
    """Only a fleet of ours has a gateway and takes orders.

    Raises:
        SageServeError: it is one that others run, and is watched.
    """
    if not found.url:
        raise SageServeError(
            f"{found.scenario} is only watched here: it has no gateway of ours, and takes no orders",
            hint="name the state folder of a fleet that `sageserve up` started, with --state",
        )


class _Problem(Struct):
    message: str
    hint: str = ""


class _Refused(Struct):
    error: _Problem


def ask_control(  # noqa: PLR0913 # an HTTP request and what is made of its answer
    found: Running,
    path: str,
    read: Callable[[bytes], Answer],
    *,
    hint: str,
    method: str = "GET",
    body: bytes = b"",
    patience_s: float = 5.0,
) -> Answer:
    """What the control process of a running fleet answers, asked with the fleet's secret.

    Args:
        found: the fleet.
        path: of the request.
        read: the body of the answer; may raise what msgspec does.
        hint: what to do when nobody answers.
        method: of HTTP.
        body: of the request.
        patience_s: seconds.

    Raises:
        SageServeError: it refuses, or does not answer.
    """
    import httpx

    try:
        ours = {"x-sageserve-secret": found.secret}
        url = f"{found.control_url}{path}"
        answer = httpx.request(method, url, headers=ours, content=body, timeout=patience_s, trust_env=False)
        if answer.status_code == httpx.codes.BAD_REQUEST:
            problem = msgspec.json.decode(answer.content, type=_Refused).error
            raise SageServeError(problem.message, hint=problem.hint)
        answer.raise_for_status()
        return read(answer.content)
    except (httpx.HTTPError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SageServeError(
            f"the control process at {found.control_url} does not answer ({in_words(error)})", hint=hint
        ) from None


def ask_status(found: Running) -> "Status":
    """The state of a running fleet.

    Raises:
        SageServeError: its control process does not answer.
    """
    from sageserve.live.control.status import Status

    hint = "it is started again when it dies: try once more; requests are served meanwhile"
    return ask_control(found, "/admin/status", msgspec.json.Decoder(Status).decode, hint=hint)


def what_keeps_dying(folder: Path, pid: int) -> str:
    """Which service of a fleet died more than once and waits for its next start, and why.

    Empty: none; or what runs there is not, or not yet, the fleet of the supervisor with that process number.
    """
    import asyncio

    from sageserve.live.supervisor.client import SupervisorClient
    from sageserve.live.supervisor.messages import Life, Process
    from sageserve.live.supervisor.service import SOCKET

    async def look() -> tuple[Process, ...]:
        supervisor = await SupervisorClient(folder / SOCKET, lambda _: None).connect()
        try:
            return await supervisor.look()
        finally:
            await supervisor.close()

    try:
        there = asyncio.run(look()) if running(folder).pid == pid else ()
    except SageServeError:
        return ""
    found = next((one for one in there if one.life is Life.RESTING and one.runs > 1), None)
    return "" if found is None else how_it_died(folder, found)


def how_it_died(folder: Path, process: "Process") -> str:
    """Which service of a fleet died, how often, and why."""
    from sageserve.live.supervisor.logs import Logs

    killed = process.code is not None and process.code < 0  # and left no words
    times = f"{process.runs} times; it" if process.runs > 1 else "once: it"
    why = f"{process.name} has died {times} {'was ' if killed else ''}{process.how_it_ended}"
    return why if killed else f"{why}: {last_words(Logs(folder / 'logs').tail(process.name))}"


def say_deaths(folder: Path) -> "Callable[[Process], None]":
    """Say on stderr when a service died that is begun again: the first time, and each time that they are twice as many."""
    from sageserve.live.supervisor.messages import Life

    def say(process: "Process") -> None:
        if process.life is Life.RESTING and process.runs.bit_count() == 1:
            print(f"{how_it_died(folder, process)}. It is begun again.", file=sys.stderr, flush=True)

    return say


def last_words(log: str) -> str:
    """What a process of ours said was wrong; the last line, where it did not say."""
    lines = [line for line in log.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("error: ", "sageserve failed: "))] or lines
    return said[-1].removeprefix("error: ") if said else "it said nothing"


def lives(folder: Path) -> bool:
    """Whether a supervisor holds the folder's lock; a process number may be another process's by now, the lock may not."""
    lock = folder / LOCK
    if not lock.exists():
        return False
    with lock.open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
