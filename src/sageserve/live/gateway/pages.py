"""What the gateway answers by itself: models, health and metrics.

Everything here is small and made anew each time. Knows no engine. Read next: `client.py`, which writes the answers.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote

import orjson

from sageserve.live.gateway import meter as m
from sageserve.live.gateway.desk import Desk
from sageserve.live.gateway.intake import Incoming
from sageserve.live.gateway.problem import Problem, bad_request, unknown_model

ASKED: Final = (b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings", b"/v1/responses")
"""Routes that engines answer."""
PROXIED: Final = (b"/v1/files", b"/v1/batches", b"/ui", b"/admin")
"""What begins like this is control's."""
_UNDER: Final = tuple(prefix + b"/" for prefix in PROXIED)
MODELS: Final = b"/v1/models"
_OPEN: Final = (b"/health", b"/health/ready", b"/metrics")
_JSON: Final = b"application/json"
_METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Page(NamedTuple):
    """A complete answer."""

    status: int
    kind: bytes  # content type
    body: bytes
    fields: bytes = b""


def is_proxied(path: bytes) -> bool:
    """Whether a path is control's."""
    return path.startswith(_UNDER) or path in PROXIED


def allowed(path: bytes) -> bytes:
    """Methods of a path, for the Allow header; empty: there is no such path."""
    if path in ASKED:
        return b"POST, OPTIONS"
    if path in _OPEN or path == MODELS or path.startswith(MODELS + b"/"):
        return b"GET, HEAD, OPTIONS"
    return b""


def show_page(desk: Desk, one: Incoming, *, loopback: bool) -> Page:
    """The answer to a request that no engine sees.

    Raises:
        Problem: no such page, or not for this method or this client.
    """
    path, method = one.path, one.method
    methods = allowed(path)
    if not methods:
        shown = f"{method.decode('latin-1')} {path[:200].decode('latin-1')}"
        raise bad_request(f"Unknown request URL: {shown}.", status=404, code="unknown_url")
    if method == b"OPTIONS":
        return Page(204, b"", b"", b"allow: %b\r\n" % methods)
    if method not in methods.split(b", "):
        return Page(405, _JSON, _not_allowed(method).body(), b"allow: %b\r\n" % methods)
    match path:
        case b"/health":
            return Page(200, _JSON, b'{"status":"ok"}')
        case b"/health/ready":
            return _ready(desk)
        case b"/metrics":
            return Page(200, _METRICS, _metrics(desk))
        case _:
            desk.keys.find(one.noted.get(b"authorization"), loopback=loopback)
            return _models(desk, path)


def _not_allowed(method: bytes) -> Problem:
    return bad_request(f"The method {method.decode('latin-1')} is not allowed here.", status=405, code="method_not_allowed")


def _ready(desk: Desk) -> Page:
    """Ready: requests would be let in. Load balancers send nothing more to one that drains."""
    board = desk.board
    if desk.draining:
        state = "draining"
    elif not board.known:
        state = "waiting for control"
    elif not any(spot.seats for spot in board.spots):
        state = "no instance is open"
    else:
        return Page(200, _JSON, b'{"status":"ready"}')
    return Page(503, _JSON, orjson.dumps({"status": state}), b"retry-after: 1\r\n")


def _metrics(desk: Desk) -> bytes:
    gauges = desk.meter.gauges
    gauges[m.IN_FLIGHT] = len(desk.exchanges)
    gauges[m.CONNECTIONS] = len(desk.clients)
    gauges[m.WAITING] = len(desk.waiting)
    return m.show(desk.snapshots.total(desk.meter))


def _models(desk: Desk, path: bytes) -> Page:
    def model(name: str) -> dict[str, object]:
        context = desk.scenario.models[name].context
        return {"id": name, "object": "model", "created": desk.options.born, "owned_by": "sageserve", "max_model_len": context}

    if path == MODELS:
        return Page(200, _JSON, orjson.dumps({"object": "list", "data": [model(name) for name in desk.models]}))
    name = unquote(path[len(MODELS) + 1 :].decode("latin-1"))
    if name not in desk.models:
        raise unknown_model(name[:200])
    return Page(200, _JSON, orjson.dumps(model(name)))
