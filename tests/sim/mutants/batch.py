"""Try the deliberate faults of the kernel's functions in one process, which imports once, without compilation.

Started by `test_mutants.py` with JIT off: `python -m tests.sim.mutants.batch` prints fault to the first difference that it
makes. Read next: `catalogue.py`, `prefix_trial.py` for how a fault is put in.
"""

import json
import sys
from typing import Final

from tests.sim.cases import make_case, seeded
from tests.sim.mutants.adapters import ADAPTER_MUTANTS
from tests.sim.mutants.catalogue import MUTANTS
from tests.sim.mutants.doors import DOOR_MUTANTS
from tests.sim.mutants.handover import HANDOVER_MUTANTS
from tests.sim.mutants.outages import OUTAGE_MUTANTS
from tests.sim.mutants.prefix_trial import Worlds, function_of
from tests.sim.mutants.promises import PROMISE_MUTANTS
from tests.sim.mutants.ranks import RANK_MUTANTS
from tests.sim.mutants.routes import ROUTE_MUTANTS
from tests.sim.mutants.rules import RULE_MUTANTS
from tests.sim.mutants.shares import SHARE_MUTANTS
from tests.sim.mutants.turns import TURN_MUTANTS

ALL: Final = (
    *MUTANTS,
    *ADAPTER_MUTANTS,
    *DOOR_MUTANTS,
    *HANDOVER_MUTANTS,
    *OUTAGE_MUTANTS,
    *PROMISE_MUTANTS,
    *RANK_MUTANTS,
    *ROUTE_MUTANTS,
    *RULE_MUTANTS,
    *SHARE_MUTANTS,
    *TURN_MUTANTS,
)
COPIED: Final = "core/engine/"  # its functions are copied into `core/perf.py` as it is imported: other code comes too late
IN_FUNCTIONS: Final = tuple(one for one in ALL if function_of(one) and not one.module.startswith(COPIED))
SEEDS: Final = range(120)  # cases tried until a fault counts as unseen; most are seen within ten


def main() -> None:
    """Print what became of every fault."""
    worlds = Worlds(lambda seed: make_case(seeded(seed)))
    found = {mutant.name: worlds.first_difference(mutant, (mutant.first + seed for seed in SEEDS)) for mutant in IN_FUNCTIONS}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
