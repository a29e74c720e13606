"""Deliberate faults of the kernel, one per law: what is changed where, and what a user would have suffered from.

A fault is a piece of source text, found exactly once, and what stands there instead. Most repeat mistakes that simulators
have really made. Read next: `test_mutants.py`, which shows that the comparison with the reference sees each of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Args:
        name: the fault in words.
        module: source file below the package.
        old: text that occurs once in it.
        new: what replaces it.
        first: the case tried first, where few cases tell.
    """

    name: str
    module: str
    old: str
    new: str
    first: int = 0


MUTANTS = (
    Mutant(
        "memory of a draining instance still counts as capacity",
        "sim/kernel/leaving/losing.py",
        'endpoint["kv_tokens"] += sign * ',
        'endpoint["kv_tokens"] += max(sign, 0) * ',
    ),
    Mutant(
        "a reopened instance keeps draining",
        "sim/kernel/engine.py",
        '    engine["draining"] = 0\n    endpoint["open"] += 1',
        '    endpoint["open"] += 1',
    ),
    Mutant(
        "a draining instance receives work",
        "sim/kernel/bookkeeping.py",
        'if engine["phase"] == SHUT or engine["draining"] != 0:',
        'if engine["phase"] == SHUT:',
    ),
    Mutant(
        "engines go before arrivals at the same instant",
        "sim/kernel/engine.py",
        "elif arrival <= block:",
        "elif arrival < block:",
    ),
    Mutant(
        "arrivals go before the scrape at the same instant",
        "sim/kernel/engine.py",
        "if tick <= arrival and",
        "if tick < arrival and",
    ),
    Mutant(
        "routing sees memory as it is, not as it was scraped",
        "sim/kernel/engine.py",
        "            arrive(w, q, arrival)",
        '            for e in range(w["endpoint_count"]):\n                observe(w, e, 0)\n            arrive(w, q, arrival)',
    ),
    Mutant(
        "the door is never emptied",
        "sim/kernel/engine.py",
        '    for model in range(w["models"]):\n        empty_doors(w, model, now)\n',
        "",
    ),
    Mutant(
        "an endpoint without traffic is never fed",
        "sim/kernel/engine.py",
        '    for e in range(w["endpoint_count"]):\n        feed_endpoint(w, e, now)\n',
        "",
        first=6,
    ),
    Mutant(
        "a changed guess does not reach the outstanding tokens",
        "sim/kernel/bookkeeping.py",
        "    if changed:\n",
        '    if changed and w["rows"] < 0:\n',
        first=54,
    ),
    Mutant(
        "the earliest admitted is preempted",
        "sim/kernel/admission.py",
        '        q = engine["latest"]\n        r = requests[q]\n',
        '        q = engine["latest"]\n'
        '        while requests[q]["next"] >= 0:\n            q = requests[q]["next"]\n'
        "        r = requests[q]\n",
    ),
    Mutant(
        "a preempted request finds nothing in the cache any more",
        "sim/kernel/admission.py",
        '["unfilled"] += context - r["cached"]\n',
        '["unfilled"] += context\n        r["cached"] = 0\n',
    ),
    Mutant(
        "cached tokens are computed all the same",
        "sim/kernel/admission.py",
        "rest, left = context - found, budget",
        "rest, left = context, budget",
    ),
    Mutant(
        "cached tokens are not read by attention",
        "sim/kernel/admission.py",
        "attention += rest * (found + 0.5 * rest)",
        "attention += rest * (0.5 * rest)",
    ),
    Mutant(
        "a piece after the cached part costs as if it were the first",
        "sim/kernel/admission.py",
        "attention + left * (found + 0.5 * left)",
        "attention + left * (0.5 * left)",
        first=37,
    ),
    Mutant(
        "the cached part of a prompt that is split is computed after all",
        "sim/kernel/admission.py",
        'engine["filled"] = found + left',
        'engine["filled"] = left',
    ),
    Mutant(
        "cached tokens take no memory",
        "sim/kernel/admission.py",
        '        engine["used"] += context + 1\n        engine["given"]',
        '        engine["used"] += rest + 1\n        engine["given"]',
    ),
    Mutant(
        "cached tokens are outstanding work",
        "sim/kernel/arrive.py",
        'engine["unfilled"] += r["prompt"] - r["cached"]',
        'engine["unfilled"] += r["prompt"]',
    ),
    Mutant(
        "cached tokens are demand for engine time",
        "sim/kernel/arrive.py",
        'profile, r["prompt"], r["cached"], view_f8(',
        'profile, r["prompt"], 0, view_f8(',
    ),
    Mutant(
        "a preempted request goes to the end of its queue",
        "sim/kernel/admission.py",
        "import add_finish, head_of, pop_front, push_front",
        "import add_finish, head_of, pop_front, push_back as push_front",
    ),
    Mutant(
        "a preempted prompt is not outstanding work",
        "sim/kernel/admission.py",
        "    if preempted:\n        note_outstanding(w, i)\n",
        "",
    ),
    Mutant(
        "a preempted prompt is missing from the backlog",
        "sim/kernel/admission.py",
        '        endpoint["backlog"] += prefill_work(profile, context, r["cached"])\n',
        "",
    ),
    Mutant(
        "the first token is given again after preemption",
        "sim/kernel/batching.py",
        '        if r["first"] == UNSET:\n            r["first"] = now + profile["entry"]\n',
        '        r["first"] = now + profile["entry"]\n',
    ),
    Mutant(
        "prompts are admitted beyond memory",
        "core/engine/rules.py",
        "+ 1 + room <= capacity",
        "+ 1 + room <= capacity + 4",
    ),
    Mutant(
        "decoding runs one iteration beyond memory",
        "sim/kernel/batching.py",
        "room + 1)",
        "room + 2)",
    ),
    Mutant(
        "the clock runs backwards for one-token outputs",
        "sim/kernel/batching.py",
        "- covered(w, q)\n            finish_prefix(w, i, q)\n            finish(w, i, q, now)",
        '- covered(w, q)\n            finish_prefix(w, i, q)\n            finish(w, i, q, engine["start"])',
    ),
    Mutant(
        "decoding leaves the token budget whole",
        "sim/kernel/batching.py",
        'profile["max_batched"] - (engine["running"] * each if mixed else 0)',
        'profile["max_batched"]',
        first=4,
    ),
    Mutant(
        "a later piece of a prompt costs no more than the first",
        "sim/kernel/batching.py",
        "more = tokens * float(tokens)",
        "more = 0.0",
    ),
    Mutant(
        "work is not weighed by the speed of the instance",
        "sim/kernel/bookkeeping.py",
        'engine["in_flight"]) * weight)',
        'engine["in_flight"]) * 1000)',
    ),
    Mutant(
        "a block is cut one iteration late",
        "sim/kernel/ranks.py",
        "block_time(first, step, n - 1) >= now:",
        "block_time(first, step, n - 1) > now:",
        first=4,
    ),
    Mutant(
        "a request that is not next cuts the block",
        "sim/kernel/arrive.py",
        "    if head_of(w, i, now) != q:\n        return\n",
        "",
    ),
    Mutant(
        "promoted jobs are lost",
        "sim/kernel/arrive.py",
        '        r["state"] |= PROMOTED\n        send(w, q, now, False)\n',
        '        r["state"] |= PROMOTED\n',
    ),
    Mutant(
        "requests are served before they arrive",
        "sim/kernel/engine.py",
        'alone = requests[row]["arrival"] if row < rows else NEVER',
        'alone = requests[row]["arrival"] * 9 // 10 if row < rows else NEVER',
    ),
    Mutant(
        "a job is fed twice",
        "sim/kernel/arrive.py",
        '        hand_over(w, q)\n        r = view_requests(w["at_requests"], w["rows"])[q]\n        mean',
        '        r = view_requests(w["at_requests"], w["rows"])[q]\n        if r["instance"] >= 0:\n'
        "            hand_over(w, q)\n        mean",
    ),
    Mutant(
        "what was fed since the scrape is forgotten",
        "core/feed.py",
        'endpoint["fed_tokens"] += tokens',
        'endpoint["fed_tokens"] += 0.0',
    ),
    Mutant(
        "a prompt as long as the context is taken",
        "sim/kernel/arrive.py",
        'if r["prompt"] + 1 > view_i8',
        'if r["prompt"] > view_i8',
    ),
    Mutant(
        "jobs due at once go last come, first served",
        "sim/kernel/queues.py",
        "(left == right and a < b)",
        "(left == right and a > b)",
    ),
    Mutant(
        "a request that was preempted finishes at its old step",
        "sim/kernel/queues.py",
        '["finish_step"] == entry >> 32:\n            return int(entry)',
        '["finish_step"] > -9:\n            return int(entry)',
        first=2,
    ),
    Mutant(
        "of instances with equal work the last is taken in large endpoints",
        "sim/kernel/queues.py",
        "        node = 2 * node\n        if tree[base + node] != tokens:\n            node += 1",
        "        node = 2 * node\n        if tree[base + node + 1] == tokens:\n            node += 1",
        first=14,
    ),
    Mutant("the feed bands are inverted", "core/feed.py", "if utilisation < two_below:", "if utilisation > two_below:"),
    Mutant(
        "only late jobs are promoted, old ones are not",
        "core/feed.py",
        "return age > promote_after or slack < service * safety",
        "return slack < service * safety",
    ),
    Mutant(
        "an iteration that prefills runs in a CUDA graph",
        "core/engine/timing.py",
        '        time += profile["eager"]\n    return time\n\n\ndef adapters',
        "        time += 0.0\n    return time\n\n\ndef adapters",
    ),
    Mutant(
        "the curve bends one knot late",
        "core/engine/timing.py",
        "knots[k + 1] <= tokens:",
        "knots[k + 1] < tokens - 1:",
        first=8,
    ),
    Mutant(
        "decoding sequences are no tokens of an iteration",
        "core/engine/timing.py",
        'curve_time(profile, float(prefill + sequences + sequences * profile["drafted"]))',
        "curve_time(profile, float(prefill))",
    ),
    Mutant(
        "a promoted job keeps its rank",
        "core/order.py",
        'rank = 0 if promoted else int(tier["rank"])',
        'rank = int(tier["rank"])',
        first=24,
    ),
    Mutant(
        "whoever is late is served first, however little",
        "core/order.py",
        'if slack < -tier["expired"]:',
        "if slack < 0:",
    ),
    Mutant(
        "a whole scrape period of traffic follows one stale number",
        "core/route.py",
        'endpoint["busy"] + news / endpoint["open"]',
        'endpoint["busy"]',
    ),
    Mutant(
        "a busy region is preferred to a free one",
        "core/route.py",
        "if best < 0 or utilisation < least:",
        "if best < 0 or utilisation > least:",
        first=4,
    ),
    Mutant(
        "a preempted request finds memory that others were given since",
        "core/engine/rules.py",
        "min(lost - given, context - 1)",
        "min(lost, context - 1)",
        first=5,
    ),
    Mutant(
        "a preempted request finds its tokens in an engine that caches nothing",
        "sim/kernel/admission.py",
        '["caching"] == 0:',
        '["caching"] < 0:',
    ),
    Mutant(
        "the API server's time is not part of the first token's",
        "sim/kernel/batching.py",
        'r["first"] = now + profile["entry"]',
        'r["first"] = now',
    ),
    Mutant(
        "the limit of the wait is ignored",
        "core/admit.py",
        "return wait <= limit and in_flight < most",
        "return in_flight < most",
        first=34,
    ),
    Mutant(
        "any number of requests may be in flight",
        "core/admit.py",
        "return wait <= limit and in_flight < most",
        "return wait <= limit",
        first=5,
    ),
    Mutant(
        "requests beyond those that can run together wait for nothing",
        "core/admit.py",
        "max(0.0, backlog, (in_flight - sequences) * work)",
        "max(0.0, backlog)",
        first=115,
    ),
    Mutant(
        "sequences of a draining instance still count as places",
        "sim/kernel/leaving/losing.py",
        'endpoint["sequences"] += sign * ',
        'endpoint["sequences"] += max(sign, 0) * ',
        first=5,
    ),
    Mutant(
        "a promoted job may be turned away",
        "sim/kernel/arrive.py",
        "send(w, q, now, False)",
        'send(w, q, now, w["admission"] != 0)',
        first=13,
    ),
    Mutant(
        "batch work that is not let in never comes again",
        "sim/kernel/bookkeeping.py",
        """if w["admission"] == 0 or view_tiers(w["at_tier_rows"], w["tiers"])[r["tier"]]["batch"] != 0:""",
        """if w["admission"] == 0:""",
    ),
    Mutant(
        "what is over is run all the same",
        "core/feed.py",
        "return deadline <= now",
        "return deadline < 0",
        first=34,
    ),
    Mutant(
        "a job that comes is offered to the busiest endpoint",
        "core/feed.py",
        "if best < 0 or utilisation < least:",
        "if best < 0 or utilisation > least:",
    ),
    Mutant(
        "a job's service is never judged by a lone instance",
        "core/feed.py",
        'if endpoints[e]["open"] > 0:',
        'if endpoints[e]["open"] > 1:',
        first=6,
    ),
)
