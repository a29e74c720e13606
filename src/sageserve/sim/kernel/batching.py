"""Continuous batching of one engine: what a block does when it ends, and which block comes next.

Nothing here walks the batch: an engine keeps sums (decoding sequences, KV tokens, unfilled tokens) and a heap of finish
steps, so every event is O(log batch). The rules are stated in docs/reference/kernel.md, section "Inside an instance".
Must not know regions, routing or batch feeding; `arrive.py` and `engine.py` call it.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import CACHE_BLOCK, UNSET
from sageserve.base.units import NEVER
from sageserve.core.perf import block_time, decode_work, iteration_time, prefill_work
from sageserve.core.route import CLOSED
from sageserve.sim.kernel.block_log import log_block
from sageserve.sim.kernel.queues import (
    add_finish,
    drop_first_finish,
    first_finish,
    head_of,
    pop_front,
    push_front,
    set_outstanding,
    set_time,
)
from sageserve.sim.kernel.state import (
    DECODE,
    DONE,
    IDLE,
    PREFILL,
    PREFILLING,
    PROMOTED,
    RUNNING,
    SHUT,
    WAITING,
    view_endpoints,
    view_engines,
    view_f8,
    view_i4,
    view_i8,
    view_profiles,
    view_requests,
)


@kernel
def note_outstanding(w: Rec, i: int) -> None:
    """Bring the outstanding tokens of instance `i` up to date; a draining or closed one stays CLOSED."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    if engine["phase"] == SHUT or engine["draining"] != 0:
        set_outstanding(w, i, CLOSED)
        return
    guess = view_i8(w["at_guess"], w["models"])[engine["model"]]
    weight = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["weight"]
    set_outstanding(w, i, (engine["unfilled"] + guess * engine["in_flight"]) * weight)


@kernel
def set_place(w: Rec, q: int, place: int) -> None:
    """Move request `q` to another state, keeping its flags."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    r["state"] = (r["state"] & PROMOTED) | place


@kernel
def finish(w: Rec, i: int, q: int, now: int) -> None:
    """Request `q` has its last token: count it and learn from its length."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    r = view_requests(w["at_requests"], w["rows"])[q]
    r["finish"] = now + view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["entry"]
    r["finish_step"] = UNSET
    r["made"] = r["output"]
    set_place(w, q, DONE)
    engine["in_flight"] -= 1
    endpoint["finished"] += 1
    endpoint["made"] += r["output"]
    tiers = w["tiers"]
    cell = r["model"] * tiers + r["tier"]
    mean = view_f8(w["at_output_mean"], w["models"] * tiers)
    mean[cell] += (r["output"] - mean[cell]) / 256.0
    cells = w["regions"] * w["models"] * tiers
    view_i8(w["at_made_tokens"], cells)[r["region"] * w["models"] * tiers + cell] += r["output"]


@kernel
def unlink(w: Rec, i: int, q: int) -> None:
    """Take a decoding request out of the list of admissions, which is ordered from latest to earliest."""
    requests = view_requests(w["at_requests"], w["rows"])
    later = requests[q]["prev"]
    earlier = requests[q]["next"]
    if later >= 0:
        requests[later]["next"] = earlier
    else:
        view_engines(w["at_engines"], w["instances"])[i]["latest"] = earlier
    if earlier >= 0:
        requests[earlier]["prev"] = later


@kernel
def begin_decoding(w: Rec, i: int, q: int) -> None:
    """A prompt is filled and has more than one token to make: it decodes from the next iteration on."""
    engines = view_engines(w["at_engines"], w["instances"])
    requests = view_requests(w["at_requests"], w["rows"])
    engine = engines[i]
    r = requests[q]
    add_finish(w, i, q, engine["steps"] + r["output"] - r["made"] - 1)
    engine["kv"] += r["prompt"] + r["made"] + 1
    engine["running"] += 1
    latest = engine["latest"]
    r["prev"] = UNSET  # overwrites `made`
    r["next"] = latest
    if latest >= 0:
        requests[latest]["prev"] = q
    engine["latest"] = q
    set_place(w, q, RUNNING)


@kernel
def end_decode(w: Rec, i: int, now: int) -> int:
    """Account for the decode steps of the block that ends now; returns how many requests finished."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    requests = view_requests(w["at_requests"], w["rows"])
    grown = engine["length"] * engine["running"]
    engine["steps"] += engine["length"]
    engine["kv"] += grown
    engine["used"] += grown
    engine["given"] += grown
    finished = 0
    while True:
        entry = first_finish(w, i)
        if entry < 0 or entry >> 32 != engine["steps"]:
            return finished
        drop_first_finish(w, i)
        q = entry & 0xFFFFFFFF
        held = requests[q]["prompt"] + requests[q]["output"]
        engine["kv"] -= held
        engine["used"] -= held
        engine["running"] -= 1
        unlink(w, i, q)
        finish(w, i, q, now)
        finished += 1


@kernel
def end_prefill(w: Rec, i: int, now: int) -> int:
    """Every prompt of the prefill batch yields a token now; returns how many requests finished with it."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    requests = view_requests(w["at_requests"], w["rows"])
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    q = engine["batch"]
    engine["batch"] = UNSET
    finished = 0
    while q >= 0:
        r = requests[q]
        following = r["next"]
        context = r["prompt"] + r["made"]
        engine["unfilled"] -= context - r["cached"]
        endpoint["backlog"] -= prefill_work(profile, context, r["cached"])
        if r["first"] == UNSET:
            r["first"] = now + profile["entry"]
        if r["made"] + 1 == r["output"]:
            engine["used"] -= context + 1
            finish(w, i, q, now)
            finished += 1
        else:
            begin_decoding(w, i, q)
        q = following
    return finished


@kernel
def preempt(w: Rec, i: int) -> None:
    """Send the latest admitted request back to the front of its queue; what was not cached at first must be prefilled again."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    requests = view_requests(w["at_requests"], w["rows"])
    q = engine["partial"]
    if q >= 0:
        engine["partial"] = UNSET
        engine["used"] -= requests[q]["prompt"] + requests[q]["made"] + 1
        engine["lost_tokens"] = engine["filled"]
    else:
        q = engine["latest"]
        r = requests[q]
        unlink(w, i, q)  # its link lies where `made` goes
        r["made"] = r["output"] - (r["finish_step"] - engine["steps"])
        r["finish_step"] = UNSET
        context = r["prompt"] + r["made"]
        engine["used"] -= context
        engine["kv"] -= context
        engine["running"] -= 1
        engine["lost_tokens"] = context
        engine["unfilled"] += context - r["cached"]
        profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
        endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
        endpoint["backlog"] += prefill_work(profile, context, r["cached"])
    engine["lost"] = q
    engine["lost_given"] = engine["given"]
    set_place(w, q, WAITING)
    push_front(w, i, q)
    engine["waiting"] += 1
    view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]["preempted"] += 1
    w["preemptions"] += 1


@kernel
def make_room(w: Rec, i: int) -> bool:
    """Preempt until every decoding sequence can have one more token; returns whether anything was preempted."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    capacity = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["kv_tokens"]
    preempted = False
    while engine["used"] + engine["running"] > capacity and engine["running"] + (engine["partial"] >= 0) > 1:
        preempt(w, i)
        preempted = True
    if preempted:
        note_outstanding(w, i)
    return preempted


@kernel
def fits(w: Rec, i: int, q: int, used: int, running: int) -> bool:
    """Whether request `q` may be admitted beside `running` others when `used` KV tokens are taken."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    capacity = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["kv_tokens"]
    room = running + 1 if running > 0 else 0
    return bool(used + r["prompt"] + r["made"] + 1 + room <= capacity)


@kernel
def found_tokens(w: Rec, i: int, q: int) -> int:
    """Tokens of the context of request `q` that need not be computed: its cached prefix, or what preemption left of it."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    cached = r["cached"]
    if q != engine["lost"] or view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["caching"] == 0:
        return int(cached)
    left = min(engine["lost_tokens"] - (engine["given"] - engine["lost_given"]), r["prompt"] + r["made"] - 1)
    return int(max(cached, left // CACHE_BLOCK * CACHE_BLOCK))


@kernel
def admit(w: Rec, i: int, now: int, budget: int, take: bool) -> tuple[int, float, int]:
    """Fill an iteration with prompts while tokens, sequences and memory last.

    Args:
        w: the world.
        i: the instance.
        now: the present instant.
        budget: prompt tokens the iteration has room for.
        take: whether waiting requests may be admitted; a partly filled prompt goes on in any case.

    Returns:
        Prompt tokens, their attention sum, and the number of prompts that this iteration completes.
    """
    engine = view_engines(w["at_engines"], w["instances"])[i]
    requests = view_requests(w["at_requests"], w["rows"])
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    chunked = profile["chunked"] != 0
    tokens, attention, completed, last = 0, 0.0, 0, UNSET
    q = engine["partial"]
    if q >= 0:
        context = requests[q]["prompt"] + requests[q]["made"]
        rest = context - engine["filled"]
        if rest > budget:
            attention = budget * (engine["filled"] + 0.5 * budget)
            engine["filled"] += budget
            return budget, attention, 0
        tokens = rest
        attention = rest * (engine["filled"] + 0.5 * rest)
        engine["partial"] = UNSET
        engine["batch"] = q
        requests[q]["next"] = UNSET
        last = q
        completed = 1
    while take and tokens < budget and engine["running"] + completed < profile["max_sequences"] and engine["waiting"] > 0:
        q = head_of(w, i, now)
        if not fits(w, i, q, engine["used"], engine["running"] + completed):
            break
        context, found = requests[q]["prompt"] + requests[q]["made"], found_tokens(w, i, q)
        rest, left = context - found, budget - tokens
        if rest > left and not chunked and completed > 0:
            break
        pop_front(w, i, q)
        engine["waiting"] -= 1
        engine["used"] += context + 1
        engine["given"] += rest + 1
        set_place(w, q, PREFILLING)
        if rest > left and chunked:
            engine["partial"] = q
            engine["filled"] = found + left
            return budget, attention + left * (found + 0.5 * left), completed
        requests[q]["next"] = UNSET
        if last >= 0:
            requests[last]["next"] = q
        else:
            engine["batch"] = q
        last = q
        completed += 1
        tokens += rest
        attention += rest * (found + 0.5 * rest)
    return tokens, attention, completed


@kernel
def whole_budgets(w: Rec, i: int, budget: int) -> int:
    """How many further whole budgets of the partly filled prompt come before its last piece."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    r = view_requests(w["at_requests"], w["rows"])[engine["partial"]]
    rest = r["prompt"] + r["made"] - engine["filled"]
    return int((rest - 1) // budget) if rest > 0 else 0


@kernel
def compose(w: Rec, i: int, now: int) -> None:
    """Choose the next block of instance `i` and say when it ends."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    chunked = profile["chunked"] != 0
    alone = False  # nothing may join, and the block is one iteration long
    if chunked and engine["running"] > 0:
        alone = make_room(w, i)
    budget = profile["max_batched"] - (engine["running"] if chunked else 0)
    tokens = 0
    attention = 0.0
    completed = 0
    if engine["waiting"] > 0 or engine["partial"] >= 0:
        tokens, attention, completed = admit(w, i, now, budget, not alone)
    if not chunked and tokens == 0 and engine["running"] > 0:
        alone = make_room(w, i)
    decoding = engine["running"] if chunked or tokens == 0 else 0
    if decoding == 0 and tokens == 0:
        fall_idle(w, i)
        return
    first = iteration_time(profile, tokens, attention, decoding, engine["kv"] if decoding > 0 else 0)
    step = profile["kv"] * decoding
    length = NEVER
    if decoding > 0:
        length = min((first_finish(w, i) >> 32) - engine["steps"], (profile["kv_tokens"] - engine["used"]) // decoding)
    if alone or completed > 0:
        length = 1
    elif engine["partial"] >= 0:
        if decoding == 0 and first <= profile["floor"]:
            length = 1
        else:
            length = min(length, 1 + whole_budgets(w, i, budget))
            step += profile["attention"] * budget * float(budget)
            engine["filled"] += (length - 1) * budget
    length = max(length, 1)
    engine["phase"] = PREFILL if tokens > 0 else DECODE
    engine["cut"] = 0
    engine["start"] = now
    engine["first"] = first
    engine["step"] = step
    engine["length"] = length if decoding > 0 else 0
    if w["block_rows"] > 0:
        log_block(w, i, tokens, attention, length)
    set_time(w, i, now + block_time(first, step, length))


@kernel
def fall_idle(w: Rec, i: int) -> None:
    """Nothing to do: wait for work, or close if the instance is draining."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    engine["length"] = 0
    engine["phase"] = IDLE
    set_time(w, i, NEVER)
    if engine["draining"] != 0:
        engine["phase"] = SHUT
        engine["draining"] = 0
        view_i4(w["at_drained"], w["instances"])[w["drained_count"]] = i
        w["drained_count"] += 1


@kernel
def end_block(w: Rec, i: int, now: int) -> int:
    """Everything that happens when instance `i` ends its block at `now`; returns how many requests finished."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    finished = 0
    phase = engine["phase"]
    if engine["length"] > 0:
        finished += end_decode(w, i, now)
    if phase == PREFILL:
        finished += end_prefill(w, i, now)
    if finished > 0 or phase == PREFILL:
        note_outstanding(w, i)
    compose(w, i, now)
    return finished


@kernel
def request_work(w: Rec, i: int, q: int) -> tuple[float, float]:
    """Engine microseconds request `q` is expected to need at instance `i`: prefill, decode."""
    engine = view_engines(w["at_engines"], w["instances"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    mean = view_f8(w["at_output_mean"], w["models"] * w["tiers"])[r["model"] * w["tiers"] + r["tier"]]
    return prefill_work(profile, r["prompt"], r["cached"]), decode_work(profile, r["prompt"], mean)
