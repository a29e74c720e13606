"""/v1/files: upload, list, retrieve, read, delete, as OpenAI's clients expect them.

An upload is spooled to the temporary folder and then kept in pieces; it is shown once it is whole. Knows no batch.
Read next: `routes.py`.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Final

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from sageserve.base.units import SECOND, Micros
from sageserve.live.batches.api_context import ApiContext, BoundedRequest, answer, fresh_id, guarded, kept_for, owner_of, page_of
from sageserve.live.batches.api_models import Deleted, ListPage, file_shape
from sageserve.live.gateway.api_error import bad_request, too_large
from sageserve.live.store.interface import PIECE
from sageserve.live.store.models import File, Unknown

_KEEP_LEAST: Final = 3600  # seconds; OpenAI's bounds
_KEEP_MOST: Final = 30 * 24 * 3600
_FRAME: Final = 1 << 20  # of the form around the file
_FIELD_MAX: Final = 64 << 10
_LIST_MOST: Final = 10_000
_NAME_MAX: Final = 255
_TRIES: Final = 2  # more, after control processes that came to lead


def file_routes(api: ApiContext) -> list[BaseRoute]:
    """The routes of files.

    Args:
        context: what all routes share.
    """
    routes = _FileRoutes(api)
    return [
        Route("/v1/files", guarded(routes.create), methods=["POST"]),
        Route("/v1/files", guarded(routes.list), methods=["GET"]),
        Route("/v1/files/{id}", guarded(routes.retrieve), methods=["GET"]),
        Route("/v1/files/{id}", guarded(routes.delete), methods=["DELETE"]),
        Route("/v1/files/{id}/content", guarded(routes.content), methods=["GET"]),
    ]


class _FileRoutes:
    def __init__(self, api: ApiContext) -> None:
        self._api = api
        self._store = api.store
        self._keep = api.store.store

    async def create(self, request: Request) -> Response:
        limit = self._api.live.limits.file
        try:
            form = BoundedRequest(request, limit + _FRAME, told=limit).form(max_files=1, max_fields=10, max_part_size=_FIELD_MAX)
            async with form as fields:
                return answer(file_shape(await self._save(owner_of(request), fields)))
        except HTTPException as error:
            raise bad_request(f"This is not a multipart form: {error.detail}") from error

    async def _save(self, owner: str, form: FormData) -> File:
        upload, purpose = form.get("file"), form.get("purpose")
        if not isinstance(upload, UploadFile):
            raise bad_request("'file' is a required property", param="file")
        if purpose != "batch":
            raise bad_request(f"The purpose must be 'batch', not {str(purpose)[:40]!r}.", param="purpose")
        if (upload.size or 0) > self._api.live.limits.file:
            raise too_large(self._api.live.limits.file)
        now = self._api.time.now()
        name = (upload.filename or "upload.jsonl").replace("\0", "")[:_NAME_MAX]
        file = File(fresh_id("file-"), owner, name, "batch", now, now + self._lasts(owner, {k: str(v) for k, v in form.items()}))
        return await self._fill(file, upload)

    async def _fill(self, file: File, upload: UploadFile) -> File:
        for _ in range(_TRIES):
            try:
                return await self._fill_once(file, upload)
            except Unknown:  # a control process that came to lead has dropped what was half written
                await upload.seek(0)
        return await self._fill_once(file, upload)

    async def _fill_once(self, file: File, upload: UploadFile) -> File:
        await self._store.call(self._keep.begin_file, file)
        try:
            number = size = 0
            while data := await upload.read(PIECE):
                await self._store.call(self._keep.append, file.id, number, data)
                number, size = number + 1, size + len(data)
            await self._store.call(self._keep.finish_file, file.id, size)
        except BaseException:
            await self._store.call(self._keep.drop_file, file.id)  # also when the client left, or the disk is full
            raise
        return await self._store.call(self._keep.file, file.owner, file.id)

    def _lasts(self, owner: str, fields: Mapping[str, str]) -> Micros:
        anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
        asked = None if anchor is None and seconds is None else read_expiry(anchor, seconds) * SECOND
        return kept_for(self._api.live, owner, asked)

    async def list(self, request: Request) -> Response:
        page = page_of(request, most=_LIST_MOST, usual=_LIST_MOST)
        found = await self._store.call(
            self._keep.files, owner_of(request), page.one_more, request.query_params.get("purpose") or None
        )
        shapes = tuple(file_shape(file) for file in found[: page.limit])
        first, last = (shapes[0].id, shapes[-1].id) if shapes else (None, None)
        return answer(ListPage(shapes, first, last, len(found) > page.limit))

    async def retrieve(self, request: Request) -> Response:
        return answer(file_shape(await self._find(request)))

    async def delete(self, request: Request) -> Response:
        file = request.path_params["id"]
        await self._store.call(self._keep.delete_file, owner_of(request), file)
        return answer(Deleted(file))

    async def content(self, request: Request) -> Response:
        file = await self._find(request)
        headers = {"content-length": str(file.size), "content-disposition": "attachment"}
        return StreamingResponse(self._pieces(file.id), media_type="application/octet-stream", headers=headers)

    async def _pieces(self, file: str) -> AsyncIterator[bytes]:
        number = 0
        while (data := await self._store.call(self._keep.piece, file, number)) is not None:
            yield data
            number += 1

    async def _find(self, request: Request) -> File:
        return await self._store.call(self._keep.file, owner_of(request), request.path_params["id"])


def read_expiry(anchor: object, seconds: object, *, param: str = "expires_after") -> int:
    """Seconds that a file is kept.

    Raises:
        ApiError: not what OpenAI allows.
    """
    if anchor != "created_at":
        raise bad_request("The anchor must be 'created_at'.", param=f"{param}[anchor]")
    text = str(seconds)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and _KEEP_LEAST <= int(text) <= _KEEP_MOST):
        raise bad_request(f"The seconds must be from {_KEEP_LEAST} to {_KEEP_MOST}.", param=f"{param}[seconds]")
    return int(text)
