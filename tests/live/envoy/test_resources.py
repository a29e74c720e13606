"""What Envoy is told: the shape of its files, their order, and shares that are the router's.

Read next: `src/sageserve/live/envoy/resources.py`, `shares.py`; `test_real.py`, where a real Envoy reads them.
"""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sageserve.base.config import LiveSettings, ShareSettings
from sageserve.base.units import SECOND
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.live.envoy.bootstrap import bootstrap
from sageserve.live.envoy.names import METADATA, ROUTES, ROUTES_FILE, cluster_of, file_of, used
from sageserve.live.envoy.region_shares import RegionShares
from sageserve.live.envoy.resources import EnvoyHost, ModelRoute, files, weight_of
from sageserve.live.envoy.shares import ASKED, Traffic, shares_of
from sageserve.live.gateway.python_kernels import pick_endpoint
from sageserve.live.wire import EndpointRow
from tests.live.gateway.test_routing_state import CALM, FAR, LAYOUT, NEAR, SETTINGS, state_of, table, walk

A = EnvoyHost("127.0.0.1", 9000, WEIGHT_ONE, open=True)
B = EnvoyHost("127.0.0.1", 9001, 2 * WEIGHT_ONE, open=False)
HOSTS = st.builds(EnvoyHost, st.just("10.0.0.1"), st.integers(1, 9), st.integers(1, 5 * WEIGHT_ONE), st.booleans())
NAMES = [cluster_of(LAYOUT, endpoint) for endpoint in used(LAYOUT)]


def resource(text: str) -> dict[str, Any]:
    found = json.loads(text)
    assert set(found) == {"version_info", "resources"}
    [one] = found["resources"]
    return dict(one)


def at(port: int) -> dict[str, Any]:
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


def test_instances_have_their_place_weight_and_health_and_who_is_closed_stays() -> None:
    told = resource(files({"east/m": [B, A]}, [])["east--m.json"])
    assert told == {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "east/m",
        "endpoints": [
            {
                "locality": {"region": "east"},
                "lb_endpoints": [
                    {"endpoint": at(9000), "health_status": "HEALTHY", "load_balancing_weight": 100},
                    {"endpoint": at(9001), "health_status": "DRAINING", "load_balancing_weight": 50},
                ],
            }
        ],
    }
    assert resource(files({"east/m": []}, [])["east--m.json"])["endpoints"] == []
    assert weight_of(10**9) == 1  # never 0, which Envoy refuses


def test_routes_go_by_the_model_and_say_in_json_what_is_not_there() -> None:
    told = resource(files({}, [ModelRoute("m", {"east/m": 30, "west/m": 70, "far/m": 0}), ModelRoute("n", {})])[ROUTES_FILE])
    assert (told["@type"], told["name"]) == ("type.googleapis.com/envoy.config.route.v3.RouteConfiguration", ROUTES)
    listed, first, second, rest = told["virtual_hosts"][0]["routes"]
    assert [one["id"] for one in json.loads(listed["direct_response"]["body"]["inline_string"])["data"]] == ["m", "n"]
    named = {"filter": METADATA, "path": [{"key": "model"}], "value": {"string_match": {"exact": "m"}}}
    assert first["match"] == {"prefix": "/v1/", "dynamic_metadata": [named]}
    assert first["route"]["weighted_clusters"] == {
        "clusters": [{"name": "east/m", "weight": 30}, {"name": "west/m", "weight": 70}]
    }
    assert first["route"]["timeout"] == "0s", "answers that stream have no end that one could foresee"
    for one, status, code in ((second, 503, "no_capacity"), (rest, 404, "model_not_found")):
        assert one["direct_response"]["status"] == status
        assert json.loads(one["direct_response"]["body"]["inline_string"])["error"]["code"] == code


@given(st.dictionaries(st.sampled_from(NAMES), st.lists(HOSTS, max_size=4, unique_by=lambda one: one.port), max_size=4))
def test_equal_states_are_equal_files_and_no_request_is_sent_to_who_is_closed_on_the_way(
    clusters: Mapping[str, list[EnvoyHost]],
) -> None:
    told = files(clusters, [ModelRoute("m", dict.fromkeys(clusters, 1))])
    assert told == files({name: hosts[::-1] for name, hosts in clusters.items()}, [ModelRoute("m", dict.fromkeys(clusters, 1))])
    assert len(told) == len(clusters) + 1
    order = list(told)
    for name, hosts in clusters.items():
        opens = any(host.open for host in hosts)
        assert (order.index(file_of(name)) < order.index(ROUTES_FILE)) == opens


@given(st.lists(st.text("ab/-+ é", min_size=1, max_size=6), max_size=8, unique=True))
def test_every_cluster_has_a_file_of_its_own_with_a_plain_name(names: list[str]) -> None:
    found = {file_of(name) for name in names}
    assert len(found) == len(names)
    assert not any(set(one) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for one in found)


def test_the_bootstrap_file_follows_the_files_and_holds_no_weight_of_its_own() -> None:
    made = bootstrap(LAYOUT, "/run/envoy", ("127.0.0.1", 8080), ("127.0.0.1", 9901))
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    [listener], clusters = made["static_resources"]["listeners"], made["static_resources"]["clusters"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["rds"]["route_config_name"] == ROUTES
    sources = [manager["rds"]["config_source"], *(one["eds_cluster_config"]["eds_config"] for one in clusters)]
    assert [one["path_config_source"]["path"].removeprefix("/run/envoy/") for one in sources] == [
        ROUTES_FILE,
        *(file_of(name) for name in NAMES),
    ]
    assert [one["eds_cluster_config"]["service_name"] for one in clusters] == NAMES
    assert all(one["common_lb_config"]["healthy_panic_threshold"] == {"value": 0} for one in clusters)


ROWS = st.builds(
    EndpointRow, st.just(0.0), st.floats(0, 1), st.floats(0, 2), st.floats(0, 2), st.floats(0, 1e6), st.just(10**5), st.just(1)
)


@given(ROWS, ROWS, st.floats(0, 3), st.integers(1, 60))
def test_shares_are_what_the_router_says_of_requests_one_after_another(
    near: EndpointRow, far: EndpointRow, rate: float, ahead: int
) -> None:
    state = state_of(table(rows=(near, CALM, far, CALM)))
    before = [dict(column) for column in state.columns]
    ways = [e for e in walk(state) if e in {NEAR, FAR}]
    found = shares_of(state, ways, Traffic({NEAR: rate}, 0, ahead * SECOND, 0, 0))
    assert state.columns == before
    assert sum(found.values()) == ASKED
    columns = [dict(column) for column in before]
    sent = {NEAR: 0, FAR: 0}
    for turn in range(ASKED):  # the slow obvious way: every request changes what the next one sees
        passed = turn * ahead * SECOND // ASKED
        for e, own in ((NEAR, rate), (FAR, 0.0)):
            columns[e]["offered"] = max(0.0, before[e]["rate"] - own) * passed + sent[e] * (rate * (ahead * SECOND) / ASKED)
        sent[pick_endpoint(state.rules, columns, ways, 0, 2, passed)] += 1
    assert found == {e: n for e, n in sent.items() if n}


def test_shares_fill_the_nearest_and_send_on_what_is_too_much() -> None:
    full = EndpointRow(0.9, 0.1, 0.9, 0.9, 0.0, 10**5, 1)
    for near, wanted in ((CALM, {NEAR: ASKED}), (full, {FAR: ASKED})):
        state = state_of(table(rows=(near, CALM, CALM, CALM)))
        assert shares_of(state, [NEAR, FAR], Traffic({NEAR: 0.1}, 0, SECOND, 0, 0)) == wanted
    state = state_of(table(rows=(EndpointRow(0.5, 0.1, 0.5, 0.5, 0.0, 10**5, 1), CALM, CALM, CALM)))
    both = shares_of(state, [NEAR, FAR], Traffic({NEAR: 2.0}, 0, 10 * SECOND, 0, 0))
    assert 0 < both[NEAR] < ASKED and sum(both.values()) == ASKED  # noqa: PT018 # one claim
    assert shares_of(state, [FAR], Traffic({}, 0, SECOND, 0, 0)) == {FAR: ASKED}
    assert shares_of(state, [], Traffic({}, 0, SECOND, 0, 0)) == {}


def test_an_object_of_another_gets_the_shares_that_envoy_gets() -> None:
    given_ = {"cluster": "c", "kind": "ModelService", "name": "a/b", "model": "big", "backends": {"east": "k=e", "west": "k=w"}}
    live = (SETTINGS.live or LiveSettings()).model_copy(update={"shares": {"split": ShareSettings.model_validate(given_)}})
    blind: list[int] = []
    busy = replace(CALM, seen=0.99, kv=0.99, busy=0.99)
    told = {"table": table(rows=(busy, CALM, CALM, CALM))}
    found = RegionShares(SETTINGS.model_copy(update={"live": live}), LAYOUT, lambda: told["table"], lambda: blind, lambda: 0)
    state = state_of(told["table"])
    rates = {endpoint: float(state.columns[endpoint]["rate"]) for endpoint in walk(state)}
    asked = shares_of(state, walk(state), Traffic(rates, 0, SETTINGS.signals.scrape, 0, 0))
    assert found.of("split") == {"east": asked.get(NEAR, 0), "west": asked.get(FAR, 0)}
    blind.append(FAR)
    assert found.of("split") is None, "of a region that is not seen nothing is known"
    blind.clear()
    told["table"] = replace(told["table"], version=2, instances=told["table"].instances[1:])
    assert found.of("split") == {"west": 100}, "east has nothing open"
    told["table"] = replace(told["table"], version=3, instances=())
    assert found.of("split") is None
