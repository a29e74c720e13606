"""Strategies are compared fairly: one start, one router, one set of delays; and none knows what has not happened yet.

The kernel's settings are held to this in `test_known_mistakes.py`. Read next: `src/sageserve/sim/run.py`.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.records import Trace
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros
from sageserve.core.actions import Source
from sageserve.core.events import Observed
from sageserve.core.strategies import STRATEGIES
from sageserve.core.work import Entry, FitAsked, Solve, SolveAhead, Solved, SolvedAhead
from sageserve.sim.run import Run, Simulation, simulate
from tests.core.small import ENGINE, TIERS, Row, row, scenario, trace
from tests.laws.lives import begun

NAMES = sorted(STRATEGIES)
DELAYS = {Source.VM: 90 * SECOND, Source.GPUS: 60 * SECOND, Source.SPOT: 20 * SECOND}
SLOW = ENGINE | {"iteration_ms": [[1, 10.2], [10_001, 2_010.2]]}  # few requests make many busy instances
END = 150 * MINUTE
CUT = 95 * MINUTE


def settings_of(name: str) -> Scenario:
    """Starts of 90 s from a VM, 60 s on GPUs of another model, 20 s from the own spot instance; plans twice an hour."""
    load = {"reclaim": "20s", "local": "60s"}
    every = {"planned": {"every": "30m", "patrol": "10m"}, "foresight": {"horizon": "4h"}}
    settings = scenario(
        gpus=160,
        models={model: {"context": 8_000, "engines": {"h100": SLOW}, "load": load} for model in ("big", "small")},
        tiers=TIERS | {"iw-f": {"ttft": "10s"}},
        fleet={"start": 3, "minimum": 1, "maximum": 5},
        batch={"promote_after": "40m"},
        strategy={"name": name} | every,
    )
    return settings.model_copy(update={"gpus": {"h100": settings.gpus["h100"].model_copy(update={"start": 30 * SECOND})}})


def waves(begin: Micros, end: Micros, *, period: Micros, model: str = "big") -> Iterator[Row]:
    """Demand that swings between nothing and five busy instances; a prompt of 6,000 tokens takes 1.2 s."""
    at = begin
    while at < end:
        part = 0.5 - 0.5 * np.cos(2 * np.pi * (at - begin) / period)
        yield row(at, prompt=6_000, output=2, model=model, region=("east", "west")[at // 1_000 % 2])
        at += round(1_217_000 / (0.02 + 5 * part))


def demand(*, other: bool = False) -> list[Row]:
    """Waves and batch work until the end; from the cut on, with `other`, the quiet model is the busy one and answers are long."""
    jobs = [row(at, tier="niw", prompt=4_000, output=50) for at in range(0, END // 2, 5 * SECOND)]
    rows = [*waves(0, END, period=70 * MINUTE), *jobs]
    if not other:
        return rows
    rows = [one for one in rows if one[0] < CUT]
    return rows + list(waves(CUT, END, period=20 * MINUTE, model="small")) + [row(CUT, output=7_000, prompt=100)] * 50


# ------------------------------------------------------------------------------------------------ equal terms


@pytest.fixture(scope="module")
def simulations() -> dict[str, Simulation]:
    played = trace(settings_of("reactive"), [row(0)], window=MINUTE)
    return {name: Simulation(settings_of(name), played) for name in NAMES}


def test_all_hold_the_same_gpus_at_the_start(simulations: dict[str, Simulation]) -> None:
    held = {}
    for name, simulation in simulations.items():
        fleet = simulation.run.fleet
        counts = [[0, 0], [0, 0]]
        for pool in fleet.pools:
            counts[pool.region][pool.model] += fleet.serving(pool.number)
            assert fleet.serving(pool.number) == sum(fleet.counts[pool.number][1:]), f"{name}: {pool.name}"
        held[name] = counts, [fleet.held(k) for k in range(len(fleet.stocks))], fleet.ledger.starts
    assert held == dict.fromkeys(NAMES, ([[3, 3], [3, 3]], [48, 48], 0))


def test_all_walk_the_regions_in_the_same_order(simulations: dict[str, Simulation]) -> None:
    """Roles divide an endpoint, they never send a request past a nearer region."""
    for name, simulation in simulations.items():
        layout = simulation.run.layout
        roles = len(layout.roles)
        for g, m, k in np.ndindex(*layout.walk.shape[:3]):
            walk = [int(one) for one in layout.walk[g, m, k] if one >= 0]
            regions = [one // roles // len(layout.names.models) for one in walk]
            assert list(dict.fromkeys(regions)) == [g, 1 - g], name
            assert regions == sorted(regions, key=[g, 1 - g].index), name
        assert layout.rtt.tolist() == simulations["reactive"].run.layout.rtt.tolist()


@pytest.fixture(scope="module", params=NAMES)
def run(request: pytest.FixtureRequest) -> Run:
    settings = settings_of(request.param)
    return simulate(settings, trace(settings, demand(), window=END), debug=True)


def test_all_pay_the_same_delays(run: Run) -> None:
    starts = begun(run)
    assert starts, "the waves must have asked for more instances"
    for one in starts:
        assert one.ready - one.asked == DELAYS[one.source]


def test_all_are_looked_at_with_the_same_period_and_age(run: Run) -> None:
    looks = [(entry.now, entry.event, entry.decisions) for entry in run.journal if isinstance(entry.event, Observed)]
    assert looks
    for now, event, decisions in looks:
        assert now % run.scenario.strategy.check == 0
        assert now - event.scraped < run.scenario.signals.scrape
        assert {decision.age for decision in decisions} <= {now - event.scraped}


def test_all_serve_everything_before_it_is_judged(run: Run) -> None:
    assert (run.requests["finish"] > run.requests["arrival"]).all()
    assert not [entry for entry in run.journal if isinstance(entry.event, Solved | SolvedAhead) and entry.event.plan is None]


# ------------------------------------------------------------------------------------------------ the future


def until(played: Run, end: Micros) -> list[bytes]:
    """The journal up to and including an instant, in bytes."""
    return [msgspec.json.encode(entry) for entry in played.journal if entry.now <= end]


def asked(entries: list[Entry]) -> list[Micros]:
    """When work was asked for."""
    return [one.now for one in entries for action in one.actions if isinstance(action, FitAsked | Solve | SolveAhead)]


@pytest.mark.parametrize("name", ["lt-i", "lt-ua", "foresight", "chiron"])
def test_what_has_not_happened_changes_nothing(name: str) -> None:
    settings = settings_of(name)
    one, other = (simulate(settings, trace(settings, demand(other=kind), window=END)) for kind in (False, True))
    assert until(one, CUT) == until(other, CUT)
    assert until(one, END) != until(other, END), "what happens then must matter later"
    if name != "chiron":
        assert len([now for now in asked(one.journal) if now < CUT]) >= 4, "plans were made before the cut"
        assert max(asked(one.journal)) > CUT
    finish, again = (played.requests["finish"][played.requests["arrival"] < CUT] for played in (one, other))
    assert (np.where(finish < CUT, finish, CUT) == np.where(again < CUT, again, CUT)).all()


def test_the_journal_of_a_plan_is_the_same_for_the_same_past_only() -> None:
    """The law above can fail: a change one bin before the cut shows in the next forecast and in the plan made from it."""
    settings = settings_of("foresight")
    rows = demand()
    earlier: Trace = trace(settings, [*rows, *[row(80 * MINUTE, model="small", prompt=7_000)] * 10], window=END)
    one, other = simulate(settings, trace(settings, rows, window=END)), simulate(settings, earlier)
    assert until(one, 80 * MINUTE) == until(other, 80 * MINUTE)
    assert until(one, 91 * MINUTE) != until(other, 91 * MINUTE)
    assert HOUR in asked(one.journal)
