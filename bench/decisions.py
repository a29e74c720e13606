"""Microseconds the controller takes for one look at the paper's fleet, and the CPU seconds until `sageserve` answers.

    python -m bench.decisions

Read next: `run.py`.
"""

import os
import sys
import time
from statistics import median

from bench.figures import show
from sageserve.base.units import Micros
from sageserve.cli.kernels import warm_up
from sageserve.core.controller import Controller
from sageserve.core.events import Observed
from sageserve.core.work import AnyAction, AnyEvent
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.workload.generate import generate
from sageserve.sim.run import simulate

STARTS = 5


def look_us() -> float:
    """Median over the looks of a simulated day of o365-week, thinned so that the engines cost little."""
    scenario = load_scenario(
        "o365-week", overrides=["workload.generate.requests=20000", "workload.generate.length=1d", "strategy.name=reactive"]
    )
    taken: list[float] = []
    handle = Controller.handle

    def timed(self: Controller, now: Micros, event: AnyEvent) -> tuple[AnyAction, ...]:
        began = time.perf_counter()
        actions = handle(self, now, event)
        if isinstance(event, Observed):
            taken.append(time.perf_counter() - began)
        return actions

    Controller.handle = timed  # type: ignore[method-assign]  # measured inside a real run, where caches are as they are
    simulate(scenario, generate(scenario))
    return median(taken) * 1e6


def start_s() -> float:
    """CPU seconds of `sageserve --help`, median of several; all its imports happen before it answers."""
    times = []
    for _ in range(STARTS):
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "sageserve.cli.main", "--help"],
            os.environ,  # noqa: TID251 # the child is the command itself
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
        )
        _, _, usage = os.wait4(child, 0)
        times.append(usage.ru_utime + usage.ru_stime)
    return median(times)


if __name__ == "__main__":
    show("import_s", start_s(), "s")
    warm_up()
    show("decision_us", look_us(), "us")
