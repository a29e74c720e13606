"""What can go wrong with a request, in OpenAI's shape: `{"error": {message, type, param, code}}`.

One constructor per kind, so that status, type and code always go together; what engines say in their own shapes is brought
into this one. Knows no request and no socket. Read next: docs/reference/gateway.md for the table of them.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from sageserve.base.errors import SageServeError
from sageserve.base.units import SECOND, Micros

STATUS: Final[Mapping[int, str]] = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_CHALLENGE: Final = (
    b'www-authenticate: Bearer\r\nwww-authenticate: Basic realm="sageserve pages: any name, a key as password"\r\n'
)
_TEXT_MAX: Final = 2000  # characters of an engine's plain text that are passed on
INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"


class ApiError(SageServeError):
    """An answer other than success.

    Args:
        status: of HTTP.
        message: what is wrong, for people.
        kind: OpenAI's `type`.
        code: OpenAI's `code`, for programs.
        param: the field of the body concerned.
        retry_after: microseconds, for those that may come again.

    `final`: clients that would try again by themselves are told not to.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str,
        code: str | None,
        param: str | None = None,
        retry_after: Micros | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.final = False

    def body(self) -> bytes:
        """The JSON of it."""
        return error_body(self.message, self.kind, self.param, self.code)

    def fields(self) -> bytes:
        """Header lines that belong to it."""
        if self.status == 401:
            return _CHALLENGE
        again = b"" if self.retry_after is None else retry_fields(self.retry_after)
        return again + b"x-should-retry: false\r\n" if self.final else again


def error_body(message: str, kind: str, param: str | None, code: str | int | None) -> bytes:
    """An error in OpenAI's shape."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def retry_fields(after: Micros) -> bytes:
    """Both forms of Retry-After: whole seconds for everyone, milliseconds for OpenAI's clients, which prefer them."""
    return b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (max(1, -(-after // SECOND)), -(-after // 1000))


def last_answer(problem: ApiError, ours: bytes) -> bytes:
    """The whole of an answer after which the connection is closed; `ours`: lines that every answer to its request bears."""
    body = problem.body()
    line = b"HTTP/1.1 %d %b\r\n" % (problem.status, STATUS[problem.status].encode())
    length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
    return b"%b%b%b%bconnection: close\r\n\r\n%b" % (line, length, ours, problem.fields(), body)


def bad_request(message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> ApiError:
    """What the client sent cannot be served, now or later."""
    return ApiError(status, message, kind=INVALID, code=code, param=param)


def no_key(message: str) -> ApiError:
    """Who asks is not known."""
    return ApiError(401, message, kind=INVALID, code="invalid_api_key")


def expired_key(message: str) -> ApiError:
    """Who asks was known until a while ago."""
    return ApiError(401, message, kind=INVALID, code="api_key_expired")


def forbidden(message: str) -> ApiError:
    """Who asks is known, and may not."""
    return ApiError(403, message, kind="permission_error", code="permission_denied")


def unknown_model(name: str) -> ApiError:
    """No such model."""
    return ApiError(404, f"The model {name!r} does not exist here.", kind=INVALID, code="model_not_found", param="model")


def too_large(limit: int) -> ApiError:
    """The body exceeds the limit."""
    return ApiError(413, f"The body exceeds the limit of {limit} bytes.", kind=INVALID, code="request_too_large")


def header_too_large(limit: int) -> ApiError:
    """The header exceeds the limit."""
    return bad_request(f"The header exceeds the limit of {limit} bytes.", status=431, code="header_too_large")


def too_slow(what: str) -> ApiError:
    """The client took too long to send something."""
    return ApiError(408, f"The request timed out: {what}.", kind=INVALID, code="request_timeout")


def rate_limited(what: str, limit: int, retry_after: Micros) -> ApiError:
    """A key used up what it may use in a minute."""
    message = f"Rate limit reached: {limit} {what} per minute. Please try again in {max(1, retry_after // 1000)} ms."
    return ApiError(429, message, kind=what, code="rate_limit_exceeded", retry_after=retry_after)


def budget_spent(what: str, reset: str, retry_after: Micros) -> ApiError:
    """A key used up what it may use in a day: `what` of it, until `reset`."""
    message = f"The budget of this key for today is spent: {what}. It begins anew at {reset}."
    problem = ApiError(429, message, kind="insufficient_quota", code="insufficient_quota", retry_after=retry_after)
    problem.final = True
    return problem


def overloaded(message: str, retry_after: Micros) -> ApiError:
    """The wait would break the promise of the tier."""
    return ApiError(429, message, kind="rate_limit_error", code="overloaded", retry_after=retry_after)


def no_capacity(message: str, retry_after: Micros = 2 * SECOND) -> ApiError:
    """No instance is open, or those that are refuse."""
    return ApiError(503, message, kind=SERVER, code="no_capacity", retry_after=retry_after)


def not_started(message: str, retry_after: Micros) -> ApiError:
    """The instance that a request waited for did not come."""
    return ApiError(503, message, kind=SERVER, code="start_failed", retry_after=retry_after)


def broken(message: str, *, status: int = 502, code: str = "upstream_error") -> ApiError:
    """An engine failed and nobody else could take over."""
    return ApiError(status, message, kind=SERVER, code=code)


def engine_body(status: int, body: bytes) -> bytes:
    """An engine's error in OpenAI's shape; one that already has it is left as it is, byte by byte."""
    try:
        return _shaped(status, body, orjson.loads(body))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):  # no JSON, or nested too deeply
        return _shaped(status, body, None)


def _shaped(status: int, body: bytes, said: Any) -> bytes:  # noqa: ANN401 # JSON of an engine
    kind = INVALID if status < 500 else SERVER
    match said:
        case {"error": {"message": str(), "type": _, "param": _, "code": _}}:
            return body
        case {"error": dict() as inner}:
            known = {"message": STATUS.get(status, "error"), "type": kind, "param": None, "code": None}
            return orjson.dumps({**said, "error": {**known, **inner}})
        case {"error": str() as message}:
            return error_body(message, kind, None, None)
        case {"message": str() as message}:
            return error_body(message, str(said.get("type") or kind), said.get("param"), said.get("code"))
        case {"detail": detail}:
            return error_body(_detail(detail), kind, None, None)
        case _:
            text = body[: 4 * _TEXT_MAX].decode("utf-8", "replace").strip()[:_TEXT_MAX]
            return error_body(text or STATUS.get(status, "the engine failed"), kind, None, None)


def _detail(detail: object) -> str:
    """FastAPI's way of saying what is wrong: text, or a list of complaints."""
    match detail:
        case str():
            return detail
        case [{"msg": str() as message}, *_]:
            return message
        case _:
            return msgspec.json.encode(detail).decode()[:_TEXT_MAX]
