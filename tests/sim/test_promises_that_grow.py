"""Promises that grow with the prompt: judged request by request, worked out by hand, and those that idle engines miss.

An engine takes 10 ms and 20 us a token; the way is 5 ms. Read next: `src/sageserve/base/promise.py`, `sim/reach.py`.
"""

import numpy as np
import pytest

from sageserve.base.promise import allowed
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.strategies import layout_of
from sageserve.data.results.summary import Summary
from sageserve.live.gateway.demand_counters import DemandCounters
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.watch.view import tightest_promise_s
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.reach import out_of_reach, typical
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core.small import TIERS, row, scenario, trace

MS = 1000
GROWING = {**TIERS, "iw-f": {"ttft": "40ms", "ttft_per_1k_tokens": "25ms"}}
SETTLED = {**TIERS, "iw-f": {"ttft": "60ms"}}
ROWS = [row(0, prompt=4_000), row(SECOND, prompt=200), row(2 * SECOND, prompt=1_999)]  # 95 ms, 19 ms, 54.98 ms; way included


def played(tiers: dict[str, object]) -> Summary:
    settings = scenario(tiers=tiers, strategy={"name": "fixed"})
    return summarise(simulate(settings, trace(settings, ROWS, window=10 * MINUTE)), 1.0)


@pytest.mark.parametrize(("prompt", "microseconds"), [(0, 40_000), (1_000, 65_000), (1_999, 89_975), (39, 40_975)])
def test_every_thousand_tokens_of_prompt_add_to_a_promise(prompt: int, microseconds: int) -> None:
    assert allowed(40 * MS, 25 * MS, prompt) == microseconds
    assert scenario(tiers=GROWING).tiers["iw-f"].patience_of(prompt) == microseconds


def test_a_request_is_held_to_the_promise_for_its_own_prompt() -> None:
    found, settled = played(GROWING), played(SETTLED)
    assert (found.tiers["iw-f"].attainment, found.tiers["iw-f"].missed) == (1.0, {})
    assert settled.tiers["iw-f"].missed == {"alone": 1}, "140 ms are allowed for the first where the promise grows, else 60 ms"
    assert found.tiers["iw-f"].words == "40ms + 25ms/1k"
    tight = played({**TIERS, "iw-f": {"ttft": "20ms", "ttft_per_1k_tokens": "18ms", "itl": "60ms"}}).tiers["iw-f"]
    assert tight.missed == {"network": 1}, "for 4,000 tokens 92 ms are allowed: 90 ms of prefill, 5 ms of way"
    assert tight.words == "20ms + 18ms/1k, 60ms/token"


def test_a_gateway_holds_each_answer_to_the_promise_for_its_prompt() -> None:
    settings = scenario(tiers={**TIERS, "iw-f": {"ttft": "20ms", "ttft_per_1k_tokens": "18ms"}})
    layout = layout_of(settings)
    counters = DemandCounters(settings, layout, RoutingState(settings, layout))
    cells = [counters.arrived(0, 0, 0, prompt) for _, _, _, _, prompt, _ in ROWS]
    for cell, (_, _, _, _, prompt, output) in zip(cells, ROWS, strict=True):
        counters.finished(cell, prompt, output, 15 * MS + 20 * prompt)
    (counted,) = counters.report(0).cells
    assert (counted.requests, counted.could, counted.on_time) == (3, 2, 2)


def test_a_bound_misses_nobody_where_long_prompts_may_take_longer() -> None:
    rows = [row(k * SECOND // 40, prompt=4_000, output=2) for k in range(2_400)]
    bounds = []
    for tiers in ({**TIERS, "iw-f": {"ttft": "50ms"}}, {**TIERS, "iw-f": {"ttft": "50ms", "ttft_per_1k_tokens": "100ms"}}):
        settings = scenario(tiers=tiers)
        bounds.append(oracle_bound(settings, trace(settings, rows)).hopeless["iw-f"])
    assert bounds == [2_400, 0], "90 ms of prefill"


def test_promises_that_idle_engines_miss_are_told_before_anything_is_played() -> None:
    settings = scenario(tiers=SETTLED)
    (found,) = out_of_reach(settings, layout_of(settings), trace(settings, ROWS))
    assert (found.tier, found.model, found.within) == ("iw-f", "big", "60ms")
    assert found.share == pytest.approx(2 / 3)
    assert "idle engines serve 66.6% within 60ms, promised are 95 %" in found.text
    settings = scenario(tiers=GROWING)
    assert out_of_reach(settings, layout_of(settings), trace(settings, ROWS)) == []


def test_what_a_scenario_describes_is_as_out_of_reach_as_what_is_drawn_from_it() -> None:
    shape = {"share": 1, "hours": [1] * 24, "days": [1] * 7, "prompt": [[0, 100], [1, 6_000]], "output": [[0, 1], [1, 9]]}
    shapes = {"big": {"interactive": shape}}
    settings = scenario(tiers=SETTLED, workload={"generate": {"shapes": shapes}})
    (found,) = out_of_reach(settings, layout_of(settings), typical(settings))
    longest = (60 * MS - 15 * MS - 20) / 20  # tokens in time
    assert found.share == pytest.approx(np.log(longest / 100) / np.log(60), abs=0.002)


def test_a_histogram_is_held_only_against_promises_that_do_not_grow() -> None:
    assert tightest_promise_s(scenario(tiers=TIERS)) == 1.0
    assert tightest_promise_s(scenario(tiers=GROWING)) == 60.0
