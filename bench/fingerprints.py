"""What runs come to, as hashes: two versions of the code give the same lines when they decide and count the same.

    python -m bench.fingerprints [--set KEY=VALUE ...] > after.txt        # in one checkout; then the same in the other, and diff

Six strategies, two scenarios, two seeds; one line per file of every run. Of summary.json the line holds the values, without CPU
time and versions, one line per top-level key, so that a new key is a new line. Read next: README.md.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

STRATEGIES = ("siloed", "reactive", "lt-i", "lt-ua", "chiron", "foresight")
SCENARIOS = (("quickstart", "1"), ("o365-paper-week", "0.02"))
SEEDS = (1, 2)
FILES = ("requests.parquet", "timeline.parquet", "journal.jsonl.zst")
UNEQUAL = ("cpu_s", "requests_per_cpu_s", "version")  # of summary.json: differ between equal runs


def main() -> int:
    """Play every case and print its hashes."""
    parser = argparse.ArgumentParser(description="hashes of runs")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    overrides = [word for one in parser.parse_args().overrides for word in ("--set", one)]
    with tempfile.TemporaryDirectory() as folder:
        for scenario, load in SCENARIOS:
            for strategy in STRATEGIES:
                for seed in SEEDS:
                    out = Path(folder) / f"{scenario}-{strategy}-{seed}"
                    play(out, scenario, "--load", load, "--strategy", strategy, "--seed", str(seed), *overrides)
                    show(out)
    return 0


def play(out: Path, *words: str) -> None:
    """Simulate one case into a folder."""
    command = [sys.executable, "-m", "sageserve.cli.main", "simulate", *words, "--out", str(out), "--no-report"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def show(out: Path) -> None:
    """Print a line per file and per key of the summary."""
    for name in FILES:
        print(out.name, name, hashlib.sha256((out / name).read_bytes()).hexdigest()[:16], flush=True)
    for key, value in sorted(json.loads((out / "summary.json").read_text("utf-8")).items()):
        if key not in UNEQUAL:
            text = json.dumps(value, sort_keys=True)
            print(out.name, f"summary.{key}", hashlib.sha256(text.encode()).hexdigest()[:16], flush=True)


if __name__ == "__main__":
    sys.exit(main())
