"""Files, batches and result lines as OpenAI's clients expect them.

Instants become whole seconds since 1970. Must not ask the store. Read next: `routes.py`, `output_files.py`.
"""

from typing import Final, Literal

import msgspec
from msgspec import Struct

from sageserve.base.units import SECOND, Micros
from sageserve.live.store.models import Batch, BatchState, File, JobState, LineError, LineOutcome, Result, Usage


class FileShape(Struct, frozen=True):
    """A file."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None
    object: Literal["file"] = "file"
    status: Literal["processed"] = "processed"
    status_details: None = None


class Deleted(Struct, frozen=True):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class BatchErrors(Struct, frozen=True):
    """Why a batch failed."""

    data: tuple[LineError, ...]
    object: Literal["list"] = "list"


class Counts(Struct, frozen=True):
    """Jobs of a batch."""

    total: int
    completed: int
    failed: int


class _Cached(Struct, frozen=True):
    cached_tokens: int


class _Reasoning(Struct, frozen=True):
    reasoning_tokens: int


class UsageShape(Struct, frozen=True):
    """Tokens of a batch."""

    input_tokens: int
    input_tokens_details: _Cached
    output_tokens: int
    output_tokens_details: _Reasoning
    total_tokens: int


class BatchShape(Struct, frozen=True):
    """A batch."""

    id: str
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: Counts
    usage: UsageShape
    metadata: dict[str, str] | None
    object: Literal["batch"] = "batch"


class ListPage(Struct, frozen=True):
    """A part of a list."""

    data: tuple[FileShape, ...] | tuple[BatchShape, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class _Said(Struct, frozen=True):
    code: str
    message: str


class _Response(Struct, frozen=True):
    status_code: int
    request_id: str
    body: msgspec.Raw


class ResultLine(Struct, frozen=True):
    """A line of an output or error file."""

    id: str
    custom_id: str
    response: _Response | None
    error: _Said | None


def file_shape(file: File) -> FileShape:
    """A file, for its owner."""
    ends = None if file.expires_at is None else file.expires_at // SECOND
    return FileShape(file.id, file.size, file.created_at // SECOND, file.name, file.purpose, ends)


def batch_shape(batch: Batch) -> BatchShape:
    """A batch, for its owner."""
    stamps = batch.stamps
    shown = BatchState.IN_PROGRESS if batch.state is BatchState.EXPIRING else batch.state
    return BatchShape(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model or None,
        errors=BatchErrors(batch.errors) if batch.errors else None,
        input_file_id=batch.input_file,
        completion_window=batch.window,
        status=str(shown),
        output_file_id=batch.output_file,
        error_file_id=batch.error_file,
        created_at=batch.created_at // SECOND,
        in_progress_at=_seconds(stamps.get(BatchState.IN_PROGRESS)),
        expires_at=batch.expires_at // SECOND,
        finalizing_at=_seconds(stamps.get(BatchState.FINALIZING)),
        completed_at=_seconds(stamps.get(BatchState.COMPLETED)),
        failed_at=_seconds(stamps.get(BatchState.FAILED)),
        expired_at=_seconds(stamps.get(BatchState.EXPIRED)),
        cancelling_at=_seconds(stamps.get(BatchState.CANCELLING)),
        cancelled_at=_seconds(stamps.get(BatchState.CANCELLED)),
        request_counts=Counts(batch.total, batch.done, batch.failed),
        usage=_usage_shape(batch.usage),
        metadata=batch.metadata,
    )


def _usage_shape(usage: Usage) -> UsageShape:
    total = usage.prompt + usage.output
    return UsageShape(usage.prompt, _Cached(usage.cached), usage.output, _Reasoning(usage.reasoning), total)


def _seconds(instant: Micros | None) -> int | None:
    return None if instant is None else instant // SECOND


_NEVER_RAN: Final = {
    JobState.CANCELLED: _Said("batch_cancelled", "This request was not executed before the batch was cancelled."),
    JobState.EXPIRED: _Said("batch_expired", "This request could not be executed before the completion window expired."),
}
_NO_ANSWER: Final = "request_failed"


def result_line(batch: Batch, outcome: LineOutcome) -> bytes:
    """What became of a job, with the end of the line."""
    name = f"batch_req_{batch.id.removeprefix('batch_')}_{outcome.line}"
    result = outcome.result
    if result is None:
        said = _NEVER_RAN.get(outcome.state, _Said(_NO_ANSWER, "This request was not executed."))
        line = ResultLine(name, outcome.custom_id, None, said)
    else:
        line = ResultLine(name, outcome.custom_id, _response(result), _Said(_NO_ANSWER, result.error) if result.error else None)
    return msgspec.json.encode(line) + b"\n"


def _response(result: Result) -> _Response | None:
    if not result.status:
        return None
    return _Response(result.status, result.request_id, msgspec.Raw(result.body or b"null"))
