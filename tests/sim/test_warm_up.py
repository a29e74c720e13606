"""A first part of the requests that is played and not judged, and what forecasters know from before.

Read next: `Run.begin_after`, `data/traces/changes/window.py`.
"""

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core.small import row, scenario, trace

WINDOW = 60 * MINUTE


def settings_of(minutes: int, fleet: dict[str, object] | None = None, name: str = "reactive") -> Scenario:
    sized = {"start": 2, "minimum": 1, "maximum": 4} if fleet is None else fleet
    return scenario(workload={"warm_up": f"{minutes}m"}, fleet=sized, strategy={"name": name})


ROWS = [row(k * 2 * SECOND, region=("east", "west")[k % 2], prompt=4_000, output=300) for k in range(1_800)]


def test_what_is_judged_is_what_came_after() -> None:
    whole, part = (settings_of(minutes) for minutes in (0, 20))
    all_of_it, judged = (simulate(one, trace(one, ROWS, window=WINDOW)) for one in (whole, part))
    rows = all_of_it.requests[all_of_it.requests["arrival"] >= 20 * MINUTE]
    assert len(rows) == len(judged.requests) == 1_200
    assert (judged.requests["arrival"] == rows["arrival"] - 20 * MINUTE).all()
    assert (judged.requests["finish"] == rows["finish"] - 20 * MINUTE).all(), "the same was played"
    assert [line.now for line in judged.journal] == [line.now - 20 * MINUTE for line in all_of_it.journal]
    found = summarise(judged, 1.0)
    assert (found.window_s, found.warm_up_s, found.requests.arrived) == (2400.0, 1200.0, 1_200)
    assert "not judged" in " ".join(found.notes)
    held = summarise(all_of_it, 1.0)
    times = judged.timeline.times[: judged.timeline.length]
    assert (times == np.arange(len(times)) * MINUTE).all()
    assert found.cost_usd.reserved == pytest.approx(held.cost_usd.reserved * 2 / 3, abs=0.05)
    assert found.gpu_hours.total < held.gpu_hours.total


def test_the_parts_of_a_run_add_up_to_it() -> None:
    fleet: dict[str, object] = {"start": 1, "minimum": 1, "maximum": 4}
    hours = [
        summarise(simulate(one, trace(one, ROWS, window=WINDOW)), 1.0)
        for one in (settings_of(0, fleet, "fixed"), settings_of(45, fleet, "fixed"))
    ]
    assert [one.gpu_hours.total for one in hours] == [4 * 8 * 1.0, 4 * 8 * 0.25]
    assert hours[1].starts == 0
    assert sum(line.total for line in hours[1].cost_by.tier.values()) == pytest.approx(hours[1].cost_usd.total, abs=0.011)


def test_the_bound_is_of_the_same_window() -> None:
    busy = [one for one in ROWS if one[0] < 15 * MINUTE]
    settings = settings_of(30, {"start": 1, "minimum": 0, "maximum": 4}, "fixed")
    assert oracle_bound(settings, trace(settings, busy, window=WINDOW)).gpu_hours == 0.0
    assert oracle_bound(settings, trace(settings, ROWS, window=WINDOW)).gpu_hours > 0.0


@pytest.mark.parametrize(("warm_up", "words"), [("90s", "is not a whole number of minutes"), ("1h", "leaves nothing of 1h")])
def test_a_warm_up_that_cannot_be_is_refused(warm_up: str, words: str) -> None:
    settings = scenario(workload={"warm_up": warm_up})
    with pytest.raises(ConfigError, match=words):
        simulate(settings, trace(settings, ROWS, window=HOUR))


def test_rollouts_tell_times_from_the_first_request() -> None:
    settings = scenario(workload={"warm_up": "10m"}, rollouts=[{"model": "big", "at": "20m"}])
    with pytest.raises(ConfigError, match="rollouts are judged from the first request on"):
        simulate(settings, trace(settings, ROWS, window=HOUR))
