"""Engines as processes of this machine: the supervisor runs them, this says which, and tells when they serve or die.

An instance is a process named `engine-<row>-<run>`. The supervisor keeps a note beside it, so that a control process that comes
back finds its engines again (`adopt`). Calls return at once; the work is done in tasks of the running event loop, and whatever
goes wrong in one ends in StartFailed: the process is stopped, and whoever gets its GPUs waits until it has gone.
Read next: `base.py`, `commands.py`, `live/supervisor/`.
"""

import asyncio
import logging
import socket
from functools import partial
from pathlib import Path
from typing import Final, assert_never
from zlib import crc32

import httpx
import msgspec
from msgspec import structs

from sageserve.base.errors import LawBroken
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.actions import Donate, Reclaim, Release, Source, Start
from sageserve.core.events import InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.core.work import AnyEvent
from sageserve.live.actuators.base import Adopted, EngineAddress, Hear, Heard, Order, Post, ending
from sageserve.live.actuators.commands import Given, fill, profile_file, served_model
from sageserve.live.actuators.engine_process import STOP_WITHIN, EngineNote, EnginePhase, EngineProcess
from sageserve.live.actuators.revisions import EngineRevisions
from sageserve.live.actuators.start_failures import StartFailures
from sageserve.live.address import family_of, url_of
from sageserve.live.supervisor.client import SupervisorClient
from sageserve.live.supervisor.logs import Logs
from sageserve.live.supervisor.messages import Begin, Life, Process, SupervisorError
from sageserve.live.supervisor.service import SOCKET
from sageserve.live.waiting import within

_ASK_S: Final = 2.0  # what an engine has to answer a question after its health
_ASK_AGAIN_S: Final = 6.0  # of one that ran before: who says nothing is closed, and gateways go on as long as it takes
_SOON_S: Final = 0.05  # until the next question; doubled each time
_SELDOM_S: Final = 1.0
_START_WITHIN: Final = 10 * MINUTE  # of the emulated engine, beside its loading
_BURIED_WITHIN: Final = 10 * SECOND  # after its patience an engine is killed; the system needs a moment to free what it held
_LOGS_KEPT: Final = 4  # of the runs of one row
_FIRST_PORT: Final = 20_000
_PORTS: Final = 12_000
_LOG: Final = logging.getLogger(__name__)


class LocalActuator:
    """Engines of this machine.

    Args:
        hear: told what came of things, in the event loop.
        posts: what each row stands for.
        folder: of state; profiles are written into it.
        host: address engines listen on.
        speed: of the emulated engine.
        revisions: how engines of those that are rolled out are run.
    """

    def __init__(
        self,
        hear: Hear,
        posts: dict[int, Post],
        folder: Path,
        *,
        host: str = "127.0.0.1",
        speed: float = 1.0,
        revisions: EngineRevisions | None = None,
    ) -> None:
        self._hear = hear
        self._posts = posts
        self._revisions = revisions or EngineRevisions()
        self._first: dict[str, int] = {}  # row of each pool
        for row, post in sorted(posts.items()):
            self._first.setdefault(post.pool, row)
        self._state = folder
        self._folder = folder / "profiles"
        self._host = host
        self._speed = speed
        self._engines: dict[int, EngineProcess] = {}  # the latest of each row
        self._all: dict[str, EngineProcess] = {}  # by name, those that are leaving included
        self._places: dict[int, EngineAddress] = {}
        self._failures = StartFailures()
        self._logs = Logs(folder / "logs")
        self._hangs: dict[str, int] = {}
        self._runs = 0
        self._port = _FIRST_PORT + crc32(str(folder.resolve()).encode()) % _PORTS  # each fleet of a machine from elsewhere
        self._tasks: set[asyncio.Task[None]] = set()
        self._supervisor: SupervisorClient | None = None
        self._http: httpx.AsyncClient | None = None

    async def connect(self) -> tuple[Adopted, ...]:
        """Open the connection to the folder's supervisor, and take over the engines that run already.

        Raises:
            SupervisorError: the supervisor does not answer.
        """
        self._supervisor = await SupervisorClient(self._state / SOCKET, self._changed).connect()
        self._http = httpx.AsyncClient(timeout=_ASK_S, trust_env=False)
        return await self._adopt()

    async def watch(self) -> None:
        """Wait for the end of the connection: without the supervisor nothing can be started, stopped or heard of.

        Raises:
            SupervisorError: it has ended.
        """
        await self._told.lost.wait()
        raise SupervisorError("the connection to the supervisor is lost", hint="`sageserve status` says what still runs")

    async def close(self) -> None:
        """Let go of the supervisor; the engines stay."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._supervisor is not None:
            await self._supervisor.close()
        if self._http is not None:
            await self._http.aclose()

    def place(self, instance: int) -> EngineAddress:
        """Where an instance answers, or did last."""
        return self._places[instance]

    def perform(self, now: Micros, action: Order) -> None:
        """Begin to do it."""
        i = action.instance
        match action:
            case Start():
                self._do(self._bring_up(self._new(action), action))
            case Reclaim():
                self._reclaim(i, action)
            case Donate():
                self._donate(i)
            case Release():
                if (engine := self._engines.get(i)) is not None:
                    self._leave(engine)
            case _:
                assert_never(action)

    def failing(self, least: int = 1) -> tuple[str, ...]:
        """A sentence for each pool of which so many starts have failed in a row."""
        return self._failures.told(least, self._revisions.is_over)

    def hung(self) -> dict[str, int]:
        """How often processes hung, by name; only of those that did."""
        return dict(self._hangs)

    def end(self, instance: int, why: str) -> bool:
        """Kill one that hangs: it takes no other signal, and its loss is heard like any other."""
        engine = self._engines.get(instance)
        if hangs := engine is not None and engine.phase is EnginePhase.SERVING:
            engine.why = why
            self._do(self._told.end(engine.name, 0))
        return hangs

    # --- starting ---

    def _new(self, order: Start) -> EngineProcess:
        row = order.instance
        if (other := self._engines.get(row)) is not None:  # of a start that was given up unheard: a row has one engine
            self._leave(other)
        self._runs += 1
        post, url = self._revisions.post(self._posts[row], order.revision), url_of(self._host, self._free_port())
        note = EngineNote(row, self._runs, url, order.gpus, post.pool, row - self._first[post.pool], order.revision)
        return self._known(EngineProcess(post, note, f"engine-{row}-{note.run}"))

    def _known(self, engine: EngineProcess) -> EngineProcess:
        command, row = engine.post.command, engine.note.row
        self._engines[row] = engine
        self._places[row] = EngineAddress(engine.note.url, served_model(engine.post), command.metrics if command else "/metrics")
        return engine

    async def _bring_up(self, engine: EngineProcess, action: Start | Reclaim, *, begun: bool = False) -> None:
        """From order to event, whatever happens; `begun`: an earlier control process started it."""
        with ending(action, partial(self._came_to_nothing, engine)):
            if isinstance(action, Reclaim) and engine.post.command is None:
                await within(engine.gone, engine.post.reclaim / self._speed / SECOND)
            delay = 0 if begun or isinstance(action, Reclaim) else await self._start(engine, action.source)
            await self._until_ready(engine, delay)

    def _came_to_nothing(self, engine: EngineProcess, event: AnyEvent) -> None:
        if engine.phase is EnginePhase.STARTING and not engine.gone.is_set():  # else it was released, or its end was told
            assert isinstance(event, StartFailed)
            self._leave(engine)
            self._failures.failed(engine.post.pool, event.why, engine.post.revision)
            self._hear(event)

    async def _start(self, engine: EngineProcess, source: Source) -> Micros:
        """Have its process begun; how long it takes to load."""
        post, note = engine.post, engine.note
        await self._wait_for_gpus(engine)
        await self._rest(engine)
        delay = round(post.loading[source] / self._speed)
        if engine.phase is EnginePhase.STARTING:  # it was not released meanwhile
            port = int(note.url.rpartition(":")[2])
            profile = profile_file(self._folder, post)
            command = fill(post, Given(self._host, port, note.gpus, profile, delay, self._speed / post.engine_time))
            self._all[engine.name] = engine
            text = msgspec.json.encode(note).decode()
            await self._told.begin(Begin(0, engine.name, command.argv, command.environment, text))
        return delay

    async def _rest(self, engine: EngineProcess) -> None:
        """After a start that failed the next one of its pool waits; of its row, old logs go."""
        rests = asyncio.get_running_loop().time() + self._failures.pause(engine.post.pool, engine.post.revision) / SECOND
        while engine.phase is EnginePhase.STARTING and (left := rests - asyncio.get_running_loop().time()) > 0:
            await within(engine.gone, min(left, _SELDOM_S))
        self._logs.drop_but(f"engine-{engine.note.row}-", _LOGS_KEPT)

    async def _wait_for_gpus(self, engine: EngineProcess) -> None:
        """An engine that is leaving holds the memory of its GPUs until it has gone.

        Raises:
            SupervisorError: it does not go.
        """
        for other in list(self._all.values()):
            shared = set(other.note.gpus) & set(engine.note.gpus)
            if other.phase is EnginePhase.STOPPING and other.post.stock == engine.post.stock and shared:
                await within(other.gone, (other.patience + _BURIED_WITHIN) / SECOND)
                if not other.gone.is_set():
                    raise SupervisorError(f"GPUs {sorted(shared)} are still held by {other.name}, which does not end")

    async def _until_ready(self, engine: EngineProcess, delay: Micros) -> None:
        """Ask after its health until it answers or dies.

        Raises:
            SupervisorError: it has taken too long.
        """
        command = engine.post.command
        patience = command.start_within if command else _START_WITHIN + delay
        deadline = asyncio.get_running_loop().time() + patience / SECOND
        pause = _SOON_S
        while engine.phase is EnginePhase.STARTING and not engine.gone.is_set():
            if await self._answers(engine):
                self._serve(engine)
                return
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise SupervisorError(f"it did not serve within {patience / SECOND:g} s")
            await within(engine.gone, min(pause, left))
            pause = min(2 * pause, _SELDOM_S)

    def _serve(self, engine: EngineProcess) -> None:
        if engine.phase is EnginePhase.STARTING and not engine.gone.is_set():  # neither died nor was released meanwhile
            engine.phase = EnginePhase.SERVING
            self._failures.served(engine.post.pool, engine.post.revision)
            self._hear(InstanceReady(engine.note.row))

    def _donate(self, row: int) -> None:
        engine = self._engines.get(row)
        if engine is None:
            self._hear(SpotTaken(row))  # it died just now: the news crossed on their way
        else:
            engine.phase = EnginePhase.DONATED

    def _reclaim(self, row: int, action: Reclaim) -> None:
        engine = self._engines.get(row)
        if engine is None:
            self._hear(StartFailed(row, "it ended before it was reclaimed"))
        else:
            engine.phase = EnginePhase.STARTING
            self._do(self._bring_up(engine, action))

    async def _answers(self, engine: EngineProcess, within_s: float = _ASK_S) -> bool:
        assert self._http is not None
        path = engine.post.command.ready if engine.post.command else "/health"
        try:
            return (await self._http.get(engine.note.url + path, timeout=within_s)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    # --- ending ---

    def _leave(self, engine: EngineProcess) -> None:
        """From now on nothing is told of it, and its process is stopped, if it has one."""
        engine.phase = EnginePhase.STOPPING
        if self._engines.get(engine.note.row) is engine:
            del self._engines[engine.note.row]
        if engine.name in self._all:
            self._do(self._stop(engine))

    async def _stop(self, engine: EngineProcess) -> None:
        """End its process; if the supervisor refuses, again and again: its GPUs are held until it has gone."""
        pause = _SOON_S
        while not engine.gone.is_set():
            try:
                await self._told.end(engine.name, engine.patience)
            except SupervisorError as error:
                if self._told.lost.is_set():
                    raise  # nobody can be asked any more
                if engine.name not in {process.name for process in await self._told.look()}:
                    self._drop(engine)  # it never began
                    return
                _LOG.error("%s does not end: %s", engine.name, error.message)
            await within(engine.gone, pause)
            pause = min(2 * pause, _SELDOM_S)

    def _changed(self, process: Process) -> None:
        """The supervisor says that a process changed."""
        self._count_hangs(process)
        engine = self._all.get(process.name)
        if engine is None or process.life is not Life.ENDED or engine.gone.is_set():
            return
        self._drop(engine)
        self._do(self._told.forget(process.name))
        row, words = engine.note.row, self._logs.last_words(process.name)
        why = f"{engine.why or process.how_it_ended}: {words}"
        heard: Heard
        match engine.phase:
            case EnginePhase.STARTING:
                heard = StartFailed(row, why)
                self._failures.failed(engine.post.pool, why, engine.post.revision)
            case EnginePhase.SERVING:
                heard = InstanceLost(row, why)
            case EnginePhase.DONATED:
                heard = SpotTaken(row)
            case EnginePhase.STOPPING:
                return
            case _:
                assert_never(engine.phase)
        self._hear(heard)

    def _count_hangs(self, process: Process) -> None:
        """Of those that did, as long as they are there: names of engines come and go as long as a fleet runs."""
        if process.hangs and process.life is not Life.ENDED:
            self._hangs[process.name] = process.hangs
        else:
            self._hangs.pop(process.name, None)

    def _drop(self, engine: EngineProcess) -> None:
        engine.gone.set()
        self._all.pop(engine.name, None)
        if engine.phase is not EnginePhase.STOPPING and self._engines.get(engine.note.row) is engine:
            del self._engines[engine.note.row]

    # --- coming back ---

    async def _adopt(self) -> tuple[Adopted, ...]:
        found = []
        for process in await self._told.look():
            self._count_hangs(process)
            if not process.name.startswith("engine-"):
                continue
            if process.life is Life.ENDED:
                self._do(self._told.forget(process.name))
                continue
            note = msgspec.json.decode(process.note, type=EngineNote)
            self._runs = max(self._runs, note.run)
            row = self._first.get(note.pool, -1) + note.place
            if process.life is Life.STOPPING or row not in self._posts or self._posts[row].pool != note.pool:
                self._do(self._told.end(process.name, STOP_WITHIN))
                continue
            post = self._revisions.post(self._posts[row], note.revision)
            engine = self._known(EngineProcess(post, structs.replace(note, row=row), process.name))
            self._all[engine.name] = engine
            found.append(engine)
        return tuple(await asyncio.gather(*map(self._take_over, found)))  # all at once: one that hangs takes its time

    async def _take_over(self, engine: EngineProcess) -> Adopted:
        serves = await self._answers(engine, _ASK_AGAIN_S)
        if serves:
            engine.phase = EnginePhase.SERVING
        else:
            self._do(self._bring_up(engine, Start(engine.note.row, Source.GPUS, engine.note.gpus), begun=True))
        note = engine.note
        return Adopted(note.row, note.gpus, serves, self.place(note.row), note.revision)

    # --- odds and ends ---

    @property
    def _told(self) -> SupervisorClient:
        if self._supervisor is None:
            raise LawBroken("the local actuator was used before it was connected")
        return self._supervisor

    def _free_port(self) -> int:
        """A port nobody listens on, nor will who is loading, below those that the system gives to outgoing connections."""
        ours = {one.url for one in self._places.values()}
        for _ in range(_PORTS):
            self._port = _FIRST_PORT + (self._port + 1 - _FIRST_PORT) % _PORTS
            with socket.socket(family_of(self._host)) as one:
                if url_of(self._host, self._port) not in ours and one.connect_ex((self._host, self._port)) != 0:
                    return self._port
        raise SupervisorError(f"all ports from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} are taken")

    def _do(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("an engine could not be started or stopped: %s", error)
