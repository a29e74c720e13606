"""A Ray cluster with two applications, as the fake dashboard holds it, and a process that acts on one deployment.

Read next: `test_serve.py`.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import yaml

from sageserve.base.config import Scenario
from sageserve.base.config.clusters import RaySettings
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.live.authority.hands import ClusterHands, HandsParts
from sageserve.live.authority.target_hand import PoolAsked
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import ObjectPlace
from sageserve.live.ray.dashboard import ServeDashboard
from sageserve.live.ray.fake import FakeServe, Stored
from sageserve.live.ray.own_file import OwnFile
from sageserve.live.ray.writer import RayWriter
from tests.live.authority.stage import WALL
from tests.live.watch.stage import POOL, one_pool

APP, DEPLOYMENT = "chat", "LLM:qwen-0_5b"
PLACE = ObjectPlace("RayServe", APP, DEPLOYMENT)
OTHER: Stored = {"name": "other", "import_path": "other:app", "route_prefix": "/o", "deployments": [{"name": "Ingress"}]}


def config(text: str, **app: Json) -> Stored:
    """The application's config, with what YAML says of the deployment."""
    said: dict[str, Json] = yaml.safe_load(text) or {}
    entry: Json = {"name": DEPLOYMENT, "max_ongoing_requests": 8, **said}
    return {"name": APP, "import_path": "chat:app", "runtime_env": {"env_vars": {"A": "1"}}, "deployments": [entry], **app}


def on_ray(authority: str = "floor", url: str = "http://head:8265", **target: object) -> Scenario:
    given = {"cluster": "east", "pool": POOL, "kind": "RayServe", "name": f"{APP}/{DEPLOYMENT}", "authority": authority} | target
    ray: Mapping[str, object] = {"clusters": {"east": {"ray": {"url": url}}}}
    return one_pool(live={**ray, "targets": {"big": {"max": 20, "min": 1, "take_over": True} | given}})


@dataclass
class RayStage:
    """The dashboard, our folder and our clock."""

    folder: Path
    serve: FakeServe = field(default_factory=FakeServe)
    now: Micros = 10 * MINUTE
    wants: int | None = None
    blind: bool = False
    told: list[tuple[str, dict[str, str | int]]] = field(default_factory=list)

    def writer(self) -> RayWriter:
        dashboard = ServeDashboard(RaySettings(url="http://head:8265"), httpx.MockTransport(self.serve))
        return RayWriter(dashboard, OwnFile(self.folder, "east"))

    async def process(self, scenario: Scenario, me: str = "one", *, dry_run: bool = False) -> ClusterHands:
        """One that has the lease, and to which the minutes before are known."""
        parts = HandsParts(
            {"east": self.writer()},
            lambda _: PoolAsked(self.wants, 0.4, self.blind, self.now),
            lambda: self.now,
            lambda: WALL + self.now,
            me,
            lambda act, facts: self.told.append((act, dict(facts))),
            dry_run,
        )
        hands = ClusterHands(scenario, "east", parts)
        self.now += 10 * MINUTE
        await hands.keeper.keep()
        return hands

    async def run(self, hands: ClusterHands, length: Micros, every: Micros = 30 * SECOND) -> None:
        """So long; whatever is asked for runs."""
        for _ in range(length // every):
            self.now += every
            await hands.keeper.keep()
            await hands.round()
            self.serve.run()

    def entry(self) -> dict[str, Json]:
        """What the config says of the deployment now."""
        [found] = KubeObject(self.serve.configs[APP]).parts("deployments")
        return dict(found.data)

    def count(self) -> int:
        return self.serve.counts[APP, DEPLOYMENT]


@contextmanager
def served(serve: FakeServe) -> Iterator[str]:
    """The dashboard on a port, for commands, which know no transport; gives its address."""

    class Door(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            answer = serve(httpx.Request(self.command, f"http://head{self.path}", content=body))
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    for method in ("GET", "PUT", "POST"):
        setattr(Door, f"do_{method}", Door._answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
