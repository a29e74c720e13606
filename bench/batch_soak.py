"""A hundred thousand jobs, with kill -9 of the process that runs them at random moments.

Two batches are handed in and the process is killed again and again until both are done; then every line must be in the output
exactly once, with the right answer. Prints one JSON line per figure. Not part of `make bench`: it takes minutes.

    python bench/batch_soak.py [--jobs 100000] [--kills 20] [--store sqlite|postgresql://...]

Read next: `tests/live/batches/test_kill.py`, the short form that belongs to the suite.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.live.batches.test_kill import Process

ROOT = Path(__file__).resolve().parent.parent
PER_BATCH = 50_000  # OpenAI's limit
sys.path.insert(0, str(ROOT))


def soak(jobs: int, kills: int, store: str, folder: Path) -> dict[str, float]:
    """Run until all is done; figures by name.

    Raises:
        AssertionError: an answer is wrong or out of order, or a batch did not complete.
    """
    from tests.live.batches.gateway import FakeGateway
    from tests.live.batches.test_kill import Process

    draw = np.random.Generator(np.random.PCG64(11))
    with FakeGateway().running() as gateway:
        plane = Process(ROOT, store, folder, gateway.url)
        with plane.running():
            batches = [plane.submit(min(PER_BATCH, jobs - begin), begin) for begin in range(0, jobs, PER_BATCH)]
        began, killed = time.perf_counter(), 0
        while killed < kills:
            with plane.running():
                if _is_over_within(plane, batches, draw.exponential(8.0)):
                    break
            killed += 1
            print(f"killed {killed} times, {len(gateway.runs):,} of {jobs:,} jobs were run", file=sys.stderr, flush=True)
        with plane.running():
            over = _is_over_within(plane, batches, 3600.0)
            assert over, "it takes more than an hour"
            took = time.perf_counter() - began
            seen = _seen(plane, batches)
    assert seen == sorted(seen), "lines are out of order"
    return {
        "jobs": jobs,
        "kills": killed,
        "seconds": took,
        "jobs_per_s": jobs / took,
        "run_again": sum(gateway.runs.values()) - len(gateway.runs),
        "lost": jobs - len(set(seen)),
        "recorded_twice": len(seen) - len(set(seen)),
    }


def _is_over_within(plane: "Process", batches: list[str], seconds: float) -> bool:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if all(_done(plane.status(batch)) for batch in batches):
            return True
        time.sleep(0.5)
    return False


def _done(status: dict[str, object]) -> bool:
    assert status["status"] in {"validating", "in_progress", "finalizing", "completed"}, status
    return status["status"] == "completed"


def _seen(plane: "Process", batches: list[str]) -> list[int]:
    seen = []
    for batch in batches:
        status = plane.status(batch)
        assert status["error_file_id"] is None
        for text in plane.ask("GET", f"/v1/files/{status['output_file_id']}/content").text.splitlines():
            line = json.loads(text)
            number = int(line["custom_id"][1:])
            assert line["response"]["body"]["answer"] == number * number
            seen.append(number)
    return seen


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--store", default="sqlite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, value in soak(given.jobs, given.kills, given.store, Path(folder)).items():
            print(json.dumps({"name": f"batch_soak_{name}", "value": value}))


if __name__ == "__main__":
    main()
