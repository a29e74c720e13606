"""`sageserve init`: a first scenario of one's own, from a trace, a Prometheus server or names; checked, every guess marked.

Knows options; `data/scenarios/draft.py` decides. stdout says what was written, and what to do next.
"""

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sageserve.cli.progress import bar
from sageserve.cli.trace_options import as_typed, takes_trace
from sageserve.data.traces.options import TraceOptions

if TYPE_CHECKING:
    from sageserve.base.records import Trace
    from sageserve.data.scenarios.draft import Draft

EXAMPLES = """[bold]Examples[/bold]

sageserve init fleet.yaml --trace requests.csv

sageserve init fleet.yaml --model llama-3.1-70b --model qwen3-32b --region us-east --region eu-west

sageserve init fleet.yaml --trace requests.csv --gpu h200 --replace

sageserve init fleet.yaml --prometheus http://localhost:9090
"""
_MODELS: Final = ("llama-3.1-8b", "llama-3.1-70b")
_REGIONS: Final = ("us-east", "eu-west")
_REGION: Final = "region-1"
_MODEL: Final = "llama-3.1-8b"  # of a trace that names none


@takes_trace(ahead=False)
def init(  # noqa: PLR0913, PLR0917 # one argument per option
    file: Annotated[Path, typer.Argument(metavar="FILE", help="the scenario to write")],
    options: TraceOptions,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="a model of the fleet; may be repeated", show_default="the trace's"),
    ] = None,
    regions: Annotated[
        list[str] | None,
        typer.Option(
            "--region", metavar="NAME", help="a region; may be repeated; of a trace that names none", show_default="the trace's"
        ),
    ] = None,
    gpu: Annotated[str, typer.Option("--gpu", metavar="NAME", help="what instances run on")] = "h100-80gb",
    prometheus: Annotated[
        str, typer.Option("--prometheus", metavar="URL", help="a server that watches the fleet, to draft what it shows")
    ] = "",
    over: Annotated[bool, typer.Option("--replace", help="over a file that is there")] = False,
) -> None:
    """Write a first scenario of your own: commented, ready to run, with every guess marked as one."""
    from sageserve.base.errors import ConfigError
    from sageserve.data.documents import write_text
    from sageserve.data.scenarios.draft import draft_text, left_to_decide
    from sageserve.data.scenarios.extension import check_place
    from sageserve.data.scenarios.load import load_scenario

    if file.suffix not in {".yaml", ".yml"}:
        raise ConfigError(f"{file} is no name of a scenario file", hint=f"name it {file.with_suffix('.yaml')}")
    check_place(file, replace=over)
    options.refuse_without_files()
    if options.files and models:
        raise ConfigError("the models are those of the trace", hint="leave --model out, or rename them with --map OLD=NEW")
    _refuse_twice("--model", models)
    _refuse_twice("--region", regions)
    maps: list[str] = []
    if prometheus:
        if options.files or models or len(regions or ()) > 1:
            raise ConfigError(
                "models and regions are those that --prometheus shows",
                hint="leave --trace, --model and all but one --region out; the region is of instances whose cluster has no name",
            )
        draft = _from_prometheus(file, prometheus, gpu, regions)
    elif options.files:
        draft, maps = _from_trace(file, options, gpu, regions)
    else:
        draft = _from_names(file, models, regions, gpu)
    text = draft_text(draft)
    write_text(file, text, check=load_scenario)
    for model in draft.models:
        unsure = f"; unsure, it may be {', '.join(model.candidates)}" if model.candidates else ""
        typer.echo(f"{model.name}: {model.profile}{unsure}")
    count = sum(1 for _ in left_to_decide(text))
    typer.echo(f"{file} is written; {count} values in it are guesses: sageserve scenario check {shlex.quote(str(file))}")
    given = " ".join([*as_typed(options), *maps])
    what = "backtest" if prometheus else "simulate"
    typer.echo(f"next: sageserve {what} {shlex.quote(str(file))}" + (f" {given}" if given else ""))


def _refuse_twice(option: str, given: list[str] | None) -> None:
    from sageserve.base.errors import ConfigError
    from sageserve.data.scenarios.draft import scenario_name

    seen: dict[str, str] = {}
    for name in given or ():
        key = scenario_name(name)
        if key in seen:
            other = seen[key]
            same = (
                f"{option} {name} is given twice" if other == name else f"{option} {name} and {other} are one name in a scenario"
            )
            raise ConfigError(same, hint="name each once")
        seen[key] = name


def _from_names(file: Path, models: list[str] | None, regions: list[str] | None, gpu: str) -> "Draft":
    from sageserve.data.scenarios.draft import Draft, ModelTraffic, draft_model, scenario_name

    matched = tuple(draft_model(name, gpu, ModelTraffic()) for name in models or _MODELS)
    return Draft(scenario_name(file.stem), "", matched, tuple(scenario_name(name) for name in regions or _REGIONS))


def _from_prometheus(file: Path, url: str, gpu: str, regions: list[str] | None) -> "Draft":
    from sageserve.base.config.clusters import prometheus_at
    from sageserve.data.scenarios.draft import scenario_name
    from sageserve.live.prometheus.discover import discover
    from sageserve.live.prometheus.drafted import HERE, DraftOptions, drafted
    from sageserve.live.prometheus.server import PrometheusServer

    with PrometheusServer(prometheus_at(url)) as server:
        found = discover(server, time.time_ns() // 1000)
    region = scenario_name(regions[0]) if regions else HERE
    draft, notes = drafted(found, DraftOptions(scenario_name(file.stem), url, gpu, region))
    for line in notes:
        typer.echo(line, err=True)
    for pool in draft.pools:
        typer.echo(f"{pool.region}/{pool.model}/{pool.gpu}: {pool.instances} instances, {pool.name}")
    return draft


def _from_trace(file: Path, options: TraceOptions, gpu: str, regions: list[str] | None) -> "tuple[Draft, list[str]]":
    """The draft, and the `--map` options that bring names a scenario cannot hold to those it has instead."""
    from sageserve.base.errors import ConfigError
    from sageserve.data.scenarios.draft import Draft, draft_model, scenario_name, traffic_of
    from sageserve.data.traces.naming import UNNAMED
    from sageserve.data.traces.requests import requests_of

    found = requests_of(options, None, bar)
    for line in found.remarks():
        typer.echo(line, err=True)
    trace, names = found.trace, found.trace.names
    if regions and names.regions != (UNNAMED,):
        raise ConfigError("the regions are those of the trace", hint="leave --region out, or rename them with --map OLD=NEW")
    places = [scenario_name(name) for name in (names.regions if names.regions != (UNNAMED,) else regions or (_REGION,))]
    matched = []
    for name, seen in traffic_of(trace).items():
        spread = dict.fromkeys(places, sum(seen.peak.values()) / len(places))  # where nobody says where they come in
        traffic = replace(seen, peak=spread) if names.regions == (UNNAMED,) else seen
        matched.append(draft_model(_MODEL if name == UNNAMED else name, gpu, traffic))
    source = ", ".join(path.name for path in options.files)
    tiers = tuple(scenario_name(name) for name in names.tiers if name != UNNAMED)
    draft = Draft(
        scenario_name(file.stem), source, tuple(matched), tuple(places), tiers, requests=len(trace), window=trace.window
    )
    return draft, _maps(trace)


def _maps(trace: "Trace") -> list[str]:
    from sageserve.data.scenarios.draft import scenario_name
    from sageserve.data.traces.naming import UNNAMED

    names = (*trace.names.models, *trace.names.regions, *trace.names.tiers)
    return [
        f"--map {shlex.quote(f'{name}={scenario_name(name)}')}"
        for name in names
        if name != UNNAMED and scenario_name(name) != name
    ]
