"""Commands on a Ray cluster: orders are kept in the state folder, what was found comes back, and a promotion looks at Ray.

Read next: `test_serve.py`; tests/cli/test_acting.py.
"""

import asyncio
import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import SageServeError
from sageserve.base.units import MINUTE
from sageserve.cli.main import app
from sageserve.data.scenarios.load import resolved_yaml
from tests.live.ray.stage import APP, DEPLOYMENT, OTHER, RayStage, config, on_ray, served
from tests.live.ray.test_serve import stage


@pytest.fixture
def there(tmp_path: Path) -> Iterator[tuple[RayStage, str]]:
    one = stage(tmp_path)
    with served(one.serve) as url:
        yield one, url


def say(one: RayStage, *words: str) -> str:
    """What a command answers; its error's message where it is refused."""
    ran = CliRunner().invoke(app, [*words, "--state", str(one.folder)])
    if isinstance(ran.exception, SageServeError):
        return f"error: {ran.exception}"
    assert ran.exit_code == 0, ran.output + str(ran.exception)
    return ran.output


def test_people_order_and_take_back(there: tuple[RayStage, str]) -> None:
    one, url = there
    scenario = on_ray(url=url)
    (one.folder / "scenario.yaml").write_text(resolved_yaml(scenario), "utf-8")
    before = copy.deepcopy(one.serve.configs)
    assert "held to 5" in say(one, "override", "big=5", "--for", "2h", "--why", "launch")

    async def acted() -> None:
        hands = await one.process(scenario)
        await hands.round()
        assert hands.orders.targets["big"].count == 5

    asyncio.run(acted())
    assert "frozen until" in say(one, "freeze", "east", "--for", "1h")
    assert "is acted on again" in say(one, "thaw", "big")
    assert "spec.minReplicas: 2 -> 2 of serve-config" not in say(one, "release", "big")
    assert one.serve.configs == before

    async def after() -> None:
        hands = await one.process(scenario, "two")
        await one.run(hands, MINUTE)
        assert hands.hands[0].ladder.demoted is not None

    asyncio.run(after())
    assert one.serve.configs == before


def test_a_promotion_asks_ray(there: tuple[RayStage, str]) -> None:
    one, url = there
    (one.folder / "scenario.yaml").write_text(resolved_yaml(on_ray("observe", url=url)), "utf-8")
    said = say(one, "promote", "big", "floor")
    assert "Ray cluster" not in said  # nothing that Kubernetes would have to say is missing
    assert "autoscaling_config" not in said
    assert "Ray's own autoscaler decides the replicas" in say(one, "promote", "big", "full")
    one.serve.deploy(config("num_replicas: 4"), OTHER)
    assert f"says no autoscaling_config of {DEPLOYMENT}" in say(one, "promote", "big", "floor")
    assert "Ray's own" not in say(one, "promote", "big", "full")
    one.serve.deploy(OTHER)
    assert f"there is no deployment {DEPLOYMENT} in application {APP}" in say(one, "promote", "big", "full")
