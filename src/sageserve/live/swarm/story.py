"""One story: a seed from its beginning to its end, and which laws did not hold.

Faults come and go for a minute; then what lasts is ended, the fleet has time to recover, and what must hold in the end is
looked at. Equal seeds tell equal stories, whatever else is played. Read next: `faults.py`, `clients.py`, `laws.py`.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.units import SECOND
from sageserve.core.fleet import State
from sageserve.data.growing import whole_lines
from sageserve.data.results.journal import Stamped
from sageserve.live.swarm.clients import OWNERS, Clients
from sageserve.live.swarm.dice import Dice
from sageserve.live.swarm.engines import SwarmEngine
from sageserve.live.swarm.eraser import Eraser
from sageserve.live.swarm.faults import draw
from sageserve.live.swarm.world import SwarmWorld

FAULTS: Final = (5 * SECOND, 50 * SECOND)  # when they begin
CALM: Final = 60 * SECOND  # what still lasts is ended
QUIET: Final = 110 * SECOND  # nobody asks any more
END: Final = 145 * SECOND
LAST_START: Final = 30 * SECOND  # the longest start, and a look at the fleet
SETTLED: Final = CALM + 25 * SECOND  # nothing is held up any more
FOUND_OUT: Final = 45 * SECOND  # longer than that nobody may overlook that an instance stands still


class Violation(Struct, frozen=True):
    """A law that did not hold.

    Args:
        seed: of the story.
        law: its name.
        story: what happened, line by line.
    """

    seed: int
    law: str
    story: tuple[str, ...]


class Told(Struct, frozen=True):
    """What a seed told.

    Args:
        seed: of the story.
        story: what happened, line by line.
        broken: laws that did not hold, and what broke each first.
    """

    seed: int
    story: tuple[str, ...]
    broken: dict[str, str]


def tell(seed: int, folder: Path) -> Told:
    """Play a seed.

    Args:
        seed: at least 0.
        folder: for the files of this story; made, and removed at the end.
    """
    folder.mkdir(parents=True)
    try:
        with _unlogged():
            world = SwarmWorld(seed, folder)
            _play(world, seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Told(seed, tuple(world.told), world.laws.broken)


def violations(told: Told) -> list[Violation]:
    """The laws that did not hold in a story."""
    return [Violation(told.seed, law, told.story) for law in told.broken]


def _play(world: SwarmWorld, seed: int) -> None:
    dice = Dice(seed, "faults")
    clients = Clients(world, Dice(seed, "clients"), Eraser(world, Dice(seed, "eraser"), OWNERS))
    loop = world.loop
    lasting = draw(world, dice, *FAULTS)
    loop.tell(None, SECOND, clients.ask_until, QUIET)
    for _ in range(dice.between(1, 4)):
        loop.tell(None, dice.between(1, 50) * SECOND, clients.hand_in)
    loop.run_until(CALM)
    world.note("the faults are over")
    while lasting:
        lasting.pop(0)()
    loop.run_until(END)
    if any(lacking and coming >= lacking for _, lacking, coming in _lacks(world)):
        # Engines that stand still are found one after another, and the last may just have been: what replaces it has to serve.
        loop.run_until(END + LAST_START)
    _check(world, clients)
    loop.wind_up()


def _check(world: SwarmWorld, clients: Clients) -> None:
    laws = world.laws
    clients.check()
    for fault in world.loop.faults:
        laws.breaks("nothing-unheard", fault)
    if world.control is None:
        laws.breaks("control-goes-on", "there is no control process at the end")
        return
    _check_fleet(world)
    _check_counts(world)
    lines = sum(1 for path in sorted(world.folder.glob("journal/*.jsonl")) for _ in whole_lines(path, _STAMPED))
    if lines + world.lost_lines != laws.written:
        laws.breaks("journal-is-whole", f"{laws.written} lines: {lines} in files, {world.lost_lines} counted as lost")


def _check_fleet(world: SwarmWorld) -> None:
    assert world.control is not None
    laws, fleet, cloud = world.laws, world.control.fleet, world.cloud
    laws.holds(fleet)
    for i, state in enumerate(fleet.state):
        runs, starts = i in cloud.engines, i in cloud.gpus and i not in cloud.engines
        believed = state in {State.SERVING, State.DRAINING, State.SPOT, State.RECLAIMING}
        if not cloud.settled(i):
            continue
        if believed != runs or (state is State.STARTING) != starts:
            laws.breaks("fleet-is-real", f"instance {i} is {state.name}; it runs: {runs}, it starts: {starts}")
        serves = state is State.SERVING and world.control.clock.now() - fleet.since[i] > FOUND_OUT
        if serves and runs and _is_overlooked(world, cloud.engines[i]):
            laws.breaks("fleet-recovers", f"instance {i} serves, and makes no token")
    for e, lacking, _ in _lacks(world):
        if lacking:
            laws.breaks("fleet-recovers", f"{world.layout.endpoint_name(e)} lacks {lacking} instances of its minimum")


def _lacks(world: SwarmWorld) -> Iterator[tuple[int, int, int]]:
    """Endpoints, how many instances each lacks of its minimum, and how many are coming."""
    if world.control is None:
        return
    fleet = world.control.fleet
    for e in range(world.layout.endpoints):
        if pools := world.layout.endpoint_pools(e):
            serving = sum(fleet.serving(pool.number) for pool in pools)
            yield e, max(0, pools[0].minimum - serving), sum(fleet.coming(pool.number) for pool in pools)


def _is_overlooked(world: SwarmWorld, engine: SwarmEngine) -> bool:
    """Whether an engine stands still, which there was time to find out; one that nothing is sent to does not show it."""
    since = world.loop.now - FOUND_OUT
    return (engine.frozen and engine.frozen_at < since) or (engine.hung and any(SETTLED < at < since for at in engine.left_at))


def _check_counts(world: SwarmWorld) -> None:
    """What control counted, against what came to the gateways that it heard of."""
    assert world.control is not None
    laws, totals = world.laws, world.control.view.totals
    alive = {gateway.number for gateway in world.gateways}
    for law, counted, came, column in (
        ("requests-counted", int(totals.requests.sum()), laws.arrived, 0),
        ("refusals-counted", int(totals.refused.sum()), laws.turned_away, 1),
    ):
        heard = laws.reports.items()
        truth = sum((came[one] if one in alive else last[column]) - first[column] for one, (first, last) in heard)
        if counted != truth:
            laws.breaks(law, f"control counts {counted}, there were {truth}")


_STAMPED: Final = msgspec.json.Decoder(Stamped)


@contextmanager
def _unlogged() -> Iterator[None]:
    """What the live code would log of faults is in the story."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
