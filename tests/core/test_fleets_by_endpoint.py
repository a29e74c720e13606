"""Numbers and GPU types of single endpoints, by pattern over a default for all: laid out, started, kept and sized as said.

Read next: `base/config/rules.py`, FleetSettings; `data/scenarios/checks.py`.
"""

import re

import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.core.strategies import STRATEGIES, kind_of, layout_of
from sageserve.data.rebuild.fleet import settings_of
from sageserve.data.scenarios.load import check
from sageserve.live.reload import changes, refused
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from sageserve.sim.sizing.pools import pools_to_size, with_counts
from tests.core.small import ENGINE, PRICE, row, scenario, trace

ENDPOINTS: dict[str, object] = {"east/*": {"start": 3, "maximum": 4}, "*/small": {"minimum": 2}, "west/small": {"gpus": []}}
FLEET: dict[str, object] = {
    "start": 2,
    "minimum": 1,
    "maximum": 6,
    "endpoints": ENDPOINTS,
}
SAID = {"east/big": (3, 1, 4), "east/small": (3, 2, 4), "west/big": (2, 1, 6)}
BUSY = [row(k * SECOND // 4, model=("big", "small")[k % 2], region="east", prompt=4_000, output=60) for k in range(2_000)]


def small(**fleet: object) -> Scenario:
    return scenario(fleet={**FLEET, **fleet}, gpus=320)


@pytest.mark.parametrize("name", [*STRATEGIES, "fixed"])
def test_every_strategy_begins_with_keeps_and_stays_below_what_an_endpoint_says(name: str) -> None:
    settings = small().model_copy(update={"strategy": small().strategy.model_copy(update={"name": name})})
    layout = layout_of(settings)
    by_endpoint: dict[str, list[int]] = {}
    for pool, count in zip(layout.pools, kind_of(settings).initial(settings, layout), strict=True):
        found = by_endpoint.setdefault("/".join(pool.name.split("/")[:2]), [0, 0, 0])
        found[0] += count
        found[1] += pool.minimum
        found[2] = pool.end - pool.begin
    alone = len(layout.roles) == 1 or name == "chiron"  # silos keep a minimum each
    assert {end: (start, kept if alone else SAID[end][1], most) for end, (start, kept, most) in by_endpoint.items()} == SAID
    held = summarise(simulate(settings, trace(settings, BUSY)), 1.0).gpus
    for end, (_, kept, most) in SAID.items():
        mine = [one for pool, one in held.items() if pool.startswith(f"{end}/")]
        assert sum(one.minimum for one in mine) >= 8 * kept
        assert max(one.peak for one in mine) <= 8 * most
    assert not any(pool.startswith("west/small/") for pool in held)


def test_patterns_are_laid_over_each_other_key_by_key_and_the_last_counts() -> None:
    fleet = small(endpoints={"*": {"start": 4, "minimum": 3}, "east/*": {"minimum": 2}, "*/b?g": {"maximum": 9}}).fleet
    assert [(one.start, one.minimum, one.maximum) for one in (fleet.at("east", "big"), fleet.at("west", "small"))] == [
        (4, 2, 9),
        (4, 3, 6),
    ]
    assert (fleet.said("east", "big", "minimum"), fleet.said("west", "big", "gpus")) == ("east/*", None)


def test_gpu_types_are_used_in_the_order_that_an_endpoint_names() -> None:
    engines = {gpu: ENGINE | {"gpu": gpu} for gpu in ("h100", "a100", "l40s")}
    stock = {gpu: {"gpus": 80, "price": PRICE} for gpu in engines}
    tree = {
        "name": "three",
        "gpus": {gpu: {"memory": "80GiB"} for gpu in engines},
        "regions": {"east": {"gpus": stock}},
        "models": {"big": {"context": 8_000, "engines": engines}},
        "tiers": {"iw": {"ttft": "1s"}},
        "fleet": {"start": 1, "minimum": 1, "maximum": 3, "endpoints": {"east/big": {"gpus": ["l40s", "a100"]}}},
    }
    settings = check(Scenario.model_validate(tree))
    assert settings.gpus_at("big", "east") == ["l40s", "a100"]
    assert layout_names(settings) == ["east/big/l40s", "east/big/a100"]
    assert kind_of(settings).initial(settings, layout_of(settings)) == (1, 0)


def test_a_bound_and_a_sizing_keep_to_what_endpoints_say() -> None:
    settings = small()
    none = trace(settings, [], window=60 * MINUTE)
    assert oracle_bound(settings, none).gpu_hours == 8 * (1 + 2 + 1), "the minimums of three endpoints"
    found = pools_to_size(settings, trace(settings, BUSY))
    assert {pool.name: pool.floor for pools in found.values() for pool in pools} == {
        "east/big/h100": 1,
        "west/big/h100": 1,
        "east/small/h100": 2,
    }
    sized = with_counts(settings, {"east/big/h100": 7}, {pool.name: pool for pools in found.values() for pool in pools})
    assert [pool.name for pool in layout_of(sized).pools] == layout_names(settings)
    assert sized.fleet.at("east", "big").maximum == 7


def layout_names(settings: Scenario) -> list[str]:
    return [pool.name for pool in layout_of(settings).pools]


def test_the_past_of_a_fleet_finds_room_below_every_maximum() -> None:
    said = settings_of({"east/big/h100": ((0, 9),)}, small())
    assert 'fleet.endpoints={"east/*": {"maximum": 18}}' in said


def test_a_fleet_that_runs_keeps_the_gpu_types_of_its_endpoints() -> None:
    before, after = small(), small(endpoints=ENDPOINTS | {"west/small": {"gpus": ["h100"]}})
    (why,) = refused(before, changes(before, after))
    assert why.key == "fleet.endpoints.west/small.gpus"
    more = small(endpoints=ENDPOINTS | {"west/big": {"minimum": 2}})
    assert not refused(before, changes(before, more))


@pytest.mark.parametrize(
    ("endpoints", "words"),
    [
        ({"esat/*": {"start": 1}}, "no endpoint fits 'esat/*'"),
        ({"east/*": {"minimum": 5}}, "minimum 5 > maximum 4 instances of east/big"),
        ({"east/big": {"start": 7}}, "start 7 > maximum 6 instances of east/big"),
        ({"east/big": {"gpus": ["b200"]}}, "GPU type 'b200' is not defined"),
        ({"*/big": {"gpus": []}}, "big is placed in no region"),
        ({"east/big": {"minimum": 0, "start": 0}}, "fleet.minimum or fleet.endpoints: 0: hpa keeps an instance"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_endpoint_it_is_about(endpoints: dict[str, object], words: str) -> None:
    given = {**FLEET, "maximum": 6, "endpoints": endpoints}
    if "minimum 5" in words:
        given["maximum"] = 4
    with pytest.raises(ConfigError, match=re.escape(words)):
        kind_of(scenario(fleet=given, gpus=320, strategy={"name": "hpa"}))
