"""`sageserve calibrate benchmark`: five minutes of load on a live engine become a profile, or a reason why not.

Knows options, the progress bar and what is shown; measures and fits nothing. stdout is the result, progress is on stderr.
Read next: `live/benchmark/run.py`, `sim/calibration/benchmark.py`, docs/how-to/benchmark-an-engine.md.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sageserve.cli.columns import StackedTable, terminal
from sageserve.cli.extras import need
from sageserve.cli.progress import compile_once
from sageserve.cli.urls import checked_url

if TYPE_CHECKING:
    from sageserve.live.benchmark.plan import BenchmarkOptions
    from sageserve.live.benchmark.run import Benchmarked, Tell
    from sageserve.sim.calibration.benchmark import BenchmarkFit

EXAMPLES = """[bold]Examples[/bold]

sageserve calibrate benchmark http://127.0.0.1:8000 --model llama-3.1-8b --max-sequences 256 -o mine.yaml

sageserve calibrate benchmark https://engine.internal/v1 --model qwen3-32b --key-env ENGINE_KEY --keep runs/qwen

Nobody else should use the engine meanwhile: the profile is of an engine, not of a crowd.
"""


Url = Annotated[str, typer.Argument(metavar="URL", help="of the engine, with or without /v1")]
Model = Annotated[str, typer.Option("--model", metavar="NAME", help="as the engine names it")]
Minutes = Annotated[float, typer.Option(min=0.05, max=120, help="about; a fifth is kept out as the check")]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="profile file to write")]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="of the profile in the file", show_default="the model")]
KeyEnv = Annotated[str | None, typer.Option("--key-env", metavar="VAR", help="variable that holds the API key")]
Keep = Annotated[Path | None, typer.Option(metavar="DIR", help="keep the measurements: requests.csv and so on")]
Sequences = Annotated[int | None, typer.Option(min=1, max=4096, help="its max_num_seqs", show_default="as counters show")]
Batched = Annotated[int | None, typer.Option(min=16, help="its max_num_batched_tokens", show_default="2048")]
Context = Annotated[int | None, typer.Option(min=2, metavar="TOKENS", help="of the model", show_default="as the engine says")]
KvTokens = Annotated[int | None, typer.Option(min=1, help="num_gpu_blocks x block_size", show_default="as counters say")]
Gpu = Annotated[str, typer.Option(metavar="NAME", help="GPU type it runs on, for the record")]
Tp = Annotated[int, typer.Option(min=1, max=64, help="its tensor parallelism")]
Levels = Annotated[str, typer.Option(metavar="N,N,...", help="concurrencies; max_num_seqs is added")]
Prompts = Annotated[str, typer.Option(metavar="N,N,...", help="tokens of single prompts")]
OutputHigh = Annotated[int, typer.Option(min=16, metavar="TOKENS", help="longest answer")]
MetricsUrl = Annotated[str | None, typer.Option(metavar="URL", help="of the engine's counters", show_default="/metrics")]
Seed = Annotated[int, typer.Option(min=0, help="of prompts, lengths and arrivals")]
Replace = Annotated[bool, typer.Option("--replace", help="replace files that are there")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]


def benchmark(  # noqa: PLR0913, PLR0917 # one argument per option
    url: Url,
    model: Model,
    minutes: Minutes = 5.0,
    out: Out = Path("profile.yaml"),
    name: Name = None,
    key_env: KeyEnv = None,
    keep: Keep = None,
    max_sequences: Sequences = None,
    max_batched_tokens: Batched = None,
    context: Context = None,
    kv_tokens: KvTokens = None,
    gpu: Gpu = "",
    tp: Tp = 1,
    levels: Levels = "1,4,16,64",
    prompts: Prompts = "128,1024,4096",
    output_high: OutputHigh = 512,
    metrics_url: MetricsUrl = None,
    seed: Seed = 1,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Measure a live engine for five minutes and fit a profile; one minute is kept out and judges it."""
    need("live")
    from sageserve.data.profiles.write import write_profile
    from sageserve.live.benchmark.plan import BenchmarkOptions

    _check_places(out, keep, replace=replace)
    if metrics_url is not None:
        checked_url("--metrics-url", metrics_url, "http://127.0.0.1:8000/metrics")
    options = BenchmarkOptions(
        url=url,
        model=model,
        key=_key(key_env),
        minutes=minutes,
        seed=seed,
        levels=_numbers("--levels", levels),
        prompts=_numbers("--prompts", prompts),
        output_high=output_high,
        max_sequences=max_sequences,
        max_batched_tokens=max_batched_tokens,
        context=context,
        kv_tokens=kv_tokens,
        metrics_url=metrics_url,
        gpu=gpu,
        tp=tp,
    )
    fit = _fit(_measure(options), keep, quiet=as_json)
    called = name or model
    write_profile(out, {called: fit.profile}, replace=replace)
    if as_json:
        typer.echo(_json(called, fit).decode(), nl=False)
    else:
        _draw_fit(called, fit, out)


def _fit(found: "Benchmarked", keep: Path | None, *, quiet: bool) -> "BenchmarkFit":
    """The fit of what was measured, after that was kept and shown."""
    from sageserve.base.errors import MeasurementError
    from sageserve.data.measured.write import write_measured
    from sageserve.live.benchmark.outcome import measured_runs
    from sageserve.sim.calibration.benchmark import fit_benchmark

    runs = measured_runs(found)
    if keep is not None:
        write_measured(keep, runs)
    if not quiet:
        _draw_measured(found)
    compile_once()
    try:
        with Console(stderr=True).status("fitting") as status:
            return fit_benchmark(*runs, lambda count: status.update(f"fitting: {count} simulations"))
    except MeasurementError as error:
        kept = f"; the measurements are in {keep}" if keep is not None else ""
        raise MeasurementError(error.message, hint=f"{error.hint}{kept}") from None


def _measure(options: "BenchmarkOptions") -> "Benchmarked":
    import asyncio  # late: it takes a tenth of what --help takes

    from sageserve.live.benchmark.run import benchmark as run

    with _progress() as tell:
        return asyncio.run(run(options, tell))


def _key(variable: str | None) -> str | None:
    from sageserve.base.errors import MeasurementError

    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise MeasurementError(
            "the variable named with --key-env is empty or not set", hint="export it; give its name, not the key itself"
        )
    return key


def _numbers(option: str, text: str) -> tuple[int, ...]:
    from sageserve.base.errors import MeasurementError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise MeasurementError(f"{option} {text}: write whole numbers with commas", hint=f"for example {option} 1,4,16")
    return tuple(int(part) for part in parts)


def _check_places(out: Path, keep: Path | None, *, replace: bool) -> None:
    """Refuse what would fail after five minutes."""
    from sageserve.base.errors import MeasurementError

    if out.exists() and not replace:
        raise MeasurementError(f"{out} is there already", hint="choose another name with --out, or add --replace")
    if keep is not None and keep.exists() and not replace and (not keep.is_dir() or any(keep.iterdir())):
        raise MeasurementError(f"{keep} is not an empty folder", hint="choose another with --keep, or add --replace")


@contextmanager
def _progress() -> "Iterator[Tell]":
    """A bar on stderr; one line per kind of load where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        last = ""

        def say(what: str, done: float, total: float) -> None:
            nonlocal last
            if what != last:
                console.print(f"{done:4.0f} s of {total:.0f}: {what}", markup=False, highlight=False, soft_wrap=True)
                last = what

        yield say
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("benchmark", total=None)
        yield lambda what, done, total: bar.update(task, description=escape(what), completed=done, total=total)


def _draw_measured(found: "Benchmarked") -> None:
    import numpy as np

    table = StackedTable(
        "load", "requests", "req/s", "tok/s", "TTFT p50 ms", "TTFT p95 ms", "TPOT ms", "ITL p99 ms", title="measured"
    )
    for stretch in [*found.stretches, *([found.opened] if found.opened else [])]:
        ttft, tpot, gaps = stretch.ttft / 1000, stretch.tpot, stretch.gaps
        table.add_row(
            stretch.name,
            str(len(stretch.samples)),
            f"{stretch.rate:.2f}",
            f"{stretch.tokens_per_s:.0f}",
            f"{np.median(ttft):.0f}",
            f"{np.quantile(ttft, 0.95):.0f}",
            f"{np.mean(tpot) / 1000:.1f}" if tpot else "",
            f"{np.quantile(gaps, 0.99) / 1000:.0f}" if len(gaps) else "",
        )
    terminal().print(table)


def _draw_fit(name: str, fit: "BenchmarkFit", out: Path) -> None:
    from sageserve.show.coefficients import coefficient_lines

    console, profile = Console(soft_wrap=True, highlight=False, emoji=False), fit.profile
    console.print(f"\n[bold]{escape(name)}[/bold]")
    for line in coefficient_lines(profile):
        console.print(f"  {line}")
    console.print(f"  KV capacity {profile.kv_tokens:,} tokens")
    console.print(f"  fitted on {escape(profile.fitted)}")
    console.print(f"  error: {escape(profile.error)}")
    for note in fit.notes:
        console.print(f"  {escape(note)}", style="dim")
    console.print(f"written to {escape(str(out))}; name it in a scenario as {escape(f'{out}#{name}')}")


def _json(name: str, fit: "BenchmarkFit") -> bytes:
    import msgspec

    content = {
        "name": name,
        "profile": fit.profile.model_dump(mode="json"),
        "closed_loop": fit.closed,
        "open_loop": fit.opened,
        "evaluations": fit.evaluations,
        "notes": fit.notes,
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
