"""Forecasts that never come back and programs without an answer: the run goes on, on what is there, and says so.

Read next: `src/sageserve/core/strategies/planned.py`, `src/sageserve/sim/run.py`.
"""

import pytest

from sageserve.base.config import Scenario
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.core.actions import Decision, Reason
from sageserve.core.work import Done, Fit, Solved, SolvedAhead, Work, perform
from sageserve.sim.run import Run, simulate
from tests.core.small import row, scenario, trace

PLANNERS = ("lt-i", "lt-u", "lt-ua", "foresight")


def settings_of(name: str, latency: str = "2s") -> Scenario:
    fleet = {"start": 2, "minimum": 1, "maximum": 4}
    return scenario(gpus=96, fleet=fleet, strategy={"name": name, "planned": {"every": "30m", "latency": latency}})


def play(settings: Scenario) -> Run:
    """Two hours with a flood in the first and in the second, and batch work."""
    flood = [row(begin + k * 60_000, prompt=5_000, output=2) for begin in (20 * MINUTE, 80 * MINUTE) for k in range(10_000)]
    jobs = [row(k * 10 * SECOND, tier="niw") for k in range(300)]
    return simulate(settings, trace(settings, [*flood, *jobs], window=2 * HOUR), debug=True)


def decided(run: Run) -> list[tuple[int, int, int, Reason]]:
    return [(entry.now, one.pool, one.done, one.reason) for entry in run.journal for one in entry.decisions if one.done]


def without_an_answer(work: Work) -> Done:
    """Forecasts as they are, and no program is ever solved."""
    done = perform(work)
    if isinstance(done, Solved | SolvedAhead):
        return type(done)(work.number, None, "the search stopped without an answer")
    assert isinstance(work, Fit)
    return done


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("broken", ["forecast", "program"])
def test_without_a_plan_a_run_ends_and_everything_is_served(name: str, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "program":
        monkeypatch.setattr("sageserve.sim.world.do_work", without_an_answer)
    run = play(settings_of(name, "1000h" if broken == "forecast" else "2s"))
    assert (run.requests["finish"] > run.requests["arrival"]).all()
    assert any(one[2] > 0 for one in decided(run)), "the floods must have been answered"
    if broken == "program":
        assert "plans could not be made, and the one before stood" in run.notes[-1]
        assert "the search stopped without an answer" in run.notes[-1]
    else:
        assert not run.notes


def test_without_a_plan_the_hourly_strategies_are_reactive() -> None:
    reactive = decided(play(settings_of("reactive")))
    assert {one[3] for one in reactive} >= {Reason.UTILISATION_HIGH, Reason.UTILISATION_LOW}
    for name in PLANNERS[:3]:
        assert decided(play(settings_of(name, "1000h"))) == reactive


def test_the_last_plan_stands_when_the_next_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def once(work: Work) -> Done:
        nonlocal asked
        if isinstance(work, Fit):
            return perform(work)
        asked += 1
        return perform(work) if asked == 2 else without_an_answer(work)  # made in the first flood

    monkeypatch.setattr("sageserve.sim.world.do_work", once)
    run = play(settings_of("lt-u"))
    assert asked >= 4
    assert run.notes[-1].startswith(f"{asked - 1} of {asked} plans could not be made")
    ((made, plan),) = [(one.now, one.event.plan) for one in run.journal if isinstance(one.event, Solved) and one.event.plan]
    later: list[Decision] = [one for entry in run.journal if entry.now > made for one in entry.decisions]
    assert later
    assert all(one.target == plan.target[one.pool] for one in later)
    assert [run.fleet.serving(pool) for pool in range(4)] == list(plan.target)
