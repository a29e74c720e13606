"""What idle engines would serve in time: the most that any number of instances can keep of a promise, before anything is played.

Who an idle engine serves too late is missed under every strategy. Read next: `results/causes.py`, which says it of a run;
`cli/reach.py`, which warns.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Ints, Names, Trace, cached_tokens
from sageserve.base.units import show_duration
from sageserve.core.layout import Layout
from sageserve.core.order import promised_us
from sageserve.core.perf import first_times
from sageserve.data.workload.rates import length_table, streams_of
from sageserve.sim.faults import true_layout


class OutOfReach(Struct, frozen=True):
    """A promise that idle engines miss.

    Args:
        tier: whose.
        model: of its requests.
        share: of them, that an idle engine would serve in time.
        promised: share that is promised.
        within: how long the tier allows, in words.
    """

    tier: str
    model: str
    share: float
    promised: float
    within: str

    @property
    def text(self) -> str:
        """A sentence, and what to do."""
        return (
            f"{self.tier} of {self.model} is out of reach: idle engines serve {_down(self.share):.1%} within {self.within},"
            f" promised are {100 * self.promised:g} %; give tiers.{self.tier} a later ttft, one that grows (ttft_per_1k_tokens),"
            f" or a lower percentile, or {self.model} a faster engine"
        )


def out_of_reach(scenario: Scenario, layout: Layout, trace: Trace) -> list[OutOfReach]:
    """Promises of first tokens that idle engines miss, by tier and model.

    The engine is the model's fastest, in the region where a request enters. Turns of conversations and hashed prompts may find
    more in a cache than the trace says: they are counted as in time.

    Args:
        scenario: for promises.
        layout: numbers of its names.
        trace: requests.
    """
    allowed = promised_us(layout.tiers, trace.tier, trace.prompt)
    if trace.deadline is not None:
        allowed = np.where(trace.deadline == UNSET, allowed, trace.deadline - trace.arrival)
    idle = idle_times(true_layout(scenario, layout), trace.model, trace.prompt, cached_tokens(trace, layout.prefix_hits))
    late = idle + np.diagonal(layout.rtt)[trace.region] > allowed
    late &= trace.prompt < layout.context[trace.model]  # longer ones are refused
    if trace.blocks is not None or "session" in trace.labels:
        late &= ~np.array([model.prefix_cache for model in scenario.models.values()])[trace.model]
    return list(_missed(scenario, trace, late))


def typical(scenario: Scenario) -> Trace:
    """Prompts as `workload.generate.shapes` describe them, at equal steps of probability: of every stream as many.

    Raises:
        ConfigError: the scenario describes no traffic.
    """
    streams = streams_of(scenario)
    prompts = np.array([length_table(shape.prompt, f"{model}.{group}.prompt") for model, group, shape in streams.shapes])
    width = prompts.shape[1]
    numbers = np.repeat(np.arange(len(streams)), width)
    n = len(numbers)
    return Trace(
        arrival=np.zeros(n, np.int64),
        prompt=np.rint(prompts[streams.shape]).ravel().astype(np.int32),
        output=np.ones(n, np.int32),
        model=streams.model[numbers],
        region=streams.region[numbers],
        tier=streams.tier[numbers],
        names=Names(tuple(scenario.models), tuple(scenario.regions), tuple(scenario.tiers)),
        window=1,
    )


def idle_times(layout: Layout, model: NDArray[Any], prompt: NDArray[Any], cached: NDArray[Any]) -> Ints:
    """int64[n]: microseconds until an idle engine's first token, if need be where it decodes; none where nothing runs it."""
    times = np.zeros(len(model), np.int64)
    for m in range(len(layout.names.models)):
        at = np.flatnonzero(model == m)
        fastest = layout.fastest(m)
        if len(at) and fastest >= 0:
            first_times(layout.profiles[fastest], prompt[at], cached[at], times, at)
    return times if layout.handover is None else times + layout.handover.way(model, prompt).astype(np.int64)


def _missed(scenario: Scenario, trace: Trace, late: NDArray[np.bool_]) -> Iterator[OutOfReach]:
    cells = trace.tier.astype(np.int64) * len(scenario.models) + trace.model
    size = len(scenario.tiers), len(scenario.models)
    asked, missed = (np.bincount(each, minlength=size[0] * size[1]).reshape(size) for each in (cells, cells[late]))
    for k, (name, tier) in enumerate(scenario.tiers.items()):
        if tier.batch:
            continue
        for m, model in enumerate(scenario.models):
            if asked[k, m] and (share := 1.0 - float(missed[k, m] / asked[k, m])) < tier.percentile:
                growth = f" + {show_duration(tier.growth)}/1k" if tier.growth else ""
                yield OutOfReach(name, model, share, tier.percentile, f"{show_duration(tier.patience)}{growth}")


def _down(share: float) -> float:
    return int(share * 1000) / 1000  # what is missed by one in a million is not shown as kept
