"""Arrays of conversations: who waits for whom, and what an instance keeps of them. Read next: `sim/kernel/turns.py`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.sessions import Turns


def turn_arrays(turns: Turns | None, cached: NDArray[Any], instances: int) -> dict[str, NDArray[Any]]:
    """What conversations need; next to nothing where there are none.

    Args:
        turns: of the requests; None: nobody waits for an answer.
        cached: int32[n], tokens of their prompts that are stated to be found.
        instances: rows of instances.
    """
    none = np.zeros(1, np.int32)
    return {
        "before": none if turns is None else np.ascontiguousarray(turns.before),
        "after": none if turns is None else np.ascontiguousarray(turns.after),
        "pause": np.zeros(1, np.int64) if turns is None else np.ascontiguousarray(turns.pause),
        "stated": none if turns is None else cached.copy(),
        "turn_heap": none if turns is None else np.zeros(max(1, turns.first), np.int32),
        "opened": np.zeros(instances, np.int64),
    }
