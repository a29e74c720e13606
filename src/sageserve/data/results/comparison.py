"""Strategies side by side: means and spreads over seeds, against another strategy and against the bound.

    comparison.against("lt-ua", "reactive").mean    # -0.11: 11 % fewer GPU-hours, seed by seed

Work owed at the end of the window counts where it says so: GPU-hours + owed is what a strategy really needs. Computes; draws
nothing. Read next: `summary.py` for the numbers, docs/reference/summary.md.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from sageserve.data.results.summary import Energy, GpuCounts, Summary


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds and its sample standard deviation, None for a single seed."""

    mean: float
    deviation: float | None


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and deviation of what was measured; None when nothing was."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Summaries by strategy and seed.

    Args:
        runs: by strategy, in the order to be shown, and by seed.
        bounds: the oracle's GPU-hours by seed; empty when it was not asked.
        baseline: what others are set against, where the user said so.
    """

    runs: Mapping[str, Mapping[int, Summary]]
    bounds: Mapping[int, float]
    baseline: str = ""

    @property
    def base(self) -> str:
        """What strategies are set against: as was asked, or the usual; it need not be among them."""
        return self.baseline or base_of(self.runs)

    @property
    def currency(self) -> str:
        """Of costs, as the first run has it."""
        return next(run.currency for runs in self.runs.values() for run in runs.values())

    def of(self, name: str, value: Callable[[Summary], float | None]) -> Spread | None:
        """A number of a strategy's summaries over its seeds."""
        return spread(value(summary) for summary in self.runs[name].values())

    def against(self, name: str, other: str, value: Callable[[Summary], float | None]) -> Spread | None:
        """Relative change from `other`, over the seeds both have: -0.1 is 10 % less. None without `other`."""
        base = self.runs.get(other, {})
        pairs = [(value(run), value(base[seed])) for seed, run in self.runs[name].items() if seed in base]
        return spread(None if mine is None or not theirs else mine / theirs - 1 for mine, theirs in pairs)

    def over_bound(self, name: str) -> Spread | None:
        """(GPU-hours + owed) / bound, over the seeds that have a bound."""
        needs = [(needed(run), self.bounds.get(seed)) for seed, run in self.runs[name].items()]
        return spread(None if not bound else need / bound for need, bound in needs)


def base_of(names: Iterable[str]) -> str:
    """What strategies are held against: what the fleet did, where that was played, else the plainest rule."""
    return "recorded" if "recorded" in names else "reactive"


def held(summary: Summary) -> float:
    """GPU-hours held in the window."""
    return summary.gpu_hours.total


def owed(summary: Summary) -> float | None:
    """GPU-hours of work left at the end of the window."""
    return summary.after_window.work_gpu_hours


def needed(summary: Summary) -> float:
    """GPU-hours held, and those of the work left at the end."""
    return summary.gpu_hours.total + (summary.after_window.work_gpu_hours or 0.0)


def energy_kwh(summary: Summary) -> float | None:
    """Kilowatt-hours; None where the scenario gives no power."""
    return summary.energy.kwh if isinstance(summary.energy, Energy) else None


def energy_kg(summary: Summary) -> float | None:
    """Kilograms of CO2; None where the scenario does not say how clean its grid is."""
    return summary.energy.kg_co2 if isinstance(summary.energy, Energy) else None


ENERGY: Final = (("kWh", "energy.kwh", energy_kwh), ("kg CO2", "energy.kg_co2", energy_kg))
"""Title, key in summary.json and value."""


def energy_of(comparison: Comparison) -> tuple[tuple[str, str, Callable[[Summary], float | None]], ...]:
    """Of ENERGY those that any of its runs has."""
    runs = [run for seeds in comparison.runs.values() for run in seeds.values()]
    return tuple(each for each in ENERGY if any(each[2](run) is not None for run in runs))


def highest(counts: Sequence[GpuCounts]) -> GpuCounts:
    """Of several runs or windows: the highest peak and p99, the mean of means, the lowest minimum.

    Args:
        counts: one or more.
    """
    return GpuCounts(
        max(one.peak for one in counts),
        max(one.p99 for one in counts),
        round(sum(one.mean for one in counts) / len(counts), 6),
        min(one.minimum for one in counts),
    )


def gpu_counts(comparison: Comparison, name: str) -> dict[str, GpuCounts]:
    """GPUs held by pool, and those of `VMs of region/gpu`, over the seeds of a strategy; what it never held is left out."""
    runs = list(comparison.runs[name].values())
    found = {pool: highest([run.gpus[pool] for run in runs if pool in run.gpus]) for pool in runs[0].gpus}
    found |= {
        f"VMs of {stock}": highest([run.vm_gpus[stock] for run in runs if stock in run.vm_gpus]) for stock in runs[0].vm_gpus
    }
    return {row: counts for row, counts in found.items() if counts.peak}


class FrontierPoint(Struct, frozen=True):
    """A strategy with its knob at one setting.

    Args:
        knob: for people: `high 0.7`.
        gpu_hours_with_owed: held, and those of the work left at the end; mean over seeds.
        kept: share of requests in time by tier, mean over seeds; a tier without requests is not in it.
        spread: standard deviations over seeds, of `gpu_hours_with_owed` and by tier; None for one seed.
        by_seed: GPU-hours with owed work and shares kept, of each seed.
    """

    knob: str
    gpu_hours_with_owed: float
    kept: dict[str, float]
    spread: dict[str, float] | None
    by_seed: dict[int, tuple[float, dict[str, float]]]


class Match(Struct, frozen=True):
    """What as much kept costs.

    Args:
        tier: whose requests.
        kept: the share of them.
        gpu_hours: by strategy, owed work included, between its two nearest points; None: it never keeps so much.
    """

    tier: str
    kept: float
    gpu_hours: dict[str, float | None]


class Frontier(Struct, frozen=True):
    """The points of strategies, each with its one knob turned: frontier.json of a sweep's folder.

    Args:
        points: by strategy, in the order of the knob.
        beaten: of each point the strategy that is cheaper and keeps as much; None: nobody's.
        matched: what as much kept costs; None where nothing is to be compared.
        promised: percentile by tier.
        cells: folders of the runs with each strategy's settings as they were given.
    """

    points: dict[str, tuple[FrontierPoint, ...]]
    beaten: dict[str, tuple[str | None, ...]]
    matched: Match | None
    promised: dict[str, float]
    cells: tuple[str, ...]
