"""Deliberate faults in what happens between prefill and decode where they are apart.

Read next: `test_mutants.py`; docs/reference/kernel.md, "Prefill and decode apart", for what should happen.
"""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

HANDOVER: Final = "sim/kernel/apart/sending.py"
REGIONS: Final = "sim/kernel/choices/regions.py"

HANDOVER_MUTANTS: Final = (
    Mutant("a link sends everything at once", HANDOVER, "begins = max(now, link[i])", "begins = now"),
    Mutant("a KV cache takes no time", HANDOVER, 'requests[q]["prompt"] * view_f8(', "0 * view_f8("),
    Mutant(
        "what was handed over stays in memory", HANDOVER, 'engine["used"] -= view_requests', 'engine["used"] -= 0 * view_requests'
    ),
    Mutant(
        "who waited for that memory is not told",
        HANDOVER,
        "    leave(w, u)\n    stir(w, u, now)\n\n\n@kernel\ndef take",
        "    leave(w, u)\n\n\n@kernel\ndef take",
    ),
    Mutant(
        "a prefill instance that has handed everything over does not close",
        HANDOVER,
        'head["draining"] != 0 and',
        'head["draining"] > 1 and',
    ),
    Mutant("a request waits on where its KV cache was lost", HANDOVER, "if drop_waiting(w, u, q):", "if False:", first=128),
    Mutant("prompts go where nobody decodes", REGIONS, "return not both or", "return True or", first=78),
    Mutant(
        "how full it is where prompts are decoded is nothing",
        "sim/kernel/choices/regions.py",
        "max(found, expected",
        "max(found, 0.0 * expected",
        first=8,
    ),
    Mutant(
        "who finds nothing open to decode comes late",
        "sim/kernel/leaving/landing.py",
        'w["next_scrape"])',
        'w["next_scrape"] + 1)',
    ),
    Mutant(
        "a first token is out when its prompt is filled",
        "sim/kernel/batching.py",
        "        if leaves:\n",
        '        if leaves:\n            r["first"] = now\n',
    ),
    Mutant(
        "decoding counts as work of those that prefill", "sim/kernel/bookkeeping.py", "if part == PREFILLS:", "if part == -1:"
    ),
    Mutant(
        "those that prefill keep whole answers free",
        "sim/kernel/admission.py",
        "return 0 if does(w, i) == PREFILLS else",
        "return 0 if does(w, i) == -1 else",
        first=244,
    ),
)
