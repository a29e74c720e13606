"""From the bytes of a request to what it asks for: header lines to keep, and who asks which model and tier for what.

Of a body only three fields are decoded; everything else passes as it is. Refuses what could be read in two ways. Knows no
engine and no socket. Read next: `client.py`, which collects the bytes; `exchange.py`, which serves the call.
"""

from typing import Final

import msgspec

from sageserve.base.errors import SageServeError
from sageserve.base.units import SECOND, Micros
from sageserve.live.gateway.api_error import ApiError, bad_request, forbidden, overloaded, too_large, unknown_model
from sageserve.live.gateway.context import GatewayContext
from sageserve.live.gateway.header_lines import without, without_named
from sageserve.live.gateway.keys import Holder
from sageserve.live.gateway.meter import REFUSALS
from sageserve.live.gateway.packed import unpack
from sageserve.live.gateway.prompt_memory import ANY_BEGINNING, Beginning

_DROPPED: Final = frozenset(
    [
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"content-length",
        b"expect",
        b"authorization",
        b"x-request-id",
        b"x-sageserve-endpoint",
        b"x-sageserve-key",
        b"x-sageserve-secret",
    ]
)
_NOTED: Final = frozenset(
    [
        b"host",
        b"connection",
        b"transfer-encoding",
        b"content-length",
        b"content-encoding",
        b"expect",
        b"access-control-request-method",
        b"authorization",
        b"origin",
        b"x-request-id",
        b"traceparent",
        b"x-sageserve-endpoint",
        b"x-sageserve-key",
        b"x-sageserve-region",
        b"x-sageserve-tier",
    ]
)
_SINGLE: Final = (b"host", b"content-length", b"transfer-encoding", b"authorization", b"expect")


_PASSED: Final[dict[bytes, bytes]] = {}
"""Names of header lines that only pass, as clients spell them, with what stands between name and value."""
_REMEMBERED: Final = 1024
_NAME_MAX: Final = 64


_SPELLED: Final[dict[bytes, bytes]] = {}
"""Names that mean something here, in lower case, by how clients spell them."""


class BadFraming(SageServeError):
    """A request that two readers could take in two ways; the connection is closed after the answer."""


class HttpRequest:
    """A request while it comes in.

    `fields` are the header lines to pass on, `noted` those that mean something here, by lower-case name; `ours` are lines that
    every answer to it bears.
    """

    __slots__ = (
        "arrived",
        "asks_first",
        "chunked",
        "complete",
        "fields",
        "held",
        "holder",
        "id",
        "keep",
        "length",
        "method",
        "modern",
        "noted",
        "ours",
        "path",
        "pieces",
        "problem",
        "proxied",
        "size",
        "tier",
        "url",
    )

    def __init__(self) -> None:
        self.id = b""
        self.ours = b""
        self.method = b""
        self.url = b""
        self.path = b""
        self.fields = b""
        self.noted: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.size = 0
        self.length = -1
        self.chunked = False
        self.keep = True
        self.complete = False
        self.modern = True  # HTTP/1.1
        self.asks_first = False  # a browser, without a key, if a page of another site may
        self.proxied = False  # control's, not an engine's
        self.holder: Holder | None = None  # who asks; None: it is not known yet, or nobody who may
        self.problem: ApiError | None = None  # why it is refused once it is complete: nothing of its body is kept
        self.tier = ""  # name of the one it is for, once that is known
        self.held = 0  # bytes of its body that count in the process's budget
        self.arrived: Micros = 0

    def body(self) -> bytes:
        """What came of the body; held once, however many pieces it came in."""
        if len(self.pieces) != 1:
            self.pieces = [b"".join(self.pieces)]
        return self.pieces[0]

    def count_refusal(self, context: GatewayContext, status: int) -> None:
        """It is answered with an error of ours."""
        name = "nobody" if self.holder is None else self.holder.name
        context.meter.count(REFUSALS, (name, self.tier, str(status)))

    def hold(self, context: GatewayContext, data: bytes) -> ApiError | None:
        """Keep a part of the body; why not, when the process holds too much."""
        if context.body_bytes + len(data) > context.limits.bodies:
            return overloaded("As many bytes of requests as may be are being held.", SECOND)
        self.pieces.append(data)
        self.held += len(data)
        context.body_bytes += len(data)
        return None

    def release(self, context: GatewayContext) -> None:
        """The body is not held any more."""
        context.body_bytes -= self.held
        self.held = 0

    def without(self, name: bytes) -> None:
        """Do not pass a header line on."""
        self.fields = without(self.fields, name)

    def without_offer(self, raw: list[tuple[bytes, bytes]], version: str) -> bytes:
        """The head of a request that offers another protocol, without the offer.

        Raises:
            ApiError: it asks for a tunnel.
        """
        if self.method == b"CONNECT":
            raise bad_request("CONNECT is not served here.", status=405, code="method_not_allowed")
        lines = [name + b": " + value for name, value in raw if name.lower() != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n\r\n" % (self.method, self.url, version.encode(), b"\r\n".join(lines))


def read_fields(one: HttpRequest, raw: list[tuple[bytes, bytes]], version: str, *, keep_key: bool) -> None:
    """Sort the header lines of a request.

    Args:
        one: the request; `fields`, `noted`, `length` and `chunked` are filled in.
        raw: names and values as they came.
        version: of HTTP, "1.1" or "1.0".
        keep_key: pass Authorization on: it is not ours.

    Raises:
        BadFraming: two readers could disagree on where the request ends.
    """
    noted, lines = one.noted, []
    for name, value in raw:
        prefix = _PASSED.get(name)
        if prefix is None:
            low = _SPELLED.get(name) or _spell(name)
            if low in _NOTED:
                if low in noted and low in _SINGLE:
                    raise BadFraming(f"the header {low.decode()} may appear once")
                noted[low] = noted[low] + b", " + value if low in noted else value
            elif low not in _DROPPED and len(name) < _NAME_MAX and len(_PASSED) < _REMEMBERED:
                _PASSED[name] = name + b": "
            if low in _DROPPED and not (keep_key and low == b"authorization"):
                continue
            prefix = name + b": "
        lines.append(prefix + value + b"\r\n")
    if b"connection" in noted:
        lines = without_named(lines, noted[b"connection"])
    one.fields = b"".join(lines)
    _read_framing(one, version)


def _spell(name: bytes) -> bytes:
    low = name.lower()
    if low in _NOTED and len(_SPELLED) < _REMEMBERED:
        _SPELLED[name] = low
    return low


def _read_framing(one: HttpRequest, version: str) -> None:
    noted = one.noted
    coding, length = noted.get(b"transfer-encoding"), noted.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise BadFraming("a request may have Content-Length or Transfer-Encoding, not both")
        if coding.lower() != b"chunked" or version == "1.0":
            raise BadFraming("the only Transfer-Encoding accepted is chunked, in HTTP/1.1")
        one.chunked = True
    elif length is not None:
        if not length.isdigit() or len(length) > 15:
            raise BadFraming("Content-Length is not a number")
        one.length = int(length)
    else:
        one.length = 0
    if version == "1.1" and b"host" not in noted:
        raise BadFraming("a Host header is required")


def origin_form(url: bytes) -> bytes:
    """The path of a target given as a whole URL, as proxies are sent; `*` stands for the server itself."""
    if url == b"*":
        return b"/health"
    scheme, _, rest = url.partition(b"://")
    if scheme.lower() not in {b"http", b"https"}:
        raise bad_request("The target of the request is not a path.", code="bad_http")
    return b"/" + rest.partition(b"/")[2]


class RoutingFields(msgspec.Struct):
    """The fields of a body that decide where it goes."""

    model: str
    stream: bool | None = None
    service_tier: str | None = None


_decode: Final = msgspec.json.Decoder(RoutingFields).decode


class ApiCall:
    """What is asked for.

    `payer` is charged for it, `expected` tokens so far; `endpoint` where it must go (-1: as routed), `asked` the client's
    service_tier.
    """

    __slots__ = (
        "asked",
        "beginning",
        "body",
        "cell",
        "endpoint",
        "expected",
        "holder",
        "id",
        "model",
        "path",
        "payer",
        "prompt",
        "region",
        "stream",
        "tier",
    )

    def __init__(self, holder: Holder, path: bytes, body: bytes) -> None:
        self.holder = holder
        self.payer = holder.account
        self.path = path
        self.body = body
        self.model = 0
        self.tier = 0
        self.region = 0
        self.stream = False
        self.endpoint = -1
        self.prompt = 0
        self.expected = 0
        self.cell = 0
        self.asked: str | None = None
        self.beginning = ANY_BEGINNING


def read_call(context: GatewayContext, one: HttpRequest) -> ApiCall:
    """What a complete request of a known holder asks for, with limits checked and demand counted.

    Raises:
        ApiError: it cannot be served.
    """
    noted, holder = one.noted, one.holder
    assert holder is not None, "who asks was told from the header"
    call = ApiCall(holder, one.path, _unpacked(context, one))
    ask = _read_body(call.body)
    model = context.models.get(ask.model)
    if model is None:
        raise unknown_model(ask.model[:200])
    call.model = model
    call.stream = bool(ask.stream)
    call.asked = ask.service_tier
    call.tier = _tier(context, holder, ask.service_tier, noted.get(b"x-sageserve-tier"))
    one.tier = context.names.tiers[call.tier]
    call.region = _region(context, noted.get(b"x-sageserve-region"))
    if b"x-sageserve-endpoint" in noted:
        call.endpoint = _endpoint(context, holder, noted[b"x-sageserve-endpoint"])
    if holder.internal and b"x-sageserve-key" in noted:
        call.payer = context.keys.account(noted[b"x-sageserve-key"].decode(errors="replace"))
    call.prompt = context.demand.prompt_tokens(model, len(call.body))
    if context.overlap is not None:
        call.beginning = Beginning(call.body, call.prompt, context.overlap)
    call.cell = context.demand.arrived(call.region, model, call.tier, call.prompt)
    if call.payer.counted:
        context.budgets.check(call.payer.name)
        one.without(b"accept-encoding")  # what is packed cannot be counted
        call.expected = call.prompt
        call.payer.charge(call.prompt, one.arrived)
    return call


def _unpacked(context: GatewayContext, one: HttpRequest) -> bytes:
    """The body, unpacked where it came packed: held like any other, and passed on as it is now."""
    coding = one.noted.get(b"content-encoding", b"identity").strip().lower()
    if coding == b"identity":
        return one.body()
    body = unpack(one.body(), coding, context.limits.body)
    one.pieces.clear()
    if (problem := one.hold(context, body)) is not None:
        raise problem
    one.without(b"content-encoding")
    return body


def _read_body(body: bytes) -> RoutingFields:
    try:
        return _decode(body)
    except msgspec.ValidationError as error:
        text = str(error)
        param = next((name for name in ("model", "stream", "service_tier") if f"`{name}`" in text or f"$.{name}" in text), None)
        raise bad_request(f"The body is not what this route expects: {text}.", param=param, code="invalid_type") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"The body is not valid JSON: {error}.", code="invalid_json") from error


def _tier(context: GatewayContext, holder: Holder, asked: str | None, header: bytes | None) -> int:
    # A name that does not exist is refused also when a header decides.
    tier = context.tiers.default if asked is None else context.tiers.code(asked)
    if header is not None:
        found = context.tiers.codes.get(header)
        if found is None:
            known = ", ".join(context.names.tiers)
            raise bad_request(f"There is no tier {header[:40].decode('latin-1')!r}: x-sageserve-tier is one of {known}.")
        tier = found
    elif asked is None or asked == "auto":
        tier = tier if holder.tier is None else holder.tier
        if holder.tiers is not None and tier not in holder.tiers:
            return min(holder.tiers)
    holder.check_tier(tier, context.names.tiers)
    return tier


def _region(context: GatewayContext, header: bytes | None) -> int:
    if header is None:
        return context.options.region
    found = context.regions.get(header)
    if found is None:
        known = ", ".join(context.names.regions)
        raise bad_request(f"There is no region {header[:40].decode('latin-1')!r}: x-sageserve-region is one of {known}.")
    return found


def _endpoint(context: GatewayContext, holder: Holder, header: bytes) -> int:
    if not holder.internal:
        raise forbidden("Only this deployment's own processes may choose an endpoint.")
    if not header.isdigit() or int(header) >= len(context.routing.loads):
        raise bad_request("x-sageserve-endpoint is not the number of an endpoint.")
    return int(header)


def check_size(one: HttpRequest, limit: int) -> None:
    """Refuse a body that is, or says it will be, too large.

    Raises:
        ApiError: it is.
    """
    if one.length > limit or one.size > limit:
        raise too_large(limit)
