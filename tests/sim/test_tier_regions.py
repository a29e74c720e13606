"""Where requests of a tier may be served: one answer of the scenario, kept by walks, simulated fleets, plans, bound and sizing.

Read next: `Scenario.serving`, `core/layout.py`.
"""

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE
from sageserve.core.events import DemandSeen
from sageserve.core.history import BIN
from sageserve.core.strategies import layout_of
from sageserve.core.strategies.demand_estimates import DemandEstimates
from sageserve.core.strategies.foresight_inputs import ForesightInputs
from sageserve.data.scenarios.load import check
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.run import simulate
from sageserve.sim.sizing.run import _confined
from tests.core.small import ENGINE, PRICE, TIERS, fleet_of, row, scenario, trace

FAST = {"ttft": "1s", "priority": 0}
WEST = TIERS | {"iw-f": FAST | {"regions": ["west"]}}


def two_kinds(tiers: dict[str, object]) -> Scenario:
    """East has engines that are twice as fast as those of west."""
    slow = ENGINE | {"gpu": "a100", "iteration_ms": [[1, 20.04], [10_001, 420.04]]}
    tree: dict[str, object] = {
        "name": "kinds",
        "gpus": {"h100": {"memory": "80GiB"}, "a100": {"memory": "80GiB"}},
        "regions": {
            "east": {"gpus": {"h100": {"gpus": 32, "price": PRICE}}, "rtt": {"west": "70ms"}},
            "west": {"gpus": {"a100": {"gpus": 32, "price": PRICE}}},
        },
        "models": {"big": {"context": 8_000, "engines": {"h100": ENGINE, "a100": slow}}},
        "tiers": tiers,
        "fleet": {"start": 1, "minimum": 0, "maximum": 4},
    }
    return check(Scenario.model_validate(tree))


def test_the_scenario_says_it_and_every_walk_keeps_to_it() -> None:
    tiers = {
        "a": FAST | {"regions": ["west"]},
        "b": FAST | {"regions": "origin"},
        "c": FAST | {"regions": ["west", "east"]},
        "d": FAST,
    }
    settings = scenario(tiers=tiers)
    said = {tier: [settings.serving(tier, origin) for origin in settings.regions] for tier in tiers}
    both = ["east", "west"]
    assert said == {"a": [["west"], ["west"]], "b": [["east"], ["west"]], "c": [both, both], "d": [both, both]}
    layout = layout_of(settings)
    for k, tier in enumerate(tiers):
        for g, origin in enumerate(settings.regions):
            walked = [layout.names.regions[e // 2] for e in layout.walk[g, 0, k].tolist() if e >= 0]
            assert walked == sorted(settings.serving(tier, origin), key=lambda one: one != origin), "nearest first"


def test_a_list_of_regions_serves_what_enters_anywhere() -> None:
    settings = scenario(tiers=WEST)
    rows = [row(k * 1_000, region=("east", "west")[k % 2], tier=("iw-f", "iw-n")[k // 2 % 2]) for k in range(200)]
    found = simulate(settings, trace(settings, rows))
    served = found.requests["instance"] // (found.layout.slots * 2)
    fast = found.requests["tier"] == 0
    assert set(served[fast].tolist()) == {1}
    assert set(served[~fast].tolist()) == {0, 1}


def test_plans_part_demand_by_where_it_may_be_served() -> None:
    settings = scenario(tiers=WEST, strategy={"name": "foresight"})
    layout = layout_of(settings)
    horizon = ForesightInputs(settings, layout, None)
    tokens = np.zeros((2, 2, 3), np.int64)
    tokens[0, 0] = 900, 300, 0  # east/big: three quarters may be served in west alone
    flat = tuple(tokens.ravel().tolist())
    horizon.demand.history.add(DemandSeen(0, BIN, flat, flat, flat, tuple(1e5 * one for one in flat)))
    streams = {one.name: one for one in horizon.outlook(BIN, fleet_of(layout)).streams}
    reached = {name: {layout.pools[way.pool].region for way in one.ways} for name, one in streams.items()}
    assert reached["east/big (iw-n)"] == reached["west/big (iw-n)"] == {0, 1}
    assert reached["west/big (iw-f)"] == {1}
    assert max(streams["east/big (iw-f)"].rate) == 0 < max(streams["west/big (iw-f)"].rate), "it is planned for where it may be"
    assert max(streams["east/big (iw-n)"].rate) > 0 == max(streams["west/big (iw-n)"].rate)
    assert [horizon.near(0), horizon.near(2)] == [[0, 2], [2]], "of east all may go west, and of west not all to east"


def test_demand_is_foretold_where_it_may_be_served() -> None:
    settings = scenario(tiers=WEST, strategy={"name": "lt-i"})
    estimates = DemandEstimates(settings, layout_of(settings), None)
    tokens = np.arange(1, 13).reshape(2, 2, 3)
    flat = tuple(tokens.ravel().tolist())
    estimates.history.add(DemandSeen(0, BIN, flat, flat, flat, (1.0,) * 12))
    kept = estimates.history.tokens()[0]
    assert (kept[0, :, 0] == 0).all()
    assert (kept[1, :, 0] == tokens[:, :, 0].sum(axis=0)).all()
    assert (kept[..., 1:] == tokens[..., 1:]).all()


def test_the_bound_counts_engines_of_these_regions_alone() -> None:
    requests = [row(k * 100_000, tier="iw-f", prompt=6_000) for k in range(1_000)]

    def bound(regions: object) -> float:
        settings = two_kinds({"iw-f": {"ttft": "1h", "regions": regions}})
        return oracle_bound(settings, trace(settings, requests, window=30 * MINUTE)).gpu_hours

    assert bound(["east"]) == bound("origin") == bound("any") < bound(["west"]) == pytest.approx(2 * bound("any"), rel=0.1)


def test_sizing_knows_tiers_that_one_region_alone_may_serve() -> None:
    tiers = WEST | {"iw-n": {"ttft": "60s", "regions": ["east", "west"]}}
    settings = scenario(tiers=tiers)
    assert _confined(settings, [("big", tier) for tier in tiers]) == {"iw-f"}
    assert _confined(settings, [("big", "iw-n")]) == set()


@pytest.mark.parametrize(
    ("regions", "words"),
    [
        (["wset"], "region 'wset' is not defined; did you mean 'west'?"),
        (["nowhere"], "region 'nowhere' is not defined; there is east, west"),
        (["west"], "may be served in west alone, and big cannot run there"),
    ],
)
def test_regions_that_cannot_be_are_refused(regions: list[str], words: str) -> None:
    fleet: dict[str, object] = {"start": 1, "minimum": 1, "maximum": 4}
    if regions == ["west"]:
        fleet["endpoints"] = {"west/*": {"gpus": []}}
    with pytest.raises(ConfigError) as refused:
        scenario(tiers=TIERS | {"iw-f": FAST | {"regions": regions}}, fleet=fleet)
    assert words in refused.value.message


def test_batch_work_of_a_list_needs_no_queue() -> None:
    with pytest.raises(ConfigError, match="the batch queue of a model serves all regions, but niw only west"):
        scenario(tiers=TIERS | {"niw": {"deadline": "24h", "regions": ["west"]}})
