"""What a simulation refuses, and the odd but legal scenarios it plays: names with slashes, VMs that instances do not fill.

Read next: `src/sageserve/sim/run.py`.
"""

import pytest
from pydantic import ValidationError

from sageserve.base.config import Scenario
from sageserve.base.errors import Infeasible, TraceError
from sageserve.base.records import UNSET
from sageserve.base.units import DAY
from sageserve.data.scenarios.load import check
from sageserve.sim.run import simulate
from tests.core.small import ENGINE, PRICE, TIERS, row, scenario, trace


def single(name: str, gpu: str, *, gpus: int, per_instance: int, start: int) -> Scenario:
    """One region of this name with GPUs of this type, one model."""
    engine = ENGINE | {"gpu": gpu, "gpus": per_instance, "tp": per_instance}
    tree: dict[str, object] = {
        "name": "single",
        "gpus": {gpu: {"memory": "80GiB"}},
        "regions": {name: {"gpus": {gpu: {"gpus": gpus, "price": PRICE}}}},
        "models": {"big": {"context": 8_000, "engines": {gpu: engine}}},
        "tiers": TIERS,
        "fleet": {"start": start, "minimum": 1, "maximum": 8},
    }
    return check(Scenario.model_validate(tree))


def test_a_trace_coded_for_other_names_is_refused() -> None:
    other = scenario(tiers=dict(reversed(TIERS.items())))
    with pytest.raises(TraceError, match="coded for"):
        simulate(scenario(), trace(other, [row(0)]))


def test_instances_that_do_not_fit_into_vms_are_refused_and_not_left_out() -> None:
    settings = single("east", "h100", gpus=16, per_instance=5, start=3)  # 15 of 16 GPUs, but one instance per VM
    with pytest.raises(Infeasible, match="to begin with: only 2 fit into the stock"):
        simulate(settings, trace(settings, [row(0)]))


def test_names_with_slashes_and_a_part_of_a_vm_are_served() -> None:
    settings = single("us/east", "h100/sxm", gpus=4, per_instance=4, start=1)
    run = simulate(settings, trace(settings, [row(0, region="us/east")]), debug=True)
    assert (run.requests["finish"] != UNSET).all()


@pytest.mark.parametrize(
    "section",
    [
        {"signals": {"scrape": "0s"}},
        {"signals": {"half_life": "0s"}},
        {"strategy": {"check": "0s"}},
        {"strategy": {"planned": {"every": "0s"}}},
    ],
)
def test_a_period_of_zero_is_refused(section: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        scenario(**section)  # type: ignore[arg-type]  # the section is not `gpus`


def test_a_batch_tier_that_may_not_travel_needs_the_direct_feed() -> None:
    tiers = TIERS | {"niw": {"deadline": "24h", "regions": "origin"}}
    with pytest.raises(Infeasible, match="serves all regions"):
        scenario(tiers=tiers)
    settings = scenario(tiers=tiers, batch={"feed": "direct"})
    run = simulate(settings, trace(settings, [row(k, region="west", tier="niw") for k in range(50)]), debug=True)
    west = {i for pool in run.layout.pools if pool.region == 1 for i in range(pool.begin, pool.end)}
    assert set(run.requests["instance"].tolist()) <= west


def test_work_with_a_far_deadline_of_its_own_is_run_to_its_end() -> None:
    settings = single("east", "h100", gpus=8, per_instance=8, start=1)
    answer = 8_000 - 100
    rows = [row(0, tier="niw", prompt=100, output=answer) for _ in range(30_000)]  # ten at a time, 79 s each: three days
    slow = settings.model_copy(update={"models": {"big": settings.models["big"].model_copy(update={"engines": slow_engine()})}})
    run = simulate(slow, trace(slow, rows, deadlines=dict.fromkeys(range(len(rows)), 5 * DAY)))
    assert run.now > 2 * DAY
    assert (run.requests["finish"] != UNSET).all()


def slow_engine() -> dict[str, object]:
    """Ten sequences at a time."""
    scenario_engine = scenario().models["big"].engines["h100"]
    return {"h100": scenario_engine.model_copy(update={"max_sequences": 10})}
