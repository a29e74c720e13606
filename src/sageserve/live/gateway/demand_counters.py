"""What a gateway tells control: demand by cell, work by endpoint, what is at each instance; cumulative, from its first request.

A cell is (region of origin x models + model) x tiers + tier. Also learns how many bytes of a body make a token of each model,
so that a prompt's length can be told before an engine has seen it. Knows no socket. Read next: `live/wire.py`, Report.
"""

from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.core.engine import timing
from sageserve.core.feed import DIRECT
from sageserve.core.layout import Layout
from sageserve.core.pace import ANSWER_WIDTH
from sageserve.core.response import MIX_WIDTH
from sageserve.live.gateway.python_kernels import note_answer, note_request
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.wire import (
    AnswerCount,
    CellCount,
    EndpointCount,
    InstanceCount,
    MixCount,
    Report,
    RevisionCount,
    WaitingCount,
)

BYTES_PER_TOKEN: Final = 4.0  # English text, and OpenAI's own rule of thumb
_FADE: Final = 1 - 1 / 256  # how much of what was learnt a request leaves standing


class _Cell:
    __slots__ = ("could", "finished", "on_time", "output", "prompt", "refused", "requests", "work")

    def __init__(self) -> None:
        self.prompt = 0
        self.output = 0
        self.requests = 0
        self.work = 0.0
        self.finished = 0
        self.refused = 0
        self.on_time = 0
        self.could = 0


class DemandCounters:
    """Counts of one gateway.

    Args:
        scenario: for its tiers.
        layout: the numbers behind its names.
        routing state: what it knows of endpoints and instances.
    """

    def __init__(self, scenario: Scenario, layout: Layout, routing: RoutingState) -> None:
        self._routing = routing
        self._cells: dict[int, _Cell] = {}
        self._context = [int(context) for context in layout.context]
        self._bytes = [BYTES_PER_TOKEN * 1000.0] * len(layout.names.models)
        self._tokens = [1000.0] * len(layout.names.models)
        engines = routing.profiles  # the same objects, so that what they take is computed once for a request
        fastest = (layout.fastest(model) for model in range(len(layout.names.models)))
        self._fastest = [engines[max(row, 0)] for row in fastest]  # a model without a pool serves nothing, whatever it would take
        self._waits = [not tier.batch or layout.feed == DIRECT for tier in scenario.tiers.values()]
        self._nearby = np.diagonal(layout.rtt).tolist()
        self._mixes = [[0.0] * MIX_WIDTH for _ in layout.names.models]
        paced = any(tier.itl is not None for tier in scenario.tiers.values() if not tier.batch)
        each = [paced and not tier.batch for tier in scenario.tiers.values()] * len(layout.names.models)
        self._answers = [[0.0] * ANSWER_WIDTH if one else None for one in each]  # by model x tier
        self._revisions: dict[tuple[int, int], tuple[list[int], list[int]]] = {}  # asked and missed, by tier

    def prompt_tokens(self, model: int, size: int) -> int:
        """Tokens of the prompt in a body of so many bytes, as far as one can tell; at most the model's context."""
        return max(1, min(self._context[model] - 1, int(size * self._tokens[model] / self._bytes[model])))

    def learn(self, model: int, size: int, tokens: int) -> None:
        """An engine said how many tokens a body of so many bytes had."""
        self._bytes[model] = self._bytes[model] * _FADE + size
        self._tokens[model] = self._tokens[model] * _FADE + tokens

    def _cell(self, cell: int) -> _Cell:
        found = self._cells.get(cell)
        if found is None:
            found = self._cells[cell] = _Cell()
        return found

    def arrived(self, region: int, model: int, tier: int, prompt: int) -> int:
        """Count a request; its cell."""
        routing = self._routing
        number = (region * routing.models + model) * routing.tiers + tier
        cell = self._cell(number)
        cell.requests += 1
        cell.prompt += prompt
        profile = self._fastest[model]
        work = routing.work(profile, prompt, model, tier)
        cell.work += work
        if self._waits[tier]:
            idle = timing.first_time(profile, prompt, 0) + profile["entry"] + self._nearby[region]
            patience = routing.promised(tier, prompt)
            note_request(self._mixes[model], timing.prefill_work(profile, prompt, 0), work, patience - idle)
            cell.could += patience > idle
        return number

    def refused(self, cell: int) -> None:
        """It was turned away."""
        self._cell(cell).refused += 1

    def finished(self, cell: int, prompt: int, output: int, took: float, *, slow: bool = False) -> None:
        """It was answered; `took` is microseconds to its first token, or to the end where only that is seen.

        Args:
            cell: of it.
            prompt: tokens.
            output: tokens.
            took: as above.
            slow: its tokens came slower than its tier promises.
        """
        routing, one = self._routing, self._cell(cell)
        one.finished += 1
        one.output += output
        one.on_time += not slow and took <= routing.promised(cell % routing.tiers, prompt)
        if (counted := self._answers[cell % (routing.models * routing.tiers)]) is not None:
            note_answer(counted, output)

    def answered(self, cell: int, output: int) -> None:
        """It was answered, and nobody saw when its first token came: tokens count, and no promise is judged."""
        self._cell(cell).output += output

    def judged(self, model: int, revision: int, tier: int, *, missed: bool) -> None:
        """An instance of a revision was asked something, and its promise was kept or not."""
        if (found := self._revisions.get((model, revision))) is None:
            found = self._revisions[model, revision] = [0] * self._routing.tiers, [0] * self._routing.tiers
        found[0][tier] += 1
        found[1][tier] += missed

    def report(self, streams: int, held: tuple[WaitingCount, ...] = ()) -> Report:
        """All of it, without rows of zeros; `streams` are open now, and `held` wait for an instance."""
        routing = self._routing
        endpoints = tuple(
            EndpointCount(number, load.offered, max(0.0, load.backlog), load.placed, load.freed)
            for number, load in enumerate(routing.loads)
            if load.placed
        )
        instances = tuple(
            InstanceCount(target.row, target.in_flight, self._outstanding(target.row), target.failures, target.unfinished)
            for target in routing.targets.values()
            if target.in_flight or target.failures
        )
        cells = tuple(
            CellCount(number, one.prompt, one.output, one.requests, one.work, one.finished, one.refused, one.on_time, one.could)
            for number, one in sorted(self._cells.items())
        )
        mixes = tuple(MixCount(model, tuple(counted)) for model, counted in enumerate(self._mixes) if counted[0])
        revisions = tuple(RevisionCount(*key, *map(tuple, counts)) for key, counts in self._revisions.items())
        means = tuple(routing.output_mean)
        answers = tuple(AnswerCount(row, tuple(counted)) for row, counted in enumerate(self._answers) if counted and any(counted))
        return Report(routing.version, endpoints, instances, cells, mixes, means, streams, revisions, held, answers)

    def _outstanding(self, row: int) -> int:
        target = self._routing.targets[row]
        return (
            target.unfinished + self._routing.guess[self._routing.model_of(target.endpoint)] * target.in_flight
        ) * target.weight
