"""Where engines run: the fake actuator, with an engine on paper behind every instance that is ready.

It outlives control processes, as a supervisor does: the next one adopts what runs. What it says is late, and sometimes said
twice; of one instance it comes in order. Read next: `live/actuators/fake.py`, `engines.py`.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from sageserve.base.units import MINUTE, NEVER, SECOND, Micros
from sageserve.core.actions import Donate, Reclaim, Release, Start
from sageserve.core.events import InstanceReady, StartFailed
from sageserve.live.actuators.base import Adopted, EngineAddress, Hear, Heard, Order
from sageserve.live.actuators.fake import FakeActuator, ScriptedOutcome
from sageserve.live.swarm.engines import Attempt, SwarmEngine
from sageserve.live.swarm.ground import StoryGround
from sageserve.live.swarm.laws import Laws
from sageserve.live.swarm.virtual_time import VirtualProcess

_LATE: Final[Micros] = 300_000
_TAKES: Final = (2, 25)  # seconds of a start


class SwarmCloud(FakeActuator):
    """All engines of a fleet.

    Args:
        ground: it stands on.
        laws: told what is taken away, and what starts where.
        reached: whether control hears a gateway's process, and it control.
    """

    def __init__(self, ground: StoryGround, laws: Laws, reached: Callable[[VirtualProcess], bool]) -> None:
        super().__init__(self._happened, self._decide)
        self.engines: dict[int, SwarmEngine] = {}
        self.gpus: dict[int, tuple[int, ...]] = {}  # of instances that run or start
        self.failing = 0.0  # share of starts that come to nothing
        self.doubling = 0.0  # share of news that is told twice
        self.control: CloudActuator | None = None  # who is told
        self._ground = ground
        self._laws = laws
        self._reached = reached
        self._told: dict[int, Micros] = {}  # when the last news of an instance arrives
        self._inside: dict[Attempt, SwarmEngine] = {}
        self._wound: Micros = NEVER  # when it is played next

    # --- what control orders ---

    def perform(self, now: Micros, action: Order) -> None:
        """Begin to do it."""
        laws, i, now = self._laws, action.instance, self._ground.loop.now
        if isinstance(action, Start):
            self.crash_unheard(i)  # of a start that was given up unheard: a row has one engine
            laws.starts(i, action.gpus, self.gpus)
            self.gpus[i] = action.gpus
        elif isinstance(action, Release | Donate) and i in self.engines:
            laws.takes_away(self.engines[i], self._reached)
            self.engines[i].given_at = now
        super().perform(now, action)
        if isinstance(action, Release):
            self._drop(i)
        self._wind()

    def _decide(self, now: Micros, action: Start | Reclaim) -> ScriptedOutcome:
        dice = self._ground.dice
        takes = dice.between(*_TAKES) * SECOND
        return ScriptedOutcome(takes, "no such luck" if dice.chance(self.failing) else "")

    # --- what happens ---

    def crash(self, row: int) -> None:
        """An engine dies: one that is waited for does not come, like any start that comes to nothing."""
        now = self._ground.loop.now
        self._drop(row)
        if row in self._up:
            self.lose(now, row, "killed")
        else:
            self._spell[row] += 1
            self._later(now, StartFailed(row, "killed"))
        self._wind()

    def _drop(self, row: int) -> None:
        self.gpus.pop(row, None)
        if (engine := self.engines.pop(row, None)) is not None:
            engine.end()

    def _wind(self) -> None:
        """Play what is due when it is due."""
        if (due := self.next_event) < self._wound:
            self._wound = due
            self._ground.loop.tell(None, due - self._ground.loop.now, self._unwind)

    def _unwind(self) -> None:
        self._wound = NEVER
        self.play(self._ground.loop.now)
        self._wind()

    def _happened(self, event: Heard) -> None:
        """Something came of an order, or an engine is gone: whoever controls is told, a little later."""
        row = event.instance
        if isinstance(event, InstanceReady):
            self.engines.setdefault(row, SwarmEngine(self._ground.loop, row)).given_at = NEVER
        elif isinstance(event, StartFailed):
            self._drop(row)
        self.tell(event)

    def tell(self, event: Heard) -> None:
        """Whoever controls hears of it, a little later."""
        if self.control is None:
            return
        loop, dice, row = self._ground.loop, self._ground.dice, event.instance
        at = max(self._told.get(row, 0), loop.now + int(dice.share() * _LATE))
        self._told[row] = at
        for _ in range(2 if dice.chance(self.doubling) else 1):
            loop.tell(self.control.process, at - loop.now, self.control.hear, event)

    def settled(self, row: int) -> bool:
        """Whether nothing of an instance is on its way to whoever controls."""
        return self._told.get(row, 0) < self._ground.loop.now

    # --- requests ---

    def send(self, row: int, attempt: Attempt) -> None:
        """A gateway sends a request to where an instance answers, or did."""
        engine = self.engines.get(row)
        if engine is None:
            self._ground.loop.tell(attempt.sender, 1000, attempt.broke, "connection refused")
        else:
            self._inside[attempt] = engine
            engine.take(attempt)

    def leave(self, attempt: Attempt) -> None:
        """A gateway hangs up."""
        engine = self._inside.pop(attempt, None)
        if engine is not None:
            engine.leave(attempt)

    def engine_at(self, place: EngineAddress) -> SwarmEngine | None:
        """Whatever answers there."""
        return self.engines.get(int(place.url.rpartition("/")[2]))

    # --- a new control process ---

    def adopt(self, control: "CloudActuator") -> tuple[Adopted, ...]:
        """What runs, for who controls from now on."""
        self.control = control
        found = []
        for row, gpus in sorted(self.gpus.items()):
            engine = self.engines.get(row)
            serves = engine is not None and not engine.frozen
            if engine is not None:
                engine.given_at = NEVER
                self._spell[row] += 1  # whoever waited for it to come back is gone
                self._up.pop(row, None)
            if serves:
                self._up[row] = False  # that it was given away is not known any more
            elif engine is not None:
                self._ground.loop.tell(None, MINUTE, self._waited_for, engine, control)
            found.append(Adopted(row, gpus, serves, self.place(row)))
        return tuple(found)

    def _waited_for(self, engine: SwarmEngine, control: "CloudActuator") -> None:
        """Whoever adopted a frozen engine has waited for it: it serves, or it is ended."""
        if self.control is not control or self.engines.get(engine.row) is not engine:
            return
        if engine.frozen:
            self.crash_unheard(engine.row)
            self.tell(StartFailed(engine.row, "it did not serve in time"))
        else:
            self._up[engine.row] = False
            self.tell(InstanceReady(engine.row))

    def crash_unheard(self, row: int) -> None:
        """An engine is ended by who started it."""
        self._up.pop(row, None)
        self._spell[row] = self._spell.get(row, 0) + 1
        self._drop(row)

    def end(self, row: int, why: str) -> bool:
        """Kill an engine that hangs."""
        if self._up.get(row) is not False:
            return False
        self._drop(row)
        self.lose(self._ground.loop.now, row, why)
        self._wind()
        return True


class CloudActuator:
    """What one control process has of it.

    Args:
        cloud: where engines run.
        hear: told what came of things.
        process: control's.
    """

    def __init__(self, cloud: SwarmCloud, hear: Hear, process: VirtualProcess) -> None:
        self.hear = hear
        self.process = process
        self._cloud = cloud

    async def connect(self) -> tuple[Adopted, ...]:
        """What runs already."""
        await asyncio.sleep(0.01)
        return self._cloud.adopt(self)

    def perform(self, now: Micros, action: Order) -> None:
        """Begin to do it."""
        self._cloud.perform(now, action)

    def place(self, instance: int) -> EngineAddress:
        """Where an instance answers."""
        return self._cloud.place(instance)

    def hung(self) -> Mapping[str, int]:
        """Nobody looks."""
        return {}

    def end(self, instance: int, why: str) -> bool:
        """Have an instance that hangs killed."""
        return self._cloud.end(instance, why)

    def failing(self, least: int = 1) -> tuple[str, ...]:
        """Nobody counts."""
        return ()

    async def watch(self) -> None:
        """Never."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Let go; engines stay."""
        if self._cloud.control is self:
            self._cloud.control = None
