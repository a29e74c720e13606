"""What is wanted of a pool is said while it is seen and its plan holds, and the reason in its place otherwise."""

from pathlib import Path

import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.live.control.wishes import plan_holds
from tests.live.watch.stage import POOL, Pod, WatchStage, one_pool


def test_wishes_follow_decisions_and_are_unknown_while_nothing_is_seen(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=50.0, running=9.0, memory=0.95), Pod("b", per_s=50.0, running=9.0, memory=0.95)])
    assert stage.watch.wish(POOL).unknown == "nothing was looked at yet"
    stage.look()
    stage.run(3 * MINUTE)
    would = stage.watch.pools()[0].would
    assert would > 2, "both are full"
    assert (stage.watch.wish(POOL).count, stage.watch.wish(POOL).unknown) == (would, "")
    assert stage.watch.wish("east/big/a100").unknown == "east/big/a100 is not watched"
    stage.clock.at += 3 * MINUTE  # no look comes back: a server hangs
    assert stage.watch.wish(POOL).unknown == "its signals are too old"
    stage.look()
    assert stage.watch.wish(POOL).unknown == "its signals are too old", "what was found is said for a second"
    stage.clock.at += SECOND
    assert stage.watch.wish(POOL).unknown == ""
    stage.away = True
    stage.run(MINUTE)
    assert "cannot be asked" in stage.watch.wish(POOL).unknown
    stage.away = False
    stage.pods = []
    stage.run(6 * MINUTE)
    assert "no series" in stage.watch.wish(POOL).unknown


@pytest.mark.parametrize("name", ["foresight", "lt-i"])
def test_a_plan_that_is_overdue_is_no_plan(tmp_path: Path, name: str) -> None:
    settings = one_pool(strategy={"name": name})
    stage = WatchStage(tmp_path, [Pod("a", per_s=5.0, running=1.0), Pod("b", per_s=5.0, running=1.0)], settings)
    stage.look()
    stage.watch._wishes.planned_at = stage.clock.at  # as if one had just been made
    stage.run(MINUTE)
    assert stage.watch.wish(POOL).unknown == ""
    stage.watch._wishes.planned_at -= plan_holds(settings)  # and long ago
    stage.clock.at += SECOND
    assert "old, and the next one is overdue" in stage.watch.wish(POOL).unknown
