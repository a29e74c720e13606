"""Compare the kernel of the `sageserve` that comes first on the path with the reference, uncompiled, and say what differs.

Started by `test_mutants.py` in a process of its own, with a changed copy of the package on the path:
`python -m tests.sim.mutants.trial FOLDER SEED...`. Prints the first difference, or nothing.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import sageserve
from tests.sim.cases import make_case, seeded
from tests.sim.compare import differs


def trial(seeds: Iterable[int]) -> str:
    """The first difference over the cases of these seeds; empty when there is none."""
    for seed in seeds:
        try:
            difference = differs(make_case(seeded(seed)))
        except (AssertionError, ArithmeticError, LookupError) as wrong:
            difference = f"{type(wrong).__name__}: {wrong}"
        if difference:
            return f"seed {seed}: {difference}"
    return ""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    assert Path(str(sageserve.__file__)).is_relative_to(folder), f"{sageserve.__file__} is not the copy in {folder}"
    sys.stdout.write(trial(int(seed) for seed in sys.argv[2:]))
