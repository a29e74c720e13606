"""`sageserve explain`: counts are the run's, answers are solved again by hand, reactive runs are told by their decisions.

Read next: `test_plan.py`, `tests/core/test_plan_explain.py`.
"""

import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError, ResultError
from sageserve.base.units import HOUR, MINUTE
from sageserve.cli.main import app
from sageserve.core.actions import Blocked, Decision, Reason
from sageserve.core.fleet import State
from sageserve.core.layout import lay_out
from sageserve.core.plan import horizon
from sageserve.core.plan import hourly as paper
from sageserve.core.plan.horizon import PlanReason
from sageserve.core.plan.hourly_rows import HourlyProblem
from sageserve.core.plan.what_if import change
from sageserve.core.strategies import STRATEGIES, layout_of
from sageserve.core.work import Forecasted, Solve, SolveAhead, Solved
from sageserve.data.results.journal import Decided, Stamped, read_live
from sageserve.data.results.plans import read_plan
from sageserve.data.results.run_folder import RunFolder, read_run
from sageserve.data.scenarios.load import load_scenario, resolved_yaml
from sageserve.show import story as telling
from sageserve.show.answer import answer, find_pool
from sageserve.show.chronicle import chronicle
from sageserve.show.story import story
from sageserve.show.why import WHY, amount
from tests.core.driven import Driven
from tests.core.small import scenario
from tests.worlds import SMALL_FLEET

SMALL = ("workload.generate.requests=60000", "workload.generate.length=3h", "fleet.minimum=1")
SET = tuple(word for one in SMALL for word in ("--set", one))
POOL = "eastus/llama-2-70b/h100-80gb"


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for strategy in ("lt-ua", "foresight", "reactive"):
        printed("simulate", SMALL_FLEET, *SET, "--strategy", strategy, "--out", str(folder / strategy))
    return folder


def plan_events(run: RunFolder, before: int) -> tuple[Solve, Solved]:
    """The last problem whose plan had come back by an instant, and that plan."""
    asked: dict[int, Solve] = {}
    found: tuple[Solve, Solved] | None = None
    for line in run.journal():
        if line.now > before:
            break
        if isinstance(line.event, Solved):
            found = asked[line.event.number], line.event
        asked.update({action.number: action for action in line.actions if isinstance(action, Solve)})
    assert found is not None
    return found


def pinned(problem: HourlyProblem, pool: int, count: int) -> paper.Plan:
    pools = [replace(one, lowest=count, maximum=count) if p == pool else one for p, one in enumerate(problem.pools)]
    return paper.solve(replace(problem, pools=tuple(pools)))


@pytest.mark.parametrize("strategy", ["lt-ua", "foresight", "reactive"])
def test_counts_are_those_of_the_timeline(runs: Path, strategy: str) -> None:
    run = read_run(runs / strategy)
    scenario = run.scenario
    kind = STRATEGIES[strategy]
    layout = lay_out(scenario, kind.roles(scenario), kind.minimum)
    reading = telling._Reading(next(pool for pool in layout.pools if pool.name == POOL))
    rows = [row for row in run.timeline().to_pylist() if row["endpoint"] == POOL.rsplit("/", 1)[0]]
    lines, busy = list(run.journal()), {line.now for line in run.journal()}
    seen = set()
    for row in rows:
        while lines and lines[0].now <= row["time_us"]:
            telling._read(reading, lines.pop(0))
        states = list(reading.states.values())
        if row["time_us"] not in busy:  # the sample is taken in the middle of an instant
            for state in (State.STARTING, State.SERVING, State.DRAINING, State.SPOT, State.RECLAIMING):
                assert states.count(state) == row[state.name.lower()]
            seen.add((row["serving"], row["spot"]))
    assert len(seen) > 1


def test_a_live_journal_tells_what_a_simulated_one_does(runs: Path, tmp_path: Path) -> None:
    """The same lines as a fleet leaves them: by the wall clock, in two files, the clock begun anew by a second process."""
    run, restart, wall = read_run(runs / "lt-ua"), HOUR, 10**15
    lines = list(run.journal())
    begins = lines[0].now
    (tmp_path / "journal").mkdir()
    (tmp_path / "scenario.yaml").write_text(resolved_yaml(run.scenario), "utf-8")
    files = [(tmp_path / "journal" / f"journal-00000{k}.jsonl").open("wb") for k in (1, 2)]
    for line in lines:
        late = line.now >= restart
        event = line.event
        if late and isinstance(event, Forecasted):
            event = replace(event, start=event.start - restart)
        kept = replace(line, now=line.now - restart * late, event=event)
        files[late].write(msgspec.json.encode(Stamped(wall + line.now, kept)) + b"\n")
    files[1].write(b'{"wall":1')  # cut off by a crash
    for file in files:
        file.close()
    live = read_live(tmp_path)
    assert (live.begins, live.ends) == (wall + begins, lines[-1].now - begins)
    when, layout = 2 * HOUR + 30 * MINUTE, layout_of(run.scenario)
    here = telling._read_until(when - begins, live.lines(), layout, POOL)
    there = telling._read_until(when, run.journal(), layout, POOL)
    assert here.states == there.states
    assert [decided for _, decided in here.decisions] == [decided for _, decided in there.decisions]
    assert here.plan is not None
    assert there.plan is not None
    assert (here.plan[0] + begins, here.plan[1] + begins, here.plan[2:]) == (*there.plan[:2], there.plan[2:])
    assert here.data_until is not None
    assert here.data_until + begins == there.data_until
    assert POOL in printed("explain", str(tmp_path), POOL, "--at", "30m")
    assert json.loads(printed("explain", str(tmp_path), POOL, "--json"))["begins"] == wall + begins
    by_clock = " ".join(printed("explain", str(tmp_path), POOL, "--at", "2001-09-09T04:16:40").split())  # 10^15 us and 2 h 30 min
    assert f"{POOL} at 2001-09-09 04:16:40 UTC under lt-ua" in by_clock
    assert "asked at 03:46:40, from demand until 03:46:40, back at 03:46" in by_clock
    with pytest.raises(ConfigError, match="newest line is of"):
        printed("explain", str(tmp_path), POOL, "--at", "2001-09-10T00:00+02:00")
    with pytest.raises(ConfigError, match="the journal begins at 2001-09-09T0"):
        printed("explain", str(tmp_path), POOL, "--at", "2001-01-01")
    with pytest.raises(ConfigError, match="15:10 is no date"):
        printed("explain", str(tmp_path), POOL, "--at", "15:10")
    with pytest.raises(ResultError, match="state folder of a live fleet"):
        read_run(tmp_path)


def test_one_less_and_one_more_are_solved_again(runs: Path) -> None:
    run = read_run(runs / "lt-ua")
    told = story(run, "eastus/llama-2", 2 * HOUR + 30 * MINUTE)
    asked, solved = plan_events(run, 2 * HOUR + 30 * MINUTE)
    problem, plan = asked.problem, solved.plan
    assert plan is not None
    assert told.plan is not None
    found = told.plan.answer
    number = [pool.name for pool in problem.pools].index(POOL)
    assert (told.pool, found.target, found.input_hash) == (POOL, plan.target[number], plan.input_hash)
    assert (told.plan.asked_at, told.plan.data_until) == (2 * HOUR, 2 * HOUR)
    assert 2 * HOUR < told.plan.made_at < 2 * HOUR + MINUTE

    less = pinned(problem, number, found.target - 1)
    assert found.less.other.asked == found.target - 1
    assert found.less.other.breaks == tuple(one for one in less.short_sentences if one not in plan.short_sentences)
    assert found.less.other.dollars == pytest.approx(less.objective - plan.objective)
    pool = problem.pools[number]
    local = problem.epsilon * max(window[pool.region][pool.model] for window in problem.demand)
    total = max(sum(row[pool.model] for row in window) for window in problem.demand) + problem.buffer[pool.model]
    held = sum(to * one.theta for to, one in zip(plan.target, problem.pools, strict=True) if one.model == pool.model)
    broken = [
        *(["demand"] if (found.target - 1) * pool.theta < local else []),
        *(["total demand"] if held - pool.theta < total else []),
    ]
    assert broken, "the case must have something to break"
    assert [one[: one.index(" ", len(kind))] for one, kind in zip(found.less.alone, broken, strict=True)] == broken

    more = pinned(problem, number, found.target + 1)
    assert found.more.other.dollars == pytest.approx(more.objective - plan.objective)
    assert f"${found.more.other.dollars:,.2f} per hour more" in found.more.sentence


def test_thresholds_change_the_number_when_they_are_solved_by_hand(runs: Path) -> None:
    run = read_run(runs / "lt-ua")
    told = story(run, POOL, 2 * HOUR + 30 * MINUTE)
    assert told.plan is not None
    problem = plan_events(run, 2 * HOUR + 30 * MINUTE)[0].problem
    number = [pool.name for pool in problem.pools].index(POOL)
    model = problem.models[problem.pools[number].model]
    demand = [one for one in told.plan.answer.changes if one.what == "demand" and one.factor]
    assert demand
    for one in demand:
        assert paper.solve(change(problem, {model: one.factor})).target[number] == one.target != told.plan.answer.target
        assert paper.solve(change(problem, {model: one.same})).target[number] == told.plan.answer.target


def test_the_text_holds_the_answers(runs: Path) -> None:
    text = " ".join(printed("explain", str(runs / "lt-ua"), "eastus/llama-2", "--at", "2h30m").split())
    found = json.loads(printed("explain", str(runs / "lt-ua"), POOL, "--at", "2h30m", "--json"))
    less, more = (found["plan"]["answer"][way] for way in ("less", "more"))
    for word in (
        f"{POOL} at 2h30m under lt-ua: {found['serving'] + found['coming']}",
        "asked at 2h, from demand until 2h",
        f"why not {less['other']['asked']}: {less['sentence']}",
        f"why not {more['other']['asked']}: {more['sentence']}",
        *(one["sentence"] for one in found["plan"]["answer"]["changes"]),
        "takes the plan as a destination",
    ):
        assert word in text


def test_foresight_is_explained_over_its_horizon(runs: Path) -> None:
    run = read_run(runs / "foresight")
    told = story(run, POOL, 2 * HOUR + 20 * MINUTE)
    assert told.plan is not None
    found = told.plan.answer
    assert (told.plan.asked_at, told.plan.data_until) == (2 * HOUR + 15 * MINUTE, 2 * HOUR)
    assert found.reason
    assert any("instances for" in one for one in found.demand)
    assert any("batch llama-2-70b" in one for one in found.demand)
    outlook = next(
        action.outlook
        for line in run.journal()
        if line.now >= told.plan.asked_at
        for action in line.actions
        if isinstance(action, SolveAhead)
    )
    worth = f"a request in time counts ${amount(outlook.worth)}: kept lately, of those that could be in time, "
    assert found.demand[-1].startswith(worth + f"{outlook.tiers[0].kept:.2%} of iw-f, promised 95%; ")
    assert 0 < outlook.worth <= run.scenario.strategy.foresight.worth
    assert f"kept (quantile {outlook.streams[0].level:.2f})" in found.demand[0]
    planned = horizon.solve(outlook)
    number = [pool.name for pool in outlook.pools].index(POOL)
    assert found.target == planned.target[number]
    for way, asked in ((found.less, found.target - 1), (found.more, found.target + 1)):
        pools = [replace(pool, pinned=asked) if pool.name == POOL else pool for pool in outlook.pools]
        other = horizon.solve(replace(outlook, pools=tuple(pools)))
        assert way.other.dollars == pytest.approx(other.objective - planned.objective, abs=1e-6)
        assert way.other.breaks == tuple(one for one in other.short_sentences if one not in planned.short_sentences)
        assert way.sentence


def test_reactive_is_told_by_its_thresholds(runs: Path) -> None:
    told = story(read_run(runs / "reactive"), POOL)
    assert told.plan is None
    assert told.at == 3 * HOUR
    assert any("makes no plan" in note for note in told.notes)
    assert told.decisions
    for one in told.decisions:
        words = {Reason.UTILISATION_HIGH: "above 0.7", Reason.UTILISATION_LOW: "below 0.3"}
        assert words[one.reason] in one.words
        assert f"utilisation {one.seen:.2f}" in one.words
    text = printed("explain", str(runs / "reactive"), POOL)
    assert "decisions that led here" in text
    assert "why not" not in text


def test_what_a_warm_up_led_to_is_told_at_times_from_its_end(runs: Path, tmp_path: Path) -> None:
    warm = ("--set", "workload.warm_up=1h", "--set", "faults.outages=[{region: centralus, at: 3h, length: 1h}]")
    printed("simulate", SMALL_FLEET, *SET, *warm, "--strategy", "lt-ua", "--out", str(tmp_path / "run"))
    run = read_run(tmp_path / "run")
    whole, part = story(read_run(runs / "lt-ua"), POOL, 2 * HOUR), story(run, POOL, HOUR)
    assert whole.plan is not None
    assert part.plan is not None
    assert whole.plan.data_until is not None
    moved = replace(whole.plan, asked_at=whole.plan.asked_at - HOUR, made_at=whole.plan.made_at - HOUR)
    assert part.plan == replace(moved, data_until=whole.plan.data_until - HOUR)
    decisions = tuple(replace(one, at=one.at - HOUR) for one in whole.decisions)
    assert part == replace(whole, at=HOUR, plan=part.plan, decisions=decisions)
    assert [change.at for change in chronicle(run).changes if change.at < 0] == []
    early, late = (chronicle(one).forecasts for one in (read_run(runs / "lt-ua"), run))
    assert {one.start for one in late} <= {one.start - HOUR for one in early}
    assert "from 2h to 3h" in " ".join(story(run, POOL, 2 * HOUR).notes)


def test_before_the_first_plan_there_is_none(runs: Path) -> None:
    told = story(read_run(runs / "lt-ua"), POOL, 0)
    assert told.plan is None
    assert (told.serving, told.coming) == (3, 0)
    assert any("no plan had come back" in note for note in told.notes)


def test_who_was_turned_away_in_the_hour_before_is_counted(tmp_path: Path) -> None:
    small = ("--set", "fleet={start: 1, minimum: 1, maximum: 2}", "--load", "8")
    printed("simulate", SMALL_FLEET, *SET, *small, "--strategy", "reactive", "--out", str(tmp_path / "run"))
    run = read_run(tmp_path / "run")
    at = 2 * HOUR
    rows = run.requests(["arrival_us", "region", "model", "tier", "state"]).to_pylist()
    hour = [row for row in rows if at - HOUR <= row["arrival_us"] < at and row["tier"] != "niw"]
    mine = [row["state"] for row in hour if (row["region"], row["model"]) == ("eastus", "llama-2-70b")]
    told = story(run, POOL, at)
    assert (told.asked, told.shed) == (len(mine), mine.count("shed"))
    assert 100 < told.shed < told.asked < len(hour)
    sentence = f"{told.shed:,} of {told.asked:,} interactive requests of its region and model were turned away"
    assert sentence in " ".join(printed("explain", str(tmp_path / "run"), POOL, "--at", "2h").split())


def test_nothing_is_said_of_those_turned_away_where_nobody_was(runs: Path) -> None:
    told = story(read_run(runs / "lt-ua"), POOL, 0)
    assert (told.asked, told.shed) == (0, 0)
    assert not any("turned away" in note for note in told.notes)


def test_a_plan_file_is_explained_too(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    printed("plan", SMALL_FLEET, "--at", "2h", *SET, "--set", "currency=EUR", "-o", str(path))
    file = read_plan(path)
    found = json.loads(printed("explain", str(path), POOL, "--json"))
    assert found == json.loads(msgspec.json.encode(answer(file.solved.question, file.solved.plan, POOL, "EUR")))
    text = " ".join(printed("explain", str(path), POOL).split())
    assert f"{POOL}: 3 -> {found['target']} in the plan of lt-ua at 2h" in text
    assert f"EUR {found['more']['other']['dollars']:,.2f} per hour more" in text
    assert "$" not in text
    with pytest.raises(ConfigError, match="--at is for runs"):
        printed("explain", str(path), POOL, "--at", "2h")


def test_pools_are_found_by_name_beginning_or_suggested() -> None:
    names = ["east/big/h100", "east/big/a100", "west/big/h100"]
    assert find_pool(names, "east/big/a100") == "east/big/a100"
    assert find_pool(names, "west") == "west/big/h100"
    assert find_pool([*names, "west/big/h100/batch"], "west/big/h100") == "west/big/h100"
    with pytest.raises(ConfigError, match="may mean 2 pools"):
        find_pool(names, "east/big")
    with pytest.raises(ConfigError) as error:
        find_pool(names, "wset/big/h100")
    assert error.value.hint == "did you mean 'west/big/h100'?"
    with pytest.raises(ConfigError) as error:
        find_pool(names, "?")
    assert error.value.hint == f"there are: {', '.join(names)}"


def test_times_after_the_end_are_refused(runs: Path) -> None:
    with pytest.raises(ConfigError, match="the run ended at 3h"):
        printed("explain", str(runs / "lt-ua"), POOL, "--at", "4h")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words_of_its_own(runs: Path, reason: Reason) -> None:
    scenario = read_run(runs / "lt-ua").scenario
    words = {
        one: telling._words(Decided(POOL, Decision(0, 1, one, 0.8, 5_000_000, serving=3, coming=1, target=5)), scenario)
        for one in Reason
    }
    assert words[reason]
    assert [one for one, said in words.items() if said == words[reason]] == [reason]


def test_every_way_to_be_blocked_and_every_why_has_words() -> None:
    assert set(telling.BLOCKED) == set(Blocked)
    assert set(WHY) == set(PlanReason)
    assert len(set(WHY.values())) == len(PlanReason)


MARKS = {"siloed": (0.61, 0.21), "reactive": (0.62, 0.22), "planned": (0.63, 0.23), "tuned": (0.64, 0.24)}


@pytest.mark.parametrize(
    ("strategy", "target", "acting"),
    [
        ("siloed", -1, "siloed"),
        ("reactive", -1, "reactive"),
        ("reactive-tuned", -1, "tuned"),
        *((name, -1, "reactive") for name in ("lt-i", "lt-u", "lt-ua", "foresight")),
        *((name, 4, "planned") for name in ("lt-i", "lt-u", "lt-ua")),
    ],
)
def test_a_reason_quotes_the_marks_that_acted(strategy: str, target: int, acting: str) -> None:
    marks = [
        f"strategy.{name}.{mark}={value}"
        for name, pair in MARKS.items()
        for mark, value in zip(("high", "low"), pair, strict=True)
    ]
    scenario = load_scenario(SMALL_FLEET, overrides=[f"strategy.name={strategy}", *marks])
    for reason, word, mark in ((Reason.UTILISATION_HIGH, "above", 0), (Reason.UTILISATION_LOW, "below", 1)):
        decision = Decision(0, 1, reason, 0.8, 5_000_000, serving=3, coming=0, target=target)
        full = Decision(0, 1, reason, 1.3, 5_000_000, serving=3, coming=0, target=target)
        assert "utilisation 1.00 and 0.30 more asked for (5s old)" in telling._words(Decided(POOL, full), scenario)
        assert f"was {word} {MARKS[acting][mark]}" in telling._words(Decided(POOL, decision), scenario)


@pytest.mark.parametrize("name", ["lt-i", "lt-u", "lt-ua", "foresight"])
def test_it_does_so_of_decisions_that_were_made(name: str) -> None:
    """Without history a strategy that plans acts by the reactive marks at first; what it was is seen at the decision itself."""
    fleet = {"start": 2, "minimum": 1, "maximum": 8}
    rules = {"name": name, "reactive": {"high": 0.4, "low": 0.1}, "planned": {"high": 0.9, "low": 0.3}}
    settings = scenario(gpus=160, strategy=rules, fleet=fleet)
    driven = Driven(settings)
    driven.look(0, 0.6)
    decision = driven.decisions[0]
    assert "was above 0.4" in telling._words(Decided(POOL, decision), settings)


def test_a_forecast_that_failed_is_told_until_one_succeeds() -> None:
    settings = load_scenario(SMALL_FLEET, overrides=["strategy.name=lt-u"])
    layout = lay_out(settings, STRATEGIES["lt-u"].roles(settings), STRATEGIES["lt-u"].minimum)
    reading = telling._Reading(layout.pools[0])
    telling._hear(reading, 5, Forecasted(1, 0, 0, (), (), "singular matrix"))
    assert any("forecast failed" in note and "singular matrix" in note for note in telling._notes(reading, settings))
    telling._hear(reading, 6, Forecasted(2, HOUR, MINUTE, ((1.0,),), (((1.0,),),)))
    assert not any("forecast failed" in note for note in telling._notes(reading, settings))
    assert reading.data_until == HOUR
