"""Which instance of an endpoint takes a request: by work, by what caches have of it, or by a rule of the user's.

Decides nothing itself: `core/route.py` does, from the columns of instances. Read next: `own.py`; `sim/kernel/arrive.py`.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.core.route import AFFINITY, CLOSED, pick_affine, pick_instance
from sageserve.sim.kernel.adapters.slots import is_loaded
from sageserve.sim.kernel.choices.own import best_instance, score_instances
from sageserve.sim.kernel.prefix_cache import found_of, is_hashed, look_up, look_up_all
from sageserve.sim.kernel.queues import choose_rank, least_outstanding
from sageserve.sim.kernel.state import span_i8, view_engines, view_i8, view_requests
from sageserve.sim.kernel.turns import would_find


@kernel
def look_for(w: Rec, e: int, q: int) -> None:
    """Note the tokens of request `q` that each open instance of endpoint `e` has."""
    slots = w["slots"]
    twigs = w["twigs"]
    begin = e * 2 * twigs + twigs
    tree = view_i8(w["at_outstanding"], w["endpoint_count"] * 2 * twigs)
    found = view_i8(w["at_found"], slots)
    hashed = is_hashed(w, q)
    engines = view_engines(w["at_engines"], w["units"])
    for k in range(slots):
        found[k] = -1 if tree[begin + k] != CLOSED else 0
        i = e * slots + k
        if hashed and found[k] < 0 and engines[i]["ranks"] > 1:
            found[k] = look_up(w, choose_rank(w, i), q)[0]
    if hashed:
        look_up_all(w, e, q, found)
    for k in range(slots):
        if hashed:
            found[k] = found_of(w, q, max(found[k], 0))
        elif found[k] < 0:
            found[k] = would_find(w, e * slots + k, q)


@kernel
def choose_affine(w: Rec, e: int, q: int) -> int:
    """The open instance of endpoint `e` with the least outstanding work after request `q`, less what it has of it."""
    look_for(w, e, q)
    slots = w["slots"]
    twigs = w["twigs"]
    begin = e * 2 * twigs + twigs
    tree = view_i8(w["at_outstanding"], w["endpoint_count"] * 2 * twigs)
    found = span_i8(w["at_found"], slots)
    weights = span_i8(w["at_weights"], w["instances"])[e * slots : (e + 1) * slots]
    prompt = view_requests(w["at_requests"], w["rows"])[q]["prompt"]
    overlap = w["overlap"]
    if w["adapted"] != 0:
        for k in range(slots):
            found[k] = int(overlap * found[k])
            if tree[begin + k] != CLOSED and is_loaded(w, choose_rank(w, e * slots + k), q):
                found[k] += w["adapter_tokens"]
        overlap = 1.0
    return int(e * slots + pick_affine(overlap, prompt, tree, begin, found, weights) - begin)


@kernel
def choose_instance(w: Rec, e: int, q: int) -> int:
    """The open instance of endpoint `e` with the least outstanding work, or (affinity) with the least after request `q`."""
    if w["own_instance"] != 0 and w["own_failed"] == 0:
        if w["own_finds"] != 0:
            look_for(w, e, q)
        if score_instances(w, e, q):
            return best_instance(w, e)
    if w["instance"] == AFFINITY and (w["caches"] != 0 or w["loop"] != 0 or w["adapted"] != 0):
        return choose_affine(w, e, q)
    if w["linear"] == 0:
        return least_outstanding(w, e)
    twigs = w["twigs"]
    begin = e * 2 * twigs + twigs
    tree = view_i8(w["at_outstanding"], w["endpoint_count"] * 2 * twigs)
    return int(e * w["slots"] + pick_instance(tree, begin, begin + w["slots"]) - begin)
