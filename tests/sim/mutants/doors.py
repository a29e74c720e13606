"""Deliberate faults of who is held for an endpoint that sleeps.

Read next: `test_mutants.py`; docs/reference/kernel.md, "Endpoints that sleep", for what should happen.
"""

from typing import Final

from tests.sim.mutants.catalogue import Mutant

KEPT: Final = "sim/kernel/bookkeeping.py"
DOOR_MUTANTS: Final = (
    Mutant("an endpoint that sleeps is never asked for", KEPT, '        w["asked"] = 1\n', '        w["asked"] = 0\n', first=17),
    Mutant(
        "the controller is asked for everybody who waits", KEPT, "if e >= 0 and count_held(w, q, 0) == 0:", "if e >= 0:", first=17
    ),
    Mutant(
        "who asks for an endpoint that sleeps is turned away",
        KEPT,
        "elif e >= 0 and has_room(w, e, q):",
        "elif e > w['rows']:",
        first=17,
    ),
    Mutant("the far one is asked for", KEPT, "if found < 0 and sleeps[e] != 0:", "if sleeps[e] != 0:", first=1364),
    Mutant(
        "whoever is held waits for the scrape",
        "sim/kernel/engine.py",
        'if endpoint["open"] == 1 and',
        'if endpoint["open"] < 0 and',
        first=17,
    ),
)
