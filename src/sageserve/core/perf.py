"""The engine model, compiled: PROFILE rows and the functions of `core/engine/timing.py` over them.

Serves the simulator, routing, planning and strategies; the emulated engine runs the same functions as plain Python. Knows no
fleet and no clock. Read next: `core/engine/timing.py` for the formula, docs/reference/kernel.md for how iterations are composed.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import ProfileSettings
from sageserve.base.config.models import KNOTS
from sageserve.base.kernel import Rec, kernel
from sageserve.base.promise import allowed as in_time
from sageserve.base.rebound import rebound
from sageserve.base.records import Floats, Ints
from sageserve.core.engine import timing
from sageserve.core.engine.timing import row_of

OUTPUT_GUESS: Final = 200.0
"""Tokens of an answer before any were seen; the mean of the paper's week is 222."""

SHARED: Final = 0.5  # of decoding's time that prompts feel; `python -m bench.response --fit` tries others

PROFILE = np.dtype(
    [
        ("tokens", "f8", (KNOTS,)),  # the columns are those of `timing.EngineRow`
        ("time", "f8", (KNOTS,)),
        ("slope", "f8", (KNOTS,)),
        ("shared_tokens", "f8", (KNOTS,)),
        ("shared_time", "f8", (KNOTS,)),
        ("shared_slope", "f8", (KNOTS,)),
        ("eager", "f8"),
        ("decode", "f8"),
        ("kv", "f8"),
        ("attention", "f8"),
        ("whole", "f8"),
        ("per_sequence", "f8"),
        ("per_kv", "f8"),
        ("per_token", "f8"),
        ("per_rank", "f8"),
        ("entry", "i8"),
        ("kv_tokens", "i8"),
        ("weight", "i8"),
        ("max_sequences", "i4"),
        ("max_batched", "i4"),
        ("chunked", "i4"),
        ("mixed", "i4"),
        ("evicts", "i4"),
        ("graphs", "i4"),
        ("caching", "i4"),
        ("drafted", "i4"),
        ("extra", "i8"),
        ("drafting", "f8"),
        ("ranks", "i4"),
        ("lockstep", "i4"),
        ("gpus", "i4"),
        ("slots", "i4"),
        ("adapter", "f8"),
        ("adapters", "f8"),
        ("adapter_load", "f8"),
    ],
    align=True,
)

_TIMES: Final = (
    *("time", "slope", "shared_time", "shared_slope", "eager", "decode", "kv", "attention", "whole"),
    *("adapter", "adapters", "adapter_load"),
)
"""Columns of PROFILE that an iteration is made of."""


def profile_rows(profiles: list[ProfileSettings]) -> NDArray[Any]:
    """PROFILE rows, one per profile, in microseconds; weights are all that of the fastest."""
    rows = np.zeros(len(profiles), PROFILE)
    for number, profile in enumerate(profiles):
        for name, value in row_of(profile).items():
            rows[number][name] = value
    return rows


def slowed(profiles: NDArray[Any], times: float) -> NDArray[Any]:
    """PROFILE rows of engines whose iterations take `times` as long; what a request costs besides stays."""
    rows = profiles.copy()
    for name in _TIMES:
        rows[name] *= times
    return rows


block_time = kernel(timing.block_time)
on_line = kernel(timing.on_line)
curve_time = kernel(rebound(timing.curve_time, on_line=on_line))
sequences_time = kernel(rebound(timing.sequences_time, curve_time=curve_time))
iteration_time = kernel(rebound(timing.iteration_time, curve_time=curve_time))
adapters_time = kernel(timing.adapters_time)
shared_time = kernel(rebound(timing.shared_time, on_line=on_line))
lone_time = kernel(rebound(timing.lone_time, curve_time=curve_time, shared_time=shared_time))
first_time = kernel(rebound(timing.first_time, lone_time=lone_time))
prefill_work = kernel(timing.prefill_work)
decoding_time = kernel(rebound(timing.decoding_time, sequences_time=sequences_time))
gain = kernel(timing.gain)
decode_work = kernel(rebound(timing.decode_work, decoding_time=decoding_time, gain=gain))
rank_work = kernel(
    rebound(timing.rank_work, curve_time=curve_time, sequences_time=sequences_time, decoding_time=decoding_time, gain=gain)
)
request_work = kernel(rebound(timing.request_work, rank_work=rank_work))
allowed = kernel(in_time)


@kernel
def engine_times(profile: Rec, prompt: Ints, output: Ints, into: Floats) -> None:
    """Microseconds per request: into[0] of engine time among its like, into[1] until an idle engine's first token.

    Args:
        profile: a PROFILE row.
        prompt: int[n], tokens.
        output: int[n], tokens.
        into: float64[2, n], filled in.
    """
    for i in range(len(prompt)):
        into[0, i] = request_work(profile, prompt[i], 0, float(output[i]))
        into[1, i] = first_time(profile, prompt[i], 0)


@kernel
def first_times(profile: Rec, prompt: Ints, cached: Ints, into: Ints, at: Ints) -> None:
    """Microseconds from the arrival of prompts at an idle engine to their first tokens, the engine's front end included.

    Args:
        profile: a PROFILE row.
        prompt: int[n], tokens.
        cached: int[n], of these, found in the prefix cache.
        into: int64[m], filled in
        at: int64[n], at these rows.
    """
    for k in range(len(prompt)):
        into[at[k]] = int(first_time(profile, prompt[k], cached[k])) + profile["entry"]
