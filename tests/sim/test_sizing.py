"""Sizing: the search against all fleets there are, the statistics against chance, and the answer of a real one.

Read next: `sim/sizing/search.py`, `sim/sizing/safety.py`.
"""

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.results.sweep_folder import GENERATED, SweepSource
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.sim.sizing.conditions import size_under
from sageserve.sim.sizing.plays import LEAST_WINDOWS, Interrupted, Wish, measured_of
from sageserve.sim.sizing.pools import SizedPool, with_counts
from sageserve.sim.sizing.purchase import Tariff, best_reserve, cost_per_hour
from sageserve.sim.sizing.records import Growth, Sizing, Survival, sizing_json
from sageserve.sim.sizing.run import size
from sageserve.sim.sizing.safety import KeptShare, prove
from sageserve.sim.sizing.search import Ask, Counts, Measured, Promises, Search
from sageserve.sim.sizing.strategy import size_for
from sageserve.sim.sweep.alone import Alone
from sageserve.sim.sweep.cell import Cell, Finished, Player
from sageserve.sim.sweep.run import Watch
from tests.worlds import SMALL_FLEET

ASKED: Final = Promises({"chat": 0.9}, LEAST_WINDOWS, 0.99, 1)
REQUESTS: Final = 10_000


def pool(number: int, *, floor: int = 0, guess: int = 2) -> SizedPool:
    return SizedPool(f"r{number}/m/g", f"r{number}", "m", "g", 1, 1, floor, guess)


def world(loads: tuple[int, ...], weights: tuple[int, ...]) -> Callable[[Counts, int], Measured]:
    """What a fleet keeps: its weighted instances over the load of the window, at most all of it."""

    def play(counts: Counts, window: int) -> Measured:
        able = sum(count * weight for count, weight in zip(counts, weights, strict=True))
        kept = min(REQUESTS * able // loads[window], REQUESTS)
        return Measured({"chat": KeptShare(kept, REQUESTS)}, 0.0, 1.0)

    return play


def found_by(search: Search, play: Callable[[Counts, int], Measured]) -> Search:
    running: Generator[list[Ask], list[Measured], None] = search.run()
    try:
        asks = next(running)
        while True:
            asks = running.send([play(*ask) for ask in asks])
    except StopIteration:
        return search


def holds(play: Callable[[Counts, int], Measured], counts: Counts) -> bool:
    windows = [play(counts, w) for w in range(ASKED.windows)]
    return not any(ASKED.broken_in(one, w) for w, one in enumerate(windows)) and ASKED.unsure(windows) is None


def test_too_few_requests_to_show_a_safety_ask_for_no_instances_more() -> None:
    asks = 0

    def keeps_all(counts: Counts, window: int) -> Measured:
        nonlocal asks
        asks += 1
        return Measured({"chat": KeptShare(19 + window % 3, 19 + window % 3)}, 0.0, 1.0)

    promises = replace(ASKED, percentiles={"chat": 0.95})
    assert promises.unsure([keeps_all((), window) for window in range(LEAST_WINDOWS)]) is None
    asks = 0
    found = found_by(Search("m", [pool(0, floor=1)], promises), keeps_all)
    assert (found.counts, found.reach) == ((1,), {})
    assert asks <= 2 * LEAST_WINDOWS


@given(
    loads=st.lists(st.integers(50, 60), min_size=LEAST_WINDOWS, max_size=LEAST_WINDOWS),
    weights=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    guesses=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    floors=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
@settings(max_examples=15)
def test_no_instance_can_be_taken_from_what_is_found(
    loads: list[int], weights: tuple[int, int], guesses: tuple[int, int], floors: tuple[int, int]
) -> None:
    play = world(tuple(loads), weights)
    pools = [pool(n, floor=floors[n], guess=guesses[n]) for n in range(2)]
    found = found_by(Search("m", pools, ASKED), play)
    assert holds(play, found.counts)
    for n, one in enumerate(pools):
        fewer = tuple(count - (k == n) for k, count in enumerate(found.counts))
        if found.counts[n] > one.floor and sum(found.counts) > 1:
            assert not holds(play, fewer)
            broken = found.less[one.name]
            if broken.window >= 0:  # what is said of it was measured there
                assert broken.share == play(fewer, broken.window).kept["chat"].share < 0.9
        else:
            assert one.name not in found.less


def test_one_pool_alone_gets_the_least_of_all_counts() -> None:
    play = world(tuple(range(50, 50 + LEAST_WINDOWS)), (7,))
    found = found_by(Search("m", [pool(0, guess=30)], ASKED), play)
    assert found.counts == (next(n for n in range(100) if holds(play, (n,))),)


def test_a_promise_out_of_reach_is_told_and_the_rest_is_sized() -> None:
    able = world((40,) * LEAST_WINDOWS, (5,))

    def play(counts: Counts, window: int) -> Measured:  # one request in five is too long for any engine
        kept = able(counts, window).kept["chat"]
        return Measured({"chat": KeptShare(kept.kept * 4 // 5, REQUESTS)}, 0.0, 1.0)

    found = found_by(Search("m", [pool(0)], ASKED), play)
    assert found.reach == {"chat": 0.8}
    assert found.counts == (8,)  # 0.9 of 40 / 5 = 7.2 instances
    assert found.promises.percentiles == {"chat": pytest.approx(0.72)}


def test_a_promise_that_only_later_windows_put_out_of_reach_is_told() -> None:
    """Two windows have room; over all of them not even idle engines are safe enough, however many there are."""
    able = world((40,) * LEAST_WINDOWS, (5,))

    def play(counts: Counts, window: int) -> Measured:
        kept = able(counts, window).kept["chat"].kept
        return Measured({"chat": KeptShare(kept * (92 if window < 2 else 88) // 100, REQUESTS)}, 0.0, 1.0)

    found = found_by(Search("m", [pool(0)], ASKED), play)
    assert found.reach == {"chat": 0.88}
    assert found.counts[0] <= 8


def test_work_that_is_left_over_makes_a_fleet_too_small() -> None:
    def play(counts: Counts, _window: int) -> Measured:
        return Measured({"chat": KeptShare(REQUESTS, REQUESTS)}, owed=6.0, spare=float(sum(counts)))

    found = found_by(Search("m", [pool(0)], ASKED), play)
    assert found.counts == (6,)
    assert found.less["r0/m/g"].tier == ""
    with pytest.raises(Infeasible, match="cannot do the work"):
        found_by(Search("m", [pool(0)], ASKED), lambda c, w: replace(play(c, w), owed=1e9))


def test_a_guess_that_is_far_too_low_makes_no_promise_unreachable() -> None:
    found = found_by(Search("m", [pool(0, guess=1)], ASKED), world((500,) * LEAST_WINDOWS, (5,)))
    assert not found.reach
    assert found.counts == (91,)  # 90 keep exactly what is promised, and one window in two would not


def test_instances_that_serve_nobody_all_go_however_many_there_are() -> None:
    play = world((300,) * LEAST_WINDOWS, (4, 0))
    found = found_by(Search("m", [pool(n, guess=100) for n in range(2)], ASKED), play)
    assert found.counts == (next(n for n in range(100) if holds(play, (n, 0))), 0)
    assert found.less.keys() == {"r0/m/g"}


def test_windows_far_beyond_the_first_two_are_reached() -> None:
    play = world((50, 50, *(2000,) * (LEAST_WINDOWS - 2)), (5,))
    found = found_by(Search("m", [pool(0, guess=20)], ASKED), play)
    assert found.counts == (next(n for n in range(1000) if holds(play, (n,))),)
    with pytest.raises(Infeasible, match=r"with 99\.00% safety"):
        found_by(Search("m", [pool(0, guess=20)], ASKED), world((50, 50, *(10**6,) * (LEAST_WINDOWS - 2)), (5,)))


def test_few_requests_are_judged_by_the_mean_window() -> None:
    asked = replace(ASKED, percentiles={"chat": 0.95})
    one_is_small = [Measured({"chat": KeptShare(96, 100)}, 0.0, 1.0)] * 19 + [Measured({"chat": KeptShare(19, 19)}, 0.0, 1.0)]
    assert (broken := asked.unsure(one_is_small)) is not None
    assert broken.share < 0.7
    all_are_small = [Measured({"chat": KeptShare(10, 10)}, 0.0, 1.0)] * 20
    assert asked.unsure(all_are_small) is None
    assert not asked.asked("other", all_are_small)


def test_a_promise_kept_by_few_requests_is_not_out_of_reach() -> None:
    asked = replace(ASKED, percentiles={"chat": 0.995})
    found = found_by(Search("m", [pool(0)], asked), lambda c, _: Measured({"chat": KeptShare(9 * (c[0] > 1), 9)}, 0.0, 1.0))
    assert not found.reach
    assert found.counts == (2,)


# ------------------------------------------------------------------------------------------------ how sure it is


@given(kept=st.lists(st.integers(900, 1000), min_size=20, max_size=20), percentile=st.sampled_from([0.9, 0.95, 0.99]))
def test_more_kept_is_surer_and_more_asked_is_less_sure(kept: list[int], percentile: float) -> None:
    windows = [KeptShare(k, 1000) for k in kept]
    proof = prove(windows, percentile, 0.99)
    assert 0 <= proof.safety <= 1
    assert proof.low <= np.mean(kept) / 1000 + 1e-9
    assert prove(windows, percentile, 0.999).low <= proof.low
    assert prove(windows, 0.8, 0.99).safety >= proof.safety
    assert (proof.safety >= 0.99) == (proof.low >= percentile - 0.001)  # two faces of one limit, up to one request


def test_the_next_window_keeps_the_limit_as_often_as_it_says() -> None:
    rng = np.random.Generator(np.random.PCG64(5))
    held = 0
    for _ in range(400):
        odds = rng.normal(3.0, 0.4, 21)
        kept = [KeptShare(int(k), 5000) for k in rng.binomial(5000, 1 / (1 + np.exp(-odds)))]
        held += kept[-1].share >= prove(kept[:-1], 0.9, 0.95).low
    assert 0.92 <= held / 400 <= 0.98


def test_windows_alike_are_not_certain() -> None:
    few, many = prove([KeptShare(30, 30)] * 20, 0.95, 0.99), prove([KeptShare(3000, 3000)] * 20, 0.95, 0.99)
    assert few.safety < many.safety <= 1
    assert few.low < many.low < 1
    assert prove([KeptShare(900, 1000)] * 20, 0.95, 0.99).safety < 1e-9


@pytest.mark.parametrize("counts", [[0] * 19 + [1], [0] * 12 + [1] * 8, [1] * 14 + [2] * 6])
def test_windows_of_hardly_a_request_say_how_sure_that_is(counts: list[int]) -> None:
    proof = prove([KeptShare(one, one) for one in counts], 0.95, 0.99)
    assert 0 <= proof.safety <= 1
    assert 0 <= proof.low <= 1


# ------------------------------------------------------------------------------------------------ money and VMs, a real one


@pytest.fixture(scope="module")
def small() -> Scenario:
    traffic = "{requests: 3000, length: 10m, begins: 36h, history: 0, bursts: []}"
    asked = (f"workload.generate={traffic}", "tiers.iw-f.ttft=3s", "fleet.minimum=0", "models.llama-3.1-8b=null")
    parts = ("workload.generate.shapes.llama-3.1-8b=null", "workload.assign.model.llama-3.1-8b=null")
    return load_scenario(SMALL_FLEET, overrides=[*asked, *parts, "regions.eastus.gpus.h100-80gb.reserved=8"])


@pytest.fixture(scope="module")
def sized(small: Scenario) -> Sizing:
    return size(small, GENERATED, Wish(), Alone())


def played(scenario: Scenario, counts: Mapping[str, int], seed: int) -> Measured:
    pools = {name: SizedPool(name, name.split("/")[0], "llama-2-70b", "h100-80gb", 8, 8, 0, 0) for name in counts}
    cell = Cell("", with_counts(scenario.model_copy(update={"seed": seed}), counts, pools))
    found = Player().play(cell)
    assert isinstance(found, Finished)
    return measured_of(found.summary, "llama-2-70b")


def test_what_is_said_of_a_fleet_is_so(small: Scenario, sized: Sizing) -> None:
    counts = {line.pool: line.instances for line in sized.fleet}
    asked = Promises({name: tier.percentile for name, tier in small.tiers.items()}, 20, 0.99, 1)
    unseen = [asked.broken_in(played(small, counts, seed), 0) for seed in range(1000, 1010)]
    assert sum(one is not None for one in unseen) <= 1
    for one in sized.less:
        if one.why == "breaks":
            assert one.window is not None
            less = played(small, {**counts, one.pool: counts[one.pool] - 1}, one.window)
            assert less.kept[one.tier].share == pytest.approx(one.share, abs=2e-6)
            assert less.kept[one.tier].share < small.tiers[one.tier].percentile
        elif one.why == "unsure":
            assert one.share is not None
            assert one.share < 0.99 + 0.01 * 2 / 3  # of three promises, each
    assert {one.why for one in sized.less} & {"breaks", "unsure"}


def test_its_json_has_the_keys_that_scripts_read(sized: Sizing) -> None:
    found = json.loads(sizing_json(sized))
    assert {"fleet", "quota", "cost_per_month_usd", "proof"} <= found.keys()
    assert all({"region", "model", "gpu", "instances", "gpus"} == line.keys() for line in found["fleet"])
    assert found["proof"].keys() == {"iw-f", "iw-n", "niw"}
    assert all(0.99 <= proof["safety"] < 1 and 0.95 <= proof["low"] <= 1 for proof in found["proof"].values())


def test_its_money_adds_up(sized: Sizing) -> None:
    east = sized.cost["eastus/h100-80gb"]
    gpus = sized.quota["eastus/h100-80gb"].gpus
    assert (east.reserved_gpus, east.on_demand_gpus) == (8, gpus - 8)
    assert east.reserved + east.on_demand == pytest.approx(gpus * 12.29 * 730, abs=0.01)
    assert sized.cost_per_month_usd == round(sum(line.reserved + line.on_demand for line in sized.cost.values()), 2)


def test_what_cannot_be_answered_is_refused_and_a_stop_is_heard(small: Scenario) -> None:
    with pytest.raises(ConfigError, match="not between"):
        size(small, GENERATED, Wish(safety=1.0), Alone())
    with pytest.raises(ConfigError, match="fewer than 20"):
        size(small, GENERATED, Wish(windows=19), Alone())
    with pytest.raises(Interrupted):
        size(small, GENERATED, Wish(), Alone(), Watch(interrupted=lambda: True))


# ------------------------------------------------------------------------------------------------ strategies, and what to reserve


@given(
    curve=st.dictionaries(st.integers(0, 12).map(lambda n: 4 * n), st.integers(1, 1000).map(float), min_size=1),
    prices=st.tuples(st.integers(1, 100), st.integers(1, 100)),
)
def test_the_cheapest_reservation_is_that_of_all_there_are(curve: dict[int, float], prices: tuple[int, int]) -> None:
    tariff = Tariff(on_demand=float(max(prices)), reserved=float(min(prices)), per_vm=4)
    costs = {n: cost_per_hour(curve, n, tariff) for n in range(0, 60, 4)}
    found = best_reserve(curve, tariff)
    assert costs[found] == pytest.approx(min(costs.values()))
    assert best_reserve(curve, replace(tariff, reserved=None)) == 0
    if curve.keys() == {8}:
        assert found == (8 if min(prices) < max(prices) else 0)


def test_a_strategy_is_given_room_and_what_it_held_is_told(small: Scenario) -> None:
    rules = small.strategy.model_copy(update={"name": "reactive"})
    tight = small.fleet.model_copy(update={"maximum": 3, "start": 1, "minimum": 1})
    settings = small.model_copy(update={"strategy": rules, "fleet": tight})
    found = size_for(settings, GENERATED, Wish(), Alone())
    assert found.strategy == "reactive"
    assert found.plays == LEAST_WINDOWS
    for line in found.fleet:
        counts = found.counts[line.pool]
        assert line.gpus == counts.peak == 8 * line.instances
        assert counts.minimum <= counts.mean <= counts.peak
    assert sum(one.mean for one in found.counts.values()) < sum(one.peak for one in found.counts.values())
    east = found.quota["eastus/h100-80gb"]
    assert east.gpus == next(line.gpus for line in found.fleet if line.region == "eastus")
    assert found.cost["eastus/h100-80gb"].on_demand_gpus < east.gpus


def test_conditions_are_sized_for_and_each_tells_its_price(small: Scenario, sized: Sizing) -> None:
    asked = []

    def solve(scenario: Scenario, source: SweepSource, survive: str) -> Sizing:
        asked.append((scenario.workload.generate.requests, source.options.load, survive))
        return sized if len(asked) == 1 else msgspec.structs.replace(sized, cost_per_month_usd=len(asked) * 1e6)

    plain, more, found = size_under(solve, small, GENERATED, 1.5, "region")
    assert (plain, more.growth, more.survive, more.cost_per_month_usd) == (sized, found.growth, None, 2e6)
    assert asked == [(3000, 1.0, ""), (4500, 1.0, ""), (4500, 1.0, "region")]
    assert found.cost_per_month_usd == 3e6
    assert found.growth == Growth(1.5, sized.gpus, sized.cost_per_month_usd)
    assert found.survive == Survival("region", sized.gpus, 2e6)
    trace = SweepSource(TraceOptions(files=(Path("t.csv"),), load=2.0))
    assert len([*size_under(solve, small, trace, 1.5)]) == 2
    assert asked[3:] == [(3000, 2.0, ""), (3000, 3.0, "")]
    assert [one.growth for one in size_under(solve, small, GENERATED)] == [None]
    assert [one.growth for one in size_under(solve, small, GENERATED, survive="vm")] == [None, None]
    with pytest.raises(ConfigError, match="not above 0"):
        next(size_under(solve, small, GENERATED, 0.0))
