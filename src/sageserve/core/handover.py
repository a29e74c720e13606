"""Models whose prefill and decode are apart, disaggregated: in two pools, and how long a KV cache takes from one to the other.

Knows no fleet. Read next: `layout.py`, `sim/kernel/apart/sending.py`.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import Floats
from sageserve.base.units import Micros

PREFILL: Final = "prefill"
DECODE: Final = "decode"


@dataclass(frozen=True, slots=True)
class Handover:
    """All columns by model.

    Args:
        apart: whether prefill and decode are; instances of role 0 prefill then, those of role 1 decode.
        token_us: microseconds that the KV cache of a token takes on the link of a prefill instance.
        latency: microseconds from the end of that to the other side.
    """

    apart: tuple[bool, ...]
    token_us: tuple[float, ...]
    latency: tuple[Micros, ...]

    def way(self, model: NDArray[Any], prompt: NDArray[Any]) -> Floats:
        """float64[n]: microseconds that the KV caches of requests take over links that are free; 0 where they stay."""
        return prompt * np.array(self.token_us)[model] + np.array(self.latency)[model]
