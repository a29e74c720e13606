"""Continuous batching of one engine: what a block does when it ends, and which block comes next.

Nothing here walks the batch: an engine keeps sums (decoding sequences, KV tokens, unfilled tokens) and a heap of finish
steps, so every event is O(log batch). The rules are stated in docs/reference/kernel.md, section "Inside an instance".
Must not know regions, routing or batch feeding; `arrive.py` and `engine.py` call it. Read next: `admission.py`.
"""

from sageserve.base.kernel import Rec, inlined, kernel
from sageserve.base.records import UNSET
from sageserve.base.units import NEVER
from sageserve.core.engine import rules
from sageserve.core.perf import block_time, gain, iteration_time, prefill_work
from sageserve.sim.kernel.adapters.slots import leave_slot, slots_time, view_adapted
from sageserve.sim.kernel.admission import admit, begin_decoding, make_room, tokens_made, whole_budgets
from sageserve.sim.kernel.apart.sending import send_off
from sageserve.sim.kernel.bookkeeping import does, finish, log_block, note_outstanding, unlink
from sageserve.sim.kernel.prefix_cache import covered, finish_prefix, make_way
from sageserve.sim.kernel.queues import drop_first_finish, first_finish, set_time
from sageserve.sim.kernel.rows.handover import PREFILLS
from sageserve.sim.kernel.state import (
    DECODE,
    IDLE,
    PREFILL,
    SHUT,
    view_endpoints,
    view_engines,
    view_i4,
    view_profiles,
    view_requests,
)

steps_until = kernel(rules.steps_until)
steps_within = kernel(rules.steps_within)


@kernel
def end_decode(w: Rec, i: int, now: int) -> int:
    """Account for the decode steps of the block that ends now; returns how many requests finished."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    requests = view_requests(w["at_requests"], w["rows"])
    extra = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["extra"]
    before = engine["steps"]
    made = before + engine["length"]
    engine["steps"] = made
    if extra != 0:
        before, made = tokens_made(before, extra), tokens_made(made, extra)
    grown = (made - before) * engine["running"]
    engine["kv"] += grown
    engine["used"] += grown
    engine["promised"] -= grown
    engine["given"] += grown
    if w["caches"] != 0:
        make_way(w, i)
    finished = 0
    while True:
        entry = first_finish(w, i)
        if entry < 0 or entry >> 32 > made:
            return finished
        drop_first_finish(w, i)
        q = entry & 0xFFFFFFFF
        beyond = made - (entry >> 32)  # tokens that were accepted after its last one
        held = requests[q]["prompt"] + requests[q]["output"] + beyond
        engine["promised"] += beyond
        engine["kv"] -= held
        engine["used"] -= held - covered(w, q)
        engine["running"] -= 1
        unlink(w, i, q)
        finish_prefix(w, i, q)
        if w["adapted"] != 0:
            leave_slot(w, i, q)
        finish(w, i, q, now)
        finished += 1


@kernel
def end_prefill(w: Rec, i: int, now: int) -> int:
    """Every prompt of the prefill batch yields a token now; returns how many requests finished, or leave to decode."""
    engines = view_engines(w["at_engines"], w["units"])
    engine = engines[i]
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
        engines[engine["head"]]["unfilled"] -= context - r["cached"]
        endpoint["backlog"] -= prefill_work(profile, context, r["cached"])
        last = r["made"] + 1 == r["output"]
        leaves = does(w, i) == PREFILLS and not last
        if w["adapted"] != 0 and (last or leaves):
            leave_slot(w, i, q)
        if leaves:
            send_off(w, i, q, now)
            finished += 1
            q = following
            continue
        if r["first"] == UNSET:
            r["first"] = now + profile["entry"]
        if last:
            engine["used"] -= context + 1 - covered(w, q)
            finish_prefix(w, i, q)
            finish(w, i, q, now)
            finished += 1
        else:
            begin_decoding(w, i, q)
        q = following
    return finished


@inlined
def plan_block(w: Rec, i: int, now: int) -> tuple[int, float, int, int, float]:
    """Choose what the next block of rank `i` computes.

    Returns:
        Prompt tokens and their attention sum in the first iteration, sequences that decode, iterations (0: there is nothing to
        do), and the attention sum that each iteration has more than the one before.
    """
    engine = view_engines(w["at_engines"], w["units"])[i]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    mixed = profile["mixed"] != 0
    each = profile["drafted"] + 1
    crowded = engine["used"] + engine["running"] * each > profile["kv_tokens"]  # or there is nothing to ask of `make_room`
    alone = False  # nothing may join, and the block is one iteration long
    if mixed and crowded and engine["running"] > 0:
        alone = make_room(w, i)
    budget = profile["max_batched"] - (engine["running"] * each if mixed else 0)
    tokens = 0
    attention = 0.0
    completed = 0
    if engine["waiting"] > 0 or engine["partial"] >= 0:
        tokens, attention, completed = admit(w, i, now, budget, not alone)
    if not mixed and tokens == 0 and crowded and engine["running"] > 0:
        alone = make_room(w, i)
    decoding = engine["running"] if mixed or tokens == 0 else 0
    if decoding == 0 and tokens == 0:
        return 0, 0.0, 0, 0, 0.0
    more = 0.0
    length = NEVER
    if decoding > 0:
        extra = profile["extra"]
        room = (profile["kv_tokens"] - engine["used"] - decoding * each) // decoding  # before the last iteration
        done = first_finish(w, i) >> 32
        if extra != 0:
            done = steps_until(done, extra)
            room = steps_within(tokens_made(engine["steps"], extra) + room, extra) - engine["steps"]
        length = min(done - engine["steps"], room + 1)
    if alone or completed > 0 or (w["adapted"] != 0 and view_adapted(w["at_adapter_units"], w["units"])[i]["loads"] > 0):
        length = 1
    elif engine["partial"] >= 0:
        length = min(length, 1 + whole_budgets(w, i, tokens))
        more = tokens * float(tokens)
    return tokens, attention, decoding, max(length, 1), more


@kernel
def compose(w: Rec, i: int, now: int) -> None:
    """Choose the next block of rank `i`, which keeps no step with others, and say when it ends."""
    tokens, attention, decoding, length, more = plan_block(w, i, now)
    if length == 0:
        fall_idle(w, i)
        return
    engine = view_engines(w["at_engines"], w["units"])[i]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    first = iteration_time(profile, tokens, attention, decoding, engine["kv"] if decoding > 0 else 0)
    if w["adapted"] != 0:
        first += slots_time(w, i, tokens)
    step = profile["kv"] * decoding * gain(profile) + profile["attention"] * more
    if length > 1 and tokens > 0:
        engine["filled"] += (length - 1) * tokens
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
    """Rank `i` has nothing to do: it waits for work; the instance closes if it is draining and no rank has any."""
    engines = view_engines(w["at_engines"], w["units"])
    engine = engines[i]
    engine["length"] = 0
    engine["phase"] = IDLE
    set_time(w, i, NEVER)
    head = engine["head"]
    if engines[head]["draining"] != 0 and engines[head]["in_flight"] == 0:
        engines[head]["phase"] = SHUT
        engines[head]["draining"] = 0
        view_i4(w["at_drained"], w["instances"])[w["drained_count"]] = head
        w["drained_count"] += 1


@kernel
def end_block(w: Rec, i: int, now: int) -> int:
    """Everything that happens when rank `i`, which keeps no step with others, ends its block; returns how many finished."""
    engine = view_engines(w["at_engines"], w["units"])[i]
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
