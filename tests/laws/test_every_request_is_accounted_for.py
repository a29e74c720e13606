"""Every request that arrived is finished, shed, refused or owed, under every strategy, played to the end or interrupted.

A fleet is flooded, so that admission has much to turn away. Read next: docs/reference/summary.md, `src/sageserve/core/admit.py`.
"""

from collections import Counter

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Trace
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.core.strategies import STRATEGIES
from sageserve.data.results.summary import Summary
from sageserve.sim.kernel.state import DONE, FUTURE, PLACE, REFUSED, SHED
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, Simulation
from tests.core.small import ENGINE, row, scenario, trace

LENGTH = 40 * MINUTE
FLOODS = (5 * MINUTE, 25 * MINUTE)
SLOW = ENGINE | {"iteration_ms": [[1, 10.2], [10_001, 2_010.2]]}  # 10 ms, and 200 us per token
NAMES = sorted(STRATEGIES)


def flooded(name: str, admission: str) -> Scenario:
    """Two instances per endpoint, and starts that come too late; batch work is over before the second flood is."""
    return scenario(
        gpus=64,
        models={model: {"context": 8_000, "engines": {"h100": SLOW}} for model in ("big", "small")},
        tiers={"iw-f": {"ttft": "4s"}, "iw-n": {"ttft": "60s"}, "niw": {"deadline": "20m"}},
        fleet={"start": 2, "minimum": 1, "maximum": 3},
        admission=admission,
        strategy={"name": name, "planned": {"every": "20m", "patrol": "10m"}, "foresight": {"horizon": "4h"}},
    )


def floods(settings: Scenario) -> Trace:
    """Twice as much as all instances can do, for five minutes; prompts that fit no context; a murmur of everything."""
    draw = stream(settings.seed, "floods")
    tiers, regions, models = ("iw-f", "iw-n", "niw"), ("east", "west"), ("big", "small")
    rows = []
    for start in FLOODS:
        for at, kind in zip(draw.integers(0, 5 * MINUTE, 2_400).tolist(), draw.integers(0, 12, 2_400).tolist(), strict=True):
            where = {"model": models[kind % 2], "region": regions[kind // 2 % 2], "tier": tiers[kind // 4]}
            rows.append(row(start + at, prompt=6_000, output=5, **where))
    for at, kind in zip(draw.integers(0, LENGTH, 600).tolist(), draw.integers(0, 12, 600).tolist(), strict=True):
        where = {"model": models[kind % 2], "region": regions[kind // 2 % 2], "tier": tiers[kind // 4]}
        rows.append(row(at, prompt=9_000 if kind == 3 else 300, output=1 + kind, **where))
    return trace(settings, rows, window=LENGTH)


def played(name: str, admission: str, *, until: int | None = None) -> Run:
    settings = flooded(name, admission)
    simulation = Simulation(settings, floods(settings))
    return simulation.play(interrupted=None if until is None else lambda: simulation.run.now >= until)


def account(run: Run) -> Summary:
    """The run's summary, held against its rows; the law itself is in the sums."""
    summary, rows, names = summarise(run, 1.0), run.requests, list(run.scenario.tiers)
    place = rows["state"] & PLACE
    here = place != FUTURE
    counts = summary.requests
    assert counts.arrived == int(here.sum()) == counts.finished + counts.shed + counts.refused + counts.unfinished
    assert (counts.finished, counts.shed, counts.refused) == tuple(int((place == one).sum()) for one in (DONE, SHED, REFUSED))
    for k, name in enumerate(names):
        tier, mine = summary.tiers[name], rows["tier"] == k
        assert tier.requests == int((here & mine).sum())
        assert tier.shed == int(((place == SHED) & mine).sum())
        assert tier.finished == int(((place == DONE) & mine).sum())
        assert tier.undecided <= tier.requests - tier.finished - tier.shed
    assert sum(tier.shed for tier in summary.tiers.values()) == counts.shed
    gone = np.isin(place, (SHED, REFUSED))
    assert (rows["instance"][gone] == UNSET).all()
    assert (rows["first"][gone] == UNSET).all()
    assert (rows["finish"][gone] == UNSET).all()
    assert (rows["instance"][place == DONE] != UNSET).all()
    return summary


@pytest.mark.parametrize("name", NAMES)
def test_with_admission_whoever_is_not_shed_is_served(name: str) -> None:
    run = played(name, "on")
    summary = account(run)
    assert summary.requests.shed > 100
    assert summary.requests.unfinished == 0
    fast, rows = summary.tiers["iw-f"], run.requests
    assert fast.attainment is not None
    assert fast.attainment <= 1 - fast.shed / fast.requests, "a promise to somebody who was turned away is broken"
    late = (rows["tier"] == 2) & ((rows["state"] & PLACE) == SHED)
    assert (rows["deadline"][late] <= run.now).all(), "batch work waits until its promise is broken"


@pytest.mark.parametrize("name", NAMES)
def test_without_admission_nobody_is_shed(name: str) -> None:
    summary = account(played(name, "off"))
    assert summary.requests.shed == 0
    assert summary.requests.unfinished == 0
    assert summary.requests.refused > 0


@pytest.mark.parametrize("admission", ["on", "off"])
def test_an_interrupted_run_owes_what_is_under_way(admission: str) -> None:
    summary = account(played("reactive", admission, until=8 * MINUTE))
    assert summary.partial
    assert summary.requests.unfinished > 100
    assert (summary.requests.shed > 0) is (admission == "on")


def test_who_is_turned_away_would_have_waited_too_long() -> None:
    """Beside a run that lets everybody in: those turned away are the ones whose promise would have been broken, mostly."""
    shed, served = played("reactive", "on"), played("reactive", "off")
    away = ((shed.requests["state"] & PLACE) == SHED) & (shed.requests["tier"] == 0)
    first, arrival = served.requests["first"][away], served.requests["arrival"][away]
    assert away.sum() > 100
    assert (first - arrival > 4 * SECOND).mean() > 0.8  # the two fleets also grow at other times
    kept = [summarise(run, 1.0).tiers["iw-f"].attainment for run in (shed, served)]
    assert kept[0] is not None
    assert kept[1] is not None
    assert kept[0] > kept[1], "turning some away keeps the promise to the others"


def test_a_queue_that_nobody_serves_is_given_up_when_its_time_is_over() -> None:
    tiers = {"iw-f": {"ttft": "4s"}, "niw": {"deadline": "20m"}}
    settings = scenario(gpus=64, tiers=tiers, fleet={"start": 0, "minimum": 0}, admission="on", strategy={"name": "fixed"})
    run = Simulation(settings, trace(settings, [row(SECOND, tier="niw"), row(2 * SECOND)], window=HOUR)).play()
    assert Counter((run.requests["state"] & PLACE).tolist()) == Counter({SHED: 2})
    assert summarise(run, 1.0).requests.shed == 2
