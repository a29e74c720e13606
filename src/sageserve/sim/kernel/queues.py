"""The kernel's queues: next events, outstanding tokens, waiting requests, finish steps, requests by time.

Everything is an intrusive list or an implicit tree in fixed memory: no allocation, no stale events, exact ties.
Read next: `batching.py`, which uses them to run an engine.
"""

from typing import Any

from numpy.typing import NDArray

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.base.units import NEVER
from sageserve.core.engine import rules
from sageserve.core.order import order_key
from sageserve.sim.kernel.adapters.passing import first_with_slot, look_anew, take_out
from sageserve.sim.kernel.state import PROMOTED, view_engines, view_i4, view_i8, view_requests, view_tiers

rank_load = kernel(rules.rank_load)

# --- next event per instance: a winner tree of times -------------------------------------------------------------------


@kernel
def set_time(w: Rec, i: int, time: int) -> None:
    """Say when instance `i` has its next event."""
    leaves = w["leaves"]
    times = view_i8(w["at_times"], 2 * leaves)
    node = leaves + i
    times[node] = time
    node >>= 1
    while node > 0:
        least = min(times[2 * node], times[2 * node + 1])
        if times[node] == least:
            break
        times[node] = least
        node >>= 1


@kernel
def next_instance(w: Rec) -> int:
    """The instance whose event is next, lowest number of equals."""
    leaves = w["leaves"]
    times = view_i8(w["at_times"], 2 * leaves)
    time = times[1]
    node = 1
    while node < leaves:
        node = 2 * node
        if times[node] != time:
            node += 1
    return node - leaves


# --- outstanding tokens per instance: leaves of one small tree per endpoint ----------------------------------------------


@kernel
def set_outstanding(w: Rec, i: int, tokens: int) -> None:
    """Say how much work instance `i` has outstanding (CLOSED when it may not receive any)."""
    slots = w["slots"]
    twigs = w["twigs"]
    e = i // slots
    base = e * 2 * twigs
    tree = view_i8(w["at_outstanding"], w["endpoint_count"] * 2 * twigs)
    node = twigs + i - e * slots
    tree[base + node] = tokens
    if w["linear"] != 0:
        return
    node >>= 1
    while node > 0:
        least = min(tree[base + 2 * node], tree[base + 2 * node + 1])
        if tree[base + node] == least:
            break
        tree[base + node] = least
        node >>= 1


@kernel
def least_outstanding(w: Rec, e: int) -> int:
    """The instance of endpoint `e` with the least outstanding work, by the tree (`pick_instance` scans instead)."""
    twigs = w["twigs"]
    base = e * 2 * twigs
    tree = view_i8(w["at_outstanding"], w["endpoint_count"] * 2 * twigs)
    tokens = tree[base + 1]
    node = 1
    while node < twigs:
        node = 2 * node
        if tree[base + node] != tokens:
            node += 1
    return int(e * w["slots"] + node - twigs)


# --- ranks of an instance ------------------------------------------------------------------------------------------------


@kernel
def row_of_rank(w: Rec, i: int, k: int) -> int:
    """The row of rank `k` of instance `i`."""
    return int(i if k == 0 else view_engines(w["at_engines"], w["units"])[i]["others"] + k - 1)


@kernel
def choose_rank(w: Rec, i: int) -> int:
    """The rank of instance `i` that takes the next request, lowest of equals."""
    engines = view_engines(w["at_engines"], w["units"])
    best, least = i, NEVER
    own = engines[i]["in_flight"]  # of the instance, until those of the other ranks are taken off
    for k in range(1, engines[i]["ranks"]):
        u = row_of_rank(w, i, k)
        own -= engines[u]["in_flight"]
        load = rank_load(engines[u]["waiting"], engines[u]["in_flight"])
        if load < least:
            best, least = u, load
    return int(i if rank_load(engines[i]["waiting"], own) <= least else best)


# --- waiting requests: one FIFO per tier and one for promoted jobs ---------------------------------------------------------


@kernel
def queue_of(w: Rec, i: int, q: int) -> int:
    """Position of the queue of instance `i` in which request `q` waits."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    lane = w["tiers"] if r["state"] & PROMOTED else r["tier"]
    return int(i * (w["tiers"] + 1) + lane)


@kernel
def push_back(w: Rec, i: int, q: int) -> None:
    """Append request `q` to its queue at instance `i`."""
    requests = view_requests(w["at_requests"], w["rows"])
    size = w["units"] * (w["tiers"] + 1)
    heads = view_i4(w["at_heads"], size)
    tails = view_i4(w["at_tails"], size)
    k = queue_of(w, i, q)
    requests[q]["next"] = UNSET
    last = tails[k]
    if last >= 0:
        requests[last]["next"] = q
    else:
        heads[k] = q
    tails[k] = q


@kernel
def push_front(w: Rec, i: int, q: int) -> None:
    """Put a preempted request `q` before all others of its queue at instance `i`."""
    requests = view_requests(w["at_requests"], w["rows"])
    size = w["units"] * (w["tiers"] + 1)
    heads = view_i4(w["at_heads"], size)
    k = queue_of(w, i, q)
    requests[q]["next"] = heads[k]
    if heads[k] < 0:
        view_i4(w["at_tails"], size)[k] = q
    heads[k] = q
    if w["adapted"] != 0:
        look_anew(w, i)


@kernel
def pop_front(w: Rec, i: int, q: int) -> None:
    """Take request `q`, the first of its queue at instance `i` that is not passed over, out of it."""
    requests = view_requests(w["at_requests"], w["rows"])
    size = w["units"] * (w["tiers"] + 1)
    k = queue_of(w, i, q)
    if w["adapted"] != 0:
        take_out(w, i, k - i * (w["tiers"] + 1), q)
        return
    following = requests[q]["next"]
    view_i4(w["at_heads"], size)[k] = following
    if following < 0:
        view_i4(w["at_tails"], size)[k] = UNSET


@kernel
def drop_waiting(w: Rec, i: int, q: int) -> bool:
    """Take request `q` out of its queue at rank `i`, wherever in it; False when it is not there. As slow as the queue is long."""
    requests = view_requests(w["at_requests"], w["rows"])
    size = w["units"] * (w["tiers"] + 1)
    k = queue_of(w, i, q)
    before = UNSET
    one = view_i4(w["at_heads"], size)[k]
    while one >= 0 and one != q:
        before = one
        one = requests[one]["next"]
    if one < 0:
        return False
    following = requests[q]["next"]
    if before >= 0:
        requests[before]["next"] = following
    else:
        view_i4(w["at_heads"], size)[k] = following
    if following < 0:
        view_i4(w["at_tails"], size)[k] = before
    if w["adapted"] != 0:
        look_anew(w, i)
    return True


@kernel
def head_of(w: Rec, i: int, now: int) -> int:
    """The request instance `i` should admit next; -1 when none waits, or none has a slot for its adapter."""
    lanes = w["tiers"] + 1
    heads = view_i4(w["at_heads"], w["units"] * lanes)
    requests = view_requests(w["at_requests"], w["rows"])
    tiers = view_tiers(w["at_tier_rows"], w["tiers"])
    order = w["order"]
    best = -1
    least = 0
    for lane in range(lanes):
        q = heads[i * lanes + lane]
        if w["adapted"] != 0:
            q = first_with_slot(w, i, lane, now)
        if q < 0:
            continue
        r = requests[q]
        key = order_key(order, tiers[r["tier"]], lane == w["tiers"], r["arrival"], r["deadline"], now)
        if best < 0 or key < least:
            best = int(q)
            least = key
    return best


# --- finish steps: a binary heap of (step << 32 | request) per instance; entries of preempted requests go stale ------------


@kernel
def push_finish(heap: NDArray[Any], base: int, size: int, entry: int) -> None:
    """Add an entry to the heap of `size` entries that begins at `base`."""
    k = size
    while k > 0:
        parent = (k - 1) >> 1
        value = heap[base + parent]
        if value <= entry:
            break
        heap[base + k] = value
        k = parent
    heap[base + k] = entry


@kernel
def pop_finish(heap: NDArray[Any], base: int, size: int) -> None:
    """Drop the least entry of the heap of `size` entries that begins at `base`."""
    size -= 1
    last = heap[base + size]
    k = 0
    child = 1
    while child < size:
        if child + 1 < size and heap[base + child + 1] < heap[base + child]:
            child += 1
        value = heap[base + child]
        if value >= last:
            break
        heap[base + k] = value
        k = child
        child = 2 * k + 1
    heap[base + k] = last


@kernel
def add_finish(w: Rec, i: int, q: int, step: int) -> None:
    """Note that request `q` of instance `i` finishes at engine step `step`; drops stale entries when memory is full."""
    requests = view_requests(w["at_requests"], w["rows"])
    width = 2 * w["batch_size"]
    base = i * width
    heap = view_i8(w["at_finish"], w["units"] * width)
    engine = view_engines(w["at_engines"], w["units"])[i]
    size = engine["heap"]
    if size == width:
        kept = 0
        for k in range(size):
            entry = heap[base + k]
            r = requests[entry & 0xFFFFFFFF]
            if r["finish_step"] == entry >> 32:
                r["finish_step"] = UNSET  # a request preempted and resumed may have left the same step twice
                push_finish(heap, base, kept, entry)
                kept += 1
        for k in range(kept):
            entry = heap[base + k]
            requests[entry & 0xFFFFFFFF]["finish_step"] = entry >> 32
        size = kept
    requests[q]["finish_step"] = step
    push_finish(heap, base, size, (step << 32) | q)
    engine["heap"] = size + 1


@kernel
def first_finish(w: Rec, i: int) -> int:
    """The entry of instance `i` that finishes first, after dropping stale ones; -1 when nothing runs."""
    requests = view_requests(w["at_requests"], w["rows"])
    width = 2 * w["batch_size"]
    base = i * width
    heap = view_i8(w["at_finish"], w["units"] * width)
    engine = view_engines(w["at_engines"], w["units"])[i]
    while engine["heap"] > 0:
        entry = heap[base]
        if requests[entry & 0xFFFFFFFF]["finish_step"] == entry >> 32:
            return int(entry)
        pop_finish(heap, base, engine["heap"])
        engine["heap"] -= 1
    return -1


@kernel
def drop_first_finish(w: Rec, i: int) -> None:
    """Drop the entry that `first_finish` gave."""
    width = 2 * w["batch_size"]
    engine = view_engines(w["at_engines"], w["units"])[i]
    pop_finish(view_i8(w["at_finish"], w["units"] * width), i * width, engine["heap"])
    engine["heap"] -= 1


# --- requests by time: binary heaps of rows, by (deadline or arrival, row) ------------------------------------------------


@kernel
def sooner(w: Rec, a: int, b: int, arrival: bool) -> bool:
    """Whether request `a` comes before request `b`, by arrival or else by deadline."""
    requests = view_requests(w["at_requests"], w["rows"])
    left = requests[a]["arrival"] if arrival else requests[a]["deadline"]
    right = requests[b]["arrival"] if arrival else requests[b]["deadline"]
    return bool(left < right or (left == right and a < b))


@kernel
def push_row(w: Rec, heap: NDArray[Any], base: int, size: int, q: int, arrival: bool) -> None:
    """Add request `q` to the heap of `size` rows that begins at `base`."""
    k = size
    while k > 0:
        parent = (k - 1) >> 1
        if sooner(w, heap[base + parent], q, arrival):
            break
        heap[base + k] = heap[base + parent]
        k = parent
    heap[base + k] = q


@kernel
def pop_row(w: Rec, heap: NDArray[Any], base: int, size: int, arrival: bool) -> int:
    """Take the first row out of the heap of `size` rows that begins at `base`."""
    size -= 1
    first = heap[base]
    last = heap[base + size]
    k = 0
    child = 1
    while child < size:
        if child + 1 < size and sooner(w, heap[base + child + 1], heap[base + child], arrival):
            child += 1
        if not sooner(w, heap[base + child], last, arrival):
            break
        heap[base + k] = heap[base + child]
        k = child
        child = 2 * k + 1
    heap[base + k] = last
    return int(first)
