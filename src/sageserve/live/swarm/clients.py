"""Who asks in a story: clients that wait for an answer, and batches, some of them poisonous. What became of each is checked here.

Read next: `world.py`, which carries requests; `laws.py`.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import msgspec

from sageserve.base.units import DAY, HOUR, SECOND, Micros
from sageserve.live.store.interface import PIECE
from sageserve.live.store.models import BadMove, Batch, BatchState, File, Unknown
from sageserve.live.swarm.dice import Dice
from sageserve.live.swarm.eraser import Eraser
from sageserve.live.swarm.gateways import SwarmRequest
from sageserve.live.swarm.world import JobBody, SwarmWorld

_POISON_OF_ENGINES: Final = ("400", "401", "403", "500", "break")
_POISON_OF_ANSWERS: Final = ("deep", "bytes", "count", "long", "packed")
_POISON_OF_LINES: Final = ("nul", "deep", "bytes", "cut", "model", "twice")
_URL: Final = "/v1/completions"
OWNERS: Final = ("ann", "bob")
_FINAL: Final = (BatchState.COMPLETED, BatchState.EXPIRED, BatchState.FAILED, BatchState.CANCELLED)


@dataclass(slots=True)
class Handed:
    """A batch that was handed in.

    Args:
        batch: as it was made.
        names: custom ids of its lines.
        poisoned: a line of it cannot be read.
        cancelled: its client changed its mind.
    """

    batch: Batch
    names: tuple[str, ...]
    poisoned: bool
    cancelled: bool = False


class _Outcome(msgspec.Struct):
    custom_id: str


@dataclass(slots=True)
class Clients:
    """Everybody who asks.

    Args:
        world: of the story.
        dice: for what they ask.
        eraser: who may erase one of them.
    """

    world: SwarmWorld
    dice: Dice
    eraser: Eraser | None = None
    open: dict[int, str] = field(default_factory=dict)  # requests without an answer
    handed: list[Handed] = field(default_factory=list)
    fates: Counter[int] = field(default_factory=Counter)
    asked: int = 0

    # --- requests ---

    def ask_until(self, until: Micros) -> None:
        """Ask, now and then many at once, and come again until an instant."""
        world, dice = self.world, self.dice
        if world.loop.now >= until:
            return
        for _ in range(dice.between(3, 12) if dice.chance(0.04) else 1):
            self._ask()
        world.loop.tell(None, dice.between(100, 2400) * 1000, self.ask_until, until)

    def _ask(self) -> None:
        dice, names, number = self.dice, self.world.layout.names, self.asked
        self.asked += 1
        poison = dice.pick(_POISON_OF_ENGINES) if dice.chance(0.04) else ""
        tier = dice.between(0, len(names.tiers) - 1)
        self.open[number] = f"request {number} of {names.tiers[tier]}, asked at {self.world.loop.now / SECOND:.1f} s"

        def told(status: int, _: bool) -> None:
            self.fates[number] += 1
            if self.fates[number] > 1:
                self.world.laws.breaks("one-fate", f"request {number} has a second answer, {status}")
            self.open.pop(number, None)

        region, model = dice.between(0, len(names.regions) - 1), dice.between(0, len(names.models) - 1)
        self.world.ask(SwarmRequest(region, model, tier, dice.between(10, 1500), dice.between(1, 200), poison, told))

    # --- batches ---

    def hand_in(self) -> None:
        """A batch, as the Files and Batch APIs keep it; a store that is away is asked again."""
        world, dice = self.world, self.dice
        if world.store.away or world.store.full:
            world.loop.tell(None, SECOND, self.hand_in)
            return
        gone = "" if self.eraser is None else self.eraser.tenant
        number, owner, model = len(self.handed), dice.pick(OWNERS), dice.pick(world.layout.names.models)
        lines, names = self._lines(model)
        if owner == gone:
            return  # it has no key any more
        poisoned = dice.chance(0.25)
        if poisoned:
            at = dice.between(0, len(lines) - 1)
            lines[at] = _spoilt(dice.pick(_POISON_OF_LINES), lines[at], model)
        content, keep, now = b"\n".join(lines), world.store.kept, world.wall()
        keep.begin_file(File(f"file-{number}", owner, "lines.jsonl", "batch", now, None))
        keep.append(f"file-{number}", 0, content[:PIECE])
        keep.finish_file(f"file-{number}", len(content))
        lasts = dice.between(20, 60) * SECOND if dice.chance(0.15) else 24 * HOUR
        batch = keep.add_batch(
            Batch(f"batch_{number}", owner, _URL, f"file-{number}", "24h", None, 40 * DAY // SECOND, now, now + lasts)
        )
        self.handed.append(Handed(batch, names, poisoned))
        world.note(f"batch {batch.number} with {len(names)} lines{', one of them poisonous' if poisoned else ''}")
        self._tell_runner()
        if dice.chance(0.1):
            world.loop.tell(None, dice.between(0, 20) * SECOND, self._cancel, self.handed[-1])

    def _lines(self, model: str) -> tuple[list[bytes], tuple[str, ...]]:
        dice, lines, names = self.dice, [], []
        poison_share = 0.3 if dice.chance(0.3) else 0.0
        for k in range(dice.between(1, 14)):
            poison = dice.pick(_POISON_OF_ENGINES + _POISON_OF_ANSWERS) if dice.chance(poison_share) else ""
            body = JobBody(model, dice.between(10, 800), dice.between(1, 60), poison)
            names.append(f"line-{k}")
            line = {"custom_id": names[-1], "method": "POST", "url": _URL, "body": msgspec.to_builtins(body)}
            lines.append(msgspec.json.encode(line))
        return lines, tuple(names)

    def _tell_runner(self) -> None:
        if self.world.process is not None and self.world.runner is not None:
            self.world.loop.tell(self.world.process, 1000, self.world.runner.notify)

    def _cancel(self, handed: Handed) -> None:
        world = self.world
        try:
            world.store.kept.cancel(handed.batch.number, world.wall())
        except (BadMove, Unknown):
            return  # it is over, or erased
        handed.cancelled = True
        world.note(f"batch {handed.batch.number} is cancelled")
        self._tell_runner()

    # --- what became of them ---

    def check(self) -> None:
        """What must hold once everything is over."""
        laws = self.world.laws
        for what in self.open.values():
            laws.breaks("no-wait-for-ever", f"{what} has no answer")
        gone = "" if self.eraser is None else self.eraser.tenant
        for handed in self.handed:
            if handed.batch.owner != gone:
                self._check_batch(handed)
        if self.eraser is not None:
            self.eraser.check()

    def _check_batch(self, handed: Handed) -> None:
        laws, keep, number = self.world.laws, self.world.store.kept, handed.batch.number
        batch = keep.batch(handed.batch.owner, handed.batch.id)
        if batch.state not in _FINAL:
            said = f"batch {number} is {batch.state}: {batch.done} + {batch.failed} of {batch.total} lines are over"
            laws.breaks("batches-end", said)
            return
        stopped = handed.cancelled or batch.state is BatchState.EXPIRED
        if (batch.state is BatchState.FAILED) != handed.poisoned and not stopped:
            how = "poisonous" if handed.poisoned else "sound"
            laws.breaks("batches-end", f"batch {number}, which is {how}, is {batch.state}: {batch.errors}")
        elif batch.state is BatchState.EXPIRED and self.world.latest < batch.expires_at:
            laws.breaks("batches-end", f"batch {number} expired before its time")
        if batch.total:
            self._check_lines(batch, handed)

    def _check_lines(self, batch: Batch, handed: Handed) -> None:
        laws, found = self.world.laws, Counter[str]()
        counts = []
        for file in (batch.output_file, batch.error_file):
            lines = self._content(batch.owner, file).splitlines() if file is not None else []
            counts.append(len(lines))
            found.update(msgspec.json.decode(line, type=_Outcome).custom_id for line in lines)
        lost = [name for name in handed.names if not found[name]]
        doubled = [name for name, times in found.items() if times > 1]
        if lost or doubled or len(found) != len(handed.names):
            laws.breaks("lines-kept", f"batch {batch.number} lost {lost} and has twice {doubled}")
        if [batch.done, batch.failed] != counts:
            laws.breaks("lines-kept", f"batch {batch.number} counts {batch.done} + {batch.failed}, its files hold {counts}")

    def _content(self, owner: str, file: str) -> bytes:
        keep = self.world.store.kept
        parts: list[bytes] = []
        keep.file(owner, file)
        while (piece := keep.piece(file, len(parts))) is not None:
            parts.append(piece)
        return b"".join(parts)


def _spoilt(how: str, line: bytes, model: str) -> bytes:
    """A line that is no request any more."""
    match how:
        case "nul":
            return line.replace(b'"line-', b'"\\u0000line-')
        case "deep":
            return line.replace(b'"body":', b'"deep":' + b"[" * 2000 + b"]" * 2000 + b',"body":')
        case "bytes":
            return line.replace(b'"method"', b'"x":"\xff","method"')
        case "cut":
            return line[: len(line) // 2]
        case "model":
            return line.replace(f'"{model}"'.encode(), b'"none"')
        case _:
            return line + b"\n" + line
