"""`sageserve validate`: how far simulated engines are from measured ones, for the runs of a folder.

Knows options and tables; computes nothing. stdout is the result, progress is on stderr. Read next:
`sim/calibration/validation.py`, docs/how-to/validate-and-calibrate.md.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sageserve.cli.columns import StackedTable, prose, terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.status import Status

    from sageserve.data.measured.points import PointVerdict
    from sageserve.data.measured.runs import MeasuredRun
    from sageserve.data.measured.validation import RunPicture, RunVerdict, Validation

SPARK = 60
PAGE = "validation.html"
EXAMPLES = """[bold]Examples[/bold]

  sageserve validate --data runs/engine [dim]— a folder with requests.csv, timeseries.csv, experiments.csv[/dim]

  sageserve validate --data runs/engine --plots runs/pictures [dim]— curves and requests as pictures[/dim]

  sageserve validate --data runs/engine --json [dim]— fractions, for machines[/dim]

  sageserve validate --points points.csv [dim]— means at a concurrency each, by derived profiles[/dim]
"""


def validate(
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="folder of measured runs")] = None,
    only: Annotated[str, typer.Option("--run", metavar="TEXT", help="only runs whose name holds this text")] = "",
    plots: Annotated[Path | None, typer.Option("--plots", metavar="DIR", help="write pictures to DIR/validation.html")] = None,
    points: Annotated[
        Path | None, typer.Option("--points", metavar="FILE", help="a table of means at a concurrency each, instead of runs")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Replay measured runs through the simulator: the first half of a run fits, the second half judges.

    With --points, predict every point of a table from profiles by name; nothing is fitted.
    """
    from sageserve.base.errors import MeasurementError
    from sageserve.data.measured.files import read_measured
    from sageserve.data.measured.validation import validation_json

    if points is not None:
        if data is not None or only or plots is not None:
            raise MeasurementError("--points goes with --json alone", hint="judge runs in a command of their own")
        _judge_points(points, as_json=as_json)
        return
    if data is None:
        raise MeasurementError(
            "validate needs measured runs",
            hint="give their folder: sageserve validate --data DIR; docs/how-to/validate-and-calibrate.md has its form",
        )
    runs = [run for run in read_measured(data) if only in run.name]
    if not runs:
        raise MeasurementError(f"no run of {data} has {only!r} in its name", hint="leave out --run to see all of them")
    found, pictures = _judge(runs)
    if plots is not None:
        _write_page(plots / PAGE, found, pictures)
    if as_json:
        sys.stdout.buffer.write(validation_json(found))
    else:
        _print(found, pictures)
    if not found.runs and not found.means:
        raise MeasurementError(f"no run of {data} can be judged", hint="the reasons stand above")


def _judge_points(path: Path, *, as_json: bool) -> None:
    from sageserve.base.errors import MeasurementError
    from sageserve.data.measured.points import read_points, verdict_json
    from sageserve.sim.points.predict import judge

    table = read_points(path)
    with Console(stderr=True).status("predicting") as status:
        verdict = judge(table, lambda done: status.update(f"{done:,} of {len(table):,} points"))
    if as_json:
        sys.stdout.buffer.write(verdict_json(verdict))
    else:
        _print_points(verdict)
    if all(point.reason is not None for point in verdict.points):
        raise MeasurementError(f"no point of {path} can be predicted", hint="the reasons stand above")


def _print_points(verdict: "PointVerdict") -> None:
    from collections import Counter

    from sageserve.show.validation import percent

    console = terminal()
    table = StackedTable("E2E in the mean", "points", "off by", "median", "within 15 %", "in the band", "of ±")
    for name, group in verdict.groups.items():
        shares = (percent(group.within_15), percent(group.covered), percent(group.width))
        table.add_row(escape(name), f"{group.n:,}", percent(group.e2e_mape), percent(group.median, signed=True), *shares)
    if verdict.groups:
        console.print(table)
    predicted = sum(point.reason is None for point in verdict.points)
    console.print(f"{predicted:,} of {len(verdict.points):,} points predicted; --json prints each of them")
    reasons = Counter(point.reason.split(":")[0] for point in verdict.points if point.reason is not None)
    for reason, count in reasons.most_common(12):
        prose(console, f"{count:7,}  {escape(reason)}", under=9, style="dim")


def _judge(runs: "Sequence[MeasuredRun]") -> "tuple[Validation, dict[str, RunPicture]]":
    from sageserve.base.errors import MeasurementError
    from sageserve.data.measured.validation import Validation
    from sageserve.sim.calibration.means import validate_means, why_not
    from sageserve.sim.calibration.validation import validate_run

    verdicts: dict[str, RunVerdict] = {}
    pictures: dict[str, RunPicture] = {}
    skipped: dict[str, str] = {}
    stderr = Console(stderr=True)
    with stderr.status("reading") as status:
        for run in runs:
            if run.requests is None:
                continue
            try:
                judged = validate_run(run, _told(status, run.name))
            except MeasurementError as error:
                skipped[run.name] = error.message
                continue
            verdicts[run.name], pictures[run.name] = judged.verdict, judged.picture
        status.update("means against the roofline")
        known = [run for run in runs if run.requests is None]
        means = validate_means(known)
    skipped |= {run.name: why_not(run) for run in known if run.name not in means}
    return Validation(verdicts, means, skipped), pictures


def _told(status: "Status", name: str) -> "Callable[[int], None]":
    def tell(count: int) -> None:
        status.update(f"{escape(name)}: {count} simulations")

    return tell


def _write_page(path: Path, found: "Validation", pictures: "dict[str, RunPicture]") -> None:
    from sageserve.data.documents import write_texts
    from sageserve.show.validation import validation_page

    write_texts(path.parent, {path.name: validation_page(found, pictures)})
    typer.echo(f"pictures are in {path}", err=True)


def _print(found: "Validation", pictures: "dict[str, RunPicture]") -> None:
    console = terminal()
    for name, verdict in found.runs.items():
        console.print(f"[bold]{escape(name)}[/bold]")
        console.print(_errors(verdict))
        console.print(_where(verdict))
        _say(console, verdict)
        _draw(console, pictures[name])
        console.print()
    if found.means:
        console.print("[bold]Runs of which only means are known, against the roofline[/bold]")
        console.print(_means(found))
        console.print()
    for name, why in found.skipped.items():
        prose(console, f"not judged: {escape(name)}: {escape(why)}", under=2, style="dim")


def _errors(verdict: "RunVerdict") -> StackedTable:
    from sageserve.show.validation import error_cells

    table = StackedTable("MAPE and bias of means", "requests", "E2E", "TPOT", "TTFT", "E2E bias", "TPOT bias", "TTFT bias")
    rows = {"first half (fitted)": verdict.fit, "second half (held out)": verdict.heldout}
    if verdict.counters is not None and verdict.counters.heldout is not None:
        rows["held out, from counters alone"] = verdict.counters.heldout
    for name, errors in rows.items():
        table.add_row(name, f"{errors.requests}", *error_cells(errors))
    return table


WHERE = {"prompt": "prompt tokens", "company": "others in the engine", "time": "seconds since the start"}


def _where(verdict: "RunVerdict") -> StackedTable:
    """Where the error of the second half lies."""
    from sageserve.show.validation import percent

    table = StackedTable("second half by", "from", "to", "requests", "E2E", "TTFT", "E2E bias")
    before = ""
    for part in verdict.where:
        errors = (percent(part.e2e_mape), percent(part.ttft_mape), percent(part.e2e_bias, signed=True))
        label = WHERE[part.by] if part.by != before else ""
        table.add_row(label, f"{part.low:,.0f}", f"{part.high:,.0f}", f"{part.requests:,}", *errors)
        before = part.by
    return table


def _say(console: Console, verdict: "RunVerdict") -> None:
    from sageserve.show.coefficients import coefficient_lines

    low, one, curves = verdict.low_load, verdict.coefficients, verdict.curves
    if low.ttft_error_ms is not None and low.ttft_mape is not None and low.ttft_bias_ms is not None:
        prose(
            console,
            f"low load: TTFT of {low.requests} requests that met at most {low.others} others is off by {low.ttft_error_ms:.0f} ms"
            f" (median; {low.ttft_mape:.1%} mean; bias {low.ttft_bias_ms:+.0f} ms)",
            under=2,
        )
    console.print(f"fitted with {verdict.evaluations} simulations, {verdict.preemptions} preemptions:")
    for line in coefficient_lines(one):
        prose(console, f"  {line}", under=4)
    if curves is not None:
        share = "" if curves.kv_share is None else f", KV share {curves.kv_share:.1%}"
        console.print(
            f"every second off by: running {curves.running:.2g} of {curves.running_mean:.3g},"
            f" waiting {curves.waiting:.2g} of {curves.waiting_mean:.3g}{share}"
        )
    if verdict.counters is not None and verdict.counters.refused:
        prose(console, f"counters alone: refused, because {escape(verdict.counters.refused)}", under=2, style="dim")
    for note in verdict.notes:
        prose(console, escape(note), under=2, style="dim")


def _draw(console: Console, picture: "RunPicture") -> None:
    import numpy as np

    from sageserve.show.validation import sparkline

    for curve in picture.curves:
        if np.isnan(curve.measured).all():
            continue
        most = float(max(np.nanmax(curve.measured), np.nanmax(curve.simulated)))
        for label, values in (("measured", curve.measured), ("simulated", curve.simulated)):
            console.print(f"{curve.name:>8} {label:>9} {sparkline(values.tolist(), most, SPARK)} {most:.4g}")


def _means(found: "Validation") -> StackedTable:
    from sageserve.show.validation import percent

    table = StackedTable("run", "E2E", "TPOT", "TTFT", "E2E after one point")
    for name, verdict in found.means.items():
        errors = (verdict.e2e_error, verdict.tpot_error, verdict.ttft_error)
        points = ", ".join(percent(value, signed=True) for value in verdict.one_point.values())
        table.add_row(escape(name), *(percent(value, signed=True) for value in errors), points or "–")
    return table
