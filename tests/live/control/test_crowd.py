"""Many gateways come and go at once, and control does not stand still for it.

Read next: `fleet_view_stage.py`.
"""

import pytest

from sageserve.base.units import SECOND
from sageserve.live.wire import RoutingTable
from tests.live.control.fleet_view_stage import Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_crowd_of_gateways_costs_two_tables_each_and_all_know_how_many_share(scene: Scene) -> None:
    """As when control is started anew: with a table for everybody at each of them it stood still for seconds."""
    crowd = 40
    for number in range(crowd):
        scene.hello(number, f"nonce {number}")
        assert scene.table(number).gateways == number + 1, "the new one is told at once"
    assert len(scene.sent) <= 2 * crowd
    scene.now += SECOND // 4
    scene.report(7)
    assert {scene.table(number).gateways for number in range(crowd)} == {crowd}
    assert len(scene.sent) <= 3 * crowd
    for number in range(10):
        scene.view.left(number)
    scene.now += SECOND // 4
    scene.report(20)
    scene.report(21)
    assert {scene.table(number).gateways for number in range(10, crowd)} == {crowd - 10}
    assert len(scene.sent) <= 4 * crowd
    versions = [message.version for gateway, message in scene.sent if isinstance(message, RoutingTable) and gateway == 39]
    assert versions == sorted(versions)
