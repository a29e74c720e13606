"""How many prefill and how many decode: ratios known by hand are planned, kept when they are played, and said why.

Any iteration takes 10 ms and 20 us per prompt token, and a prompt is computed 8,192 tokens at a time at most: 21.2 us of engine
time per token. A batch of 256 sequences makes a token each in 15.1 ms: 59 us. Read next: `tests/core/test_parts.py`.
"""

from functools import cache

import pytest

from sageserve.base.config import Scenario
from sageserve.base.records import Trace
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.plan_once import Planner, Proposal, planned_layout, propose
from sageserve.data.results.sweep_folder import GENERATED
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.demand import heard
from sageserve.show.why import pool_names, ratio
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from sageserve.sim.sizing.plays import Wish
from sageserve.sim.sizing.pools import pools_to_size
from sageserve.sim.sizing.run import size
from sageserve.sim.sweep.alone import Alone
from tests.core.small import PRICE, row, trace
from tests.sim.test_handover import APART, SENT, fleet
from tests.worlds import SMALL_FLEET

WIDE = {"context": 16_000, "engines": {"h100": SENT | {"kv_tokens": 2_000_000}}, "disaggregated": APART | {"link": "100GB/s"}}
TIERS = {"iw-f": {"ttft": "2s", "percentile": 0.95}}
PREFILL, DECODE = "east/big/h100/prefill", "east/big/h100/decode"


def one_region(strategy: str, **fleet_numbers: object) -> Scenario:
    numbers = {"start": 1, "minimum": 1, "maximum": 12} | fleet_numbers
    east = {"east": {"gpus": {"h100": {"gpus": 200, "reserved": 16, "price": PRICE}}}}
    return fleet(big=WIDE, fleet=numbers, tiers=TIERS, strategy={"name": strategy}, regions=east)


def steady(settings: Scenario, minutes: int, per_second: int, prompt: int, output: int) -> Trace:
    """Requests at equal distances, of lengths that vary by a half."""
    count = minutes * 60 * per_second
    rows = [
        row(k * SECOND // per_second, prompt=prompt + prompt * (k % 11 - 5) // 10, output=output + output * (k % 7 - 3) // 6)
        for k in range(count)
    ]
    return trace(settings, rows, window=minutes * MINUTE)


@cache
def proposed(planner: Planner, per_second: int, prompt: int, output: int) -> Proposal:
    settings = one_region(planner)
    asked = steady(settings, 31, per_second, prompt, output)
    known = heard(asked, planned_layout(settings), 30 * MINUTE)
    return propose(settings, 30 * MINUTE, known, earlier=None, counts={PREFILL: 1, DECODE: 1})


def planned(planner: Planner, per_second: int, prompt: int, output: int) -> tuple[int, int]:
    found = proposed(planner, per_second, prompt, output)
    there = dict(zip(pool_names(found.question), found.plan.target, strict=True))
    return there[PREFILL], there[DECODE]


@pytest.mark.parametrize("planner", ["foresight", "lt-ua"])
@pytest.mark.parametrize(
    ("per_second", "prompt", "output", "busy"),
    [
        (40, 500, 50, (0.42, 0.12)),  # 40 x 500 x 21.2 us; 40 x 49 x 59 us
        (40, 5_000, 50, (4.24, 0.12)),  # prompts ten times as long
        (40, 500, 1_000, (0.42, 2.4)),  # answers twenty times as long
        (20, 5_000, 2_000, (2.12, 2.4)),
    ],
)
def test_the_ratio_known_by_hand_is_planned(
    planner: Planner, per_second: int, prompt: int, output: int, busy: tuple[float, float]
) -> None:
    for count, work in zip(planned(planner, per_second, prompt, output), busy, strict=True):
        assert work <= count <= int(work) + 2, "one instance more than engine time alone takes, at most"


def kept(prefill: int, decode: int) -> float:
    """Share in time of 20 requests of 5,000 and 2,000 tokens a second, in ten minutes with so many instances."""
    settings = one_region("fixed", starts={PREFILL: prefill, DECODE: decode})
    run = simulate(settings, steady(settings, 10, 20, 5_000, 2_000))
    found = summarise(run, 1.0).tiers["iw-f"].attainment
    assert found is not None
    return found


def test_what_is_planned_keeps_the_promise_and_one_less_of_either_does_not() -> None:
    prefill, decode = planned("foresight", 20, 5_000, 2_000)
    assert kept(prefill, decode) > 0.95
    assert kept(prefill - 1, decode) < 0.95
    assert kept(prefill, decode - 1) < 0.95


def test_foresight_comes_to_the_ratio_by_itself_and_keeps_the_promise() -> None:
    settings = one_region("foresight", start=4)
    run = simulate(settings, steady(settings, 60, 20, 5_000, 2_000), debug=True)
    serving = run.timeline.column("serving")[55]  # a minute near the end
    held = {run.layout.endpoint_name(e): int(serving[e]) for e in range(run.layout.endpoints)}
    assert (held["east/big/prefill"], held["east/big/decode"]) == planned("foresight", 20, 5_000, 2_000)
    assert (summarise(run, 1.0).tiers["iw-f"].attainment or 0) > 0.95


def test_a_plan_says_why_it_has_that_ratio() -> None:
    for planner in ("foresight", "lt-ua"):
        found = proposed(planner, 20, 5_000, 2_000)
        names = pool_names(found.question)
        said = {ratio(found.question, found.plan, names.index(pool)) for pool in (PREFILL, DECODE)}
        assert len(said) == 1, "both pools are told the same"
        assert "east has 3 to prefill and 3 to decode: in all regions prompts take 2." in said.pop()[0]
        assert ratio(found.question, found.plan, names.index("east/small/h100")) == ()


# ------------------------------------------------------------------------------------------------ sized


@pytest.mark.parametrize(
    ("per_second", "prompt", "output", "counts"), [(40, 5_000, 50, (5, 1)), (40, 500, 1_000, (1, 3)), (20, 5_000, 2_000, (3, 3))]
)
def test_a_search_begins_with_the_ratio_known_by_hand(per_second: int, prompt: int, output: int, counts: tuple[int, int]) -> None:
    settings = one_region("fixed")
    found = {pool.role: pool for pool in pools_to_size(settings, steady(settings, 31, per_second, prompt, output))["big"]}
    assert (found["prefill"].guess, found["decode"].guess) == counts


def test_a_fleet_is_sized_by_pool_and_none_of_them_could_be_smaller() -> None:
    told = "models.llama-2-70b.disaggregated={link: 100GB/s, latency: 2ms}"
    traffic = "workload.generate={requests: 1500, length: 5m, begins: 36h, history: 0, bursts: []}"
    parts = [f"{one}.llama-3.1-8b=null" for one in ("models", "workload.generate.shapes", "workload.assign.model")]
    settings = load_scenario(SMALL_FLEET, overrides=[told, traffic, *parts, "fleet.minimum=1", "tiers.iw-f.ttft=3s"])
    found = size(settings, GENERATED, Wish(), Alone())
    counts = {line.pool: line.instances for line in found.fleet}
    assert sorted(counts) == sorted(
        f"{g}/llama-2-70b/h100-80gb/{side}" for g in settings.regions for side in ("prefill", "decode")
    )
    why = {one.pool: one.why for one in found.less}
    assert {why[name] for name, count in counts.items() if count == 1} <= {"minimum"}
    assert {why[name] for name, count in counts.items() if count > 1} <= {"breaks", "unsure", "backlog"}
    assert any(count > 1 for name, count in counts.items() if name.endswith("/prefill"))
