"""`sageserve backtest`: what policies would have cost on a fleet's past, from what Prometheus recorded of it.

Knows options and the order of the steps; computes nothing. stdout is the result, everything else is on stderr. Read next:
`backtest_history.py` for what is read, `render_backtest.py` for the table, `sim/backtest/`, docs/how-to/backtest.md.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sageserve.cli.compare import Overrides, Workers, finish, gather, run_cells, runner, with_first_seeds_whole
from sageserve.cli.progress import bar, compile_once
from sageserve.cli.seeds import parse_seeds

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.base.records import Trace
    from sageserve.cli.backtest_history import PlacedHistory
    from sageserve.data.rebuild.requests import Rebuilt
    from sageserve.data.results.comparison import Comparison
    from sageserve.sim.backtest.answer import AnswerChecks
    from sageserve.sim.backtest.own_error import PolicyError
    from sageserve.sim.sweep.cell import Cell, Outcome

ORACLE = "oracle"
REQUESTS = "requests"  # the folder of made requests in --out
EXAMPLES = """[bold]Examples[/bold]

sageserve backtest fleet.yaml --prometheus http://localhost:9090 --last 7d

sageserve backtest fleet.yaml history.om.gz --policies recorded,reactive,foresight

sageserve backtest fleet.yaml --autoscaler hpa.yaml --last 7d

sageserve backtest fleet.yaml --until 2026-11-20 --last 24h --json | jq .error.savings
"""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is played.

    Args:
        scenario: its reference.
        overrides: settings in place for every cell.
        names: policies.
        seeds: of what counters leave open.
        workers: processes.
    """

    scenario: str
    overrides: tuple[str, ...]
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    workers: int | None

    def load(self, more: Sequence[str]) -> "Scenario":
        from sageserve.data.scenarios.load import load_scenario

        return load_scenario(self.scenario, overrides=[*self.overrides, *more])


Files = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE...]", help="OpenMetrics text or answers of query_range, instead of a server")
]
Url = Annotated[str, typer.Option("--prometheus", metavar="URL", help="a server to read from", show_default="live.clusters'")]
Last = Annotated[str, typer.Option("--last", metavar="TIME", help="how much of it, such as 7d", show_default="24h")]
Until = Annotated[str, typer.Option("--until", metavar="DATE", help="where it ends", show_default="now")]
Interval = Annotated[str, typer.Option("--interval", metavar="TIME", help="between samples", show_default="as it shows")]
Policies = Annotated[str, typer.Option("--policies", metavar="A,B,C", help="strategies; recorded is what was, oracle the bound")]
Autoscaler = Annotated[
    Path | None, typer.Option("--autoscaler", metavar="FILE", help="manifest of your own HPA or ScaledObject, played beside them")
]
Again = Annotated[str, typer.Option("--seeds", metavar="1..5|1,2", help="requests are made so often: counters leave much open")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="requests, results, report; what is there is not played again")]
Over = Annotated[bool, typer.Option("--replace", help="also in a folder that holds other files")]
NoError = Annotated[bool, typer.Option("--no-error", help="do not measure what making requests of counters does")]
AsJson = Annotated[bool, typer.Option("--json", help="print checks, error and summaries instead of tables")]


def backtest(  # noqa: PLR0913, PLR0917 # one argument per option
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="a YAML file; its live.targets say whose series are whose")],
    files: Files = None,
    prometheus: Url = "",
    last: Last = "",
    until: Until = "",
    interval: Interval = "",
    policies: Policies = "recorded,reactive,lt-ua,foresight,oracle",
    autoscaler: Autoscaler = None,
    seeds: Again = "1..5",
    overrides: Overrides = None,
    workers: Workers = None,
    out: Out = Path("backtest"),
    put_over: Over = False,
    no_error: NoError = False,
    as_json: AsJson = False,
) -> None:
    """Play policies on a fleet's past: what each would have cost, which promises it would have kept, and how sure that is."""
    from sageserve.cli.backtest_history import HistoryOptions, read_placed, server_of, tell_notes
    from sageserve.cli.report import write
    from sageserve.core.strategies.recorded import NAME
    from sageserve.data.results.run_folder import REPORT
    from sageserve.data.results.sweep_folder import MARK, Kept
    from sageserve.sim.backtest.answer import BacktestAnswer

    names = _names(policies)
    Kept(out, replace=put_over)  # refuses before anything is read
    names, rules = _with_own(names, autoscaler)
    plan = _Plan(scenario, (*(overrides or ()), *rules), names, tuple(parse_seeds(seeds)), workers)
    history = read_placed(plan.load(()), HistoryOptions(tuple(files or ()), prometheus, until, last, interval))
    tell_notes(history.notes)
    plan = _where_it_stood(plan, history)
    made = _made(plan, history)
    where = "URL" if files else server_of(plan.load(()), history.watched[0].cluster, prometheus).url
    checks = _checks(plan, history, made[plan.seeds[0]], where)
    (out / REQUESTS).mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    cells, outcomes = _play(plan, made, out)
    comparison, bounds = gather(cells, outcomes)
    base = NAME if NAME in comparison.runs else next(iter(comparison.runs), "")
    errors = (
        {} if no_error or None in outcomes or not base else _errors(plan, history, made[plan.seeds[0]].trace, (base, comparison))
    )
    notes = tuple(dict.fromkeys((*history.notes, *made[plan.seeds[0]].notes)))
    answer = BacktestAnswer(checks, errors, comparison, bounds, base, notes)
    if answer.comparison.runs:
        from sageserve.cli.render_backtest import draw, preface

        if as_json:
            typer.echo(answer.json([name for name in names if name not in (*answer.comparison.runs, ORACLE)]).decode(), nl=False)
        else:
            draw(answer, scenario)
        write([out], out / REPORT, preface(answer, history))
    finish(outcomes, out)


def _names(policies: str) -> tuple[str, ...]:
    from sageserve.base.errors import ConfigError
    from sageserve.sim.backtest.policies import check_policies

    names = tuple(dict.fromkeys(one.strip() for one in policies.split(",") if one.strip()))
    if not set(names) - {ORACLE}:
        raise ConfigError("--policies names none to play", hint="for example recorded,reactive,foresight,oracle")
    check_policies(names)
    return names


def _with_own(names: tuple[str, ...], manifest: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Policies with the user's own autoscaler behind what was, and its rules as settings."""
    from sageserve.data.manifests.read import read_manifest

    if manifest is None:
        return names, ()
    found = read_manifest(manifest)
    typer.echo(f"{found.strategy} is {', '.join(found.names)} of {manifest}", err=True)
    rest = tuple(name for name in names if name != found.strategy)
    return (*rest[:1], found.strategy, *rest[1:]), found.changes


def _where_it_stood(plan: _Plan, history: "PlacedHistory") -> _Plan:
    """With the counts that the history shows, and every policy beginning where it did."""
    from sageserve.data.rebuild.fleet import counts_of, settings_of

    pairs = zip(history.watched, history.pools, strict=True)
    steps = {one.pool: counts_of(placed.history) for one, placed in pairs}
    return replace(plan, overrides=(*plan.overrides, *settings_of(steps, plan.load(()))))


def _play(plan: _Plan, made: "dict[int, Rebuilt]", out: Path) -> "tuple[list[Cell], list[Outcome | None]]":
    """Every policy with every seed; what is kept of an earlier time is not played again."""
    from sageserve.sim.backtest.policies import kept_trace, policy_cells

    sources = {seed: kept_trace(out / REQUESTS, f"seed{seed}", one.trace) for seed, one in made.items()}
    cells = with_first_seeds_whole(policy_cells(plan.names, sources, plan.load))
    return cells, run_cells(cells, runner("local", plan.workers), f"backtest {plan.scenario}", out=out, replace=True)


def _made(plan: _Plan, history: "PlacedHistory") -> "dict[int, Rebuilt]":
    """Requests by seed."""
    from sageserve.data.rebuild.requests import rebuild

    settings = plan.load(())
    found = {}
    with bar("make requests") as tell:
        for done, seed in enumerate(plan.seeds, start=1):
            found[seed] = rebuild(history.streams, settings, seed)
            tell(done, len(plan.seeds))
    return found


def _checks(plan: _Plan, history: "PlacedHistory", made: "Rebuilt", url: str) -> "AnswerChecks":
    """What must be known before any figure is looked at."""
    from sageserve.core.strategies import layout_of
    from sageserve.core.strategies.recorded import lead_of
    from sageserve.live.prometheus.queries import matchers
    from sageserve.sim.backtest.answer import AnswerChecks, counters_check, lengths_check, profile_check
    from sageserve.sim.backtest.replayed import check_replay
    from sageserve.sim.run import Simulation

    settings = plan.load(["strategy.name=recorded", f"seed={plan.seeds[0]}"])
    compile_once()
    with bar("replay what was recorded") as tell:
        window = made.trace.window
        run = Simulation(settings, made.trace).play(progress=lambda now: tell(min(now, window), window))
    layout = layout_of(settings)
    lead = max(lead_of(settings, layout, pool) for pool in layout.pools)
    replayed = check_replay(history.pools, run, lead)
    one = history.watched[0]
    calibrate = f"sageserve calibrate counters --prometheus {url} --match '{matchers(one.labels)},instance=\"…\"'"
    return AnswerChecks(
        profile_check(replayed, calibrate), counters_check(made.trace, history.streams), lengths_check(made.lengths), replayed
    )


def _errors(plan: _Plan, history: "PlacedHistory", made: "Trace", played: "tuple[str, Comparison]") -> "dict[str, PolicyError]":
    """What making requests of counters does to each policy's figures, and to its difference from the base."""
    from sageserve.core.strategies.recorded import NAME
    from sageserve.data.rebuild.demand import UNKNOWN
    from sageserve.sim.backtest.exported import Recording
    from sageserve.sim.backtest.own_error import pairs_of, policy_error, with_spread
    from sageserve.sim.backtest.policies import error_cells, error_runs

    labelled = all(one.source == "gateway" and one.tier != UNKNOWN for one in history.streams)
    recording = Recording(history.grid.begin, history.grid.interval, labelled)
    with bar("record and make again"):
        pairs = pairs_of(made, plan.load([f"strategy.name={NAME}"]), recording, history.streams, plan.seeds[0])
    with tempfile.TemporaryDirectory(prefix="sageserve-backtest-") as folder:
        cells = error_cells(plan.names, pairs, Path(folder), plan.load)
        outcomes = run_cells(cells, runner("local", plan.workers), "measure the error", out=None, replace=False)
    runs = error_runs(cells, outcomes)
    known = set.intersection(*(set(one) for one in runs.values())) if runs else set()
    base, comparison = played
    return {
        name: with_spread(policy_error(runs, name, base), comparison.runs[name], comparison.runs[base])
        for name in plan.names
        if name in known and name in comparison.runs
    }
