"""Which web pages of other sites may ask, as browsers want to be told (the Fetch standard's CORS protocol).

Browsers send no password or cookie of ours along: who asks states its key, as everyone does. The fleet's own pages are for no
other site. Knows no key. Read next: `rights.py` for who may ask; `client.py`, which has these lines put into every answer.
"""

from collections.abc import Mapping, Sequence
from typing import Final

ANY: Final = b"*"
_ASKED: Final = b"access-control-request-method"
_REMEMBERED_S: Final = 600  # that a browser need not ask again
_VARY: Final = b"vary: origin\r\n"  # else a cache gives one site's answer to another


class CrossOrigin:
    """Sites whose pages may ask.

    Args:
        origins: such as https://chat.example; `*`: all.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._any = ANY in self._origins

    def allows(self, origin: bytes | None) -> bool:
        """Whether a page of this origin may ask."""
        return origin is not None and (self._any or origin in self._origins)

    def lines(self, noted: Mapping[bytes, bytes], *, page: bool) -> bytes:
        """Header lines of every answer to a request whose own are `noted`; `page`: it is for one of the fleet's own."""
        if page:
            return b""
        vary = b"" if self._any else _VARY
        origin = noted.get(b"origin")
        if origin is None or not self.allows(origin):
            return vary
        shown = ANY if self._any else origin
        return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: *\r\n%b" % (shown, vary)

    def asks_first(self, method: bytes, noted: Mapping[bytes, bytes]) -> bool:
        """Whether a browser asks, without a key, if a page may."""
        return method == b"OPTIONS" and _ASKED in noted and self.allows(noted.get(b"origin"))

    @staticmethod
    def permission(methods: bytes) -> bytes:
        """Header lines that say what it may."""
        may = b"access-control-allow-methods: %b\r\naccess-control-allow-headers: authorization, *\r\n" % methods
        return b"%baccess-control-max-age: %d\r\n" % (may, _REMEMBERED_S)
