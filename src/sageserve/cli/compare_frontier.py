"""`sageserve compare --frontier`: which settings are played, what is told of them, and what is kept for the report.

Knows options and what goes into a sweep; computes nothing. Read next: `sim/sweep/frontier.py`, `render_frontier.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sageserve.data.results.comparison import Bound, Frontier
    from sageserve.data.results.sweep_folder import SweepSource
    from sageserve.sim.sweep.cell import Cell, Outcome
    from sageserve.sim.sweep.tuning import Candidate


@dataclass(frozen=True, slots=True)
class KnobCells:
    """One setting of a strategy's knob, with every seed.

    Args:
        strategy: its name.
        candidate: the setting.
        cells: what is played.
        given: whether it is the strategy as it was given, or where the knob never has that, the middle of it.
    """

    strategy: str
    candidate: "Candidate"
    cells: "tuple[Cell, ...]"
    given: bool


def knob_cells(
    scenario: str, names: Sequence[str], seeds: Sequence[int] | None, overrides: Sequence[str], source: "SweepSource"
) -> "list[KnobCells]":
    """Every strategy with every setting of its knob.

    Raises:
        ConfigError: no strategy is left, or a setting is wrong.
    """
    from sageserve.base.errors import ConfigError
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.sim.sweep.cell import Cell
    from sageserve.sim.sweep.frontier import knob_of

    found = []
    for name in names:
        own = [*overrides, f"strategy.name={name}"]
        plain = load_scenario(scenario, overrides=own)
        knob = knob_of(plain)
        made = [load_scenario(scenario, overrides=[*own, *one.changes]).strategy for one in knob]
        given = made.index(plain.strategy) if plain.strategy in made else len(made) // 2
        for number, one in enumerate(knob):
            cells = []
            for seed in seeds or [plain.seed]:
                settings = load_scenario(scenario, overrides=[*own, *one.changes, f"seed={seed}"])
                cells.append(Cell(f"{name}-{one.name.replace(' ', '-')}-seed{seed}", settings, source))
            found.append(KnobCells(name, one, tuple(cells), number == given))
    if not found:
        raise ConfigError("--frontier: the oracle is a bound and has no knob", hint="name a strategy with --strategies")
    return found


def bound_cells(points: "Sequence[KnobCells]") -> "list[Cell]":
    """What nobody can go below, a cell for each seed; none where prefill and decode are apart, which the bound does not know."""
    from sageserve.core.layout import any_apart
    from sageserve.sim.sweep.cell import Cell

    seeds = {cell.scenario.seed: cell for point in points[:1] for cell in point.cells}
    some = (cell for cell in seeds.values() if not any_apart(cell.scenario))
    return [Cell(f"oracle-seed{cell.scenario.seed}", cell.scenario, cell.source, "bound") for cell in some]


def with_given_whole(points: "Sequence[KnobCells]") -> "list[KnobCells]":
    """The same; of each strategy as it was given, the first seed keeps its requests, timeline and journal, for the report."""
    return [replace(one, cells=(replace(one.cells[0], whole=True), *one.cells[1:])) if one.given else one for one in points]


def frontier_of(points: "Sequence[KnobCells]", outcomes: "Sequence[Outcome | None]", cells: Sequence[str] = ()) -> "Frontier":
    """What was played to the end, seed by seed.

    Args:
        points: what was asked for.
        outcomes: of their cells, in order, then of bounds.
        cells: folders of the runs with each strategy's settings as they were given.
    """
    from sageserve.data.results.comparison import Frontier, FrontierPoint
    from sageserve.sim.sweep.cell import Finished
    from sageserve.sim.sweep.frontier import beaten_by, bound_curve, matched, point_of

    found: dict[str, list[FrontierPoint]] = {}
    bounds, left = _bounds(points, outcomes), iter(outcomes)
    for point in points:
        ended = zip(point.cells, left, strict=False)  # the cells first: they end, the outcomes go on
        runs = {cell.scenario.seed: one.summary for cell, one in ended if isinstance(one, Finished)}
        if len(runs) == len(point.cells):
            found.setdefault(point.strategy, []).append(point_of(point.candidate, runs, bounds))
    tiers = points[0].cells[0].scenario.tiers.items()
    ranked = sorted(tiers, key=lambda tier: (tier[1].batch, tier[1].patience))
    promised = {name: tier.percentile for name, tier in ranked}
    beaten = {name: tuple(beaten_by(name, one, found) for one in mine) for name, mine in found.items()}
    every = {name: tuple(mine) for name, mine in found.items()}
    match = matched(found, promised, bounds.values())
    return Frontier(every, beaten, match, promised, tuple(cells), bound_curve(bounds.values()))


def _bounds(points: "Sequence[KnobCells]", outcomes: "Sequence[Outcome | None]") -> "dict[int, Bound]":
    """By seed; of all of them or none, for means are taken over the same seeds."""
    from sageserve.sim.sweep.cell import Bounded

    seeds = [cell.scenario.seed for cell in points[0].cells]
    found = [one.bound for one in outcomes[sum(len(point.cells) for point in points) :] if isinstance(one, Bounded)]
    return dict(zip(seeds, found, strict=True)) if len(found) == len(seeds) else {}


def show(
    scenario: str, points: "Sequence[KnobCells]", outcomes: "Sequence[Outcome | None]", *, as_json: bool, out: Path | None
) -> None:
    """Print the frontier, and keep it with a report in `out`.

    Raises:
        ResultError: it cannot be written.
    """
    from sageserve.cli.render_frontier import draw_frontier, frontier_json

    cells = [*(cell for point in points for cell in point.cells), *bound_cells(points)]
    swept = frontier_of(points, outcomes)
    left = [cell.name for cell, outcome in zip(cells, outcomes, strict=True) if outcome is None]
    if as_json:
        typer.echo(frontier_json(swept, left).decode(), nl=False)
    elif swept.points:
        draw_frontier(swept, scenario)
    if out is not None and swept.points and not left:
        _keep(points, outcomes, out)


def _keep(points: "Sequence[KnobCells]", outcomes: "Sequence[Outcome | None]", out: Path) -> None:
    import msgspec

    from sageserve.cli.report import write
    from sageserve.data.results.run_folder import REPORT
    from sageserve.data.results.sweep_folder import Kept, code_digest
    from sageserve.data.results.sweep_read import FRONTIER, is_run

    kept, code = Kept(out), code_digest()
    places = [kept.place(cell.name, cell.key(code)) for point in points if point.given for cell in point.cells]
    swept = frontier_of(points, outcomes, [place.name for place in places if is_run(place)])
    kept.put(FRONTIER, msgspec.json.format(msgspec.json.encode(swept), indent=2) + b"\n")
    write([out], out / REPORT)
