"""From the front door to an engine's queue: routing, admission, batch queue, doors, feeding, promotion.

Decides nothing itself: `core/route.py`, `core/admit.py` and `core/feed.py` do, from the fleet's columns. The gateway and the live
batch queue call the same functions (tests/parity shows that the same follows). The rules are stated in
docs/reference/kernel.md. Read next: `engine.py`, which drives this and the engines.
"""

from typing import Any

from numpy.typing import NDArray

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.base.units import NEVER
from sageserve.core.admit import is_admitted, predicted_wait
from sageserve.core.feed import DIRECT, is_over, note_fed, pick_feed, share, share_left
from sageserve.core.perf import allowed, block_time, first_time, prefill_work, request_work
from sageserve.core.response import MIX_WIDTH, note_request
from sageserve.core.route import QUICKEST, expected_first, pick_endpoint
from sageserve.sim.kernel.admission import fits, shared
from sageserve.sim.kernel.bookkeeping import (
    count_held,
    expected_work,
    note_outstanding,
    on_the_way,
    set_place,
    shed,
    wait_at_door,
    wait_or_shed,
)
from sageserve.sim.kernel.choices.instances import choose_instance
from sageserve.sim.kernel.choices.jobs import hand_over, jobs_wait, next_at_door, next_job, pressing_job, push_job
from sageserve.sim.kernel.choices.own import best_endpoint, note_admission, own_says
from sageserve.sim.kernel.choices.regions import is_ready, pick_ready
from sageserve.sim.kernel.choices.shares import note_let_in, owner_of, room_for
from sageserve.sim.kernel.queues import (
    choose_rank,
    head_of,
    push_back,
    set_time,
)
from sageserve.sim.kernel.ranks import cut_together, passed_iterations, used_after
from sageserve.sim.kernel.state import (
    DECODE,
    HELD,
    IDLE,
    PROMOTED,
    REFUSED,
    WAITING,
    span_f8,
    span_i4,
    view_endpoints,
    view_engines,
    view_f8,
    view_i4,
    view_i8,
    view_profiles,
    view_requests,
    view_tiers,
)
from sageserve.sim.kernel.turns import break_off, remember


@kernel
def cut_block(w: Rec, i: int, q: int, now: int) -> None:
    """End the decode block of a rank on its own at the end of the iteration in progress, if request `q` could then join."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    if engine["running"] >= view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["max_sequences"]:
        return
    if head_of(w, i, now) != q:
        return
    length = engine["length"]
    n = passed_iterations(w, i, length, now)
    if not fits(w, i, q, used_after(w, i, n), engine["running"], shared(w, i, q)[1]):
        return
    engine["cut"] = 1
    if n < length:
        engine["length"] = n
        set_time(w, i, engine["start"] + block_time(engine["first"], engine["step"], n))


@kernel
def place(w: Rec, i: int, q: int, now: int, work: float) -> None:
    """Put request `q`, which is expected to need so much engine time (us), into a queue of instance `i`."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    endpoint["backlog"] += prefill_work(profile, r["prompt"], r["cached"])
    engine["unfilled"] += r["prompt"] - r["cached"]
    join_queue(w, i, q, now, work)


@kernel
def join_queue(w: Rec, i: int, q: int, now: int, work: float) -> None:
    """Request `q` waits at a rank of instance `i` from now on, which it brings so much work (us)."""
    engines = view_engines(w["at_engines"], w["units"])
    engine = engines[i]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    endpoint["offered"] += work
    endpoint["placed"] += 1
    set_place(w, q, WAITING)
    view_requests(w["at_requests"], w["rows"])[q]["instance"] = i
    u = choose_rank(w, i) if engine["ranks"] > 1 else i
    push_back(w, u, q)
    engines[u]["waiting"] += 1
    if u != i:
        engines[u]["in_flight"] += 1
    engine["in_flight"] += 1
    note_outstanding(w, i)
    wake(w, u, q, now)


@kernel
def wake(w: Rec, u: int, q: int, now: int) -> None:
    """Rank `u` has been given request `q`: it begins now if it is idle, or its block is cut."""
    engines = view_engines(w["at_engines"], w["units"])
    together = engines[u]["lockstep"] != 0
    i = engines[u]["head"] if together else u
    if engines[i]["phase"] == IDLE:
        if view_i8(w["at_times"], 2 * w["leaves"])[w["leaves"] + i] > now:
            set_time(w, i, now)
    elif engines[i]["cut"] == 0:
        if together:
            cut_together(w, i, u, q, now)
        elif engines[u]["phase"] == DECODE:
            cut_block(w, u, q, now)


@kernel
def is_let_in(w: Rec, e: int, q: int, work: float, part: float) -> bool:
    """Whether endpoint `e`, which is open, may be given request `q` of so much engine time (us), in this part of its queue."""
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[e]
    r = view_requests(w["at_requests"], w["rows"])[q]
    tier = view_tiers(w["at_tier_rows"], w["tiers"])[r["tier"]]
    in_flight = endpoint["placed"] - endpoint["finished"]
    wait = predicted_wait(endpoint["backlog"], in_flight, endpoint["sequences"], work, endpoint["open"])
    limit = part * (w["admission_wait"] * allowed(tier["patience"], tier["growth"], r["prompt"]))
    most = int(part * (w["admission_queued"] * endpoint["sequences"]))
    if w["own_admission"] != 0 and w["own_failed"] == 0:
        note_admission(w, e, q, wait, work)
        return own_says(w, limit, most)
    return is_admitted(wait, limit, in_flight, most)


@kernel
def first_token(w: Rec, e: int, q: int, elapsed: int) -> float:
    """Microseconds until the first token of request `q` would be back from endpoint `e`, which is open."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    i = choose_instance(w, e, q)
    remember(w, i, q)
    engine = view_engines(w["at_engines"], w["units"])[i]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    regions = w["regions"]
    way = view_i8(w["at_rtt"], regions * regions)[r["region"] * regions + e // (w["models"] * w["roles"])]
    queued = engine["unfilled"] * profile["whole"] * profile["per_rank"]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[e]
    return way + profile["entry"] + expected_first(w, endpoint, elapsed, first_time(profile, r["prompt"], r["cached"]), queued)


@kernel
def find_quickest(w: Rec, q: int, walk: NDArray[Any], elapsed: int, both: bool) -> int:
    """The ready endpoint of a walk from which the first token of request `q` would be back first; -1: none is ready."""
    best = -1
    least = 0.0
    for e in walk:
        if e < 0:
            break
        if not is_ready(w, e, both):
            continue
        first = first_token(w, e, q, elapsed)
        if best < 0 or first < least:
            best = int(e)
            least = first
    return best


@kernel
def find_endpoint(w: Rec, q: int, now: int) -> int:
    """The endpoint that routing chooses for request `q`; -1 when none has an open instance."""
    if w["hands"] != 0:
        e = find_ready(w, q, now, True)
        if e >= 0:
            return e
    return find_ready(w, q, now, False)


@kernel
def find_ready(w: Rec, q: int, now: int, both: bool) -> int:
    """As `find_endpoint`; with `both`, of endpoints whose prompts have somewhere to go."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    width = w["walk_length"]
    cells = w["regions"] * w["models"] * w["tiers"]
    begin = ((r["region"] * w["models"] + r["model"]) * w["tiers"] + r["tier"]) * width
    walk = span_i4(w["at_walk"], cells * width)
    endpoints = view_endpoints(w["at_endpoints"], w["endpoint_count"])
    if w["own_region"] != 0 and w["own_failed"] == 0:
        best = best_endpoint(w, q, walk[begin : begin + width], now - w["last_scrape"], both)
        if w["own_failed"] == 0:
            return best
    if w["route"] == QUICKEST:
        return find_quickest(w, q, walk[begin : begin + width], now - w["last_scrape"], both)
    if both:
        return pick_ready(w, walk[begin : begin + width], now - w["last_scrape"])
    return pick_endpoint(w, endpoints, walk, begin, begin + width, now - w["last_scrape"])


@kernel
def send(w: Rec, q: int, now: int, judged: bool) -> bool:
    """Route request `q` and place it; False when it found no open instance, or is to be judged and is not let in."""
    e = find_endpoint(w, q, now)
    if e < 0:
        return False
    i = choose_instance(w, e, q)
    remember(w, i, q)
    work = expected_work(w, i, q)
    if judged:
        shared = w["sharers"] > 1
        if not is_let_in(w, e, q, work, room_for(w, q, now) if shared else 1.0):
            return False
        if shared:
            note_let_in(w, q)
    place(w, i, q, now, work)
    return True


@kernel
def empty_door(w: Rec, door: int, now: int, judged: bool) -> None:
    """Send every request that waits at a door of a model; those that find nothing stay, in order.

    With admission only batch work waits at the first one; it comes again, and the first that is not let in ends it.
    """
    requests = view_requests(w["at_requests"], w["rows"])
    heads = view_i4(w["at_door_head"], w["models"] * (2 + w["sharers"]))
    tails = view_i4(w["at_door_tail"], w["models"] * (2 + w["sharers"]))
    q = heads[door]
    last = tails[door]
    heads[door] = UNSET
    tails[door] = UNSET
    while q >= 0:
        following = requests[q]["next"]
        count_held(w, q, -1)
        if judged and is_over(requests[q]["deadline"], now):
            shed(w, q)
        elif not send(w, q, now, judged):
            if judged:
                count_held(w, q, 1)
                heads[door] = q
                tails[door] = last
                return
            wait_at_door(w, q, door)
        q = following


@kernel
def empty_shared_door(w: Rec, model: int, now: int) -> None:
    """As `empty_door` with admission, where tenants share: they take turns, and who is not let in ends it for its own."""
    requests = view_requests(w["at_requests"], w["rows"])
    doors = 2 * w["models"] + model * w["sharers"]
    heads = view_i4(w["at_door_head"], w["models"] * (2 + w["sharers"]))
    turned_away = view_i4(w["at_turned_away"], w["sharers"])
    for owner in range(w["sharers"]):
        turned_away[owner] = 0
    q = next_at_door(w, model)
    while q >= 0:
        owner = owner_of(w, q)
        following = requests[q]["next"]
        over = is_over(requests[q]["deadline"], now)
        if over or send(w, q, now, True):
            heads[doors + owner] = following
            if following < 0:
                view_i4(w["at_door_tail"], w["models"] * (2 + w["sharers"]))[doors + owner] = UNSET
            count_held(w, q, -1)
        else:
            turned_away[owner] = 1
        if over:
            shed(w, q)
        q = next_at_door(w, model)


@kernel
def empty_doors(w: Rec, model: int, now: int) -> None:
    """Send every request that waits at the doors of a model, those that are held last."""
    if w["sharers"] > 1 and w["admission"] != 0:
        empty_shared_door(w, model, now)
    else:
        empty_door(w, model, now, w["admission"] != 0)
    if w["sleepers"] != 0:
        empty_door(w, w["models"] + model, now, False)


@kernel
def feed_some(w: Rec, e: int, limit: int, now: int) -> None:
    """Give endpoint `e`, which has an open instance, the batch jobs it has room for, at most `limit`."""
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[e]
    model = endpoint["model"]
    left = min(share(w["feed"], w["signal"], endpoint, w["half_life"]), limit)
    while left > 0:
        q = next_job(w, model, now)
        if q < 0:
            return
        hand_over(w, q)
        r = view_requests(w["at_requests"], w["rows"])[q]
        mean = view_f8(w["at_output_mean"], w["models"] * w["tiers"])[r["model"] * w["tiers"] + r["tier"]]
        i = choose_instance(w, e, q)
        remember(w, i, q)
        work = expected_work(w, i, q)
        place(w, i, q, now, work)
        note_fed(endpoint, work, r["prompt"] + mean)
        limit -= 1
        left = min(share_left(w["feed"], w["signal"], endpoint, w["half_life"], left - 1), limit)


@kernel
def feed_endpoint(w: Rec, e: int, now: int) -> None:
    """Feed endpoint `e` if it serves batch work, is open, and jobs of its model wait."""
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[e]
    if endpoint["feeds"] != 0 and endpoint["open"] > 0 and jobs_wait(w, endpoint["model"]):
        feed_some(w, e, NEVER, now)


@kernel
def hold_job(w: Rec, q: int, now: int) -> None:
    """Queue a batch request; the least utilised endpoint of its walk may take one job at once."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    set_place(w, q, HELD)
    push_job(w, q)
    width = w["walk_length"]
    walk = view_i4(w["at_walk"], w["regions"] * w["models"] * w["tiers"] * width)
    begin = ((r["region"] * w["models"] + r["model"]) * w["tiers"] + r["tier"]) * width
    endpoints = view_endpoints(w["at_endpoints"], w["endpoint_count"])
    e = pick_feed(w["signal"], w["half_life"], endpoints, walk, begin, begin + width)
    if e >= 0:
        feed_some(w, e, 1, now)


@kernel
def promote(w: Rec, model: int, now: int) -> None:
    """Give interactive priority to the batch jobs of a model that are old or about to be late."""
    q = pressing_job(w, model, now)
    while q >= 0:
        r = view_requests(w["at_requests"], w["rows"])[q]
        hand_over(w, q)
        r["state"] |= PROMOTED
        send(w, q, now, False)
        q = pressing_job(w, model, now)


@kernel
def count(w: Rec, q: int) -> None:
    """Count what request `q` brings: tokens and engine time by cell, and what waits depend on by model."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    model = r["model"]
    tiers = w["tiers"]
    cells = w["regions"] * w["models"] * tiers
    cell = (r["region"] * w["models"] + model) * tiers + r["tier"]
    view_i8(w["at_demand_tokens"], cells)[cell] += r["prompt"]
    view_i8(w["at_demand_requests"], cells)[cell] += 1
    profile = view_profiles(w["at_profiles"], w["profile_count"])[view_i4(w["at_reference"], w["models"])[model]]
    work = request_work(
        profile, r["prompt"], r["cached"], view_f8(w["at_output_mean"], w["models"] * tiers)[model * tiers + r["tier"]]
    )
    view_f8(w["at_demand_work"], cells)[cell] += work
    tier = view_tiers(w["at_tier_rows"], tiers)[r["tier"]]
    if tier["batch"] == 0 or w["feed"] == DIRECT:
        near = view_i8(w["at_rtt"], w["regions"] * w["regions"])[r["region"] * (w["regions"] + 1)]
        idle = first_time(profile, r["prompt"], r["cached"]) + profile["entry"] + near
        if w["hands"] != 0:
            idle += on_the_way(w, q)
        mixes = span_f8(w["at_mixes"], w["models"] * MIX_WIDTH)
        begin = int(model) * MIX_WIDTH  # in eight bits it would not fit where nothing is compiled
        counted = mixes[begin : begin + MIX_WIDTH]
        patience = allowed(tier["patience"], tier["growth"], r["prompt"])
        note_request(counted, prefill_work(profile, r["prompt"], r["cached"]), work, patience - idle)
        if patience > idle:
            view_i8(w["at_promises"], 2 * cells)[cell] += 1


@kernel
def arrive(w: Rec, q: int, now: int) -> None:
    """Request `q` reaches the front door."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    tiers = w["tiers"]
    count(w, q)
    if r["prompt"] + 1 > view_i8(w["at_context"], w["models"])[r["model"]]:
        set_place(w, q, REFUSED)
        w["refused"] += 1
        break_off(w, q)
    elif view_tiers(w["at_tier_rows"], tiers)[r["tier"]]["batch"] != 0 and w["feed"] != DIRECT:
        hold_job(w, q, now)
    elif not send(w, q, now, w["admission"] != 0):
        wait_or_shed(w, q)
