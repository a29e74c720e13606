"""Step times over what a step is made of: sequences and contexts, prompts and what is before them, and both at once.

Steps are run by the same loop that serves requests, so that what the host does is in their times. Read next: `loop.py`,
`predict.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from bench.gpu.loop import Engine, Machine, Sequence, Step
from bench.gpu.shapes import Limits

WARM: Final = 3  # steps that are not counted: kernels are compiled, memory is taken
REPEATED: Final = 9
BATCHES: Final = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
CONTEXTS: Final = (128, 512, 1024, 2048, 4096)
PROMPTS: Final = (16, 32, 64, 96, 128, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 4096)
BEFORE: Final = (0, 2048)
BESIDE: Final = (4, 16, 48, 96, 120)  # sequences that decode beside a prompt
AMONG: Final = 1024  # tokens of their contexts
_LATE: Final = 8  # tokens before a piece over its own: only the ends of long prompts are smaller


@dataclass(frozen=True, slots=True)
class Asked:
    """A step to time: sequences that decode after `context` tokens each, beside `prompt` tokens after `before`."""

    decoding: int
    context: int
    prompt: int = 0
    before: int = 0


def grid(limits: Limits, kv_tokens: int) -> Iterator[Asked]:
    """Steps that fit into the engine's limits and memory."""
    room = 0.9 * kv_tokens
    for n in BATCHES:
        for context in CONTEXTS:
            if n <= limits.sequences and context < limits.context and n * (context + 64) <= room:
                yield Asked(n, context)
    for prompt in PROMPTS:
        for before in BEFORE:
            if prompt <= limits.batched and prompt + before < limits.context and before <= _LATE * prompt:
                yield Asked(0, 0, prompt, before)
    for n in BESIDE:
        for prompt in PROMPTS[1::2]:
            count = min(prompt, limits.batched - n)
            if n < limits.sequences and n * (AMONG + 64) + count <= room and limits.context > AMONG:
                yield Asked(n, AMONG, count)


def timed(machine: Machine, limits: Limits, asked: Asked, repeated: int = REPEATED) -> Step:
    """The median of several such steps."""
    engine = Engine(machine, limits)
    for number in range(asked.decoding):
        one = Sequence(number, 0, asked.context, WARM + repeated + 2, filled=asked.context, made=1)
        if not machine.admit(one):
            raise ValueError(f"{asked} does not fit into memory")
        engine.decoding.append(one)
    steps = []
    for number in range(WARM + repeated):
        if asked.prompt:
            begun = Sequence(1000 + number, 0, asked.before + asked.prompt, 1, filled=asked.before)
            if not machine.admit(begun):
                raise ValueError(f"{asked} does not fit into memory")
            engine.begun = begun
        start = machine.now()
        step = engine.iterate()
        steps.append(replace(step, time=machine.now() - start))  # with what the loop does after it
    engine.leave()
    kept = steps[WARM:]
    return replace(kept[len(kept) // 2], start=0, time=round(median(step.time for step in kept)))
