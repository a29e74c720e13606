"""Deliberate faults of the closed loop: what a user of conversations would have suffered from.

Read next: `catalogue.py`, the other faults of the kernel.
"""

from tests.sim.mutants.catalogue import Mutant

TURNS = "sim/kernel/turns.py"
TURN_MUTANTS = (
    Mutant(
        "the next turn comes a pause after the question",
        TURNS,
        'r["arrival"] = requests[q]["finish"] + away',
        'r["arrival"] = max(requests[q]["arrival"], w["now"]) + away',
    ),
    Mutant(
        "nobody thinks before the next turn",
        TURNS,
        'away + view_i8(w["at_pause"], w["rows"])[later]',
        "away",
        first=3,
    ),
    Mutant(
        "answers take no time to travel",
        TURNS,
        '["finish"] + away +',
        '["finish"] +',
    ),
    Mutant(
        "answers travel from where they were asked",
        TURNS,
        'served = i // w["slots"] // (w["models"] * w["roles"])',
        'served = requests[q]["region"]',
        first=44,
    ),
    Mutant(
        "a turn has as long as is left of nothing",
        TURNS,
        '    r["deadline"] += r["arrival"]\n',
        "",
    ),
    Mutant(
        "the turn whose answer came first comes first",
        TURNS,
        'push_row(w, heap, 0, w["turns_waiting"], later, True)',
        'heap[w["turns_waiting"]] = later',
    ),
    Mutant(
        "whoever is refused goes on talking",
        "sim/kernel/arrive.py",
        '        w["refused"] += 1\n        break_off(w, q)\n',
        '        w["refused"] += 1\n',
    ),
    Mutant(
        "whoever is turned away is waited for",
        "sim/kernel/bookkeeping.py",
        '    w["shed"] += 1\n    break_off(w, q)\n',
        '    w["shed"] += 1\n',
        first=17,
    ),
    Mutant(
        "of a broken conversation only the next turn is struck out",
        TURNS,
        '        w["never_arrived"] += 1\n        q = after[q]\n',
        '        w["never_arrived"] += 1\n        q = -1\n',
        first=8,
    ),
    Mutant(
        "an instance knows what was said at another",
        TURNS,
        'done = r["instance"] == i and r["state"]',
        'done = r["state"]',
        first=3,
    ),
    Mutant(
        "an engine that was started anew knows what was said before",
        TURNS,
        'if done and r["finish"] - profile["entry"] > view_i8(w["at_opened"], w["instances"])[i]:',
        "if done:",
        first=221,
    ),
    Mutant(
        "the first turn at an instance is all it knows",
        TURNS,
        "        earlier = before[earlier]\n    return 0",
        "        earlier = -1\n    return 0",
        first=15,
    ),
    Mutant(
        "the last token of an answer is in the cache, too",
        TURNS,
        'r["prompt"] + r["output"] - 1, requests',
        'r["prompt"] + r["output"], requests',
        first=3,
    ),
    Mutant(
        "nothing of a prompt is left to compute",
        TURNS,
        'requests[q]["prompt"] - 1)',
        'requests[q]["prompt"])',
        first=15,
    ),
    Mutant(
        "tokens are kept one by one, not in blocks",
        TURNS,
        "return int(kept // CACHE_BLOCK * CACHE_BLOCK)",
        "return int(kept)",
        first=3,
    ),
    Mutant(
        "what the trace says was cached is forgotten",
        TURNS,
        "max(stated, conversation_kept(w, i, q))",
        "conversation_kept(w, i, q)",
    ),
    Mutant(
        "engines without a prefix cache know what was said",
        TURNS,
        '[engine["model"]] == 0:',
        '[engine["model"]] < 0:',
        first=8,
    ),
    Mutant(
        "jobs that are fed know nothing of their conversation",
        "sim/kernel/arrive.py",
        "        i = choose_instance(w, e, q)\n        remember(w, i, q)\n",
        "        i = choose_instance(w, e, q)\n",
        first=3,
    ),
)
