"""Who gets into the batch of an engine, and who loses the place in it: memory, the token budget, preemption.

The rules are stated in docs/reference/kernel.md, section "Inside an instance"; those on numbers alone are `core/engine/rules.py`.
Read next: `batching.py`, which composes blocks of what is admitted here.
"""

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.core.engine import rules
from sageserve.core.perf import prefill_work
from sageserve.sim.kernel.adapters.slots import leave_slot, take_slot
from sageserve.sim.kernel.apart.sending import is_kept, let_source_go
from sageserve.sim.kernel.bookkeeping import does, note_outstanding, set_place, unlink
from sageserve.sim.kernel.prefix_cache import ALL, covered, found_of, hold, is_hashed, let_go, look_up, make_way
from sageserve.sim.kernel.queues import add_finish, head_of, pop_front, push_front
from sageserve.sim.kernel.rows.handover import PREFILLS
from sageserve.sim.kernel.state import PREFILLING, RUNNING, WAITING, view_endpoints, view_engines, view_profiles, view_requests

tokens_made = kernel(rules.tokens_made)
fits_memory = kernel(rules.fits_memory)
fits_whole = kernel(rules.fits_whole)
found_again = kernel(rules.found_again)


@kernel
def still_made(w: Rec, i: int, q: int) -> int:
    """Tokens that request `q`, which does not decode, will make at rank `i` after the next one; none if that only prefills."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    return 0 if does(w, i) == PREFILLS else int(r["output"] - r["made"] - 1)


@kernel
def fits(w: Rec, i: int, q: int, used: int, running: int, held: int) -> bool:
    """Whether request `q`, of which others hold `held` tokens, fits beside `running` others when `used` KV tokens are taken."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    context, capacity = r["prompt"] + r["made"] - held, profile["kv_tokens"]
    if profile["evicts"] == 0:  # what decoding takes until then was promised: the sum of the two is the same then
        left = 1 + still_made(w, i, q) + (running + 1) * profile["drafted"]
        return bool(fits_whole(engine["used"], engine["promised"], context, left, running, capacity))
    return bool(fits_memory(used, context, running, capacity, profile["drafted"]))


@kernel
def shared(w: Rec, i: int, q: int) -> tuple[int, int]:
    """Blocks of request `q` that instance `i` has, and tokens of them that others hold; nothing when it is not hashed."""
    if not is_hashed(w, q):
        return 0, 0
    found, held = look_up(w, i, q)
    return found, held * w["block_tokens"]


@kernel
def found_tokens(w: Rec, i: int, q: int, blocks: int) -> int:
    """Tokens of the context of request `q` that need not be computed: its cached prefix, or what preemption left of it."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    cached = found_of(w, q, blocks) if is_hashed(w, q) else r["cached"]
    if q != engine["lost"] or view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["caching"] == 0:
        return int(cached)
    return int(found_again(cached, r["prompt"] + r["made"], engine["lost_tokens"], engine["given"] - engine["lost_given"]))


@kernel
def preempt(w: Rec, i: int) -> None:
    """Send the latest admitted request back to the front of its queue; what was not cached at first must be prefilled again."""
    engines = view_engines(w["at_engines"], w["units"])
    engine = engines[i]
    requests = view_requests(w["at_requests"], w["rows"])
    q = engine["partial"]
    if q >= 0:
        engine["partial"] = UNSET
        engine["used"] -= requests[q]["prompt"] + requests[q]["made"] + 1 - covered(w, q)
        engine["promised"] -= still_made(w, i, q)
        engine["lost_tokens"] = engine["filled"]
        let_go(w, i, q, engine["filled"])
    else:
        q = engine["latest"]
        r = requests[q]
        unlink(w, i, q)  # its link lies where `made` goes
        extra = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["extra"]
        r["made"] = r["output"] - (r["finish_step"] - tokens_made(engine["steps"], extra))
        r["finish_step"] = UNSET
        context = r["prompt"] + r["made"]
        engine["used"] -= context - covered(w, q)
        engine["kv"] -= context
        engine["promised"] -= r["output"] - r["made"]
        let_go(w, i, q, ALL)
        engine["running"] -= 1
        engine["lost_tokens"] = context
        engines[engine["head"]]["unfilled"] += context - r["cached"]
        profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
        endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
        endpoint["backlog"] += prefill_work(profile, context, r["cached"])
    if w["adapted"] != 0:
        leave_slot(w, i, q)
    engine["lost"] = q
    engine["lost_given"] = engine["given"]
    set_place(w, q, WAITING)
    push_front(w, i, q)
    engine["waiting"] += 1
    view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]["preempted"] += 1
    w["preemptions"] += 1


@kernel
def make_room(w: Rec, i: int) -> bool:
    """Preempt until every decoding sequence can have one more token, and its drafts; returns whether anything was preempted."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    capacity, each = profile["kv_tokens"], profile["drafted"] + 1
    preempted = False
    while engine["used"] + engine["running"] * each > capacity and engine["running"] + (engine["partial"] >= 0) > 1:
        preempt(w, i)
        preempted = True
    if preempted:
        note_outstanding(w, i)
    return preempted


@kernel
def take_blocks(w: Rec, i: int, q: int, blocks: int) -> None:
    """The context of request `q`, which found so many blocks, is reserved: what it shares counts once, idle blocks make way.

    What was expected of it when it was placed is put right, unless it is computed anew after a preemption.
    """
    if w["caches"] == 0:
        return
    if not is_hashed(w, q):
        make_way(w, i)
        return
    engine = view_engines(w["at_engines"], w["units"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    engine["used"] -= covered(w, q)
    hold(w, i, q, blocks)
    make_way(w, i)
    found = found_of(w, q, blocks)
    if r["made"] == 0 and found != r["cached"]:
        profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
        endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
        endpoint["backlog"] += prefill_work(profile, r["prompt"], found) - prefill_work(profile, r["prompt"], r["cached"])
        view_engines(w["at_engines"], w["units"])[engine["head"]]["unfilled"] += r["cached"] - found
        r["cached"] = found
        note_outstanding(w, i)


@kernel
def begin_decoding(w: Rec, i: int, q: int) -> None:
    """A prompt is filled and has more than one token to make: it decodes from the next iteration on."""
    engines = view_engines(w["at_engines"], w["units"])
    requests = view_requests(w["at_requests"], w["rows"])
    engine = engines[i]
    r = requests[q]
    extra = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["extra"]
    add_finish(w, i, q, tokens_made(engine["steps"], extra) + r["output"] - r["made"] - 1)
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
def leave_queue(w: Rec, i: int, q: int, now: int) -> None:
    """Request `q`, the next one of rank `i`, is admitted: it waits no longer, and has its slot."""
    pop_front(w, i, q)
    view_engines(w["at_engines"], w["units"])[i]["waiting"] -= 1
    if w["adapted"] != 0:
        take_slot(w, i, q, now)


@kernel
def let_in(w: Rec, i: int, q: int, now: int) -> int:
    """Request `q`, prefilled elsewhere, decodes at rank `i` from now on: its first token is out. Tokens it takes of a budget."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    r = view_requests(w["at_requests"], w["rows"])[q]
    leave_queue(w, i, q, now)
    engine["used"] += r["prompt"] + 1
    engine["given"] += 1
    engine["promised"] += still_made(w, i, q)
    r["first"] = now + view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["entry"]
    begin_decoding(w, i, q)
    let_source_go(w, q, now)
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    return int(profile["mixed"] * (profile["drafted"] + 1))


@kernel
def add_to_batch(w: Rec, i: int, last: int, q: int) -> None:
    """Request `q` is prefilled at rank `i` after request `last` of the same batch; UNSET: it is the first."""
    requests = view_requests(w["at_requests"], w["rows"])
    requests[q]["next"] = UNSET
    if last >= 0:
        requests[last]["next"] = q
    else:
        view_engines(w["at_engines"], w["units"])[i]["batch"] = q


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
        Prompt tokens, their attention sum, and the number of prompts that this iteration completes. Where a prompt is only partly
        filled by it, these are all that it has room for beside those that decode, who were let in just now included.
    """
    engine = view_engines(w["at_engines"], w["units"])[i]
    requests = view_requests(w["at_requests"], w["rows"])
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]
    chunked = profile["chunked"] != 0
    tokens, attention, completed, last = 0, 0.0, 0, UNSET
    q = engine["partial"]
    if q >= 0:
        context = requests[q]["prompt"] + requests[q]["made"]
        rest = context - engine["filled"]
        if rest > budget:
            engine["filled"] += budget
            return budget, budget * (engine["filled"] - 0.5 * budget), 0
        tokens = rest
        attention = rest * (engine["filled"] + 0.5 * rest)
        engine["partial"], engine["batch"] = UNSET, q
        requests[q]["next"] = UNSET
        last, completed = q, 1
    while take and tokens < budget and engine["running"] + completed < profile["max_sequences"] and engine["waiting"] > 0:
        q = head_of(w, i, now)
        if q < 0:
            break
        blocks, held = shared(w, i, q)
        if not fits(w, i, q, engine["used"], engine["running"] + completed, held):
            break
        if is_kept(w, q):
            budget -= let_in(w, i, q, now)
            continue
        context, found = requests[q]["prompt"] + requests[q]["made"], found_tokens(w, i, q, blocks)
        rest, left = context - found, budget - tokens
        if rest > left and not chunked and completed > 0:
            break
        leave_queue(w, i, q, now)
        engine["used"] += context + 1
        engine["given"] += rest + 1
        engine["promised"] += still_made(w, i, q)
        take_blocks(w, i, q, blocks)
        set_place(w, q, PREFILLING)
        if rest > left and chunked:
            engine["partial"] = q
            engine["filled"] = found + left
            return budget, attention + left * (found + 0.5 * left), completed
        add_to_batch(w, i, last, q)
        last, completed = q, completed + 1
        tokens += rest
        attention += rest * (found + 0.5 * rest)
    return tokens, attention, completed


@kernel
def whole_budgets(w: Rec, i: int, budget: int) -> int:
    """How many further whole budgets of the partly filled prompt come before its last piece."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    r = view_requests(w["at_requests"], w["rows"])[engine["partial"]]
    rest = r["prompt"] + r["made"] - engine["filled"]
    return int((rest - 1) // budget) if rest > 0 else 0
