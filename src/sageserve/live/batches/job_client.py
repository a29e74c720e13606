"""One job through the gateway: ask, and say what the answer means.

2xx is success. 429, 503 and a gateway that is away mean "not now": the job waits and has lost nothing; with a limit of its
owner's key that is used up, so do the owner's other jobs. 408 and other 5xx and
broken connections are failed attempts. 401 and 403 of the gateway concern this process's own key, never the job; those of an
engine are the job's. Anything else is the job's own fault and final, an answer that cannot be read or kept included.
Must not know the store's state. Read next: `runner.py`.
"""

import logging
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Struct

from sageserve.base.errors import SageServeError
from sageserve.base.units import SECOND, Micros
from sageserve.live.batches.gateway_lines import ANSWER_MAX, AnswerBroken, GatewayAnswer, GatewayAway
from sageserve.live.store.models import Job, Result, Usage

AWAY: Final = SECOND  # until a gateway that cannot be reached is tried again
_FIRST: Final = SECOND // 2
_MOST: Final = 60 * SECOND
_OURS: Final = frozenset([401, 403])
_FROM_ENGINE: Final = "x-sageserve-region"  # the gateway says it of what it passed on, never of what it refused itself
_NOT_NOW: Final = frozenset([429, 503])
_LIMITS: Final = frozenset(["rate_limit_exceeded", "insufficient_quota"])  # codes of the gateway's own errors

_LOG: Final = logging.getLogger(__name__)


class JobLines(Protocol):
    """What jobs go over to a gateway; `GatewayLines`."""

    async def post(self, path: str, body: bytes, fields: str) -> GatewayAnswer:
        """Send a request and wait for its answer.

        Raises:
            GatewayAway: the gateway cannot be reached.
            AnswerBroken: no answer came, or not the whole of it, or not in time.
        """
        ...

    def close(self) -> None:
        """Nothing more is sent."""
        ...


@dataclass(frozen=True, slots=True)
class Retry:
    """The job is to be asked again.

    Args:
        after: microseconds.
        failed: this was an attempt that failed.
        away: nobody could be asked at all.
        limited: the key it belongs to has used up a limit.
        last: what is recorded if there are no more attempts.
    """

    after: Micros
    failed: bool
    away: bool
    last: Result
    limited: bool = False


_Tokens = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] | None
"""An engine that counts beyond is not believed, and no database could add it up."""


class _Details(Struct):
    cached_tokens: _Tokens = None
    reasoning_tokens: _Tokens = None


class _Usage(Struct):
    """Names of chat and completions, and of responses."""

    prompt_tokens: _Tokens = None
    completion_tokens: _Tokens = None
    input_tokens: _Tokens = None
    output_tokens: _Tokens = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Answer(Struct):
    usage: _Usage | None = None


class _Error(Struct):
    code: str | None = None


class _Refused(Struct):
    error: _Error


_answer: Final = msgspec.json.Decoder(_Answer).decode
_refused: Final = msgspec.json.Decoder(_Refused).decode


async def ask(lines: JobLines, job: Job, body: bytes, request_id: str, fields: str) -> Result | Retry:
    """Send a job to the gateway and wait for the answer.

    Args:
        lines: to send it on.
        job: what it is of.
        body: the request.
        request_id: the gateway's answer has it, too.
        fields: all other header lines, each with its end.
    """
    try:
        answer = await lines.post(job.url, body, f"{fields}x-request-id: {request_id}\r\n")
    except GatewayAway as error:
        return Retry(AWAY, failed=False, away=True, last=_silent(job, error))
    except AnswerBroken as error:
        return Retry(_pause(job.attempts), failed=True, away=False, last=_silent(job, error))
    return _verdict(job, request_id, answer)


def _verdict(job: Job, request_id: str, answer: GatewayAnswer) -> Result | Retry:
    status = answer.status
    try:
        if answer.body is None:
            raise _Unreadable(f"the answer is longer than {ANSWER_MAX} bytes")
        text, usage = _read(answer.body)
    except _Unreadable as error:
        result = Result(job.key, False, status, request_id, error=error.message)
    else:
        good = 200 <= status < 300
        result = Result(job.key, good, status, request_id, text, "", usage if good else Usage())
    if status in _OURS and _FROM_ENGINE not in answer.fields:
        _LOG.error("the gateway refuses the key of this process (%d): batches wait", status)
        return Retry(_MOST, failed=False, away=True, last=result)
    if status in _NOT_NOW:
        limited = _FROM_ENGINE not in answer.fields and _code(answer) in _LIMITS
        return Retry(_told(answer) or _pause(job.attempts), failed=False, away=False, last=result, limited=limited)
    if status == 408 or status >= 500:
        return Retry(_told(answer) or _pause(job.attempts), failed=True, away=False, last=result)
    return result


def _pause(attempts: int) -> Micros:
    return min(_MOST, _FIRST << min(attempts, 10))


def _code(answer: GatewayAnswer) -> str | None:
    """What a refusal says for programs; None: nothing that can be read."""
    try:
        return _refused(answer.body or b"").error.code
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _told(answer: GatewayAnswer) -> Micros:
    """What Retry-After says, within reason; 0: nothing."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", SECOND)):
        said = answer.fields.get(name, "")
        if said.isascii() and said.isdigit() and len(said) < 10:
            return min(_MOST, max(1, int(said) * unit))
    return 0


class _Unreadable(SageServeError):
    """An answer that cannot stand in an output file."""


def _read(content: bytes) -> tuple[bytes, Usage]:
    """The answer as JSON on one line, and the tokens it took. Text that is no JSON becomes a string.

    Raises:
        _Unreadable: it is nested too deeply.
    """
    try:
        content.decode()  # what is skipped over is not looked at, and the file it goes into must be readable as a whole
        try:
            found = _answer(content)
        except msgspec.ValidationError:
            found = _Answer()  # JSON, but nothing that says what it took
            msgspec.json.decode(content, type=msgspec.Raw)
        text = msgspec.json.format(content, indent=-1) if b"\n" in content or b"\r" in content else content
    except RecursionError:
        raise _Unreadable("the answer is nested too deeply to be kept as JSON") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.encode(content.decode("utf-8", "replace")), Usage()
    return text, _usage(found.usage or _Usage())


def _usage(said: _Usage) -> Usage:
    prompt = said.prompt_tokens_details or said.input_tokens_details or _Details()
    output = said.completion_tokens_details or said.output_tokens_details or _Details()
    return Usage(
        prompt=said.prompt_tokens or said.input_tokens or 0,
        cached=prompt.cached_tokens or 0,
        output=said.completion_tokens or said.output_tokens or 0,
        reasoning=output.reasoning_tokens or 0,
    )


def _silent(job: Job, error: SageServeError) -> Result:
    """There was no answer."""
    return Result(job.key, False, error=f"no answer: {error.message}")
