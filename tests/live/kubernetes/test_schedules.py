"""Plans as schedules: windows follow the plan, and have the form that KEDA and AIBrix take.

Read next: `src/sageserve/live/kubernetes/schedules.py`.
"""

import re
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import yaml

from sageserve.base.config.clusters import TargetSettings
from sageserve.core.plan.horizon import HorizonPlan, Step
from sageserve.data.results.plans import AheadPlan, PlanFile
from sageserve.live.kubernetes.schedules import ScheduleFormat, comes_twice, schedule_component, schedules_of, windows_of

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 11, 30, 14, 0, tzinfo=BERLIN)
HHMM = re.compile("^([01][0-9]|2[0-3]):[0-5][0-9]$")  # AIBrix's own
NAME = re.compile("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")


def step(hours: float, *, start: float = 0.0, stop: float = 0.0, reclaim: float = 0.0) -> Step:
    return Step(hours, (0.0,), (start,), (stop,), (reclaim,), (0.0,), (0.0,), (0.0,), (0.0,))


def ahead(target: int, *steps: Step) -> PlanFile:
    """A trajectory of one pool."""
    plan = SimpleNamespace(target=(target,), steps=steps, input_hash="ab" * 32)
    solved = AheadPlan(cast("Any", None), cast("HorizonPlan", plan))
    return cast("PlanFile", SimpleNamespace(solved=solved, pools=(SimpleNamespace(pool="a/b/c"),), strategy="foresight"))


def target(kind: str, **more: int) -> TargetSettings:
    return TargetSettings.model_validate({"cluster": "c", "pool": "a/b/c", "kind": kind, "name": "space/name", "max": 20, **more})


def patched(file: PlanFile, form: ScheduleFormat, begins: datetime = MONDAY) -> list[Any]:
    kind = "ScaledObject" if form == "keda-cron" else "PodAutoscaler"
    (one,) = schedules_of(file, {"t": target(kind), "other": target("Deployment")}, form, begins)
    (listed,) = yaml.safe_load(schedule_component((one,)))["patches"]
    assert listed["path"] == one.file == "t.yaml"
    assert (listed["target"]["kind"], listed["target"]["name"], listed["target"]["namespace"]) == (kind, "name", "space")
    found: list[Any] = yaml.safe_load(one.text)
    return found


def test_a_trajectory_says_what_serves_or_is_coming_step_by_step() -> None:
    steps = step(0.25, start=9.0), step(0.25), step(0.5, start=1.2), step(2.0, stop=2.0), step(1.0, reclaim=0.8)
    found = windows_of(ahead(3, *steps), 0, MONDAY, (3, 4))
    hours = [(one.begins - MONDAY, one.ends - MONDAY, one.count) for one in found]
    quarter = timedelta(minutes=15)
    assert hours == [
        (0 * quarter, 2 * quarter, 3),  # what is started in the first step is in the target
        (2 * quarter, 4 * quarter, 4),  # 4.2 would be five: the target's maximum
        (4 * quarter, 16 * quarter, 3),  # 2.2 and 3.0
    ]


def test_keda_gets_triggers_beside_its_own() -> None:
    patch = patched(ahead(5, step(1.0), step(11.0, stop=3.0)), "keda-cron")
    assert [one["op"] + one["path"] for one in patch] == ["add/spec/triggers/-"] * 2
    first, last = (one["value"]["metadata"] for one in patch)
    assert patch[0]["value"]["type"] == "cron"
    assert first == {"timezone": "Europe/Berlin", "start": "0 14 30 11 *", "end": "0 15 30 11 *", "desiredReplicas": "5"}
    assert (last["start"], last["end"], last["desiredReplicas"]) == ("0 15 30 11 *", "0 2 1 12 *", "2")


def test_aibrix_gets_no_window_over_midnight() -> None:
    (patch,) = patched(ahead(5, step(1.0), step(34.0, stop=3.0)), "aibrix-schedules")
    assert patch["path"] == "/spec/schedules"
    found = [(*one["daysOfWeek"], one["startTime"], one["endTime"], one["minReplicas"]) for one in patch["value"]]
    assert found == [
        ("Mon", "14:00", "15:00", 5), ("Mon", "15:00", "23:59", 2), ("Tue", "00:00", "23:59", 2), ("Wed", "00:00", "01:00", 2)
    ]  # fmt: skip
    for one in patch["value"]:
        assert HHMM.match(one["startTime"])
        assert HHMM.match(one["endTime"])
        assert one["startTime"] < one["endTime"]
        assert NAME.match(one["name"])
    assert len({one["name"] for one in patch["value"]}) == 4


def test_an_hour_is_an_hour_when_clocks_are_set_back() -> None:
    before = datetime(2026, 10, 25, 1, 30, tzinfo=BERLIN)
    (found,) = windows_of(ahead(2, step(3.0)), 0, before, (0, 9))
    assert f"{found.ends:%H:%M}" == "03:30"


def test_only_an_hour_that_the_clock_shows_twice_comes_twice() -> None:
    autumn, spring = datetime(2026, 10, 25, tzinfo=BERLIN), datetime(2026, 3, 29, tzinfo=BERLIN)
    assert [hour for hour in range(24) if comes_twice(autumn.replace(hour=hour))] == [2]
    assert not any(comes_twice(spring.replace(hour=hour)) for hour in range(24)), "an hour that is left out comes never"
    assert not comes_twice(autumn.replace(hour=2, tzinfo=ZoneInfo("UTC")))
