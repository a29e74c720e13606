"""A trace file opened: its kind told by its bytes, plain or compressed, never by its name.

Converts no cell and refuses no request (`data/traces/columns/convert.py` does), and knows nothing of scenarios.
Read next: `csv_file.py`, `json_file.py`, `arrow_file.py`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from sageserve.base.errors import TraceError
from sageserve.data.traces.readers.arrow_file import is_arrow, open_arrow
from sageserve.data.traces.readers.batches import WHAT_IS_READ, Progress, TraceFile, packed, unpacked, unreadable, valid_text
from sageserve.data.traces.readers.csv_file import open_csv
from sageserve.data.traces.readers.json_file import open_json

_MARK: Final = b"\xef\xbb\xbf"  # what UTF-8 text may begin with, and nobody sees
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # in no line of names
_PEEK: Final = 1 << 16  # bytes looked at to tell kinds apart; a header is shorter than that
_WIDE: Final = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_FOREIGN: Final = {
    b"PK\x03\x04": ("a zip archive or an Excel workbook", "unzip it, or save the sheet as CSV"),
    b"\xfd7zXZ": ("compressed with xz", "unpack it first: unxz FILE"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it first"),
    b"SQLite format 3": ("a SQLite database", "export the table as CSV"),
    b"Obj\x01": ("an Avro file", "convert it to Parquet or JSON lines"),
    b"ORC": ("an ORC file", "convert it to Parquet"),
    b"%PDF": ("a PDF", "give the data, not the page"),
}


def open_source(path: Path, explicit: Mapping[str, str], progress: Progress | None = None) -> TraceFile:
    """Open a trace file of any known format.

    Args:
        path: the file.
        explicit: our column names -> the file's, from `--column`.
        progress: told about bytes read; None when nobody watches.

    Raises:
        TraceError: no such file, empty, not readable, cut off, or of no known format.
    """
    magic = _first_bytes(path)
    if not magic:
        raise TraceError(f"{path} is empty", hint=WHAT_IS_READ)
    if is_arrow(magic):
        return open_arrow(path, magic, explicit, progress)
    for start, (what, cure) in _FOREIGN.items():
        if magic.startswith(start):
            raise TraceError(f"{path} is {what}", hint=cure)
    return _open_text(path, magic, explicit, progress)


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise TraceError(f"{path} {what}", hint="give the path of a trace file")
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from None


def _open_text(path: Path, magic: bytes, explicit: Mapping[str, str], progress: Progress | None) -> TraceFile:
    try:
        with unpacked(path, magic) as stream:
            head = bytes(stream.read(_PEEK))
    except (OSError, pa.ArrowInvalid) as error:
        raise unreadable(path, error) from None
    stream = unpacked(path, magic, progress)
    if head[:2] in _WIDE:
        code = _WIDE[head[:2]]
        head = head[: len(head) // 2 * 2].decode(code, errors="replace").encode()
        stream = pa.transcoding_input_stream(stream, code, "utf-8")
    text = head.removeprefix(_MARK)
    if not text.strip():
        raise TraceError(f"{path} holds nothing but blanks", hint=WHAT_IS_READ)
    if b"\0" in head or _CONTROL.search(text.lstrip().partition(b"\n")[0]) or packed(head) or is_arrow(head):
        raise TraceError(f"{path} is not text inside", hint=WHAT_IS_READ)
    if text.lstrip()[:1] in {b"{", b"["}:
        return open_json(path, stream, explicit)
    return open_csv(path, valid_text(stream), head, explicit)
