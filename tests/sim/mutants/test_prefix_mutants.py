"""Deliberate faults of the prefix cache are seen, and its kernel is sound without compilation.

Read next: `prefixes.py`, the faults; `prefix_trial.py`, which tries them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.sim.mutants.prefixes import PREFIX_MUTANTS


def test_every_fault_is_seen_and_the_sound_kernel_agrees() -> None:
    root = Path(__file__).resolve().parents[3]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}  # noqa: TID251  # the child differs from this process in this
    command = [sys.executable, "-m", "tests.sim.mutants.prefix_trial"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)  # fault to the first difference that it makes
    assert told.pop("") == ""
    unseen = [mutant.name for mutant in PREFIX_MUTANTS if not told[mutant.name]]
    assert not unseen, f"nothing tells the kernel from one where {', '.join(unseen)}"
