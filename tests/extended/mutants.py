"""Mutation tests: code with one small fault each, and whether the tests of its part see it.

    make mutants [PART=core] [ENDING=7] [ONLY='*spot*']

mutmut makes the faults and runs the tests that reach each of them; what it needs beside the code is put into build/mutants/PART,
where it also remembers what was tried. Functions under a decorator are left out, by mutmut itself: the faults of compiled ones
are in `tests/sim/mutants`. A fault that no test sees is either seen by a new one, or stands in `mutants_alive.yaml` with the
reason why nothing is wrong with it. Needs the extra `mutants`. Read next: CONTRIBUTING.md, `mutants_alive.yaml`.
"""

import argparse
import fnmatch
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent.parent
ALIVE: Final = Path(__file__).with_name("mutants_alive.yaml")
MUTMUT: Final = Path(sys.executable).with_name("mutmut")
SEEN: Final = ("killed", "timeout", "segfault")  # a fault that never ends, or ends everything, does not pass unseen
CLASS: Final = "ǁ"  # how mutmut joins a class and its method


@dataclass(frozen=True, slots=True)
class Part:
    """What is mutated, as globs below src/sageserve, and the tests that must see it."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


PARTS: Final = {
    "core": Part(("core/*",), ("tests/core",)),
    "control": Part(
        ("live/control/loop.py", "live/control/fleet_view.py", "live/control/batch_queue.py", "live/control/gateway_reports.py"),
        (
            "tests/live/control/test_loop.py",
            "tests/live/control/test_loop_events.py",
            "tests/live/control/test_loop_moments.py",
            "tests/live/control/test_fleet_view.py",
            "tests/live/control/test_batch_queue.py",
            "tests/live/control/test_gateway_reports.py",
        ),
    ),
    "gateway": Part(
        ("live/gateway/keys.py", "live/gateway/meter.py", "live/gateway/routing_state.py"),
        tuple(f"tests/live/gateway/test_{each}.py" for each in ("keys", "meter", "own_counts", "parts", "routing_state")),
    ),
    "batches": Part(("live/batches/*",), ("tests/live/batches",)),
    "data": Part(("data/*",), ("tests/data",)),
}
BY_DEFAULT: Final = ("gateway", "control", "batches", "core")

SETTINGS: Final = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {files}
pytest_add_cli_args_test_selection = {tests}
# A test run leaves threads of solvers and loops behind, which a fork of it does not survive: fork from a process that ran none.
process_isolation = "forkserver"
track_dependencies = false
use_git_change_detection = false
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One change: in which function, which line, and what stands there instead."""

    function: str
    was: str
    becomes: str


def prepare(name: str) -> Path:
    """A folder with a copy of the code, the tests and the settings of mutmut; files that are unchanged stay untouched."""
    part, folder = PARTS[name], ROOT / "build" / "mutants" / name
    for each in ("src", "tests", "bench", "docs", ".ci"):
        shutil.copytree(ROOT / each, folder / each, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.nb?"))
    for one in (*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "requirements.lock", ROOT / "zensical.toml"):
        shutil.copy2(one, folder / one.name)
    files = [f"src/sageserve/{glob}" for glob in part.files]
    settings = SETTINGS.format(files=files, tests=list(part.tests))
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8") + settings, "utf-8")
    shutil.rmtree(folder / "mutants" / "tests", ignore_errors=True)  # a test that is gone must not count
    (folder / "mutants" / "src").mkdir(parents=True, exist_ok=True)  # Python remembers that a folder of PYTHONPATH was not there
    return folder


def mutmut(folder: Path, *arguments: str, quiet: bool = True) -> str:
    """Run it in a folder; processes that tests start import the mutated code as well."""
    path = os.pathsep.join(str(folder / "mutants" / each) for each in ("src", "."))
    done = subprocess.run(
        [MUTMUT, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},  # noqa: TID251 # handed on as it is
        stdout=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"mutmut {' '.join(arguments)} ended with {done.returncode} in {folder}")
    return done.stdout or ""


def statuses(folder: Path, wanted: re.Pattern[str]) -> dict[str, str]:
    """What became of every fault whose name is wanted."""
    lines = (line.strip().rpartition(": ") for line in mutmut(folder, "results", "--all", "true").splitlines() if ": " in line)
    return {name: status for name, _, status in lines if wanted.fullmatch(name)}


def fault(folder: Path, name: str) -> Fault:
    """A fault by its name."""
    lines = [line for line in mutmut(folder, "show", name).splitlines() if not line.startswith(("---", "+++"))]
    was, becomes = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    module, _, function = name.partition("__mutmut_")[0].rpartition(".")
    return Fault(f"{module}.{function.removeprefix('x_').removeprefix('x' + CLASS).replace(CLASS, '.')}", was, becomes)


def known() -> dict[Fault, str]:
    """The faults that may stay alive, with the reason."""
    listed = yaml.safe_load(ALIVE.read_text("utf-8")) or []
    return {Fault(one["function"], one["was"], one["becomes"]): one["why"] for one in listed}


def judge(name: str, folder: Path, wanted: re.Pattern[str]) -> int:
    """Print what became of the faults of a part; how many are alive without a reason."""
    found = statuses(folder, wanted)
    alive, reasons = 0, known()
    for one, status in sorted(found.items()):
        if status in SEEN or status == "no tests":
            continue
        what = fault(folder, one)
        if status != "survived" or what not in reasons:
            alive += 1
            entry = yaml.safe_dump([{**asdict(what), "why": ""}], sort_keys=False, width=1000, allow_unicode=True)
            print(f"# {status}: {one}\n{entry}")
    unreached = sorted({one.partition("__mutmut_")[0] for one, status in found.items() if status == "no tests"})
    if unreached:
        print(f"{name}: no test of the part reaches", *unreached, sep="\n  ")
    counts = ", ".join(f"{count} {status}" for status, count in Counter(found.values()).most_common())
    print(f"{name}: {len(found)} faults: {counts}; {alive} alive without a reason")
    return alive


def main() -> None:
    """Try every part that is asked for; 1 when a fault is alive without a reason."""
    parser = argparse.ArgumentParser(description="make small faults and see whether tests see them")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; without one, all but data")
    parser.add_argument("--ending", default="", help="only faults whose number ends like this: one digit takes about a tenth")
    parser.add_argument("--only", default="*", help="only faults of functions that this glob fits, as '*spot*'")
    parser.add_argument("--children", type=int, default=os.cpu_count(), help="faults tried at once")
    given = parser.parse_args()
    if wrong := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(wrong))}: there are {', '.join(PARTS)}")
    alive = 0
    for name in given.parts or BY_DEFAULT:
        folder = prepare(name)
        chosen = f"{given.only}__mutmut_*{given.ending}"
        names = [] if chosen == "*__mutmut_*" else [chosen]  # without names it goes on where it was stopped
        mutmut(folder, "run", "--max-children", str(given.children), *names, quiet=False)
        alive += judge(name, folder, re.compile(fnmatch.translate(chosen)))
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
