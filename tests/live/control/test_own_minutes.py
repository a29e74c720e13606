"""Minutes of a fleet of ours: whose promises broke, what waits, what demand needs; and no demand that is nobody's.

Read next: `src/sageserve/live/control/own_minutes.py`.
"""

from pathlib import Path

import pytest

from sageserve.base.units import HOUR, MINUTE
from sageserve.core.events import DemandSeen
from sageserve.core.strategies import layout_of
from sageserve.data.results.journal import LIVE
from sageserve.data.scenarios.load import resolved_yaml
from sageserve.data.watched.minutes import BacklogMinute, PoolMinute, TierMinute, read_minutes
from sageserve.live.control.admin import CapacityCollector
from sageserve.live.control.own_minutes import OwnMinutes
from sageserve.show.shadow.read import read_shadow
from tests.core.small import fleet_of
from tests.live.watch.stage import one_pool

WALL = 1_790_000_040_000_000
TIERS: dict[str, object] = {"chat": {"ttft": "1s"}, "jobs": {"deadline": "24h"}}


def asked(minute: int, *, work: float, requests: tuple[int, int], missed: tuple[int, int]) -> DemandSeen:
    """Of one region, one model and the two tiers."""
    none = (0,) * 2
    return DemandSeen(minute * MINUTE, MINUTE, (900, 0), none, requests, (work * MINUTE, 0.0), (), none, missed)


def minutes_of(folder: Path, **changes: object) -> OwnMinutes:
    settings = one_pool(tiers=TIERS, **changes)
    layout = layout_of(settings)
    fleet = fleet_of(layout)
    for row in range(2):
        fleet.start(row, 0, fleet.room(0), initial=True)
        fleet.ready(row, 0)
    return OwnMinutes(settings, layout, fleet, folder, None)


def test_a_minute_has_what_ran_what_was_late_and_what_waits(tmp_path: Path) -> None:
    one = minutes_of(tmp_path)
    one.look(MINUTE, (0,))
    one.counted(MINUTE, asked(0, work=1.5, requests=(100, 7), missed=(4, 7)), WALL, {"big": (12, 3 * HOUR)})
    one.look(2 * MINUTE, ())
    one.counted(2 * MINUTE, asked(1, work=1.5, requests=(100, 0), missed=(0, 0)), WALL + MINUTE, {"big": (0, None)})
    first, second = read_minutes(tmp_path)
    assert first.pools == (PoolMinute("east/big/h100", 2, 2),)
    assert first.tiers == (TierMinute("chat", 100, 4), TierMinute("jobs", 7, 7))
    assert first.backlog == (BacklogMinute("big", 12, 3 * 3600.0),)
    assert second.backlog == (BacklogMinute("big", 0, None),)
    (east,), (later,) = first.endpoints, second.endpoints
    assert (east.endpoint, east.blind, later.blind) == ("east/big", "signals too old", "")
    assert east.busy == pytest.approx(1.5)
    assert east.needed >= 2
    assert (east.late, later.late) == (0.04, 0.02), "of the last minutes, and batch work is none of it"


def test_metrics_say_demand_beside_capacity(tmp_path: Path) -> None:
    one = minutes_of(tmp_path)
    one.counted(MINUTE, asked(0, work=1.5, requests=(100, 7), missed=(4, 7)), WALL, {})
    found = {each.name: each.samples for each in CapacityCollector(one.book, lambda: MINUTE).collect()}
    assert {name: [each.value for each in samples] for name, samples in found.items()} == {
        "sageserve_wanted_instances": [2.0],
        "sageserve_busy_instances": [1.5],
        "sageserve_needed_instances": [one.book.needed[0]],
        "sageserve_serving_instances": [2.0],
    }


def test_of_instances_that_are_set_apart_nobody_says_whose_demand_is_whose(tmp_path: Path) -> None:
    one = minutes_of(tmp_path, strategy={"name": "siloed"})
    minute = one.counted(MINUTE, asked(0, work=1.5, requests=(100, 7), missed=(4, 7)), WALL, {})
    assert minute.endpoints == ()
    assert minute.tiers == (TierMinute("chat", 100, 4), TierMinute("jobs", 7, 7))


def test_the_shadow_report_sums_up_a_fleet_of_ours(tmp_path: Path) -> None:
    one = minutes_of(tmp_path)
    for minute in range(6):
        one.look((minute + 1) * MINUTE, ())
        late = 4 if minute == 5 else 0  # a hundredth of five minutes: the promise of 95 % is kept
        one.counted(
            (minute + 1) * MINUTE, asked(minute, work=2.6, requests=(100, 0), missed=(late, 0)), WALL + minute * MINUTE, {}
        )
    (tmp_path / LIVE).mkdir()
    (tmp_path / "scenario.yaml").write_text(resolved_yaml(one_pool(tiers=TIERS)), "utf-8")
    (east,) = read_shadow(tmp_path).report.endpoints
    assert (east.seen_minutes, east.harm, east.measured_minutes) == (6, 0.0, 0)
    assert (east.did.short_minutes, east.would.short_minutes) == (6, 6), "two ran, nobody asked for more, and three were needed"
