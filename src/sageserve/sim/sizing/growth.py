"""A condition on traffic: sized for more of it than there is, with what that adds to what there is. Read next: `run.py`."""

from collections.abc import Callable
from dataclasses import replace
from math import inf

import msgspec

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.data.results.sweep_folder import SweepSource
from sageserve.sim.sizing.records import Growth, Sizing

NONE = 1.0


def size_grown(
    solve: Callable[[Scenario, SweepSource], Sizing], scenario: Scenario, source: SweepSource, factor: float = NONE
) -> Sizing:
    """The answer for so many times the traffic, and beside it that for the traffic there is.

    Args:
        solve: gives an answer.
        scenario: what is to be served.
        source: where its requests come from.
        factor: times the requests; 1: as many as there are.

    Raises:
        ConfigError: a factor that is not above 0.
    """
    wanted = grown(scenario, source, factor)
    plain = solve(scenario, source)
    if factor == NONE:
        return plain
    return msgspec.structs.replace(solve(*wanted), growth=Growth(factor, plain.gpus, plain.cost_per_month_usd))


def grown(scenario: Scenario, source: SweepSource, factor: float) -> tuple[Scenario, SweepSource]:
    """So many times the traffic: more requests are drawn, or a trace is loaded with copies of its own.

    Raises:
        ConfigError: a factor that is not above 0.
    """
    if not 0 < factor < inf:
        raise ConfigError(f"--growth {factor:g} is not above 0", hint="write 1.5 for half as much again")
    if source.options.files:
        return scenario, replace(source, options=replace(source.options, load=source.options.load * factor))
    drawn = scenario.workload.generate.model_copy(
        update={"requests": max(round(scenario.workload.generate.requests * factor), 1)}
    )
    workload = scenario.workload.model_copy(update={"generate": drawn})
    return scenario.model_copy(update={"workload": workload}), source
