"""Files that grow line by line, a JSON object each, and whose last line is cut off when the machine or the disk ends.

Knows no line's meaning. Read next: `results/journal.py`, `watched/minutes.py`, `live/control/state_files.py` and
`live/gateway/request_lines.py`, which read or write such. The audit log is none: there a line that was cut off is taken away.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

_LOG: Final = logging.getLogger(__name__)
Line = TypeVar("Line")


def whole_lines(path: Path, decoder: msgspec.json.Decoder[Line]) -> Iterator[Line]:
    """Lines of a file that grows line by line, one at a time; those that were cut off are left out, with a warning."""
    with path.open("rb") as lines:
        for text in lines:
            try:
                yield decoder.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                _LOG.warning("%s holds a line that was cut off", path.name)


def append_lines(path: Path, text: bytes) -> None:
    """Append whole lines; one that a full disk or a kill cut off before is ended first, so that only that one is lost.

    Args:
        path: of a file, made for its user alone where there is none; a link is not followed.
        text: ends with a newline.

    Raises:
        OSError: not all of it could be written.
    """
    out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(out, "r+b", buffering=0) as file:
        size = os.fstat(out).st_size
        whole = not size or os.pread(out, 1, size - 1) == b"\n"
        rest = memoryview(text if whole else b"\n" + text)
        while rest:
            rest = rest[file.write(rest) :]
