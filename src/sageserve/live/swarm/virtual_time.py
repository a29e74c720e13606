"""An event loop whose time is a number: programs of `asyncio` run in it as fast as they can, the same way every time.

Time jumps to the next thing that is due; what is due at one instant goes in the order in which it was asked for. What runs
belongs to a process, which may be killed (nothing of it ever runs again, not even a `finally`) or frozen (all of it is late).
No sockets, no threads: what is handed to an executor is done at once, a moment of virtual time later, in order.
Read next: `world.py`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, Final, TypeVar, TypeVarTuple

from sageserve.base.units import NEVER, SECOND, Micros
from sageserve.live.waiting import within

_WIND_UP: Final = 20  # seconds in which every task has ended
_CALL: Final[Micros] = 500  # what a call in another thread takes
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_Faulty = dict[str, Any]


class VirtualProcess:
    """What is killed and frozen as a whole.

    Args:
        name: for stories.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False
        self.frozen = False
        self.thawed_at: Micros = -NEVER  # when it went on after it had been frozen
        self.late: deque[asyncio.Handle] = deque()  # what was due while it was frozen
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)


_PROCESS: ContextVar[VirtualProcess | None] = ContextVar("process", default=None)


class VirtualLoop(asyncio.AbstractEventLoop):
    """The loop; `run_until` plays it."""

    def __init__(self) -> None:
        self.now: Micros = 0
        self.faults: list[str] = []  # of callbacks and tasks that nobody waited for
        self._due: list[tuple[Micros, int, asyncio.Handle, VirtualProcess | None]] = []
        self._soon: deque[tuple[asyncio.Handle, VirtualProcess | None]] = deque()
        self._made = 0
        self._closed = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._processes: list[VirtualProcess] = []

    # --- what programs ask of a loop ---

    def time(self) -> float:
        """Seconds."""
        return self.now / SECOND

    def call_soon(self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None) -> asyncio.Handle:
        """Call it at this instant, after what was asked for before."""
        context = copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append((handle, context.get(_PROCESS)))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it so many seconds from now."""
        return self._call_in(round(delay * SECOND), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call it at a time of this loop."""
        return self._call_in(round(when * SECOND) - self.now, callback, *args, context=context)

    def _call_in(
        self, delay: Micros, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        at = self.now + max(0, delay)
        handle = asyncio.TimerHandle(at / SECOND, callback, args, self, context)
        self._made += 1
        heappush(self._due, (at, self._made, handle, context.get(_PROCESS)))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays where it is, and does nothing when its time comes."""

    def create_future(self) -> "asyncio.Future[Any]":
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: "Generator[Any, None, _T] | Coroutine[Any, Any, _T]",
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> "asyncio.Task[_T]":
        """A task of this loop."""
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: object, func: Callable[[*_Ts], _T], *args: *_Ts) -> "asyncio.Future[_T]":
        """Do it a moment later: calls are done in the order in which they were made."""
        future: asyncio.Future[_T] = self.create_future()
        self._call_in(_CALL, self._do, future, func, args)
        return future

    @staticmethod
    def _do(future: "asyncio.Future[_T]", func: Callable[[*_Ts], _T], args: tuple[*_Ts]) -> None:
        """As a thread would: it is done even where nobody waits any more."""
        try:
            answer = func(*args)
        except Exception as error:  # noqa: BLE001 # whoever waits is told
            if not future.cancelled():
                future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(answer)

    def get_debug(self) -> bool:
        """Never: it would look at clocks."""
        return False

    def is_running(self) -> bool:
        """Whether something is played."""
        return asyncio._get_running_loop() is self  # noqa: SLF001 # exported for those who write loops

    def is_closed(self) -> bool:
        """Whether it is over."""
        return self._closed

    def close(self) -> None:
        """Play no more."""
        self._closed = True
        self._due.clear()
        self._soon.clear()

    def call_exception_handler(self, context: _Faulty) -> None:
        """Keep what went wrong where nobody waited for it."""
        self.faults.append(f"{context.get('message')}: {context.get('exception')!r}")

    # --- what the world does ---

    def tell(self, process: VirtualProcess | None, after: Micros, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
        """Call something of a process, or of nobody's, so many microseconds from now."""
        self._call_in(after, callback, *args, context=_NOBODY if process is None else process.context)

    def start(self, process: VirtualProcess, program: "Coroutine[Any, Any, _T]") -> "asyncio.Task[_T]":
        """Begin to run a program in a process."""
        self._processes.append(process)
        return self.create_task(program, context=process.context)

    def thaw(self, process: VirtualProcess) -> None:
        """A frozen process goes on with what was due meanwhile."""
        process.frozen, process.thawed_at = False, self.now
        while process.late:
            self._soon.append((process.late.popleft(), process))

    def run_until(self, end: Micros) -> None:
        """Play everything that is due before or at an instant."""
        before = asyncio._get_running_loop()  # noqa: SLF001 # exported for those who write loops
        asyncio._set_running_loop(self)  # noqa: SLF001 # likewise
        try:
            while self._turn(end):
                pass
        finally:
            asyncio._set_running_loop(before)  # noqa: SLF001 # likewise
        self.now = max(self.now, end)

    def wind_up(self) -> None:
        """Let every task end that still waits, those of killed processes too, so that none is left to the garbage collector."""
        self._due.clear()
        for process in self._processes:
            process.killed = False
            self.thaw(process)
        for _ in range(_WIND_UP):
            left = [task for task in self._tasks if not task.done()]
            for task in left:
                task.cancel()
            if not left:
                break
            self.run_until(self.now + SECOND)
        self.close()

    def _turn(self, end: Micros) -> bool:
        """Play one thing; False when nothing is due any more."""
        if self._soon:
            handle, process = self._soon.popleft()
        elif self._due and self._due[0][0] <= end:
            at, _, handle, process = heappop(self._due)
            self.now = at
        else:
            return False
        if not handle.cancelled():
            self._play(handle, process)
        return True

    @staticmethod
    def _play(handle: asyncio.Handle, process: VirtualProcess | None) -> None:
        if process is None:
            handle._run()  # noqa: SLF001 # what a loop does with a handle
        elif process.frozen and not process.killed:
            process.late.append(handle)
        elif not process.killed:
            handle._run()  # noqa: SLF001 # likewise


_NOBODY: Final = copy_context()
_NOBODY.run(_PROCESS.set, None)


class VirtualClock:
    """A process's clock: microseconds since it began.

    Args:
        loop: whose time it is.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._origin = loop.now

    def now(self) -> Micros:
        """Microseconds since it began."""
        return self._loop.now - self._origin

    async def wait(self, until: Micros, news: asyncio.Event) -> None:
        """Return at `until`, or sooner when there is news."""
        left = (until - self.now()) / SECOND
        if left > 0 and not news.is_set():
            await within(news, left)
