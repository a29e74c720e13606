"""What is counted of an instance and its requests: places, outstanding work, doors, who is done, what a request should need.

The log of blocks (`Setup.block_rows` > 0) tells what blocks were made of. Times follow from the engine model's coefficients: it
tells what other coefficients would have made of the same blocks.

A model has two doors. With admission only batch work waits at the first, and is judged again, each tenant's at a door of its own
where they share; at the second is who is held for an endpoint that sleeps, and is let in.

Decides nothing. Read next: `admission.py` and `batching.py`, which call it; `sim/replay.py`, which reads the log.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.core.pace import ANSWER_WIDTH, note_answer
from sageserve.core.perf import decode_work, prefill_work, request_work
from sageserve.core.route import CLOSED
from sageserve.sim.kernel.queues import set_outstanding
from sageserve.sim.kernel.rows.handover import PREFILLS, WHOLE
from sageserve.sim.kernel.state import (
    DONE,
    HELD,
    PROMOTED,
    SHED,
    SHUT,
    span_f8,
    view_blocks,
    view_endpoints,
    view_engines,
    view_f8,
    view_i4,
    view_i8,
    view_profiles,
    view_requests,
    view_tiers,
)
from sageserve.sim.kernel.turns import answer, break_off


@kernel
def does(w: Rec, i: int) -> int:
    """What rank `i` does of a request: PREFILLS or DECODES, or all of it (WHOLE)."""
    return int(view_i4(w["at_does"], w["units"])[i]) if w["hands"] != 0 else WHOLE


@kernel
def on_the_way(w: Rec, q: int) -> float:
    """Microseconds that the KV cache of request `q` takes to where it is decoded, over a link that is free; 0 where it stays."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    each = view_f8(w["at_sent_token"], w["models"])[r["model"]]
    return r["prompt"] * each + view_i8(w["at_sent_latency"], w["models"])[r["model"]]


@kernel
def note_outstanding(w: Rec, i: int) -> None:
    """Bring the outstanding tokens of the instance of rank `i` up to date; a draining or closed one stays CLOSED."""
    i = view_engines(w["at_engines"], w["units"])[i]["head"]
    engine = view_engines(w["at_engines"], w["units"])[i]
    if engine["phase"] == SHUT or engine["draining"] != 0:
        set_outstanding(w, i, CLOSED)
        return
    guess = view_i8(w["at_guess"], w["models"])[engine["model"]] if does(w, i) != PREFILLS else 0
    weight = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["weight"]
    set_outstanding(w, i, (engine["unfilled"] + guess * engine["in_flight"]) * weight)


@kernel
def learn_lengths(w: Rec) -> None:
    """Refresh the mean output length per model, and the outstanding tokens that depend on it."""
    tiers = w["tiers"]
    means = view_f8(w["at_output_mean"], w["models"] * tiers)
    guess = view_i8(w["at_guess"], w["models"])
    changed = False
    for model in range(w["models"]):
        total = 0.0
        for tier in range(tiers):
            total += means[model * tiers + tier]
        value = int(total / tiers + 0.5)
        changed = changed or value != guess[model]
        guess[model] = value
    if changed:
        for i in range(w["instances"]):
            note_outstanding(w, i)


@kernel
def set_place(w: Rec, q: int, place: int) -> None:
    """Move request `q` to another state, keeping its flags."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    r["state"] = (r["state"] & PROMOTED) | place


@kernel
def cell_of(w: Rec, q: int) -> int:
    """Where request `q` is counted: its region, model and tier."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    return int((r["region"] * w["models"] + r["model"]) * w["tiers"] + r["tier"])


@kernel
def miss(w: Rec, q: int) -> None:
    """Count that the promise of request `q` was not kept."""
    cells = w["regions"] * w["models"] * w["tiers"]
    view_i8(w["at_promises"], 2 * cells)[cells + cell_of(w, q)] += 1


@kernel
def shed(w: Rec, q: int) -> None:
    """Turn request `q` away: it is not served."""
    set_place(w, q, SHED)
    miss(w, q)
    w["shed"] += 1
    break_off(w, q)


@kernel
def count_held(w: Rec, q: int, change: int) -> int:
    """Count one request more (1) or less (-1) at a door, or look (0); how many of its kind wait."""
    held = view_i8(w["at_held"], w["regions"] * w["models"] * w["tiers"])
    cell = cell_of(w, q)
    held[cell] += change
    return int(held[cell])


@kernel
def wait_at_door(w: Rec, q: int, door: int) -> None:
    """Keep request `q` until an instance of its model opens: at the model's door, or at its other one, of those that are held."""
    requests = view_requests(w["at_requests"], w["rows"])
    tails = view_i4(w["at_door_tail"], w["models"] * (2 + w["sharers"]))
    count_held(w, q, 1)
    requests[q]["next"] = UNSET
    set_place(w, q, HELD)
    if tails[door] >= 0:
        requests[tails[door]]["next"] = q
    else:
        view_i4(w["at_door_head"], w["models"] * (2 + w["sharers"]))[door] = q
    tails[door] = q


@kernel
def door_of(w: Rec, q: int) -> int:
    """The door that request `q` waits at: of its model, or, with admission where tenants share, of its model and owner."""
    model, many = view_requests(w["at_requests"], w["rows"])[q]["model"], w["sharers"]
    if many == 1 or w["admission"] == 0:
        return int(model)
    return int(2 * w["models"] + model * many + view_i4(w["at_owner"], w["rows"])[q])


@kernel
def find_asleep(w: Rec, q: int) -> int:
    """The nearest endpoint that sleeps and may serve request `q`; -1: there is none, or something is open for it."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    width = w["walk_length"]
    walk = view_i4(w["at_walk"], w["regions"] * w["models"] * w["tiers"] * width)
    begin = ((r["region"] * w["models"] + r["model"]) * w["tiers"] + r["tier"]) * width
    sleeps = view_i4(w["at_sleeps"], w["endpoint_count"])
    endpoints = view_endpoints(w["at_endpoints"], w["endpoint_count"])
    found = -1
    for position in range(begin, begin + width):
        e = walk[position]
        if e < 0:
            break
        if endpoints[e]["open"] > 0:
            return UNSET
        if found < 0 and sleeps[e] != 0:
            found = int(e)
    return found


@kernel
def has_room(w: Rec, e: int, q: int) -> bool:
    """Whether request `q` may be held for endpoint `e`, which sleeps: as many of its kind as one instance would be let have."""
    engine = view_engines(w["at_engines"], w["units"])[e * w["slots"]]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    return bool(count_held(w, q, 0) < w["admission_queued"] * profile["ranks"] * profile["max_sequences"])


@kernel
def wait_or_shed(w: Rec, q: int) -> None:
    """Request `q` was not placed: it waits at the door, is held for an endpoint that sleeps, or is turned away."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    e = find_asleep(w, q) if w["sleepers"] != 0 else UNSET
    if e >= 0 and count_held(w, q, 0) == 0:
        w["asked"] = 1
    if w["admission"] == 0 or view_tiers(w["at_tier_rows"], w["tiers"])[r["tier"]]["batch"] != 0:
        wait_at_door(w, q, door_of(w, q))
    elif e >= 0 and has_room(w, e, q):
        wait_at_door(w, q, w["models"] + r["model"])
    else:
        shed(w, q)


@kernel
def release(w: Rec, now: int) -> None:
    """Closed loop: who has the last token of a request sends the next one."""
    following = view_requests(w["at_requests"], w["rows"])[w["released"]]
    following["deadline"] += now - following["arrival"]
    following["arrival"] = now
    w["released"] += 1


@kernel
def note_pace(w: Rec, q: int, cell: int) -> bool:
    """Count the answer to request `q` by its length, unless it is batch work; whether its tokens came slower than promised."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    tier = view_tiers(w["at_tier_rows"], w["tiers"])[r["tier"]]
    if tier["batch"] != 0:
        return False
    answers = span_f8(w["at_answers"], w["models"] * w["tiers"] * ANSWER_WIDTH)
    note_answer(answers[cell * ANSWER_WIDTH : (cell + 1) * ANSWER_WIDTH], r["output"])
    return bool(tier["gap"] > 0 and r["finish"] - r["first"] > tier["gap"] * (r["output"] - 1))


@kernel
def finish(w: Rec, i: int, q: int, now: int) -> None:
    """Request `q` has its last token, from rank `i`: count it and learn from its length."""
    engines = view_engines(w["at_engines"], w["units"])
    engine = engines[i]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    r = view_requests(w["at_requests"], w["rows"])[q]
    r["finish"] = now + view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["entry"]
    r["finish_step"] = UNSET
    r["made"] = r["output"]
    set_place(w, q, DONE)
    answer(w, engine["head"], q)
    if w["released"] < w["rows"]:
        release(w, r["finish"])
    engine["in_flight"] -= 1
    if engine["head"] != i:
        engines[engine["head"]]["in_flight"] -= 1
    endpoint["finished"] += 1
    endpoint["made"] += r["output"]
    tiers = w["tiers"]
    cell = r["model"] * tiers + r["tier"]
    mean = view_f8(w["at_output_mean"], w["models"] * tiers)
    mean[cell] += (r["output"] - mean[cell]) / 256.0
    cells = w["regions"] * w["models"] * tiers
    view_i8(w["at_made_tokens"], cells)[r["region"] * w["models"] * tiers + cell] += r["output"]
    tier = view_tiers(w["at_tier_rows"], tiers)[r["tier"]]
    left = r["deadline"] - (r["finish"] if tier["batch"] != 0 else r["first"])
    late = w["paced"] != 0 and note_pace(w, q, cell)
    if left < w["farthest"]:  # else it is in time from anywhere
        served = engine["endpoint"] // (w["models"] * w["roles"])
        late |= left < view_i8(w["at_rtt"], w["regions"] * w["regions"])[r["region"] * w["regions"] + served]
    if late:
        miss(w, q)


@kernel
def unlink(w: Rec, i: int, q: int) -> None:
    """Take a decoding request out of the list of admissions, which is ordered from latest to earliest."""
    requests = view_requests(w["at_requests"], w["rows"])
    later = requests[q]["prev"]
    earlier = requests[q]["next"]
    if later >= 0:
        requests[later]["next"] = earlier
    else:
        view_engines(w["at_engines"], w["units"])[i]["latest"] = earlier
    if earlier >= 0:
        requests[earlier]["prev"] = later


@kernel
def expected_work(w: Rec, i: int, q: int) -> float:
    """Engine microseconds that request `q` is expected to need at instance `i`, of which it may do a part."""
    part = does(w, i)
    if part == WHOLE:
        return whole_work(w, i, q)
    engine = view_engines(w["at_engines"], w["units"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    if part == PREFILLS:
        return prefill_work(profile, r["prompt"], r["cached"])
    mean = view_f8(w["at_output_mean"], w["models"] * w["tiers"])[r["model"] * w["tiers"] + r["tier"]]
    return decode_work(profile, r["prompt"], mean)


@kernel
def whole_work(w: Rec, i: int, q: int) -> float:
    """Engine microseconds that all of request `q` is expected to need at an engine like instance `i`."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    mean = view_f8(w["at_output_mean"], w["models"] * w["tiers"])[r["model"] * w["tiers"] + r["tier"]]
    return request_work(profile, r["prompt"], r["cached"], mean)


@kernel
def log_block(w: Rec, i: int, tokens: int, attention: float, length: int) -> None:
    """Write down what the block that instance `i` begins is made of; only count it where the log is full."""
    row = w["block_count"]
    w["block_count"] = row + 1
    if row >= w["block_rows"]:
        return
    engine = view_engines(w["at_engines"], w["units"])[i]
    block = view_blocks(w["at_blocks"], w["block_rows"])[row]
    block["start"] = engine["start"]
    block["steps"] = engine["steps"]
    block["tokens"] = tokens
    block["attention"] = attention
    block["kv"] = engine["kv"]
    block["running"] = engine["running"] if engine["length"] > 0 else 0
    block["length"] = length
    block["instance"] = i
