"""Windows of a scenario's traffic: made, played wherever cells are played, and counted; and what a search is told of one.

A window of generated traffic is the scenario's with another seed; a window of a trace is the trace, and then resampled ones
(`data/traces/changes/transform.py`). Decides nothing. Read next: `run.py`, `strategy.py`.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, get_args

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, SageServeError
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import SweepSource
from sageserve.sim.sizing.conditions import Survive
from sageserve.sim.sizing.pools import SizedPool, with_counts
from sageserve.sim.sizing.safety import KeptShare
from sageserve.sim.sizing.search import Ask, Counts, Measured, Search
from sageserve.sim.sweep.cell import Cell, Failed, Finished
from sageserve.sim.sweep.run import CellRunner, Watch

LEAST_WINDOWS: Final = 20


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Args:
        safety: confidence that every promise holds in a window that was not played.
        windows: how many are played, 20 or more.
        survive: what may be lost, for as long as a window lasts; empty: nothing.
    """

    safety: float = 0.99
    windows: int = LEAST_WINDOWS
    survive: Survive = ""

    def check(self) -> None:
        """Refuse what cannot be answered.

        Raises:
            ConfigError: a safety that is no share below one, or too few windows.
        """
        if not 0.5 <= self.safety < 1.0:
            raise ConfigError(f"--safety {self.safety:g} is not between 50% and 100%", hint="nothing is sure: write 99% or 99.9%")
        if self.windows < LEAST_WINDOWS:
            raise ConfigError(
                f"--windows {self.windows}: fewer than {LEAST_WINDOWS} say too little of the next one",
                hint=f"give {LEAST_WINDOWS} or more",
            )


def wish_of(safety: float, windows: int, survive: str, *, strategy: str = "") -> Wish:
    """A wish as it was typed; a strategy decides by itself what it does about losses.

    Raises:
        ConfigError: it cannot be answered.
    """
    known = next((kind for kind in get_args(Survive) if kind == survive), None)
    if known is None:
        raise ConfigError(f"--survive {survive} is neither region nor vm", hint="write --survive region")
    if survive and strategy:
        raise ConfigError(
            f"--survive {survive} sizes a fleet of constant size, and {strategy} decides by itself",
            hint="play losses with --set faults.outages, or leave --for-strategy out",
        )
    wish = Wish(safety, windows, known)
    wish.check()
    return wish


class Interrupted(SageServeError):
    """Somebody wanted to stop; there is no answer."""


def measured_of(summary: Summary, model: str) -> Measured:
    """What a window says of one model."""
    found = summary.models[model]
    kept = {
        name: KeptShare(round(tier.attainment * tier.requests), tier.requests)
        for name, tier in found.tiers.items()
        if tier.attainment is not None
    }
    return Measured(kept, found.work_gpu_hours or 0.0, found.gpu_hours.idle or 0.0)


def fleet_of(search: Search, counts: Counts) -> dict[str, int]:
    """Instances by pool that a search asks for, with those beside which it is played."""
    return {**search.within, **{pool.name: n for pool, n in zip(search.pools, counts, strict=True)}}


class Plays:
    """Plays windows, and counts them."""

    def __init__(self, scenario: Scenario, source: SweepSource, wish: Wish, runner: CellRunner, watch: Watch) -> None:
        self._scenario = scenario
        self._source = source
        self._runner = runner
        self._watch = watch
        self._windows = wish.windows
        self.pools: Mapping[str, SizedPool] = {}
        self.count = 0

    def seed(self, window: int) -> int:
        """Of a window; that of a trace as it was recorded is the scenario's."""
        return self._scenario.seed + window

    def cell(self, window: int, counts: Mapping[str, int] | None = None, model: str = "") -> Cell:
        """A window under a fleet of constant size; under the scenario's own strategy without counts."""
        scenario, source = self._scenario, self._source
        if not source.options.files:
            scenario = scenario.model_copy(update={"seed": self.seed(window)})
        elif window:
            source = replace(source, options=replace(source.options, resampled=self.seed(window)))
        if counts is not None:
            scenario = with_counts(scenario, counts, self.pools)
        return Cell(f"window {self.seed(window)}", scenario, source, model=model)

    def play(self, cells: Sequence[Cell]) -> list[Summary]:
        """The summaries of cells, in their order.

        Raises:
            Interrupted: the watch said so.
            SageServeError: one could not be played.
        """
        order = sorted(range(len(cells)), key=lambda k: cells[k].name)  # one window side by side: its requests are made once
        found: dict[int, Summary] = {}
        for number, outcome in self._runner.run([cells[k] for k in order], self._watch.interrupted):
            if isinstance(outcome, Failed):
                raise SageServeError(outcome.message, hint=outcome.hint)
            if isinstance(outcome, Finished):
                found[order[number]] = outcome.summary
            self.count += 1
            self._watch.progress(self.count, max(self.count + len(cells) - len(found), 4 * self._windows))
        if len(found) < len(cells):
            raise Interrupted("stopped before there was an answer")
        return [found[k] for k in range(len(cells))]

    def search(self, searches: Mapping[str, Search]) -> None:
        """Run searches, by model, side by side: what all of them ask for is played together."""
        running: dict[str, Generator[list[Ask], list[Measured], None]] = {name: one.run() for name, one in searches.items()}
        asked = {name: asks for name, one in running.items() if (asks := next(one, None)) is not None}
        while asked:
            cells = [
                self.cell(window, fleet_of(searches[name], counts), "" if searches[name].within else name)
                for name, asks in asked.items()
                for counts, window in asks
            ]
            answers = iter(self.play(cells))
            told = {name: [measured_of(next(answers), name) for _ in asks] for name, asks in asked.items()}
            asked = {}
            for name, measured in told.items():
                try:
                    asked[name] = running[name].send(measured)
                except StopIteration:
                    continue
