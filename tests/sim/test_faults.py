"""What strategies see of engines, and engines that are not as they believe: late, lost and noisy signals, slow engines, waves.

Read next: `src/sageserve/sim/faults.py`; `test_outages.py` for regions that are lost; `bench/robust.py`, what it does to a fleet.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.events import EndpointSeen, EnginesSeen, Observed, SpotTaken
from sageserve.core.perf import (
    first_time,
    iteration_time,
    lone_time,
    prefill_work,
    profile_rows,
    request_work,
    shared_time,
    slowed,
)
from sageserve.data.profiles.library import profile_named
from sageserve.sim.faults import SimulatedSight
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.reach import out_of_reach
from sageserve.sim.results.summary import summarise, work_gpu_hours
from sageserve.sim.run import Run, simulate
from tests.core.small import ENGINE, TIERS, row, scenario, trace

ALONE = {"start": 1, "minimum": 1, "maximum": 1}
LOOKS = 40  # of two endpoints, every 15 s


def looks() -> Iterator[tuple[int, EnginesSeen, Observed]]:
    """Endpoint 0 fills up by a hundredth and a request at each look, endpoint 1 is always half full."""
    for k in range(LOOKS):
        seen = EndpointSeen(k / 100, k / 200, k / 100), EndpointSeen(0.5, 0.5, 0.5)
        yield 15 * k * SECOND, EnginesSeen(15 * k * SECOND, (k, 20), (2 * k, 0)), Observed(15 * k * SECOND, seen, (k,))


def shown(**faults: object) -> list[tuple[EnginesSeen, Observed]]:
    sight = SimulatedSight(scenario(faults=faults))
    return [sight.of(*one) for one in looks()]


def test_without_faults_all_is_seen_as_it_is() -> None:
    assert shown() == [one[1:] for one in looks()]


def test_late_signals_are_those_of_a_minute_ago_and_the_queue_is_our_own() -> None:
    found, there = shown(signals_late="60s"), [one[1:] for one in looks()]
    for k, (engines, observed) in enumerate(found):
        before = there[max(0, k - 4)]
        assert engines == before[0]
        assert (observed.scraped, observed.endpoints) == (before[1].scraped, before[1].endpoints)
        assert observed.batch_waiting == (k,)
        assert observed.blind == ()


def test_lost_signals_are_those_before_for_a_whole_minute_and_said_to_be_blind() -> None:
    there = [one[1:] for one in looks()]
    last, lost = {0: there[0][1].endpoints[0], 1: there[0][1].endpoints[1]}, set()
    for k, (engines, observed) in enumerate(shown(signals_lost=0.4)):
        for e in (0, 1):
            if e not in observed.blind:
                last[e] = there[k][1].endpoints[e]
            assert observed.endpoints[e] == last[e] or k < 4, "before anything was seen the first look counts"
        assert engines.running[0] == round(100 * observed.endpoints[0].seen)
        lost |= {(e, k // 4, k) for e in observed.blind}
    minutes = {(e, minute) for e, minute, _ in lost}
    assert len(lost) == 4 * len(minutes)
    assert 3 <= len(minutes) <= 13, "of 20, two fifths"


def test_noise_is_around_what_is_there_and_the_same_in_all_numbers_of_a_look() -> None:
    for engines, observed in shown(signals_noise=0.5):
        here = observed.endpoints[1]
        assert here.seen == here.kv == here.busy
        assert engines.running[1] == round(40 * here.seen)
    factors = [np.log(observed.endpoints[1].seen / 0.5) for _, observed in shown(signals_noise=0.5)]
    assert 0.3 < np.std(factors) < 0.7
    assert abs(np.mean(factors)) < 0.25


def slow(times: float) -> Scenario:
    return scenario(faults={"engine_time": times}, fleet=ALONE)


def played(settings: Scenario) -> Run:
    rows = [row(k * 20 * SECOND, prompt=1_000, output=100) for k in range(5)]
    return simulate(settings, trace(settings, rows, window=5 * MINUTE), debug=True)


@pytest.mark.parametrize("times", [1.25, 0.5])
def test_engines_take_longer_than_is_believed_of_them(times: float) -> None:
    believed, true = played(slow(1.0)), played(slow(times))
    for name in ("first", "finish"):
        took = [run.requests[name] - run.requests["arrival"] - run.layout.profiles[0]["entry"] for run in (believed, true)]
        assert took[1] == pytest.approx(took[0] * times, abs=2)
    assert true.kernel.demand_work.tolist() == believed.kernel.demand_work.tolist(), "what is planned with"
    assert true.kernel.mixes.tolist() == believed.kernel.mixes.tolist()


def test_all_that_an_iteration_is_made_of_takes_longer_and_nothing_else() -> None:
    """Of an engine whose ranks keep in step, so that no term of the formula is zero."""
    rows = profile_rows([profile_named("deepseek-v3/h200/tp1dp8").profile])
    slower = slowed(rows, 1.5)
    for work in (
        lambda row: iteration_time(row, 500.0, 250_000.0, 40, 60_000),
        lambda row: lone_time(row, 700.0),
        lambda row: shared_time(row, 3_000.0),
        lambda row: first_time(row, 20_000, 500),
        lambda row: prefill_work(row, 9_000, 1_000),
        lambda row: request_work(row, 3_000, 100, 400.0),
    ):
        assert work(slower[0]) == pytest.approx(1.5 * work(rows[0]))
    same = [name for name in rows.dtype.names or () if (slower[name] == rows[name]).all()]
    assert {"entry", "weight", "kv_tokens", "max_sequences", "max_batched", "per_token", "ranks"} <= set(same)


@pytest.mark.parametrize("times", [1.25, 0.5])
def test_what_is_reckoned_of_a_run_and_the_bound_are_of_engines_as_they_are(times: float) -> None:
    tiers = {**TIERS, "iw-f": {"ttft": "170ms"}}  # a prompt of 7,000 tokens takes 155 ms with its way, if all is as believed
    last = row(2 * MINUTE - 1, prompt=7_000, output=900, tier="iw-n")
    owed, bounds = [], []
    for settings in (scenario(tiers=tiers, fleet=ALONE), scenario(tiers=tiers, fleet=ALONE, faults={"engine_time": times})):
        asked = trace(settings, [row(k * 20 * SECOND, prompt=7_000, output=100) for k in range(1, 5)] + [last], window=2 * MINUTE)
        run = simulate(settings, asked)
        owed.append(work_gpu_hours(run)[0])
        late = settings.faults.engine_time > 1
        assert summarise(run, 1.0).tiers["iw-f"].missed == ({"alone": 4} if late else {})
        assert [one.share for one in out_of_reach(settings, run.layout, asked)] == ([0.0] if late else [])
        batch = trace(settings, [row(k * SECOND // 100, prompt=7_000, output=2, tier="niw") for k in range(2_400)])
        bounds.append(oracle_bound(settings, batch).gpu_hours)
    assert owed[1] == pytest.approx(owed[0] * times)
    other = 2 * 8 / 60  # what the model that nobody asks for keeps, in two regions for a minute
    assert bounds[1] - other == pytest.approx((bounds[0] - other) * times, rel=1e-3)


def test_instances_that_would_have_been_enough_are_as_slow_as_those_there_are() -> None:
    settings = scenario(fleet=ALONE, strategy={"name": "reactive"})
    run = simulate(settings, trace(settings, [row(k * SECOND // 40, prompt=2_000, output=2) for k in range(7_200)]))
    (one,) = summarise(run, 1.0).starved
    run.scenario = scenario(fleet=ALONE, strategy={"name": "reactive"}, faults={"engine_time": 2})
    (slower,) = summarise(run, 1.0).starved
    assert one.more < slower.more


def test_in_a_wave_the_cloud_takes_all_that_is_donated_and_nothing_else() -> None:
    models = {"big": {"context": 8_000, "engines": {"h100": ENGINE}}, "small": {"context": 8_000, "engines": {"h100": ENGINE}}}
    wave = {"region": "east", "at": "20m", "length": "10m", "donated_only": True}
    there = scenario(
        models=models, faults={"outages": [wave]}, spot={"notice": "20s"}, fleet={"start": 3, "minimum": 1, "maximum": 3}
    )
    run = simulate(there, trace(there, [row(0)], window=40 * MINUTE), debug=True)
    taken = [(line.now, line.event.instance) for line in run.journal if isinstance(line.event, SpotTaken)]
    assert {at for at, _ in taken} == {20 * MINUTE}
    assert len(taken) == 4, "two of each model had nothing to do"
    assert all(instance < run.layout.instances // 2 for _, instance in taken)
    assert not any("outages" in note for note in run.notes)
