"""Who may ask for what: told from the header of a request alone, before anything of its body is kept.

    inference, files, batches, models    tenants and operators; without keys everyone on this machine
    pages of control (/ui, /admin)       operators, and to read them the role read-only; without keys everyone on this machine
    health, metrics                      everyone who reaches the port

"Everyone on this machine" is told by the connection's address and, because a web page that someone there has open can connect,
too, by the names under which it was reached: a page of somebody else's states another Host or another Origin.
Knows no socket and no body. Read next: `keys.py` for who they are; `client.py`, the caller.
"""

from typing import Final
from urllib.parse import urlsplit

from sageserve.live.gateway.api_error import ApiError, forbidden
from sageserve.live.gateway.context import GatewayContext
from sageserve.live.gateway.keys import Holder, KeyRight
from sageserve.live.gateway.pages import OPEN, is_page
from sageserve.live.gateway.request import HttpRequest

_LOCAL: Final = frozenset([b"localhost", b"127.0.0.1", b"[::1]", b"::1"])
_SMALL: Final = 64 << 10  # bytes of a body that is read, and not kept, so that a refusal does not cost the connection
_READS: Final = frozenset([b"GET", b"HEAD", b"OPTIONS"])


def identify(context: GatewayContext, one: HttpRequest, *, loopback: bool) -> None:
    """Find out who asks, and for a page of which site.

    Of nobody's request no body is kept, and one with a large body is not even read to its end.

    Raises:
        ApiError: nobody who may.
    """
    if (sites := context.cross_origin) is not None:
        one.ours += sites.lines(one.noted, page=is_page(one.path))
        one.asks_first = sites.asks_first(one.method, one.noted)
        one.proxied = one.proxied and not one.asks_first
    try:
        holder = one.holder = find_holder(context, one, loopback=loopback)
    except ApiError as problem:
        if not 0 <= one.length <= _SMALL or b"expect" in one.noted:
            raise
        one.problem, one.proxied = problem, False
        return
    if holder.internal and context.keys.open:
        one.without(b"authorization")  # it is ours alone


def find_holder(context: GatewayContext, one: HttpRequest, *, loopback: bool) -> Holder:
    """Who asks, as far as the header tells.

    Raises:
        ApiError: nobody who may.
    """
    noted, keys = one.noted, context.keys
    if one.path in OPEN or one.asks_first:
        return keys.anyone
    page = is_page(one.path)
    holder = keys.find(noted.get(b"authorization"), loopback=loopback, password=page and one.method in _READS)
    if holder is keys.anyone:
        _check_names(context, noted)
    elif page:
        if holder.role is KeyRight.TENANT or (holder.role is KeyRight.READ_ONLY and one.method not in _READS):
            raise forbidden("Pages of the fleet are for keys with the role operator, or read-only to look at.")
    elif holder.role is KeyRight.READ_ONLY and one.method not in _READS:
        raise forbidden("This key may look at the fleet, and ask for nothing.")
    return holder


def _check_names(context: GatewayContext, noted: dict[bytes, bytes]) -> None:
    """Whether a keyless request was meant for this machine under a name of its own.

    Raises:
        ApiError: another name, as pages of other sites have it.
    """
    host = noted.get(b"host")
    if host is not None and not _is_local(host):
        raise forbidden("Without keys this is open under the names localhost and 127.0.0.1 only; live.keys opens it to others.")
    origin = noted.get(b"origin")
    named = context.cross_origin is not None and context.cross_origin.allows(origin)
    if origin is not None and not named and not _is_local(urlsplit(origin).netloc):
        raise forbidden("Without keys no page of another site may ask, but for those of live.cors; live.keys opens it to others.")


def _is_local(host: bytes) -> bool:
    return host in _LOCAL or host.rpartition(b":")[0].lower() in _LOCAL or host.lower() in _LOCAL
