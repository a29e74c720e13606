"""Files that grow line by line, a JSON object each, and whose last line is cut off when the machine or the disk ends.

Knows no line's meaning. Read next: `results/journal.py`, `watched/minutes.py`, `live/control/state_files.py`, which write such.
"""

import logging
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
            except msgspec.DecodeError:
                _LOG.warning("%s holds a line that was cut off", path.name)


def end_line(path: Path) -> None:
    """End a line that was cut off, so that only that one is lost."""
    with path.open("rb+") as file:
        if file.seek(0, 2) and file.seek(-1, 2) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")
