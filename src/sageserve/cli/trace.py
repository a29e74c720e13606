"""`sageserve trace`: look into a trace file or a generated workload, convert traces, write generated ones.

Knows options and how numbers are drawn on a terminal; computes none. stdout is the result, the progress bar is on
stderr and only on a terminal. Read next: `data/traces/read.py`, `data/workload/generate.py`.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sageserve.cli import complete
from sageserve.cli.columns import StackedTable, prose, terminal
from sageserve.cli.streams import answer_json
from sageserve.cli.trace_options import is_file, takes_trace
from sageserve.data.traces.options import DROPPED_MAX, TraceOptions

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.base.records import Trace
    from sageserve.data.traces.inspect import ConversationSummary, Overview, TracePart
    from sageserve.data.traces.readers.batches import Progress
    from sageserve.data.traces.requests import Requests

BARS = " ▁▂▃▄▅▆▇█"

app = typer.Typer(help="Look into, convert and generate request traces.", no_args_is_help=True)

Scene = Annotated[
    str | None,
    typer.Option("--scenario", metavar="NAME_OR_FILE", help="check names against it and fill what is missing"),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="of everything random; the scenario's when left out")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="lay a setting over the scenario; may be repeated"),
]


@app.command()
@takes_trace(files=False, max_dropped=1.0)
def inspect(
    source: Annotated[str, typer.Argument(metavar="FILE|SCENARIO", help="a trace file, or what to generate from")],
    options: TraceOptions,
    scenario: Scene = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in a trace: rate over time, lengths by model, tiers, regions, and what was wrong with it."""
    from sageserve.data.traces.inspect import overview
    from sageserve.data.workload.requests import requests_for

    if is_file(source):
        found = _read([Path(source)], scenario, options)
        seen = overview(found.trace, source, found.reports[0])
    else:
        with _progress(f"generate {source}"):
            seen = overview(requests_for(_scenario(source, ()), replace(options, max_dropped=DROPPED_MAX)).trace, source)
    if as_json:
        typer.echo(answer_json(seen))
    else:
        _draw(seen)


@app.command()
@takes_trace(files=False)
def convert(
    sources: Annotated[list[Path], typer.Argument(metavar="IN...", help="trace files; several are joined in time")],
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="where to write; replaced when complete")],
    options: TraceOptions,
    scenario: Scene = None,
    seed: Seed = None,
) -> None:
    """Read traces of any known format and write one in ours, which loses nothing and reads fastest."""
    _check_out(out)
    found = _read(sources, scenario, replace(options, seed=seed))
    for line in found.remarks():
        typer.echo(line, err=True)
    _write(out, found.trace)


@app.command()
def formats(
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="print the page of the documentation")] = False,
) -> None:
    """List the formats that are read, with one example line each, and the names that columns may have."""
    import msgspec

    from sageserve.data.traces.columns.catalog import formats_json, formats_page

    if as_json:
        typer.echo(msgspec.json.format(formats_json(), indent=2).decode())
    elif as_markdown:
        typer.echo(formats_page(), nl=False)
    else:
        _draw_formats()


@app.command()
def generate(  # noqa: PLR0913, PLR0917 # one argument per option
    name: Annotated[str, complete.SCENARIO],
    out: Annotated[Path, typer.Argument(metavar="OUT.parquet", help="where to write; replaced when complete")],
    requests: Annotated[int | None, typer.Option(min=1, help="exact number of requests")] = None,
    length: Annotated[str | None, typer.Option(metavar="TIME", help="of the window, such as 24h or 7d")] = None,
    interactive: Annotated[str | None, typer.Option(metavar="SHARE", help="IW share of requests: 0.72 or 72%")] = None,
    burst: Annotated[
        list[str] | None,
        typer.Option(metavar="AT/LENGTH/FACTOR", help="a planned burst such as 15h/20m/8; may be repeated"),
    ] = None,
    growth: Annotated[float | None, typer.Option(metavar="X", help="per week; 0.1 is 10 % more each week")] = None,
    seed: Seed = None,
    overrides: Overrides = None,
) -> None:
    """Draw a workload from a scenario's traffic settings and write it."""
    _check_out(out)
    given = {
        "workload.generate.requests": requests,
        "workload.generate.length": length,
        "workload.generate.interactive": interactive,
        "workload.generate.growth_per_week": growth,
        "seed": seed,
    }
    changes = [f"{key}={value}" for key, value in given.items() if value is not None]
    if burst:
        changes.append(f"workload.generate.bursts=[{', '.join(_burst(each) for each in burst)}]")
    _write(out, _generated(_scenario(name, [*(overrides or ()), *changes])))


def _burst(text: str) -> str:
    from sageserve.base.errors import ConfigError

    parts = text.split("/")
    if len(parts) != 3:
        raise ConfigError(f"--burst {text}: write AT/LENGTH/FACTOR", hint="for example --burst 15h/20m/8")
    return f"{{at: {parts[0]}, length: {parts[1]}, factor: {parts[2]}}}"


def _check_out(out: Path) -> None:
    from sageserve.base.errors import TraceError

    if out.suffix != ".parquet":
        raise TraceError(f"{out} would hold Parquet", hint=f"call it {out.with_suffix('.parquet')}")
    if not out.parent.is_dir():
        raise TraceError(f"there is no folder {out.parent}", hint="make it first, or choose another place")


def _scenario(name: str, overrides: Sequence[str]) -> "Scenario":
    from sageserve.data.scenarios.load import load_scenario

    return load_scenario(name, overrides=overrides)


def _generated(scenario: "Scenario") -> "Trace":
    from sageserve.data.workload.generate import generate as draw

    with _progress(f"generate {scenario.name}") as tell:
        return draw(scenario, tell)


def _read(paths: Sequence[Path], scenario: str | None, options: TraceOptions) -> "Requests":
    from sageserve.data.traces.requests import requests_of

    fitted = None if scenario is None else _scenario(scenario, ())
    return requests_of(replace(options, files=tuple(paths)), fitted, _progress)


def _write(out: Path, trace: "Trace") -> None:
    from sageserve.base.units import show_duration
    from sageserve.data.traces.archive import write_trace

    with _progress(f"write {out.name}") as tell:
        write_trace(out, trace, tell)
    typer.echo(f"{out}: {len(trace):,} requests over {show_duration(trace.window)}")
    for note in trace.notes:
        typer.echo(f"note: {note}", err=True)


@contextmanager
def _progress(what: str) -> "Iterator[Progress | None]":
    """A bar on stderr while the work lasts; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what), total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield tell


# ------------------------------------------------------------------------------------------------ drawing


def sparkline(values: Sequence[float]) -> str:
    """One bar per value, scaled to the highest; a blank is exactly nothing."""
    top = max(values, default=0.0)
    if top <= 0:
        return " " * len(values)
    return "".join(BARS[0] if value <= 0 else BARS[max(1, round(value / top * 8))] for value in values)


def _joined(values: Sequence[float], width: int) -> tuple[list[float], int]:
    """At most `width` means of so many neighbours each."""
    many = max(1, -(-len(values) // width))
    parts = [values[low : low + many] for low in range(0, len(values), many)]
    return [sum(part) / len(part) for part in parts], many


def _draw(seen: "Overview") -> None:
    from sageserve.base.units import SECOND, show_duration
    from sageserve.data.traces.report import UNUSED

    console = terminal()
    show = partial(console.print, markup=False)
    rate, many = _joined(seen.rate, console.width)
    window, width = (show_duration(round(span * SECOND)) for span in (seen.window_s, seen.bin_s * many))
    finest = show_duration(round(seen.bin_s * SECOND))
    prose(
        console,
        escape(f"{seen.source}: {seen.requests:,} request{'s' if seen.requests != 1 else ''} over {window} ({seen.format})"),
        under=2,
    )
    mean = seen.requests / seen.window_s
    show(f"requests per second: mean {mean:,.3g}, highest {max(seen.rate):,.3g} over {finest}; one bar per {width}")
    show(sparkline(rate))
    show("")
    console.print(_length_table(seen.models))
    show("")
    console.print(_share_table(seen, console.width))
    if seen.deadlines:
        show(f"\n{seen.deadlines:,} requests carry their own deadline")
    if seen.cached_share is not None:
        show(f"\n{seen.cached_share:.1%} of prompt tokens were in the prefix cache (where requests say so)")
    if seen.conversations is not None:
        show("\n" + "\n".join(_conversation_lines(seen.conversations)))
    if seen.bad:
        show(f"\n{sum(each.rows for each in seen.bad):,} of {seen.rows:,} rows are no requests and are left out:")
        for each in seen.bad:
            lines = ", ".join(f"{line:,}" for line in each.lines[:5]) + (", …" if each.rows > 5 else "")
            show(f"  {each.rows:,}  {each.reason} (lines {lines})")
    if seen.unused:
        show("\nnot used, because they mean nothing here (name one with --column if it does):")
        show(", ".join(f"{each.name} ({each.example})" if each.example else each.name for each in seen.unused))
    notes = [note for note in seen.notes if not (seen.unused and note.startswith(UNUSED))]
    if notes:
        show("\nnotes:")
        for note in notes:
            show(f"  {note}")


def _conversation_lines(seen: "ConversationSummary") -> list[str]:
    """How long conversations are, and how their turns follow each other."""
    turns = seen.turns
    long = f"mean {turns.mean:,.3g}, p50 {turns.p50:,}, p90 {turns.p90:,}, longest {turns.longest:,}"
    lines = [f"{seen.conversations:,} conversation{'' if seen.conversations == 1 else 's'} of several turns: {long}"]
    if seen.pause_s is None:
        lines.append("their turns arrive at the times of the trace: it has no pauses, so nothing waits for an answer")
    else:
        pause = seen.pause_s
        lines.append(
            f"{seen.follow:,} turns wait for the answer before them in a closed loop, then pause: p50 {pause.p50:,.3g} s, "
            f"p90 {pause.p90:,.3g} s, longest {pause.longest:,.3g} s"
        )
    if seen.shorter:
        lines.append(f"{seen.shorter:,} later turns have a prompt that is shorter than the conversation before them")
    return lines


def _draw_formats() -> None:
    """Formats with an example each, one below the other, and where the names of columns are listed."""
    from sageserve.data.traces.columns.catalog import EVERY
    from sageserve.data.traces.columns.formats import NOT_READ

    console = terminal()
    for each in EVERY:
        console.print(f"[bold]{each.name}[/bold]: {escape(each.about)}", soft_wrap=True)
        console.print(f"  [dim]{escape(each.example)}[/dim]", soft_wrap=True)
    console.print("\nnot read: " + "; ".join(f"{what} ({cure})" for what, cure in NOT_READ), markup=False)
    console.print("names of columns, and the rules for times: docs/reference/traces.md, or --json", markup=False)


def _label(name: str) -> str:
    from sageserve.data.traces.naming import UNNAMED

    return "(not in the file)" if name == UNNAMED else escape(name)


def _length_table(models: "dict[str, TracePart]") -> StackedTable:
    table = StackedTable("model", keys=2)
    table.add_column("tokens", no_wrap=True)
    for name in ("requests", "mean", "p10", "p50", "p90", "p99", "longest"):
        table.add_column(name, justify="right")
    for name, part in models.items():
        for kind, tokens in (("prompt", part.prompt_tokens), ("output", part.output_tokens)):
            quantiles = (tokens.p10, tokens.p50, tokens.p90, tokens.p99, tokens.longest)
            first = kind == "prompt"
            table.add_row(
                _label(name) if first else "",
                kind,
                f"{part.requests:,}" if first else "",
                f"{tokens.mean:,.0f}",
                *(f"{value:,}" for value in quantiles),
            )
    return table


def _share_table(seen: "Overview", width: int) -> StackedTable:
    table = StackedTable(keys=2)
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("name")
    table.add_column("requests", justify="right")
    table.add_column("share", justify="right")
    table.add_column("rate over time", no_wrap=True)
    bars = min(42, width - 20)  # beside a kind and the shortest part of a name
    for kind, parts in (("model", seen.models), ("tier", seen.tiers), ("region", seen.regions)):
        for index, (name, part) in enumerate(parts.items()):
            table.add_row(
                kind if index == 0 else "",
                _label(name),
                f"{part.requests:,}",
                f"{part.share:.1%}",
                sparkline(_joined(part.rate, bars)[0]),
            )
    return table
