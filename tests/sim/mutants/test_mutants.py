"""Deliberate faults are seen: each one of the catalogue, put into a copy of the kernel, departs from the reference.

Nothing is compiled. Faults of functions are tried by the dozen in one process; others each in a copy of the package, in which
what is not changed is imported as it was read before. Read next: `catalogue.py`, `outages.py`, `ranks.py`, `routes.py`,
`turns.py`, `batch.py`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.mutants.batch import ALL, IN_FUNCTIONS, SEEDS
from tests.sim.mutants.catalogue import Mutant

SOUND = range(25)  # cases on which the unchanged copy must agree, so that a difference is the fault's


def run_copy(folder: Path, seeds: range, mutant: Mutant | None = None) -> str:
    """What the trial prints about a copy of the package, changed by `mutant`."""
    source = Path(__file__).resolve().parents[3]
    shutil.copytree(source / "src" / "sageserve", folder / "sageserve", ignore=shutil.ignore_patterns("*.nb?"))
    if mutant:
        path = folder / "sageserve" / mutant.module
        text = path.read_text("utf-8")
        assert text.count(mutant.old) == 1, f"{mutant.module} no longer holds this text once: {mutant.old!r}"
        path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    first = mutant.first if mutant else 0
    environment = os.environ | {  # noqa: TID251  # the child differs from this process in these two
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": f"{folder}{os.pathsep}{source}",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim.mutants.trial", str(folder), *(str(first + seed) for seed in seeds)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_kernel_agrees_without_compilation(tmp_path: Path) -> None:
    assert run_copy(tmp_path, SOUND) == ""


def test_faults_of_functions_are_seen() -> None:
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}  # noqa: TID251  # the child differs from this process in this
    command = [sys.executable, "-m", "tests.sim.mutants.batch"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    assert len(told) == len(IN_FUNCTIONS) > 0
    unseen = [name for name, difference in told.items() if not difference]
    assert not unseen, f"nothing tells the kernel from one where {', '.join(unseen)}"


@pytest.mark.parametrize(
    "mutant", [one for one in ALL if one not in IN_FUNCTIONS], ids=lambda mutant: mutant.name.replace(" ", "-")
)
def test_fault_is_seen(mutant: Mutant, tmp_path: Path) -> None:
    assert run_copy(tmp_path, SEEDS, mutant), f"nothing tells the kernel from one where {mutant.name}"
