"""The cells of a backtest: every policy on the requests of every seed, the bound, and the pairs that show the error.

Each seed's requests are a file, so that they can be played again by hand and cells run in processes of their own.
Read next: `sim/sweep/cell.py`, `own_error.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import Trace
from sageserve.core.strategies import strategy_kind
from sageserve.core.strategies.recorded import NAME as RECORDED
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import SweepSource, cell_name, source_of
from sageserve.data.traces.archive import write_trace
from sageserve.data.traces.options import TraceOptions
from sageserve.sim.backtest.own_error import Pair
from sageserve.sim.sweep.cell import Cell, Finished, Outcome

ORACLE: Final = "oracle"
Load = Callable[[Sequence[str]], Scenario]
"""The scenario with more settings in place."""


def check_policies(names: Sequence[str]) -> None:
    """Refuse what is no policy.

    Raises:
        ConfigError: a name is not known.
    """
    for name in names:
        try:
            _ = name == ORACLE or strategy_kind(name)
        except ConfigError as error:
            raise ConfigError(
                error.message.replace("strategy.name", "--policies"), hint=f"{error.hint}, {RECORDED}, {ORACLE}"
            ) from None


def kept_trace(folder: Path, name: str, trace: Trace) -> SweepSource:
    """Write requests, and say where they are."""
    path = folder / f"{name}.parquet"
    write_trace(path, trace)
    return source_of(TraceOptions(files=(path,)))


def policy_cells(names: Sequence[str], sources: Mapping[int, SweepSource], load: Load) -> list[Cell]:
    """Every policy with every seed."""
    cells = []
    for seed, source in sources.items():
        for name in names:
            rule = [] if name == ORACLE else [f"strategy.name={name}"]
            scenario = load([*rule, f"seed={seed}"])
            cells.append(Cell(cell_name(name, seed), scenario, source, "bound" if name == ORACLE else "run"))
    return cells


def error_cells(names: Sequence[str], pairs: Sequence[Pair], folder: Path, load: Load) -> list[Cell]:
    """For each pair and policy: the true requests, and those made of them."""
    cells = []
    for pair in pairs:
        for kind, trace in (("true", pair.true), ("made", pair.made)):
            source = kept_trace(folder, f"{pair.name}-{kind}", trace)
            cells += [
                Cell(f"{pair.name}/{name}/{kind}", load([f"strategy.name={name}"]), source) for name in names if name != ORACLE
            ]
    return cells


def error_runs(cells: Sequence[Cell], outcomes: Sequence[Outcome | None]) -> dict[str, dict[str, tuple[Summary, Summary]]]:
    """Summaries by pair and policy: (true, made); policies of which one is missing are left out."""
    found = {
        tuple(cell.name.split("/")): outcome.summary
        for cell, outcome in zip(cells, outcomes, strict=True)
        if isinstance(outcome, Finished)
    }
    runs: dict[str, dict[str, tuple[Summary, Summary]]] = {}
    for pair, policy, kind in found:
        if kind == "true" and (pair, policy, "made") in found:
            runs.setdefault(pair, {})[policy] = (found[pair, policy, "true"], found[pair, policy, "made"])
    return runs
