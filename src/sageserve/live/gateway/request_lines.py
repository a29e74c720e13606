"""A line for each request for an engine, where `live.records` asks for it: times, counts and names; no prompt, no answer.

    requests/w0-000001.jsonl

Lines are kept in memory and written by a thread about once a second; `sageserve trace` and `--trace` read them as they are. Each
process has files of its own, of which the newest are kept. Knows no request. Read next: `record.py`, which knows them.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

import msgspec

from sageserve.data.growing import append_lines
from sageserve.data.watched.request_lines import FOLDER, RequestLine

_LOG: Final = logging.getLogger("sageserve.live.gateway")
_FILE_MAX: Final = 64 << 20  # bytes of a file before a new one is begun: about 300,000 requests
_FILES: Final = 8
_NUMBER: Final = "[0-9]" * 6
_AHEAD: Final = 100_000  # lines in memory that a disk may be behind: 20 MB


class RequestLines:
    """Lines of one process.

    Args:
        state: folder of the fleet; private.
        worker: number of the process.
    """

    def __init__(self, state: Path, worker: int) -> None:
        self.lost = 0  # lines that are nowhere: the disk is full, or too slow
        self._folder = state / FOLDER
        self._prefix = f"w{worker}-"
        self._lines: list[RequestLine] = []
        self._writing: asyncio.Task[None] | None = None
        self._encode = msgspec.json.Encoder().encode

    def add(self, line: RequestLine) -> None:
        """Keep a line until it is written."""
        if len(self._lines) < _AHEAD:
            self._lines.append(line)
        else:
            self.lost += 1

    def tidy(self) -> None:
        """Begin to write what there is, unless a slow disk still has what was there before."""
        if self._lines and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._hand_over())

    async def close(self) -> None:
        """Write all that is left."""
        if self._writing is not None:
            await self._writing
        await self._hand_over()

    async def _hand_over(self) -> None:
        lines, self._lines = self._lines, []
        try:
            await asyncio.to_thread(self._write, lines)
        except OSError as error:
            self.lost += len(lines)
            _LOG.error("lines of requests cannot be written, %d are lost so far: %s", self.lost, error)

    def _write(self, lines: list[RequestLine]) -> None:
        if not lines:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        append_lines(self._file(), b"".join(self._encode(line) + b"\n" for line in lines))

    def _file(self) -> Path:
        files = sorted(self._folder.glob(f"{self._prefix}{_NUMBER}.jsonl"))  # ours: others are left alone
        if files and files[-1].stat().st_size < _FILE_MAX:
            return files[-1]
        for old in files[: max(0, len(files) + 1 - _FILES)]:
            old.unlink(missing_ok=True)  # a process that overlaps with this one may have been first
        number = int(files[-1].stem.rpartition("-")[2]) + 1 if files else 1
        return self._folder / f"{self._prefix}{number:06d}.jsonl"
