"""Cases in which requests ask for LoRA adapters: some far more than others, and more of them than engines have slots.

Read next: `cases.py`, which draws the rest; docs/reference/kernel.md, "Adapters".
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import UNSET
from sageserve.sim.kernel.rows.adapters import Adapters
from sageserve.sim.kernel.state import Setup


def slot_waits(sim: Any) -> NDArray[np.int64]:  # noqa: ANN401 # either simulator
    """Microseconds that each request was passed over so far."""
    waits: NDArray[np.int64] = sim.slot_wait.copy()
    return waits


def with_adapters(draw: Callable[[int, int], int], setup: Setup, requests: int, grain: int) -> tuple[Setup, Adapters | None]:
    """In one of three worlds engines have slots, or some of them, for fewer adapters than there may be.

    Args:
        draw: as in `cases.py`.
        setup: whose engines have none.
        requests: number of them.
        grain: what times are multiples of.
    """
    if draw(0, 2) != 2:
        return setup, None
    many, popular, plain = draw(1, 9), draw(1, 3), draw(0, 4)
    rows = setup.profiles.copy()
    for row in rows:
        row["slots"] = draw(0, 5) and draw(1, 4)
        row["adapter"] = draw(0, 400) // grain * grain
        row["adapters"] = draw(0, 2) * draw(0, 400) // grain * grain
        row["adapter_load"] = draw(0, 3) * draw(0, 2_000) // grain * grain
    codes = [min(draw(0, many - 1) for _ in range(popular)) if draw(0, 3) >= plain // 2 else UNSET for _ in range(requests)]
    return replace(setup, profiles=rows, adapter_tokens=draw(0, 60)), Adapters(np.array(codes, np.int32))
