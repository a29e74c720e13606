"""Erasing what is kept of a tenant: batches, their lines, and all files with prompts and answers.

    POST /fleet/erase   {"tenant": NAME} -> `Erased`; asked again while something of it still ends

No gateway passes it on: whoever knows the fleet's secret asks (`control/door.py`). Unfinished batches are cancelled first; what
has been deleted is overwritten as for any file. Read next: `lifecycle.py`, which ends them; `cli/batch_erase.py`.
"""

from typing import Final

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sageserve.live.batches.api_context import ApiContext, answer, guarded
from sageserve.live.gateway.api_error import bad_request
from sageserve.live.store.models import BadMove, ListRange, Unknown

_PAGE: Final = 100
_BODY_MAX: Final = 4096


class Erased(Struct, frozen=True):
    """What is gone, and the batches that still end."""

    files: int
    batches: int
    left: int


class _Tenant(Struct, forbid_unknown_fields=True):
    tenant: str


_asked: Final = msgspec.json.Decoder(_Tenant).decode


async def erase(api: ApiContext, owner: str) -> Erased:
    """Erase what can be now; batches that are under way are cancelled, and gone once they have ended.

    Raises:
        StoreError: the store cannot be asked; what was erased is.
    """
    call, keep = api.store.call, api.store.store
    left = 0
    for batch in await call(keep.unfinished):
        if batch.owner == owner:
            left += 1  # even if it ends meanwhile: its answers may come after the files below are gone
            try:
                await call(keep.cancel, batch.number, api.time.now())
            except (BadMove, Unknown):
                continue  # it ends already
    api.notify()
    files = 0
    while found := await call(keep.files, owner, ListRange(None, _PAGE), None):
        for file in found:
            try:
                await call(keep.delete_file, owner, file.id)
                files += 1
            except Unknown:
                continue  # its time was over just now
    batches = await call(keep.forget_batches, owner)
    return Erased(files, batches, left)


def erase_routes(api: ApiContext) -> list[BaseRoute]:
    """What is served about it."""

    async def erase_one(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _BODY_MAX:
                raise bad_request(f"More than {_BODY_MAX} bytes were sent.")
        try:
            asked = _asked(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise bad_request(f"The body does not name a tenant: {error}.") from None
        return answer(await erase(api, asked.tenant))

    return [Route("/fleet/erase", guarded(erase_one), methods=["POST"])]
