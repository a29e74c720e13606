"""Standard output is the answer's alone: what libraries in C, child processes and workers print there goes to stderr.

A solver's banner in the middle of `--json` makes it no JSON. Whoever writes to descriptor 1 past Python's `sys.stdout`, now or
in a later release of a library, reaches stderr; only `sys.stdout` still leads to the real standard output. Knows no command.
Read next: `main.py`.
"""

import codecs
import io
import json
import os
import sys
from fcntl import F_DUPFD_CLOEXEC, fcntl
from typing import TYPE_CHECKING, TextIO

from sageserve.base.errors import SageServeError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READER_GONE = 141
"""Exit code when nobody reads the answer any more (`sageserve ... | head -1`): 128 + SIGPIPE, as shells count."""

_OUT, _ERR = 1, 2
_ESCAPE = "sageserve-escape"


class _Answer(io.FileIO):
    """The real standard output. A reader that left ends the program without a word; a full disk is told."""

    _over = False

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write some of it, as `io.RawIOBase.write`."""
        if self._over:
            return memoryview(data).nbytes  # buffered before it was over
        try:
            return super().write(data)
        except BrokenPipeError:
            self._over = True
            raise SystemExit(READER_GONE) from None
        except OSError as error:
            self._over = True
            raise SageServeError(
                f"the answer cannot be written to standard output: {error.strerror}", hint="send it to a place with room"
            ) from None


class _Remarks(io.FileIO):
    """The real standard error. What cannot be written is left out: nobody can be told, and the work is worth finishing."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write some of it, as `io.RawIOBase.write`."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def guard() -> None:
    """Leave the real standard output to `sys.stdout` alone: point descriptor 1 at stderr."""
    while (spare := os.open(os.devnull, os.O_RDONLY)) <= _ERR:
        pass  # takes the place of what whoever started us has closed: a write there fails and is told, instead of meeting a file
    os.close(spare)
    answer = fcntl(_OUT, F_DUPFD_CLOEXEC, _ERR + 1)
    os.dup2(_ERR, _OUT)
    codecs.register_error(_ESCAPE, _escape)
    sys.stdout = _text(_Answer(answer, "wb"), sys.stdout, errors=_ESCAPE)
    sys.stderr = _text(_Remarks(_ERR, "wb", closefd=False), sys.stderr, errors="backslashreplace", lines=True)


def answer_json(value: object) -> str:
    """An answer for machines: JSON on lines, null where a number does not exist (NaN and infinities are no JSON)."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Write what the encoding of standard output does not have as JSON does, so that an answer in JSON stays right."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end], allow_nan=False).strip('"'), error.end


def _text(raw: io.FileIO, before: TextIO | None, *, errors: str, lines: bool = False) -> io.TextIOWrapper:
    """A stream over `raw` that encodes as the one before it; that one is None where the descriptor was closed."""
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", "utf-8"),
        errors=errors,
        line_buffering=lines or raw.isatty(),
        write_through=getattr(before, "write_through", False),
    )
