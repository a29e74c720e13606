"""Which waiting request goes next: one sort key per order, smaller first.

Each tier waits in its own FIFO and only the heads are compared, so every order costs O(tiers). Knows one request at a
time and no queue. Orders (algorithms: FCFS, EDF, PF, DPA), DPA's classes from most to least urgent:

    0        severely expired          slack < -expired
    1 + rank urgent interactive        0 <= slack < urgent
    101 + rank other interactive       slack >= urgent
    201      recently expired          -expired <= slack < 0
    202      batch
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import Ints

FCFS: Final = 0
EDF: Final = 1
PF: Final = 2
DPA: Final = 3
ORDERS: Final = ("fcfs", "edf", "pf", "dpa")

TIER: Final = np.dtype(
    [
        ("urgent", "i8"),
        ("expired", "i8"),
        ("patience", "i8"),  # microseconds from arrival to the promise
        ("growth", "i8"),  # more for 1,000 tokens of prompt; see base/promise.py
        ("gap", "i8"),  # microseconds that each token after the first may take; 0: none is promised
        ("rank", "i4"),  # 0 is served first; at most 99
        ("batch", "i4"),
    ],
    align=True,
)
_CLASS: Final = 1 << 52  # a deadline in microseconds stays below this for 142 years


@kernel
def order_key(order: int, tier: Rec, promoted: bool, arrival: int, deadline: int, now: int) -> int:
    """Sort key of a request at the head of its queue.

    Args:
        order: FCFS, EDF, PF or DPA.
        tier: the request's TIER row.
        promoted: batch work that was given interactive priority (rank 0).
        arrival: when it arrived, microseconds.
        deadline: when it wants to be served (interactive: first token) or done (batch), microseconds.
        now: the present instant, microseconds.
    """
    if order == FCFS:
        return arrival
    if order == EDF:
        return deadline
    rank = 0 if promoted else int(tier["rank"])
    if order == PF:
        return rank * _CLASS + arrival
    slack = deadline - now
    if slack < -tier["expired"]:
        return deadline
    if slack < 0:
        return 201 * _CLASS + deadline
    if tier["batch"] != 0 and not promoted:
        return 202 * _CLASS + deadline
    if slack < tier["urgent"]:
        return (1 + rank) * _CLASS + deadline
    return (101 + rank) * _CLASS + deadline


def promised_us(tiers: NDArray[Any], tier: NDArray[Any], prompt: NDArray[Any]) -> Ints:
    """int64[n]: microseconds from arrival to the promise of each request.

    Args:
        tiers: TIER rows.
        tier: int[n], rows of them.
        prompt: int[n], tokens.
    """
    promised: Ints = tiers["patience"][tier] + tiers["growth"][tier] * prompt // 1000  # `allowed`, of columns
    return promised
