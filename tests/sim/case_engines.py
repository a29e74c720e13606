"""Curves, data parallel ranks and rules for the engines of a small world.

Knows profiles only. Read next: `cases.py`, which makes the rest of a world; `test_ranks.py` for examples worked out by hand.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config.models import KNOTS
from sageserve.base.kernel import Rec
from sageserve.sim.kernel.state import Setup

FEW = 4
NOTHING = [1.0, 2.0, *[np.inf] * (KNOTS - 2)]
"""Knots of a curve that is zero."""


def with_ranks(draw: Callable[[int, int], int], setup: Setup) -> Setup:
    """In two of five worlds engines have ranks, most of them in step; some share a part of what an iteration takes.

    Args:
        draw: as in `cases.py`.
        setup: whose engines have one rank each.
    """
    if draw(0, 4) < 3:
        return setup
    rows = setup.profiles.copy()
    for row in rows:
        row["ranks"] = (1, 2, 2, 3, 4, 8, 16)[draw(0, 6)]
        row["per_rank"] = 1 / row["ranks"]
        row["lockstep"] = row["ranks"] > 1 and draw(0, 3) > 0
        row["kv"] *= 1 << 2 * draw(0, 3)  # contexts of different length are what makes one rank overtake another
        if row["lockstep"]:
            share = draw(0, 8) / 8
            row["shared_tokens"], row["shared_time"], row["shared_slope"] = (
                row["tokens"],
                share * row["time"],
                share * row["slope"],
            )
    return replace(setup, profiles=rows)


def with_rules(draw: Callable[[int, int], int], setup: Setup) -> Setup:
    """In one of five worlds engines mix or pause, in pieces or whole, never preempt, or decode large batches without graphs.

    Args:
        draw: as in `cases.py`.
        setup: whose engines mix pieces, or prefill first and whole.
    """
    if draw(0, 4) < 4:
        return setup
    rows = setup.profiles.copy()
    for row in rows:
        row["chunked"], row["mixed"] = ((0, 0), (1, 1), (0, 1), (1, 0))[draw(0, 3)]
        row["evicts"] = draw(0, 3) > 0
        row["graphs"] = draw(1, int(row["max_sequences"]))
    return replace(setup, profiles=rows)


def with_speculation(draw: Callable[[int, int], int], setup: Setup) -> Setup:
    """In one of four worlds engines draft up to five tokens, of which as many are accepted as it happens, whole ones or not.

    Args:
        draw: as in `cases.py`.
        setup: whose engines decode token by token.
    """
    if draw(0, 3) < 3:
        return setup
    rows = setup.profiles.copy()
    for row in rows:
        row["drafted"] = draw(0, 5)
        row["extra"] = int(row["drafted"]) * draw(0, 12) * 2**20 // 12
        row["drafting"] = draw(0, 3) * draw(0, 8) / 32 if row["drafted"] > 1 else 0
        row["max_batched"] += row["max_sequences"] * row["drafted"]
        row["per_token"] = 1 / row["max_batched"]
        row["whole"] = (np.interp(row["max_batched"], *line(row)) + row["eager"]) / row["max_batched"]
    return replace(setup, profiles=rows)


def crowd(rows: NDArray[Any], kv_tokens: int) -> None:
    """Engines that hold so little, and fill prompts in small pieces, so that some lose their place half filled."""
    rows["kv_tokens"], rows["max_batched"] = kv_tokens, np.minimum(rows["max_batched"], rows["max_sequences"] + FEW)
    rows["per_kv"], rows["per_token"] = 1 / rows["kv_tokens"], 1 / rows["max_batched"]
    for row in rows:
        row["whole"] = (np.interp(row["max_batched"], *line(row)) + row["eager"]) / row["max_batched"]


def curve(row: Rec, steps: list[tuple[int, float]]) -> None:
    """A curve that begins at 1 token with the first time; each step says after how many tokens more which slope ended."""
    tokens = np.cumsum([distance for distance, _ in steps]).astype(float)
    slopes = [slope for _, slope in steps[1:]]
    time = np.cumsum([steps[0][1], *(slope * distance for distance, slope in steps[1:])])
    row["tokens"] = np.inf
    row["tokens"][: len(steps)], row["time"][: len(steps)] = tokens, time
    row["slope"][: len(steps)] = [*slopes, slopes[-1]]


def line(row: Rec) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots of a curve and one far out, for interpolation."""
    used = int((row["tokens"] < np.inf).sum())
    far = 1e6
    end = row["time"][used - 1] + row["slope"][used - 1] * (far - row["tokens"][used - 1])
    return np.append(row["tokens"][:used], far), np.append(row["time"][:used], end)
