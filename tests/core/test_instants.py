"""Rules that turn at an instant turn at that instant: cool-downs, the patrol, the pace of drains, plans on the hour.

Each is tried at the instant and a microsecond before it. Read next: `src/sageserve/core/strategies/steps.py`.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from sageserve.base.config import SafetySettings, Scenario
from sageserve.base.units import HOUR, MINUTE, NEVER, SECOND, Micros
from sageserve.core.actions import Blocked, Reason
from sageserve.core.events import EndpointSeen, Observed
from sageserve.core.forecast import QuantileForecast
from sageserve.core.history import BIN
from sageserve.core.safety import Guard
from sageserve.core.strategies.planned import LtUA
from sageserve.core.work import Fit, Fitted, Solve
from tests.core.driven import Driven, asked
from tests.core.small import scenario

COOLDOWN = 70 * SECOND
SECTIONS = {
    "reactive": "reactive",
    "reactive-tuned": "tuned",
    "siloed": "siloed",
    "lt-i": "planned",
    "lt-u": "planned",
    "lt-ua": "planned",
    "foresight": "foresight",
    "chiron": "chiron",
}


def driven_by(name: str, **rules: object) -> Driven:
    """Four instances everywhere; at a utilisation of a half nothing is to be done, at two there is."""
    fleet = {"start": 4, "minimum": 1, "maximum": 20}
    marks: dict[str, dict[str, object]] = {"foresight": {}, "chiron": {"theta": 0.8}}
    strategy = {"name": name, SECTIONS[name]: {"cooldown": "70s"} | marks.get(name, {"high": 0.7, "low": 0.3}) | rules}
    return Driven(scenario(gpus=320, fleet=fleet, strategy=strategy), serving=4)


def acts(driven: Driven, now: Micros, *seen: float, reason: Reason | None = None) -> bool:
    """Whether something was decided about the first endpoint at a look at `now`; what was decided is done at once."""
    driven.settle(now, driven.look(now, *seen, *[0.5] * (driven.layout.endpoints - len(seen))))
    return any(driven.layout.pools[one.pool].endpoint == 0 and reason in {None, one.reason} for one in driven.decisions)


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "lt-i"])
@pytest.mark.parametrize("first", [0, 5 * MINUTE])
def test_a_rule_acts_again_exactly_when_its_pause_is_over(name: str, first: Micros) -> None:
    driven = driven_by(name)
    assert acts(driven, first, 2.0), "nothing was done before, so there is no pause at first"
    assert not acts(driven, first + 1, 2.0)
    assert not acts(driven, first + COOLDOWN - 1, 2.0)
    assert acts(driven, first + COOLDOWN, 2.0)
    assert not acts(driven, first + 2 * COOLDOWN - 1, 2.0)
    assert acts(driven, first + 2 * COOLDOWN, 2.0)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_look_at_which_nothing_is_done_begins_no_pause(name: str) -> None:
    driven = driven_by(name)
    if name == "lt-i":  # between plans it does nothing but keep the minimum
        driven.hear(1_000.0, until=HOUR)
        driven.settle(HOUR, driven.plan(HOUR, (4,) * len(driven.layout.pools)))
        return
    assert not acts(driven, HOUR, 0.5)
    assert acts(driven, HOUR + 1, 2.0)


@pytest.mark.parametrize("name", ["reactive", "reactive-tuned", "siloed", "lt-u"])
def test_each_endpoint_has_a_pause_of_its_own(name: str) -> None:
    driven = driven_by(name)
    calm = [0.5] * driven.layout.endpoints
    driven.settle(HOUR, driven.look(HOUR, 2.0, *calm[1:]))
    assert [driven.layout.pools[one.pool].endpoint for one in driven.decisions] == [0]
    driven.settle(HOUR + 1, driven.look(HOUR + 1, 2.0, 2.0, *calm[2:]))
    assert [driven.layout.pools[one.pool].endpoint for one in driven.decisions] == [1]


def patrolling(patrol: str) -> Driven:
    driven = driven_by("lt-ua", patrol=patrol, above=2.0)
    driven.hear(1_000.0, until=HOUR)
    driven.settle(HOUR, driven.plan(HOUR, (4, 4, 4, 4)))
    driven.hear([6_000.0, 1_000.0, 1_000.0, 1_000.0], until=HOUR + 45 * MINUTE)
    return driven


@pytest.mark.parametrize("patrol", ["20m", "15m", "30m"])
def test_the_patrol_begins_at_its_instant_and_ends_with_the_hour(patrol: str) -> None:
    driven = patrolling(patrol)
    strategy = driven.strategy
    assert isinstance(strategy, LtUA)
    begins = 2 * HOUR - int(patrol[:-1]) * MINUTE
    assert not strategy.may_pass(begins - 1, 0, out=True)
    assert strategy.may_pass(begins, 0, out=True)
    assert strategy.may_pass(2 * HOUR - 1, 0, out=True)


def test_the_patrol_is_kept_where_decisions_are_made() -> None:
    for now, passes in ((2 * HOUR - 20 * MINUTE - 1, False), (2 * HOUR - 20 * MINUTE, True)):
        assert acts(patrolling("20m"), now, 2.0, reason=Reason.AHEAD_OF_PLAN) is passes


# --- plans ---


@pytest.mark.parametrize("name", ["lt-i", "lt-u", "lt-ua"])
def test_a_plan_is_due_on_the_hour_and_not_before(name: str) -> None:
    driven = driven_by(name)
    driven.hear(1_000.0, until=HOUR)
    driven.plan(HOUR, (4, 4, 4, 4))
    assert not [one for one in driven.look(2 * HOUR - 1) if isinstance(one, Fit)]
    assert [one for one in driven.look(2 * HOUR) if isinstance(one, Fit)]


RISING = np.arange(1, 30) * 10.0


def forecast(start: Micros, tokens: Sequence[float], level: float) -> QuantileForecast:
    """Tokens/s by bin, the same at every level."""
    point = np.array(tokens) * BIN / SECOND
    return QuantileForecast(start, BIN, point, (level,), point[:, None], True)


def planned_for(driven: Driven, now: Micros, tokens: Sequence[float]) -> float:
    """Demand of the first region and model in the program asked for at `now`, when this is forecast."""
    fit = asked(driven.look(now))
    assert isinstance(fit, Fit)
    made = forecast(driven.heard, tokens[: fit.bins], fit.levels[0])
    (program,) = driven.controller.handle(now, Fitted(fit.number, (made,) * len(fit.series)))
    assert isinstance(program, Solve)
    return max(window[0][0] for window in program.problem.demand)


@pytest.mark.parametrize("late", range(15))
@pytest.mark.parametrize("shape", ["rising", "falling", "peaked"])
def test_a_plan_reads_the_bins_of_its_own_time_however_late_the_newest_bin_ended(late: int, shape: str) -> None:
    """The history ends at 1 h, the look is minutes later; bins from the first one that `ahead` reaches to the next plan count."""
    driven = driven_by("lt-u", every="60m", ahead="20m")
    driven.hear(1_000.0, until=HOUR)
    tokens = {"rising": RISING, "falling": RISING[::-1], "peaked": np.abs(RISING - 25.0) * -1 + 300.0}[shape]
    bins = 4
    begin, end = (late + 20) * MINUTE // BIN, (late + 60) * MINUTE
    expected = max(tokens[k] for k in range(min(begin, bins - 1), bins) if k * BIN < end)
    assert planned_for(driven, HOUR + late * MINUTE, tokens.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize("lead", range(1, 24 * 4, 5))
def test_a_plan_may_reach_as_far_ahead_as_the_day(lead: int) -> None:
    driven = driven_by("lt-u", every=f"{(lead + 1) * 15}m", ahead=f"{lead * 15}m")
    driven.hear(1_000.0, until=HOUR)
    tokens = np.zeros(200)
    tokens[lead] = 77.0
    assert planned_for(driven, HOUR, tokens.tolist()) == pytest.approx(77.0)
    driven = driven_by("lt-u", every=f"{(lead + 1) * 15}m", ahead=f"{lead * 15}m")
    driven.hear(1_000.0, until=HOUR)
    tokens[lead], tokens[lead - 1], tokens[lead + 1] = 0.0, 88.0, 99.0
    assert planned_for(driven, HOUR, tokens.tolist()) == 0.0


# --- the guard ---


def guard_of(**rules: object) -> Guard:
    settings: Scenario = scenario()
    marks = SafetySettings.model_validate({"headroom": 0.8, "change_per_hour": 0.25, **rules})
    guard = Guard(marks, settings.fleet.maximum, every=NEVER)
    guard.see(Observed(0, (EndpointSeen(0.1, 0.1, 0.1),) * settings.fleet.maximum, (0, 0)))
    return guard


def test_a_drain_stops_counting_exactly_an_hour_later() -> None:
    guard = guard_of()
    guard.drained(5, 0)
    assert guard.forbids_drain(HOUR + 4, 0, 4) is Blocked.TOO_FAST
    assert guard.forbids_drain(HOUR + 5, 0, 4) is Blocked.NOT


@pytest.mark.parametrize(("seen", "blocked"), [(0.6, Blocked.NOT), (0.6 + 1e-9, Blocked.NO_HEADROOM)])
def test_headroom_may_be_used_to_its_mark(seen: float, blocked: Blocked) -> None:
    guard = guard_of()
    guard.see(Observed(0, (EndpointSeen(seen, seen, seen),) * 4, (0, 0)))
    assert guard.forbids_drain(0, 0, 4) is blocked  # 0.6 x 4 / 3 = 0.8
