"""A price of CO2: what a GPU's hour is worth by the clock, and that plans go where and when it is little; no bill holds it.

Read next: `src/sageserve/core/fleet.py` (`Stock`), `core/plan/horizon_rows.py`, docs/reference/money.md.
"""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, PlanError
from sageserve.base.units import HOUR, MINUTE
from sageserve.core.fleet import Stock
from sageserve.core.ledger import Purchase
from sageserve.core.plan.horizon import HorizonPlan
from sageserve.core.plan.horizon import solve as solve_ahead
from sageserve.core.plan.hourly import solve
from sageserve.core.plan.hourly_rows import HourlyProblem, PoolFacts, StockFacts
from sageserve.core.plan.outlook import BatchDemand, HorizonPool, HorizonStock, Lot, Outlook, Stream, Way
from sageserve.core.strategies.foresight_inputs import ForesightInputs
from sageserve.data.results.summary import Energy, Summary
from sageserve.live.simulated_only import refuse_simulated_only
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core.small import fleet_of, layout_of, row, scenario, trace

STOCK = Stock("east/h100", "h100", 8, 8, Purchase(0, 1.0, 1.0, 0.0))
TIMES = st.integers(-50 * HOUR, 50 * HOUR)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), TIMES, st.integers(1, 400))
def test_what_an_hour_is_worth_is_the_mean_of_its_minutes(grid: list[float], begin: int, minutes: int) -> None:
    begin -= begin % MINUTE
    each = [grid[(begin + k * MINUTE) // HOUR % len(grid)] for k in range(minutes)]
    found = replace(STOCK, carbon=tuple(grid)).carbon_cost(begin, begin + minutes * MINUTE)
    assert found == pytest.approx(sum(each) / minutes)
    assert STOCK.carbon_cost(begin, begin + 1) == 0


def priced(price: float, carbon: dict[str, object]) -> Scenario:
    """Two regions of like prices, whose grids are not alike."""
    values = scenario(strategy={"name": "foresight"}).model_dump()
    values["carbon_price"], values["gpus"]["h100"]["power"] = price, {"idle": 100, "busy": 700}
    for region, grams in carbon.items():
        values["regions"][region]["carbon"] = grams
    return Scenario.model_validate(values)


def test_the_worth_of_an_hour_is_kilowatts_times_grams_times_the_price() -> None:
    layout = layout_of(priced(85.0, {"east": 400, "west": [20, 40]}))
    east, west = layout.stocks
    assert east.carbon == pytest.approx((0.7 * 0.4 / 1000 * 85,))
    assert west.carbon == pytest.approx((0.7 * 0.02 / 1000 * 85, 0.7 * 0.04 / 1000 * 85))
    assert not layout_of(priced(0.0, {"east": 400, "west": 20})).stocks[0].carbon


def test_a_fleet_that_runs_has_no_hours_of_a_window() -> None:
    with pytest.raises(ConfigError, match=r"regions\.west\.carbon: its hours count from the start"):
        refuse_simulated_only(priced(85.0, {"east": 400, "west": [20, 40]}))
    refuse_simulated_only(priced(85.0, {"east": 400, "west": 20}))
    refuse_simulated_only(priced(0.0, {"east": 400, "west": [20, 40]}))


def test_later_is_weighed_as_now_and_a_request_is_worth_less_of_a_dearer_hour() -> None:
    """Were work that is left to after the horizon free of CO2, a plan would leave it all."""

    def drawn(price: float) -> tuple[float, float, float]:
        settings = priced(price, {"east": 400, "west": 400})
        inputs, layout = ForesightInputs(settings, layout_of(settings), None), layout_of(settings)
        outlook = inputs.outlook(0, fleet_of(layout))
        hour = outlook.pools[0].price_per_hour + (outlook.pools[0].carbon_per_hour or (0.0,))[0]
        return outlook.batches[0].carry_cost, hour, inputs.demand.level(0)

    (free, cheap, much), (dear, hour, less) = drawn(0.0), drawn(200_000.0)
    assert dear / free == pytest.approx(hour / cheap)
    assert hour > 2 * cheap
    assert less < much, "capacity is kept for less of the demand that may come"


def pool(name: str, stock: int, carbon: tuple[float, ...]) -> HorizonPool:
    return HorizonPool(
        name, stock, 8, 100.0, start_cost=1.0, lead_hours=0.0, serving=0, maximum=9, reclaim_hours=0.0, carbon_per_hour=carbon
    )


def ahead(east: tuple[float, ...], west: tuple[float, ...], stream: Stream | None = None) -> HorizonPlan:
    """Two pools, one unit of batch work that may be done in any of four hours, and what else there is."""
    pools, stocks = (pool("east", 0, east), pool("west", 1, west)), (HorizonStock("east", 80), HorizonStock("west", 80))
    ways = (Way(0, 1.0), Way(1, 1.0))
    batches = (BatchDemand("batch", ways, (Lot(0.0, 4.0, 1.0),)),)
    return solve_ahead(Outlook((1.0,) * 4, pools, stocks, (stream,) if stream else (), batches, (), whole_steps=4))


def served(plan: HorizonPlan) -> list[tuple[int, ...]]:
    return [tuple(round(count) for count in step.serving) for step in plan.steps]


def test_batch_work_goes_to_the_hour_and_the_place_of_least_carbon() -> None:
    plan = ahead((9.0, 9.0, 9.0, 9.0), (8.0, 8.0, 2.0, 8.0))
    assert served(plan) == [(0, 0), (0, 0), (0, 1), (0, 0)]
    assert plan.costs.carbon == pytest.approx(2.0)
    assert plan.costs.serving == pytest.approx(100.0)
    assert sum(msgspec.structs.astuple(plan.costs)[k] for k in (0, 1, 2, 3, 5, 6)) == pytest.approx(plan.objective)
    assert served(ahead((9.0, 2.0, 9.0, 9.0), (8.0,) * 4)) == [(0, 0), (1, 0), (0, 0), (0, 0)]


def test_interactive_work_goes_where_it_is_least_at_each_hour() -> None:
    stream = Stream("east/big", (Way(0, 1.0), Way(1, 1.0)), (1.0,) * 4, (1.0,) * 4)
    plan = ahead((30.0, 30.0, 1.0, 1.0), (1.0, 1.0, 30.0, 30.0), stream)
    assert [east for east, _ in served(plan)[:2]] == [0, 0]
    assert [west for _, west in served(plan)[2:]] == [0, 0]


def test_costs_of_carbon_must_be_one_per_step_and_finite() -> None:
    for wrong in ((1.0,), (float("nan"),) * 4, (-1.0,) * 4):
        with pytest.raises(PlanError, match="CO2"):
            ahead(wrong, ())


def test_the_hourly_program_weighs_it_too() -> None:
    def planned(east: float, west: float) -> tuple[int, ...]:
        facts = [
            PoolFacts(name, 0, 0, k, 8, 100.0, 1.0, theta=10.0, now=0, maximum=9, carbon_per_hour=carbon)
            for k, (name, carbon) in enumerate((("a", east), ("b", west)))
        ]
        return solve(
            HourlyProblem(
                ("east",), ("big",), (StockFacts("a", 80), StockFacts("b", 80)), tuple(facts), (((25.0,),),), (0.0,), ((0,),), 0.0
            )
        ).target

    assert planned(9.0, 1.0) == (0, 3)
    assert planned(1.0, 9.0) == (3, 0)


def test_a_run_emits_less_at_a_price_and_its_bill_holds_none_of_it() -> None:
    def played(price: float) -> Summary:
        settings = priced(price, {"east": 700, "west": 10})
        rows = [row(k * 250_000, prompt=7000, output=900, region=("east", "west")[k % 2]) for k in range(28_800)]
        return summarise(simulate(settings, trace(settings, rows, window=2 * HOUR)), 1.0)

    free, dear = played(0.0), played(20_000.0)
    assert isinstance(free.energy, Energy)
    assert isinstance(dear.energy, Energy)
    assert free.energy.kg_co2 is not None
    assert dear.energy.kg_co2 is not None
    assert dear.energy.kg_co2 < 0.9 * free.energy.kg_co2
    assert free.energy.carbon_cost is None
    assert dear.energy.carbon_cost == pytest.approx(dear.energy.kg_co2 / 1000 * 20_000, abs=0.01)
    assert dear.cost_usd.total == pytest.approx(free.cost_usd.total, rel=0.1)
