"""What the first minutes cost: help, the quickstart, the report of a run, and with --compile the first run after an install.

    python -m bench.contact [--compile]

One JSON line per figure: CPU seconds of a process and its children, the median of five, and what that is of what it may be;
compilation once, into an empty folder.
Python keeps its bytecode, as it does of what is installed, also where it is told not to.
Read next: README.md.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

TIMES = 5
COMMAND = (sys.executable, "-m", "sageserve")
BOUNDS = {"help_cpu_s": 0.25, "quickstart_cpu_s": 2.0, "quickstart_report_cpu_s": 3.0, "first_compile_cpu_s": 20.0}


def main(arguments: list[str]) -> int:
    """Measure; exit code 2 for an argument that is not known."""
    if set(arguments) - {"--compile"}:
        print("only --compile is known", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as place:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # noqa: TID251 # the commands' own
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(place) / "bytecode")  # noqa: TID251 # likewise
        run = Path(place) / "run"
        cpu("warm-up")
        cpu("simulate", "quickstart")
        tell("help_cpu_s", median("--help"))
        tell("quickstart_cpu_s", median("simulate", "quickstart"))
        cpu("simulate", "quickstart", "--out", str(run), "--no-report")
        tell("quickstart_report_cpu_s", median("report", str(run), "-o", str(Path(place) / "page.html")))
        if arguments:
            tell("first_compile_cpu_s", cpu("warm-up", more={"NUMBA_CACHE_DIR": str(Path(place) / "kernels")}))
    return 0


def median(*words: str) -> float:
    """Of a command's CPU seconds."""
    return statistics.median(cpu(*words) for _ in range(TIMES))


def cpu(*words: str, more: Mapping[str, str] | None = None) -> float:
    """CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    around = {**os.environ, **(more or {})}  # noqa: TID251 # that of the user, but for the folder of kernels
    subprocess.run([*COMMAND, *words], check=True, capture_output=True, env=around)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tell(name: str, value: float) -> None:
    """Print a figure beside its bound, which is of a core that nobody else uses."""
    bound = BOUNDS[name]
    figure = {"name": name, "value": round(value, 3), "unit": "s", "bound": bound, "of_bound": round(value / bound, 2)}
    print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
