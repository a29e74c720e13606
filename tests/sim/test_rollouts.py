"""Rollouts played: a good version replaces the old one, a slow one is taken back, and results say what that cost.

Two regions of six instances, four requests at once; a prompt of 5,000 tokens takes the old engine 110 ms. Read next:
`src/sageserve/sim/revisions.py`, `tests/core/test_rollout.py` for the laws.
"""

import pytest
from msgspec import UNSET

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import UNSET as NEVER_CAME
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.actions import RolloutStep
from sageserve.core.fleet import State
from sageserve.data.results.summary import RolloutSummary
from sageserve.data.scenarios.load import load_scenario
from sageserve.live.simulated_only import refuse_simulated_only
from sageserve.show.limits import rolled_out
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, simulate
from tests.core.small import ENGINE, row, scenario, trace

WINDOW = 40 * MINUTE
ROWS = [row(k * SECOND + j, prompt=5_000, output=2) for k in range(WINDOW // SECOND) for j in range(4)]


def settings(**changes: object) -> Scenario:
    load = {"local": "30s"}
    models = {name: {"context": 8_000, "engines": {"h100": ENGINE}, "load": load} for name in ("big", "small")}
    one = {"model": "big", "at": "5m", "canary": 0.5, "judge_after": "2m", "judge_requests": 50}
    return scenario(
        gpus=80,
        models=models,
        rollouts=[one | changes],
        fleet={"start": 4, "minimum": 1, "maximum": 6},
        strategy={"name": "fixed"},
        tiers={"iw-f": {"ttft": "200ms"}, "niw": {"deadline": "24h"}},
    )


def play(**changes: object) -> tuple[Run, RolloutSummary, str]:
    there = settings(**changes)
    run = simulate(there, trace(there, ROWS, window=WINDOW), debug=True)
    summary = summarise(run, 1.0)
    assert summary.rollouts is not UNSET
    return run, summary.rollouts[0], rolled_out(summary)[0]


def revisions(run: Run) -> set[int]:
    pools = [pool for pool in run.layout.pools if pool.model == 0]
    rows = (i for pool in pools for i in range(pool.begin, pool.end))
    return {run.fleet.revision[i] for i in rows if run.fleet.state[i] is State.SERVING}


def test_a_faster_version_replaces_the_old_one_and_serves_faster() -> None:
    run, found, words = play(engine_time=0.5)
    assert (found.step, found.why, found.missed_more) == ("done", "kept", 0)
    assert revisions(run) == {1}
    last, first = run.requests[-4:], run.requests[:4]
    assert (last["first"] - last["arrival"]).max() < 0.6 * (first["first"] - first["arrival"]).max()
    assert found.surplus_gpu_hours > 0
    assert "done: no promise is broken that the old version keeps" in words


def test_a_slow_version_is_taken_back_and_what_it_broke_is_counted() -> None:
    run, found, words = play(engine_time=3)
    assert (found.step, found.why) == ("undone", "broken")
    assert RolloutStep.ROLLING.value not in {step.partition(":")[0] for step in found.steps}
    assert revisions(run) == {0}
    late = run.requests["first"] - run.requests["arrival"] > 200_000
    assert found.new.missed == found.missed_more == int(late.sum()) > 0, "every late one is one of its own"
    assert "it breaks a promise that the old version keeps better" in words


def test_with_a_surge_of_none_no_gpu_more_is_ever_held() -> None:
    run, found, _ = play(surge=0)
    assert (found.step, found.surplus_gpu_hours) == ("done", 0.0)
    started = run.timeline.column("serving") + run.timeline.column("starting")
    assert int(started[:, 0].max()) == 4


def test_each_request_is_told_by_the_version_that_served_it() -> None:
    run, found, _ = play()
    assert run.revisions is not None
    of = run.revisions.of(run.requests)
    inside = (run.requests["arrival"] >= 5 * MINUTE) & (run.requests["arrival"] < round((found.ended_s or 0) * SECOND))
    assert (found.old.requests, found.new.requests) == (int((inside & (of == 0)).sum()), int((inside & (of == 1)).sum()))
    assert set(of[run.requests["arrival"] < 5 * MINUTE].tolist()) == {0}
    assert set(of[run.requests["arrival"] > round((found.ended_s or 0) * SECOND) + SECOND].tolist()) == {1}
    nobody = run.requests[:1].copy()
    nobody["instance"] = NEVER_CAME
    assert run.revisions.of(nobody).tolist() == [NEVER_CAME]


def test_a_fleet_without_rollouts_says_nothing_of_them() -> None:
    there = scenario()
    summary = summarise(simulate(there, trace(there, ROWS[:40])), 1.0)
    assert summary.rollouts is UNSET
    assert rolled_out(summary) == []


def test_a_model_that_is_not_there_and_a_fleet_that_runs_are_refused() -> None:
    with pytest.raises(ConfigError, match="model 'bigger' is not defined"):
        load_scenario("quickstart", overrides=['rollouts=[{"model": "bigger", "at": "1h"}]'])
    with pytest.raises(ConfigError, match="begins one when it is told"):
        refuse_simulated_only(settings())
