"""An hour under one strategy with another in its shadow, and the other way round: what was needed is the same.

`needed` is reckoned from demand as counters show it, so whoever ran the fleet must not matter. Read next: `stage.py`;
docs/how-to/watch.md for the figure.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Trace
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE
from sageserve.data.history.raw import RawSeries
from sageserve.data.watched.minutes import WatchedMinute
from sageserve.sim.backtest.exported import Recording, engine_series
from sageserve.sim.run import simulate
from tests.core.small import ENGINE
from tests.live.watch.stage import BEGIN, SCRAPE, Pod, WatchStage, one_pool
from tests.sim.backtest.past import lengths_for, spread

WARM = 10 * MINUTE  # the process begins when the fleet has run so long
SLOW = ENGINE | {"iteration_ms": [[1, 100.2], [10_001, 2100.2]]}


class Recorded(Pod):
    """All engines of a run that was played, as they were recorded."""

    def __init__(self, found: Sequence[RawSeries]) -> None:
        super().__init__("all")
        self.found = found

    def series(self, begin: int, end: int) -> list[RawSeries]:
        """Their samples in a stretch of time."""
        parts = [one.between(BEGIN + begin, BEGIN + end) for one in self.found]
        return [one for one in parts if len(one)]


def fleet(strategy: str) -> Scenario:
    return one_pool(
        models={"big": {"context": 8_000, "engines": {"h100": SLOW}, "load": {"local": "1m"}}},
        tiers={"chat": {"ttft": "2s"}},
        admission="off",
        strategy={"name": strategy},
    )


def wave(settings: Scenario) -> Trace:
    """Four requests a second that become sixteen, and four again."""
    rng = stream(1, "wave")
    rate = 4.0 + 6.0 * (1.0 - np.cos(2.0 * np.pi * np.arange(70) / 70))
    counts = rng.poisson(60.0 * rate)
    arrival = spread(rng, counts.tolist(), MINUTE)
    return lengths_for(settings, arrival, rng, HOUR + WARM, prompt=(6.0, 0.7), output=(4.0, 0.5))


def watched(folder: Path, ran: str, shadow: str) -> list[WatchedMinute]:
    """Minutes of an hour that one strategy ran, as a process with the other one saw it."""
    run = simulate(fleet(ran), wave(fleet(ran)))
    seen = engine_series(run, Recording(BEGIN, SCRAPE, tiers=False), region=0, lives=True)
    plain = [one for one in seen if "_bucket" not in one.name and not one.name.endswith("_seconds_sum")]
    stage = WatchStage(folder, [Recorded(plain)], fleet(shadow), WARM)
    stage.look()
    stage.run(HOUR)
    assert len({minute.pools[0].did for minute in stage.minutes}) > 1, "the fleet was scaled"
    assert any(minute.pools[0].did != minute.pools[0].would for minute in stage.minutes), "and not as the shadow would have"
    return stage.minutes


def test_what_was_needed_does_not_depend_on_who_ran_the_fleet(tmp_path: Path) -> None:
    one, other = watched(tmp_path / "a", "reactive", "lt-ua"), watched(tmp_path / "b", "lt-ua", "reactive")
    pairs = [
        (a.endpoints[0].needed, b.endpoints[0].needed) for a, b in zip(one, other, strict=True) if a.endpoints and b.endpoints
    ]
    assert len(pairs) >= 50
    assert len({a for a, _ in pairs}) >= 3, "demand rose and fell"
    assert sum(abs(a - b) <= 1 for a, b in pairs) >= 0.95 * len(pairs), pairs
