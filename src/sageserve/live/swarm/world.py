"""The world of one story: a fleet on paper, the live control process in it, its gateways, clients and batches.

Makes and restarts processes as a supervisor does, and lets clients ask. What goes wrong is said by `faults.py`, what must hold by
`laws.py`. Read next: `story.py`, which plays it.
"""

import asyncio
import re
from collections.abc import Callable
from errno import ENOSPC
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from sageserve.base.config import LiveSettings, Scenario
from sageserve.base.units import DAY, SECOND, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.layout import Layout
from sageserve.core.strategies import layout_of
from sageserve.core.work import Entry
from sageserve.data.growing import append_lines
from sageserve.data.scenarios.load import check
from sageserve.live.actuators.base import EngineAddress, Hear
from sageserve.live.batches.api_context import ApiContext
from sageserve.live.batches.gateway_lines import AnswerBroken, GatewayAnswer, GatewayAway
from sageserve.live.batches.runner import BatchRunner, Door
from sageserve.live.batches.store_thread import SteadyWall
from sageserve.live.control.liveness import Probed
from sageserve.live.control.opened import Missed
from sageserve.live.control.process import Control, Home, Parts
from sageserve.live.swarm.cloud import CloudActuator, SwarmCloud
from sageserve.live.swarm.gateways import Sides, SwarmGateway, SwarmRequest
from sageserve.live.swarm.ground import StoryGround
from sageserve.live.swarm.laws import Laws
from sageserve.live.swarm.store import StoreState, SwarmStore
from sageserve.live.swarm.virtual_time import VirtualClock, VirtualProcess
from sageserve.live.swarm.wires import VirtualLink, Wires
from sageserve.live.wire import ToControl

STRATEGIES: Final = ("reactive", "sageserve.live.swarm.erratic:Erratic")
GATEWAYS: Final = 2
_BORN: Final[Micros] = 20_000 * DAY  # what the wall clock shows at the beginning
_ENDPOINT: Final = re.compile(r"x-sageserve-endpoint: (-?\d+)")
_BACK: Final = (1, 4)  # seconds until a process that ended is started again


class Watched(Control):
    """The control process, whose every line is told to the laws."""

    world: "SwarmWorld"

    def write(self, entry: Entry) -> None:
        """Keep a line of the journal."""
        super().write(entry)
        self.world.laws.decides(entry, self.fleet)

    def add(self, seen: DemandSeen) -> None:
        """Keep a minute's demand."""
        super().add(seen)
        self.world.laws.minute(seen.requests)


class SwarmWorld(StoryGround):
    """Everything of one story.

    Args:
        seed: of everything that is left to chance.
        folder: for the files of control, made if needed.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed, *_settings(STRATEGIES[seed % 2], seed // 2 % 2))
        self.folder = folder
        self.laws = Laws(self)
        self.wires = Wires(self.loop, self.dice)
        self.cloud = SwarmCloud(self, self.laws, self.wires.reaches)
        self.store = StoreState(self.dice)
        self.step: Micros = 0  # of the wall clock
        self.furthest: Micros = 0  # step that a process may have begun with
        self.disk_full = False
        self.control: Watched | None = None
        self.runner: BatchRunner | None = None
        self.process: VirtualProcess | None = None
        self.api: ApiContext | None = None  # of its routes of files and batches
        self.gateways: list[SwarmGateway] = []
        self._stop = asyncio.Event()
        self._made = 0
        self._lost = 0
        for worker in range(GATEWAYS):
            self.start_gateway(worker)
        self.start_control()

    # --- processes ---

    def start_gateway(self, worker: int) -> None:
        """A gateway process begins."""
        self._made += 1
        self.gateways.append(SwarmGateway(self, Sides(self.laws, self.wires, self.cloud), self._made, worker))

    def end_gateway(self, gateway: SwarmGateway) -> None:
        """A gateway process is killed; the supervisor starts another one."""
        gateway.end()
        self.gateways.remove(gateway)
        self.loop.tell(None, self.dice.between(*_BACK) * SECOND, self.start_gateway, gateway.worker)

    def start_control(self) -> None:
        """A control process begins."""
        self._made += 1
        self.process = VirtualProcess(f"control {self._made}")
        self.loop.start(self.process, self._control(self.process))

    def kill_control(self) -> None:
        """Control is killed; the supervisor starts another one."""
        process, control = self.process, self.control
        if process is None:
            return
        process.killed = True
        self._over(control)
        if self.wires.server is not None and self.wires.server.process is process:
            self.wires.control_ends(self.wires.server)

    def stop_control(self) -> None:
        """Control is asked to end, as by `sageserve reload`, and another one is started."""
        if self.process is not None:
            self.loop.tell(self.process, 0, self._stop.set)

    def _over(self, control: Watched | None) -> None:
        self.process = self.control = self.runner = self.api = None
        self.cloud.control = None
        if control is not None:
            self._lost += control._journal.lost  # noqa: SLF001 # what it would have shown in `status`
        self.loop.tell(None, self.dice.between(*_BACK) * SECOND, self.start_control)

    async def _control(self, process: VirtualProcess) -> None:
        self.laws.starts_control()
        clock = VirtualClock(self.loop)
        self._stop = asyncio.Event()
        wall = SteadyWall(self.wall, clock.now)
        store = SwarmStore(self.store)
        door = Door("http://gateway", "key", lambda *_: SwarmLines(self))
        runner = BatchRunner(store, self.scenario, self.layout.names, door, wall)
        home = Home(self.folder, "127.0.0.1", 1, "http://gateway", process.name, "")
        control = Watched(self.scenario, home, self._parts(process, clock, runner))
        control.world = self
        self.control, self.runner = control, runner
        self.api = ApiContext(store, wall, self.scenario.live or LiveSettings(), runner.notify)
        try:
            await control.run(self._stop)
        except Exception as fault:  # noqa: BLE001 # whatever it is, it is control's own
            self.laws.breaks("control-goes-on", f"{process.name} ended: {type(fault).__name__}: {fault}")
        if self.process is process:
            self.note(f"{process.name} ends")
            self._over(control)

    def _parts(self, process: VirtualProcess, clock: VirtualClock, runner: BatchRunner) -> Parts:
        def actuator(hear: Hear, _: Layout) -> CloudActuator:
            return CloudActuator(self.cloud, hear, process)

        def link(heard: Callable[[int, ToControl], None], left: Callable[[int], None], layout: str) -> VirtualLink:  # noqa: ARG001 # as LinkServer
            def noted(gateway: int, message: ToControl, process: int) -> None:
                self.laws.hears(process, message)
                heard(gateway, message)

            return VirtualLink(self.wires, process, noted, left)

        def ready() -> None:
            assert self.control is not None
            self.laws.begins(self.control.fleet)

        return Parts(
            actuator=actuator,
            scrape=self._scrape,
            probe=self._probe,
            jobs=runner,
            queue_routes=[],
            background=(runner.run,),
            clock=clock,
            wall=self.wall,
            words=lambda stamped: ("",) * len(stamped.line.decisions),
            ready=ready,
            link=link,
            pages=lambda *_: _for_ever,
            append=self.append,
        )

    # --- what control has around it ---

    def wall(self) -> Micros:
        """The machine's clock, which somebody may set."""
        self.furthest = max(self.furthest, self.step)
        return _BORN + self.loop.now + self.step

    @property
    def latest(self) -> Micros:
        """The latest time that any process may have thought it was."""
        return _BORN + self.loop.now + self.furthest

    def append(self, path: Path, text: bytes) -> None:
        """Add lines to a file; of a full disk the last part is not written.

        Raises:
            OSError: the disk is full.
        """
        if self.disk_full:
            if self.dice.chance(0.3):
                append_lines(path, text[: len(text) // 2])
            raise OSError(ENOSPC, "No space left on device")
        append_lines(path, text)

    async def _scrape(self, place: EngineAddress) -> tuple[float | None, int, int, float | None] | Missed:
        engine = self.cloud.engine_at(place)
        if engine is None:
            return Missed.SILENT
        seen = await engine.scrape()
        if not isinstance(seen, Missed):
            self.laws.seen_at[engine.row] = self.loop.now
        return seen

    async def _probe(self, place: EngineAddress) -> Probed:
        engine = self.cloud.engine_at(place)
        return Probed.NOTHING if engine is None else await engine.probe()

    @property
    def lost_lines(self) -> int:
        """Journal lines that control processes counted as lost."""
        now = self.control._journal.lost if self.control is not None else 0  # noqa: SLF001 # as above
        return self._lost + now

    # --- who asks ---

    def ask(self, request: SwarmRequest) -> None:
        """A client asks one of the gateways; while none is there it is refused a connection."""
        if not self.gateways:
            request.told(0, False)
            return
        self.dice.pick(self.gateways).connect(request)


class SwarmLines:
    """Control's way to the gateways for jobs of batches; `GatewayLines` on paper.

    Args:
        world: with the gateways.
    """

    def __init__(self, world: SwarmWorld) -> None:
        self._world = world

    async def post(self, path: str, body: bytes, fields: str) -> GatewayAnswer:
        """Send a job and wait for its answer.

        Raises:
            GatewayAway: there is no gateway.
            AnswerBroken: no whole answer came.
        """
        world = self._world
        if not world.gateways:
            raise GatewayAway("connection refused")
        gateway = world.dice.pick(world.gateways)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[int, bool]] = loop.create_future()
        told = msgspec.json.decode(body, type=JobBody)
        process = world.process

        def answered(status: int, from_engine: bool) -> None:
            if process is not None:
                world.loop.tell(process, 0, _settle, future, status, from_engine)

        found = _ENDPOINT.search(fields)
        endpoint = int(found.group(1)) if found else -1
        model = world.layout.names.models.index(told.model)
        batch = len(world.layout.names.tiers) - 1
        request = SwarmRequest(0, model, batch, told.prompt, told.output, engine_part(told.poison), answered, job=True)
        gateway.connect(request, endpoint)
        status, from_engine = await future
        if not status:
            raise AnswerBroken("the connection broke")
        return answer_of(told.poison, status, from_engine=from_engine)

    def close(self) -> None:
        """Nothing is held."""


class JobBody(msgspec.Struct):
    """What a line of a batch asks for."""

    model: str
    prompt: int
    output: int
    poison: str = ""


def engine_part(poison: str) -> str:
    """What an engine does of a poison; others are of its answer."""
    return poison if poison.isdigit() or poison == "break" else ""


def answer_of(poison: str, status: int, *, from_engine: bool) -> GatewayAnswer:
    """The answer to a job, as a gateway passes it on.

    Raises:
        AnswerBroken: it is packed as nobody can read it.
    """
    fields = {"x-sageserve-region": "east"} if from_engine else {}
    if status != 200:
        code = b'{"error": {"code": "overloaded"}}' if status == 503 else b'{"error": {"code": "x"}}'
        return GatewayAnswer(status, fields, code)
    match poison:
        case "deep":
            return GatewayAnswer(200, fields, b"[" * 3000 + b"]" * 3000)
        case "bytes":
            return GatewayAnswer(200, fields, b'{"text": "\xff\xfe"}')
        case "count":
            return GatewayAnswer(200, fields, b'{"usage": {"prompt_tokens": 99999999999999999999}}')
        case "long":
            return GatewayAnswer(200, fields, None)
        case "packed":
            raise AnswerBroken("the answer cannot be unpacked")
        case _:
            return GatewayAnswer(200, fields, b'{"usage": {"prompt_tokens": 5, "completion_tokens": 5}}')


def _settle(future: "asyncio.Future[tuple[int, bool]]", status: int, from_engine: bool) -> None:
    if not future.done():
        future.set_result((status, from_engine))


async def _for_ever() -> None:
    await asyncio.Event().wait()


@cache
def _settings(strategy: str, kind: int) -> tuple[Scenario, Layout]:
    """A fleet small enough for a story: two regions, two models, and one kind of GPU that they share."""
    stock = {"h100": {"gpus": 8 if kind else 12, "price": {"on_demand": "8/h", "reserved": "4/h", "spot": "1/h"}}}
    engine: dict[str, Any] = {
        "gpu": "h100",
        "tp": 1,
        "gpus": 1,
        "iteration_ms": [[1, 10.05], [2001, 110.05]],
        "decode_us_per_sequence": 0.0,
        "kv_ns_per_token": 0.0,
        "attention_ns_per_token2": 0.0,
        "kv_tokens": 100_000,
        "max_sequences": 8,
        "source": "made up: 10 ms and 50 us per token",
    }
    tree = {
        "name": "swarm",
        "gpus": {"h100": {"memory": "80GiB", "start": "20s", "per_vm": 2}},
        "regions": {"east": {"gpus": stock, "rtt": {"west": "70ms"}}, "west": {"gpus": stock}},
        "models": {name: {"context": 8_000, "engines": {"h100": engine}} for name in ("big", "small")},
        "tiers": {
            "iw-f": {"ttft": "1s", "priority": 0},
            "iw-n": {"ttft": "20s", "priority": 1},
            "niw": {"deadline": "40s" if kind else "2min", "priority": 2},
        },
        "fleet": {"start": 2, "minimum": 2 if kind else 1, "maximum": 3},
        "signals": {"scrape": "2s", "half_life": "5s"},
        "batch": {"promote_after": "30s"},
        "spot": {"donate": kind == 0},
        "strategy": {"name": strategy, "check": "5s"},
        "live": {
            "store": "memory",
            "safety": {"blind_after": "10s", "hung_after": "15s", "change_per_hour": 2.0 if kind else 0.5},
            "jobs": {"in_hand": 8, "ahead": 8, "answer_within": "60s"},
        },
    }
    scenario = check(Scenario.model_validate(tree))
    return scenario, layout_of(scenario)
