"""From an uploaded file to jobs: every line is looked at once, and nothing is run unless all of them are good.

A line is `{"custom_id": ..., "method": "POST", "url": the batch's endpoint, "body": {...}}`. Works piece by piece, so that a
file of any size needs the memory of a piece. Whatever is wrong with a line is said of that line. Must not run jobs.
Read next: `runner.py`, the caller.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.config import LiveSettings
from sageserve.live.batches.store_thread import StoreThread
from sageserve.live.store.models import BadData, Batch, LineError, NewJob

_FRAME: Final = 64 << 10  # bytes of a line around its body
ERRORS_MAX: Final = 100  # told of a file; one with more is wrong from end to end


class _Line(Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(Struct):
    model: str
    stream: bool | None = None


_line: Final = msgspec.json.Decoder(_Line).decode
_body: Final = msgspec.json.Decoder(_Body).decode


class InputReader:
    """What is known of a file so far.

    Args:
        endpoint: that every line must ask.
        models: that are served.
        live: limits.
    """

    def __init__(self, endpoint: str, models: Sequence[str], live: LiveSettings) -> None:
        self.errors: list[LineError] = []
        self.model = ""
        self.lines = 0
        self._endpoint = endpoint
        self._models = frozenset(models)
        self._limits = live.limits
        self._longest = live.limits.body + _FRAME
        self._ids: set[str] = set()
        self._number = 0
        self._rest = b""
        self._skipping = False  # inside a line that is too long

    @property
    def hopeless(self) -> bool:
        """Whether more errors are not worth finding."""
        return len(self.errors) >= ERRORS_MAX

    def take(self, piece: bytes) -> list[NewJob]:
        """The next part of the file; jobs of the lines that end in it."""
        *whole, self._rest = (self._rest + piece).split(b"\n")
        if self._skipping and whole:  # the end of a line that was too long: it is told of already
            whole[0], self._skipping = b"", False
        jobs = list(self._jobs(whole))
        if self._skipping:
            self._rest = b""
        elif len(self._rest) > self._longest:
            if self._count(self._number + 1):
                self._too_long(self._number + 1)
            self._rest, self._skipping = b"", True
        return jobs

    def end(self) -> list[NewJob]:
        """There is no more: the last line may lack its end."""
        last, self._rest = self._rest, b""
        jobs = list(self._jobs([last]))
        if not self.lines and not self.errors:
            self.errors.append(LineError("empty_file", "The input file is empty: it needs a line for each request."))
        return jobs

    def _jobs(self, lines: Sequence[bytes]) -> Iterator[NewJob]:
        for text in lines:
            self._number += 1
            if self.hopeless or not text.strip():
                continue
            if not self._count(self._number):
                continue
            if len(text) > self._longest:
                self._too_long(self._number)
            elif (job := self._job(text)) is not None:
                yield job

    def _count(self, number: int) -> bool:
        """Count a request in a line; False when that is one too many, which is told once."""
        self.lines += 1
        if self.lines == self._limits.lines + 1:
            message = f"The input file has more than {self._limits.lines} requests, which is the limit of a batch."
            self.errors.insert(0, LineError("too_many_requests", message, number))
        return self.lines <= self._limits.lines

    def _job(self, text: bytes) -> NewJob | None:
        try:
            line = _line(text)
            text.decode()  # what is skipped over is not looked at, and one byte that is no UTF-8 makes the whole file unreadable
            body = _body(line.body)
        except msgspec.ValidationError as error:
            self._complain("invalid_request", f"This line is not a request: {error}.")
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._complain("invalid_json_line", f"This line is not parseable as valid JSON: {error}.")
            return None
        except RecursionError:
            self._complain("invalid_json_line", "This line is nested too deeply to be read as JSON.")
            return None
        wrong = next(self._wrong(line, body), None)
        if wrong is not None:
            self._complain(*wrong)
            return None
        self._ids.add(line.custom_id)
        self.model = body.model
        return NewJob(self._number, line.custom_id, bytes(line.body))

    def _wrong(self, line: _Line, body: _Body) -> Iterator[tuple[str, str, str]]:
        """Code, message and field of what is wrong; nobody asks for more than the first."""
        if not line.custom_id:
            yield "invalid_custom_id", "The custom_id is empty.", "custom_id"
        if "\0" in line.custom_id:
            yield "invalid_custom_id", "The custom_id holds the character U+0000, which cannot be kept.", "custom_id"
        if line.custom_id in self._ids:
            yield "duplicate_custom_id", f"The custom_id {line.custom_id[:100]!r} was used by an earlier line.", "custom_id"
        if line.method != "POST":
            yield "invalid_method", f"The method is {line.method[:20]!r}; it must be POST.", "method"
        if line.url != self._endpoint:
            yield "invalid_url", f"The url {line.url[:100]!r} is not the batch's endpoint {self._endpoint}.", "url"
        if body.model not in self._models:
            yield "model_not_found", f"The model {body.model[:100]!r} does not exist here.", "body.model"
        if self.model and body.model != self.model:
            yield "mismatched_model", f"The model {body.model[:100]!r} differs from that of an earlier line.", "body.model"
        if body.stream:
            yield "invalid_request", "The answer of a batch cannot be streamed: leave out stream.", "body.stream"
        if len(line.body) > self._limits.body:
            yield "request_too_large", f"The body is longer than {self._limits.body} bytes.", "body"

    def _too_long(self, number: int) -> None:
        if not self.hopeless:
            self.errors.append(LineError("line_too_long", f"This line is longer than {self._longest} bytes.", number))

    def _complain(self, code: str, message: str, param: str | None = None) -> None:
        if not self.hopeless:
            self.errors.append(LineError(code, message, self._number, param))


async def read_batch(store: StoreThread, batch: Batch, reader: InputReader) -> None:
    """Read the lines of a batch and keep them; `reader` says what is wrong with them.

    Raises:
        BadMove: the batch was cancelled meanwhile.
    """
    keep = store.store
    await store.call(keep.begin_reading, batch.number)
    number = 0
    while not reader.hopeless and (piece := await store.call(keep.piece, batch.input_file, number)) is not None:
        await _hold(store, batch, reader, reader.take(piece))
        number += 1
    await _hold(store, batch, reader, reader.end())


async def _hold(store: StoreThread, batch: Batch, reader: InputReader, jobs: list[NewJob]) -> None:
    for begin in range(0, len(jobs) if not reader.errors else 0, _TOGETHER):
        await _keep(store, batch, reader, jobs[begin : begin + _TOGETHER])


async def _keep(store: StoreThread, batch: Batch, reader: InputReader, jobs: list[NewJob]) -> None:
    """Keep some lines; of those that the store cannot keep, the first is found by halving and told of."""
    while jobs:
        try:
            return await store.call(store.store.hold, batch.number, reader.model, jobs)
        except BadData as error:
            if len(jobs) == 1:
                reader.errors.append(LineError("invalid_request", f"This line cannot be kept: {error.message}.", jobs[0].line))
                return None
            first, jobs = jobs[: len(jobs) // 2], jobs[len(jobs) // 2 :]
            await _keep(store, batch, reader, first)
            if reader.errors:
                return None
    return None


_TOGETHER: Final = 500  # jobs a transaction, so that results of other batches are not kept waiting
