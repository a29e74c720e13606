"""What a token costs an engine at the very least, whatever it is computed with.

An iteration of an engine computes P prompt tokens, and one token for each of n sequences over K tokens of memory. A price α of a
prompt token, β of a step of a sequence and γ of a token that it reads are valid if no iteration that the engine can make has more
of them than it takes time: α·P + β·n + γ·K ≤ time(P, n). Then the priced work of any requests takes at least that long, in any
order and any batches, at any time. Of all valid prices those are taken that make the most of the requests there are (a linear
program in three columns). What depends on a request alone (attention over its context, reading its KV, the overhead of a
sequence) is counted as it is. docs/reference/bound.md has the derivation. Knows no fleet.
"""

from collections.abc import Iterator
from typing import Any, Final, cast

import numpy as np
from msgspec import Struct

from sageserve.base.records import Floats
from sageserve.core.engine import timing
from sageserve.core.engine.timing import EngineRow
from sageserve.core.plan.milp import Program

ROUNDING: Final = 0.5  # us: blocks take whole microseconds


class WorkAsked(Struct, frozen=True):
    """What requests ask of an engine: prompt tokens, steps of decoding, KV tokens read in these."""

    prefill: float
    steps: float
    read: float


class Prices(Struct, frozen=True):
    """Microseconds of a rank."""

    prefill: float
    step: float
    read: float


def prices_of(row: EngineRow, asked: WorkAsked, context: int, *, shared: bool) -> Prices:
    """The prices that make the most of what is asked.

    Args:
        row: the engine.
        asked: of all of a model's requests.
        context: tokens of the longest sequence.
        shared: sequences may share memory, so that they read more than there is.
    """
    worths = np.array([asked.prefill, asked.steps, 0.0 if shared else asked.read])
    memory = 0.0 if shared else float(max(row["kv_tokens"], context))
    best, most = np.zeros(3), 0.0
    for constant, slope in _shared_lines(row):
        corners = np.array([(prompt, sequences, memory * (sequences > 0)) for prompt, sequences in _corners(row, context)])
        tokens = corners[:, 0] + corners[:, 1] * (1 + row["drafted"])
        spent = np.array([_time(row, prompt, sequences) for prompt, sequences, _ in corners.tolist()]) + constant + slope * tokens
        found = _most(worths, corners / np.maximum(spent - ROUNDING, 1e-3)[:, None])
        if float(worths @ found) > most:
            best, most = found, float(worths @ found)
    return Prices(*best.tolist())


def _most(worths: Floats, parts: Floats) -> Floats:
    """float64[3]: the prices that make the most of `worths`, and fill no row of `parts` by more than one."""
    scale = np.maximum(parts.max(axis=0), 1e-12)
    program = Program()
    columns = [program.column(-worth) for worth in (worths / scale / max(float((worths / scale).max()), 1e-12)).tolist()]
    for row in (parts / scale).tolist():
        program.row(columns, row, upper=1.0)
    found = np.maximum(np.array(program.solve().values), 0.0) / scale
    found[worths == 0] = 0.0
    fullest = float((parts @ found).max())  # the solver's tolerance is not ours
    return np.asarray(found / max(fullest * (1 + 1e-12), 1.0))


def slowest_iteration(row: EngineRow, context: int) -> float:
    """Microseconds until a sequence gains a token at the latest: the longest iteration; prefill first, with prompts before it."""
    tokens = max(row["max_batched"], context if row["chunked"] == 0 else 0)
    longest = timing.iteration_time(row, tokens, tokens * float(context), row["max_sequences"], max(row["kv_tokens"], context))
    return longest if row["mixed"] != 0 else longest * (1 + row["max_sequences"])


def _time(row: EngineRow, prompt: float, sequences: float) -> float:
    """Of an iteration, what does not depend on its requests alone; of ranks in step, without what they share."""
    spent = timing.sequences_time(row, prompt, sequences)
    if prompt > 0 or sequences > row["graphs"]:
        spent += row["eager"]
    if row["lockstep"] != 0:
        spent -= timing.shared_time(row, prompt + sequences * (1 + row["drafted"]))
    return spent


def _shared_lines(row: EngineRow) -> Iterator[tuple[float, float]]:
    """Lines below the time that ranks in step share, as a function of a rank's tokens: their mean over ranks is below it, too."""
    yield 0.0, 0.0
    if row["lockstep"] == 0:
        return
    knots = [float(k) for k in row["shared_tokens"] if k < float("inf")]
    times = [timing.shared_time(row, k) for k in knots]
    yield min(times), 0.0
    last = float(row["shared_slope"][len(knots) - 1])
    slope = min([time / k for time, k in zip(times, knots, strict=True)] + ([last] if last > 0 else [0.0]))
    yield 0.0, max(slope, 0.0)


def _corners(row: EngineRow, context: int) -> Iterator[tuple[float, float]]:
    """Prompt tokens and sequences between which time is a straight line: prices that are valid there are valid everywhere."""
    each = 1.0 + row["drafted"]
    most = float(row["max_sequences"])
    whole = context if row["chunked"] == 0 else 0
    budget = float(max(row["max_batched"], most * each, whole + (most * each if row["mixed"] != 0 else 0)))
    knots = [float(k) for k in (*row["tokens"], *row["shared_tokens"]) if 1.0 <= k <= budget]
    tokens = sorted({1.0, budget, float(row["max_batched"]), *knots})
    counts = {1.0, most, *(k for k in (*tokens, float(row["graphs"])) if 1.0 <= k <= most)}
    counts |= {k / each for k in tokens if 1.0 <= k / each <= most}
    for k in tokens:
        yield k, 0.0
    for sequences in sorted(counts):
        yield 0.0, sequences
        if row["mixed"] != 0:
            yield from ((k - sequences * each, sequences) for k in tokens if k > sequences * each)


def as_row(profile: Any) -> EngineRow:  # noqa: ANN401 # a PROFILE row
    """Plain numbers of it."""
    return cast("EngineRow", {name: profile[name].tolist() for name in profile.dtype.names})
