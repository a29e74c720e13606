"""`sageserve compare --ablate`: foresight without each of its parts, and what that costs for as much kept.

Knows options and how the answer is drawn; computes nothing. Read next: `sim/sweep/ablation.py`, docs/reference/strategies.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sageserve.cli.compare_frontier import KnobCells, frontier_of, knob_cells

if TYPE_CHECKING:
    from sageserve.data.results.comparison import FrontierPoint
    from sageserve.data.results.sweep_folder import SweepSource
    from sageserve.sim.sweep.ablation import PartWorth
    from sageserve.sim.sweep.cell import Outcome

_WITHOUT = "without "  # what a variant is called, beside the settings of the whole


def ablated_cells(
    scenario: str, names: Sequence[str], seeds: Sequence[int] | None, overrides: Sequence[str], source: "SweepSource"
) -> list[KnobCells]:
    """The frontier of foresight, and foresight without each part.

    Raises:
        ConfigError: another strategy is named, or a setting is wrong.
    """
    from sageserve.base.errors import ConfigError
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.sim.sweep.ablation import PARTS, WHOLE
    from sageserve.sim.sweep.cell import Cell

    if list(names) != [WHOLE]:
        raise ConfigError(f"--ablate takes {WHOLE} apart, and no other strategy", hint=f"--strategies {WHOLE}")
    found = knob_cells(scenario, names, seeds, overrides, source)
    played = [cell.scenario.seed for cell in found[0].cells]
    for part in PARTS:
        settings = [
            load_scenario(scenario, overrides=[*overrides, f"strategy.name={WHOLE}", *part.changes, f"seed={seed}"])
            for seed in played
        ]
        cells = [Cell(f"{WHOLE}-without-{part.name.replace(' ', '-')}-seed{one.seed}", one, source) for one in settings]
        found.append(KnobCells(_WITHOUT + part.name, part, tuple(cells), given=False))
    return found


def show(
    scenario: str, points: Sequence[KnobCells], outcomes: "Sequence[Outcome | None]", *, as_json: bool, out: Path | None
) -> None:
    """Print what each part is worth; `out` gets no report."""
    import msgspec

    from sageserve.sim.sweep.ablation import WHOLE, worth_of_parts

    _ = out
    swept = frontier_of(points, outcomes)
    whole = swept.points.get(WHOLE, ())
    without = [one for name, (*mine,) in swept.points.items() if name.startswith(_WITHOUT) for one in mine]
    if not whole or whole[0].knob != points[0].candidate.name or not without:  # it failed, or was not played to the end
        return
    tier = next(iter(swept.promised))
    found = worth_of_parts(whole[0], whole[1:], without, tier)
    if as_json:
        rows = [{**msgspec.to_builtins(one), "gpu_hours": one.gpu_hours} for one in found]
        answer = {"tier": tier, "whole": whole[0], "ablation": rows}
        typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    else:
        _draw(scenario, whole[0], found, tier)


def _draw(scenario: str, whole: "FrontierPoint", found: "Sequence[PartWorth]", tier: str) -> None:
    from rich.markup import escape

    from sageserve.cli.columns import Column, prose, tables, terminal
    from sageserve.cli.render import hours
    from sageserve.cli.render_compare import change, kept

    console = terminal()
    seeds = len(whole.by_seed)
    means = f", means of {seeds} seeds" if seeds > 1 else ""
    prose(console, f"[bold]{escape(scenario)}[/bold]: foresight without each of its parts{means}", under=2)
    points = [whole, *(one.without for one in found)]
    tiers = list(dict.fromkeys(name for point in points for name in point.kept))
    columns = [
        Column("", ["all of it", *(f"without {one.part}" for one in found)]),
        Column("GPU-hours\nwith owed", [hours(point.gpu_hours_with_owed) for point in points]),
        *(Column(f"{name}\nkept", [kept(point.kept[name]) if name in point.kept else "–" for point in points]) for name in tiers),
        Column("all of it,\nas much kept", ["", *("–" if one.same is None else hours(one.same) for one in found)]),
        Column("worth", ["", *("–" if one.gpu_hours is None else f"{one.gpu_hours:+,.1f}" for one in found)]),
        Column("", ["", *("" if not one.same else change(one.without.gpu_hours_with_owed / one.same - 1) for one in found)]),
    ]
    console.print()
    for table in tables(columns, console.width):
        console.print(table)
    console.print()
    words = f"worth: GPU-hours that the part saves for as much of {tier} kept; –: no setting of the whole keeps as much."
    prose(console, escape(words), style="dim")
