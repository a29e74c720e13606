"""Results read back from folders for comparing: one run, or all cells of `compare --out`, with what they were played with.

    side = read_sweep(Path("sweeps/peak"))
    side.comparison.runs["reactive"][1].gpu_hours.total

A sweep's folder may hold cells of older commands. Cells with the settings of the newest one are taken, of a user's own strategies
those of the newest code, and the others are counted. Variants (`compare --ablate`, `--frontier`) are never taken for the
strategy: of a frontier, its file tells which cells are. Reads; computes nothing. Read next: `sweep_folder.py` for the folder,
`comparison.py`, `run_folder.py` for a run with everything.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from sageserve.base.config import Scenario
from sageserve.base.errors import ResultError
from sageserve.core.strategies import STRATEGIES
from sageserve.data.results.comparison import Bound, Comparison, Frontier
from sageserve.data.results.run_folder import SCENARIO, SUMMARY
from sageserve.data.results.summary import Summary, parse_summary
from sageserve.data.results.sweep_folder import MARK, is_as_given
from sageserve.data.scenarios.load import Loaded, load_scenario
from sageserve.data.yaml_positions import Document

BOUND: Final = "bound.json"
FRONTIER: Final = "frontier.json"
_TOLD: Final = 3
_OF_A_CELL: Final = ("seed", "strategy.name")  # settings in which the cells of one sweep differ


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run's summary and settings; the folder may hold no more than these."""

    path: Path
    summary: Summary
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Sweep:
    """The cells of a sweep that belong together.

    Args:
        path: its folder.
        runs: by strategy and seed; strategies in the order of `STRATEGIES`, seeds rising.
        bounds: by seed.
        left: how many cells with other settings or older code of the user's lie there too.
    """

    path: Path
    runs: Mapping[str, Mapping[int, KeptRun]]
    bounds: Mapping[int, Bound]
    left: int

    @property
    def comparison(self) -> Comparison:
        """The summaries side by side."""
        runs = {name: {seed: run.summary for seed, run in seeds.items()} for name, seeds in self.runs.items()}
        return Comparison(runs, self.bounds)


def is_sweep(folder: Path) -> bool:
    """Whether a folder is one of `compare --out`."""
    return (folder / MARK).is_file()


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run's summary and settings."""
    return (folder / SUMMARY).is_file() and (folder / SCENARIO).is_file()


def runs_in(folder: Path) -> list[Path]:
    """The finished runs of a sweep's folder, by name."""
    return sorted(place for place in folder.iterdir() if is_run(place))


def flat(scenario: Scenario) -> dict[str, str]:
    """Every setting as `key.path: value`, values with their units as in scenario.yaml."""
    leaves = Loaded(scenario, Document()).leaves()
    return {".".join(map(str, keys)): _text(value) for keys, value in leaves}


def same_but_seed(scenario: Scenario) -> dict[str, str]:
    """Every setting but the seed: equal for the seeds of one strategy."""
    return {key: value for key, value in flat(scenario).items() if key != "seed"}


def read_kept(folder: Path) -> KeptRun:
    """One run's summary and settings.

    Raises:
        ResultError: there is none, or it cannot be read.
    """
    _exists(folder)
    missing = [name for name in (SUMMARY, SCENARIO) if not (folder / name).is_file()]
    if missing:
        raise ResultError(
            f"{folder} is no result: {', '.join(missing)} missing",
            hint="name a folder that `sageserve simulate --out` or `sageserve compare --out` has written",
        )
    try:
        summary = parse_summary((folder / SUMMARY).read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(
            f"{folder / SUMMARY} cannot be read ({error})",
            hint="it was damaged, or written by another version of sageserve: simulate again with --out",
        ) from None
    return KeptRun(folder, summary, load_scenario(folder / SCENARIO))


def read_sweep(folder: Path) -> Sweep:
    """The cells of `compare --out` that have the settings of the newest one; of a frontier, the strategies as they were given.

    Raises:
        ResultError: it is no such folder, holds no finished run or nothing but variants, or a file cannot be read.
    """
    _exists(folder)
    if not is_sweep(folder):
        raise ResultError(f"{folder} is not a folder of compare --out", hint="make one: sageserve compare quickstart --out DIR")
    if (swept := read_frontier(folder)) is not None and swept.cells:
        return Sweep(folder, _by_seed([read_kept(folder / cell) for cell in swept.cells]), {}, 0)
    cells = sorted(folder.iterdir(), key=lambda place: (_written(place), place.name))
    every = [read_kept(place) for place in cells if is_run(place)]
    kept = [run for run in every if is_as_given(run.path, run.scenario)]
    if not kept:
        _refuse(folder, every)
    like = _shared(kept[-1].scenario), kept[-1].summary.window_s
    code = {run.summary.strategy: run.summary.own_code for run in kept}  # the newest that was played of each strategy
    mine = [
        run
        for run in kept
        if (_shared(run.scenario), run.summary.window_s) == like and run.summary.own_code == code[run.summary.strategy]
    ]
    bounds = dict(_bounds(cells, like[0]))
    return Sweep(folder, _by_seed(mine), dict(sorted(bounds.items())), len(every) - len(mine))


def read_frontier(folder: Path) -> Frontier | None:
    """The frontier that was swept into a folder; None where something else was compared there.

    Raises:
        ResultError: it cannot be read.
    """
    try:
        return msgspec.json.decode((folder / FRONTIER).read_bytes(), type=Frontier)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultError(
            f"{folder / FRONTIER} cannot be read ({error})", hint="delete it and give the compare command again"
        ) from None


def siblings(run: KeptRun) -> dict[int, KeptRun]:
    """The seeds of a run: itself, and the cells beside it in a sweep's folder that differ in nothing but the seed."""
    found = {run.summary.seed: run}
    parent = run.path.resolve().parent
    if is_sweep(parent):
        like = same_but_seed(run.scenario), run.summary.window_s, run.summary.own_code
        for place in sorted(parent.iterdir(), key=lambda one: (_written(one), one.name)):
            if is_run(place) and place != run.path.resolve():
                other = read_kept(place)
                same = same_but_seed(other.scenario), other.summary.window_s, other.summary.own_code
                if same == like and other.summary.seed != run.summary.seed:
                    found[other.summary.seed] = other
    return dict(sorted(found.items()))


def _refuse(folder: Path, variants: list[KeptRun]) -> NoReturn:
    again = "give the compare command again"
    if not variants:
        raise ResultError(f"{folder} holds no finished run", hint=f"{again}: it goes on from what is there")
    raise ResultError(
        f"{folder} holds settings set against each other, and no strategy as it is: {_some([run.path for run in variants])}",
        hint=f"{again}, which plays nothing twice and prints the answer (--frontier without --no-report keeps it),"
        f" or name one run: {variants[0].path}",
    )


def _some(runs: list[Path]) -> str:
    more = f" and {len(runs) - _TOLD} more" if len(runs) > _TOLD else ""
    return ", ".join(place.name for place in runs[:_TOLD]) + more


def _exists(folder: Path) -> None:
    if not folder.exists() and is_sweep(folder.parent) and (runs := runs_in(folder.parent)):
        meant = [run for run in runs if run.name.startswith(folder.name)] or runs
        raise ResultError(f"{folder} does not exist", hint=f"runs in {folder.parent}: {_some(meant)}")
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ResultError(f"{folder} {what}", hint="make a result: sageserve simulate quickstart --out DIR")


def _shared(scenario: Scenario) -> dict[str, str]:
    """The settings that all cells of one sweep share."""
    return {key: value for key, value in flat(scenario).items() if key not in _OF_A_CELL}


def _by_seed(kept: list[KeptRun]) -> dict[str, dict[int, KeptRun]]:
    """By strategy and seed; of two with both equal, the newer."""
    found: dict[str, dict[int, KeptRun]] = {}
    for run in kept:
        found.setdefault(run.summary.strategy, {})[run.summary.seed] = run
    order = [*STRATEGIES, *found]  # that of the help; of a newer version's strategies, that in which they were played
    return {name: dict(sorted(found[name].items())) for name in sorted(found, key=order.index)}


def _bounds(cells: list[Path], like: dict[str, str]) -> Iterator[tuple[int, Bound]]:
    for place in cells:
        if not (place / BOUND).is_file():
            continue
        scenario = load_scenario(place / SCENARIO)
        if _shared(scenario) == like:
            try:
                yield scenario.seed, msgspec.json.decode((place / BOUND).read_bytes(), type=Bound)
            except msgspec.ValidationError:
                continue  # of another version, which had other bounds; a comparison makes its own
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ResultError(f"{place / BOUND} cannot be read ({error})", hint="delete it and compare again") from None


def _written(place: Path) -> int:
    """When a cell's result was put in place, in nanoseconds; 0 for what is no cell."""
    for name in (SUMMARY, BOUND):
        if (place / name).is_file():
            return (place / name).stat().st_mtime_ns
    return 0


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
