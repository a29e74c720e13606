"""Deliberate faults of the router that goes by the expected first token.

Read next: `test_mutants.py`; docs/reference/kernel.md, "Arrival of request q", for what it should do.
"""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

ROUTE_MUTANTS: Final = (
    Mutant(
        "quickest goes however far", "sim/kernel/arrive.py", 'return way + profile["entry"]', 'return profile["entry"]', first=11
    ),
    Mutant("quickest does not see queues", "core/route.py", "(alone + queued) / ", "alone / "),
    Mutant("quickest takes engines that decode for idle ones", "core/route.py", "SHARED * min(max(", "0.0 * min(max("),
    Mutant(
        "quickest goes by what was scraped",
        "core/route.py",
        "expected_busy(rules, endpoint, elapsed), 0.0)",
        'endpoint["busy"], 0.0)',
    ),
    Mutant(
        "quickest does not know what a cache has",
        "sim/kernel/arrive.py",
        'first_time(profile, r["prompt"], r["cached"]), queued)',
        'first_time(profile, r["prompt"], 0), queued)',
        first=66,
    ),
    Mutant(
        "quickest takes all ranks for one",
        "sim/kernel/arrive.py",
        'queued = engine["unfilled"] * profile["whole"] * profile["per_rank"]',
        'queued = engine["unfilled"] * profile["whole"]',
        first=59,
    ),
    Mutant("of equally quick regions the farthest", "sim/kernel/arrive.py", "first < least", "first <= least"),
)
