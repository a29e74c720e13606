"""A line for each request that a gateway kept (`live.records`): times, counts and names; no prompt, no answer.

Written by `live/gateway/request_lines.py`, read here and, as a trace, by `data/traces`. Read next: `minutes.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.units import Micros
from sageserve.data.growing import whole_lines

FOLDER: Final = "requests"
"""Folder of these files in the state folder."""


class RequestLine(Struct, frozen=True):
    """One request."""

    arrival_us: Micros  # since 1970
    request_id: str
    tenant: str  # name of the key
    model: str
    tier: str
    region: str  # of the engine; where it was turned away, of the gateway
    status: int  # 499: the client left
    prompt_tokens: int | None  # as the engine said; None: it did not
    output_tokens: int
    first_us: Micros | None  # until the first of its answer came
    duration_us: Micros
    retries: int


def request_files(state: Path) -> list[Path]:
    """The files of all processes, in order of their names; none where no lines were kept."""
    return sorted((state / FOLDER).glob("*.jsonl"))


def read_request_lines(state: Path, begin: Micros, end: Micros) -> Iterator[RequestLine]:
    """Lines of requests that came between two instants, process by process; torn ones are left out. None where none were kept.

    Args:
        state: folder of the state.
        begin: microseconds since 1970.
        end: likewise.
    """
    decoder = msgspec.json.Decoder(RequestLine)
    for path in request_files(state):
        yield from (one for one in whole_lines(path, decoder) if begin <= one.arrival_us < end)
