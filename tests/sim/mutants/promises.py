"""Deliberate faults in counting promises: who could have been in time, and who was not.

Read next: `catalogue.py` for what a fault is.
"""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

PROMISE_MUTANTS: Final = (
    Mutant(
        "the way back does not count when a promise is judged",
        "sim/kernel/bookkeeping.py",
        '        late |= left < view_i8(w["at_rtt"], w["regions"] * w["regions"])[r["region"] * w["regions"] + served]\n',
        "        late |= left < 0\n",
        82,
    ),
    Mutant(
        "a pace that is promised is kept by everyone",
        "sim/kernel/bookkeeping.py",
        'return bool(tier["gap"] > 0 and',
        'return bool(tier["gap"] < 0 and',
        72,
    ),
    Mutant(
        "who is turned away has missed nothing",
        "sim/kernel/bookkeeping.py",
        "    set_place(w, q, SHED)\n    miss(w, q)",
        "    set_place(w, q, SHED)",
        13,
    ),
    Mutant(
        "requests that no engine serves in time could have been in time",
        "sim/kernel/arrive.py",
        "if patience > idle:",
        "if patience > 0:",
        34,
    ),
)
