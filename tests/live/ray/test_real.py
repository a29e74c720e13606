"""The same on a real Ray, where SAGESERVE_RAY names a Python that has `ray[serve]`: what the fake says is what Ray does.

Extended: Ray takes a minute, and 1.2 GB of memory. Read next: `src/sageserve/live/ray/fake.py`, `test_serve.py`.
"""

import asyncio
import copy
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

import sageserve
from sageserve.base.config.clusters import RaySettings
from sageserve.base.units import MINUTE, SECOND
from sageserve.live.authority.give_back import give_back
from sageserve.live.kubernetes.objects import KubeObject
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace
from sageserve.live.ray.dashboard import ServeDashboard
from sageserve.live.ray.own_file import OwnFile
from sageserve.live.ray.writer import RayWriter
from sageserve.live.scaler.table import ScalerTable, ToldTarget
from tests.live.prometheus.stub import stub
from tests.live.ray.stage import RayStage, on_ray

PYTHON = os.environ.get("SAGESERVE_RAY", "")  # noqa: TID251 # which systems there are to try against
pytestmark = [pytest.mark.extended, pytest.mark.skipif(not PYTHON, reason="SAGESERVE_RAY names no Python with ray[serve]")]

CODE = """
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.01})
class Chat:
    def __call__(self):
        return "yes"

app = Chat.bind()
"""
BOUNDED = {"min_replicas": 1, "max_replicas": 6, "target_ongoing_requests": 4}
PATIENCE_S = 90
SOURCE = Path(sageserve.__file__).parents[1]


def application(name: str, entry: dict[str, object], **more: object) -> dict[str, object]:
    return {
        "name": name,
        "route_prefix": f"/{name}",
        "import_path": "chat_app:app",
        "deployments": [{"name": "Chat", **entry}],
        **more,
    }


CONFIGS = [
    application("chat", {"autoscaling_config": BOUNDED}),
    application("fixed", {"num_replicas": 1}),
    application("outside", {}, external_scaler_enabled=True),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head with three applications: bounds, a count in the config, a count over the API."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "chat_app.py").write_text(CODE, "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, gcs = one.getsockname()[1], two.getsockname()[1]
    words = ["start", "--head", "--block", "--disable-usage-stats", "--num-cpus=4", f"--port={gcs}", f"--dashboard-port={port}"]
    environment = dict(os.environ, PYTHONPATH=f"{folder}:{SOURCE}")  # noqa: TID251 # Ray's own
    program = str(Path(PYTHON).with_name("ray"))
    store = ["--object-store-memory=80000000", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
    with (folder / "log").open("w") as log:
        head = subprocess.Popen(
            [program, *words, *store], env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        yield _deployed(f"http://127.0.0.1:{port}", folder)
    finally:
        head.terminate()
        head.wait(60)


def _deployed(url: str, folder: Path) -> str:
    body = {"applications": CONFIGS, "http_options": {"host": "127.0.0.1", "port": 0}}
    for _ in range(PATIENCE_S):
        try:
            answer = httpx.put(f"{url}/api/serve/applications/", json=body, timeout=30)
            if answer.status_code == 200:
                break
        except httpx.HTTPError:
            pass
        time.sleep(1)
    else:
        raise AssertionError((folder / "log").read_text("utf-8")[-2000:])
    found: dict[str, dict[str, object]] = {}
    for _ in range(PATIENCE_S):
        found = httpx.get(f"{url}/api/serve/applications/", timeout=30).json()["applications"]
        if len(found) == 3 and all(one["status"] == "RUNNING" for one in found.values()):
            return url
        time.sleep(1)
    raise AssertionError(f"applications do not run: {found}")


def test_bounds_counts_and_what_was_found_on_a_real_ray(url: str, tmp_path: Path) -> None:
    async def settled(dashboard: ServeDashboard, app: str, count: int) -> None:
        found = KubeObject({})
        for _ in range(60):
            details = await dashboard.details()
            assert isinstance(details, KubeObject)
            found = details.part("applications", app, "deployments", "Chat")
            running = sum(one.text("state") == "RUNNING" for one in found.parts("replicas"))
            if (found.number("target_num_replicas"), running) == (count, count):
                return
            await asyncio.sleep(0.5)
        raise AssertionError(f"{app} has not come to {count}: {found.data}")

    async def configs(dashboard: ServeDashboard) -> dict[str, object]:
        details = await dashboard.details()
        assert isinstance(details, KubeObject)
        return {
            app: copy.deepcopy(details.at("applications", app, "deployed_app_config")) for app in ("chat", "fixed", "outside")
        }

    async def story() -> None:
        async with ServeDashboard(RaySettings(url=url)) as dashboard:
            before = await configs(dashboard)
            for app, rung, count in (("chat", "floor", 3), ("fixed", "full", 2), ("outside", "full", 2)):
                folder = tmp_path / app
                folder.mkdir()
                one = RayStage(folder)
                writer = RayWriter(dashboard, OwnFile(folder, "east"))
                one.writer = lambda writer=writer: writer  # type: ignore[method-assign,misc] # its default binds it
                hands = await one.process(on_ray(rung, name=f"{app}/Chat", max=6))
                one.wants = count
                await hands.round()
                assert hands.notes() == []
                await settled(dashboard, app, count)
                one.now += 5 * SECOND
                await hands.round()
                assert hands.hands[0].ladder.demoted is None
                if rung == "floor":
                    said = await give_back(writer, ObjectPlace("RayServe", app, "Chat"), "sageserve-small")
                    assert not isinstance(said, NotWritten)
                else:
                    one.wants = 1
                    one.now += 6 * MINUTE
                    await hands.keeper.keep()
                    await hands.round()
                    await settled(dashboard, app, 1)
            assert await configs(dashboard) == before

    asyncio.run(story())


def test_the_policy_is_a_floor_below_rays_own_rule(url: str) -> None:
    told = ToldTarget(3)

    def running() -> int:
        found = httpx.get(f"{url}/api/serve/applications/", timeout=30).json()["applications"].get("planned", {})
        replicas = found.get("deployments", {}).get("Chat", {}).get("replicas", [])
        return sum(one["state"] == "RUNNING" for one in replicas)

    def comes_to(count: int) -> None:
        for _ in range(2 * PATIENCE_S):
            if running() == count:
                return
            time.sleep(0.5)
        raise AssertionError(f"{running()} replicas, and not {count}")

    with stub(lambda one: one.answer(msgspec.json.encode(ScalerTable("f", 5.0, {"chat": told})))) as leader:
        policy = {"policy_function": "sageserve.live.ray.policy:AtLeast"}
        policy["policy_kwargs"] = {"leader": leader.url, "targets": {"Chat": "chat"}, "hold_s": 15}  # type: ignore[assignment] # JSON
        scaled: dict[str, object] = {"autoscaling_config": {**BOUNDED, "upscale_delay_s": 0, "downscale_delay_s": 1}}
        planned = application("planned", scaled, autoscaling_policy=policy)
        body = {"applications": [*CONFIGS, planned], "http_options": {"host": "127.0.0.1", "port": 0}}
        assert httpx.put(f"{url}/api/serve/applications/", json=body, timeout=60).status_code == 200
        comes_to(3)
        told = ToldTarget(2)
        comes_to(2)
    time.sleep(8)
    assert running() == 2, "what was heard is too old, and nothing shrinks"
    comes_to(1)  # until Ray's rule is alone
