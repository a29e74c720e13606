"""/v1/batches: create, list, retrieve, cancel; with /v1/files all that the control process serves to clients.

Takes orders and says how things are; what is done about them is the runner's. Read next: `lifecycle.py`.
"""

import re
from typing import Final

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sageserve.base.units import HOUR, SECOND
from sageserve.live.batches.api_context import (
    ApiContext,
    BoundedRequest,
    answer,
    conflict,
    fresh_id,
    guarded,
    kept_for,
    owner_of,
    page_of,
    repeated_id,
)
from sageserve.live.batches.api_models import ListPage, batch_shape
from sageserve.live.batches.uploads import file_routes, read_expiry
from sageserve.live.gateway.api_error import bad_request, forbidden
from sageserve.live.gateway.pages import ASKED
from sageserve.live.store.models import BadData, BadMove, Batch, BatchState, Unknown

ENDPOINTS: Final = tuple(path.decode() for path in ASKED)
"""What jobs may ask."""
_WINDOW: Final = re.compile(r"([1-9][0-9]?)h")
_HOURS_MOST: Final = 24
_BODY_MAX: Final = 64 << 10
_PAIRS_MAX: Final = 16
_KEY_MAX: Final = 64
_IDEMPOTENCY_MAX: Final = 255
_VALUE_MAX: Final = 512
_LIST_MOST: Final = 100
_LIST_USUAL: Final = 20
_CANCELLED: Final = frozenset([BatchState.CANCELLING, BatchState.CANCELLED])


class _Expiry(Struct):
    anchor: str
    seconds: int


class _Asked(Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: _Expiry | None = None


_asked: Final = msgspec.json.Decoder(_Asked).decode


def routes(api: ApiContext) -> list[BaseRoute]:
    """Everything of the Files and Batch APIs.

    Args:
        context: store, time, limits, and whom to tell.
    """
    routes = _BatchRoutes(api)
    return [
        *file_routes(api),
        Route("/v1/batches", guarded(routes.create), methods=["POST"]),
        Route("/v1/batches", guarded(routes.list), methods=["GET"]),
        Route("/v1/batches/{id}", guarded(routes.retrieve), methods=["GET"]),
        Route("/v1/batches/{id}/cancel", guarded(routes.cancel), methods=["POST"]),
    ]


class _BatchRoutes:
    def __init__(self, api: ApiContext) -> None:
        self._api = api
        self._store = api.store
        self._keep = api.store.store

    async def create(self, request: Request) -> Response:
        asked = _read(await BoundedRequest(request, _BODY_MAX).body())
        window = _window(asked.completion_window)
        owner = owner_of(request)
        self._check_tier(owner)
        key = request.headers.get("idempotency-key", "")
        if len(key) > _IDEMPOTENCY_MAX:
            raise bad_request(f"An Idempotency-Key has at most {_IDEMPOTENCY_MAX} characters.", code="invalid_value")
        name = repeated_id("batch_", owner, key) if key else fresh_id("batch_")
        if key and (made := await self._made_before(owner, name, asked)) is not None:
            return answer(batch_shape(made))
        await self._check_file(owner, asked.input_file_id)
        expiry = asked.output_expires_after
        asked_for = None
        if expiry is not None:
            asked_for = read_expiry(expiry.anchor, expiry.seconds, param="output_expires_after") * SECOND
        now = self._api.time.now()
        batch = Batch(
            id=name,
            owner=owner,
            endpoint=asked.endpoint,
            input_file=asked.input_file_id,
            window=asked.completion_window,
            metadata=asked.metadata,
            output_expires=kept_for(self._api.live, owner, asked_for) // SECOND,
            created_at=now,
            expires_at=now + window,
        )
        try:
            batch = await self._store.call(self._keep.add_batch, batch)
        except BadData:  # the same order came twice at once, and the other one was first
            first = await self._made_before(owner, name, asked) if key else None
            if first is None:
                raise
            batch = first
        self._api.notify()
        return answer(batch_shape(batch))

    def _check_tier(self, owner: str) -> None:
        """A key that may not ask for the tier of batches makes none; of several keys of one name, which see the same, all may."""
        allowed = [key.tiers for key in self._api.live.keys if key.name == owner and key.tiers]
        if not all(self._api.tier in tiers for tiers in allowed):
            raise forbidden(f"This key may not use the service class {self._api.tier}, in which batches run.")

    async def _made_before(self, owner: str, name: str, asked: _Asked) -> Batch | None:
        """The batch that an Idempotency-Key stands for already.

        Raises:
            ApiError: it was made of another order.
        """
        try:
            found = await self._store.call(self._keep.batch, owner, name)
        except Unknown:
            return None
        same = (found.endpoint, found.input_file, found.window) == (asked.endpoint, asked.input_file_id, asked.completion_window)
        if not same:
            raise conflict("This Idempotency-Key was used for another batch.")
        return found

    async def _check_file(self, owner: str, file: str) -> None:
        try:
            found = await self._store.call(self._keep.file, owner, file)
        except Unknown as error:
            raise bad_request(error.message, param="input_file_id", code="file_not_found") from None
        if found.purpose != "batch":
            raise bad_request("The input file was not uploaded with the purpose 'batch'.", param="input_file_id")

    async def list(self, request: Request) -> Response:
        page = page_of(request, most=_LIST_MOST, usual=_LIST_USUAL)
        found = await self._store.call(self._keep.batches, owner_of(request), page.one_more)
        shapes = tuple(batch_shape(batch) for batch in found[: page.limit])
        first, last = (shapes[0].id, shapes[-1].id) if shapes else (None, None)
        return answer(ListPage(shapes, first, last, len(found) > page.limit))

    async def retrieve(self, request: Request) -> Response:
        return answer(batch_shape(await self._find(request)))

    async def cancel(self, request: Request) -> Response:
        batch = await self._find(request)
        if batch.state not in _CANCELLED:
            try:
                await self._store.call(self._keep.cancel, batch.number, self._api.time.now())
            except BadMove:
                batch = await self._find(request)
                if batch.state not in _CANCELLED:  # someone else's order came first
                    raise conflict(f"Cannot cancel a batch with status '{batch_shape(batch).status}'.") from None
            self._api.notify()
            batch = await self._find(request)
        return answer(batch_shape(batch))

    async def _find(self, request: Request) -> Batch:
        return await self._store.call(self._keep.batch, owner_of(request), request.path_params["id"])


def _read(body: bytes) -> _Asked:
    try:
        asked = _asked(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"The body is not what creates a batch: {error}.") from None
    if asked.endpoint not in ENDPOINTS:
        raise bad_request(f"The endpoint must be one of {', '.join(ENDPOINTS)}.", param="endpoint", code="invalid_value")
    pairs = asked.metadata or {}
    if len(pairs) > _PAIRS_MAX or any(len(k) > _KEY_MAX or len(v) > _VALUE_MAX for k, v in pairs.items()):
        message = f"metadata has at most {_PAIRS_MAX} pairs, keys of {_KEY_MAX} and values of {_VALUE_MAX} characters."
        raise bad_request(message, param="metadata")
    return asked


def _window(text: str) -> int:
    """OpenAI knows 24h; fewer whole hours are taken too, because deadlines are kept here."""
    found = _WINDOW.fullmatch(text)
    if found is None or int(found[1]) > _HOURS_MOST:
        message = "The completion_window must be '24h', or fewer whole hours such as '2h'."
        raise bad_request(message, param="completion_window", code="invalid_value")
    return int(found[1]) * HOUR
