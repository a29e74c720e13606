"""`sageserve plan`: the plan is the strategy's own, the file holds all of it, what-if is solved, mistakes are told.

Read next: `tests/core/test_plan_explain.py` for the solving, `test_explain.py` for questions about plans.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from sageserve.base.config import ForesightSettings, PlannedSettings, Scenario
from sageserve.base.errors import ConfigError, PlanError, SageServeError, TraceError
from sageserve.base.records import Trace
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.cli.columns import WIDTH
from sageserve.cli.main import app
from sageserve.core.events import DemandSeen, EndpointSeen, Observed
from sageserve.core.fleet import Fleet
from sageserve.core.layout import Layout
from sageserve.core.plan import hourly as paper
from sageserve.core.plan.what_if import Question, change
from sageserve.core.plan_once import _fleet, planned_layout, propose, start_counts
from sageserve.core.strategies import STRATEGIES, Strategy
from sageserve.core.work import Fit, Solve, SolveAhead, perform
from sageserve.data.results.plans import HourPlan, PlanFile, plan_json, read_plan, write_plan
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.archive import write_trace
from sageserve.data.traces.demand import heard
from sageserve.data.workload.generate import generate, history
from sageserve.sim.run import simulate
from tests.worlds import SMALL_FLEET

TINY = ("workload.generate.requests=20000", "workload.generate.length=3h", "fleet.minimum=1")
SET = tuple(word for one in TINY for word in ("--set", one))
POOL = "eastus/llama-2-70b/h100-80gb"


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def made(path: Path, *more: str, at: str = "2h") -> PlanFile:
    printed("plan", SMALL_FLEET, "--at", at, *SET, "-o", str(path), *more)
    return read_plan(path)


@dataclass(frozen=True)
class Case:
    scenario: Scenario
    trace: Trace
    layout: Layout

    def fleet(self, now: Micros) -> Fleet:
        return _fleet(self.layout, start_counts(self.scenario, self.layout), now)


def case(strategy: str, *more: str) -> Case:
    scenario = load_scenario(SMALL_FLEET, overrides=[*TINY, f"strategy.name={strategy}", *more])
    return Case(scenario, generate(scenario), planned_layout(scenario))


def asked_by(strategy: Strategy, one: Case, now: Micros) -> Question:
    """What the strategy itself wants solved after it looked at the fleet at `now`."""
    fleet = one.fleet(now)
    looked = Observed(now, (EndpointSeen(0.4, 0.1, 0.4),) * one.layout.endpoints, (0,) * len(one.layout.names.models))
    wanted = [action for action in strategy.handle(now, looked, fleet) if isinstance(action, Fit | SolveAhead)]
    action = wanted[0]
    if isinstance(action, Fit):
        (found,) = (x for x in strategy.handle(now, perform(action), fleet) if isinstance(x, Solve | SolveAhead))
        return found.problem if isinstance(found, Solve) else found.outlook
    return action.outlook


@pytest.mark.parametrize(("name", "minutes"), [("lt-ua", 120), ("lt-i", 120), ("foresight", 120), ("foresight", 150)])
def test_the_plan_is_the_strategys_own(name: str, minutes: int) -> None:
    one = case(name)
    earlier, now = history(one.scenario), minutes * MINUTE
    known = list(heard(one.trace, one.layout, now))
    strategy = STRATEGIES[name](one.scenario, one.layout, earlier)
    for seen in known[:120]:
        list(strategy.handle(seen.start + seen.length, seen, one.fleet(0)))
    wanted = asked_by(strategy, one, 2 * HOUR)
    if minutes > 120:  # between the hours foresight corrects the forecast of the last one
        for seen in known[120:]:
            list(strategy.handle(seen.start + seen.length, seen, one.fleet(0)))
        wanted = asked_by(strategy, one, now)
    found = propose(one.scenario, now, known, earlier=earlier, counts=start_counts(one.scenario, one.layout))
    assert found.question == wanted
    assert found.data_until == now
    assert found.expires == now + (15 * MINUTE if name == "foresight" else HOUR)


@pytest.mark.parametrize("name", ["lt-i", "foresight"])
def test_a_plan_says_which_quantiles_are_far_above_all_that_was_seen(name: str) -> None:
    kind = "foresight" if name == "foresight" else "planned"
    scenario = load_scenario(
        SMALL_FLEET,
        overrides=[*TINY, f"strategy.name={name}", f"strategy.{kind}.quantile=0.9", f"strategy.{kind}.forecaster=last-value"],
    )
    layout = planned_layout(scenario)
    cells = len(layout.names.regions) * len(layout.names.models) * len(layout.names.tiers)
    grown = [1.05**minute for minute in range(600)]  # an hour ahead it is nineteen times as much

    def told(tokens: list[float]) -> tuple[tuple[str, str], ...]:
        known = [
            DemandSeen(i * MINUTE, MINUTE, (round(one),) * cells, (0,) * cells, (1,) * cells, (1e-8 * one,) * cells)
            for i, one in enumerate(tokens)
        ]
        return propose(scenario, 10 * HOUR, known, earlier=None, counts=start_counts(scenario, layout)).incredible

    assert told([1000.0] * 600) == ()
    found = told(grown)
    assert found
    assert all("times the largest value seen" in note for _, note in found)


SETTINGS = {
    "lt-i": ("every=30m", "ahead=0s", "forecaster=last-value", "quantile=0.5", "epsilon=0.5", "batch_buffer=3", "worth=0.01"),
    "foresight": (
        "every=30m", "refit=2h", "horizon=6h", "forecaster=last-value", "quantile=0.8", "headroom=1.05",
        "worth=0.01", "margin=1.5", "ready=2h", "travel=0.1", "curve=flat",
    ),
}  # fmt: skip
UNPLANNED = {"low", "high", "cooldown", "patrol", "above", "below", "latency", "guard", "relax", "calm", "driven", "aim"}
"""What decides between plans, and not what is planned."""


def test_every_setting_of_a_plan_is_tried() -> None:
    for fields, name in ((PlannedSettings.model_fields, "lt-i"), (ForesightSettings.model_fields, "foresight")):
        assert {one.partition("=")[0] for one in SETTINGS[name]} == set(fields) - UNPLANNED


@pytest.mark.parametrize(("name", "setting"), [(name, setting) for name, some in SETTINGS.items() for setting in some])
def test_it_heeds_every_setting_the_strategy_heeds(name: str, setting: str) -> None:
    section = "foresight" if name == "foresight" else "planned"
    one, now = case(name, f"strategy.{section}.{setting}"), 2 * HOUR
    earlier, known = history(one.scenario), list(heard(one.trace, one.layout, 2 * HOUR))
    strategy = STRATEGIES[name](one.scenario, one.layout, earlier)
    for seen in known:
        list(strategy.handle(seen.start + seen.length, seen, one.fleet(0)))
    found = propose(one.scenario, now, known, earlier=earlier, counts=start_counts(one.scenario, one.layout))
    assert found.question == asked_by(strategy, one, now)


def test_it_forecasts_what_the_simulated_strategy_forecasts() -> None:
    one = case("lt-ua")
    run = simulate(one.scenario, one.trace, earlier=history(one.scenario))
    asked = [action for entry in run.journal if entry.now >= 2 * HOUR for action in entry.actions if isinstance(action, Solve)]
    counts = start_counts(one.scenario, one.layout)
    found = propose(one.scenario, 2 * HOUR, heard(one.trace, one.layout, 2 * HOUR), earlier=history(one.scenario), counts=counts)
    assert isinstance(found.question, type(asked[0].problem))
    assert found.question.demand == asked[0].problem.demand
    for mine, theirs in zip(found.question.pools, asked[0].problem.pools, strict=True):
        assert mine.theta == pytest.approx(theirs.theta, rel=0.1)  # a run learns lengths from what finishes


def test_heard_counts_every_request_of_the_whole_minutes() -> None:
    one = case("lt-ua")
    known = list(heard(one.trace, one.layout, 90 * MINUTE + 1))
    assert [seen.start for seen in known] == [minute * MINUTE for minute in range(90)]
    before = one.trace.arrival < 90 * MINUTE
    assert sum(sum(seen.requests) for seen in known) == before.sum()
    assert sum(sum(seen.prompt_tokens) for seen in known) == one.trace.prompt[before].sum()
    assert all((count > 0) == (work > 0) for seen in known for count, work in zip(seen.requests, seen.work, strict=True))
    assert not list(heard(one.trace, one.layout, MINUTE - 1))


def test_the_file_holds_the_plan_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    file = made(path, "--strategy", "foresight", "--what-if", "demand=2")
    assert (file.made_at, file.expires_at, file.strategy) == (2 * HOUR, 2 * HOUR + 15 * MINUTE, "foresight")
    assert plan_json(file) == path.read_bytes()
    write_plan(tmp_path / "again.json", file)
    assert read_plan(tmp_path / "again.json") == file
    assert sorted(one.name for one in tmp_path.iterdir()) == ["again.json", "plan.json"]
    assert [line.target for line in file.pools] == list(file.solved.plan.target)
    assert printed("plan", "show", str(path), "--json").encode() == path.read_bytes()
    again = printed("plan", SMALL_FLEET, "--at", "2h", *SET, "--strategy", "foresight", "--what-if", "demand=2", "--json")
    assert again.encode() == path.read_bytes()


def test_a_changed_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    file = made(path)
    assert isinstance(file.solved, HourPlan)
    dearer = replace(file.solved.question, epsilon=0.5)
    write_plan(path, replace(file, solved=replace(file.solved, question=dearer)))
    with pytest.raises(PlanError, match="changed after it was solved"):
        read_plan(path)
    write_plan(path, replace(file, version=99))
    with pytest.raises(PlanError, match="version 99"):
        read_plan(path)
    path.write_text("{}")
    with pytest.raises(PlanError, match="not a plan of ours"):
        read_plan(path)
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(tmp_path / "none.json")
    with pytest.raises(PlanError, match="cannot be written"):
        write_plan(tmp_path / "none" / "plan.json", file)


def test_the_table_says_what_changes_and_why(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    text = printed("plan", SMALL_FLEET, "--at", "2h", *SET, "--now", "eastus/llama-2-70b=5", "-o", str(path))
    file = read_plan(path)
    line = next(one for one in file.pools if one.pool == POOL)
    assert (line.now, line.target) == (5, 1)
    assert line.cost_change_per_hour == pytest.approx(-4 * 98.32)
    row = next(one for one in text.splitlines() if one.startswith(POOL))
    assert row.split()[1:4] == ["5", "1", "-4"]
    assert line.why.startswith("demand of the region: one less holds")
    assert "demand of the region" in row
    assert "-393.28" in row
    wanted = ("lt-ua", "expires at 3h", file.solved.plan.input_hash[:12], "optimal", "what binds", "nothing was changed")
    for word in (*wanted, "one instance sustains", "batch llama-3.1-8b"):
        assert word in text
    assert max(map(len, text[: text.index("one instance")].splitlines())) <= WIDTH
    assert printed("plan", "show", str(path)).strip() in text


def test_one_less_breaks_what_the_reason_says(tmp_path: Path) -> None:
    file = made(tmp_path / "plan.json")
    assert isinstance(file.solved, HourPlan)
    problem, plan = file.solved.question, file.solved.plan
    told = {p: line.why for p, line in enumerate(file.pools) if line.why.startswith("demand of")}
    assert told
    for p, why in told.items():
        model, region, theta = problem.pools[p].model, problem.pools[p].region, problem.pools[p].theta
        everywhere = why.startswith("demand of all")
        regions = range(len(problem.regions)) if everywhere else [region]
        demand = max(sum(window[g][model] for g in regions) for window in problem.demand)
        needed = demand + problem.buffer[model] if everywhere else problem.epsilon * demand
        held = sum(
            to * one.theta
            for to, one in zip(plan.target, problem.pools, strict=True)
            if one.model == model and one.region in regions
        )
        assert held - theta < needed <= held


def test_theta_is_load_over_engine_time(tmp_path: Path) -> None:
    file = made(tmp_path / "plan.json")
    assert isinstance(file.solved, HourPlan)
    for theta, pool in zip(file.thetas, file.solved.question.pools, strict=True):
        assert theta.pool == pool.name
        assert theta.tokens_per_s == pytest.approx(pool.theta)
        assert theta.tokens_per_s == pytest.approx(theta.load.load * 1e6 / theta.engine_us_per_token)


def test_what_if_is_the_changed_problem_solved(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    changes = ("--what-if", "demand=3,eastus/h100-80gb=8", "--set", "currency=EUR")
    text = printed("plan", SMALL_FLEET, "--at", "2h", *SET, *changes, "-o", str(path))
    file = read_plan(path)
    assert file.what_if is not None
    assert text.count("ΔEUR/h") == 2  # of the plan, and of what if
    assert "$" not in text
    assert isinstance(file.solved, HourPlan)
    changed = change(file.solved.question, {"demand": 3.0, "eastus/h100-80gb": 8.0})
    assert file.what_if.solved == HourPlan(changed, paper.solve(changed))
    assert sum(line.target for line in file.what_if.pools if line.pool.startswith("eastus")) <= 1
    section = text[text.index("what if demand=3") :]
    row = next(one for one in section.splitlines() if one.startswith("centralus/llama-2-70b"))
    plan, other = (next(x.target for x in lines if x.pool in row) for lines in (file.pools, file.what_if.pools))
    assert row.split()[2:5] == [str(plan), str(other), f"{other - plan:+d}"]
    assert "short  demand eastus/llama" in section


def test_a_trace_is_the_history(tmp_path: Path) -> None:
    one = case("lt-ua")
    write_trace(tmp_path / "mine.parquet", one.trace)
    file = made(tmp_path / "plan.json", "--trace", str(tmp_path / "mine.parquet"))
    assert file.demand == "mine.parquet"
    known = heard(one.trace, one.layout, 2 * HOUR)
    found = propose(one.scenario, 2 * HOUR, known, earlier=None, counts=start_counts(one.scenario, one.layout))
    assert file.solved.question == found.question
    with pytest.raises(PlanError, match="nothing is known of demand at 10m"):
        printed("plan", SMALL_FLEET, "--at", "10m", *SET, "--trace", str(tmp_path / "mine.parquet"))


@pytest.mark.parametrize(
    ("more", "kind", "match"),
    [
        (("--at", "4h"), ConfigError, "after the end"),
        (("--at", "10"), ConfigError, "--at"),
        (("--at", "2h", "--strategy", "reactive"), PlanError, "reactive makes no plan"),
        (("--at", "2h", "--now", "eastus/llama-2-70b=40"), PlanError, "at most 10"),
        (("--at", "2h", "--now", "eastus/llama=2"), ConfigError, "may mean 2 pools"),
        (("--at", "2h", "--now", "eastus/llama-2-70b"), ConfigError, "REGION/MODEL=NUMBER"),
        (("--at", "2h", "--what-if", "demand"), PlanError, "not a change"),
        (("--at", "2h", "--what-if", "eastsu/h100-80gb=0"), PlanError, "there is no 'eastsu/h100-80gb'"),
        (("--at", "2h", "--map", "a=b"), TraceError, "no --trace"),
    ],
)
def test_mistakes_are_told(more: tuple[str, ...], kind: type[SageServeError], match: str) -> None:
    with pytest.raises(kind, match=match):
        printed("plan", SMALL_FLEET, *SET, *more)


def test_counts_that_do_not_fit_into_the_stock_are_refused() -> None:
    small = ("--set", "regions.eastus.gpus.h100-80gb.gpus=48", "--now", "eastus/llama-2-70b=5")
    with pytest.raises(PlanError, match=r"3 instances of eastus.llama-3.1-8b.*only 1 fit into the stock"):
        printed("plan", SMALL_FLEET, "--at", "2h", *SET, *small)


def test_help_shows_how_to_begin() -> None:
    text = printed("plan", "--help")
    assert "sageserve plan quickstart --at 10h" in text
    assert json.loads(printed("plan", "make", SMALL_FLEET, "--at", "1h", *SET, "--json"))["version"] == 1
