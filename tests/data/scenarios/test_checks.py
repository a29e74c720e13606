"""What cannot work is refused when it is loaded, with the numbers that meet."""

from pathlib import Path

import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.scenarios.load import check, load

BASE = """\
gpus: {h100: {memory: 80GiB}, a100: {memory: 40GiB}}
regions:
  east:
    gpus: {h100: {gpus: 64, price: {on_demand: 98.32/h}}}
    rtt: {west: 70ms}
  west:
    gpus: {h100: {gpus: 64, price: {on_demand: 98.32/h}}}
models:
  big: &model
    context: 4096
    engines:
      h100: {gpu: h100, tp: 8, gpus: 8, iteration_ms: [[1, 30], [600, 30], [8192, 330]], eager_ms: 24,
        decode_us_per_sequence: 200, kv_ns_per_token: 170, attention_ns_per_token2: 16, kv_tokens: 1000000, weights: 138GB,
        kv_per_token: 320KiB, source: made up}
  small: *model
tiers:
  iw-f: {ttft: 1s}
  niw: {deadline: 24h}
fleet: {start: 4}
workload: {assign: {model: {big: 1}, tier: {niw: 1}, region: {east: 1}}}
"""
ENGINE = "models.big.engines.h100"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def test_the_base_of_these_tests_can_work(base: Path) -> None:
    assert load(base).scenario.start_gpu("big", "west") == "h100"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([f"{ENGINE}.kv_tokens=4000"], "kv_tokens 4000 < context 4096"),
        ([f"{ENGINE}.gpus=16"], "an instance needs 16 GPUs, a VM of h100 has 8"),
        ([f"{ENGINE}.tp=16"], "tp 16 > 8 GPUs of an instance"),
        ([f"{ENGINE}.weights=400GB"], "400GB of weights + 1000000 KV tokens x 327680 B = 677.7GiB > 8 GPUs x 80GiB = 640.0GiB"),
        (
            ["regions.east.gpus.h100.gpus=4", "regions.west.gpus.h100.gpus=4"],
            "no region can run it: an instance needs 8 h100; east has 4 h100",
        ),
        (
            ["regions.east.gpus=null", "regions.west.gpus={a100: {gpus: 8, price: {on_demand: 9/h}}}"],
            "regions.east.gpus: is missing",
        ),
        (["fleet.start=5"], "the first instances need big 5 x 8 + small 5 x 8 = 80 > 64 GPUs in stock"),
        (["fleet.minimum=9", "fleet.maximum=8"], "minimum 9 > maximum 8"),
        (["fleet.maximum=3"], "start 4 > maximum 3"),
        (["fleet.start=1"], "start 1 < minimum 2"),
        (["regions.east.gpus.h100.reserved=65"], "reserved 65 > stock 64"),
        (["tiers.x={priority: 1}"], "tiers.x: promises nothing"),
        (["tiers.niw.ttft=1s"], "tiers.niw: promises both"),
        (
            ["tiers.iw-f.ttft=50ms"],
            "50ms is out of reach for big: from east 5ms to east and back + 54ms first token on h100 = 59ms",
        ),
        (["tiers.niw.deadline=10ms"], "10ms is out of reach"),
        (["tiers.niw.ttft_per_1k_tokens=1s"], "adds to `ttft`, which is not promised"),
        (["tiers.iw-f.itl=20ms"], "20ms is out of reach for big: a token takes 30.2ms"),
        (["tiers.iw-f.regions=origin", "regions.west.gpus.h100.gpus=0"], "may not leave its origin, but west cannot run big"),
        (
            ["regions.east.gpus.h100.gpus=0", "tiers.iw-f.ttft=120ms"],
            "from east 70ms to west and back + 54ms first token on h100 = 124ms",
        ),
        (["strategy.reactive.low=80%"], "low 0.8 is not below high 0.7"),
        (["batch.two_below=0.9"], "bands inverted"),
        (["workload.assign.tier={niw: 0}"], "all shares are 0"),
        (["workload.assign.tier={niw: -1}"], "a share is negative"),
        (
            [f"live.keys=[{{name: a, sha256: {'a' * 64}, weight: 2}}]", "tenants.a.weight=3"],
            "2, and tenants.a.weight is 3: keep one",
        ),
    ],
)
def test_settings_that_cannot_work_together_show_the_arithmetic(base: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(base, overrides=overrides)
    assert words in caught.value.message
    assert isinstance(caught.value, Infeasible) or "is missing" in words


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["regions.east.gpus.h200={gpus: 8, price: {on_demand: 9/h}}"], "GPU type 'h200' is not defined; did you mean 'h100'?"),
        (["regions.east.rtt.wset=9ms"], "region 'wset' is not defined; did you mean 'west'?"),
        (["regions.east.rtt.west=null"], "no round-trip time between 'east' and 'west'"),
        (["fleet.gpu=b200"], "GPU type 'b200' is not defined"),
        ([f"{ENGINE}.gpu=a100"], "the profile is for 'a100'"),
        (["workload.assign.model.bgi=1"], "model 'bgi' is not defined; did you mean 'big'?"),
        (["workload.assign.tier.iwf=1"], "tier 'iwf' is not defined; did you mean 'iw-f'?"),
        (["workload.generate.regions.eats=1"], "region 'eats' is not defined"),
        (["workload.generate.shift.eats=1h"], "region 'eats' is not defined"),
        (["workload.generate.tiers.slow=1"], "tier 'slow' is not defined"),
        (["workload.generate.shapes.medium={}"], "model 'medium' is not defined"),
        (["workload.generate.bursts=[{at: 1h, length: 1h, factor: 2, tiers: [x]}]"], "tier 'x' is not defined"),
        (["workload.generate.bursts=[{at: 1h, length: 1h, factor: 2, models: [x]}]"], "model 'x' is not defined"),
    ],
)
def test_names_that_are_not_defined_are_refused(base: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(base, overrides=overrides)
    assert words in caught.value.message
    assert not isinstance(caught.value, Infeasible)


def test_infeasible_settings_are_told_with_the_line_that_set_them(base: Path) -> None:
    with pytest.raises(Infeasible) as caught:
        load(base, overrides=["fleet.start=5"])
    assert f"{base}:4: regions.east.gpus.h100.gpus" in caught.value.message
    assert f"{base}:7: regions.west.gpus.h100.gpus" in caught.value.message


def test_one_stated_direction_of_a_round_trip_stands_for_both(base: Path) -> None:
    scenario = load(base).scenario
    assert scenario.rtt("east", "west") == scenario.rtt("west", "east") == 70_000
    assert scenario.rtt("east", "east") == 5_000


def test_a_target_just_above_the_fastest_answer_is_accepted(base: Path) -> None:
    assert load(base, overrides=["tiers.iw-f.ttft=59ms"]).scenario.tiers["iw-f"].ttft == 59_000


def test_first_instances_use_the_wanted_gpu_where_it_is_in_stock(base: Path) -> None:
    engine = (
        "{gpu: a100, tp: 8, gpus: 8, iteration_ms: [[1, 50], [8192, 787]], decode_us_per_sequence: 180,"
        " kv_ns_per_token: 300, attention_ns_per_token2: 20, kv_tokens: 100000, source: x}"
    )
    stock = "{gpus: 64, price: {on_demand: 40/h}}"
    two = [f"models.big.engines.a100={engine}", f"regions.west.gpus.a100={stock}"]
    scenario = load(base, overrides=[*two, "fleet.gpu=a100"]).scenario
    assert [scenario.start_gpu("big", region) for region in ("east", "west")] == ["h100", "a100"]
    assert load(base, overrides=two).scenario.start_gpu("big", "west") == "h100"


def test_a_scenario_made_in_code_is_checked_too(base: Path) -> None:
    scenario = load(base).scenario
    assert check(scenario) is scenario
    hasty: Scenario = scenario.model_copy(
        update={"tiers": {**scenario.tiers, "iw-f": scenario.tiers["iw-f"].model_copy(update={"ttft": 1})}}
    )
    with pytest.raises(Infeasible, match="out of reach"):
        check(hasty)
