"""From a prefilled prompt to where it is decoded: whose KV cache is on the way, and who keeps it until it is let in.

A rank that only prefills sends the KV caches of its prompts over its link, one after the other, and keeps each in its memory
until the other side has let the request in. The rules are stated in docs/reference/kernel.md, "Prefill and decode apart". Must
not choose where a request goes: `sim/kernel/leaving/landing.py` does. Read next: `sim/kernel/admission.py`, which lets in.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.base.units import NEVER
from sageserve.sim.kernel.bookkeeping import note_outstanding, set_place
from sageserve.sim.kernel.queues import drop_waiting, set_time
from sageserve.sim.kernel.state import (
    IDLE,
    SENDING,
    view_endpoints,
    view_engines,
    view_f8,
    view_i4,
    view_i8,
    view_requests,
)


@kernel
def is_kept(w: Rec, q: int) -> bool:
    """Whether the KV cache of request `q` is at an instance that only prefills."""
    return bool(w["hands"] != 0 and view_i4(w["at_source"], w["rows"])[q] >= 0)


@kernel
def send_off(w: Rec, i: int, q: int, now: int) -> None:
    """The prompt of request `q` is filled at rank `i`, which only prefills: its KV cache takes its turn on the link."""
    requests = view_requests(w["at_requests"], w["rows"])
    model = requests[q]["model"]
    link = view_i8(w["at_link"], w["units"])
    begins = max(now, link[i])
    link[i] = begins + int(requests[q]["prompt"] * view_f8(w["at_sent_token"], w["models"])[model] + 0.5)
    lands = link[i] + view_i8(w["at_sent_latency"], w["models"])[model]
    view_i8(w["at_landing"], w["rows"])[q] = lands
    view_i4(w["at_source"], w["rows"])[q] = i
    set_place(w, q, SENDING)
    requests[q]["next"] = UNSET
    ends = view_i4(w["at_sending"], 2 * w["units"])
    if ends[2 * i + 1] >= 0:
        requests[ends[2 * i + 1]]["next"] = q
    else:
        ends[2 * i] = q
        set_time(w, w["units"] + i, lands)
    ends[2 * i + 1] = q


@kernel
def take_landed(w: Rec, i: int, now: int) -> int:
    """Take the request whose KV cache has left rank `i` first off the link."""
    ends = view_i4(w["at_sending"], 2 * w["units"])
    q = ends[2 * i]
    following = view_requests(w["at_requests"], w["rows"])[q]["next"]
    ends[2 * i] = following
    if following >= 0:
        set_time(w, w["units"] + i, max(now, view_i8(w["at_landing"], w["rows"])[following]))
    else:
        forget_sent(w, i)
    return int(q)


@kernel
def forget_sent(w: Rec, i: int) -> None:
    """Nothing of rank `i` is on the way."""
    from_now_on = view_i4(w["at_sending"], 2 * w["units"])
    from_now_on[2 * i], from_now_on[2 * i + 1] = UNSET, UNSET
    set_time(w, w["units"] + i, NEVER)


@kernel
def stir(w: Rec, u: int, now: int) -> None:
    """Rank `u` has more room, or less to do: if it is idle it looks at its queue again, or closes."""
    engines = view_engines(w["at_engines"], w["units"])
    i = engines[u]["head"] if engines[u]["lockstep"] != 0 else u
    head = engines[engines[u]["head"]]
    over = head["draining"] != 0 and head["in_flight"] == 0
    idle = engines[i]["phase"] == IDLE and view_i8(w["at_times"], 2 * w["leaves"])[w["leaves"] + i] > now
    if idle and (engines[u]["waiting"] > 0 or over):
        set_time(w, i, now)


@kernel
def leave(w: Rec, u: int) -> None:
    """One request less is at rank `u`."""
    engines = view_engines(w["at_engines"], w["units"])
    engines[u]["in_flight"] -= 1
    if engines[u]["head"] != u:
        engines[engines[u]["head"]]["in_flight"] -= 1


@kernel
def let_source_go(w: Rec, q: int, now: int) -> None:
    """The KV cache of request `q` is needed no more where its prompt was prefilled, which is done with it."""
    sources = view_i4(w["at_source"], w["rows"])
    u = sources[q]
    sources[q] = UNSET
    engine = view_engines(w["at_engines"], w["units"])[u]
    engine["used"] -= view_requests(w["at_requests"], w["rows"])[q]["prompt"] + 1
    view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]["finished"] += 1
    w["handed"] += 1
    leave(w, u)
    stir(w, u, now)


@kernel
def take_off_both(w: Rec, q: int, now: int) -> None:
    """Request `q` waits at an instance that decodes, and one of its two is gone: it is at neither any more."""
    engines = view_engines(w["at_engines"], w["units"])
    i = view_requests(w["at_requests"], w["rows"])[q]["instance"]
    for k in range(engines[i]["ranks"]):
        u = i if k == 0 else engines[i]["others"] + k - 1
        if drop_waiting(w, u, q):
            engines[u]["waiting"] -= 1
            leave(w, u)
            stir(w, u, now)
    view_endpoints(w["at_endpoints"], w["endpoint_count"])[engines[i]["endpoint"]]["placed"] -= 1
    note_outstanding(w, i)
    let_source_go(w, q, now)
