"""Many seeds, on as many processes as there are cores: what they broke, in the order of the seeds.

Read next: `story.py`, which plays one.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from sageserve.live.swarm.story import Violation, tell, violations

_TOGETHER: Final = 8  # seeds of one errand
Stop = Callable[[], bool]


def swarm(seeds: Sequence[int], workers: int, told: Callable[[int, int], None], stop: Stop) -> tuple[int, list[Violation]]:
    """Play seeds.

    Args:
        seeds: each at least 0.
        workers: processes; 1: this one alone.
        told: how many are played, of how many.
        stop: asked now and then: whether that is enough.

    Returns:
        How many seeds were played, the first of them, and the laws that they broke.
    """
    groups = [seeds[at : at + _TOGETHER] for at in range(0, len(seeds), _TOGETHER)]
    found: list[Violation] = []
    played = 0
    with _played(groups, workers) as answers:
        for group, broken in zip(groups, answers, strict=False):
            found += broken
            played += len(group)
            told(played, len(seeds))
            if stop():
                break
    return played, found


@contextmanager
def _played(groups: list[Sequence[int]], workers: int) -> Iterator[Iterator[list[Violation]]]:
    if workers == 1:
        yield map(_play, groups)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            yield pool.map(_play, groups)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _play(seeds: Sequence[int]) -> list[Violation]:
    with tempfile.TemporaryDirectory(prefix=f"swarm-{os.getpid()}-") as folder:
        return [broken for seed in seeds for broken in violations(tell(seed, Path(folder) / str(seed)))]
