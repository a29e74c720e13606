"""A region is lost for ten minutes: who is sent again, who is broken off, and what can be started there.

Read next: `src/sageserve/sim/world.py`, docs/reference/kernel.md ("When an instance is lost"); `mutants/outages.py`.
"""

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.events import InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.core.fleet import State
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.kernel.state import DONE, PLACE, SHED
from sageserve.sim.run import Run, simulate
from tests.core.small import ENGINE, row, scenario, trace

AT, LENGTH = 20 * MINUTE, 10 * MINUTE
EAST_FIRST = 50_000  # us: the engine needs 110 ms for the prompt of 5,000 tokens
ROWS = [
    row(AT - EAST_FIRST, prompt=5_000, output=10),  # no token yet: sent again
    row(AT - SECOND, output=1_000),  # in the middle of its answer: broken off
    row(AT - 2 * SECOND, tier="niw", output=1_000),  # batch work: queued again
    row(AT - 2 * SECOND, region="west", output=1_000),  # elsewhere: goes on
    row(AT + 5 * MINUTE),  # comes in the lost region meanwhile
    row(AT + 55 * MINUTE),  # and when it is back
]


def settings(*, start: int = 2) -> Scenario:
    load = {"reclaim": "1m", "local": "30s"}
    models = {name: {"context": 8_000, "engines": {"h100": ENGINE}, "load": load} for name in ("big", "small")}
    outages = [{"region": "east", "at": "20m", "length": "10m"}]
    return scenario(models=models, faults={"outages": outages}, fleet={"start": start, "minimum": 1, "maximum": 4})


@pytest.fixture(scope="module")
def run() -> Run:
    there = settings()
    return simulate(there, trace(there, ROWS, window=90 * MINUTE), debug=True)


def region_of(run: Run, instance: int) -> int:
    return instance // (run.layout.instances // 2)


def in_east(run: Run, instance: int) -> bool:
    return region_of(run, instance) == 0


def test_requests_without_a_token_are_sent_elsewhere_and_answers_are_broken_off(run: Run) -> None:
    rows = run.requests
    order = [int(np.flatnonzero(rows["arrival"] == at)[0]) for at in sorted({one[0] for one in ROWS})]
    batch, west = 0, 1  # both came two seconds before
    broken, again, meanwhile, later = order[1:]
    assert int(rows["state"][broken]) & PLACE == SHED
    assert AT - SECOND < rows["first"][broken] < AT, "it had a token"
    assert AT + 110_000 <= rows["first"][again] < AT + 130_000, "sent again at once"
    assert all(int(rows["state"][q]) & PLACE == DONE for q in (batch, west, again, meanwhile, later))
    assert [region_of(run, int(rows["instance"][q])) for q in (again, west, meanwhile, later)] == [1, 1, 1, 0]
    assert rows["first"][batch] > AT
    assert "1 requests that had a first token were broken off" in run.notes[-1]


def test_what_was_there_is_gone_and_starts_fail_until_it_is_over(run: Run) -> None:
    lost = [line for line in run.journal if isinstance(line.event, InstanceLost)]
    assert {line.now for line in lost} == {AT}
    assert len(lost) == 2, "one of each model; the others had been donated"
    failed = [(line.now, line.event.why) for line in run.journal if isinstance(line.event, StartFailed)]
    assert failed
    assert all(AT < at <= AT + LENGTH and why == "the region is lost" for at, why in failed)
    ready = [
        line.now for line in run.journal if isinstance(line.event, InstanceReady) and region_of(run, line.event.instance) == 0
    ]
    assert not [at for at in ready if AT <= at < AT + LENGTH]
    assert [at for at in ready if at >= AT + LENGTH], "what was below the minimum came back"


def test_donated_and_starting_instances_of_the_region_are_lost_too() -> None:
    there = settings(start=3)
    flood = [row(AT - 20 * SECOND + k * 10_000, region="east", model="small", prompt=6_000, output=2) for k in range(1_800)]
    run = simulate(there, trace(there, [*flood, row(AT + MINUTE)], window=40 * MINUTE), debug=True)
    taken = [line.now for line in run.journal if isinstance(line.event, SpotTaken) and in_east(run, line.event.instance)]
    assert AT in taken, "two of three had nothing to do and were donated"
    assert any(line.now == AT and isinstance(line.event, StartFailed) for line in run.journal), "one was on its way"
    assert State.SERVING in run.fleet.state


def test_a_region_that_is_not_there_cannot_be_lost() -> None:
    with pytest.raises(ConfigError, match=r"faults\.outages\.0\.region"):
        load_scenario("quickstart", overrides=["faults.outages=[{region: mars, at: 1h, length: 1h}]"])
