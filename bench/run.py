"""`make bench`: every figure, one JSON line each, each group in a process of its own so that memory and caches are fresh.

    python bench/run.py [PART ...]     only some of: kernel, week, decisions

Read next: README.md for what the figures mean and what they should be.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "kernel": (("bench.kernel", "240"), ("bench.kernel", "2400"), ("bench.kernel", "growth"), ("bench.kernel", "reference")),
    "week": (("bench.week",),),
    "decisions": (("bench.decisions",),),
}


def main(wanted: list[str]) -> int:
    """Run the parts; the exit code of the first that fails."""
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    subprocess.run([sys.executable, "-m", "sageserve.cli.main", "warm-up"], cwd=ROOT, stdout=sys.stderr, check=True)
    for part in wanted or PARTS:
        for command in PARTS[part]:
            code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode
            if code:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
