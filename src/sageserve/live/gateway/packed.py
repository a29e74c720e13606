"""Bodies that clients packed: gzip, unpacked within the limit that a body has anyway.

Knows no request. Read next: `request.py`, the caller.
"""

import zlib
from typing import Final

from sageserve.live.gateway.api_error import bad_request, too_large

_GZIP: Final = frozenset([b"gzip", b"x-gzip"])
_WINDOW: Final = 31  # zlib's number for gzip
_PARTS_MAX: Final = 16  # gzip files in a body: each costs a copy of what is behind it, and empty ones add nothing to the limit


def unpack(body: bytes, coding: bytes, limit: int) -> bytes:
    """A body as it was before it was packed; no more than the limit is ever unpacked.

    Args:
        body: as it came.
        coding: of the Content-Encoding line, in lower case.
        limit: bytes.

    Raises:
        ApiError: another coding, a body that is broken, or one that is too large.
    """
    if coding not in _GZIP:
        raise bad_request(f"Bodies packed as {coding[:40].decode('latin-1')} are not accepted: use gzip, or none.", status=415)
    out: list[bytes] = []
    size = 0
    while body:
        if len(out) == _PARTS_MAX:
            raise bad_request("The body has too many gzip parts.", code="invalid_encoding")
        unpacking = zlib.decompressobj(_WINDOW)
        try:
            part = unpacking.decompress(body, limit - size + 1)
        except zlib.error as error:
            raise bad_request(f"The body is not gzip: {error}.", code="invalid_encoding") from error
        out.append(part)
        size += len(part)
        if size > limit:
            raise too_large(limit)
        if not unpacking.eof:
            raise bad_request("The body is not gzip: it ends too soon.", code="invalid_encoding")
        body = unpacking.unused_data  # files may be put one behind another
    return b"".join(out)
