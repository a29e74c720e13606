"""A fleet's past, played again: the counts it had, at the times it had them, whatever arrives.

Read next: `src/sageserve/core/strategies/recorded.py`.
"""

import numpy as np
import pytest
from pydantic import ValidationError

from sageserve.base.config import RecordedSettings, Scenario, SpotSettings
from sageserve.base.errors import ConfigError
from sageserve.base.records import Ints
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE, show_duration
from sageserve.core.actions import Reason
from sageserve.core.strategies import STRATEGIES, strategy_kind
from sageserve.sim.run import Run, simulate
from tests.core.small import row, scenario, starts_by_role, trace

LEAD = 20 * MINUTE  # of the small scenario: a machine starts in 10 minutes, and a model loads in 10
POOL = "east/big/h100"
Steps = tuple[tuple[int, int], ...]


def recorded(steps: Steps, **others: Steps) -> Scenario:
    """Counts of the east's `big`, and by region of `small`."""
    named = {POOL: steps} | {f"{region}/small/h100": given for region, given in others.items()}
    counts = {pool: [(show_duration(at), count) for at, count in given] for pool, given in named.items()}
    fleet = {"start": 2, "minimum": 1, "maximum": 40}
    strategy = {"name": "recorded", "recorded": {"counts": counts}}
    return scenario(gpus=320, fleet=fleet, strategy=strategy, spot={"donate": False})


def play(chosen: Scenario, length: int) -> Run:
    return simulate(chosen, trace(chosen, [row(0)], window=length), debug=True)


def serving(run: Run) -> Ints:
    """int64[minutes]: instances of the first endpoint that serve."""
    found: Ints = run.timeline.column("serving")[:, 0]
    return found


def minute_by_minute(steps: Steps, minutes: int) -> Ints:
    times = np.array([at for at, _ in steps])
    counts = np.array([count for _, count in steps])
    return counts[np.searchsorted(times, np.arange(minutes) * MINUTE, side="right") - 1]


@pytest.mark.parametrize("seed", range(8))
def test_instances_serve_when_the_history_says_so(seed: int) -> None:
    draw = stream(seed, "recorded")
    changes = dict(zip(draw.integers(21, 170, 6).tolist(), draw.integers(0, 7, 6).tolist(), strict=True))
    steps = ((0, 3), *((minute * MINUTE, count) for minute, count in sorted(changes.items())))
    run = play(recorded(steps), 3 * HOUR)
    seen, wanted = serving(run)[:180], minute_by_minute(steps, 180)
    for minute in np.flatnonzero(seen != wanted).tolist():  # what is due at a minute is seen at the next look at the latest
        assert minute in changes, (minute, steps)
    assert {one.reason for line in run.journal for one in line.decisions} <= {Reason.RECORDED}


def test_an_instance_that_is_back_from_spot_too_soon_is_not_sent_away_again() -> None:
    steps = ((0, 3), (30 * MINUTE, 2), (3 * HOUR, 3))
    lending = recorded(steps).model_copy(update={"spot": SpotSettings(donate=True)})
    run = play(lending, 4 * HOUR)
    changes = [one.change for line in run.journal for one in line.decisions]
    assert changes == [-1, 1]
    assert serving(run)[[179, 182]].tolist() == [3, 3]


def test_what_rises_before_anything_can_start_comes_late_and_no_count_is_off_for_good() -> None:
    steps = ((0, 1), (5 * MINUTE, 4), (10 * MINUTE, 2))
    seen = serving(play(recorded(steps), HOUR))
    assert seen[:20].tolist() == [1] * 20
    assert seen[int(LEAD // MINUTE) + 2 : 60].tolist() == [2] * 38


def test_what_is_not_named_has_no_instance() -> None:
    run = play(recorded(((0, 1),), west=((0, 2), (HOUR, 0))), 2 * HOUR)
    last = run.timeline.column("serving")[-2]
    assert run.timeline.column("serving")[0].tolist() == [1, 0, 0, 2]
    assert last.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("steps", [(), (("1s", 3),), ((0, 3), (0, 4)), ((0, 3), ("9s", 1), ("5s", 2)), ((0, -1),)])
def test_counts_begin_at_the_begin_and_rise_in_time(steps: object) -> None:
    with pytest.raises(ValidationError):
        RecordedSettings.model_validate({"counts": {POOL: steps}})


def test_without_counts_there_is_nothing_to_play() -> None:
    nothing = scenario(strategy={"name": "recorded"})
    with pytest.raises(ConfigError, match="counts is empty"):
        play(nothing, HOUR)
    assert "recorded" not in STRATEGIES, "or it would be compared with others where there is no history"


def test_a_pool_that_cannot_be_is_named() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.recorded\.counts.*east/bigger/h100"):
        scenario(strategy={"name": "recorded", "recorded": {"counts": {"east/bigger/h100": ((0, 1),)}}})
    with pytest.raises(ConfigError, match=r"fleet\.starts.*east/big/a100"):
        scenario(fleet={"starts": {"east/big/a100": 1}})


@pytest.mark.parametrize("name", ["reactive", "hpa", "foresight", "siloed", "chiron"])
def test_strategies_can_start_where_a_fleet_stood(name: str) -> None:
    here = {f"{region}/{model}/h100": 3 for region in ("east", "west") for model in ("big", "small")}
    chosen = scenario(gpus=160, fleet={"start": 2, "minimum": 1, "maximum": 8, "starts": here}, strategy={"name": name})
    assert sum(starts_by_role(strategy_kind(name), chosen)) == 3
    one = scenario(gpus=160, fleet={"start": 2, "minimum": 1, "maximum": 8, "starts": {POOL: 5}}, strategy={"name": name})
    run = simulate(one, trace(one, [row(0)], window=MINUTE))
    by_endpoint = run.timeline.column("serving")[0].reshape(4, -1).sum(axis=1)
    assert by_endpoint.tolist() == [5, 2, 2, 2]
