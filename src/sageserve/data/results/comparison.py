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

GRID: Final = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.9975, 0.999, 0.9999, 1.0)
"""Shares kept at which the curve is drawn, of a tier; what is promised and the most that can be kept are added."""


class BoundLine(Struct, frozen=True):
    """GPU-hours at least, less what misses cost.

    Args:
        gpu_hours: with a price for every miss.
        prices: by tier, GPU-hours a missed request.
    """

    gpu_hours: float
    prices: dict[str, float]


class Bound(Struct, frozen=True):
    """A lower bound of GPU-hours with owed work, for as much kept of every tier (`sim/oracle`, docs/reference/bound.md).

    A line is what all work costs at least if every request that misses its promise costs so many GPU-hours instead of its work;
    with the misses of a run taken off again it is a bound of that run. The highest line counts.

    Args:
        gpu_hours: the least with which every promise is kept, as far as it can be.
        requests: by tier; those that an idle engine serves too late are in them.
        hopeless: of these, the ones that every strategy misses.
        promised: percentile by tier.
        lines: of which the highest is the bound.
    """

    gpu_hours: float
    requests: dict[str, int]
    hopeless: dict[str, int]
    promised: dict[str, float]
    lines: tuple[BoundLine, ...]

    def at(self, kept: Mapping[str, float]) -> float:
        """GPU-hours at least, owed work included, of whoever keeps such shares; a tier that is not told may be missed.

        Args:
            kept: share of its requests by tier.
        """
        missed = {tier: self._missed(tier, kept.get(tier, 0.0)) for tier in self.requests}
        return max(line.gpu_hours - sum(line.prices[tier] * some for tier, some in missed.items()) for line in self.lines)

    def most(self, tier: str) -> float:
        """The largest share of a tier that any strategy can keep."""
        requests = self.requests.get(tier, 0)
        return 1.0 - self.hopeless[tier] / requests if requests else 1.0

    def curve(self, tier: str) -> list[tuple[float, float]]:
        """Shares kept of a tier, ascending, and the GPU-hours at least; every other tier has what is promised of it."""
        most, promised = self.most(tier), self.promised[tier]
        shares = sorted({share for share in (*GRID, promised, most) if share <= most})
        return [(share, self.at({**self.promised, tier: share})) for share in shares]

    def _missed(self, tier: str, kept: float) -> float:
        """Requests of a tier that may be missed besides the hopeless ones; all of them where fewer are missed than hopeless."""
        return max(0.0, self.requests[tier] * (1.0 - kept) - self.hopeless[tier])


def over(gpu_hours: float, least: float) -> float | None:
    """How many times the bound; None where nothing at all is needed."""
    return gpu_hours / least if least > 0 else None


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
        bounds: the oracle's by seed; empty when it was not asked.
        baseline: what others are set against, where the user said so.
    """

    runs: Mapping[str, Mapping[int, Summary]]
    bounds: Mapping[int, Bound]
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
        """(GPU-hours + owed) over the least for as much kept, of the seeds that have a bound."""
        runs = [(run, self.bounds.get(seed)) for seed, run in self.runs[name].items()]
        return spread(None if bound is None else over(needed(run), bound.at(kept_of(run))) for run, bound in runs)


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


def kept_of(summary: Summary) -> dict[str, float]:
    """Share of requests in time, of each tier that had any."""
    return {name: tier.attainment for name, tier in summary.tiers.items() if tier.attainment is not None}


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
        over_bound: how many times the least that as much kept takes anyone, mean over seeds; None: there is no bound.
    """

    knob: str
    gpu_hours_with_owed: float
    kept: dict[str, float]
    spread: dict[str, float] | None
    by_seed: dict[int, tuple[float, dict[str, float]]]
    over_bound: float | None = None


class Match(Struct, frozen=True):
    """What as much kept costs.

    Args:
        tier: whose requests.
        kept: the share of them.
        gpu_hours: by strategy, owed work included, between its two nearest points; None: it never keeps so much.
        bound: what that takes at least, whoever does it, as much kept of the other tiers as is promised; None: there is no bound.
    """

    tier: str
    kept: float
    gpu_hours: dict[str, float | None]
    bound: float | None = None


class BoundPoint(Struct, frozen=True):
    """What nobody can go below: GPU-hours at least for a share kept of one tier, mean over seeds."""

    kept: float
    gpu_hours: float


class Frontier(Struct, frozen=True):
    """The points of strategies, each with its one knob turned: frontier.json of a sweep's folder.

    Args:
        points: by strategy, in the order of the knob.
        beaten: of each point the strategy that is cheaper and keeps as much; None: nobody's.
        matched: what as much kept costs; None where nothing is to be compared.
        promised: percentile by tier.
        cells: folders of the runs with each strategy's settings as they were given.
        bound: by tier, ascending, where every other promise is kept; empty: there is none.
    """

    points: dict[str, tuple[FrontierPoint, ...]]
    beaten: dict[str, tuple[str | None, ...]]
    matched: Match | None
    promised: dict[str, float]
    cells: tuple[str, ...]
    bound: dict[str, tuple[BoundPoint, ...]] = {}
