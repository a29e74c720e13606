"""What Envoy is told: instances with weights and health (EDS), and which regions a model's requests go to (RDS).

Answers of Envoy's discovery protocol as JSON, one file each, with a version made of their content: equal content is equal bytes,
and nothing happens. Listeners and clusters are not ours. Pure. Read next: `shares.py` for weights of regions, `names.py`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.live.envoy.names import METADATA, ROUTES, ROUTES_FILE, file_of

Resource: TypeAlias = dict[str, Any]  # JSON, as Envoy's documentation has it
OPEN: Final = "HEALTHY"
CLOSED: Final = "DRAINING"
_TYPES: Final = "type.googleapis.com/envoy.config"
_WHOLE: Final = 100  # an instance of the fastest kind weighs so much
_RETRY: Final = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": "3",
}
"""Only what no engine has seen is sent again; a host that refused is not asked twice."""


@dataclass(frozen=True, slots=True, order=True)
class EnvoyHost:
    """An instance as Envoy sees it.

    Args:
        address: IP.
        port: of it.
        weight: of a token there, as layouts have it: less is faster.
        open: it may be sent requests; else those that it has are let finish.
    """

    address: str
    port: int
    weight: int
    open: bool


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """Where requests for a model go.

    Args:
        model: as clients name it.
        shares: whole numbers by cluster; none: nothing is open.
    """

    model: str
    shares: Mapping[str, int]


def files(clusters: Mapping[str, Sequence[EnvoyHost]], routes: Sequence[ModelRoute]) -> dict[str, str]:
    """All files by name, in the order in which they are to be moved into place.

    Clusters that have somebody open come before the routes that send requests there, and those that have nobody come after the
    routes that do so no longer.
    """
    told = {name: _file("endpoint.v3.ClusterLoadAssignment", assignment(name, hosts)) for name, hosts in clusters.items()}
    first = {file_of(name): told[name] for name, hosts in clusters.items() if any(host.open for host in hosts)}
    last = {file_of(name): text for name, text in told.items() if file_of(name) not in first}
    return {**first, ROUTES_FILE: _file("route.v3.RouteConfiguration", route_table(routes)), **last}


def assignment(cluster: str, hosts: Sequence[EnvoyHost]) -> Resource:
    """A ClusterLoadAssignment; who is closed stays in it, so that Envoy says how many requests it still has."""
    found = [
        {
            "endpoint": {"address": {"socket_address": {"address": host.address, "port_value": host.port}}},
            "health_status": OPEN if host.open else CLOSED,
            "load_balancing_weight": weight_of(host.weight),
        }
        for host in sorted(hosts)
    ]
    region = cluster.partition("/")[0]
    return {"cluster_name": cluster, "endpoints": [{"locality": {"region": region}, "lb_endpoints": found}] if found else []}


def weight_of(weight: int) -> int:
    """Envoy's weight of an instance: as many requests as it is fast."""
    return max(1, round(_WHOLE * WEIGHT_ONE / weight)) if weight > 0 else _WHOLE


def route_table(routes: Sequence[ModelRoute]) -> Resource:
    """A RouteConfiguration: by the model that a request names; other models and other paths are answered as our gateways do."""
    models = [{"id": one.model, "object": "model", "owned_by": "sageserve"} for one in routes]
    listed = {"object": "list", "data": models}
    unknown = _problem("The model does not exist, or none was named.", "invalid_request_error", "model_not_found")
    entries = [
        {"match": {"path": "/v1/models"}, **_answer(200, listed)},
        *(_route(one) for one in routes),
        {"match": {"prefix": "/"}, **_answer(404, unknown)},
    ]
    return {"name": ROUTES, "virtual_hosts": [{"name": "sageserve", "domains": ["*"], "routes": entries}]}


def _route(one: ModelRoute) -> Resource:
    named = {"filter": METADATA, "path": [{"key": "model"}], "value": {"string_match": {"exact": one.model}}}
    match = {"prefix": "/v1/", "dynamic_metadata": [named]}
    shares = {name: share for name, share in one.shares.items() if share > 0}
    if not shares:
        full = _problem(f"No instance of {one.model} is open.", "server_error", "no_capacity")
        return {"match": match, **_answer(503, full, {"retry-after": "5"})}
    weighted = [{"name": name, "weight": share} for name, share in shares.items()]
    return {
        "match": match,
        "route": {"weighted_clusters": {"clusters": weighted}, "timeout": "0s", "retry_policy": _RETRY},
    }


def _answer(status: int, body: Resource, headers: Mapping[str, str] | None = None) -> Resource:
    """A direct response in JSON."""
    said = {"content-type": "application/json", **(headers or {})}
    return {
        "direct_response": {"status": status, "body": {"inline_string": json.dumps(body, allow_nan=False)}},
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"} for key, value in said.items()
        ],
    }


def _problem(message: str, kind: str, code: str) -> Resource:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _file(kind: str, resource: Resource) -> str:
    """A DiscoveryResponse with one resource."""
    content = json.dumps(resource, sort_keys=True, allow_nan=False)
    version = hashlib.sha256(content.encode()).hexdigest()[:16]
    whole = {"version_info": version, "resources": [{"@type": f"{_TYPES}.{kind}", **resource}]}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"
