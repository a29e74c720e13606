"""Requests per CPU second of the compiled loop, at 60 % load.

    python -m bench.kernel 240        kernel_240: median of three
    python -m bench.kernel growth     cost per request of ten million over that of a hundred thousand, at one rate
    python -m bench.kernel hashed     the same fleet and rate, conversations whose prompts are hashed; by instance router
    python -m bench.kernel reference  speed over the naive simulator of the tests, on one small case

Read next: `world.py` for the fleet, `tests/sim/reference.py` for the naive simulator.
"""

import sys
import time
from dataclasses import replace
from statistics import mean, median

from bench.figures import show
from bench.world import busy_rate, mean_busy, opened, play, setup, talk, trace
from sageserve.core.route import INSTANCES
from sageserve.sim.kernel.prefixes.tree import prefixes_of
from sageserve.sim.kernel.state import request_rows

REPEAT = 3
LENGTH = 300.0  # s at least: the first three minutes are easier than the rest
SMALL, LARGE = 100_000, 10_000_000
GROWTH_FLEET = 240
HASHED = 500_000
TINY_FLEET, TINY_TRACE = 12, 1_500


def cost(instances: int, requests: int, per_second: float, repeat: int) -> float:
    """CPU seconds per request, median of several runs of the same trace."""
    world, work = setup(instances), trace(requests, per_second)
    times = []
    for _ in range(repeat):
        kernel = opened(world, request_rows(work, world))
        times.append(play(kernel))
    return median(times) / requests


def warm() -> None:
    """Compile everything, or load it from the cache."""
    cost(TINY_FLEET, 100, 1.0, 1)


def speed(instances: int) -> None:
    """kernel_<instances>, and how busy its fleet was."""
    per_second = busy_rate(instances)
    requests = max(1_000_000, round(LENGTH * per_second))
    show(f"kernel_{instances}", 1 / cost(instances, requests, per_second, REPEAT), "requests per CPU second")
    show(f"kernel_{instances}_busy", mean_busy(setup(instances), trace(requests, per_second)), "share")


def hashed() -> None:
    """kernel_hashed_least, kernel_hashed_affinity: with the share of prompt tokens found, and the seconds that the tree takes."""
    per_second = busy_rate(GROWTH_FLEET)
    work, world = talk(HASHED, per_second), setup(GROWTH_FLEET)
    for number, name in enumerate(INSTANCES):
        here = replace(world, instance=number)
        times, trees, shares = [], [], []
        for _ in range(REPEAT):
            rows, began = request_rows(work, here), time.process_time()
            kernel = opened(here, rows, prefixes_of(work))
            trees.append(time.process_time() - began)
            times.append(play(kernel))
            shares.append(rows["cached"].sum() / rows["prompt"].sum())
        show(f"kernel_hashed_{name}", HASHED / median(times), "requests per CPU second")
        show(f"kernel_hashed_{name}_found", mean(shares), "share of prompt tokens")
        show(f"kernel_hashed_{name}_tree", median(trees), "CPU s")


def growth() -> None:
    """growth_1e7_over_1e5."""
    per_second = busy_rate(GROWTH_FLEET)
    short = cost(GROWTH_FLEET, SMALL, per_second, 5 * REPEAT)
    show("growth_1e7_over_1e5", cost(GROWTH_FLEET, LARGE, per_second, 1) / short, "ratio")


def reference() -> None:
    """reference_ratio: the same requests through both, and the same answers."""
    from tests.sim.reference import Reference

    per_second = busy_rate(TINY_FLEET)
    world, work = setup(TINY_FLEET), trace(TINY_TRACE, per_second)
    slow = Reference(world, request_rows(work, world))
    for i in range(TINY_FLEET):
        slow.open(i)
    began = time.process_time()
    while not slow.finished():
        slow.run_until(slow.now + 60_000_000)
    naive = (time.process_time() - began) / TINY_TRACE
    fast = opened(world, request_rows(work, world))
    play(fast)
    if not (fast.requests["finish"] == slow.requests["finish"]).all():
        raise RuntimeError("kernel and reference differ: speed means nothing")
    show("reference_ratio", naive / cost(TINY_FLEET, TINY_TRACE, per_second, 25), "ratio")


if __name__ == "__main__":
    warm()
    match sys.argv[1]:
        case "hashed":
            hashed()
        case "growth":
            growth()
        case "reference":
            reference()
        case number:
            speed(int(number))
