"""Sizing as a whole, with windows that keep what they are told: repairs, reasons, whole VMs, what is committed.

Plays nothing. Read next: `sim/sizing/run.py`, `test_sizing.py` for the search and for a fleet that is played.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import pytest

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, Infeasible
from sageserve.base.units import WEEK
from sageserve.cli.render_size import draw_sizing
from sageserve.data.results.summary import Hours, ModelSummary, ModelTier
from sageserve.data.results.sweep_folder import GENERATED
from sageserve.data.scenarios.load import check, load_scenario
from sageserve.sim.sizing.conditions import reached_in, with_lead, with_nine
from sageserve.sim.sizing.plays import Wish, wish_of
from sageserve.sim.sizing.pools import SizedPool, filled, pools_to_size, with_counts
from sageserve.sim.sizing.records import Growth, Nine, PromiseProof, QuotaLine, Sizing, Survival
from sageserve.sim.sizing.run import size
from sageserve.sim.sweep.cell import Cell, Finished, Outcome
from tests.core.small import ENGINE, trace
from tests.show.made import summary_of
from tests.worlds import SMALL_FLEET

REQUESTS: Final = 10_000
NONE: Final = Hours(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, idle=1.0)
SMALL: Final = "workload.generate={requests: 400, length: 10m, begins: 36h, history: 0, bursts: []}"


class World:
    """Says what a fleet keeps of one model's promise.

    Args:
        able: from instances by region, and whether the model is played alone, to the share kept.
    """

    def __init__(self, able: Callable[[dict[str, int], bool], float]) -> None:
        self.able = able
        self.wholes: list[dict[str, int]] = []

    def run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        for number, cell in enumerate(cells):
            starts = cell.scenario.fleet.starts
            if not cell.model:
                self.wholes.append(dict(starts))
            made = {}
            for model in [cell.model] if cell.model else cell.scenario.models:
                here = {name.split("/")[0]: count for name, count in starts.items() if name.split("/")[1] == model}
                share = self.able(here, bool(cell.model))
                tiers = {"iw-f": ModelTier(REQUESTS, int(share * REQUESTS) / REQUESTS, None)}
                made[model] = ModelSummary(REQUESTS, REQUESTS, 1, 1, NONE, NONE, tiers, work_gpu_hours=0.0)
            yield number, Finished(msgspec.structs.replace(summary_of("fixed", 1, 1.0, {}), models=made))


def scenario(*overrides: str) -> Scenario:
    return load_scenario(SMALL_FLEET, overrides=[SMALL, "fleet.minimum=0", *overrides])


def found(world: World, *overrides: str) -> Sizing:
    return size(scenario(*overrides), GENERATED, Wish(), world)


def less(sizing: Sizing, model: str) -> dict[str, str]:
    return {line.pool.split("/")[0]: line.why for line in sizing.less if f"/{model}/" in line.pool}


def test_what_the_whole_breaks_is_repaired_and_one_less_is_of_that_fleet() -> None:
    def able(counts: dict[str, int], alone: bool) -> float:  # together they need two instances more, wherever they are
        return min(1.0, sum(counts.values()) / (4 if alone else 6))

    world = World(able)
    sizing = found(world)
    for model in ("llama-2-70b", "llama-3.1-8b"):
        assert sum(line.instances for line in sizing.fleet if line.model == model) == 6
    for line in sizing.less:
        counts = {one.pool: one.instances for one in sizing.fleet}
        if counts[line.pool]:
            assert {**counts, line.pool: counts[line.pool] - 1} in world.wholes  # it was played, and as a whole
            assert (line.why, line.share) == ("breaks", 0.8333)
            assert line.window is not None


def test_a_repair_that_makes_others_needless_takes_them_away_again() -> None:
    def able(counts: dict[str, int], alone: bool) -> float:
        if alone:  # two in the centre, or four in the east
            return 1.0 if counts["centralus"] >= 2 or counts["eastus"] >= 4 else 0.5
        return 1.0 if max(counts.values()) >= 3 else 0.5

    sizing = found(World(able))
    counts = {line.pool: line.instances for line in sizing.fleet if line.model == "llama-2-70b"}
    assert sorted(counts.values()) == [0, 3]
    assert sorted(less(sizing, "llama-2-70b").values()) == ["breaks", "none"]


def test_a_whole_that_no_repair_helps_is_refused() -> None:
    with pytest.raises(Infeasible, match="together"):
        found(World(lambda _, alone: float(alone)))


def test_the_only_instance_is_the_last_and_a_model_nobody_asks_for_needs_none() -> None:
    sizing = found(World(lambda counts, _: float(sum(counts.values()) > 0)))
    assert sorted(less(sizing, "llama-2-70b").values()) == ["last", "none"]
    unasked = "workload.generate.shapes.llama-3.1-8b=null"
    sizing = found(World(lambda counts, _: float(sum(counts.values()) > 0)), unasked)
    assert set(less(sizing, "llama-3.1-8b").values()) == {"unused"}
    assert set(less(found(World(lambda *_: 1.0), "fleet.minimum=1"), "llama-2-70b").values()) == {"minimum"}


def test_what_is_committed_is_paid_also_where_nothing_runs_on_it() -> None:
    world = World(lambda counts, _: float(counts["eastus"] > 0))
    spare = "regions.westus.gpus.h100-80gb.reserved=16"
    regions = [name for name in scenario().regions if name not in {"eastus", "centralus"}]
    spare = spare.replace("westus", regions[0]) if regions else "regions.centralus.gpus.h100-80gb.reserved=16"
    plain, more = found(world), found(world, spare)
    price = 16 * plain.cost["eastus/h100-80gb"].on_demand_per_gpu_hour * 730
    assert more.cost_per_month_usd == pytest.approx(plain.cost_per_month_usd + price, abs=0.01)
    line = more.quota[spare.split(".")[1] + "/h100-80gb"]
    assert (line.gpus, line.ask) == (0, 0)


def test_a_type_that_is_committed_is_taken_before_a_cheaper_one_on_demand() -> None:
    def chosen(reserved: int) -> str:
        east = f"h100-80gb: {{gpus: 64, reserved: {reserved}, price: {{on_demand: 80/h, reserved: 10/h}}}}"
        both = f"regions.eastus.gpus={{{east}, a100-80gb: {{gpus: 64, price: {{on_demand: 40/h}}}}}}"
        sizing = found(World(lambda *_: 1.0), both, "fleet.minimum=1")
        return next(line.gpu for line in sizing.fleet if line.pool.startswith("eastus/llama-3.1-8b"))

    assert (chosen(0), chosen(64)) == ("a100-80gb", "h100-80gb")  # a price that is paid for nothing yet is no price


@pytest.mark.parametrize("first", ["both", "one"])
@pytest.mark.parametrize(
    ("count", "price", "gpu"),
    [(1, "48/h", "h100"), (1, "1/h", "h100"), (3, "48/h", "h100"), (3, "39/h", "a100")],
)
def test_room_in_vms_that_another_pool_opens_is_free(count: int, price: str, gpu: str, first: str) -> None:
    # one model runs on h100 alone: its instance opens a VM for $80 and leaves half of it. Three of the model that runs on both
    # take that half and a VM more, or two VMs of a100; whichever of the models comes first
    engines = {kind: ENGINE | {"gpu": kind, "gpus": 4, "tp": 4} for kind in ("a100", "h100")}
    models = {"both": {"context": 8_000, "engines": engines}, "one": {"context": 8_000, "engines": {"h100": engines["h100"]}}}
    prices = {"a100": price, "h100": "80/h"}
    tree = {
        "name": "room",
        "gpus": {kind: {"memory": "80GiB"} for kind in engines},
        "regions": {"east": {"gpus": {kind: {"gpus": 64, "price": {"on_demand": one}} for kind, one in prices.items()}}},
        "models": {name: models[name] for name in sorted(models, key=lambda name: name != first)},
        "tiers": {"iw": {"ttft": "1s"}},
        "fleet": {"start": 3, "minimum": 1, "endpoints": {"east/both": {"minimum": count}}},
    }
    settings = check(Scenario.model_validate(tree))
    (pool,) = pools_to_size(settings, trace(settings, []))["both"]
    assert pool.gpu == gpu


@pytest.mark.parametrize(
    ("sizes", "stock", "vms"),
    [
        ([], 64, ()),
        ([8, 8], 64, (8, 8)),
        ([4, 4, 4], 64, (8, 8)),
        ([4, 4, 4], 12, (8, 4)),  # what is left over of a stock is a smaller VM
        ([8, 8], 12, (8, 8)),  # which is too small for the second: more is asked for
        ([1] * 9, 64, (8, 8)),
        ([6, 4, 2, 4], 64, (8, 8)),
        ([5, 5, 5], 0, (8, 8, 8)),
    ],
)
def test_vms_are_filled_as_a_fleet_fills_them(sizes: list[int], stock: int, vms: tuple[int, ...]) -> None:
    assert filled(sizes, stock, 8) == vms


def test_a_stock_grows_only_where_its_smaller_vm_is_not_enough() -> None:
    settings = scenario("regions.eastus.gpus.h100-80gb.gpus=12", "fleet.start=0")
    pool = SizedPool("eastus/m/h100-80gb", "eastus", "m", "h100-80gb", 4, 8, 0, 0)
    for count, stock in ((3, 12), (4, 16)):
        opened = with_counts(settings, {pool.name: count}, {pool.name: pool})
        assert opened.regions["eastus"].gpus["h100-80gb"].gpus == stock


def test_the_tick_needs_the_safety_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    proof = PromiseProof(0.995, 0.951, 0.95, 0.96, "llama-2-70b", 0.95, needed=0.998333)
    assert not proof.kept
    assert msgspec.structs.replace(proof, safety=0.999).kept
    assert msgspec.structs.replace(proof, needed=None).kept  # few requests: every window kept it
    sizing = found(World(lambda counts, _: min(1.0, 0.96 * sum(counts.values()) / 3)))
    draw_sizing(msgspec.structs.replace(sizing, proof={"iw-f": proof}), "nothing")
    shown = capsys.readouterr().out
    assert "✗ 99.50 %" in shown
    assert "99.83 %" in shown


# ------------------------------------------------------------------------------------------------ losses


def surviving(world: World, survive: str, *overrides: str) -> Sizing:
    return size(scenario(*overrides), GENERATED, wish_of(0.99, 20, survive), world)


def counts_of(sizing: Sizing, model: str = "llama-2-70b") -> dict[str, int]:
    return {line.region: line.instances for line in sizing.fleet if line.model == model}


def five(counts: dict[str, int], _alone: bool) -> float:
    return min(1.0, sum(counts.values()) / 5)


def test_what_is_left_without_any_region_keeps_the_promises() -> None:
    assert sum(counts_of(found(World(five))).values()) == 5
    sizing = surviving(World(five), "region")
    assert counts_of(sizing) == {"eastus": 5, "centralus": 5}
    assert {(line.why, line.share) for line in sizing.less} == {("breaks", 0.8)}
    without = {line.pool.split("/")[0]: line.without for line in sizing.less}
    assert without == {"eastus": "centralus", "centralus": "eastus"}


def test_a_vm_takes_all_instances_that_it_has_room_for() -> None:
    whole = counts_of(surviving(World(five), "vm"))  # instances of eight GPUs on VMs of eight
    assert sum(whole.values()) == 6
    small = [f"models.llama-2-70b.engines.h100-80gb.{name}" for name in ("gpus=4", "tp=4", "kv_tokens=100000")]
    halves = counts_of(surviving(World(five), "vm", *small))
    assert min(sum(halves.values()) - min(2, count) for count in halves.values()) >= 5 > sum(halves.values()) - 3


def test_a_region_that_cannot_be_spared_is_refused() -> None:
    with pytest.raises(ConfigError, match="stay in one region"):
        surviving(World(five), "region", "tiers.iw-n.regions=origin")
    with pytest.raises(ConfigError, match="runs in eastus alone"):
        surviving(World(five), "region", "regions.centralus.gpus.h100-80gb.gpus=0", "fleet.start=0")
    with pytest.raises(ConfigError, match="neither region nor vm"):
        wish_of(0.99, 20, "rack")
    with pytest.raises(ConfigError, match="decides by itself"):
        wish_of(0.99, 20, "vm", strategy="reactive")


def test_what_losses_and_growth_add_is_shown_apart(capsys: pytest.CaptureFixture[str]) -> None:
    sizing = found(World(five))
    conditions = msgspec.structs.replace(
        sizing, growth=Growth(1.5, sizing.gpus - 24, 0.0), survive=Survival("region", sizing.gpus - 16, 1.0)
    )
    draw_sizing(conditions, "nothing")
    shown = capsys.readouterr().out
    assert "for 1.5 times the traffic: +8 GPUs and +$1.00 a month" in shown
    assert "to survive the loss of any one region: +16 GPUs and +$" in shown


def test_one_more_nine_is_a_tenth_of_the_doubt_and_may_be_out_of_reach(capsys: pytest.CaptureFixture[str]) -> None:
    sizing = found(World(five))
    asked = []

    def solve(safety: float) -> Sizing:
        asked.append(safety)
        return msgspec.structs.replace(sizing, cost_per_month_usd=sizing.cost_per_month_usd + 100.0)

    safer = with_nine(sizing, solve)
    assert (asked, safer.nine) == ([0.999], Nine(0.999, sizing.gpus, sizing.cost_per_month_usd + 100.0))
    draw_sizing(safer, "nothing")
    assert "one more nine, 99.9 % safe: +0 GPUs and +$100.00 a month" in capsys.readouterr().out

    def none(safety: float) -> Sizing:
        raise Infeasible("none")

    draw_sizing(with_nine(sizing, none), "nothing")
    assert "99.9 % safe: no fleet was found that is as safe" in capsys.readouterr().out


def test_quota_is_due_a_lead_time_before_traffic_has_grown_so_much(capsys: pytest.CaptureFixture[str]) -> None:
    grows = scenario("workload.generate.growth_per_week=0.1")
    sizing = found(World(five))
    name = "eastus/h100-80gb"
    quota = {**sizing.quota, name: QuotaLine(136, 17, 128, 8)}
    wanted = msgspec.structs.replace(sizing, quota=quota, growth=Growth(1.1**14, 1, 1.0))
    reached = reached_in(grows, 1.1**14)
    assert reached == pytest.approx(14 * 7 * 86_400, abs=1)
    assert reached_in(grows, 1.0) == 0.0

    def told(which: Sizing, weeks: int) -> str:
        draw_sizing(with_lead(which, weeks * WEEK, reached if which.growth else 0.0), "nothing")
        text = " ".join(capsys.readouterr().out.split())  # it is wrapped where the terminal ends
        return text[text.index("quota:") : text.index(" 20 windows")]

    asks = f"quota: ask for 8 GPUs of {name}"
    assert told(wanted, 12) == f"{asks} within 2 weeks: it takes 12 weeks, and the traffic is there in 14 weeks"
    assert told(wanted, 15) == f"{asks} now, 1 week late: it takes 15 weeks, and the traffic is there in 14 weeks"
    there = msgspec.structs.replace(wanted, growth=None)
    assert told(there, 3) == f"{asks} now, 3 weeks late: it takes 3 weeks, and the traffic is there"
    assert told(sizing, 12) == "quota: nothing to ask for, the stock is enough"
    with pytest.raises(ConfigError, match="does not grow"):
        reached_in(scenario("workload.generate.growth_per_week=0"), 1.5)
