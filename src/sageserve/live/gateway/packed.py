"""Bodies that clients packed, with gzip or zstd: unpacked within the limit that a body has anyway.

Knows no request. Read next: `request.py`, the caller.
"""

import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from sageserve.live.gateway.api_error import bad_request, too_large

_GZIP_WINDOW: Final = 31  # zlib's number for gzip
_ZSTD_WINDOW: Final = 23  # 8 MiB, the most that a sender may count on (RFC 9659): a larger one costs memory before it is filled
_PARTS_MAX: Final = 16  # files in a body: each costs a copy of what is behind it, and empty ones add nothing to the limit


class _Unpacking(Protocol):
    """One file of a body."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def unpack(body: bytes, coding: bytes, limit: int) -> bytes:
    """A body as it was before it was packed; no more than the limit is ever unpacked.

    Args:
        body: as it came.
        coding: of the Content-Encoding line, in lower case.
        limit: bytes.

    Raises:
        ApiError: another coding, a body that is broken, or one that is too large.
    """
    found = _CODINGS.get(coding)
    if found is None:
        shown = coding[:40].decode("latin-1")
        raise bad_request(f"Bodies packed as {shown} are not accepted: use gzip, zstd, or none.", status=415)
    name, begin = found
    out: list[bytes] = []
    size = 0
    while body:
        if len(out) == _PARTS_MAX:
            raise bad_request(f"The body has too many {name} parts.", code="invalid_encoding")
        unpacking, broken = begin()
        try:
            part = unpacking.decompress(body, limit - size + 1)
        except broken as error:
            raise bad_request(f"The body is not {name}: {error}.", code="invalid_encoding") from error
        out.append(part)
        size += len(part)
        if size > limit:
            raise too_large(limit)
        if not unpacking.eof:
            raise bad_request(f"The body is not {name}: it ends too soon.", code="invalid_encoding")
        body = unpacking.unused_data  # files may be put one behind another
    return b"".join(out)


def _gzip() -> tuple[_Unpacking, type[Exception]]:
    return zlib.decompressobj(_GZIP_WINDOW), zlib.error


def _zstd() -> tuple[_Unpacking, type[Exception]]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}), zstd.ZstdError


_CODINGS: Final[Mapping[bytes, tuple[str, Callable[[], tuple[_Unpacking, type[Exception]]]]]] = {
    b"gzip": ("gzip", _gzip),
    b"x-gzip": ("gzip", _gzip),
    b"zstd": ("zstd", _zstd),
}
