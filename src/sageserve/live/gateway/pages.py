"""What the gateway answers by itself: models, health and metrics.

Everything here is small and made anew each time. Knows no engine. Read next: `client.py`, which writes the answers.
"""

from typing import Final, NamedTuple
from urllib.parse import unquote

import orjson

from sageserve.base.units import SECOND
from sageserve.live.gateway import meter as m
from sageserve.live.gateway.api_error import ApiError, bad_request, unknown_model
from sageserve.live.gateway.context import GatewayContext
from sageserve.live.gateway.cross_origin import CrossOrigin
from sageserve.live.gateway.request import HttpRequest

ASKED: Final = frozenset(
    [
        *(b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings", b"/v1/responses", b"/v1/messages"),
        *(b"/v1/rerank", b"/rerank", b"/v1/score", b"/score", b"/tokenize", b"/detokenize"),
    ]
)
"""Routes that engines answer, as far as they have them."""
_PAGES: Final = (b"/ui", b"/admin")
PROXIED: Final = (b"/v1/files", b"/v1/batches", *_PAGES)
"""What begins like this is control's."""
_UNDER: Final = tuple(prefix + b"/" for prefix in PROXIED)
_PAGES_UNDER: Final = tuple(prefix + b"/" for prefix in _PAGES)
MODELS: Final = b"/v1/models"
OPEN: Final = frozenset([b"/health", b"/health/ready", b"/metrics"])
"""What everyone may see who reaches the port: names of keys are in it, and no key, no prompt and no address."""
_STORED: Final = b"GET, POST, DELETE"  # methods of files and batches
_JSON: Final = b"application/json"
_METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"


class LocalAnswer(NamedTuple):
    """A complete answer."""

    status: int
    kind: bytes  # content type
    body: bytes
    fields: bytes = b""


def is_proxied(path: bytes) -> bool:
    """Whether a path is control's."""
    return path.startswith(_UNDER) or path in PROXIED


def is_page(path: bytes) -> bool:
    """Whether a path is of the fleet itself, which is nobody's who only asks."""
    return path.startswith(_PAGES_UNDER) or path in _PAGES


def allowed(path: bytes) -> bytes:
    """Methods of a path, for the Allow header; empty: there is no such path."""
    if path in ASKED:
        return b"POST, OPTIONS"
    if path in OPEN or path == MODELS or path.startswith(MODELS + b"/"):
        return b"GET, HEAD, OPTIONS"
    return b""


def show_page(context: GatewayContext, one: HttpRequest) -> LocalAnswer:
    """The answer to a request that no engine sees.

    Raises:
        ApiError: no such page, or not for this method.
    """
    path, method = one.path, one.method
    methods = allowed(path)
    if one.asks_first and not is_page(path):
        return LocalAnswer(204, b"", b"", CrossOrigin.permission(methods or _STORED))
    if not methods:
        shown = f"{method.decode('latin-1')} {path[:200].decode('latin-1')}"
        raise bad_request(f"Unknown request URL: {shown}.", status=404, code="unknown_url")
    if method == b"OPTIONS":
        return LocalAnswer(204, b"", b"", b"allow: %b\r\n" % methods)
    if method not in methods.split(b", "):
        return LocalAnswer(405, _JSON, _not_allowed(method).body(), b"allow: %b\r\n" % methods)
    match path:
        case b"/health":
            return LocalAnswer(200, _JSON, b'{"status":"ok"}')
        case b"/health/ready":
            return _ready(context)
        case b"/metrics":
            return LocalAnswer(200, _METRICS, _metrics(context))
        case _:
            return _models(context, path)


def _not_allowed(method: bytes) -> ApiError:
    return bad_request(f"The method {method.decode('latin-1')} is not allowed here.", status=405, code="method_not_allowed")


def _ready(context: GatewayContext) -> LocalAnswer:
    """Ready: requests would be let in. Load balancers send nothing more to one that drains."""
    routing = context.routing
    if context.draining:
        state = "draining"
    elif not routing.known:
        state = "waiting for control"
    elif not any(load.targets for load in routing.loads):
        state = "no instance is open"
    else:
        return LocalAnswer(200, _JSON, orjson.dumps({"status": "ready"} | _told(context)))
    return LocalAnswer(503, _JSON, orjson.dumps({"status": state}), b"retry-after: 1\r\n")


def _told(context: GatewayContext) -> dict[str, object]:
    """How old what control said is, where there is one."""
    if not context.controlled:
        return {}
    age_s = round((context.clock() - context.told_at) / SECOND, 1)
    return {"control": "heard" if context.hears else "away", "table_age_s": age_s}


def _metrics(context: GatewayContext) -> bytes:
    gauges = context.meter.gauges
    gauges[m.IN_FLIGHT] = len(context.exchanges)
    gauges[m.CONNECTIONS] = len(context.clients)
    gauges[m.WAITING] = len(context.waiting)
    gauges[m.HELD] = len(context.door)
    gauges[m.AWAY] = int(context.controlled and not context.hears)
    return m.show(context.snapshots.total(context.meter))


def _models(context: GatewayContext, path: bytes) -> LocalAnswer:
    def model(name: str) -> dict[str, object]:
        length = context.scenario.models[name].context
        return {"id": name, "object": "model", "created": context.options.born, "owned_by": "sageserve", "max_model_len": length}

    if path == MODELS:
        return LocalAnswer(200, _JSON, orjson.dumps({"object": "list", "data": [model(name) for name in context.models]}))
    name = unquote(path[len(MODELS) + 1 :].decode("latin-1"))
    if name not in context.models:
        raise unknown_model(name[:200])
    return LocalAnswer(200, _JSON, orjson.dumps(model(name)))
