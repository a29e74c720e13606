"""Deliberate faults in what data parallel ranks do.

Read next: `test_mutants.py`; docs/reference/kernel.md, "Data parallel ranks", for what they should do.
"""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

RANK_MUTANTS: Final = (
    Mutant(
        "a rank's waiting requests count no more than its running ones",
        "core/engine/rules.py",
        "return 4 * waiting + (inside - waiting)",
        "return inside",
        first=6,
    ),
    Mutant(
        "ranks in step take as long as the first of them",
        "sim/kernel/ranks.py",
        "if slowest < 0 or is_slower(",
        "if slowest < 0 and is_slower(",
        first=6,
    ),
    Mutant(
        "the slowest rank stays the slowest",
        "core/engine/rules.py",
        "return int((gap + APART) / rise) + 1",
        "return iterations",
        first=76,
    ),
    Mutant(
        "what ranks share goes by the tokens of one",
        "sim/kernel/ranks.py",
        'computed * profile["per_rank"])',
        "float(computed))",
        first=6,
    ),
    Mutant(
        "a long prompt of another rank runs on through a cut",
        "sim/kernel/ranks.py",
        'other["filled"] -= (length - n) * other["tokens"]',
        'other["filled"] -= 0',
        first=17,
    ),
    Mutant(
        "an instance closes when one of its ranks is empty",
        "sim/kernel/batching.py",
        """ and engines[head]["in_flight"] == 0:""",
        ":",
    ),
    Mutant(
        "only one rank's capacity is counted",
        "sim/kernel/leaving/losing.py",
        'sign * profile["ranks"] * profile["kv_tokens"]',
        'sign * profile["kv_tokens"]',
    ),
    Mutant(
        "only the first rank's memory is looked at",
        "sim/kernel/engine.py",
        'used += engines[u]["used"]',
        "used += 0",
    ),
)
