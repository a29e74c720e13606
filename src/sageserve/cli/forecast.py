"""`sageserve forecast`: how well demand could have been forecast, against the naive baselines, and what comes next.

Knows options and how numbers and curves are drawn on a terminal; computes none. stdout is the result, the progress bar
is on stderr and only on a terminal. Read next: `core/forecast/backtest.py`, `data/traces/series.py`.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from sageserve.cli.columns import StackedTable, terminal
from sageserve.cli.streams import answer_json
from sageserve.cli.trace_options import is_file, takes_trace
from sageserve.data.traces.options import TraceOptions

if TYPE_CHECKING:
    from sageserve.base.records import Floats
    from sageserve.base.units import Micros
    from sageserve.core.forecast import QuantileForecast, Score, Series

ROWS = 6  # height of a chart
BLOCKS = " ▁▂▃▄▅▆▇█"
BASELINES = ("last-value", "seasonal-naive")
FIRST = "blend"


@dataclass(frozen=True, slots=True)
class JudgedSeries:
    """One series with its scores by forecaster and span, what they come to, and the forecast from its end."""

    name: str
    series: "Series"
    scores: "dict[str, dict[str, Score]]"
    verdict: str
    coming: "QuantileForecast"
    notes: tuple[str, ...]


@takes_trace(files=False)
def forecast(  # noqa: PLR0913, PLR0917 # one argument per option
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="a trace file, a scenario to generate from, or a CSV of series")],
    options: TraceOptions,
    scenario: Annotated[str | None, typer.Option("--scenario", metavar="NAME_OR_FILE", help="names the trace must fit")] = None,
    bin_length: Annotated[str, typer.Option("--bin", metavar="TIME", help="length of a bin")] = "5m",
    horizon: Annotated[str, typer.Option("--horizon", metavar="TIME", help="how far to forecast")] = "60m",
    forecasters: Annotated[str, typer.Option("--forecasters", metavar="A,B", help="beside the two baselines")] = FIRST,
    counted: Annotated[str, typer.Option("--count", metavar="WHAT", help="prompt or output tokens, or requests")] = "prompt",
    only: Annotated[str, typer.Option("--only", metavar="TEXT", help="series whose region/model/tier holds it")] = "",
    charts: Annotated[int, typer.Option("--charts", min=0, help="draw so many of the largest series")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Backtest forecasters on demand and draw what comes next.

    WAPE is the sum of absolute errors over the sum of demand, in forecasts made every hour from what was known then. A short
    history is judged by what fits, and told so.
    """
    from sageserve.core.forecast import forecaster

    names = list(dict.fromkeys([*(each.strip() for each in forecasters.split(",") if each.strip()), *BASELINES]))
    for name in names:
        forecaster(name)  # a misspelt name is refused before anything is read
    length, ahead = _time("--bin", bin_length), _time("--horizon", horizon)
    found = _load(trace, scenario, options, counted)
    chosen = _chosen(found, only, trace)
    judged = list(_judge(chosen, names, length=length, ahead=ahead))
    if as_json:
        typer.echo(_json(judged, trace))
        return
    console = terminal()
    _print(console, judged, names, charts=charts)


app = typer.Typer()
app.command()(forecast)


def _time(option: str, text: str) -> "Micros":
    from sageserve.base.errors import PlanError
    from sageserve.base.units import duration_us

    try:
        found = duration_us(text)
    except ValueError as error:
        raise PlanError(f"{option}: {error}", hint=f"for example {option} 15m") from error
    if found <= 0:
        raise PlanError(f"{option} {text} is no length of time", hint=f"for example {option} 15m")
    return found


def _load(source: str, scenario: str | None, options: TraceOptions, counted: str) -> "dict[str, Series]":
    """A file's series, or those of a scenario's generated trace after its history."""
    from sageserve.base.errors import PlanError
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.data.traces.requests import requests_of
    from sageserve.data.traces.series import Counted, read_series, series_of_trace
    from sageserve.data.workload.requests import requests_for

    words = [each.value for each in Counted]
    if counted not in words:
        raise PlanError(f"--count {counted} is not known", hint=f"choose one of {', '.join(words)}")
    what, path = Counted(counted), Path(source)
    if not is_file(source):
        made = requests_for(load_scenario(source), options)
        return series_of_trace(made.trace, counted=what, past=made.earlier)
    table = read_series(path)
    if table is not None:
        return table
    found = requests_of(replace(options, files=(path,)), None if scenario is None else load_scenario(scenario))
    for line in found.remarks():
        typer.echo(line, err=True)
    return series_of_trace(found.trace, counted=what, past=found.earlier)


def _chosen(found: "dict[str, Series]", only: str, source: str) -> "dict[str, Series]":
    """The series asked for, the largest first."""
    import numpy as np

    from sageserve.base.errors import PlanError

    chosen = {name: series for name, series in found.items() if only in name}
    if not chosen:
        listed = ", ".join(list(found)[:8]) or "none"
        raise PlanError(f"{source} has no series with demand whose name holds {only!r}", hint=f"there are: {listed}")
    return dict(sorted(chosen.items(), key=lambda item: -float(np.nansum(item[1].values))))


def _judge(chosen: "dict[str, Series]", names: Sequence[str], *, length: "Micros", ahead: "Micros") -> Iterator[JudgedSeries]:
    from sageserve.core.forecast import INTERVAL, SLOW, backtest, forecaster, incredible, judging_plan, verdict
    from sageserve.data.traces.series import rebinned

    for name, fine in _progress(chosen.items(), len(chosen)):
        series = _whole_bins(name, fine, rebinned(fine, length))
        plan = judging_plan(series, ahead, slow=not SLOW.isdisjoint(names))
        scores = {each: backtest(series, forecaster(each), at=plan.at, spans=plan.spans) if plan.at else {} for each in names}
        coming = forecaster(names[0]).fit(series).predict(max(1, -(-ahead // series.bin)), INTERVAL)
        span = plan.spans[0].name if plan.spans else ""
        judged = {each: found[span] for each, found in scores.items() if span in found}
        note = incredible(series, coming)
        yield JudgedSeries(
            name, series, scores, verdict(judged, names[0], BASELINES), coming, (*plan.notes, *([note] if note else []))
        )


def _whole_bins(name: str, fine: "Series", series: "Series") -> "Series":
    import numpy as np

    from sageserve.base.errors import PlanError
    from sageserve.base.units import show_duration

    if len(series) == 0:
        long, one = show_duration(len(fine) * fine.bin), show_duration(series.bin)
        raise PlanError(
            f"{name} is {long} long: no bin of {one} is whole", hint="choose shorter ones with --bin, or a longer trace"
        )
    if not np.isfinite(series.values).any():
        raise PlanError(f"{name} has no value at all: every bin is missing", hint="leave it out with --only, or fill it")
    return series


def _progress(items: "Iterable[tuple[str, Series]]", count: int) -> "Iterator[tuple[str, Series]]":
    """A bar on stderr while the work lasts; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import track

    yield from track(items, total=count, description="forecast", console=Console(stderr=True), transient=True)


def _json(judged: Sequence[JudgedSeries], source: str) -> str:
    """Scores and the last forecast of every series; what cannot be said is null."""
    from dataclasses import asdict

    series = {
        each.name: {
            "bin_us": each.series.bin,
            "bins": len(each.series),
            "verdict": each.verdict,
            "notes": each.notes,
            "forecasters": {name: {span: asdict(score) for span, score in spans.items()} for name, spans in each.scores.items()},
            "forecast": {
                "start_us": each.coming.start,
                "point": each.coming.point.tolist(),
                "levels": each.coming.levels,
                "quantiles": each.coming.values.tolist(),
                "calibrated": each.coming.calibrated,
            },
        }
        for each in judged
    }
    return answer_json({"source": source, "series": series})


# ------------------------------------------------------------------------------------------------ drawing


def _print(console: Console, judged: Sequence[JudgedSeries], names: Sequence[str], *, charts: int) -> None:
    from sageserve.base.units import show_duration

    spans = list(judged[0].scores[names[0]])
    for number, span in enumerate(spans):
        console.print(_table(judged, names, span, covers=number == 0))
    _tell(console, judged)
    for each in judged[:charts]:
        ahead = show_duration(len(each.coming.point) * each.coming.bin)
        console.print(
            f"\n{each.name}: the last day, and {ahead} as {names[0]} expects it (░ up to the 90 % quantile)", markup=False
        )
        for line in chart(each.series, each.coming, console.width):
            console.print(line)


def _tell(console: Console, judged: Sequence[JudgedSeries]) -> None:
    """Verdicts, one per series, and notes, each once with the series it is about unless it is about all."""
    for each in judged:
        console.print(f"{each.name}: {each.verdict}", markup=False)
    about: dict[str, list[str]] = {}
    for each in judged:
        for note in each.notes:
            about.setdefault(note, []).append(each.name)
    for note, names in about.items():
        whose = "" if len(names) == len(judged) else f" ({', '.join(names)})"
        console.print(f"note: {note}{whose}", markup=False)


def _table(judged: Sequence[JudgedSeries], names: Sequence[str], span: str, *, covers: bool) -> StackedTable:
    table = StackedTable("series", title=f"WAPE, {span}" + ("; then coverage of the 80 % interval" if covers else ""))
    for name in names:
        table.add_column(name, justify="right")
    for each in judged:
        scores = [each.scores[name][span] for name in names]
        best = min((score.wape for score in scores if score.wape is not None), default=None)
        cells = []
        for score in scores:
            shown = Text("–" if score.wape is None else f"{score.wape:.1%}", style="bold" if score.wape == best else "")
            if covers:
                shown.append(f"  {'–' if score.coverage is None else f'{score.coverage:.0%}':>4}", style="not bold")
            cells.append(shown)
        table.add_row(Text(each.name), *cells)
    return table


def chart(series: "Series", coming: "QuantileForecast", columns: int) -> list[Text]:
    """Lines of a bar chart: a day of history, a rule, and the forecast with its upper quantile; the top is labelled."""
    import numpy as np

    from sageserve.base.units import DAY

    known = np.nan_to_num(series.values[-max(1, DAY // series.bin) :])
    width = columns - 12 - min(len(coming.point), columns // 3) - 1
    past = _narrow(known, width)
    point, high = (_narrow(values, columns // 3) for values in (coming.point, coming.values[:, -1]))
    top = max([*past, *high, 1e-300])
    lines = []
    for row in reversed(range(ROWS)):
        line = Text(f"{top:>10.3g} " if row == ROWS - 1 else f"{0:>10} " if row == 0 else " " * 11)
        line.append("".join(_cell(value / top, row) for value in past))
        line.append("│", style="dim")
        for value, upper in zip(point, high, strict=True):
            solid = _cell(value / top, row)
            line.append("░" if solid == " " and upper / top * ROWS > row else solid, style="cyan")
        lines.append(line)
    return lines


def _cell(share: float, row: int) -> str:
    """The block that fills this row of a bar as high as `share` of the chart."""
    return BLOCKS[min(8, max(0, round((share * ROWS - row) * 8)))]


def _narrow(values: "Floats", width: int) -> list[float]:
    """The values averaged down to at most `width`."""
    import numpy as np

    parts = np.array_split(values, min(len(values), width))
    return [float(part.mean()) for part in parts]
