"""Recorded series from files: OpenMetrics text, or the answers of Prometheus' `query_range` and `query` saved as JSON.

Plain, gzip or zstandard; which of both a file is, its first character says. Yields what `collect.py` takes, as the network does.
Knows no metric. Read next: `matrix.py`, `openmetrics.py`.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import pyarrow as pa

from sageserve.base.errors import MeasurementError
from sageserve.data.history.matrix import MatrixReader, NotMatrix
from sageserve.data.history.openmetrics import read_openmetrics
from sageserve.data.history.raw import RawSeries

SAMPLES_MAX: Final = 500_000_000  # of one file: eight gigabytes of memory
BLOCK: Final = 1 << 20

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many bytes of how many are read."""


def read_files(paths: list[Path], progress: Progress | None = None) -> Iterator[RawSeries]:
    """All series of these files.

    Raises:
        MeasurementError: a file cannot be read, or holds something else; says which, and what to give instead.
    """
    sizes = [_size(path) for path in paths]
    before = 0
    for path, size in zip(paths, sizes, strict=True):
        for one in _read(path):
            if not one.name:
                raise MeasurementError(
                    f"{path} holds a series without a name: a rate or a sum, and not what was recorded",
                    hint="save the metrics themselves: query_range of vllm:num_requests_running, and so on",
                )
            yield one
        before += size
        if progress is not None:
            progress(before, sum(sizes))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise MeasurementError(f"cannot read {path}: {error.strerror}", hint="give the path of an exported history") from None


def _read(path: Path) -> Iterator[RawSeries]:
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            first = stream.read(BLOCK)
            if first.lstrip()[:1] in (b"{", b"["):
                yield from _json(path, first, stream)
            else:
                whole = io.TextIOWrapper(io.BufferedReader(_Rest(first, stream)), "utf-8", "replace")
                yield from read_openmetrics(whole, str(path))
    except (OSError, pa.ArrowException) as error:
        raise MeasurementError(f"cannot read {path}: {error}", hint="is it whole?") from None


def _json(path: Path, first: bytes, stream: pa.NativeFile) -> Iterator[RawSeries]:
    reader = MatrixReader(SAMPLES_MAX)
    try:
        block = first
        while block:
            yield from reader.feed(block)
            block = stream.read(BLOCK)
        reader.close()
    except NotMatrix as error:
        raise MeasurementError(f"{path}: {error}", hint="save query_range's answer as it came, with `curl -o`") from None


class _Rest(io.RawIOBase):
    """What was read already, and then the rest of a stream."""

    def __init__(self, first: bytes, stream: pa.NativeFile) -> None:
        self._first = first
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # io's own hint names a protocol that is private
        size = len(buffer)
        part = self._first[:size] if self._first else self._stream.read(size)
        self._first = self._first[size:]
        buffer[: len(part)] = part
        return len(part)
