"""Step times over what a step is made of: sequences and contexts, prompts and what is before them, and both at once.

Steps are run by the same loop that serves requests, so that what the host does is in their times. Contexts are spread as those of
an engine that serves are: attention takes as long as its longest. Steps that only decode are timed between steps with a prompt,
as an engine that serves runs them: a GPU at its limit of power is slower then than in a row of decoding. Read next: `loop.py`,
`power.py` for how much slower, `predict.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist, median
from typing import Final

import numpy as np

from bench.gpu.loop import Engine, Machine, Sequence, Step
from bench.gpu.shapes import Limits

WARM: Final = 2  # steps that are not counted: kernels are compiled, memory is taken
REPEATED: Final = 5
PASSES: Final = 3  # over the whole grid: a machine is not equally fast in every minute
COMPANY: Final = 640  # tokens of the prompt in the step before those that only decode
AFTER: Final = 3  # such steps after each
ROUNDS: Final = 3  # of those
SIGMA: Final = 0.9  # of the logarithm of contexts
# sizes of graphs, and between them: a step takes the next larger graph
BATCHES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 192, 256)
CONTEXTS: Final = (128, 512, 1024, 2048, 4096)
PROMPTS: Final = (16, 32, 64, 96, 128, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048, 4096)
BEFORE: Final = (0, 2048)
BESIDE: Final = (4, 16, 48, 96, 120)  # sequences that decode beside a prompt
AMONG: Final = 1024  # tokens of their contexts
_LATE: Final = 8  # tokens before a piece over its own: only the ends of long prompts are smaller


@dataclass(frozen=True, slots=True)
class Asked:
    """A step to time: sequences that decode after `context` tokens in the mean, beside `prompt` tokens after `before`."""

    decoding: int
    context: int
    prompt: int = 0
    before: int = 0


def grid(limits: Limits, kv_tokens: int) -> Iterator[Asked]:
    """Steps that fit into the engine's limits and memory."""
    room = 0.9 * kv_tokens
    for n in sorted({min(n, limits.sequences - 1) for n in BATCHES}):  # a place is left for the prompt before
        for context in CONTEXTS:
            if context < limits.context and n * (context + 64) + _beside(limits) <= room:
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


def _beside(limits: Limits) -> int:
    """Tokens of the prompt before steps that only decode."""
    return min(COMPANY, limits.batched - limits.sequences, limits.context // 2)


@cache
def spread(count: int, mean: int, most: int) -> tuple[int, ...]:
    """Contexts of `count` sequences: quantiles of a log-normal distribution, none above `most`, `mean` tokens in the mean."""
    if not count:
        return ()
    quantiles = [NormalDist().inv_cdf((k + 0.5) / count) for k in range(count)]
    shape = np.exp(SIGMA * np.array(quantiles))
    low, high = 0.0, most / float(shape[0])
    for _ in range(60):  # a mean of what is cut off at `most` grows with the scale
        scale = (low + high) / 2
        low, high = (scale, high) if np.minimum(shape * scale, most).mean() < mean else (low, scale)
    return tuple(max(1, round(one)) for one in np.minimum(shape * high, most).tolist())


def timed(machine: Machine, limits: Limits, asked: Asked) -> list[Step]:
    """Such a step, several times over."""
    engine = Engine(machine, limits)
    runs = ROUNDS * (1 + AFTER) if asked.decoding and not asked.prompt else WARM + REPEATED
    for number, context in enumerate(spread(asked.decoding, asked.context, limits.context - runs - 2)):
        one = Sequence(number, 0, context, runs + 2, filled=context, made=1)
        if not machine.admit(one):
            raise ValueError(f"{asked} does not fit into memory")
        engine.decoding.append(one)
    if asked.prompt:
        steps = [_step(engine, asked, number, asked.before, asked.prompt) for number in range(runs)][WARM:]
    else:
        steps = []
        for number in range(ROUNDS):
            _step(engine, asked, number, 0, _beside(limits))
            steps += [_step(engine, asked, 0, 0, 0) for _ in range(AFTER)]
    engine.leave()
    return steps


def _step(engine: Engine, asked: Asked, number: int, before: int, prompt: int) -> Step:
    """Run a step, with so much of a prompt after what is before it; 0: without."""
    machine = engine.machine
    if prompt:
        engine.begun = Sequence(1000 + number, 0, before + prompt, 1, filled=before)
        if not machine.admit(engine.begun):
            raise ValueError(f"{asked} does not fit into memory")
    start = machine.now()
    step = engine.iterate()
    return replace(step, time=machine.now() - start)  # with what the loop does after it


def all_timed(machine: Machine, limits: Limits, kv_tokens: int) -> list[Step]:
    """Medians of all steps of the grid."""
    asked = list(grid(limits, kv_tokens))
    passes = [[timed(machine, limits, one) for one in asked] for _ in range(PASSES)]
    return [_median([step for steps in same for step in steps]) for same in zip(*passes, strict=True)]


def _median(steps: list[Step]) -> Step:
    return replace(steps[len(steps) // 2], start=0, time=round(median(step.time for step in steps)))
