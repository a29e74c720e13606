"""Times in which a model could not grow and missed promises: they are found, and what is said to be enough is.

Read next: `sim/results/starved.py`, `show/limits.py`.
"""

from msgspec.structs import replace

from sageserve.data.results.summary import Summary
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.workload.generate import generate
from sageserve.show.limits import clock, idle, starved
from sageserve.show.verdict import verdict_of
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.worlds import SMALL_FLEET

BUSY = "{requests: 16000, length: 40m, begins: 36h, history: 0, bursts: [{at: 10m, length: 15m, factor: 4}]}"
ONE = ("models.llama-3.1-8b=null", "workload.generate.shapes.llama-3.1-8b=null", "workload.assign.model.llama-3.1-8b=null")


def played(*overrides: str) -> Summary:
    asked = (f"workload.generate={BUSY}", "tiers.iw-f.ttft=3s", "fleet.minimum=1", "strategy.name=reactive", *ONE)
    settings = load_scenario(SMALL_FLEET, overrides=[*asked, *overrides])
    return summarise(simulate(settings, generate(settings)), 1.0)


def test_a_burst_beyond_the_maximum_is_told_and_what_is_more_would_keep_it() -> None:
    found = played("fleet.start=2", "fleet.maximum=2")
    assert not all(tier.kept for tier in found.tiers.values())
    (one,) = found.starved
    assert (one.model, set(one.regions), one.limit, one.held) == ("llama-2-70b", {"eastus", "centralus"}, "maximum", 4)
    assert (one.begins_s, one.ends_s) == (600, 1500)  # the burst
    assert one.missed > 0.9 * sum(sum(tier.missed.values()) for tier in found.tiers.values())
    each = -(-(one.held + one.more) // 2)
    more = played(f"fleet.start={each}", f"fleet.maximum={each}", "strategy.name=fixed")
    assert all(tier.kept for tier in more.tiers.values())
    assert not more.starved
    told = verdict_of(found)
    where = "llama-2-70b is at its maximum in both regions 00:10–00:25"
    assert told.recommendation.startswith(f"{where} and misses {one.missed:,} requests; about {one.more} more than its 4 ")
    assert "at its maximum" not in verdict_of(more).recommendation
    assert starved(found)[0].endswith("would keep it")
    model = found.models[one.model]
    slow = replace(model, tiers={name: replace(tier, possible=0.9) for name, tier in model.tiers.items()})
    beyond = replace(found, models={**found.models, one.model: slow})  # no number of instances keeps this
    assert starved(beyond)[0].endswith("would keep what idle engines can")


def test_a_stock_that_is_used_up_is_no_maximum_and_one_region_is_named() -> None:
    stock = "regions.eastus.gpus={h100-80gb: {gpus: 16, price: {on_demand: 80/h}}}"
    alone = (
        "regions.centralus=null",
        "workload.generate.regions.centralus=null",
        "workload.generate.shift.centralus=null",
        "regions.eastus.rtt=null",
    )
    found = played("fleet.start=2", stock, "workload.assign.region.centralus=null", *alone)
    (one,) = found.starved
    assert (one.limit, one.held, one.regions) == ("stock", 2, ("eastus",))
    assert starved(found)[0].startswith("llama-2-70b finds no GPUs left in eastus 00:")


def test_a_fleet_that_idles_at_its_minimum_is_told_so() -> None:
    idling = played("workload.generate.requests=100", "fleet.start=1", "fleet.maximum=4")
    assert idle(idling).startswith("9")
    assert "% idle: your minimums set the cost" in verdict_of(idling).recommendation
    hours = idling.gpu_hours
    assert not idle(replace(idling, gpu_hours=replace(hours, total=2 * hours.total)))  # more was held than the minimums ask
    assert not idle(replace(idling, gpu_hours=replace(hours, idle=0.4 * hours.serving)))
    assert not idle(replace(idling, gpu_hours=replace(hours, idle=None)))


def test_times_are_hours_and_minutes_of_the_window() -> None:
    assert [clock(seconds) for seconds in (0, 33_000, 3 * 86_400 + 60)] == ["00:00", "09:10", "3d 00:01"]
