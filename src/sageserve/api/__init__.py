"""What the commands do, as functions: settings in, results out as records and Arrow tables. Prints nothing and asks nothing.

    scenario = load("quickstart", {"fleet.start": 4})
    compare(scenario, ["reactive", "foresight"], seeds=[1, 2]).table().to_pandas()

Reached as `sageserve.simulate` and so on, which also finds the compiled simulator. Stable within a minor version, as
`sageserve.plugins` is; everything below may change. Errors are `SageServeError`. Simulates in this process, one run after the
other: `sageserve compare` uses all cores. Read next: `results.py`, docs/tutorial/python.md.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from sageserve.api.results import ComparisonResult, SimulationResult
from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, ResultError, SageServeError
from sageserve.base.units import Micros, duration_us
from sageserve.core.forecast import forecaster as forecaster_of
from sageserve.core.plan_once import PLANNERS, planned_layout, propose, start_counts, within_demand
from sageserve.data.results.comparison import Bound
from sageserve.data.results.plans import PlanFile
from sageserve.data.results.run_folder import REPORT
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import SweepSource, source_of
from sageserve.data.scenarios.load import check, load_scenario
from sageserve.data.traces.archive import trace_table
from sageserve.data.traces.demand import heard
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.requests import Requests
from sageserve.data.traces.series import Counted, rebinned, series_of_trace
from sageserve.data.workload.requests import requests_for
from sageserve.show.plan_file import plan_file
from sageserve.show.report import write_report
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Simulation
from sageserve.sim.sizing.conditions import Survive, check_nine, grown, reached_in, size_under, with_lead, with_nine
from sageserve.sim.sizing.plays import Wish, wish_of
from sageserve.sim.sizing.records import Sizing
from sageserve.sim.sizing.run import size as _size
from sageserve.sim.sizing.strategy import size_for
from sageserve.sim.sweep.alone import Alone

__all__ = [
    "ComparisonResult",
    "SageServeError",
    "Scenario",
    "SimulationResult",
    "Sizing",
    "Summary",
    "TraceOptions",
    "compare",
    "forecast",
    "generate",
    "load",
    "plan",
    "report",
    "simulate",
    "size",
]

ScenarioLike: TypeAlias = Scenario | str | Path
"""A scenario, a built-in name, or the path of a YAML file."""
TraceLike: TypeAlias = str | Path | pa.Table | TraceOptions | None
"""A trace file, a table with its columns, or files with what is to be done to them; None: the scenario's own traffic."""
_PLANS: Final = "lt-ua"


def load(scenario: ScenarioLike, settings: Mapping[str, object] | None = None) -> Scenario:
    """A checked scenario.

    Args:
        scenario: a built-in name or a YAML file.
        settings: values that win over the file's, by key: `{"fleet.start": 4, "strategy.check": "30s"}`; NumPy's scalars too.

    Raises:
        ConfigError: it is not there, a key or a value is wrong, or it cannot work (`Infeasible`).
    """
    if isinstance(scenario, Scenario):
        if settings:
            raise ConfigError("this scenario is loaded already", hint="give its name or file, and the settings with it")
        return check(scenario)
    return load_scenario(scenario, overrides=[f"{key}={_written(key, value)}" for key, value in (settings or {}).items()])


def generate(scenario: ScenarioLike, *, seed: int | None = None) -> pa.Table:
    """The requests that a scenario's own traffic settings give: arrival_us, model, tier, region, prompt_tokens, output_tokens.

    Raises:
        ConfigError: the scenario is wrong, or describes no traffic.
    """
    return trace_table(requests_for(_with(load(scenario), seed=seed), TraceOptions()).trace)


def simulate(
    scenario: ScenarioLike, *, trace: TraceLike = None, strategy: str | type | None = None, seed: int | None = None
) -> SimulationResult:
    """Play requests through a fleet under a strategy.

    Args:
        scenario: what to simulate.
        trace: the requests.
        strategy: a name, `module:Class`, or a class of your own; the scenario's when None.
        seed: of everything random; the scenario's when None.

    Raises:
        ConfigError: the scenario or the strategy is wrong.
        TraceError: the trace cannot be read, or names what the scenario does not define.
        PluginError: your own code raised an exception.
    """
    settings = _with(load(scenario), strategy=strategy, seed=seed)
    return _play(settings, _requests(settings, trace))


def compare(
    scenario: ScenarioLike,
    strategies: str | type | Sequence[str | type] = ("reactive", "foresight"),
    *,
    trace: TraceLike = None,
    seeds: Sequence[int] = (),
    oracle: bool = False,
) -> ComparisonResult:
    """Play strategies on the same requests.

    Args:
        scenario: what to simulate.
        strategies: names, `module:Class`, or classes of your own; one may stand alone.
        trace: the requests.
        seeds: each strategy is played with each; the scenario's own when there are none.
        oracle: ask for the least that any strategy could do, too.

    Raises:
        SageServeError: as `simulate`.
    """
    own = load(scenario)
    each = (strategies,) if isinstance(strategies, str | type) else strategies
    summaries: dict[str, dict[int, Summary]] = {}
    bounds: dict[int, Bound] = {}
    for seed in seeds or [own.seed]:
        seeded = _with(own, seed=seed)
        requests = _requests(seeded, trace)
        for strategy in each:
            one = _with(seeded, strategy=strategy)
            summaries.setdefault(one.strategy.name, {})[seed] = _play(one, requests).summary
        if oracle:
            bounds[seed] = oracle_bound(seeded, requests.trace)
    return ComparisonResult(summaries, bounds)


def size(  # noqa: PLR0913 # what the command has an option for
    scenario: ScenarioLike,
    *,
    trace: TraceLike = None,
    safety: float = 0.99,
    windows: int = 20,
    for_strategy: str | type | None = None,
    growth: float = 1.0,
    survive: str = "",
    lead_time: str | None = None,
    one_more_nine: bool = False,
) -> Sizing:
    """The fewest instances that keep every promise, held all the time, and what they cost; or what a strategy needs.

    Args:
        scenario: what is to be served, on which GPUs and with what promises; its own fleet does not matter, but for the minimum.
        trace: the requests.
        safety: how sure it must be that every promise holds in a window that was not played.
        windows: how many are played, 20 or more.
        for_strategy: instead, the maxima, stock and reservation that this strategy needs.
        growth: times the traffic; `growth` of the answer says what that adds.
        survive: `region` or `vm`: keep the promises also without any one of them; `survive` of the answer says what that adds.
        lead_time: how long quota takes, such as "12w": `lead` of the answer says by when it must be asked for.
        one_more_nine: `nine` of the answer says what a tenth of the doubt would cost.

    Raises:
        ConfigError: the scenario or the wish is wrong.
        Infeasible: no number of instances is enough.
        TraceError: the trace cannot be read.
    """
    settings = _with(load(scenario), strategy=for_strategy)
    rule = None if for_strategy is None else settings.strategy.name
    wish = wish_of(safety, windows, survive, strategy=rule or "")
    if one_more_nine:
        check_nine(rule, safety)
    lead = None if lead_time is None else (_duration(lead_time), reached_in(settings, growth))
    with _as_source(trace) as source:
        found = _sized(settings, source, wish, _size if rule is None else size_for, (growth, one_more_nine))
    return found if lead is None else with_lead(found, *lead)


def plan(scenario: ScenarioLike, at: str, *, strategy: str | None = None, trace: TraceLike = None) -> PlanFile:
    """The plan that a strategy would make at an instant, from the demand until then; `pools` has the targets and why.

    Args:
        scenario: with its fleet as it starts.
        at: from the start, such as "10h".
        strategy: lt-i, lt-u, lt-ua or foresight; the scenario's, or lt-ua where that makes no plan.
        trace: the demand.

    Raises:
        ConfigError: the instant is no duration, or after the end of the demand.
        PlanError: the strategy makes no plans, or there is none.
    """
    settings = load(scenario)
    if strategy is not None or settings.strategy.name not in PLANNERS:
        settings = _with(settings, strategy=strategy or _PLANS)
    layout, when = planned_layout(settings), _duration(at)
    found = _requests(settings, trace)
    when = within_demand(when, found.trace.window)
    counts = start_counts(settings, layout)
    proposal = propose(settings, when, heard(found.trace, layout, when), earlier=found.earlier, counts=counts)
    return plan_file(
        settings, proposal, when=when, source="given" if trace is not None else f"the scenario, seed {settings.seed}"
    )


def forecast(
    scenario: ScenarioLike,
    *,
    trace: TraceLike = None,
    forecaster: str = "blend",
    horizon: str = "1h",
    bin: str = "5m",  # noqa: A002 # the word of the command
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
) -> pa.Table:
    """Prompt tokens that are expected after the end of the requests, by series and bin: point, and one column per quantile.

    Args:
        scenario: whose names the requests have.
        trace: the past; the scenario's own traffic, after its history, when None.
        forecaster: a name, or `module:Name`.
        horizon: how far.
        bin: length of a bin.
        quantiles: each in (0, 1).

    Raises:
        ConfigError: a time is no duration, or has no length.
        PlanError: no such forecaster, or nothing to forecast from.
    """
    length, ahead = _duration(bin), _duration(horizon)
    settings, method, levels = load(scenario), forecaster_of(forecaster), tuple(sorted(quantiles))
    made = _requests(settings, trace)
    rows: list[dict[str, object]] = []
    for name, fine in series_of_trace(made.trace, counted=Counted("prompt"), past=made.earlier).items():
        series = rebinned(fine, length)
        coming = method.fit(series).predict(max(1, -(-ahead // series.bin)), levels)
        for k, point in enumerate(coming.point.tolist()):
            row: dict[str, object] = {"series": name, "start_us": coming.start + k * coming.bin, "point": point}
            rows.append(row | {f"q{level:g}": float(coming.values[k, j]) for j, level in enumerate(levels)})
    return pa.Table.from_pylist(rows)


def report(folders: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the HTML page about runs that were saved, or about a folder of `sageserve compare --out`.

    Args:
        folders: of runs; several are set side by side.
        out: the file; report.html in the first folder when None.

    Raises:
        ResultError: there is no folder, one is no result, or the page cannot be written.
    """
    given = [Path(folders)] if isinstance(folders, str | Path) else [Path(one) for one in folders]
    if not given:
        raise ResultError("there is no folder to report about", hint="give those of runs that were saved")
    page = given[0] / REPORT if out is None else Path(out)
    write_report(given, page)
    return page


# ------------------------------------------------------------------------------------------------ what they share


def _play(settings: Scenario, requests: Requests) -> SimulationResult:
    simulation = Simulation(settings, requests.trace, earlier=requests.earlier)
    began = time.process_time()
    run = simulation.play()
    return SimulationResult(summarise(run, time.process_time() - began), run)


def _sized(settings: Scenario, source: SweepSource, wish: Wish, solve: Callable[..., Sizing], more: tuple[float, bool]) -> Sizing:
    """The answer under all conditions; `more`: growth, and whether one more nine is priced."""
    growth, nine = more
    runner = Alone()

    def under(one: Scenario, where: SweepSource, lost: Survive) -> Sizing:
        return solve(one, where, replace(wish, survive=lost), runner)

    def safer(safety: float) -> Sizing:
        return solve(*grown(settings, source, growth), replace(wish, safety=safety), runner)

    *_, found = size_under(under, settings, source, growth, wish.survive)
    return with_nine(found, safer) if nine else found


def _with(scenario: Scenario, *, strategy: str | type | None = None, seed: int | None = None) -> Scenario:
    """The scenario with another strategy or seed."""
    if strategy is None and seed is None:
        return scenario
    values: dict[str, Any] = scenario.model_dump()
    if strategy is not None:
        values["strategy"]["name"] = _name(strategy) if isinstance(strategy, type) else strategy
    if seed is not None:
        values["seed"] = seed
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        what = ", ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise ConfigError(
            f"strategy={strategy!r}, seed={seed!r}: {what}", hint="a strategy is named as --strategy names it"
        ) from None


def _written(key: str, value: object) -> str:
    """A value as `--set` takes it."""
    try:
        return msgspec.json.encode(value, enc_hook=_scalar).decode()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {value!r} is no setting: {error}", hint="give text, a number, a list or a mapping") from None


def _scalar(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written")


def _name(strategy: type) -> str:
    """`module:Class` of a class."""
    if "<locals>" in strategy.__qualname__:
        raise ConfigError(
            f"{strategy.__qualname__} is defined in a function, where nobody else can find it",
            hint="define it in a module or a cell",
        )
    return f"{strategy.__module__}:{strategy.__qualname__}"


def _requests(scenario: Scenario, trace: TraceLike) -> Requests:
    if isinstance(trace, pa.Table):
        with _as_file(trace) as path:
            return requests_for(scenario, TraceOptions(files=(path,)))
    return requests_for(scenario, _options(trace))


def _options(trace: str | Path | TraceOptions | None) -> TraceOptions:
    options = trace if isinstance(trace, TraceOptions) else TraceOptions(files=() if trace is None else (Path(trace),))
    return replace(options, files=tuple(map(Path, options.files)), history=tuple(map(Path, options.history)))


@contextmanager
def _as_source(trace: TraceLike) -> Iterator[SweepSource]:
    """Where requests come from, for what plays them in many windows."""
    if isinstance(trace, pa.Table):
        with _as_file(trace) as path:
            yield source_of(TraceOptions(files=(path,)))
    else:
        yield source_of(_options(trace))


@contextmanager
def _as_file(table: pa.Table) -> Iterator[Path]:
    """A table as a file, which is read and checked as every trace is."""
    with tempfile.TemporaryDirectory(prefix="sageserve-") as folder:
        path = Path(folder) / "trace.parquet"
        pq.write_table(table, path)
        yield path


def _duration(text: str) -> Micros:
    hint = 'write it as in "90s", "15m" or "10h"'
    try:
        found = duration_us(text)
    except ValueError as error:
        raise ConfigError(str(error), hint=hint) from None
    if found <= 0:
        raise ConfigError(f"{text!r} has no length", hint=hint)
    return found
