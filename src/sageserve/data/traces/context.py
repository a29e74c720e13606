"""Which requests are too long for their model's context, of a file or generated.

Reads nothing, and loads no reader. Read next: `core/admit.py` for what becomes of them.
"""

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import Ints


def context_notes(
    prompt: NDArray[np.int32] | Ints, output: NDArray[np.int32] | Ints, model: NDArray[np.uint8], scenario: Scenario
) -> list[str]:
    """How many requests do not fit their model's context: refused, or kept with a shorter answer."""
    context = np.array([each.context for each in scenario.models.values()], dtype=np.int64)[model]
    refused = prompt.astype(np.int64) + 1 > context
    cut = ~refused & (prompt.astype(np.int64) + output > context)
    if not refused.any() and not cut.any():
        return []
    total, lost, shorter = len(prompt), int(refused.sum()), int(cut.sum())
    longest = f" (longest prompt {int(prompt.max()):,} tokens)"
    said = f"of {total:,} requests {lost:,} are refused at the door, because their prompt leaves no room in their model's context"
    return [f"{said}{longest}; {shorter:,} are kept with their answer cut to it; {total - lost - shorter:,} fit"]
