"""Mistakes that simulators of LLM fleets have made, each shown to be impossible here; every test is named after its mistake.

The fleet is that of `tests/core/small.py`: an iteration takes 10 ms and 20 us per prompt token, so a lone request of 500 tokens
has its first token after 20 ms, and its tenth after 110.18 ms. Every law of the fleet is checked after every event.
Two are tried elsewhere: forecasts that had seen what they forecast (`tests/core/test_forecast_laws.py`, "the future changes
nothing"), and a few hundred requests per CPU second (`bench/`, figures `kernel_240` and `kernel_2400`).
"""

from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from sageserve.base.config import Scenario
from sageserve.base.errors import Infeasible
from sageserve.base.records import UNSET, Floats
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Micros
from sageserve.core.actions import Donate, Drain, Reason, Source
from sageserve.core.events import DemandSeen, EndpointSeen, InstanceDrained, Observed
from sageserve.core.fleet import State
from sageserve.core.strategies import STRATEGIES
from sageserve.core.strategies.planned import LtUA
from sageserve.core.work import Fit, Fitted, Solve
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, Simulation, kernel_setup, simulate
from tests.core.small import ENGINE, Row, fleet_of, hours, layout_of, row, scenario, trace
from tests.laws.lives import begun, check_gpus_change_hands_one_at_a_time, check_work_is_inside_terms, terms

MS = 1_000
STILL = {"start": 1, "minimum": 1, "maximum": 1}  # a fleet that never changes


def play(settings: Scenario, rows: list[Row], *, window: Micros = 0) -> Run:
    return simulate(settings, trace(settings, rows, window=window), debug=True)


def alone() -> Scenario:
    """One region with one instance."""
    return scenario(fleet=STILL, regions={"east": scenario().regions["east"].model_dump(mode="json") | {"rtt": {}}})


def flood(count: int, *, begin: Micros = 0, every: Micros = 25 * MS, tier: str = "iw-f") -> list[Row]:
    """Prompts of 5,000 tokens that keep an engine busy for about 110 ms each: four times what one instance can do."""
    return [row(begin + k * every, tier=tier, prompt=5_000, output=2) for k in range(count)]


def churn(gpus: int) -> Scenario:
    """Starts of 90 s from a VM, 60 s on GPUs of another model, 20 s from the own spot instance."""
    load = {"reclaim": "20s", "local": "60s"}
    models = {name: {"context": 8_000, "engines": {"h100": ENGINE}, "load": load} for name in ("big", "small")}
    settings = scenario(models=models, fleet={"start": 1, "minimum": 1, "maximum": 4}, gpus=gpus)
    return settings.model_copy(update={"gpus": {"h100": settings.gpus["h100"].model_copy(update={"start": 30 * SECOND})}})


def two_bursts() -> list[Row]:
    """A burst for one model, calm in which its instances are donated, then one for the same and one for the other."""
    other = [row(at, model="small", prompt=5_000, output=2) for at, *_ in flood(8_000, begin=40 * MINUTE)]
    return flood(8_000) + flood(8_000, begin=20 * MINUTE) + other


@pytest.fixture(scope="module")
def bursts() -> tuple[Run, list[tuple[int, ...]]]:
    settings = churn(gpus=32)
    simulation = Simulation(settings, trace(settings, two_bursts(), window=HOUR), debug=True)
    first = list(simulation.run.fleet.gpus)
    return simulation.play(), first


# ------------------------------------------------------------------------------------------------ batch work


def test_batch_work_is_served_before_it_arrives() -> None:
    jobs = [row(k * MINUTE, tier="niw") for k in range(200)]
    run = play(scenario(), jobs)
    assert (run.requests["first"] >= run.requests["arrival"] + 20 * MS).all()


def test_the_waiting_of_batch_work_is_not_counted() -> None:
    busy = [row(k * 15 * MS, prompt=1_000, output=2) for k in range(4_000)]  # a minute of 1.5 times what can be done
    run = play(alone(), [*busy, row(30 * SECOND, tier="niw")])
    (job,) = run.requests[run.requests["tier"] == 2]
    waited = int(job["first"] - job["arrival"])
    assert waited > 5 * SECOND
    found = summarise(run, 1.0).tiers["niw"]
    network = 5 * MS
    assert found.e2e_s.p50 == pytest.approx((int(job["finish"] - job["arrival"]) + network) / SECOND)
    assert found.ttft_s.p50 is not None
    assert found.ttft_s.p50 >= waited / SECOND


def test_an_endpoint_without_interactive_traffic_starves_its_batch_queue() -> None:
    run = play(scenario(fleet=STILL), [row(10 * SECOND, tier="niw") for _ in range(100)])
    assert (run.requests["finish"] != UNSET).all()
    assert (run.requests["finish"] - run.requests["arrival"]).max() < 10 * MINUTE


def test_a_job_alone_is_fed_by_nothing_because_nothing_completes() -> None:
    full = [row(k * 15 * MS, prompt=1_000, output=2) for k in range(2_000)]
    run = play(alone(), [*full, row(29 * SECOND, tier="niw")])
    (job,) = run.requests[run.requests["tier"] == 2]
    last = run.requests["finish"][run.requests["tier"] != 2].max()
    assert job["first"] > last, "no completion was left to feed it: the timer did"


def test_feed_bands_are_inverted() -> None:
    with pytest.raises(Infeasible, match="bands inverted"):
        scenario(batch={"two_below": 0.7, "one_below": 0.6})
    jobs = [row(2 * SECOND, tier="niw", prompt=6_000, output=100) for _ in range(40)]
    run = play(scenario(fleet=STILL, batch={"two_below": 0.3, "one_below": 0.3}), jobs)
    few = play(scenario(fleet=STILL, batch={"two_below": 0.05, "one_below": 0.05}), jobs)
    assert few.requests["finish"].max() > run.requests["finish"].max(), "a lower band lets in less"


# ------------------------------------------------------------------------------------------------ life cycle


def test_provisioning_delays_delay_nothing(bursts: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, _ = bursts
    starts = begun(run)
    delays = {Source.VM: 90 * SECOND, Source.GPUS: 60 * SECOND, Source.SPOT: 20 * SECOND}
    assert {one.source for one in starts} == set(delays)
    for one in starts:
        assert one.ready - one.asked == delays[one.source]
        mine = run.requests[run.requests["instance"] == one.instance]["first"]
        assert not ((mine > one.asked) & (mine <= one.ready)).any(), "it answered before it was there"
    assert hours(run.fleet, State.STARTING, State.RECLAIMING) > 0


def test_a_reclaimed_or_repurposed_instance_still_runs_its_old_work(bursts: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, _ = bursts
    assert (run.requests["finish"] != UNSET).all()
    check_work_is_inside_terms(run)
    assert max(len(spans) for spans in terms(run).values()) > 1, "some instance must have come back"


def test_gpus_are_used_twice(bursts: tuple[Run, list[tuple[int, ...]]]) -> None:
    run, first = bursts
    check_gpus_change_hands_one_at_a_time(run, first)


def test_all_instances_of_a_region_are_on_the_same_eight_gpus() -> None:
    run = simulate(settings := scenario(gpus=64, fleet={"start": 4, "minimum": 4, "maximum": 4}), trace(settings, [row(0)]))
    for region in (0, 1):
        rows = [i for pool in run.fleet.pools if pool.region == region for i in range(pool.begin, pool.end)]
        assert sorted(n for i in rows for n in run.fleet.gpus[i]) == list(range(64))


def test_downs_are_executed_at_once_and_drop_what_is_in_flight() -> None:
    settings = scenario(fleet={"start": 4, "minimum": 1, "maximum": 4}, spot={"donate": True})
    rows = [row(k * MS, output=7_900, prompt=10) for k in range(8)]  # two on each instance, 79 s long, and little load
    run = play(settings, rows, window=3 * MINUTE)
    assert (run.requests["finish"] - run.requests["first"] > 78 * SECOND).all()
    asked = {a.instance: entry.now for entry in run.journal for a in entry.actions if isinstance(a, Drain)}
    given = {a.instance: entry.now for entry in run.journal for a in entry.actions if isinstance(a, Donate)}
    drained = {entry.event.instance: entry.now for entry in run.journal if isinstance(entry.event, InstanceDrained)}
    busy = set(run.requests["instance"].tolist()) & set(asked)
    assert busy, "an instance with work must have been asked to drain"
    for i in busy:
        last = run.requests["finish"][run.requests["instance"] == i].max()
        assert asked[i] < last == drained[i] == given[i]
    check_work_is_inside_terms(run)
    assert hours(run.fleet, State.DRAINING) > 0, "and it counts as waste"


# ------------------------------------------------------------------------------------------------ time


def test_the_clock_runs_backwards_for_one_token_outputs() -> None:
    run = play(scenario(fleet=STILL), [row(k * 7 * MS, output=1, prompt=1 + k) for k in range(300)])
    assert (run.requests["finish"] == run.requests["first"]).all()
    assert (run.requests["first"] >= run.requests["arrival"] + 10 * MS).all()
    in_order = np.sort(run.requests["finish"])
    assert (np.diff(in_order) >= 0).all()


@pytest.mark.parametrize("gap", [256 * SECOND, 3 * DAY])
def test_a_gap_in_arrivals_ends_the_trace(gap: Micros) -> None:
    run = play(scenario(fleet=STILL), [row(SECOND), row(SECOND + gap), row(SECOND + 2 * gap)])
    assert (run.requests["finish"] - run.requests["arrival"] == 110_180).all()
    counts = summarise(run, 1.0).requests
    assert (counts.arrived, counts.finished) == (3, 3)
    assert run.now >= 2 * gap


def test_the_last_partial_hour_is_dropped() -> None:
    settings = scenario(fleet=STILL)
    rows = [row(k * MINUTE) for k in range(90)]
    run = play(settings, rows, window=90 * MINUTE)
    found = summarise(run, 1.0)
    assert found.requests.finished == 90
    assert found.window_s == 5_400
    assert found.instance_hours.total == pytest.approx(4 * 1.5)
    assert hours(run.fleet, State.SERVING) == 4 * 8 * 1.5
    assert run.timeline.times[run.timeline.length - 1] == 90 * MINUTE
    assert int(run.timeline.column("finished")[-1].sum()) == 90


def test_work_that_waits_at_the_end_of_the_window_is_dropped() -> None:
    run = play(scenario(fleet=STILL), flood(1_000), window=26 * SECOND)
    assert (run.requests["finish"] != UNSET).all()
    found = summarise(run, 1.0)
    assert found.after_window.finished > 500
    assert hours(run.fleet, State.SERVING) == pytest.approx(4 * 8 * 26 / 3600), "hours are of the window"


def test_hours_reach_to_the_next_look_behind_the_window() -> None:
    settings = scenario(fleet={"start": 4, "minimum": 1, "maximum": 4})
    window = 39_500 * MS  # between two looks; the first drained instance is empty half a second later
    run = play(settings, [row(k * MS, output=4_000, prompt=10) for k in range(8)], window=window)
    assert (
        min(entry.now for entry in run.journal if isinstance(entry.event, InstanceDrained) and entry.now > window) < 45 * SECOND
    )
    held = sum(us for one in run.fleet.ledger.gpu_us for us in one)
    assert held == 16 * 8 * window


def test_scaling_is_only_evaluated_on_arrivals() -> None:
    run = play(scenario(fleet={"start": 4, "minimum": 1, "maximum": 4}), [row(0), row(2 * HOUR)])
    looks = [entry for entry in run.journal if isinstance(entry.event, Observed) and entry.decisions]
    assert {one.reason for entry in looks for one in entry.decisions} == {Reason.UTILISATION_LOW}
    assert all(0 <= entry.now < 5 * MINUTE for entry in looks), "long before the second arrival"
    assert [run.fleet.serving(pool.number) for pool in run.fleet.pools] == [1] * 4


def test_seconds_are_read_as_milliseconds() -> None:
    for value in (1, 1.0, "1", "1 sec"):
        with pytest.raises(ValidationError, match=r"has no unit|is not a duration"):
            scenario(tiers={"iw-f": {"ttft": value}})
    tier = scenario(tiers={"iw-f": {"ttft": "1s"}, "niw": {"deadline": "24h"}}).tiers
    assert (tier["iw-f"].patience, tier["niw"].patience) == (1_000_000, 86_400_000_000)
    run = play(scenario(fleet=STILL), [row(0), row(2 * SECOND)])
    assert np.diff(run.requests["first"]).tolist() == [2 * SECOND]


# ------------------------------------------------------------------------------------------------ comparisons


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_strategies_are_compared_from_different_start_states(name: str) -> None:
    settings = scenario(gpus=200, fleet={"start": 5, "minimum": 2, "maximum": 5}, strategy={"name": name})
    simulation = Simulation(settings, trace(settings, [row(0)]), debug=True)
    fleet = simulation.run.fleet
    serving = [sum(fleet.serving(p.number) for p in fleet.pools if (p.region, p.model) == (g, m)) for g in (0, 1) for m in (0, 1)]
    assert serving == [5] * 4
    assert sum(map(sum, (fleet.counts[p.number][1:] for p in fleet.pools))) == 20, "nothing else is held"
    assert fleet.now == 0


def test_strategies_are_compared_with_different_routing() -> None:
    same = ("order", "route", "threshold", "signal", "scrape", "half_life", "output_guess", "promote_after", "safety")
    setups = []
    for name in sorted(STRATEGIES):
        settings = load_scenario("quickstart", overrides=[f"strategy.name={name}"])
        setups.append(kernel_setup(settings, layout_of(settings)))
    for one, other in pairwise(setups):
        assert [getattr(one, field) for field in same] == [getattr(other, field) for field in same]
        assert one.profiles.tobytes() == other.profiles.tobytes()
        assert one.tiers.tobytes() == other.tiers.tobytes()


def test_the_forecast_of_one_model_is_compared_with_the_tokens_of_all() -> None:
    settings = scenario(strategy={"name": "lt-ua"})
    layout = layout_of(settings)
    fleet, strategy = fleet_of(layout), LtUA(settings, layout, None)
    rates = np.array([[100.0, 40.0], [10.0, 30.0]])  # tokens/s by region and model
    for minute in range(60):
        assert list(strategy.handle((minute + 1) * MINUTE, arrivals(minute, rates), fleet)) == []
    look = Observed(HOUR, (EndpointSeen(0.5, 0.5, 0.5),) * 4, (0, 0))
    (fit,) = (one for one in strategy.handle(HOUR, look, fleet) if isinstance(one, Fit))
    assert [series.values.tolist() for series in fit.series] == [[rate * 900] * 4 for rate in rates.ravel()]
    (solve,) = strategy.handle(HOUR, Fitted(fit.number, (None,) * 4), fleet)  # the forecast: as the last hour
    assert isinstance(solve, Solve)
    assert solve.problem.demand == (tuple(map(tuple, rates.tolist())),)
    changed = rates * np.array([[6.0, 1.0], [0.1, 1.0]])
    for minute in range(60, 105):
        list(strategy.handle((minute + 1) * MINUTE, arrivals(minute, changed), fleet))
    now = HOUR + 45 * MINUTE
    assert [strategy.may_pass(now, endpoint, out=True) for endpoint in range(4)] == [True, False, False, False]
    assert [strategy.may_pass(now, endpoint, out=False) for endpoint in range(4)] == [False, False, True, False]


def arrivals(minute: int, rates: Floats) -> DemandSeen:
    """A minute at these rates, all of it in the first tier."""
    tokens = np.zeros((2, 2, 3))
    tokens[..., 0] = rates * 60
    flat = tuple(round(one) for one in tokens.ravel().tolist())
    return DemandSeen(minute * MINUTE, MINUTE, flat, (0,) * 12, tuple(min(one, 1) for one in flat), tuple(map(float, flat)))


# ------------------------------------------------------------------------------------------------ engines


def test_kv_memory_is_counted_without_grouped_query_attention() -> None:
    shapes = {  # layers, KV heads, head size: of the published configurations
        "llama-2-70b": (80, 8, 128),
        "bloom-176b": (70, 112, 128),  # the one without grouped-query attention
        "llama-3.1-8b": (32, 8, 128),
        "llama-3.2-3b": (28, 8, 128),
    }
    settings = load_scenario("fleet-o365")
    assert set(shapes) == set(settings.models)
    for name, (layers, heads, size) in shapes.items():
        for engine in settings.models[name].engines.values():
            assert engine.kv_per_token == 2 * layers * heads * size * 2, name


def test_a_fixed_delay_makes_a_target_of_one_second_unreachable() -> None:
    run = play(scenario(fleet=STILL), [row(k * SECOND, region=("east", "west")[k % 2]) for k in range(20)])
    found = summarise(run, 1.0).tiers["iw-f"]
    assert found.attainment == 1.0
    assert found.ttft_s.p99 == pytest.approx(0.020 + 0.005), "prefill and the network inside a region, nothing else"


def test_an_iteration_costs_time_in_the_square_of_the_batch() -> None:
    def events(batch: int, output: int) -> int:
        models = {"big": {"context": 8_000, "engines": {"h100": ENGINE | {"kv_tokens": 1_000_000}}}}
        run = play(
            scenario(fleet=STILL, models=models), [row(5, prompt=100, output=output + 3 * k) for k in range(batch)], window=MINUTE
        )
        assert (run.requests["finish"] != UNSET).all()
        return int(run.kernel.world.record["events"]) - int(run.kernel.scraped // run.scenario.signals.scrape)

    few, many, longer = events(20, 50), events(200, 50), events(200, 500)
    assert many <= 10 * few + 20, "events per request do not grow with the batch"
    assert abs(longer - many) <= 5, "nor with the length of answers"
    assert many <= 3 * 200
