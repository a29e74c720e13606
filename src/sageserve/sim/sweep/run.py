"""A sweep: many cells, each played once, whatever the number of workers, the order and the place; what is finished is kept.

    cells = [Cell(name, load_scenario("quickstart", overrides=[f"strategy.name={name}"])) for name in ("reactive", "lt-ua")]
    outcomes = sweep(cells, Processes())

Decides what must be run; runs nothing itself. Read next: `cell.py`, `processes.py`, `cluster.py`; `data/results/sweep_folder.py`
for the folder.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, assert_never

import msgspec

from sageserve.data.own_code import own_code
from sageserve.data.results.comparison import Bound
from sageserve.data.results.run_folder import SCENARIO, SUMMARY, is_whole
from sageserve.data.results.summary import parse_summary, summary_json
from sageserve.data.results.sweep_folder import Kept, code_digest
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.sim.sweep.cell import Bounded, Cell, Failed, Finished, Outcome

_FILES: Final = {"run": SUMMARY, "bound": "bound.json"}


class CellRunner(Protocol):
    """A place where cells are played."""

    def run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        """The number and outcome of each cell as they come; stops early when `interrupted` says so."""
        ...


def _nobody(_done: int, _total: int) -> None:
    """Take no notice."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on.

    Args:
        progress: told how many cells of how many are done.
        interrupted: asked whether to stop.
    """

    progress: Callable[[int, int], None] = _nobody
    interrupted: Callable[[], bool] = _never


def sweep(
    cells: Sequence[Cell], runner: CellRunner, *, kept: Kept | None = None, watch: Watch | None = None
) -> list[Outcome | None]:
    """Play every cell once; equal cells share a result.

    Args:
        cells: what to play.
        runner: where.
        kept: results of earlier sweeps, which are not played again; new ones are added as they come.
        watch: who looks on.

    Returns:
        The outcome of each cell, in order of the cells; None for those that an interruption left out.

    Raises:
        ResultError: a result cannot be written.
    """
    watch = watch or Watch()
    code = code_digest()
    keys = [cell.key(code) for cell in cells]
    own = {key: own_code(cell.scenario) for cell, key in zip(cells, keys, strict=True)}
    found: dict[str, Outcome] = {}
    for cell, key in zip(cells, keys, strict=True):
        outcome = _kept(kept, cell, key)
        if outcome is not None:
            found[key] = outcome
    wanted: dict[str, Cell] = {}
    for cell, key in zip(cells, keys, strict=True):
        if key not in found and (key not in wanted or cell.whole):
            wanted[key] = cell
    total = len(found) + len(wanted)
    watch.progress(len(found), total)
    # equal traffic side by side: a worker makes the requests once
    order = sorted(wanted, key=lambda key: wanted[key].traffic())
    for number, outcome in runner.run([_placed(kept, wanted[key], key) for key in order], watch.interrupted):
        key = order[number]
        found[key] = _of_code(own[key], wanted[key], outcome)
        _keep(kept, wanted[key], key, found[key])
        watch.progress(len(found), total)
    return [found.get(key) for key in keys]


def _placed(kept: Kept | None, cell: Cell, key: str) -> Cell:
    """The cell, with the folder it writes everything to if it is to be whole."""
    return replace(cell, folder=kept.place(cell.name, key).resolve()) if kept is not None and cell.whole else cell


def _kept(kept: Kept | None, cell: Cell, key: str) -> Outcome | None:
    """The result of an earlier sweep; None when there is none that can be read."""
    text = None if kept is None else kept.find(cell.name, key, _FILES[cell.what])
    if text is None or (cell.whole and kept is not None and not is_whole(kept.place(cell.name, key))):
        return None
    try:
        return Finished(parse_summary(text)) if cell.what == "run" else Bounded(msgspec.json.decode(text, type=Bound))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # damaged: it is made again


def _of_code(own: dict[str, str], cell: Cell, outcome: Outcome) -> Outcome:
    """The outcome, unless a worker found another version of the user's own code than the one in the key."""
    if isinstance(outcome, Finished) and (outcome.summary.own_code or {}) != own:
        return Failed(f"the code of {cell.scenario.strategy.name} was edited meanwhile", "give the command again", mistake=True)
    return outcome


def _keep(kept: Kept | None, cell: Cell, key: str, outcome: Outcome) -> None:
    if kept is None or isinstance(outcome, Failed):
        return
    kept.keep(cell.name, key, SCENARIO, resolved_yaml(cell.scenario).encode())
    match outcome:
        case Finished(summary=summary):
            kept.keep(cell.name, key, _FILES["run"], summary_json(summary))
        case Bounded(bound=bound):
            kept.keep(cell.name, key, _FILES["bound"], msgspec.json.encode(bound))
        case _:
            assert_never(outcome)
