"""Parts of plans: what is asked of instances that prefill and of those that decode, and that both go the same way.

Read next: `src/sageserve/core/strategies/parts.py`, docs/reference/planning.md, "Prefill and decode apart".
"""

import itertools
from math import inf

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sageserve.base.config import Scenario
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.core.events import DemandSeen
from sageserve.core.history import DemandHistory
from sageserve.core.layout import Layout
from sageserve.core.perf import decode_work, prefill_work
from sageserve.core.plan.explain import what_would_change
from sageserve.core.plan.horizon import HorizonPlan, solve
from sageserve.core.plan.outlook import BatchDemand, HorizonPool, HorizonStock, Lot, Outlook, Stream, Together, Way
from sageserve.core.plan.what_if import change, names
from sageserve.core.response import RequestMix
from sageserve.core.strategies import layout_of
from sageserve.core.strategies.demand_estimates import DemandEstimates
from sageserve.core.strategies.foresight_inputs import ForesightInputs
from sageserve.core.strategies.parts import Does, decode_mix, parts_by_pool, parts_of, prefill_mix
from tests.core.small import TIERS, fleet_of, scenario
from tests.sim.test_handover import APART, fleet

MIX = RequestMix(20_000.0, 0.5, 80_000.0, 10_000.0, (50_000.0, 900_000.0), (0.5, 0.5))
MEAN = (1_000, 200)  # tokens of a prompt and of its answer, where a test says nothing else


def hear(estimates: DemandEstimates, *, seconds: int = 900, each: int = 1) -> None:
    """A bin in which `each` requests come per second, of every model, region and tier."""
    shape = estimates.history.shape
    cells, count = int(np.prod(shape)), each * seconds
    tokens, made = (MEAN[0] * count,) * cells, (MEAN[1] * count,) * cells
    mix = (float(count), 20_000.0 * count, 6e8 * count, 80_000.0 * count, *[0.0] * 63, float(count))
    estimates.history.add(
        DemandSeen(0, seconds * SECOND, tokens, made, (count,) * cells, (1e5 * count,) * cells, (mix,) * shape[1])
    )


# ------------------------------------------------------------------------------------------------ which parts


def test_a_model_is_one_part_or_two_and_each_pool_is_of_one() -> None:
    layout = layout_of(fleet())
    parts = parts_of(layout)
    assert [(part.name, part.does) for part in parts] == [
        ("big/prefill", Does.PREFILL),
        ("big/decode", Does.DECODE),
        ("small", Does.WHOLE),
    ]
    names = [parts[part].name for part in parts_by_pool(layout, parts)]
    assert [f"{region}/{name}" for region, name in itertools.product(layout.names.regions, names[:3])] == [
        pool.name.replace("/h100", "") for pool in layout.pools
    ]


def test_where_nothing_is_apart_parts_are_models_and_plans_say_nothing_of_it() -> None:
    together = scenario()
    layout = layout_of(together)
    parts = parts_of(layout)
    assert [part.name for part in parts] == list(layout.names.models)
    assert [part.reference for part in parts] == [layout.fastest(m) for m in range(len(parts))]
    horizon = ForesightInputs(together, layout, None)
    hear(horizon.demand)
    assert b'"apart"' not in msgspec.json.encode(horizon.outlook(HOUR, fleet_of(layout))), "hashes of earlier plans hold"


# ------------------------------------------------------------------------------------------------ what is asked of each


def linked(link: str) -> Scenario:
    """The small fleet with links of a bandwidth; a token is 100 kB."""
    return fleet(big={"disaggregated": APART | {"link": link}})


def estimates_of(settings_: Scenario) -> tuple[Layout, DemandEstimates]:
    layout = layout_of(settings_)
    return layout, DemandEstimates(settings_, layout, None)


def test_prompts_are_prefills_work_and_answers_that_of_decoding() -> None:
    layout, estimates = estimates_of(linked("100GB/s"))
    hear(estimates)
    prefill, decode, whole = estimates.work_per_token().tolist()
    engine = layout.profiles[estimates.parts[1].reference]
    assert whole == pytest.approx(100.0), "as it was heard: 0.1 s of 1,000 tokens"
    assert prefill == pytest.approx(100.0 * 20_000 / 100_000), "a fifth of a request's time, by its mix"
    assert decode == pytest.approx(float(decode_work(engine, *MEAN)) / MEAN[0])
    batch = estimates.work_per_token(batch=True)
    assert batch[0] == pytest.approx(float(prefill_work(engine, MEAN[0], 0)) / MEAN[0]), "no mix is kept of batch work"


def test_before_anything_was_heard_a_guess_of_lengths_stands_in() -> None:
    _, estimates = estimates_of(fleet())
    assert (estimates.work_per_token() > 0).all()
    assert all(load.load > 0 for load in estimates.sustainable_loads(np.full(3, 0.5)))


def test_a_link_that_is_slower_than_the_engine_is_what_prompts_wait_for() -> None:
    found = []
    for link in ("100GB/s", "100MB/s"):
        _, estimates = estimates_of(linked(link))
        hear(estimates)
        found.append(estimates.work_per_token().tolist())
    assert found[0][0] == pytest.approx(20.0)
    assert found[1][0] == pytest.approx(1_000.0), "a millisecond a token"
    assert found[0][1] == found[1][1], "decoding does not wait for it"


@given(st.floats(1e3, 1e6), st.floats(0, 1e6), st.floats(1e2, 1e6))
def test_what_a_part_is_asked_for_is_its_share_alone(prefill: float, link: float, decode: float) -> None:
    mix = replace(MIX, prefill_us=prefill)
    first, then = prefill_mix(mix, link), decode_mix(mix, decode, 7_000.0)
    assert first.each_us == max(prefill, link)
    assert (then.each_us, then.step_us) == (decode, 7_000.0)
    assert (first.slacks, first.weights, first.eligible) == (then.slacks, then.weights, then.eligible)
    assert first.step_us == 0, "nothing decodes beside prompts"


def test_mean_lengths_are_of_what_was_heard_and_a_prior_of_what_was_not() -> None:
    history = DemandHistory((1, 1, 2))
    history.add(DemandSeen(0, MINUTE, (4_000, 0), (300, 0), (4, 0), (1.0, 0.0)))
    requests, prompts, answers = (column.tolist() for column in history.lengths(200.0))
    assert (requests, prompts, answers) == ([[4, 0]], [[1_000, 1_000]], [[75, 200]])


# ------------------------------------------------------------------------------------------------ the same way


def together_of(rates: tuple[float, float], prices: tuple[int, ...], most: tuple[int, ...], work: tuple[float, float]) -> Outlook:
    """Prompts and answers from one origin, two regions with a pool of each, and batch work due within the step."""
    pools = tuple(
        HorizonPool(f"pool {k}", k // 2, 1, float(price), 0.0, 0.0, 0, limit)
        for k, (price, limit) in enumerate(zip(prices, most, strict=True))
    )
    ways = [(Way(k, 1.0), Way(k + 2, 1.0)) for k in (0, 1)]
    streams = tuple(Stream(f"stream {k}", ways[k], (rate, rate), (rate, rate)) for k, rate in enumerate(rates))
    batches = tuple(BatchDemand(f"batch {k}", ways[k], (Lot(0.0, 2.0, one),)) for k, one in enumerate(work))
    stocks = tuple(HorizonStock(f"region {k}/gpu", 100) for k in (0, 1))
    return Outlook(
        (1.0, 1.0), pools, stocks, streams, batches, (), whole_steps=2, apart=Together(((0, 1),), ((0, 1),), (0, 0, 1, 1))
    )


def shares(outlook: Outlook, plan: HorizonPlan) -> list[float]:
    """The share of each stream that goes to the first region in the first step."""
    flows = {(flow.stream, flow.pool): flow.units for flow in plan.flows}
    return [flows.get((k, k), 0.0) / stream.rate[0] for k, stream in enumerate(outlook.streams)]


@settings(max_examples=25)
@given(
    st.tuples(*[st.integers(1, 6).map(lambda k: k / 2)] * 2),
    st.tuples(*[st.integers(10, 90)] * 4),
    st.tuples(*[st.integers(0, 3)] * 4),
)
def test_a_regions_prompts_are_decoded_in_it(rates: tuple[float, float], prices: tuple[int, ...], most: tuple[int, ...]) -> None:
    case = together_of(rates, prices, most, (0.0, 0.0))
    plan = solve(case)

    def carried(counts: tuple[int, ...]) -> float:
        """Share of the demand that a region's two pools carry, of both regions."""
        return sum(min(counts[k] / rates[0], counts[k + 1] / rates[1]) for k in (0, 2))

    every = itertools.product(*(range(limit + 1) for limit in most))
    cheapest = min(
        (sum(n * p for n, p in zip(counts, prices, strict=True)) for counts in every if carried(counts) >= 1 - 1e-9), default=inf
    )
    if cheapest == inf:
        assert plan.short
    else:
        assert not plan.short
        assert plan.costs.serving == pytest.approx(2 * cheapest), "tried in every way"
        first, then = shares(case, plan)
        assert first == pytest.approx(then, abs=1e-6)


def test_without_that_answers_would_be_decoded_where_it_is_cheaper() -> None:
    case = together_of((1.0, 1.0), (10, 90, 90, 10), (3,) * 4, (0.0, 0.0))
    assert shares(case, solve(replace(case, apart=msgspec.UNSET))) == [1.0, 0.0]
    assert shares(case, solve(case)) in ([1.0, 1.0], [0.0, 0.0])


def test_what_one_pool_cannot_do_is_asked_of_the_other_all_the_same() -> None:
    plan = solve(together_of((2.0, 2.0), (10,) * 4, (1, 2, 0, 0), (0.0, 0.0)))
    assert plan.target == (1, 2, 0, 0)
    assert [one.partition(":")[0] for one in plan.short] == ["demand stream 0"]


def test_batch_work_is_decoded_in_the_hour_and_place_of_its_prompts() -> None:
    # prompts are cheap in the one region and answers in the other; whole instances serve two hours of both
    plan = solve(together_of((0.0, 0.0), (10, 90, 60, 20), (3,) * 4, (1.0, 3.0)))
    done = [step.done for step in plan.steps]
    assert [one[0] * 3 for one in done] == pytest.approx([one[1] for one in done])
    assert sum(plan.target[:2]) == 0 or sum(plan.target[2:]) == 0, "one region is cheapest, and takes both"


# ------------------------------------------------------------------------------------------------ what if


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("held", ["any", "origin"])
def test_a_model_is_all_that_is_asked_of_it_to_whoever_asks_what_if(held: str, *, apart: bool) -> None:
    tiers = TIERS | {"iw-f": {"ttft": "1s", "priority": 0, "regions": held}}  # held to its origin, it is a stream of its own
    settings_ = fleet(tiers=tiers) if apart else scenario(gpus=160, tiers=tiers)
    layout = layout_of(settings_)
    inputs = ForesightInputs(settings_, layout, None)
    hear(inputs.demand)
    inputs.demand.forecast[:] = [[300.0, 500.0], [700.0, 1100.0]]
    for question in (inputs.outlook(HOUR, fleet_of(layout)), inputs.demand.problem(fleet_of(layout))):
        assert {"big", "small", "east/big", "west/small"} <= set(names(question))
        assert change(question, {"big": 2.0}) not in (question, change(question, {"demand": 2.0}))
        assert change(question, {"big": 2.0, "small": 2.0}) == change(question, {"demand": 2.0})
        assert change(question, {"east/big": 2.0}) != change(question, {"west/big": 2.0})
        assert change(question, {"east/big": 2.0, "west/big": 2.0}) == change(question, {"big": 2.0})
        if apart:
            assert change(question, {"big/prefill": 2.0}) != change(question, {"big/decode": 2.0})
            assert change(question, {"big/prefill": 2.0, "big/decode": 2.0}) == change(question, {"big": 2.0})


def test_what_would_change_a_pool_is_demand_for_both_parts() -> None:
    # of prompts a third or two find room in the cheap region, and their answers never more than one instance
    case = together_of((1.0, 0.5), (10, 10, 90, 90), (1, 3, 3, 3), (0.0, 0.0))
    up = what_would_change(case, solve(case), 1)[0]
    assert up.sentence == "no demand between x 1 and x 3 changes it", "answers alone would need two at x 2"
