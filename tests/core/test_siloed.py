"""Siloed: 16 + 4 of 20, every tier in exactly one silo, each with its own floor and rule.

Read next: `src/sageserve/core/strategies/siloed.py`.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import SpotSettings
from sageserve.core.actions import Start
from sageserve.core.controller import Controller
from sageserve.core.events import EndpointSeen, InstanceReady, Observed
from sageserve.core.strategies.reactive import Reactive
from sageserve.core.strategies.siloed import Siloed
from sageserve.data.scenarios.load import load_scenario
from tests.core.small import TIERS, fleet_of, layout_of, scenario, starts_by_role


def test_sixteen_and_four_of_twenty() -> None:
    week = load_scenario("o365-week")
    assert starts_by_role(Siloed, week) == (16, 4)
    assert starts_by_role(Reactive, week) == (20,)


@given(start=st.integers(2, 200), share=st.floats(0, 1), floor=st.integers(1, 3))
def test_silos_share_out_the_same_start(start: int, share: float, floor: int) -> None:
    settings = scenario(
        gpus=200 * 2 * 8,
        fleet={"start": start, "minimum": 1, "maximum": 200},
        strategy={"name": "siloed", "siloed": {"batch_share": share, "batch_minimum": min(floor, start)}},
    )
    assert sum(starts_by_role(Siloed, settings)) == start


@pytest.mark.parametrize(("names", "silos"), [(("iw-f", "iw-n", "niw"), 2), (("iw-f",), 1), (("niw",), 1)])
def test_every_tier_has_exactly_one_silo(names: tuple[str, ...], silos: int) -> None:
    settings = scenario(tiers={name: TIERS[name] for name in names}, strategy={"name": "siloed"})
    roles = Siloed.roles(settings)
    assert sorted(tier for role in roles for tier in role.tiers) == list(range(len(names)))
    assert len(roles) == len(Siloed.minimum(settings)) == len(starts_by_role(Siloed, settings)) == silos
    assert not any(role.queued for role in roles)


def test_silos_keep_at_least_one_instance_each() -> None:
    settings = scenario(
        fleet={"start": 2, "minimum": 0, "maximum": 4},
        strategy={"name": "siloed", "siloed": {"batch_minimum": 0, "batch_share": 0}},
    )
    assert Siloed.minimum(settings) == (1, 1)
    assert starts_by_role(Siloed, settings) == (2, 0), "where none need be kept, none begins for nothing"
    kept = scenario(fleet={"start": 2, "minimum": 1, "maximum": 4}, strategy=settings.strategy.model_dump())
    assert starts_by_role(Siloed, kept) == (1, 1)


def test_each_silo_is_scaled_by_what_is_seen_of_it_and_by_its_own_marks() -> None:
    settings = scenario(
        strategy={"name": "siloed", "siloed": {"high": 0.6, "low": 0.2}, "reactive": {"high": 0.95, "low": 0.9}},
        fleet={"start": 3, "minimum": 1, "maximum": 4},
        gpus=160,
    )
    layout = layout_of(settings)
    fleet = fleet_of(layout)
    controller = Controller(fleet, Siloed(settings, layout), SpotSettings())
    for pool in layout.pools:
        for action in controller.begin(0, pool.number, 2):
            assert isinstance(action, Start)
            controller.handle(0, InstanceReady(action.instance))
    values = [0.65, 0.1, 0.5, 0.21, 0.3, 0.65, 0.5, 0.5]
    assert [layout.endpoint_name(e) for e in (0, 1)] == ["east/big/interactive", "east/big/batch"]
    controller.handle(0, Observed(0, tuple(EndpointSeen(value, 0, 0) for value in values), (0, 0)))
    assert [(one.pool, one.change) for one in controller.decisions] == [(0, 1), (1, -1), (5, 1)]
