"""What the routes of files and batches share: who asks, answers and errors in OpenAI's shape, pages of lists, new ids.

The gateway has checked the key and says whose it is; what one key made no other one sees. Knows no route.
Read next: `uploads.py`, `routes.py`.
"""

import hashlib
import logging
import secrets  # noqa: TID251 # ids are public: they must not be guessed, and not repeat after a restart
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sageserve.base.config import LiveSettings
from sageserve.base.units import Micros
from sageserve.live.batches.store_thread import SteadyWall, StoreThread
from sageserve.live.gateway.api_error import INVALID, SERVER, ApiError, bad_request, too_large
from sageserve.live.store.models import BadData, BadMove, ListRange, StoreError, StoreFull, Unknown

OWNER: Final = "x-sageserve-key"
"""Header in which the gateway says whose key it was; it drops what clients send under this name."""
ANYONE: Final = "anyone"

_ID: Final = 12  # bytes of an id
_LOG: Final = logging.getLogger(__name__)
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ApiContext:
    """What routes need.

    Args:
        store: files and batches.
        time: wall time.
        live: limits.
        notify: told of new and changed batches.
        tier: name of the one that jobs of batches run in.
    """

    store: StoreThread
    time: SteadyWall
    live: LiveSettings
    notify: Callable[[], None]
    tier: str = ""


@dataclass(frozen=True, slots=True)
class Wanted(ListRange):
    """A page that a client asked for."""

    @property
    def one_more(self) -> ListRange:
        """To see whether there are more."""
        return replace(ListRange(self.after, self.limit, self.newest_first), limit=self.limit + 1)


class BoundedRequest(Request):
    """A request whose body ends in an error when it is too long: at its header when that says so, else where it gets too long.

    Args:
        request: as it came.
        most: bytes of body that are read.
        told: the limit as clients know it.
    """

    def __init__(self, request: Request, most: int, told: int | None = None) -> None:
        super().__init__(request.scope, request.receive)
        self._most = most
        self._told = most if told is None else told
        if int(request.headers.get("content-length") or 0) > most:
            raise too_large(self._told)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece.

        Raises:
            ApiError: it is too long.
        """
        seen = 0
        async for chunk in super().stream():
            seen += len(chunk)
            if seen > self._most:
                raise too_large(self._told)
            yield chunk


def guarded(handler: Handler) -> Handler:
    """The handler, with its errors in OpenAI's shape."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except (ApiError, StoreError) as error:
            problem = error if isinstance(error, ApiError) else _problem(error)
        except HTTPException:
            raise
        except Exception:  # noqa: BLE001 # a fault of one request, said in the shape that clients read
            _LOG.exception("%s %s", request.method, request.url.path)
            problem = ApiError(
                500, "This request met a fault of SageServe; it is in the log.", kind=SERVER, code="internal_error"
            )
        return Response(problem.body(), problem.status, media_type="application/json", headers=_retry(problem))

    return handle


def _problem(error: StoreError) -> ApiError:
    match error:
        case Unknown():
            return bad_request(error.message, status=404, param="id", code="not_found")
        case BadData():
            return bad_request(error.message, code="invalid_value")
        case BadMove():
            return bad_request(error.message, status=409, code="conflict")
        case StoreFull():
            return ApiError(507, f"{error.message} ({error.hint})", kind=SERVER, code="insufficient_storage")
        case _:
            return ApiError(503, error.message, kind=SERVER, code="store_unavailable", retry_after=2_000_000)


def _retry(problem: ApiError) -> dict[str, str]:
    lines = (line.partition(": ") for line in problem.fields().decode().split("\r\n") if line)
    return {name: value for name, _, value in lines}


def answer(shape: msgspec.Struct) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(shape), media_type="application/json")


def kept_for(live: LiveSettings, owner: str, asked: Micros | None) -> Micros:
    """How long a file of an owner is kept: as it was asked for, or as usual, and no longer than its keys let it be."""
    most = [key.keep for key in live.keys if key.name == owner and key.keep is not None]
    return min([live.jobs.keep if asked is None else asked, *most])


def owner_of(request: Request) -> str:
    """Name of the key that asks."""
    return request.headers.get(OWNER) or ANYONE


def page_of(request: Request, *, most: int, usual: int) -> Wanted:
    """Which part of a list is asked for.

    Raises:
        ApiError: no such part.
    """
    query = request.query_params
    text, order = query.get("limit", str(usual)), query.get("order", "desc")
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= most):
        raise bad_request(f"The limit must be from 1 to {most}.", param="limit")
    if order not in {"asc", "desc"}:
        raise bad_request("The order must be 'asc' or 'desc'.", param="order")
    return Wanted(query.get("after") or None, int(text), order == "desc")


def fresh_id(prefix: str) -> str:
    """An id that nobody can guess."""
    return prefix + secrets.token_hex(_ID)


def repeated_id(prefix: str, owner: str, key: str) -> str:
    """The id of what an owner orders under an Idempotency-Key: the same each time, and nobody else's."""
    return prefix + hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()[: 2 * _ID]


def conflict(message: str) -> ApiError:
    """What is asked is not possible any more."""
    return ApiError(409, message, kind=INVALID, code="conflict")
