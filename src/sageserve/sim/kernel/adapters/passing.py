"""Who is passed over: requests whose adapter has no slot stay in their queue, and those after them go first.

Of each queue is kept how far it was looked at: while the adapters in the batch stay the same, so does who is passed over.
The rules are stated in docs/reference/kernel.md, "Adapters". Read next: `slots.py`; `sim/kernel/queues.py`, the caller.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.sim.kernel.adapters.slots import find_slot, view_adapted
from sageserve.sim.kernel.state import view_i4, view_i8, view_requests


@kernel
def first_with_slot(w: Rec, i: int, lane: int, now: int) -> int:
    """The first request of a queue of rank `i` that may be admitted as far as slots go; -1: there is none."""
    lanes = w["tiers"] + 1
    k = i * lanes + lane
    last = view_i4(w["at_last_passed"], w["units"] * lanes)
    seen = view_i8(w["at_passed_version"], w["units"] * lanes)
    requests = view_requests(w["at_requests"], w["rows"])
    version = view_adapted(w["at_adapter_units"], w["units"])[i]["version"]
    if seen[k] != version:
        seen[k] = version
        last[k] = UNSET
    before = last[k]
    q = requests[before]["next"] if before >= 0 else view_i4(w["at_heads"], w["units"] * lanes)[k]
    passed = view_i8(w["at_passed"], w["rows"])
    while q >= 0 and find_slot(w, i, q) == -1:
        if passed[q] == UNSET:
            passed[q] = now
        before = q
        q = requests[q]["next"]
    last[k] = before
    return int(q)


@kernel
def take_out(w: Rec, i: int, lane: int, q: int) -> None:
    """Take request `q`, which `first_with_slot` has just given, out of its queue."""
    lanes = w["tiers"] + 1
    k = i * lanes + lane
    requests = view_requests(w["at_requests"], w["rows"])
    before = view_i4(w["at_last_passed"], w["units"] * lanes)[k]
    following = requests[q]["next"]
    if before >= 0:
        requests[before]["next"] = following
    else:
        view_i4(w["at_heads"], w["units"] * lanes)[k] = following
    if following < 0:
        view_i4(w["at_tails"], w["units"] * lanes)[k] = before


@kernel
def look_anew(w: Rec, i: int) -> None:
    """The queues of rank `i` have changed elsewhere than at their ends."""
    view_adapted(w["at_adapter_units"], w["units"])[i]["version"] += 1
