"""Compare the `sageserve` that comes first on the path with what it must equal, without compiling it, and say what differs.

Started by `test_mutants.py` in a process of its own, with a changed copy of the package on the path:
`python -m tests.sim.mutants.trial FOLDER COMPARISON SEED...`. The kernel is compared with the reference, the live plane with the
kernel. Prints the first difference, or nothing.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import sageserve
from tests.parity import live_cases
from tests.sim import compare
from tests.sim.cases import make_case, seeded

COMPARISONS: Final[dict[str, Callable[[int], str]]] = {
    "kernel": lambda seed: compare.differs(make_case(seeded(seed))),
    "live": lambda seed: live_cases.differs(live_cases.make_live_case(seeded(seed))),
}


def trial(differs: Callable[[int], str], seeds: Iterable[int]) -> str:
    """The first difference over the cases of these seeds; empty when there is none."""
    for seed in seeds:
        try:
            difference = differs(seed)
        except (AssertionError, ArithmeticError, LookupError) as wrong:
            difference = f"{type(wrong).__name__}: {wrong}"
        if difference:
            return f"seed {seed}: {difference}"
    return ""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    assert Path(str(sageserve.__file__)).is_relative_to(folder), f"{sageserve.__file__} is not the copy in {folder}"
    sys.stdout.write(trial(COMPARISONS[sys.argv[2]], (int(seed) for seed in sys.argv[3:])))
