"""A fleet that may come down to nothing: woken by requests, left when idle, or refused with the reason, by all strategies.

A start takes ten minutes for a VM and ten for the weights (`tests/core/small.py`). Read next: `core/zero.py`,
`test_kernel_against_reference.py` for what the kernel does with who waits.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import UNSET
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros
from sageserve.cli.main import app
from sageserve.core.actions import Blocked, Reason
from sageserve.core.events import InstanceLost, InstanceReady
from sageserve.core.strategies import STRATEGIES, kind_of, may_sleep
from sageserve.live.simulated_only import refuse_simulated_only
from sageserve.sim.kernel.state import DONE, PLACE, SHED
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, Simulation, simulate
from tests.core.small import TIERS, Row, row, scenario, trace

NONE = {"start": 0, "minimum": 0, "maximum": 4}
SLEEPERS = sorted(set(STRATEGIES) - {"hpa"})
COLD = 20 * MINUTE
NOW = """extends: {}
models: {{m: {{engines: {{g: {{base_ms: null, prefill_us_per_token: null, prefill_floor_ms: null}}}}}}}}
"""  # the engine of a reported scenario, as it is written today


def zero(name: str = "reactive", **changes: object) -> Scenario:
    sections: dict[str, object] = {"fleet": NONE, "strategy": {"name": name}, "spot": {"donate": False}}
    return scenario(gpus=80, **(sections | changes))


def played(settings: Scenario, rows: list[Row], window: Micros = 3 * HOUR) -> Run:
    return simulate(settings, trace(settings, rows, window=window), debug=True)


def reasons(run: Run) -> list[tuple[Reason, int]]:
    return [(one.reason, one.done) for line in run.journal for one in line.decisions if one.done]


@pytest.mark.parametrize("name", SLEEPERS)
def test_the_first_request_waits_for_the_start_and_the_endpoint_sleeps_again(name: str) -> None:
    run = played(zero(name), [row(3 * MINUTE), row(HOUR, region="west")])
    first, second = run.requests["first"] - run.requests["arrival"]
    most = COLD + (45 * SECOND if name == "keda" else SECOND)  # which asks every 30 s, when the fleet is looked at
    assert COLD < first < most
    assert COLD < second < most
    ready = [line.now for line in run.journal if isinstance(line.event, InstanceReady)]
    assert (run.requests["first"] - ready < SECOND).all(), "whoever waits is let in at once"
    assert [reason for reason, _ in reasons(run)] == [Reason.WOKEN, Reason.IDLE] * 2
    found = summarise(run, 1.0)
    assert found.gpu_hours.floor == 0 < found.gpu_hours.total
    assert run.fleet.held(0) == run.fleet.held(1) == 0


@pytest.mark.parametrize("name", SLEEPERS)
def test_where_nobody_asks_there_is_nothing(name: str) -> None:
    settings = zero(name)
    rows = trace(settings, [row(150 * MINUTE, model="small")], window=3 * HOUR)
    run = simulate(settings, rows, debug=True)
    pools = {pool.name: sum(run.fleet.ledger.gpu_us[pool.number]) for pool in run.layout.pools}
    assert not any(time for pool, time in pools.items() if "/big/" in pool or "west" in pool)


def test_what_is_awake_is_left_only_without_work() -> None:
    settings = zero(fleet=NONE | {"start": 1, "idle": "5m"})
    asked = [row(at * MINUTE, model="big") for at in range(0, 40, 4)]
    run = played(settings, asked, HOUR)
    left = {run.layout.pools[one.pool].name: line.now for line in run.journal for one in line.decisions}
    assert 41 * MINUTE <= left["east/big/h100"] <= 42 * MINUTE, "five minutes after the last request, at the next look"
    assert left["east/small/h100"] == left["west/big/h100"] == 5 * MINUTE
    assert (run.requests["state"] & PLACE == DONE).all()


def test_batch_work_wakes_one_endpoint_and_keeps_it_until_the_queue_is_empty() -> None:
    run = played(zero(), [row(MINUTE + n, tier="niw", output=400) for n in range(200)])
    assert reasons(run)[0] == (Reason.WOKEN, 1)
    assert sum(reason is Reason.WOKEN for reason, _ in reasons(run)) == 1
    assert (run.requests["state"] & PLACE == DONE).all()


def test_a_region_without_stock_is_passed_over_and_said_so_where_there_is_no_other() -> None:
    tree = {"east/*": {"start": 0, "minimum": 0}, "west/*": {"start": 0, "minimum": 0}}
    settings = zero(
        fleet={"start": 1, "minimum": 1, "maximum": 4, "endpoints": tree | {"east/small": {"start": 4, "minimum": 4}}}
    )
    packed = settings.model_copy(update={"regions": scenario(gpus=32).regions})
    run = played(packed, [row(MINUTE)], HOUR)
    (woken,) = [one for line in run.journal for one in line.decisions if one.reason is Reason.WOKEN]
    assert run.layout.pools[woken.pool].name == "west/big/h100"
    only = packed.model_copy(update={"tiers": {n: t.model_copy(update={"regions": "origin"}) for n, t in packed.tiers.items()}})
    simulation = Simulation(only, trace(only, [row(MINUTE)]))
    run = simulation.play(interrupted=lambda: simulation.run.now >= 10 * MINUTE)
    tried = [one for line in run.journal for one in line.decisions if one.reason is Reason.WOKEN]
    assert {one.blocked for one in tried} == {Blocked.NO_STOCK}
    assert (run.kernel.held.sum(), run.requests["first"][0]) == (1, UNSET)


def test_what_is_held_is_bounded_by_admission_and_the_rest_is_turned_away_at_once() -> None:
    settings = zero(admission={"queued": 1})
    most = 1 * settings.models["big"].engines["h100"].max_sequences
    run = played(settings, [row(MINUTE + n) for n in range(most + 7)], HOUR)
    places = run.requests["state"] & PLACE
    assert (places == np.where(np.arange(most + 7) < most, DONE, SHED)).all()


def test_a_start_that_fails_and_an_instance_that_is_lost_are_asked_for_again() -> None:
    failing = zero(faults={"start_failure": 0.7})
    run = played(failing, [row(MINUTE)], 9 * HOUR)
    assert (run.fleet.ledger.failures > 0, run.requests["state"][0] & PLACE) == (True, DONE)
    origin = TIERS | {"iw-f": {"ttft": "1s", "regions": "origin"}}
    lost = zero(faults={"outages": [{"region": "east", "at": "25m", "length": "1m"}]}, tiers=origin)
    run = played(lost, [row(MINUTE), row(25 * MINUTE - 15_000, output=400)])
    assert any(isinstance(line.event, InstanceLost) for line in run.journal)
    assert [reason for reason, _ in reasons(run)] == [Reason.WOKEN] * 3 + [Reason.IDLE], "one start fails in the outage"
    assert run.requests["state"][1] & PLACE == DONE


def test_one_that_is_full_at_its_maximum_is_relieved_by_one_that_sleeps() -> None:
    settings = zero(fleet={"start": 1, "minimum": 1, "maximum": 1, "endpoints": {"west/*": {"start": 0, "minimum": 0}}})
    flood = [row(at * SECOND, prompt=6_000, output=2) for at in range(0, 30 * 60, 2) for _ in range(20)]
    run = played(settings, flood, 30 * MINUTE)
    assert (Reason.WOKEN, 1) in reasons(run)
    served = run.requests["instance"] // run.layout.slots
    assert (np.bincount(served[served >= 0], minlength=run.layout.endpoints) > 0).sum() == 2


def test_a_plan_that_wants_one_leaves_asleep_and_one_that_wants_more_starts_ahead() -> None:
    settings = zero("lt-i", fleet=NONE | {"start": 1, "idle": "1m"})
    run = played(settings, [row(n * MINUTE) for n in range(20)], 4 * HOUR)
    assert not any(reason is Reason.PLANNED and done > 0 for reason, done in reasons(run))
    assert run.fleet.held(0) == run.fleet.held(1) == 0


def test_keda_counts_what_its_metric_says_and_may_keep_its_own_minimum() -> None:
    settings = zero("keda")
    run = played(settings, [row(at * 10 * SECOND) for at in range(360)], 2 * HOUR)
    naps = sum(reason is Reason.IDLE for reason, _ in reasons(run))
    assert naps > 1, "requests that are served at once never wait, so that KEDA sees nothing to do"
    busy = zero("keda", strategy={"name": "keda", "keda": {"metrics": [{"signal": "busy", "target": 0.5}], "activation": 0.001}})
    run = played(busy, [row(at * 10 * SECOND) for at in range(360)], 2 * HOUR)
    assert sum(reason is Reason.IDLE for reason, _ in reasons(run)) == 1
    assert may_sleep(settings)
    assert not may_sleep(zero("keda", strategy={"name": "keda", "keda": {"minimum": 1}}))


def test_who_cannot_says_why() -> None:
    settings = zero("hpa")
    with pytest.raises(ConfigError, match=r"fleet\.minimum: 0: hpa keeps an instance of every model") as refused:
        Simulation(settings, trace(settings, [row(0)]))
    assert (
        refused.value.hint == "give --set fleet.minimum=1 --set fleet.start=1, or let another strategy scale from 0, such as keda"
    )
    ends = {"start": 1, "minimum": 1, "endpoints": {"east/*": {"start": 0, "minimum": 0}}}
    with pytest.raises(ConfigError) as refused:
        kind_of(zero("hpa", fleet=ends))
    assert "give east/big a minimum and a start of 1 in fleet.endpoints" in (refused.value.hint or "")
    refuse_simulated_only(zero())
    with pytest.raises(ConfigError, match="who waits for one is not seen"):
        refuse_simulated_only(zero(), ours=False)
    others = zero(live={"actuator": "fixed"})
    with pytest.raises(ConfigError, match=r"live\.actuator is fixed: engines are others', and none can be woken"):
        refuse_simulated_only(others)
    refuse_simulated_only(zero("fixed", live={"actuator": "fixed"}))


def test_fleets_of_constant_size_hold_none_where_none_is_asked_for() -> None:
    settings = zero("fixed")
    found = summarise(played(settings, [row(0)], 10 * MINUTE), 1.0)
    assert (found.gpu_hours.total, found.gpu_hours.floor, found.requests.finished) == (0.0, 0.0, 0)
    assert summarise(played(zero("fixed:2"), [row(0)], 10 * MINUTE), 1.0).requests.finished == 1


def test_the_bound_asks_for_nothing_where_nothing_arrives() -> None:
    settings = zero()
    assert oracle_bound(settings, trace(settings, [], window=10 * MINUTE)).gpu_hours == 0.0
    assert oracle_bound(settings, trace(settings, [row(0)], window=10 * MINUTE)).gpu_hours > 0.0


@pytest.mark.parametrize("name", ["reactive", "siloed", "chiron", "lt-ua", "foresight", "keda"])
def test_a_reported_fleet_that_was_played_with_one_has_none(shared_cases: Path, tmp_path: Path, name: str) -> None:
    """Its engine takes two minutes for a VM and three for its weights; the first of 362 requests comes after ten."""
    case, now = shared_cases / "zero", tmp_path / "now.yaml"
    now.write_text(NOW.format(case / "one.yaml"), "utf-8")
    words = ["simulate", str(now), "--trace", str(case / "z.csv"), "--json", "--strategy", name]
    words += ["--set", "models.m.engines.g.iteration_ms=[[1, 10.1], [513, 61.3]]"]
    awake, asleep = (
        json.loads(CliRunner().invoke(app, [*words, "--set", f"fleet.start={n}", "--set", f"fleet.minimum={n}"]).stdout)
        for n in (1, 0)
    )
    assert (awake["gpu_hours"]["floor"], asleep["gpu_hours"]["floor"]) == (pytest.approx(awake["gpu_hours"]["total"]), 0)
    assert asleep["gpu_hours"]["total"] <= awake["gpu_hours"]["total"] - 595 / 3600
    assert awake["requests"]["finished"] == 362
    assert asleep["requests"]["finished"] >= 361, "in the crowd after a start admission turns one away"
    assert 240 < asleep["tiers"]["iw"]["ttft_s"]["p99"] < 300
