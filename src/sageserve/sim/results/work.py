"""What requests cost their engines: engine time of what finished, by pool, tier and tenant, its prompts and outputs apart.

And engine time still owed when a window ends: what a strategy pushed past the hours that are counted, an estimate from lengths
and the engine model at full batches, so the least that the work can take. Imports little, because all that a module with a
compiled function imports decides whether it is compiled anew. Read next: `core/perf.py` for the formulas, `allocation.py`, which
shares money by it.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.kernel import kernel
from sageserve.base.records import UNSET, Floats, Ints
from sageserve.core.perf import prefill_work, request_work
from sageserve.sim.kernel.state import PLACE, REFUSED, SHED

SUMS: Final = ("requests", "prompt_tokens", "output_tokens", "prompt_ns", "output_ns")
"""Columns of what `add_work` fills in."""


@kernel
def add_work(
    requests: NDArray[Any], cells: Ints, profile_of: NDArray[np.int32], profiles: NDArray[Any], into: NDArray[np.int64]
) -> None:
    """Add up what requests asked of their engines, at full batches.

    Args:
        requests: REQUEST rows.
        cells: int64[n], row of `into` for each request; UNSET for those that are not counted.
        profile_of: int32[cells], row of `profiles`.
        profiles: PROFILE rows.
        into: int64[cells, SUMS], added to: counts, and nanoseconds of engine time.
    """
    for i in range(len(requests)):
        row = requests[i]
        cell = cells[i]
        if cell == UNSET:
            continue
        profile = profiles[profile_of[cell]]
        prompt = prefill_work(profile, row["prompt"], row["cached"])
        output = max(0.0, request_work(profile, row["prompt"], row["cached"], float(row["output"])) - prompt)
        into[cell, 0] += 1
        into[cell, 1] += row["prompt"]
        into[cell, 2] += row["output"]
        into[cell, 3] += round(1000.0 * prompt)
        into[cell, 4] += round(1000.0 * output)


@kernel
def add_work_left(requests: NDArray[Any], profiles: NDArray[Any], fastest: NDArray[np.int32], end: int, owed: Floats) -> None:
    """Add the engine microseconds that requests which arrived before `end` still need then.

    Of a request that was being decoded, the share of its decoding time that lay after `end` is owed; all of it when it never
    finished.

    Args:
        requests: REQUEST rows in order of arrival.
        profiles: PROFILE rows.
        fastest: int32[models], rows of `profiles`.
        end: microseconds.
        owed: float64[models], added to.
    """
    for i in range(len(requests)):
        row = requests[i]
        if row["arrival"] >= end:
            break
        model = row["model"]
        place = row["state"] & PLACE
        if (row["finish"] != UNSET and row["finish"] <= end) or place in (REFUSED, SHED):
            continue
        profile = profiles[fastest[model]]
        work = request_work(profile, row["prompt"], row["cached"], float(row["output"]))
        decode = max(0.0, work - prefill_work(profile, row["prompt"], row["cached"]))
        if row["first"] == UNSET or row["first"] > end:
            owed[model] += work
        elif row["finish"] != UNSET:
            owed[model] += decode * (row["finish"] - end) / max(row["finish"] - row["first"], 1)
        else:
            owed[model] += decode
