"""Children: they are started on a leash, stopped with patience, started again when they are services, and always buried.

Each child leads a process group of its own; when it has ended, whatever is left of the group is killed. Decides nothing.
Must be used from the main thread: Linux ties the leash to the thread that forks. Read next: `parent_death.py`, `service.py`.
"""

import asyncio
import logging
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from asyncio.subprocess import Process as Handle
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import structs

from sageserve.base.units import SECOND, Micros
from sageserve.live.supervisor.logs import Logs
from sageserve.live.supervisor.messages import Begin, Life, Process, SupervisorError
from sageserve.live.supervisor.ready import ChildSigns
from sageserve.live.waiting import within

_LEASH: Final = (sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death.py")))
_LOG: Final = logging.getLogger(__name__)
_WARDEN_AGAIN_S: Final = 1.0
_LOOK_S: Final = 1.0  # between two looks whether children were heard of, who speak as often
_SECOND_ASKING: Final = 2 * SECOND  # before the end of its patience a child is asked once more, and ends what it was finishing
_NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class _Child:
    """One name: what was asked, and the process that does it at present."""

    def __init__(self, order: Begin) -> None:
        self.order = order
        self.life = Life.RUNNING
        self.handle: Handle | None = None
        self.pid = 0
        self.code: int | None = None
        self.runs = 0
        self.hangs = 0
        self.signs: ChildSigns | None = None  # of its latest run
        self.pause: Micros = 0  # before the next start
        self.over = asyncio.Event()  # set when it has ended for good
        self.stop = asyncio.Event()  # set when it was told to end
        self.ready = asyncio.Event()  # set when its latest run said so
        self.ended = asyncio.Event()  # set when its latest run ended
        self.log = order.name

    def seen(self) -> Process:
        return Process(self.order.name, self.life, self.pid, self.code, self.runs, self.order.note, self.hangs)


class Children:
    """All processes of a supervisor.

    Args:
        logs: where they write.
        environment: variables that every child gets.
        tell: called with each process that changed.
    """

    def __init__(self, logs: Logs, environment: Mapping[str, str], tell: Callable[[Process], None]) -> None:
        self._logs = logs
        self._environment = dict(environment)
        self._tell = tell
        self._children: dict[str, _Child] = {}
        self._closed: set[int] = set()  # sockets that were given to services
        self._lives: set[asyncio.Task[None]] = set()
        self._warden: Handle | None = None
        self._guard: asyncio.Task[None] | None = None

    def listing(self) -> tuple[Process, ...]:
        """All processes that were not forgotten."""
        return tuple(child.seen() for child in self._children.values())

    def alive(self) -> list[str]:
        """Names of those that have not ended for good."""
        return [name for name, child in self._children.items() if child.life is not Life.ENDED]

    async def begin(self, order: Begin, *, log: str = "") -> None:
        """Start a process; `log`: into the log of that name.

        Raises:
            SupervisorError: a bad name, one that lives, or a program that is not there.
        """
        if not _NAME.match(order.name):
            raise SupervisorError(f"{order.name!r} is no name for a process", hint="use letters, digits, '.', '_' and '-'")
        known = self._children.get(order.name)
        if known is not None and known.life is not Life.ENDED:
            raise SupervisorError(f"{order.name} runs already, as process {known.pid}", hint="end it first")
        path = (self._environment | order.environment).get("PATH")
        if not order.argv or shutil.which(order.argv[0], path=path) is None:
            raise SupervisorError(f"there is no program {' '.join(order.argv[:1])!r}", hint=f"PATH is {path!r}")
        if self._guard is None:
            self._guard = asyncio.create_task(self._keep_warden())
        child = _Child(order)
        child.log = log or order.name
        self._children.pop(order.name, None)
        self._children[order.name] = child
        try:
            await self._spawn(child)
        except BaseException:
            del self._children[order.name]  # else whoever ends all would wait for it
            raise
        life = asyncio.create_task(self._live(child), name=order.name)
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def end(self, name: str, grace: Micros) -> None:
        """Stop a process and wait until it is gone; at once when it is gone already.

        Raises:
            SupervisorError: there is no such process.
        """
        child = self._known(name)
        if child.life is Life.ENDED:
            return
        first = not child.stop.is_set()
        child.stop.set()
        if child.handle is not None and first:
            child.life = Life.STOPPING
            self._tell(child.seen())
            _signal(child.pid, signal.SIGTERM)
        last = min(_SECOND_ASKING, grace // 2)
        if await within(child.over, (grace - last) / SECOND):
            return
        if child.handle is not None:
            _signal(child.pid, signal.SIGTERM)  # what it has not finished by now it breaks off in its own way
        if not await within(child.over, last / SECOND):
            self._kill(child)
            await child.over.wait()

    async def replace(self, name: str, *, within: Micros, grace: Micros) -> None:
        """Run a service anew; returns when the new process is ready.

        Raises:
            SupervisorError: there is no such service, or the new process does not get ready.
        """
        old = self._known(name)
        if old.order.restart is None or old.life is Life.ENDED or old.stop.is_set():
            raise SupervisorError(f"{name} is no service that runs", hint="`sageserve status` says what runs")
        if not old.order.descriptors:
            await self.end(name, grace)
            await self.begin(old.order)
            await self._get_ready(self._children[name], within)
            return
        await self.begin(structs.replace(old.order, name=f"{name}.next"), log=name)
        new = self._children[f"{name}.next"]
        try:
            await self._get_ready(new, within)
        except SupervisorError:
            await self.end(f"{name}.next", 0)
            self.forget(f"{name}.next")
            raise
        self._rename(old, f"{name}.before-{old.pid}")
        self._rename(new, name)
        leaving = asyncio.create_task(self._take_leave(old, grace))
        self._lives.add(leaving)
        leaving.add_done_callback(self._lives.discard)

    async def _get_ready(self, child: _Child, within: Micros) -> None:
        """Wait until it is ready.

        Raises:
            SupervisorError: it ended before it was, or takes too long.
        """
        waits = [asyncio.create_task(event.wait()) for event in (child.ready, child.ended, child.over)]
        try:
            await asyncio.wait(waits, timeout=within / SECOND, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if child.order.signs and not child.ready.is_set():
            how = "ended" if child.ended.is_set() or child.over.is_set() else f"was not ready within {within / SECOND:g} s"
            raise SupervisorError(f"the new process of {child.log} {how}: {self._logs.last_words(child.log)}")

    def _rename(self, child: _Child, name: str) -> None:
        del self._children[child.order.name]
        child.order = structs.replace(child.order, name=name)
        self._children[name] = child

    async def _take_leave(self, child: _Child, grace: Micros) -> None:
        """End a process that another one has taken the place of, and forget it."""
        await self.end(child.order.name, grace)
        self._children.pop(child.order.name, None)

    def forget(self, name: str) -> None:
        """Drop a process that has ended.

        Raises:
            SupervisorError: it lives, or is not known.
        """
        if self._known(name).life is not Life.ENDED:
            raise SupervisorError(f"{name} has not ended", hint="end it first")
        del self._children[name]

    async def end_all(self, grace: Micros) -> None:
        """Stop everything, those in front first and what is behind them at once, and return when nothing is left."""
        front = [name for name in self.alive() if self._children[name].order.descriptors]
        await asyncio.gather(*(self.end(name, grace) for name in front), return_exceptions=True)
        await asyncio.gather(*(self.end(name, grace) for name in self.alive()), return_exceptions=True)
        await asyncio.gather(*self._lives, return_exceptions=True)  # a fault in one life keeps nobody from burying the others
        if self._guard is not None:
            self._guard.cancel()
        if self._warden is not None and self._warden.stdin is not None:
            self._warden.stdin.close()
            await self._warden.wait()

    def close_sockets(self, name: str | None = None) -> None:
        """Let go of the sockets of a service (None: of all) that is to end: else whoever connects would wait to be taken in."""
        for child in [self._children[known] for known in self.alive() if name in {None, known}]:
            for descriptor in child.order.descriptors:
                if descriptor not in self._closed:
                    self._closed.add(descriptor)
                    os.close(descriptor)

    def kill_all(self) -> None:
        """Give nobody any more time."""
        for name in self.alive():
            child = self._children[name]
            child.stop.set()
            self._kill(child)

    def turn_logs_over(self) -> None:
        """Keep the logs within their size."""
        self._logs.turn_over(sorted({self._children[name].log for name in self.alive()}))

    # --- a life ---

    async def _spawn(self, child: _Child) -> None:
        order = child.order
        child.ready.clear()
        child.ended.clear()
        log = self._logs.open(child.log)
        signs = child.signs = ChildSigns(order.signs, child.ready.set)
        try:
            child.handle = await asyncio.create_subprocess_exec(
                *_LEASH, "run", str(os.getpid()), *order.argv,
                stdin=DEVNULL, stdout=log, stderr=log,
                env=self._environment | order.environment | signs.environment,
                start_new_session=True,
                pass_fds=(*order.descriptors, *signs.passed),
            )  # fmt: skip
        finally:
            os.close(log)
            signs.begun()
        child.pid, child.code, child.life = child.handle.pid, None, Life.RUNNING
        child.runs += 1
        self._warn(f"+{child.pid}")
        self._tell(child.seen())
        if child.stop.is_set():  # it was told to end while it was being started
            _signal(child.pid, signal.SIGTERM)

    async def _live(self, child: _Child) -> None:
        """From one start to the end for good, which comes whatever happens: someone may wait for it."""
        try:
            await self._run_out(child)
            while child.order.restart is not None and await self._rest(child):
                try:
                    await self._spawn(child)
                except OSError as error:  # no room for its log, no memory for a process: there may be some in a while
                    _LOG.error("%s cannot be started again yet: %s", child.order.name, error)
                    child.pause = min(child.order.restart.most, 2 * child.pause)
                else:
                    await self._run_out(child)
        finally:
            self._kill(child)
            child.life = Life.ENDED
            child.over.set()
            self._tell(child.seen())

    async def _rest(self, child: _Child) -> bool:
        """Let its pause pass; whether it is to be started again."""
        if not child.stop.is_set():
            child.life = Life.RESTING
            self._tell(child.seen())
            await within(child.stop, child.pause / SECOND)
        return not child.stop.is_set()

    async def _run_out(self, child: _Child) -> None:
        """Wait for the end of the present run, and clear up after it."""
        assert child.handle is not None
        began = asyncio.get_running_loop().time()
        listening = asyncio.create_task(self._listen(child))
        try:
            child.code = await child.handle.wait()
        finally:
            listening.cancel()
        child.handle = None
        child.ended.set()
        _kill_group(child.pid)  # what it started and did not stop
        self._warn(f"-{child.pid}")
        restart = child.order.restart
        if restart is not None:
            calm = (asyncio.get_running_loop().time() - began) * SECOND >= restart.calm
            child.pause = restart.first if calm or not child.pause else min(restart.most, 2 * child.pause)

    async def _listen(self, child: _Child) -> None:
        """Kill those of its processes that hang; they are started again like any that died.

        Time is told in looks: when this process stands still, as all others may, too, nobody was silent.
        """
        silence, signs = child.order.silence, child.signs
        while silence and signs is not None:
            await asyncio.sleep(_LOOK_S)
            for pid in signs.silent(int(silence / (_LOOK_S * SECOND))):
                if child.stop.is_set() or not _is_of(pid, child.pid):
                    continue  # it ends, or has ended
                child.hangs += 1
                seconds = silence / SECOND
                _LOG.error("%s hangs: nothing was heard of process %d for %g s; it is killed", child.order.name, pid, seconds)
                _signal(pid, signal.SIGKILL)
                self._tell(child.seen())

    async def _keep_warden(self) -> None:
        """Have a warden, who outlives this process, at all times; a new one learns of every group there is."""
        while True:
            try:
                warden = await asyncio.create_subprocess_exec(*_LEASH, "watch", stdin=PIPE, start_new_session=True)
            except OSError as error:
                _LOG.error("nobody watches over the process groups: %s", error)
                await asyncio.sleep(_WARDEN_AGAIN_S)
                continue
            self._warden = warden
            for child in self._children.values():
                if child.handle is not None:
                    self._warn(f"+{child.pid}")
            await warden.wait()

    def _warn(self, line: str) -> None:
        """Tell the warden of a group that began or ended; when it is dying, the next one is told everything."""
        if self._warden is not None and self._warden.stdin is not None and not self._warden.stdin.is_closing():
            self._warden.stdin.write(f"{line}\n".encode())

    @staticmethod
    def _kill(child: _Child) -> None:
        if child.handle is not None:  # else the number may be another's by now
            _kill_group(child.pid)

    def _known(self, name: str) -> _Child:
        child = self._children.get(name)
        if child is None:
            raise SupervisorError(f"there is no process {name!r}", hint=f"there is {', '.join(self._children) or 'none'}")
        return child


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_of(pid: int, group: int) -> bool:
    """Whether there is such a process in a group."""
    with suppress(ProcessLookupError):
        return os.getpgid(pid) == group
    return False


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone; macOS says the latter of a group of zombies
        os.killpg(group, signal.SIGKILL)
