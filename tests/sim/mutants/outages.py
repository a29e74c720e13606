"""Deliberate faults of what happens when instances are lost with their region.

Read next: `test_mutants.py`; docs/reference/kernel.md, "When an instance is lost", for what should happen.
"""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

LOSING: Final = "sim/kernel/leaving/losing.py"
OUTAGE_MUTANTS: Final = (
    Mutant("what is lost stays in the backlog", LOSING, 'endpoint["backlog"] -= prefill_work(', "0.0 * prefill_work(", first=24),
    Mutant("what is lost counts as being in flight", LOSING, '    endpoint["placed"] -= 1\n', "", first=24),
    Mutant("answers go on elsewhere", LOSING, 'if r["first"] != UNSET and not batch:', 'if r["first"] < UNSET:', first=81),
    Mutant("batch work is broken off", LOSING, 'if r["first"] != UNSET and not batch:', 'if r["first"] != UNSET:', first=77),
    Mutant("a lost instance is open", LOSING, '["open"] -= 1\n        count_capacity', '["open"] -= 0\n        count_capacity'),
    Mutant("a lost instance is capacity", LOSING, "        count_capacity(w, i, -1)\n    lanes", "    lanes", first=24),
    Mutant(
        "a lost instance that is back has its old queue",
        LOSING,
        '[lane] = UNSET\n            view_i4(w["at_tails"]',
        '[lane] += 0\n            view_i4(w["at_tails"]',
        first=340,
    ),
    Mutant(
        "a lost instance that is back has its old memory in use",
        LOSING,
        'rank["kv"], rank["used"], rank["unfilled"]',
        'rank["kv"], rank["length"], rank["unfilled"]',
        first=81,
    ),
    Mutant("what was made of a lost batch answer is there", LOSING, '    r["made"] = 0\n    batch', "    batch", first=77),
)
