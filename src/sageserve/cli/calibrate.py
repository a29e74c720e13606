"""`sageserve calibrate`: engine profiles from measurements of one's own engines.

    logs        per-request logs, fitted with the simulator in the loop
    counters    scraped counters, from a CSV file or a Prometheus server

Knows options and what is shown; computes nothing. stdout is the result, progress is on stderr. Read next:
`sim/calibration/`, docs/how-to/validate-and-calibrate.md.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sageserve.cli import calibrate_benchmark

if TYPE_CHECKING:
    from sageserve.data.measured.runs import MeasuredRun
    from sageserve.sim.calibration.profile import Calibrated

WIDTH = 100

app = typer.Typer(help="Make an engine profile from measurements.", no_args_is_help=True, rich_markup_mode="rich")
app.command(epilog=calibrate_benchmark.EXAMPLES)(calibrate_benchmark.benchmark)

Name = Annotated[str, typer.Option("--name", metavar="NAME", help="of the profile in the file; default: model/gpu/tp")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="profile file to write")]
Replace = Annotated[bool, typer.Option("--replace", help="replace the file")]
Run = Annotated[str, typer.Option("--run", metavar="TEXT", help="the run whose name holds this, if there are several")]
Model = Annotated[str, typer.Option("--model", metavar="NAME", help="served model, when the data do not say")]
Gpu = Annotated[str, typer.Option("--gpu", metavar="NAME", help="GPU type, when the data do not say")]
Tp = Annotated[int, typer.Option("--tp", min=0, help="tensor parallelism, when the data do not say")]
Sequences = Annotated[int, typer.Option("--max-sequences", min=0, help="the engine's max_num_seqs")]
Batched = Annotated[int, typer.Option("--max-batched-tokens", min=0, help="the engine's max_num_batched_tokens")]
KvTokens = Annotated[int, typer.Option("--kv-tokens", min=0, help="the engine's num_gpu_blocks x block_size")]

LOGS_EXAMPLES = """[bold]Example[/bold]

  sageserve calibrate logs runs/engine --out mine.yaml [dim]— a folder with requests.csv[/dim]
"""
COUNTERS_EXAMPLES = """[bold]Examples[/bold]

  sageserve calibrate counters timeseries.csv --kv-tokens 41408 --out mine.yaml

  sageserve calibrate counters --prometheus http://localhost:9090 --query-window 30m --out mine.yaml
"""


@app.command(epilog=LOGS_EXAMPLES)
def logs(  # noqa: PLR0913, PLR0917 # one argument per option
    data: Annotated[Path, typer.Argument(metavar="DIR", help="folder with requests.csv")],
    out: Out = Path("profile.yaml"),
    name: Name = "",
    run: Run = "",
    model: Model = "",
    gpu: Gpu = "",
    tp: Tp = 0,
    max_sequences: Sequences = 0,
    max_batched_tokens: Batched = 0,
    kv_tokens: KvTokens = 0,
    replace: Replace = False,
) -> None:
    """Fit per-request logs: the first half of the requests is fitted, the second half judges."""
    from sageserve.data.measured.files import choose, read_measured
    from sageserve.sim.calibration.profile import from_logs

    _writable(out, replace=replace)
    chosen = choose((each for each in read_measured(data) if each.requests is not None), run)
    told = _told(chosen, model=model, gpu=gpu, tp=tp)
    told = _limited(told, max_sequences=max_sequences, max_batched_tokens=max_batched_tokens, kv_tokens=kv_tokens)
    with Console(stderr=True).status("fitting") as status:
        found = from_logs(told, lambda count: status.update(f"{count} simulations"))
    _finish(told, found, out, name, replace=replace)


@app.command(epilog=COUNTERS_EXAMPLES)
def counters(  # noqa: PLR0913, PLR0917 # one argument per option
    data: Annotated[Path | None, typer.Argument(metavar="[CSV]", help="timeseries.csv, or the folder it is in")] = None,
    prometheus: Annotated[str, typer.Option("--prometheus", metavar="URL", help="ask this server instead")] = "",
    query_window: Annotated[str, typer.Option("--query-window", metavar="TIME", help="how far back to ask")] = "30m",
    step: Annotated[str, typer.Option("--step", metavar="TIME", help="between two points; at least the scrape interval")] = "5s",
    match: Annotated[str, typer.Option("--match", metavar="LABELS", help='of one engine: model_name="m",instance="i"')] = "",
    out: Out = Path("profile.yaml"),
    name: Name = "",
    run: Run = "",
    model: Model = "",
    gpu: Gpu = "",
    tp: Tp = 0,
    max_sequences: Sequences = 0,
    max_batched_tokens: Batched = 0,
    kv_tokens: KvTokens = 0,
    replace: Replace = False,
) -> None:
    """Fit scraped counters: 10 to 30 minutes while the load goes up and down are enough."""
    from sageserve.base.errors import MeasurementError
    from sageserve.sim.calibration.profile import from_counters

    _writable(out, replace=replace)
    if (data is None) == (not prometheus):
        raise MeasurementError(
            "counters come from a CSV file or from a Prometheus server: give one of them",
            hint="sageserve calibrate counters timeseries.csv, or --prometheus http://localhost:9090",
        )
    chosen = _from_file(data, run) if data is not None else _ask(prometheus, query_window, step, match)
    told = _told(chosen, model=model, gpu=gpu, tp=tp)
    told = _limited(told, max_sequences=max_sequences, max_batched_tokens=max_batched_tokens, kv_tokens=kv_tokens)
    _finish(told, from_counters(told), out, name, replace=replace)


def _from_file(path: Path, run: str) -> "MeasuredRun":
    from sageserve.data.measured.files import choose, read_measured, read_series

    runs = read_measured(path) if path.is_dir() else read_series(path)
    return choose((each for each in runs if each.series is not None), run)


def _ask(url: str, window: str, step: str, match: str) -> "MeasuredRun":
    from sageserve.base.config.clusters import prometheus_at
    from sageserve.base.errors import MeasurementError
    from sageserve.base.units import SECOND, duration_us
    from sageserve.live.prometheus.calibration import Window, read_prometheus

    lengths = []
    for option, text in (("--query-window", window), ("--step", step)):
        try:
            lengths.append(duration_us(text) / SECOND)
        except ValueError as error:
            raise MeasurementError(f"{option}: {error}", hint=f"for example {option} 30m") from error
    return read_prometheus(prometheus_at(url), Window(time.time(), lengths[0], lengths[1], match))


def _told(run: "MeasuredRun", *, model: str, gpu: str, tp: int) -> "MeasuredRun":
    return replace(run, model=model or run.model, gpu=gpu or run.gpu, tp=tp or run.tp)


def _limited(run: "MeasuredRun", *, max_sequences: int, max_batched_tokens: int, kv_tokens: int) -> "MeasuredRun":
    limits = replace(
        run.limits,
        max_sequences=max_sequences or run.limits.max_sequences,
        max_batched_tokens=max_batched_tokens or run.limits.max_batched_tokens,
        kv_tokens=kv_tokens or run.limits.kv_tokens,
    )
    return replace(run, limits=limits)


def _writable(out: Path, *, replace: bool) -> None:
    """Refuse before minutes are spent."""
    from sageserve.base.errors import MeasurementError

    if out.exists() and not replace:
        raise MeasurementError(f"{out} is there already", hint="choose another name with --out, or add --replace")


def _finish(run: "MeasuredRun", found: "Calibrated", out: Path, name: str, *, replace: bool) -> None:
    from sageserve.data.profiles.naming import known_model
    from sageserve.data.profiles.write import write_profile
    from sageserve.show.coefficients import coefficient_lines

    profile = found.profile
    model = known_model(run.model) or run.model.rsplit("/", 1)[-1].lower() or "model"
    called = name or f"{model}/{profile.gpu}/tp{profile.tp}"
    write_profile(out, {called: profile}, replace=replace)
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    console.print(f"[bold]{escape(called)}[/bold]")
    for line in coefficient_lines(profile):
        console.print(f"  {line}")
    console.print(f"  KV capacity {profile.kv_tokens:,} tokens")
    console.print(f"  fitted on {escape(profile.fitted)}")
    console.print(f"  held-out error: {escape(profile.error)}")
    for note in found.notes:
        console.print(f"  {escape(note)}", style="dim")
    console.print(f"written to {escape(str(out))}; name it in a scenario as {escape(f'{out}#{called}')}")
