"""Deliberate faults of the live plane are seen: each one, put into a copy, departs from the simulator.

Read next: `live_mutants.py`; `tests/sim/mutants/test_mutants.py`, where the same is done to the kernel.
"""

from pathlib import Path

import pytest

from tests.parity.live_mutants import LIVE_MUTANTS
from tests.sim.mutants.catalogue import Mutant
from tests.sim.mutants.test_mutants import run_copy

SEEDS = range(160)  # cases tried until a fault counts as unseen; most are seen within ten
SOUND = range(10)


def test_the_live_plane_agrees_without_compilation(tmp_path: Path) -> None:
    assert run_copy(tmp_path, SOUND, comparison="live") == ""


@pytest.mark.parametrize("mutant", LIVE_MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_fault_is_seen(mutant: Mutant, tmp_path: Path) -> None:
    assert run_copy(tmp_path, SEEDS, mutant, comparison="live"), f"nothing tells a live plane from one where {mutant.name}"
