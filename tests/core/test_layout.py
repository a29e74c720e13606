"""Names become numbers once: rows of endpoints lie side by side, walks are nearest first and keep to who may serve whom.

Read next: `src/sageserve/core/layout.py`.
"""

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import Scenario
from sageserve.data.scenarios.load import check, load_scenario
from sageserve.sim.kernel.state import reference_profiles
from sageserve.sim.run import kernel_setup
from tests.core.small import ENGINE, PRICE, TIERS, layout_of, scenario


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Regions without some GPUs, models on one or two types, tiers that may stay at home, both kinds of roles."""
    regions = [f"r{k}/x" for k in range(draw(st.integers(1, 4)))]
    kinds = ["a100", "h100/sxm"]
    stock = {"gpus": 64, "price": PRICE}
    tree: dict[str, object] = {
        "name": "drawn",
        "gpus": {kind: {"memory": "80GiB"} for kind in kinds},
        "regions": {
            region: {
                "gpus": {kind: stock for kind in kinds if k == 0 or draw(st.booleans())},
                "rtt": {other: f"{draw(st.integers(1, 90))}ms" for other in regions[k + 1 :]},
            }
            for k, region in enumerate(regions)
        },
        "models": {
            f"m{k}": {"context": 8_000, "engines": {kind: ENGINE | {"gpu": kind} for kind in draw(st.permutations(kinds))}}
            for k in range(draw(st.integers(1, 3)))
        },
        "tiers": TIERS,
        "fleet": {"start": 1, "minimum": 1, "maximum": draw(st.integers(1, 5))},
        "strategy": {"name": draw(st.sampled_from(("reactive", "siloed")))},
    }
    return check(Scenario.model_validate(tree))


@given(scenarios(), st.data())
def test_the_fastest_profile_of_a_model_is_one_that_it_can_have(settings: Scenario, data: st.DataObject) -> None:
    """Demand is measured in its time by gateways, strategies and the simulator: all must mean the same one."""
    layout = layout_of(settings)
    layout.profiles["weight"] = [data.draw(st.integers(1_000, 1_003)) for _ in layout.profiles]
    for model in range(len(layout.names.models)):
        had = sorted({pool.profile for pool in layout.pools if pool.model == model})
        least = min(layout.profiles["weight"][row] for row in had)
        assert layout.fastest(model) == next(row for row in had if layout.profiles["weight"][row] == least)
    assert reference_profiles(kernel_setup(settings, layout)).tolist() == [
        layout.fastest(m) for m in range(len(layout.names.models))
    ]
    assert layout.fastest(len(layout.names.models)) == -1, "a model without a pool has none"


@given(scenarios())
def test_rows_of_pools_lie_in_their_endpoint_and_never_overlap(settings: Scenario) -> None:
    layout = layout_of(settings)
    taken: set[int] = set()
    for pool in layout.pools:
        rows = set(range(pool.begin, pool.end))
        assert len(rows) == settings.fleet.maximum
        assert not taken & rows
        taken |= rows
        assert {i // layout.slots for i in rows} == {pool.endpoint}
        assert (layout.slot_profile[pool.begin : pool.end] == pool.profile).all()
    assert {int(i) for i in (layout.slot_profile >= 0).nonzero()[0]} == taken
    numbers = [pool.number for pool in layout.pools]
    assert numbers == list(range(len(numbers)))


@given(scenarios())
def test_a_pool_is_where_its_names_say(settings: Scenario) -> None:
    layout = layout_of(settings)
    seen = set()
    for pool in layout.pools:
        region, model = layout.names.regions[pool.region], layout.names.models[pool.model]
        stock = layout.stocks[pool.stock]
        assert stock.gpu in settings.regions[region].gpus
        assert stock.gpu in settings.models[model].engines
        assert stock.name == f"{region}/{stock.gpu}"
        assert pool.endpoint == (pool.region * len(settings.models) + pool.model) * len(layout.roles) + pool.role
        assert pool.name.startswith(f"{region}/{model}/{stock.gpu}")
        seen.add((region, model, stock.gpu))
    wanted = {
        (region, model, gpu)
        for region, model in product(settings.regions, settings.models)
        for gpu in settings.models[model].engines
        if gpu in settings.regions[region].gpus
    }
    assert seen == wanted


@given(scenarios())
def test_walks_hold_every_endpoint_that_may_serve_nearest_first(settings: Scenario) -> None:
    layout = layout_of(settings)
    served = {pool.endpoint for pool in layout.pools}
    for g, m, k in product(*(range(size) for size in layout.walk.shape[:3])):
        walk = [int(e) for e in layout.walk[g, m, k] if e >= 0]
        wanted = {
            e
            for e in served
            if e // len(layout.roles) % len(layout.names.models) == m and k in layout.roles[e % len(layout.roles)].tiers
        }
        assert set(walk) == wanted
        assert len(walk) == len(wanted)
        away = [e // (len(layout.roles) * len(layout.names.models)) for e in walk]
        for one, other in pairwise(away):
            assert one == g or (other != g and layout.rtt[g, one] <= layout.rtt[g, other])


def test_a_tier_that_stays_at_home_is_tried_at_home_only() -> None:
    settings = scenario(tiers=TIERS | {"iw-f": {"ttft": "1s", "regions": "origin"}})
    layout = layout_of(settings)
    pinned = layout.names.tiers.index("iw-f")
    assert layout.walk[0, 1, pinned].tolist() == [1, -1]
    assert layout.walk[1, 1, pinned].tolist() == [3, -1]
    assert layout.walk[0, 1, 1].tolist() == [1, 3]
    assert layout.walk[1, 1, 1].tolist() == [3, 1]


def test_the_start_type_comes_first_and_a_slower_type_weighs_more() -> None:
    slow = ENGINE | {"gpu": "a100", "iteration_ms": [[1, 20.04], [10_001, 420.04]]}
    stock = {"gpus": 32, "price": PRICE}
    tree: dict[str, object] = {
        "name": "kinds",
        "gpus": {"h100": {"memory": "80GiB"}, "a100": {"memory": "80GiB"}},
        "regions": {"east": {"gpus": {"h100": stock, "a100": stock}, "rtt": {"west": "70ms"}}, "west": {"gpus": {"h100": stock}}},
        "models": {"m": {"context": 8_000, "engines": {"h100": ENGINE, "a100": slow}}},
        "tiers": TIERS,
        "fleet": {"start": 1, "minimum": 1, "maximum": 4, "gpu": "a100"},
    }
    layout = layout_of(check(Scenario.model_validate(tree)))
    assert [pool.name for pool in layout.endpoint_pools(0)] == ["east/m/a100", "east/m/h100"]
    assert [pool.name for pool in layout.endpoint_pools(1)] == ["west/m/h100"]
    assert layout.profiles["weight"].tolist() == [1000, 2000]
    assert layout.endpoint_name(1) == "west/m"


@pytest.mark.parametrize(("strategy", "feeds", "feed"), [("reactive", [True], 0), ("siloed", [False, False], 2)])
def test_batch_work_is_queued_for_unified_pools_and_sent_straight_to_silos(strategy: str, feeds: list[bool], feed: int) -> None:
    settings = scenario(strategy={"name": strategy})
    layout = layout_of(settings)
    assert layout.feeds.tolist() == feeds * 4
    assert kernel_setup(settings, layout).feed == feed
    direct = scenario(strategy={"name": strategy}, batch={"feed": "direct"})
    assert not layout_of(direct).feeds.any()


def test_prices_are_of_a_vm_and_are_kept_per_gpu() -> None:
    (east, *_), settings = layout_of(scenario()).stocks, scenario()
    assert settings.regions["east"].gpus["h100"].price.on_demand == 80
    assert (east.purchase.price_on_demand, east.purchase.price_reserved, east.purchase.price_spot) == (10, 5, 1)
    assert (east.gpu, east.gpus, east.per_vm, east.purchase.reserved) == ("h100", 80, 8, 16)


def test_the_built_in_fleet_is_the_papers() -> None:
    layout = layout_of(load_scenario("o365-week"))
    assert len(layout.pools) == 12
    assert {pool.gpus for pool in layout.pools} == {8}
    assert layout.rtt[0].tolist() == [5_000, 32_000, 70_000]
