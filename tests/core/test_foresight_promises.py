"""foresight and its promises: headroom that follows from what a request in time is worth, and regions that help each other.

Read next: `test_foresight.py`, `test_worth.py`; `src/sageserve/core/strategies/foresight_inputs.py`.
"""

from statistics import NormalDist

import numpy as np
import pytest
from msgspec.structs import replace

from sageserve.base.config import RoutingSettings, Scenario, SpotSettings
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.core.events import DemandSeen
from sageserve.core.history import BIN
from sageserve.core.plan.outlook import Outlook
from sageserve.core.response import MIX_WIDTH, note_request
from sageserve.core.strategies.foresight_inputs import ForesightInputs
from tests.core.driven import Driven
from tests.core.small import fleet_of, layout_of
from tests.core.test_foresight import flat, forecast, headroom_of, horizon_of, settings_of

CELLS = 2 * 2 * 3


def outlook_of(settings: Scenario, missed: int = 0, *, hours: int = 0) -> Outlook:
    """The outlook after an hour of demand, and hours more in which so many of a thousand requests a minute missed."""
    horizon = horizon_of(settings, flat(4, 1_000.0))
    horizon.take((forecast(HOUR, [1_000.0] * 48), None, None, None))
    fleet = fleet_of(layout_of(settings))
    outlook = horizon.outlook(HOUR, fleet)
    for _ in range(4 * hours):
        tell(horizon, missed)
        outlook = horizon.outlook(HOUR, fleet)
    return outlook


def tell(horizon: ForesightInputs, missed: int) -> None:
    """A quarter of an hour of outcomes."""
    none, some = (0,) * CELLS, (15_000,) + (0,) * (CELLS - 1)
    horizon.worth.see(DemandSeen(0, BIN, none, none, some, (0.0,) * CELLS, (), some, (15 * missed, *none[1:])))


def headroom(outlook: Outlook) -> float:
    stream = outlook.streams[0]
    return stream.rate[0] / stream.expected[0]


def test_more_instances_are_had_when_a_request_in_time_is_worth_more() -> None:
    counted = np.zeros(MIX_WIDTH)
    note_request(counted, 100_000.0, 120_000.0, 200_000.0)  # prompts of a tenth of a second, that may wait a fifth
    cells = 2 * 2 * 3
    needs = []
    for worth in (0.0, 0.01, 1.0):
        horizon = ForesightInputs(settings_of(worth=worth), layout_of(settings_of()), None)
        tokens = (45_000_000, *[0] * (cells - 1))
        work = (100.0 * tokens[0], *[0.0] * (cells - 1))
        mixes = (tuple(counted.tolist()), (0.0,) * MIX_WIDTH)
        horizon.demand.history.add(DemandSeen(0, BIN, tokens, (0,) * cells, tokens, work, mixes))
        needs.append(horizon.outlook(BIN, fleet_of(layout_of(settings_of()))).streams[0].expected[0])
    assert needs[0] == pytest.approx(5 / 0.9)
    assert needs[0] < needs[1] < needs[2]


def test_headroom_is_the_newsvendors_quantile() -> None:
    for worth in (0.002, 0.004, 0.006):
        settings = headroom_of(worth=worth, driven=False)
        horizon = horizon_of(settings, flat(4, 1_000.0))
        horizon.take((forecast(HOUR, [1_000.0] * 48), None, None, None))
        outlook = horizon.outlook(HOUR, fleet_of(layout_of(settings)))
        mix = horizon.demand.loads[0].mix
        served = mix.eligible * 0.9 * HOUR / mix.each_us  # by an instance in an hour, whose price is 80 dollars
        level = 1 - 80 / (worth * served)
        assert 0.5 < level < 0.9
        assert outlook.streams[0].level == pytest.approx(level)
        part = NormalDist().inv_cdf(level) / NormalDist().inv_cdf(0.9)
        assert headroom(outlook) == pytest.approx(1 + 0.5 * part)


def test_headroom_falls_to_the_middle_and_rises_to_the_highest_quantile() -> None:
    lowest, highest = headroom_of(worth=0.0, driven=False), headroom_of(worth=100.0, driven=False)
    assert (outlook_of(lowest).streams[0].level, headroom(outlook_of(lowest))) == (0.5, 1.0)
    assert outlook_of(highest).streams[0].level == 0.9
    assert headroom(outlook_of(highest)) == pytest.approx(1.5)


def test_promises_that_are_more_than_kept_are_not_paid_for() -> None:
    settings = headroom_of(worth=0.2)
    begun, kept, broken = outlook_of(settings), outlook_of(settings, hours=8), outlook_of(settings, 100, hours=8)
    assert headroom(kept) < headroom(begun) == headroom(broken)
    assert kept.worth < begun.worth == broken.worth == 0.2
    assert [round(one.kept, 2) for one in broken.tiers] == [0.9, 1.0]
    still = outlook_of(headroom_of(worth=0.2, driven=False), hours=8)
    assert replace(still, worth=0.0, tiers=()) == replace(begun, worth=0.0, tiers=())


@pytest.mark.parametrize(
    ("route", "where", "helped"), [("threshold", "any", True), ("nearest", "any", False), ("quickest", "origin", False)]
)
def test_a_full_region_beside_an_empty_one_needs_the_router_and_no_instance(route: str, where: str, helped: bool) -> None:
    settings = settings_of(worth=0.0, guard=0.05)
    tiers = {name: tier.model_copy(update={"regions": where}) for name, tier in settings.tiers.items()}
    routing = RoutingSettings.model_validate({"region": route})
    driven = Driven(settings.model_copy(update={"routing": routing, "tiers": tiers}), 2)
    driven.hear(5_000.0, until=HOUR)
    driven.plan(HOUR, (2, 2, 2, 2))
    driven.look(HOUR + MINUTE, 1.2, 0.5, 0.6, 0.5)
    assert [one.pool for one in driven.decisions] == ([] if helped else [0])
    driven.look(HOUR + MINUTE + 30 * SECOND, 1.2, 0.5, 0.97, 0.5)
    assert [one.pool for one in driven.decisions] == ([0] if helped else [2]), "two are not started where one is enough"


@pytest.mark.parametrize("donate", [True, False])
def test_after_a_surge_the_fleet_goes_back_to_its_minimum_while_some_demand_is_left(donate: bool) -> None:
    """A daily surge that needs a second instance, and little for the rest of the day: the second must not stay for it."""
    settings = settings_of(forecaster="last-value").model_copy(update={"spot": SpotSettings(donate=donate)})
    driven, most = Driven(settings, serving=1), 0
    for k in range(4, 15):
        driven.hear(14_000.0 if 4 < k <= 7 else 700.0, until=k * BIN)
        driven.settle(k * BIN, driven.plan(k * BIN, seen=[0.3] * 4))
        most = max(most, *driven.serving())
    assert most >= 2
    assert driven.serving() == [1, 1, 1, 1]
