"""What a step takes after others: decoding right after prompts, for a while, and the clock of the GPU meanwhile.

The formula of a step knows what is in it, not what was before it: this shows what that costs on a GPU at its limit of power.
Needs torch and Triton. Read next: `steps.py`, docs/reference/engine-model.md.
"""

import subprocess
from statistics import median
from typing import Final

from bench.gpu.loop import Engine, Machine, Sequence, Step
from bench.gpu.shapes import LIMITS, SHAPES, Limits
from bench.gpu.steps import spread

CONTEXT: Final = 740  # tokens in the mean, as in the runs
BATCHES: Final = (16, 40, 64, 96, 124)
BEFORE: Final = (0, 256, 1024, 1900)  # tokens of the prompt in the step before
ROUNDS: Final = 12
LATER: Final = 4  # steps that are timed after each prompt
SUSTAINED: Final = 300  # pairs of steps
PROMPT: Final = 900


def holding(machine: Machine, limits: Limits, count: int, steps: int) -> Engine:
    """An engine with so many sequences that decode for that many steps."""
    engine = Engine(machine, limits)
    for number, context in enumerate(spread(count, CONTEXT, limits.context - steps - 2)):
        one = Sequence(number, 0, context, steps + 2, filled=context, made=1)
        if not machine.admit(one):
            raise ValueError(f"{count} sequences do not fit into memory")
        engine.decoding.append(one)
    return engine


def before(engine: Engine, number: int, tokens: int) -> Step:
    """A step with so many tokens of a prompt beside what decodes; 0: without."""
    if tokens:
        one = Sequence(1000 + number, 0, tokens, 1)
        if not engine.machine.admit(one):
            raise ValueError(f"a prompt of {tokens} tokens does not fit into memory")
        engine.begun = one
    return engine.iterate()


def after(machine: Machine, limits: Limits, count: int, tokens: int) -> list[float]:
    """Microseconds of the first, second, ... step without a prompt after one with `tokens` of it; medians."""
    engine = holding(machine, limits, count, ROUNDS * (LATER + 1))
    rounds = []
    for number in range(ROUNDS):
        before(engine, number, tokens)
        rounds.append([engine.iterate().time for _ in range(LATER)])
    engine.leave()
    return [median(times) for times in zip(*rounds[2:], strict=True)]


def sustained(engine: Engine, numbers: range, tokens: int) -> float:
    """Microseconds of steps that only decode, each after one with `tokens` of a prompt, or after one without; the median."""
    times = []
    for number in numbers:
        before(engine, number, tokens)
        times.append(engine.iterate().time)
    return median(times)


def clock() -> str:
    """Clock and power that nvidia-smi shows now."""
    command = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def show(name: str) -> None:
    """Print a table for a shape of `SHAPES`."""
    import torch

    from bench.gpu.machine import Device

    limits = LIMITS[name]
    device = Device(SHAPES[name], limits)
    print(f"{'decoding':>8}{'after':>8}   ms of the steps after that")
    with torch.inference_mode():
        for count in BATCHES:
            for tokens in BEFORE:
                times = "".join(f"{time / 1e3:8.2f}" for time in after(device, limits, count, tokens))
                print(f"{count:8}{tokens:8}{times}", flush=True)
        for tokens in (0, PROMPT):
            print(
                f"{BATCHES[-1]} sequences, contexts that grow, "
                + (f"in turns with prompts of {tokens} tokens:" if tokens else "alone:")
            )
            engine = holding(device, limits, BATCHES[-1], 2 * SUSTAINED)
            for begun in range(0, SUSTAINED, SUSTAINED // 5):
                print(f"{sustained(engine, range(begun, begun + SUSTAINED // 5), tokens) / 1e3:8.2f} ms,", clock(), flush=True)
            engine.leave()
