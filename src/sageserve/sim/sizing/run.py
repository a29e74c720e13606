"""Sizing a fleet: windows are made, models are searched side by side, and the fleet that comes out is played as a whole.

    sizing = size(scenario, source, Wish(safety=0.99), runner)

A window of generated traffic is the scenario's with another seed; a window of a trace is the trace, and then resampled ones
(`data/traces/changes/transform.py`). Models share no instance, so each is searched with its own requests alone; the last word has
the whole fleet in all windows. Read next: `search.py`, `answer.py`.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible, SageServeError
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import SweepSource
from sageserve.sim.sizing.answer import Found, answer
from sageserve.sim.sizing.pools import SizedPool, pools_to_size, with_counts
from sageserve.sim.sizing.records import Sizing
from sageserve.sim.sizing.safety import KeptShare
from sageserve.sim.sizing.search import Ask, Measured, Promises, Search
from sageserve.sim.sweep.cell import Cell, Failed, Finished, Player
from sageserve.sim.sweep.run import CellRunner, Watch

LEAST_WINDOWS: Final = 20
_REPAIRS: Final = 8  # instances that the whole fleet may need beyond what models alone did


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for.

    Args:
        safety: confidence that every promise holds in a window that was not played.
        windows: how many are played, 20 or more.
    """

    safety: float = 0.99
    windows: int = LEAST_WINDOWS

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


class Interrupted(SageServeError):
    """Somebody wanted to stop; there is no answer."""


def size(scenario: Scenario, source: SweepSource, wish: Wish, runner: CellRunner, watch: Watch | None = None) -> Sizing:
    """The least fleet of constant size that keeps every promise of every model.

    Args:
        scenario: what is to be served, on which GPUs and with what promises.
        source: where its requests come from.
        wish: how sure it must be.
        runner: where windows are played; workers that are kept from one run to the next save most of the time.
        watch: who looks on.

    Raises:
        ConfigError: the wish cannot be answered, or the scenario describes no traffic.
        Infeasible: no number of instances keeps every promise.
        TraceError: the trace cannot be read.
        Interrupted: the watch said so.
    """
    wish.check()
    plays = _Plays(scenario, source, wish, runner, watch or Watch())
    trace = Player().requests(plays.cell(0)).trace
    pools = pools_to_size(scenario, trace)
    plays.pools = {pool.name: pool for of_model in pools.values() for pool in of_model}
    there = {
        (trace.names.models[m], trace.names.tiers[k]) for m, k in zip(trace.model.tolist(), trace.tier.tolist(), strict=True)
    }
    served = {model for model, _ in there}
    if not served:
        raise ConfigError(f"nothing arrives in {scenario.name}: there is nothing to size for", hint="give --trace, or traffic")
    percentiles = {name: tier.percentile for name, tier in scenario.tiers.items()}
    promises = Promises(percentiles, wish.windows, wish.safety, len(there))
    searches = {model: Search(model, of_model, promises) for model, of_model in pools.items() if model in served}
    plays.search(searches)
    counts = {pool.name: 0 for pool in plays.pools.values()}
    for model, of_model in pools.items():
        found = searches[model].counts if model in searches else tuple(pool.floor for pool in of_model)
        counts |= {pool.name: count for pool, count in zip(of_model, found, strict=True)}
    counts, summaries = _proved(plays, promises, searches, counts)
    less = {name: broken for search in searches.values() for name, broken in search.less.items()}
    measured = {model: [measured_of(one, model) for one in summaries] for model in searches}
    reach = {(model, tier): share for model, one in searches.items() for tier, share in one.reach.items()}
    targets = {model: one.promises.percentiles for model, one in searches.items()}
    found_all = Found(
        counts, plays.pools, measured, less, [plays.seed(w) for w in range(wish.windows)], plays.count, reach, targets
    )
    return answer(scenario, found_all, promises, summaries[0])


def measured_of(summary: Summary, model: str) -> Measured:
    """What a window says of one model; work that is left is that of all that were played."""
    kept = {
        name: KeptShare(round(tier.attainment * tier.requests), tier.requests)
        for name, tier in summary.models[model].tiers.items()
        if tier.attainment is not None
    }
    spare = summary.gpu_hours.serving * (1.0 - (summary.utilisation.busy or 0.0))
    return Measured(kept, summary.after_window.work_gpu_hours or 0.0, spare)


def _proved(
    plays: "_Plays", promises: Promises, searches: Mapping[str, Search], counts: dict[str, int]
) -> tuple[dict[str, int], list[Summary]]:
    """The whole fleet in all windows; where that breaks what models alone kept, an instance more."""
    for _ in range(_REPAIRS):
        summaries = plays.play([plays.cell(w, counts) for w in range(promises.windows)])
        short = []
        for model in searches:
            windows = [measured_of(one, model) for one in summaries]
            asked = searches[model].promises  # without what is out of reach
            broken = next((found for w, one in enumerate(windows) if (found := asked.broken_in(one, w))), None)
            if broken or asked.unsure(windows):
                short.append(model)
        if not short:
            return counts, summaries
        for model in short:
            most = max(searches[model].pools, key=lambda pool: counts[pool.name])
            counts = {**counts, most.name: counts[most.name] + 1}
    raise Infeasible("the models together miss promises that each of them kept alone", hint="ask for less with --safety 90%")


class _Plays:
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
        """A window under a fleet; the scenario's own without counts."""
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
        """Run searches side by side: what all of them ask for is played together."""
        running: dict[str, Generator[list[Ask], list[Measured], None]] = {name: one.run() for name, one in searches.items()}
        asked = {name: asks for name, one in running.items() if (asks := next(one, None)) is not None}
        while asked:
            cells = [
                self.cell(window, {pool.name: n for pool, n in zip(searches[name].pools, counts, strict=True)}, name)
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
