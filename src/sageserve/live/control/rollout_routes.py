"""Rollouts over HTTP, for commands of this machine.

    GET  /fleet/rollouts        `RolloutStatus`, all of them       POST /fleet/rollouts/ask    `RolloutAsk`
    POST /fleet/rollouts        `RolloutSettings`: begin one

No gateway passes these on: a command that engines are run by is taken from whoever knows the fleet's secret, which is the state
folder's owner (`door.py`). Read next: `live_rollouts.py`; `cli/rollout.py`, which asks.
"""

import asyncio
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sageserve.base.config import RolloutSettings
from sageserve.base.errors import ConfigError, SageServeError
from sageserve.core.judging import prepare
from sageserve.live.control.live_rollouts import LiveRollouts, RolloutAsk, RolloutStatus

_BODY_MAX: Final = 64 << 10


def rollout_routes(rollouts: LiveRollouts) -> list[BaseRoute]:
    """What is served about rollouts."""

    def told(found: RolloutStatus | tuple[RolloutStatus, ...]) -> Response:
        return Response(msgspec.json.encode(found), media_type="application/json", headers={"cache-control": "no-store"})

    def refused(error: Exception) -> Response:
        hint = error.hint if isinstance(error, SageServeError) else ""
        message = error.message if isinstance(error, SageServeError) else str(error)
        problem = {"message": message, "type": "invalid_request_error", "param": None, "code": "refused", "hint": hint}
        return Response(msgspec.json.encode({"error": problem}), 400, media_type="application/json")

    async def show(_request: Request) -> Response:
        return told(rollouts.status())

    async def begin(request: Request) -> Response:
        try:
            await asyncio.to_thread(prepare)
            return told(rollouts.begin(RolloutSettings.model_validate_json(await _body(request))))
        except (ConfigError, ValueError) as error:
            return refused(error)

    async def ask(request: Request) -> Response:
        try:
            return told(rollouts.ask(msgspec.json.decode(await _body(request), type=RolloutAsk)))
        except (ConfigError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return refused(error)

    return [
        Route("/fleet/rollouts", show),
        Route("/fleet/rollouts", begin, methods=["POST"]),
        Route("/fleet/rollouts/ask", ask, methods=["POST"]),
    ]


async def _body(request: Request) -> bytes:
    """What was sent.

    Raises:
        ConfigError: too much.
    """
    found = b""
    async for part in request.stream():
        found += part
        if len(found) > _BODY_MAX:
            raise ConfigError(f"more than {_BODY_MAX:,} bytes were sent")
    return found
