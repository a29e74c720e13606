"""How far demand is counted while a pool, or everybody, is not heard of; and what is taken to have come meanwhile.

Read next: `src/sageserve/live/watch/demand.py`; `stage.py`.
"""

from pathlib import Path

import pytest

from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.live.watch.demand import BEHIND_MOST, LAG
from tests.live.watch.stage import BEGIN, SCRAPE, Pod, WatchStage


def test_of_a_long_silence_the_end_is_read_and_the_rest_goes_on_as_it_was(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0)])
    stage.look()
    stage.run(6 * MINUTE)
    stage.clock.at += BEHIND_MOST + HOUR  # the machine slept
    stage.look()
    length = stage.clock.at - LAG * SCRAPE
    assert stage.watch.demand.requests[0] == pytest.approx(2 * length / SECOND, rel=0.02)


def test_a_pool_that_is_not_seen_is_waited_for_once_as_long_as_signals_are_believed(tmp_path: Path) -> None:
    stage = WatchStage(tmp_path, [Pod("a", per_s=2.0)])
    stage.look()
    stage.run(6 * MINUTE)
    gone = stage.at
    stage.pods[0].last, stage.failing = gone, frozenset({"a"})
    stage.run(4 * SCRAPE)
    assert stage.watch.demand.until <= BEGIN + gone, "it may be back at the next look"
    stage.run(2 * stage.watch.limit)
    for _ in range(8):
        stage.run(SCRAPE)
        assert BEGIN + stage.at - stage.watch.demand.until <= (LAG + 1) * SCRAPE, "waited for no more"
