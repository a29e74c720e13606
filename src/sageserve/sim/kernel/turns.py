"""The closed loop of conversations: a turn arrives a pause after the answer before it, and may find what was said in a cache.

Turns that wait for an answer have no arrival yet (UNSET), and their deadline counts from it. When the answer is with whoever
asked, they wait for their time in a heap. Who is refused or shed gets no answer: what would have followed has "never arrived".
The rules are stated in docs/reference/kernel.md, "Conversations". Read next: `engine.py`, which lets turns arrive.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import CACHE_BLOCK
from sageserve.base.units import NEVER
from sageserve.sim.kernel.prefix_cache import found_of, is_hashed, look_up
from sageserve.sim.kernel.queues import choose_rank, pop_row, push_row
from sageserve.sim.kernel.state import (
    DONE,
    PLACE,
    view_engines,
    view_i4,
    view_i8,
    view_profiles,
    view_requests,
)


@kernel
def answer(w: Rec, i: int, q: int) -> None:
    """Instance `i` has finished request `q`: the turn that waits for it arrives a round trip and its pause later."""
    if w["loop"] == 0:
        return
    later = view_i4(w["at_after"], w["rows"])[q]
    if later < 0:
        return
    requests = view_requests(w["at_requests"], w["rows"])
    served = i // w["slots"] // (w["models"] * w["roles"])
    away = view_i8(w["at_rtt"], w["regions"] * w["regions"])[requests[q]["region"] * w["regions"] + served]
    r = requests[later]
    r["arrival"] = requests[q]["finish"] + away + view_i8(w["at_pause"], w["rows"])[later]
    r["deadline"] += r["arrival"]
    heap = view_i4(w["at_turn_heap"], w["rows"])
    push_row(w, heap, 0, w["turns_waiting"], later, True)
    w["turns_waiting"] += 1
    w["next_turn"] = requests[heap[0]]["arrival"]


@kernel
def next_turn(w: Rec) -> int:
    """Take the turn that arrives first out of those whose time is known; there must be one."""
    heap = view_i4(w["at_turn_heap"], w["rows"])
    q = pop_row(w, heap, 0, w["turns_waiting"], True)
    w["turns_waiting"] -= 1
    w["turns_arrived"] += 1
    w["next_turn"] = NEVER
    if w["turns_waiting"] > 0:
        w["next_turn"] = view_requests(w["at_requests"], w["rows"])[heap[0]]["arrival"]
    return q


@kernel
def break_off(w: Rec, q: int) -> None:
    """Request `q` gets no answer: the turns that would have followed it never arrive."""
    if w["loop"] == 0:
        return
    after = view_i4(w["at_after"], w["rows"])
    q = after[q]
    while q >= 0:
        w["never_arrived"] += 1
        q = after[q]


@kernel
def would_find(w: Rec, i: int, q: int) -> int:
    """What instance `i` has now of the prompt of request `q`: its blocks, or what is stated, or the conversation."""
    if is_hashed(w, q):
        return found_of(w, q, look_up(w, choose_rank(w, i), q)[0])
    if w["loop"] == 0:
        return int(view_requests(w["at_requests"], w["rows"])[q]["cached"])
    stated = view_i4(w["at_stated"], w["rows"])[q]
    return int(max(stated, conversation_kept(w, i, q)))


@kernel
def remember(w: Rec, i: int, q: int) -> None:
    """Say how much of its prompt request `q` is expected to find at instance `i`."""
    if w["loop"] != 0 or w["caches"] != 0:
        view_requests(w["at_requests"], w["rows"])[q]["cached"] = would_find(w, i, q)


@kernel
def conversation_kept(w: Rec, i: int, q: int) -> int:
    """Tokens of the prompt of request `q` that instance `i` keeps of the latest turn before it that it has served."""
    requests = view_requests(w["at_requests"], w["rows"])
    before = view_i4(w["at_before"], w["rows"])
    engine = view_engines(w["at_engines"], w["units"])[i]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    if view_i4(w["at_keeps"], w["models"])[engine["model"]] == 0:
        return 0
    earlier = before[q]
    while earlier >= 0:
        r = requests[earlier]
        done = r["instance"] == i and r["state"] & PLACE == DONE
        if done and r["finish"] - profile["entry"] > view_i8(w["at_opened"], w["instances"])[i]:  # not started anew since
            kept = min(r["prompt"] + r["output"] - 1, requests[q]["prompt"] - 1)
            return int(kept // CACHE_BLOCK * CACHE_BLOCK)
        earlier = before[earlier]
    return 0
