"""`sageserve size`: how many GPUs, of which type, where, and what they cost in a month.

Knows options and files; the search is in `sim/sizing`. stdout is the result, everything else is on stderr. Read next:
`render_size.py`, docs/how-to/how-many-gpus.md.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sageserve.cli import complete
from sageserve.cli.compare import Overrides, Workers
from sageserve.cli.durations import time_of
from sageserve.cli.progress import Interruption, bar, compile_once
from sageserve.cli.trace_options import takes_trace
from sageserve.data.traces.options import TraceOptions

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.data.results.sweep_folder import SweepSource
    from sageserve.sim.sizing.conditions import Survive
    from sageserve.sim.sizing.plays import Wish
    from sageserve.sim.sizing.records import Sizing

EXAMPLES = """[bold]Examples[/bold]

sageserve size quickstart

sageserve size fleet.yaml --trace last-week.csv.gz --safety 99.9% -o sized.yaml

sageserve size fleet.yaml --growth 1.5 --survive region

sageserve size quickstart --for-strategy foresight

sageserve size quickstart --json
"""
INTERRUPTED = 130
NINE = "--one-more-nine"
USUAL = {"--safety": "99%", "--for-strategy": "", "--growth": "1", "--survive": "", "--lead-time": "", "--windows": "20"}

_Growth = Annotated[float, typer.Option(metavar="X", help="size for X times the traffic, and say what that adds")]
_Survive = Annotated[
    str, typer.Option(metavar="region|vm", help="keep the promises also without any one of them, and say what that adds")
]
_LeadTime = Annotated[str, typer.Option(metavar="TIME", help="how long quota takes, as 12w: by when it must be asked for")]
_Nine = Annotated[bool, typer.Option(NINE, help="say also what a tenth of the doubt would cost")]


@takes_trace(plays=True)
def size(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, complete.SCENARIO],
    options: TraceOptions,
    safety: Annotated[
        str, typer.Option(metavar="SHARE", help="how sure it must be that every promise holds in a window that was not played")
    ] = "99%",
    strategy: Annotated[
        str | None,
        typer.Option(
            "--for-strategy",
            autocompletion=complete.strategies,
            metavar="NAME",
            help="instead: the maxima, stock and reservation this strategy needs",
        ),
    ] = None,
    growth: _Growth = 1.0,
    survive: _Survive = "",
    lead_time: _LeadTime = "",
    one_more_nine: _Nine = False,
    windows: Annotated[int, typer.Option(metavar="N", help="windows that each answer is judged on; 20 at least")] = 20,
    overrides: Overrides = None,
    workers: Workers = None,
    to: Annotated[
        Path | None, typer.Option("--to", "-o", metavar="FILE", help="write the answer as a scenario that extends this one")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="also over a file that is there")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the answer as JSON instead of tables")] = False,
) -> None:
    """Find the fewest instances that keep every promise, and say what they cost.

    One count for each model in each region, held all the time. Twenty windows are played: of generated traffic with other seeds,
    of a trace with its minutes drawn again. Every promise must hold in all of them, and with --safety in one more. With
    --for-strategy nothing is searched: the strategy decides, with no maximum in its way, and what it held is told.
    """
    from sageserve.data.scenarios.extension import check_place
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.sim.sizing.conditions import reached_in, with_lead
    from sageserve.sim.sizing.plays import wish_of

    if to is not None:
        check_place(to, replace=replace)
    rule = [f"strategy.name={strategy}"] if strategy is not None else []
    settings = load_scenario(scenario, overrides=[*(overrides or ()), *rule])
    wish = wish_of(_safety(safety), windows, survive, strategy=strategy or "")
    lead = (time_of("--lead-time", lead_time), reached_in(settings, growth)) if lead_time else None
    given = {"--safety": safety, "--for-strategy": strategy or "", "--growth": f"{growth:g}", "--survive": survive}
    given |= {"--lead-time": lead_time, "--windows": str(windows)}
    words = [scenario, *(word for one in overrides or () for word in ("--set", one)), *[NINE] * one_more_nine]
    sizing, missing = _answer(settings, options, wish, workers, _Rest(strategy, growth, one_more_nine))
    written = to
    if {*missing} - {NINE}:  # the fleet is not yet the one that was asked for
        lead = written = None
    if lead is not None:
        sizing = with_lead(sizing, *lead)
    if written is not None:
        _write(written, scenario, settings, overrides or (), sizing, options, replace=replace)
    _print(sizing, _next(words, given, options, written), as_json=as_json)
    if missing:
        _leave(missing, None if written else to)


def _leave(missing: Sequence[str], unwritten: Path | None) -> NoReturn:
    """Say what the answer is without, where somebody stopped it."""
    unkept = "" if unwritten is None else f", and {unwritten} is not written"
    typer.echo(f"interrupted: this is the answer without {' and '.join(missing)}{unkept}", err=True)
    raise typer.Exit(INTERRUPTED)


def _print(sizing: "Sizing", following: str, *, as_json: bool) -> None:
    from sageserve.cli.render_size import draw_sizing
    from sageserve.sim.sizing.records import sizing_json

    if as_json:
        typer.echo(sizing_json(sizing).decode(), nl=False)
    else:
        draw_sizing(sizing, following)


@dataclass(frozen=True, slots=True)
class _Rest:
    """What else is asked: of which strategy, for how many times the traffic, and whether one more nine is priced."""

    strategy: str | None
    growth: float
    nine: bool


def _answer(
    settings: "Scenario", options: TraceOptions, wish: "Wish", workers: int | None, rest: _Rest
) -> "tuple[Sizing, list[str]]":
    """Play on this machine until there is an answer, with a progress bar and Ctrl-C heard.

    Returns:
        What was found, and the options that are missing in it because somebody stopped it.
    """
    from contextlib import suppress
    from dataclasses import replace

    from sageserve.data.results.sweep_folder import source_of
    from sageserve.sim.sizing.conditions import NONE, check_nine, grown, size_under, with_nine
    from sageserve.sim.sizing.plays import Interrupted
    from sageserve.sim.sizing.run import size as answer
    from sageserve.sim.sizing.strategy import size_for
    from sageserve.sim.sweep.processes import Processes
    from sageserve.sim.sweep.run import Watch

    if rest.nine:
        check_nine(rest.strategy, wish.safety)
    source = source_of(options)
    compile_once()
    with Interruption().heard() as interruption, bar(f"size {settings.name}") as tell, Processes(workers) as runner:
        look = Watch(tell, lambda: interruption.asked)
        solve = answer if rest.strategy is None else size_for
        found: Sizing | None = None
        with suppress(Interrupted):  # what was found until then is an answer

            def under(one: "Scenario", where: "SweepSource", survive: "Survive") -> "Sizing":
                return solve(one, where, replace(wish, survive=survive), runner, look)

            def safer(safety: float) -> "Sizing":
                return solve(*grown(settings, source, rest.growth), replace(wish, safety=safety), runner, look)

            for step in size_under(under, settings, source, rest.growth, wish.survive):
                found = step
            found = with_nine(found, safer) if rest.nine and found is not None else found
    if found is None:
        typer.echo("interrupted: nothing is sized", err=True)
        raise typer.Exit(INTERRUPTED)
    asked = {"--growth": rest.growth != NONE, "--survive": wish.survive, NINE: rest.nine}
    told = {"--growth": found.growth, "--survive": found.survive, NINE: found.nine}
    return found, [flag for flag, wanted in asked.items() if wanted and told[flag] is None]


def _safety(text: str) -> float:
    """A share of an option.

    Raises:
        ConfigError: it is none.
    """
    from sageserve.base.errors import ConfigError
    from sageserve.base.units import share

    try:
        return share(text)
    except ValueError as error:
        raise ConfigError(f"--safety: {error}", hint="for example --safety 99.9%") from None


def _write(  # noqa: PLR0913 # what was asked, what was found, and where it goes
    to: Path,
    reference: str,
    settings: "Scenario",
    overrides: Sequence[str],
    sizing: "Sizing",
    options: TraceOptions,
    *,
    replace: bool,
) -> None:
    """The scenario with the fleet of the answer, the stock it takes, and the traffic it is for."""
    import msgspec

    from sageserve.data.results.sweep_folder import source_of
    from sageserve.data.scenarios.extension import write_extension
    from sageserve.sim.sizing.conditions import KINDS, grown

    most = max((line.instances for line in sizing.fleet), default=1)
    if sizing.strategy:  # the most it held is its maximum; where that is below the start, the start is
        changes: dict[str, object] = {"fleet.maximum": max(most, settings.fleet.start, 1)} | _maxima(settings, sizing)
        about = f"{sizing.scenario} with what {sizing.strategy} needs"
    else:
        changes = {
            "fleet.starts": {line.pool: line.instances for line in sizing.fleet},
            "fleet.maximum": (room := settings.fleet.roomy(most)).maximum,
        }
        changes |= {"fleet.endpoints": maxima} if (maxima := room.maxima()) else {}
        about = f"{sizing.scenario} with a fleet of constant size, {100 * sizing.safety:g}% safe"
    if sizing.growth is not None:
        about += f", for {sizing.growth.factor:g} times the traffic"
        if not options.files:
            more, _ = grown(settings, source_of(options), sizing.growth.factor)
            changes["workload.generate.requests"] = more.workload.generate.requests
    if sizing.survive is not None:
        about += f", also without {KINDS[sizing.survive.what]}"
    stocks: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for name, line in sizing.quota.items():
        told = {"gpus": line.gpus} if line.ask else {}
        if sizing.strategy and name in sizing.reserve:
            told["reserved"] = sizing.reserve[name].gpus
        if told:
            region, gpu = name.split("/", 1)
            stocks.setdefault(region, {"gpus": {}})["gpus"][gpu] = told
    if stocks:
        changes["regions"] = stocks
    lines = [f"{key}={msgspec.json.encode(value).decode()}" for key, value in changes.items()]
    write_extension(to, reference, [*overrides, f"strategy.name={sizing.strategy or 'fixed'}", *lines], about, replace=replace)


def _maxima(settings: "Scenario", sizing: "Sizing") -> dict[str, object]:
    """The most that each endpoint held, where some held fewer than others: all its roles and GPU types together.

    Where prefill and decode are apart each has a maximum of its own, and it is the same.
    """
    sides: dict[tuple[str, str, object], int] = {}
    for line in sizing.fleet:
        side = line.region, line.model, line.role
        sides[side] = sides.get(side, 0) + line.instances
    held: dict[tuple[str, str], int] = {}
    for (region, model, _), count in sides.items():
        held[region, model] = max(count, held.get((region, model), 0))
    if len(set(held.values())) < 2 and not settings.fleet.endpoints:
        return {}
    none: dict[str, dict[str, int | None]] = {pattern: {"maximum": None} for pattern in settings.fleet.maxima()}
    most = {key: max(count, settings.fleet.at(*key).start, 1) for key, count in held.items()}
    return {"fleet.endpoints": none | {"/".join(key): {"maximum": count} for key, count in most.items()}}


def _next(words: Sequence[str], given: dict[str, str], options: TraceOptions, to: Path | None) -> str:
    """The command that goes on from here: play what was written, or write it.

    Args:
        words: the scenario and its settings as they were typed.
        given: other options by flag.
        options: of the trace.
        to: what was written.
    """
    from dataclasses import replace

    from sageserve.cli.trace_options import as_typed

    if to is None:
        told = [word for flag, value in given.items() if value != USUAL[flag] for word in (flag, value)]
        return " ".join([shlex.join(["sageserve", "size", *words, *told]), *as_typed(options), "-o", "sized.yaml"])
    grown = replace(options, load=options.load * float(given["--growth"])) if options.files else options
    return " ".join([shlex.join(["sageserve", "simulate", str(to)]), *as_typed(grown)])
