"""What goes wrong in a story: drawn from its seed, each fault with an instant, and most with an end.

Every kind is a function that does it to the world and says when and how it ends. Read next: `story.py`, which draws them.
"""

from collections.abc import Callable, Mapping
from typing import Final

from sageserve.base.units import DAY, MINUTE, SECOND, Micros
from sageserve.live.swarm.dice import Dice
from sageserve.live.swarm.engines import SwarmEngine
from sageserve.live.swarm.virtual_time import VirtualProcess
from sageserve.live.swarm.world import SwarmWorld

_Ends = Callable[[], None]
_LASTS: Final = (2, 25)  # seconds


def _engine(world: SwarmWorld) -> SwarmEngine | None:
    rows = sorted(world.cloud.engines)
    return world.cloud.engines[world.dice.pick(rows)] if rows else None


def _crash(world: SwarmWorld) -> _Ends | None:
    if (engine := _engine(world)) is not None:
        world.note(f"instance {engine.row} crashes")
        world.cloud.crash(engine.row)
    return None


def _hang(world: SwarmWorld) -> _Ends | None:
    """It stays so: whoever looks after the fleet has to find out."""
    if (engine := _engine(world)) is not None:
        world.note(f"instance {engine.row} hangs: no token, and metrics as before")
        engine.hung = True
    return None


def _freeze_engine(world: SwarmWorld) -> _Ends | None:
    if (engine := _engine(world)) is None:
        return None
    world.note(f"instance {engine.row} answers nothing")
    engine.frozen = True
    engine.frozen_at = world.loop.now
    return engine.wake if world.dice.chance(0.6) else None


def _slow(world: SwarmWorld) -> _Ends | None:
    if (engine := _engine(world)) is None:
        return None
    engine.slow = float(world.dice.between(3, 30))
    world.note(f"instance {engine.row} is {engine.slow:g} times as slow")

    def ends() -> None:
        engine.slow = 1.0

    return ends


def _sick(world: SwarmWorld) -> _Ends | None:
    if (engine := _engine(world)) is None:
        return None
    world.note(f"instance {engine.row} answers 500")
    engine.sick = True

    def ends() -> None:
        engine.sick = False

    return ends


def _blind(world: SwarmWorld) -> _Ends | None:
    if (engine := _engine(world)) is None:
        return None
    world.note(f"instance {engine.row} does not say how it is")
    engine.blind = True

    def ends() -> None:
        engine.blind = False

    return ends


def _stale(world: SwarmWorld) -> _Ends | None:
    if (engine := _engine(world)) is None:
        return None
    world.note(f"instance {engine.row} says the same of itself again and again")
    engine.stale = True

    def ends() -> None:
        engine.stale = False

    return ends


def _lie(world: SwarmWorld) -> _Ends | None:
    if (engine := _engine(world)) is None:
        return None
    engine.lie = world.dice.pick((0.0, 1.0, 0.5))
    world.note(f"instance {engine.row} claims to be {engine.lie:.0%} full")

    def ends() -> None:
        engine.lie = None

    return ends


def _failing_starts(world: SwarmWorld) -> _Ends:
    world.note("starts fail, most of them")
    world.cloud.failing = 0.7

    def ends() -> None:
        world.cloud.failing = 0.0

    return ends


def _kill_control(world: SwarmWorld) -> _Ends | None:
    world.note("control is killed")
    world.kill_control()
    return None


def _stop_control(world: SwarmWorld) -> _Ends | None:
    world.note("control is asked to end")
    world.stop_control()
    return None


def _freeze(world: SwarmWorld, process: VirtualProcess) -> _Ends:
    world.note(f"{process.name} is frozen")
    process.frozen = True
    return lambda: world.loop.thaw(process)


def _freeze_control(world: SwarmWorld) -> _Ends | None:
    return None if world.process is None else _freeze(world, world.process)


def _freeze_gateway(world: SwarmWorld) -> _Ends | None:
    return _freeze(world, world.dice.pick(world.gateways).process) if world.gateways else None


def _kill_gateway(world: SwarmWorld) -> _Ends | None:
    if world.gateways:
        gateway = world.dice.pick(world.gateways)
        world.note(f"{gateway.process.name} is killed")
        world.end_gateway(gateway)
    return None


def _cut(world: SwarmWorld) -> _Ends | None:
    """The link of a gateway, or of all of them, is cut, and cannot be made anew for a while."""
    many = list(world.gateways) if world.dice.chance(0.3) else world.gateways[:1]
    for gateway in many:
        world.note(f"{gateway.process.name} loses control")
        gateway.cut_until = world.loop.now + world.dice.between(*_LASTS) * SECOND
        world.wires.cut(gateway)
    return None


def _hold(world: SwarmWorld) -> _Ends | None:
    """What a gateway and control say to each other is held up: nobody is told, and all of it comes in the end."""
    if world.gateways:
        gateway = world.dice.pick(world.gateways)
        world.note(f"messages of {gateway.process.name} are held up")
        world.wires.hold(gateway.number, world.loop.now + world.dice.between(*_LASTS) * SECOND)
    return None


def _doubles(world: SwarmWorld) -> _Ends:
    world.note("messages come twice, and news of instances, too")
    world.wires.doubling = world.cloud.doubling = 0.3

    def ends() -> None:
        world.wires.doubling = world.cloud.doubling = 0.0

    return ends


def _full(world: SwarmWorld) -> _Ends:
    world.note("the disk is full")
    world.disk_full = world.store.full = True

    def ends() -> None:
        world.disk_full = world.store.full = False

    return ends


def _away(world: SwarmWorld) -> _Ends:
    world.note("the database is away")
    world.store.away = True

    def ends() -> None:
        world.store.away = False

    return ends


def _clock(world: SwarmWorld) -> _Ends | None:
    step: Micros = world.dice.pick((-DAY, -MINUTE, MINUTE, DAY))
    world.note(f"the clock is set by {step // SECOND:+,} s")
    world.step += step
    return None


KINDS: Final[Mapping[str, Callable[[SwarmWorld], _Ends | None]]] = {
    "crash": _crash,
    "hang": _hang,
    "freeze-engine": _freeze_engine,
    "slow": _slow,
    "sick": _sick,
    "blind": _blind,
    "stale": _stale,
    "lie": _lie,
    "failing-starts": _failing_starts,
    "kill-control": _kill_control,
    "stop-control": _stop_control,
    "freeze-control": _freeze_control,
    "kill-gateway": _kill_gateway,
    "freeze-gateway": _freeze_gateway,
    "cut": _cut,
    "hold": _hold,
    "doubles": _doubles,
    "disk-full": _full,
    "database-away": _away,
    "clock": _clock,
}
"""By name. Poisonous requests and lines are drawn with the requests, in `clients.py`."""


def draw(world: SwarmWorld, dice: Dice, first: Micros, last: Micros) -> list[_Ends]:
    """Let things go wrong between two instants; what ends those that still last, in the order in which they began."""
    lasting: list[_Ends] = []
    favourites = [dice.pick(list(KINDS)) for _ in range(3)]  # a story has a theme: faults of a kind that meet tell more

    def begin(kind: str, lasts: Micros) -> None:
        ends = KINDS[kind](world)
        if ends is not None:
            lasting.append(ends)
            world.loop.tell(None, lasts, end, ends)

    def end(ends: _Ends) -> None:
        if ends in lasting:
            lasting.remove(ends)
            ends()

    for _ in range(dice.between(2, 12)):
        kind = dice.pick(favourites) if dice.chance(0.6) else dice.pick(list(KINDS))
        at = dice.between(first, last)
        world.loop.tell(None, at, begin, kind, dice.between(*_LASTS) * SECOND)
    return lasting
