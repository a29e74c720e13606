"""Engine time still owed when a window ends: what a strategy pushed past the hours that are counted.

An estimate from lengths and the engine model at full batches, so the least that the work can take. Imports little, because
all that a module with a compiled function imports decides whether it is compiled anew. Read next: `core/perf.py` for the
formulas, `summary.py`, which reports it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.kernel import kernel
from sageserve.base.records import UNSET, Floats
from sageserve.core.perf import prefill_work, request_work
from sageserve.sim.kernel.state import PLACE, REFUSED, SHED


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
