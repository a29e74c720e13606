"""`recorded`, replayed on made requests, breaks promises in the windows in which the history's own histograms show them broken.

Read next: `past.py` for the fleet; `test_stated_error.py` for its traffic.
"""

from pathlib import Path

import numpy as np
import pytest

from sageserve.base.records import Bools, Ints
from sageserve.base.units import SECOND
from sageserve.data.history.collect import PoolCollector
from sageserve.data.history.records import WINDOW, Grid
from sageserve.data.rebuild.demand import PlacedPool, demand_of
from sageserve.data.rebuild.requests import rebuild
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.backtest.exported import engine_series
from sageserve.sim.run import simulate
from tests.sim.backtest.past import RECORDING, YAML
from tests.sim.backtest.test_stated_error import LENGTH, SLOW, traffic

PROMISE = 2.5  # seconds: the bound of a bucket, so that the histogram tells who was late
LATE = 0.05  # share of first tokens by which a window is broken
STOOD = 'strategy.recorded.counts={"east/m/h100": [["0s", 3], ["50m", %d], ["1h10m", 3]]}'


def broken(rows: np.ndarray) -> Bools:
    """By window, whether first tokens that came in it were late."""
    rows = rows[rows["first"] >= 0]
    window = rows["first"] // WINDOW
    late = (rows["first"] - rows["arrival"]) > PROMISE * SECOND
    count: Ints = np.bincount(window, minlength=LENGTH // WINDOW)[: LENGTH // WINDOW]
    return np.bincount(window, weights=late, minlength=LENGTH // WINDOW)[: LENGTH // WINDOW] > LATE * count


@pytest.mark.parametrize("rate", [3.5, 4.5])
def test_an_outage_shows_in_the_windows_in_which_it_was_recorded(tmp_path: Path, rate: float) -> None:
    (tmp_path / "past.yaml").write_text(YAML, "utf-8")
    of = {left: [*SLOW[:1], f"tiers.fast.ttft={PROMISE}s", "fleet.start=3", STOOD % left] for left in (1, 3)}
    scenarios = {left: load_scenario(str(tmp_path / "past.yaml"), overrides=settings) for left, settings in of.items()}
    run = simulate(scenarios[1], traffic(scenarios[1], rate, 1))
    collector = PoolCollector("east/m/h100", Grid(RECORDING.begin, RECORDING.interval, LENGTH // RECORDING.interval))
    collector.add(engine_series(run, RECORDING, region=0, lives=True))
    history = collector.finish()
    ttft = history.histograms["ttft"]
    count = ttft.counts.sum(axis=1)
    shown = ttft.counts[:, np.searchsorted(ttft.bounds, PROMISE) + 1 :].sum(axis=1) > LATE * count
    made = rebuild(demand_of([PlacedPool("east", "m", history)]), scenarios[1], 1).trace
    replayed = broken(simulate(scenarios[1], made).requests)
    assert shown.sum() >= 4
    assert (shown & replayed).sum() / (shown | replayed).sum() >= 0.8
    assert not broken(simulate(scenarios[3], made).requests).any(), "without the outage nothing breaks"
