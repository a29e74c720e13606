"""Whole runs in which everything happens at once: bursts, failed and slow starts, evictions, stock and slots that run out.

Every law of the fleet is checked after every event; here are those that need the whole run: two regions, two models.
Read next: `lives.py`, `tests/core/test_controller.py` for the controller alone.
"""

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Trace
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE, NEVER, SECOND
from sageserve.core.actions import Blocked, Source
from sageserve.core.events import SpotTaken, StartFailed
from sageserve.core.fleet import State
from sageserve.sim.run import Run, Simulation
from tests.core.small import ENGINE, row, scenario, trace
from tests.laws.lives import begun, check_gpus_change_hands_one_at_a_time, check_work_is_inside_terms

LENGTH = 2 * HOUR
FAULTS = {"start_failure": 0.3, "start_spread": 0.5}
GPUS = {"reactive": 40, "siloed": 56}  # per region: the first instances take 32
CASES = [(strategy, seed) for strategy in ("reactive", "siloed") for seed in (1, 2)]


def stormy(strategy: str, seed: int) -> Scenario:
    """Quick starts, so that there are many of them, and little stock, so that they are fought over."""
    load = {"reclaim": "10s", "local": "30s"}
    settings = scenario(
        gpus=GPUS[strategy],
        seed=seed,
        models={name: {"context": 8_000, "engines": {"h100": ENGINE}, "load": load} for name in ("big", "small")},
        fleet={"start": 2, "minimum": 1, "maximum": 4},
        strategy={"name": strategy},
        faults=FAULTS,
        spot={"reclaimed_by_cloud_per_hour": 6},
    )
    return settings.model_copy(update={"gpus": {"h100": settings.gpus["h100"].model_copy(update={"start": MINUTE})}})


def storms(settings: Scenario) -> Trace:
    """A murmur everywhere, and every ten minutes a burst that would take ten instances of one model, or five of both."""
    draw = stream(settings.seed, "storms")
    names, regions, tiers = ("big", "small"), ("east", "west"), ("iw-f", "iw-n", "niw")
    rows = []
    for number, start in enumerate(range(0, LENGTH, 10 * MINUTE)):
        bursting, region = (names if number % 2 else names[number // 2 % 2 :][:1]), regions[int(draw.integers(2))]
        times, kinds = draw.integers(0, 2 * MINUTE, 8_000).tolist(), draw.integers(0, 6, 8_000).tolist()
        rows += [
            row(start + at, model=bursting[kind % len(bursting)], region=region, tier=tiers[kind % 3], prompt=6_000, output=20)
            for at, kind in zip(times, kinds, strict=True)
        ]
    murmur = zip(draw.integers(0, LENGTH, 2_000).tolist(), draw.integers(0, 4, 2_000).tolist(), strict=True)
    rows += [row(at, model=names[kind % 2], region=regions[kind // 2], prompt=200, output=1 + kind) for at, kind in murmur]
    return trace(settings, rows, window=LENGTH)


def play(strategy: str, seed: int) -> tuple[Run, list[tuple[int, ...]]]:
    settings = stormy(strategy, seed)
    simulation = Simulation(settings, storms(settings), debug=True)
    first = list(simulation.run.fleet.gpus)
    return simulation.play(), first


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def played(request: pytest.FixtureRequest) -> tuple[Run, list[tuple[int, ...]]]:
    return play(*request.param)


def test_everything_that_can_happen_happens(played: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, _ = played
    blocked = {one.blocked for entry in run.journal for one in entry.decisions}
    assert {Blocked.NOT, Blocked.NO_STOCK, Blocked.NO_SLOT} <= blocked
    news = [type(entry.event) for entry in run.journal]
    assert news.count(StartFailed) == run.fleet.ledger.failures > 0
    assert news.count(SpotTaken) > 0
    assert {one.source for one in begun(run)} == {Source.SPOT, Source.GPUS, Source.VM}


def test_all_requests_are_served_and_none_outside_a_term(played: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, _ = played
    assert (run.requests["finish"] != UNSET).all()
    check_work_is_inside_terms(run)


def test_gpus_are_never_used_twice(played: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, first = played
    check_gpus_change_hands_one_at_a_time(run, first)


def test_slow_starts_are_slow_and_failed_ones_serve_nothing(played: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, _ = played
    medians = {Source.VM: 90 * SECOND, Source.GPUS: 30 * SECOND, Source.SPOT: 10 * SECOND}
    starts = begun(run)
    for one in starts:
        assert one.ready == NEVER or 0.1 * medians[one.source] < one.ready - one.asked < 10 * medians[one.source]
    failed = sum(one.ready == NEVER for one in starts) / len(starts)
    assert failed == pytest.approx(FAULTS["start_failure"], abs=0.2)


def test_hours_of_all_states_are_what_was_bought_to_the_microsecond(played: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, _ = played
    ledger = run.fleet.ledger
    assert ledger.closed
    held = sum(us for row in ledger.gpu_us for state, us in enumerate(row) if state != State.SPOT)
    donated = sum(row[State.SPOT] for row in ledger.gpu_us)
    assert held == sum(each.reserved_us + each.on_demand_us for each in ledger.purchases)
    assert donated == sum(each.donated_us for each in ledger.purchases)
    assert 0 < donated < held + donated <= 2 * GPUS[run.scenario.strategy.name] * LENGTH


def test_an_endpoint_never_goes_below_its_floor_or_beyond_its_slots(played: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, _ = played
    for name in ("serving", "starting", "reclaiming", "draining", "spot"):
        assert (run.timeline.column(name) >= 0).all()
    assert (run.timeline.column("serving") >= 1).all()
    held = [run.timeline.column(name) for name in ("serving", "starting", "reclaiming", "draining", "spot")]
    assert (np.sum(held, axis=0) <= 4).all()


def test_equal_seeds_give_equal_runs_and_others_do_not() -> None:
    one, again, other = (play("reactive", seed)[0] for seed in (1, 1, 2))
    assert one.journal == again.journal
    assert one.requests.tobytes() == again.requests.tobytes()
    assert one.journal != other.journal
