"""Which region takes a request where prefill and decode may be apart: one whose prompts have somewhere to go.

An endpoint that prefills is passed over while the next one, where its prompts are decoded, has nobody open, and is as full as the
fuller of the two. Anything else is as `core/route.py` has it. Read next: `sim/kernel/arrive.py`, the caller;
docs/reference/kernel.md, "Prefill and decode apart".
"""

from typing import Any

from numpy.typing import NDArray

from sageserve.base.kernel import Rec, kernel
from sageserve.core.route import NEAREST, THRESHOLD, expected
from sageserve.sim.kernel.bookkeeping import does
from sageserve.sim.kernel.rows.handover import PREFILLS
from sageserve.sim.kernel.state import view_endpoints


@kernel
def is_ready(w: Rec, e: int, both: bool) -> bool:
    """Whether endpoint `e` is open; with `both`, where its prompts are decoded, too."""
    endpoints = view_endpoints(w["at_endpoints"], w["endpoint_count"])
    if endpoints[e]["open"] == 0:
        return False
    return not both or does(w, e * w["slots"]) != PREFILLS or endpoints[e + 1]["open"] > 0


@kernel
def fuller(w: Rec, e: int, elapsed: int) -> float:
    """Expected utilisation of endpoint `e`, or of where its prompts are decoded, if that is more; both are open."""
    endpoints = view_endpoints(w["at_endpoints"], w["endpoint_count"])
    found = expected(w, endpoints[e], elapsed)
    if does(w, e * w["slots"]) == PREFILLS:
        found = max(found, expected(w, endpoints[e + 1], elapsed))
    return found


@kernel
def pick_ready(w: Rec, walk: NDArray[Any], elapsed: int) -> int:
    """As `pick_endpoint`, of endpoints whose prompts have somewhere to go; -1: there is none."""
    best = -1
    least = 0.0
    for e in walk:
        if e < 0:
            break
        if not is_ready(w, e, True):
            continue
        if w["route"] == NEAREST:
            return int(e)
        utilisation = fuller(w, e, elapsed)
        if w["route"] == THRESHOLD and utilisation < w["threshold"]:
            return int(e)
        if best < 0 or utilisation < least:
            best = int(e)
            least = utilisation
    return best
