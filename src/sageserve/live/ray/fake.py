"""A dashboard for tests: Serve's part of its API, answered from memory.

Written from docs.ray.io/en/master/serve/api/rest-api.html and the sources of Ray 2.60 (its modules dashboard.modules.serve and
serve.schema): which fields there are, what a PUT removes, what is refused with which code. tests/live/ray asks a real one, too,
where there is one. Read next: `dashboard.py`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from sageserve.live.kubernetes.objects import Json, KubeObject

if TYPE_CHECKING:
    import httpx

Stored = dict[str, Json]


@dataclass(slots=True)
class FakeServe:
    """What a Ray cluster holds.

    Args:
        configs: deployed configs by application.
        code: what code says of deployments, by application and name: `num_replicas` or `autoscaling_config`.
        counts: replicas that are asked for, by application and name.
        running: of them those that run; the rest starts.
        imperative: applications that were deployed from code.
        hidden: applications whose configs are not told, as before there is a checkpoint.
        capacity: target_capacity.
        failing: the code with which a request ends, by its method; 0: it does not fail.
        before: called before each request, for whoever is quicker.
    """

    configs: dict[str, Stored] = field(default_factory=dict)
    code: dict[tuple[str, str], Stored] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    running: dict[tuple[str, str], int] = field(default_factory=dict)
    imperative: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    capacity: float | None = None
    failing: Callable[[str], int] = field(default=lambda _: 0)
    before: Callable[[str], None] = field(default=lambda _: None)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, request: "httpx.Request") -> "httpx.Response":
        """Answer a request."""
        import httpx

        method, path = request.method, request.url.raw_path.decode()
        self.before(method)
        self.requests.append((method, path))
        if code := self.failing(method):
            return httpx.Response(code, text="Internal Server Error")
        if path == "/api/serve/applications/" and method == "GET":
            return httpx.Response(200, json=self.details())
        if path == "/api/serve/applications/" and method == "PUT":
            return self._deployed(msgspec.json.decode(request.content))
        parts = [unquote(part) for part in path.split("/")]
        if method == "POST" and parts[:3] == ["", "api", "v1"] and parts[-1] == "scale":
            return self._scaled(parts[4], parts[6], msgspec.json.decode(request.content))
        return httpx.Response(404, text="404: Not Found")

    def deploy(self, *configs: Stored) -> None:
        """What `serve deploy` does: these applications, and no others."""
        self.configs = {str(one["name"]): copy.deepcopy(one) for one in configs}
        for app, config in self.configs.items():
            listed = {one.text("name"): one for one in KubeObject(config).parts("deployments")}
            names = {name for where, name in self.code if where == app} | set(listed)
            for name in names:
                count = self._options(app, name).number("num_replicas")
                scaling = self._options(app, name).part("autoscaling_config")
                low, high = scaling.number("min_replicas"), scaling.number("max_replicas")
                now = self.counts.get((app, name), 1)
                wanted = count if count is not None else min(max(now, 1 if low is None else low), 100 if high is None else high)
                if count is not None and config.get("external_scaler_enabled") and (app, name) in self.counts:
                    wanted = now
                self.counts[app, name] = wanted
        self.counts = {key: one for key, one in self.counts.items() if key[0] in self.configs or key[0] in self.imperative}

    def run(self) -> None:
        """Whatever is asked for runs."""
        self.running = dict(self.counts)

    def details(self) -> Stored:
        """What GET answers."""
        apps: Stored = {app: self._application(app) for app in (*self.configs, *sorted(self.imperative))}
        return {
            "controller_info": {},
            "proxies": {},
            "proxy_location": "EveryNode",
            "http_options": {"host": "127.0.0.1", "port": 8000},
            "grpc_options": {"port": 9000, "grpc_servicer_functions": []},
            "target_capacity": self.capacity,
            "applications": apps,
        }

    def _application(self, app: str) -> Stored:
        config = self.configs.get(app)
        deployments: Stored = {name: self._deployment(app, name) for where, name in self.counts if where == app}
        return {
            "name": app,
            "route_prefix": f"/{app}",
            "status": "RUNNING",
            "message": "",
            "deployed_app_config": None if app in self.hidden else copy.deepcopy(config),
            "source": "declarative" if config is not None else "imperative",
            "external_scaler_enabled": bool(config and config.get("external_scaler_enabled")),
            "deployments": deployments,
        }

    def _deployment(self, app: str, name: str) -> Stored:
        options, count = self._options(app, name), self.counts[app, name]
        here = self.running.get((app, name), 0)
        replicas: list[Json] = [
            {"replica_id": f"{name}#{number}", "state": "RUNNING" if number < here else "STARTING", "start_time_s": 1.79e9}
            for number in range(max(count, here))
        ]
        auto = options.at("num_replicas") == "auto"
        scaling = options.part("autoscaling_config").data or ({"min_replicas": 1, "max_replicas": 100} if auto else None)
        applied: Json = {"name": name, "num_replicas": count, "autoscaling_config": scaling}
        return {
            "name": name,
            "status": "HEALTHY" if here == count else "UPDATING",
            "deployment_config": applied,
            "target_num_replicas": count,
            "replicas": replicas,
        }

    def _options(self, app: str, name: str) -> KubeObject:
        """What code says, under what the config says: each option whole."""
        listed = KubeObject(self.configs.get(app, {})).parts("deployments")
        said = next((one.data for one in listed if one.text("name") == name), {})
        return KubeObject({**self.code.get((app, name), {}), **said})

    def _deployed(self, config: Json) -> "httpx.Response":
        import httpx

        found = KubeObject(config if isinstance(config, dict) else {})
        for one in found.parts("applications"):
            for each in one.parts("deployments"):
                low, high = (each.part("autoscaling_config").number(key) for key in ("min_replicas", "max_replicas"))
                if low is not None and high is not None and low > high:
                    return httpx.Response(400, text="ValidationError: max_replicas must be greater than or equal to min_replicas")
                if (count := each.number("num_replicas")) is not None and (count < 1 or each.part("autoscaling_config").data):
                    return httpx.Response(400, text="ValidationError: num_replicas")
        self.deploy(*(dict(one.data) for one in found.parts("applications")))
        return httpx.Response(200)

    def _scaled(self, app: str, name: str, body: Json) -> "httpx.Response":
        import httpx

        count = KubeObject(body if isinstance(body, dict) else {}).number("target_num_replicas")
        if count is None or count < 0:
            return httpx.Response(400, json={"error": "Invalid request body"})
        if (app, name) not in self.counts:
            return httpx.Response(400, json={"error": "Application or Deployment not found"})
        if not self.configs.get(app, {}).get("external_scaler_enabled"):
            return httpx.Response(412, json={"error": "external_scaler_enabled is not set"})
        self.counts[app, name] = count
        return httpx.Response(200, json={"message": "Scaling request received. Deployment will get scaled asynchronously."})
