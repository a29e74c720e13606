"""A bootstrap file for an Envoy that takes routes and instances from the files of `resources.py`: to begin with, and to change.

A listener that notes which model a request names, a cluster for each region and model, an admin page for this machine. Timeouts,
TLS and access logs are for its owner to add. Pure. Read next: `names.py`; docs/how-to/envoy.md.
"""

from typing import Final

from sageserve.core.layout import Layout
from sageserve.live.envoy.names import METADATA, ROUTES, ROUTES_FILE, cluster_of, file_of, used
from sageserve.live.envoy.resources import Resource

_HTTP: Final = "type.googleapis.com/envoy.extensions.filters"
_LARGEST: Final = 32 << 20  # bytes of a request: it is held until its model was read
_QUIET: Final = "600s"  # a stream may say nothing for so long: a request may wait in an engine's queue


def bootstrap(layout: Layout, folder: str, listen: tuple[str, int], admin: tuple[str, int]) -> Resource:
    """The file.

    Args:
        layout: which regions and models there are.
        folder: absolute, where the files are.
        listen: address and port for requests.
        admin: of the admin page, which only this machine should reach.
    """
    return {
        "node": {"id": "sageserve", "cluster": "sageserve"},
        "admin": {"address": _address(admin)},
        "static_resources": {
            "listeners": [_listener(folder, listen)],
            "clusters": [_cluster(cluster_of(layout, endpoint), folder) for endpoint in used(layout)],
        },
    }


def _address(place: tuple[str, int]) -> Resource:
    return {"socket_address": {"address": place[0], "port_value": place[1]}}


def _source(folder: str, name: str) -> Resource:
    watched = {"path": f"{folder}/{name}", "watched_directory": {"path": folder}}
    return {"resource_api_version": "V3", "path_config_source": watched}


def _listener(folder: str, listen: tuple[str, int]) -> Resource:
    noted = {"metadata_namespace": METADATA, "key": "model"}
    none = {**noted, "value": ""}
    rule = {"selectors": [{"key": "model"}], "on_present": noted, "on_missing": none, "on_error": none}
    filters = [
        {
            "name": "envoy.filters.http.json_to_metadata",
            "typed_config": {
                "@type": f"{_HTTP}.http.json_to_metadata.v3.JsonToMetadata",
                "request_rules": {"rules": [rule]},
            },
        },
        {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_HTTP}.http.router.v3.Router"}},
    ]
    manager = {
        "@type": f"{_HTTP}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "sageserve",
        "rds": {"route_config_name": ROUTES, "config_source": _source(folder, ROUTES_FILE)},
        "stream_idle_timeout": _QUIET,
        "http_filters": filters,
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "name": "sageserve",
        "address": _address(listen),
        "per_connection_buffer_limit_bytes": _LARGEST,
        "filter_chains": [chain],
    }


def _cluster(name: str, folder: str) -> Resource:
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"service_name": name, "eds_config": _source(folder, file_of(name))},
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "2s",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},  # else whoever is closed is sent requests when most are
        "circuit_breakers": {
            "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 1_000_000)]
        },
    }
