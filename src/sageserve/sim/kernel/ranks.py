"""Data parallel ranks of one instance: the steps that ranks with experts keep together.

Ranks that keep no step are engines like any other, and `batching.py` is all there is to them. Those that do have one block
together: it begins and ends for all, its iterations take as long as those of the slowest rank, and the instance's row holds its
times. `queues.py` has which rank takes a request. The rules are stated in docs/reference/kernel.md, "Data parallel ranks".
Read next: `batching.py`.
"""

from math import sqrt

from sageserve.base.kernel import Rec, inlined, kernel
from sageserve.base.units import NEVER
from sageserve.core.engine import rules
from sageserve.core.perf import block_time, gain, iteration_time, shared_time
from sageserve.sim.kernel.adapters.slots import slots_time
from sageserve.sim.kernel.admission import fits, shared, tokens_made
from sageserve.sim.kernel.batching import end_decode, end_prefill, fall_idle, plan_block
from sageserve.sim.kernel.bookkeeping import note_outstanding
from sageserve.sim.kernel.queues import head_of, row_of_rank, set_time
from sageserve.sim.kernel.state import DECODE, PREFILL, view_engines, view_profiles

is_slower = kernel(rules.is_slower)
before_overtaking = kernel(rules.before_overtaking)


@inlined
def passed_iterations(w: Rec, i: int, length: int, now: int) -> int:
    """Iterations of the block of row `i`, which has `length`, up to the first that ends at `now` or later."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    start = engine["start"]
    first = engine["first"]
    step = engine["step"]
    passed = float(now - start)
    slope = first - 0.5 * step
    n = int(2.0 * passed / (slope + sqrt(max(slope * slope + 2.0 * step * passed, 0.0)))) + 1
    n = max(1, min(n, length))
    while n < length and start + block_time(first, step, n) < now:
        n += 1
    while n > 1 and start + block_time(first, step, n - 1) >= now:
        n -= 1
    return n


@kernel
def used_after(w: Rec, i: int, n: int) -> int:
    """KV tokens that rank `i` uses after `n` iterations of its block, in which nobody finishes."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    extra = view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["extra"]
    made = n if extra == 0 else tokens_made(engine["steps"] + n, extra) - tokens_made(engine["steps"], extra)
    return int(engine["used"] + made * engine["running"])


@kernel
def compose_together(w: Rec, i: int, now: int) -> None:
    """Choose the next block of all ranks of instance `i`, and say when it ends."""
    engines = view_engines(w["at_engines"], w["units"])
    profile = view_profiles(w["at_profiles"], w["profile_count"])[engines[i]["profile"]]
    computed, prefills, iterations = 0, False, NEVER
    slowest, first, step = -1, 0.0, 0.0
    for k in range(engines[i]["ranks"]):
        u = row_of_rank(w, i, k)
        engine = engines[u]
        tokens, attention, decoding, length, more = plan_block(w, u, now)
        engine["tokens"], engine["length"] = tokens, min(decoding, 1)
        engine["first"], engine["step"] = 0.0, 0.0
        whole_tokens = tokens + decoding * (profile["drafted"] + 1)
        computed += max(whole_tokens, 1)
        if length == 0:
            continue
        whole = iteration_time(profile, tokens, attention, decoding, engine["kv"] if decoding > 0 else 0)
        if w["adapted"] != 0:
            whole += slots_time(w, u, tokens)
        engine["first"] = whole - shared_time(profile, float(whole_tokens))
        engine["step"] = profile["kv"] * decoding * gain(profile) + profile["attention"] * more
        if slowest < 0 or is_slower(engine["first"], engine["step"], first, step):
            slowest, first, step = u, engine["first"], engine["step"]
        prefills = prefills or tokens > 0
        iterations = min(iterations, length)
    if slowest < 0:
        fall_idle(w, i)
        return
    for k in range(engines[i]["ranks"]):
        u = row_of_rank(w, i, k)
        iterations = before_overtaking(first - engines[u]["first"], engines[u]["step"] - step, iterations)
    begin_together(w, i, iterations)
    head = engines[i]
    head["phase"] = PREFILL if prefills else DECODE
    head["cut"] = 0
    head["start"] = now
    head["first"] = first + shared_time(profile, computed * profile["per_rank"])
    head["step"] = step
    set_time(w, i, now + block_time(head["first"], step, iterations))


@kernel
def begin_together(w: Rec, i: int, iterations: int) -> None:
    """The block of instance `i` has so many iterations, for each of its ranks."""
    engines = view_engines(w["at_engines"], w["units"])
    engines[i]["iterations"] = iterations
    for k in range(engines[i]["ranks"]):
        engine = engines[row_of_rank(w, i, k)]
        engine["length"] *= iterations
        if engine["partial"] >= 0:
            engine["filled"] += (iterations - 1) * engine["tokens"]


@kernel
def end_together(w: Rec, i: int, now: int) -> int:
    """Everything that happens when the ranks of instance `i` end their block at `now`; returns how many requests finished."""
    engines = view_engines(w["at_engines"], w["units"])
    finished = 0
    for k in range(engines[i]["ranks"]):
        u = row_of_rank(w, i, k)
        if engines[u]["length"] > 0:
            finished += end_decode(w, u, now)
        if engines[u]["batch"] >= 0:
            finished += end_prefill(w, u, now)
    note_outstanding(w, i)
    compose_together(w, i, now)
    return finished


@kernel
def cut_together(w: Rec, i: int, u: int, q: int, now: int) -> None:
    """End the block of instance `i` at the end of the iteration in progress, if request `q` could then join its rank `u`."""
    engines = view_engines(w["at_engines"], w["units"])
    engine = engines[u]
    if engine["partial"] >= 0 or engine["batch"] >= 0:
        return
    if engine["running"] >= view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["max_sequences"]:
        return
    if head_of(w, u, now) != q:
        return
    length = engines[i]["iterations"]
    n = passed_iterations(w, i, length, now)
    if not fits(w, u, q, used_after(w, u, n), engine["running"], shared(w, u, q)[1]):
        return
    engines[i]["cut"] = 1
    if n == length:
        return
    engines[i]["iterations"] = n
    for k in range(engines[i]["ranks"]):
        other = engines[row_of_rank(w, i, k)]
        other["length"] = min(other["length"], n)
        if other["partial"] >= 0:
            other["filled"] -= (length - n) * other["tokens"]
    set_time(w, i, engines[i]["start"] + block_time(engines[i]["first"], engines[i]["step"], n))
