"""Deliberate faults of the live control code are found: each one, put into a copy, breaks a law within 500 stories.

Read next: `planted.py`; `tests/sim/mutants/test_mutants.py`, where the same is done to the kernel.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.swarm.planted import PLANTED
from tests.sim.mutants.catalogue import Mutant

SEEDS = 500


@pytest.mark.extended
@pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="minutes: set SAGESERVE_LONG to run it")  # noqa: TID251 # as for the others
@pytest.mark.parametrize("mutant", PLANTED, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_fault_is_found(mutant: Mutant, tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[3]
    shutil.copytree(source / "src" / "sageserve", tmp_path / "sageserve", ignore=shutil.ignore_patterns("*.nb?"))
    path = tmp_path / "sageserve" / mutant.module
    text = path.read_text("utf-8")
    assert text.count(mutant.old) == 1, f"{mutant.module} no longer holds this text once: {mutant.old!r}"
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    environment = os.environ | {  # noqa: TID251  # the child differs from this process in these two
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{source}",
    }
    command = [sys.executable, "-m", "tests.live.swarm.trial", str(tmp_path), str(SEEDS)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout, f"no story tells a live plane from one where {mutant.name}"
