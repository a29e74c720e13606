"""Deliberate faults of tenants that share.

Read next: `test_mutants.py`; docs/reference/kernel.md, "Tenants that share", for what should happen.
"""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

ARRIVE: Final = "sim/kernel/arrive.py"
SHARES: Final = "sim/kernel/choices/shares.py"
JOBS: Final = "sim/kernel/choices/jobs.py"
SHARE_MUTANTS: Final = (
    Mutant("who is let in is not charged", ARRIVE, "            note_let_in(w, q)\n", "            pass\n", 15),
    Mutant("weights say nothing", SHARES, 'view_f8(w["at_share_weight"], many)[owner])', "1.0)", 15),
    Mutant("the lowest does not raise the floor", SHARES, "raised(floors[account], lowest, highest)", "floors[account]", 143),
    Mutant(
        "jobs go by deadline whoever's they are",
        JOBS,
        "(level == lowest and sooner(w, q, best, False))",
        "sooner(w, q, best, False)",
        135,
    ),
    Mutant(
        "what is pressing waits for its turn",
        JOBS,
        "    best = UNSET\n    for place in range(view",
        "    return q\n    for place in range(view",
        64,
    ),
)
