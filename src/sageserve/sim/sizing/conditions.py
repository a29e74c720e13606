"""Conditions of a sizing, each with what it adds: more traffic than there is, and what the fleet is to survive.

A fleet survives the loss of a region or of a VM if what is left keeps every promise for as long as a window lasts, whichever one
it is. The hour of the loss itself, with requests that are broken off, is not judged: `faults.outages` plays it. Plays nothing.
Read next: `run.py`, `search.py`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from math import inf, log, log1p
from typing import Final, Literal, TypeAlias

import msgspec

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.base.units import SECOND, WEEK, Micros
from sageserve.data.results.sweep_folder import SweepSource
from sageserve.sim.sizing.pools import SizedPool
from sageserve.sim.sizing.records import Growth, Lead, Nine, Sizing, Survival

Survive: TypeAlias = Literal["", "region", "vm"]
Losses: TypeAlias = dict[str, dict[str, int]]
"""By what is lost, instances by pool that go with it."""

_ALL: Final = 2**31
KINDS: Final[Mapping[str, str]] = {"region": "any one region", "vm": "any one VM"}
NONE: Final = 1.0
Solve: TypeAlias = Callable[[Scenario, SweepSource, Survive], Sizing]


def size_under(
    solve: Solve, scenario: Scenario, source: SweepSource, factor: float = NONE, survive: Survive = ""
) -> Iterator[Sizing]:
    """Answers under one condition more each: as things are, for so many times the traffic, and with losses too.

    Each says what it would be without its conditions. The last one is what was asked for; who stops before has what was found.

    Args:
        solve: gives an answer.
        scenario: what is to be served.
        source: where its requests come from.
        factor: times the requests; 1: as many as there are.
        survive: what may be lost; empty: nothing.

    Raises:
        ConfigError: a factor that is not above 0.
    """
    wanted = grown(scenario, source, factor)
    found = solve(scenario, source, "")
    yield found
    growth = None if factor == NONE else Growth(factor, found.gpus, found.cost_per_month_usd)
    if growth is not None:
        found = msgspec.structs.replace(solve(*wanted, ""), growth=growth)
        yield found
    if survive:
        told = Survival(survive, found.gpus, found.cost_per_month_usd)
        yield msgspec.structs.replace(solve(*wanted, survive), growth=growth, survive=told)


def one_more_nine(safety: float) -> float:
    """A tenth of the doubt.

    Raises:
        ConfigError: nothing would be left of it.
    """
    safer = round(1.0 - (1.0 - safety) / 10, 9)
    if safer < 1.0:
        return safer
    raise ConfigError(
        f"--one-more-nine: beside --safety {100 * safety:.10g}% it would be 100%, and nothing is sure",
        hint="leave --one-more-nine out, or ask for less safety",
    )


def check_nine(strategy: str | None, safety: float) -> None:
    """Refuse to price one more nine where there is none, or where nothing depends on it.

    Raises:
        ConfigError: nothing would be left of the doubt, or a strategy is asked for.
    """
    one_more_nine(safety)
    if strategy is not None:
        raise ConfigError(
            f"--one-more-nine prices a fleet of constant size, and what {strategy} holds does not depend on the safety",
            hint="leave --one-more-nine out, or --for-strategy",
        )


def with_nine(found: Sizing, solve: Callable[[float], Sizing]) -> Sizing:
    """The answer, and what one more nine of safety would take.

    Args:
        found: the answer.
        solve: gives the answer under the same conditions with another safety.
    """
    safety = one_more_nine(found.safety)
    try:
        safer = solve(safety)
    except Infeasible:
        return msgspec.structs.replace(found, nine=Nine(safety, None, None))
    return msgspec.structs.replace(found, nine=Nine(safety, safer.gpus, safer.cost_per_month_usd))


def with_lead(found: Sizing, lead: Micros, reached_s: float) -> Sizing:
    """The answer, and by when to ask for its quota.

    Args:
        found: the answer.
        lead: from asking until it is there, microseconds.
        reached_s: seconds until there is the traffic that was sized for (`reached_in`).
    """
    return msgspec.structs.replace(found, lead=Lead(lead / SECOND, reached_s))


def reached_in(scenario: Scenario, factor: float) -> float:
    """Seconds until there is so many times the traffic, as the scenario grows by `workload.generate.growth_per_week`.

    Raises:
        ConfigError: there never is.
    """
    weekly = scenario.workload.generate.growth_per_week
    if factor <= NONE:
        return 0.0
    if weekly <= 0:
        raise ConfigError(
            f"--lead-time: traffic that does not grow is never {factor:g} times as much",
            hint="say how fast it grows: --set workload.generate.growth_per_week=0.03",
        )
    return round(log(factor) / log1p(weekly) * WEEK / SECOND)


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


def losses_of(pools: Collection[SizedPool], survive: Survive, served: Iterable[str], pinned: Iterable[str]) -> Losses:
    """What may be lost.

    Args:
        pools: that are sized.
        survive: what is to be survived; empty: nothing.
        served: models that have requests.
        pinned: tiers that have requests which one region alone may serve.

    Raises:
        ConfigError: nothing would be left that may serve.
    """
    if not survive:
        return {}
    found: Losses = {}
    for pool in pools:
        if survive == "region":
            found.setdefault(pool.region, {})[pool.name] = _ALL
        else:  # instances fill VMs, so as many go with one as it has room for
            found.setdefault(f"a VM of {pool.region}/{pool.gpu}", {})[pool.name] = max(pool.per_vm // pool.gpus, 1)
    if survive == "region":
        _check_regions(pools, served, sorted(pinned))
    return found


def _check_regions(pools: Collection[SizedPool], served: Iterable[str], pinned: list[str]) -> None:
    for model in sorted(served):
        there = {pool.region for pool in pools if pool.model == model}
        if len(there) < 2:
            raise ConfigError(
                f"--survive region: {model} runs in {''.join(there) or 'no region'} alone, and nothing is left without it",
                hint="give another region GPUs that can run it, or ask for --survive vm",
            )
    if pinned:
        raise ConfigError(
            f"--survive region: requests of {', '.join(pinned)} stay in one region, as `regions` of their tiers says",
            hint=f"let them go elsewhere: --set tiers.{pinned[0]}.regions=any",
        )
