"""Hashes for the traces of small worlds: prompts that begin alike, turns that go on, hashes that say little by themselves.

Read next: `cases.py`, the caller.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sageserve.base.records import PromptBlocks, Trace
from sageserve.base.sessions import turns_before
from sageserve.core.route import AFFINITY, QUICKEST
from sageserve.sim.kernel.state import Setup


def with_affinity(draw: Callable[[int, int], int], setup: Setup) -> Setup:
    """In one of three worlds the instance is chosen by what it has of a prompt, too."""
    return replace(setup, instance=AFFINITY, overlap=draw(0, 8) / 4) if draw(0, 2) == 2 else setup


def with_quickest(draw: Callable[[int, int], int], setup: Setup) -> Setup:
    """In one of three worlds the region is chosen by the expected first token."""
    return replace(setup, route=QUICKEST) if draw(0, 2) == 2 else setup


def with_hashes(draw: Callable[[int, int], int], trace: Trace, *, often: bool) -> Trace:
    """In two of five worlds (often: four) prompts are hashed: each begins as an earlier one, or as the turn before it."""
    if draw(0, 4) < (1 if often else 3):
        return trace
    size, few = 1 << draw(0, 4), draw(0, 8)  # of eight prompts, so many are not hashed; most begin like an earlier one
    alike, before = draw(0, 4), turns_before(trace)
    paths: list[list[int]] = []
    for row, prompt in enumerate(trace.prompt.tolist()):
        length = -(-prompt // size) if draw(1, 8) > few // 2 else 0
        like = int(before[row]) if 0 <= before[row] < row and draw(0, 3) else draw(0, row)
        shared = paths[like] if row and like < row and draw(1, 4) > alike // 2 else []
        shared = shared[: draw(0, length) if draw(0, 2) == 0 else length]
        paths.append([*shared, *(1_000 * (row + 1) + k for k in range(length - len(shared)))])
    if draw(0, 1):  # numbers say nothing: equal hashes after other blocks are other blocks
        paths = [[one % 7 if k else one for k, one in enumerate(path)] for path in paths]
    ends = np.cumsum([len(path) for path in paths])
    hashes = np.array([one for path in paths for one in path], np.uint64)
    return replace(trace, blocks=PromptBlocks(ends, hashes, size)).check()
