"""Instances that are gone at once, with what they were doing: what they had is taken back, and sent anew or broken off.

The rules are stated in docs/reference/kernel.md, "When an instance is lost". Read next:
`sim/kernel/engine.py`, whose `Kernel.lose` says which.
"""

from typing import Any

from numpy.typing import NDArray

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.base.units import NEVER
from sageserve.core.feed import DIRECT
from sageserve.core.perf import prefill_work
from sageserve.sim.kernel.adapters.slots import empty_slots
from sageserve.sim.kernel.apart.sending import forget_sent, is_kept, take_off_both
from sageserve.sim.kernel.arrive import send
from sageserve.sim.kernel.bookkeeping import note_outstanding, set_place, shed, wait_or_shed
from sageserve.sim.kernel.choices.jobs import push_job
from sageserve.sim.kernel.prefix_cache import ALL, is_hashed, let_go
from sageserve.sim.kernel.queues import row_of_rank, set_time
from sageserve.sim.kernel.state import (
    HELD,
    IDLE,
    PLACE,
    PROMOTED,
    RUNNING,
    SENDING,
    SHUT,
    WAITING,
    view_endpoints,
    view_engines,
    view_i4,
    view_i8,
    view_nodes,
    view_prefixes,
    view_profiles,
    view_requests,
    view_tiers,
)


@kernel
def count_capacity(w: Rec, i: int, sign: int) -> None:
    """Count what instance `i` can hold and run as capacity of its endpoint; -1: count it no more."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    endpoint["kv_tokens"] += sign * profile["ranks"] * profile["kv_tokens"]
    endpoint["sequences"] += sign * profile["ranks"] * profile["max_sequences"]


@kernel
def take_back(w: Rec, q: int) -> None:
    """Request `q` is at an instance no more: nothing of it is in that instance's cache, queue or counts."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    i = r["instance"]
    place = r["state"] & PLACE
    if w["adapted"] != 0:
        view_i8(w["at_passed"], w["rows"])[q] = UNSET
    if is_kept(w, q) and place == WAITING:
        take_off_both(w, q, w["now"])
        return
    engine = view_engines(w["at_engines"], w["units"])[i]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    endpoint["placed"] -= 1
    if place == SENDING:
        view_i4(w["at_source"], w["rows"])[q] = UNSET
        return
    if place != RUNNING:
        profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
        endpoint["backlog"] -= prefill_work(profile, r["prompt"] + r["made"], r["cached"])
    if place != WAITING and is_hashed(w, q):
        n = view_prefixes(w["at_prefixes"], w["rows"])[q]["node"]
        if n >= 0:
            let_go(w, view_nodes(w["at_nodes"], w["node_rows"])[n]["instance"], q, ALL)


@kernel
def shut_down(w: Rec, i: int) -> None:
    """Instance `i` is gone, whose requests were taken back."""
    engines = view_engines(w["at_engines"], w["units"])
    engine = engines[i]
    if engine["draining"] == 0:
        view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]["open"] -= 1
        count_capacity(w, i, -1)
    lanes = w["tiers"] + 1
    for k in range(engine["ranks"]):
        u = row_of_rank(w, i, k)
        rank = engines[u]
        rank["kv"], rank["used"], rank["unfilled"], rank["running"], rank["heap"], rank["length"] = 0, 0, 0, 0, 0, 0
        rank["promised"] = 0
        rank["waiting"], rank["in_flight"], rank["cut"], rank["draining"] = 0, 0, 0, 0
        rank["batch"], rank["partial"], rank["latest"], rank["lost"] = UNSET, UNSET, UNSET, UNSET
        rank["phase"] = IDLE
        set_time(w, u, NEVER)
        if w["adapted"] != 0:
            empty_slots(w, u)
        if w["hands"] != 0:
            forget_sent(w, u)
            view_i8(w["at_link"], w["units"])[u] = 0
        for lane in range(u * lanes, (u + 1) * lanes):
            view_i4(w["at_heads"], w["units"] * lanes)[lane] = UNSET
            view_i4(w["at_tails"], w["units"] * lanes)[lane] = UNSET
    engine["phase"] = SHUT
    note_outstanding(w, i)


@kernel
def send_again(w: Rec, q: int, now: int) -> None:
    """Request `q` lost its instance: without a first token, or as queued batch work, it is sent anew; else it is broken off."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    r["finish_step"] = UNSET
    r["made"] = 0
    batch = view_tiers(w["at_tier_rows"], w["tiers"])[r["tier"]]["batch"] != 0
    if r["first"] != UNSET and not batch:
        shed(w, q)
        return
    r["first"] = UNSET
    r["instance"] = UNSET
    if batch and w["feed"] != DIRECT and r["state"] & PROMOTED == 0:
        set_place(w, q, HELD)
        push_job(w, q)
    elif not send(w, q, now, False):
        wait_or_shed(w, q)


@kernel
def lose_instances(w: Rec, rows: NDArray[Any], instances: int) -> None:
    """So many open or draining instances, the first of `rows`, are gone now; after them come the requests that they have."""
    for k in range(instances, len(rows)):
        take_back(w, rows[k])
    for k in range(instances):
        shut_down(w, rows[k])
    for k in range(instances, len(rows)):
        send_again(w, rows[k], w["now"])
