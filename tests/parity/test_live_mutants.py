"""Deliberate faults of the live plane are seen: each one, put into its function, departs from the simulator.

Read next: `live_mutants.py`; `tests/sim/mutants/prefix_trial.py` for how a fault is put in.
"""

from functools import cache

import pytest

from tests.parity.live_cases import LiveCase, live_stops, make_live_case, simulated_stops
from tests.parity.live_mutants import LIVE_MUTANTS
from tests.sim.cases import Stop, seeded
from tests.sim.compare import first_difference
from tests.sim.mutants.catalogue import Mutant
from tests.sim.mutants.prefix_trial import changed

SEEDS = 160  # cases tried until a fault counts as unseen; most are seen within ten
SOUND = 10


@cache
def simulated(seed: int) -> tuple[LiveCase, list[Stop]]:
    case = make_live_case(seeded(seed))
    return case, list(simulated_stops(case))


def difference(seed: int) -> str:
    case, expected = simulated(seed)
    try:
        return first_difference(expected, iter(live_stops(case)))
    except (AssertionError, ArithmeticError, LookupError) as wrong:
        return f"{type(wrong).__name__}: {wrong}"


def test_the_sound_live_plane_agrees() -> None:
    """So that a difference is the fault's."""
    first = {seed for mutant in LIVE_MUTANTS for seed in range(mutant.first, mutant.first + SOUND)}
    assert {seed: difference(seed) for seed in sorted(first)} == dict.fromkeys(sorted(first), "")


@pytest.mark.parametrize("mutant", LIVE_MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_fault_is_seen(mutant: Mutant) -> None:
    with changed(mutant):
        assert any(difference(mutant.first + seed) for seed in range(SEEDS)), (
            f"nothing tells a live plane from one where {mutant.name}"
        )
