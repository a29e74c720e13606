"""The two sides of a difference: which runs each has, which belong together, and whether they were played with the same requests.

A side is one strategy with one seed or several. Folders are read by `data/results/sweep_read.py`; nothing is judged here.
Read next: `difference.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sageserve.base.errors import ResultError
from sageserve.base.units import SECOND, show_duration
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_read import KeptRun, flat, is_sweep, read_kept, read_sweep, same_but_seed, siblings

_TOLD: Final = 3  # differing settings that a message names


@dataclass(frozen=True, slots=True)
class Side:
    """One strategy's runs.

    Args:
        name: the folder, as the user named it.
        runs: by seed, rising; at least one.
    """

    name: str
    runs: dict[int, KeptRun]

    @property
    def some(self) -> KeptRun:
        """The run of the lowest seed."""
        return next(iter(self.runs.values()))

    @property
    def strategy(self) -> str:
        """The one strategy of all its runs."""
        return self.some.summary.strategy


def sides_of(folders: Sequence[Path]) -> dict[str, Side]:
    """What folders hold, by strategy.

    Args:
        folders: one of `compare --out`; or one run, which brings the other seeds of its comparison; or runs that differ in the
            seed alone.

    Raises:
        ResultError: a folder that is no result, or runs that do not belong together.
    """
    if len(folders) == 1 and is_sweep(folders[0]):
        sweep = read_sweep(folders[0])
        return {name: Side(str(folders[0]), dict(runs)) for name, runs in sweep.runs.items()}
    if len(folders) == 1:
        run = read_kept(folders[0])
        runs = siblings(run)
        beside = " and the seeds beside it" if len(runs) > 1 else ""
        return {run.summary.strategy: Side(f"{folders[0]}{beside}", runs)}
    found: dict[int, KeptRun] = {}
    for folder in folders:
        if is_sweep(folder):
            raise ResultError(f"{folder} is a whole comparison", hint="name it alone, or name runs that differ in the seed alone")
        _join(found, read_kept(folder))
    first = next(iter(found.values()))
    return {first.summary.strategy: Side(f"{folders[0]} and {len(folders) - 1} more", dict(sorted(found.items())))}


def _join(found: dict[int, KeptRun], run: KeptRun) -> None:
    for other in found.values():
        changed = changed_settings(same_but_seed(other.scenario), same_but_seed(run.scenario))
        if changed:
            names = ", ".join(key for key, _, _ in changed[:_TOLD])
            raise ResultError(
                f"{run.path} and {other.path} are to be one side and differ in more than the seed: {names}",
                hint="put what differs on the other side of --against",
            )
    if run.summary.seed in found:
        raise ResultError(
            f"{run.path} and {found[run.summary.seed].path} both have seed {run.summary.seed}", hint="name each seed once"
        )
    found[run.summary.seed] = run


def pairs_of(first: dict[str, Side], second: dict[str, Side]) -> list[tuple[Side, Side]]:
    """Which side is to be seen against which: equal strategies, or whatever there is when each has one.

    Raises:
        ResultError: several strategies, none of them on both sides.
    """
    if len(first) == 1 and len(second) == 1:
        return [(next(iter(first.values())), next(iter(second.values())))]
    both = [(first[name], second[name]) for name in first if name in second]
    if not both:
        raise ResultError(
            f"no strategy is on both sides: {', '.join(first)} and {', '.join(second)}",
            hint="name one run of each instead, such as SWEEP/reactive-seed1-…",
        )
    return both


def changed_settings(before: dict[str, str], after: dict[str, str]) -> list[tuple[str, str, str]]:
    """Keys whose values differ, with both values; a dash where one side does not have the key."""
    keys = [*before, *(key for key in after if key not in before)]
    return [(key, before.get(key, "–"), after.get(key, "–")) for key in keys if before.get(key) != after.get(key)]


def unlike(first: Side, second: Side) -> list[str]:
    """Why two sides should not be compared: other requests, another window, interrupted. Sentences; none when they may be."""
    return [*_traffic(first, second), *_windows(first, second), *_requests(first, second), *_broken(first), *_broken(second)]


def generated(run: KeptRun) -> bool:
    """Whether the requests were drawn from the scenario, and not read from a file."""
    return any(" generated over " in note for note in run.summary.notes)


def _traffic(first: Side, second: Side) -> Iterator[str]:
    kinds = [{True: "generated", False: "from a file"}[generated(side.some)] for side in (first, second)]
    if kinds[0] != kinds[1]:
        yield f"the requests are {kinds[0]} in one and {kinds[1]} in the other"
    elif generated(first.some):
        changed = changed_settings(flat(first.some.scenario), flat(second.some.scenario))
        for key, before, after in [each for each in changed if each[0].startswith("workload.")][:_TOLD]:
            yield f"{key} is {before} in one and {after} in the other"
    loads = [
        [note.partition(":")[0] for note in side.some.summary.notes if note.startswith("load ×")] for side in (first, second)
    ]
    if loads[0] != loads[1]:
        yield f"the rate is {_load(loads[0])} in one and {_load(loads[1])} in the other"


def _load(notes: list[str]) -> str:
    return notes[0] if notes else "as it was"


def _windows(first: Side, second: Side) -> Iterator[str]:
    spans = [sorted({run.summary.window_s for run in side.runs.values()}) for side in (first, second)]
    if spans[0] != spans[1]:
        words = [", ".join(show_duration(round(span * SECOND)) for span in each) for each in spans]
        yield f"the window is {words[0]} in one and {words[1]} in the other"


def _requests(first: Side, second: Side) -> Iterator[str]:
    shared = [seed for seed in first.runs if seed in second.runs]
    pairs = [(seed, first.runs[seed].summary, second.runs[seed].summary) for seed in shared]
    if not pairs and not generated(first.some):  # a file gives every seed the same requests
        pairs = [(first.some.summary.seed, first.some.summary, second.some.summary)]
    for seed, before, after in pairs:
        if _counts(before) != _counts(after):
            total = before.requests.arrived, after.requests.arrived
            how = f"{total[0]:,} and {total[1]:,}" if total[0] != total[1] else "as many, of other models or tiers"
            yield f"the requests are not the same with seed {seed}: {how}"
            return


def _counts(summary: Summary) -> list[tuple[str, int]]:
    tiers = [(name, tier.requests) for name, tier in sorted(summary.tiers.items())]
    return tiers + [(name, model.requests) for name, model in sorted(summary.models.items())]


def _broken(side: Side) -> Iterator[str]:
    for run in side.runs.values():
        if run.summary.partial:
            yield f"{run.path} was interrupted after {show_duration(round(run.summary.played_s) * SECOND)}"
