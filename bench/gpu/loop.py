"""Continuous batching: what is in a step, and requests that come by chance.

The rules are those of docs/reference/kernel.md, "Inside an instance", for an engine with chunked prefill and enough memory:
sequences that decode go first, then the prompt that is begun, then the queue by arrival while tokens and places are left.
Knows neither torch nor a clock: both are the machine's. Read next: `machine.py`.
"""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Protocol

from bench.gpu.shapes import Limits


@dataclass(slots=True)
class Sequence:
    """A request: tokens, and microseconds of the machine's clock. `filled` and `made` are tokens that are computed."""

    number: int
    arrival: int
    prompt: int
    output: int
    row: int = -1
    filled: int = 0
    made: int = 0
    first: int = -1
    finish: int = -1


class Machine(Protocol):
    """What runs steps."""

    def now(self) -> int:
        """Microseconds."""

    def wait_until(self, instant: int) -> None:
        """Come back at an instant that is to come."""

    def admit(self, sequence: Sequence) -> bool:
        """Take memory for a sequence; False: there is none."""

    def release(self, sequence: Sequence) -> None:
        """Give it back."""

    def run(self, decoding: list[Sequence], pieces: list[tuple[Sequence, int]]) -> None:
        """One step: a token for each that decodes, and pieces of prompts."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one was made of.

    Args:
        start: microseconds.
        time: microseconds.
        decoding: sequences.
        kv: KV tokens that they read.
        prompt: tokens of prompts.
        attention: sum of p * (x + p/2) over pieces of p tokens after x.
        ended: prompts whose last token was among them, so that they have their first token of an answer.
    """

    start: int
    time: int
    decoding: int
    kv: int
    prompt: int
    attention: float
    ended: int


@dataclass(slots=True)
class Engine:
    """Queues of one engine.

    `refused` counts how often a request waited for memory: the simulator's rule for that is another one.
    """

    machine: Machine
    limits: Limits
    waiting: deque[Sequence] = field(default_factory=deque)
    begun: Sequence | None = None
    decoding: list[Sequence] = field(default_factory=list)
    refused: int = 0

    @property
    def running(self) -> int:
        """Requests that hold a place in the batch."""
        return len(self.decoding) + (self.begun is not None)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.running)

    def iterate(self) -> Step:
        """Run the next step."""
        start = self.machine.now()
        pieces = self._pieces()
        kv = sum(one.prompt + one.made for one in self.decoding)
        decoding = self.decoding
        attention = sum(count * (one.filled + count / 2) for one, count in pieces)
        ended = sum(one.filled + count == one.prompt for one, count in pieces)
        if not decoding and not pieces:
            raise ValueError(
                f"a request of {self.waiting[0].prompt:,} + {self.waiting[0].output:,} tokens does not fit into memory"
            )
        self.machine.run(decoding, pieces)
        end = self.machine.now()
        step = Step(start, end - start, len(decoding), kv, sum(count for _, count in pieces), attention, ended)
        self._take(end, pieces)
        return step

    def leave(self) -> None:
        """Forget everybody, and give their memory back."""
        for one in [*self.decoding, *([] if self.begun is None else [self.begun])]:
            self.machine.release(one)
        self.waiting.clear()
        self.decoding, self.begun = [], None

    def _pieces(self) -> list[tuple[Sequence, int]]:
        budget = self.limits.batched - len(self.decoding)
        pieces: list[tuple[Sequence, int]] = []
        if self.begun is not None:
            one = self.begun
            pieces.append((one, min(one.prompt - one.filled, budget)))
            budget -= pieces[0][1]
        while self.waiting and budget > 0 and len(self.decoding) + len(pieces) < self.limits.sequences:
            if not self.machine.admit(self.waiting[0]):
                self.refused += 1
                break
            one = self.waiting.popleft()
            pieces.append((one, min(one.prompt - one.filled, budget)))
            budget -= pieces[-1][1]
        return pieces

    def _take(self, end: int, pieces: list[tuple[Sequence, int]]) -> None:
        went_on = []
        for one in self.decoding:
            one.made += 1
            if one.made < one.output:
                went_on.append(one)
            else:
                self._finish(one, end)
        self.begun = None
        for one, count in pieces:
            one.filled += count
            if one.filled < one.prompt:
                self.begun = one
                continue
            one.made, one.first = 1, end
            if one.output > 1:
                went_on.append(one)
            else:
                self._finish(one, end)
        self.decoding = went_on

    def _finish(self, one: Sequence, end: int) -> None:
        one.finish = end
        self.machine.release(one)


@dataclass(frozen=True, slots=True)
class Look:
    """What the engine showed at an instant: microseconds, tokens since the last look, requests, KV tokens held."""

    time: int
    prompt: int
    made: int
    running: int
    waiting: int
    held: int


def play(engine: Engine, requests: list[Sequence], until: int | None = None) -> tuple[list[Step], list[Look]]:
    """Serve requests as they arrive; the clock's zero is now.

    Args:
        engine: idle.
        requests: by arrival, microseconds from now; their times are made the machine's.
        until: microseconds from now after which no step begins; None: until all are done.

    Returns:
        Steps in order, and a look every second; times are from now.
    """
    zero = engine.machine.now()
    coming = deque(requests)
    for one in requests:
        one.arrival += zero
    steps: list[Step] = []
    looks: list[Look] = []
    prompt = made = 0
    while coming or engine.busy:
        now = engine.machine.now()
        if until is not None and now - zero >= until:
            break
        if not engine.busy and coming and coming[0].arrival > now:
            engine.machine.wait_until(coming[0].arrival)
            now = engine.machine.now()
        while coming and coming[0].arrival <= now:
            engine.waiting.append(coming.popleft())
        step = engine.iterate()
        steps.append(step)
        prompt, made = prompt + step.prompt, made + step.decoding + step.ended
        end = step.start + step.time - zero
        if end // 1_000_000 > (looks[-1].time // 1_000_000 if looks else 0):
            held = sum(one.prompt + one.made for one in engine.decoding)
            looks.append(Look(end, prompt, made, engine.running, len(engine.waiting), held))
            prompt = made = 0
    return [replace(step, start=step.start - zero) for step in steps], looks
