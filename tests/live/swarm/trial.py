"""Plays stories with the package in a folder until a law is broken: `python -m tests.live.swarm.trial FOLDER SEEDS`.

Prints the seed and the laws it broke; nothing when every story held. Read next: `test_planted.py`.
"""

import sys
from pathlib import Path

import sageserve
from sageserve.live.swarm.story import tell


def main() -> None:
    folder, seeds = Path(sys.argv[1]), int(sys.argv[2])
    assert Path(sageserve.__file__).is_relative_to(folder), "another copy is played"
    for seed in range(seeds):
        told = tell(seed, folder / f"story-{seed}")
        if told.broken:
            sys.stdout.write(f"{seed} {', '.join(told.broken)}")
            return


if __name__ == "__main__":
    main()
