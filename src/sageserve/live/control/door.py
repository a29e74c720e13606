"""Control's own door: only processes of this fleet are answered, which know its secret.

Control listens on the loopback address, which every user of the machine can reach, and believes a header that says whose key a
request came with. The secret is made anew for each run of a fleet, told to its processes in their environment, and kept for
commands like `sageserve status` in the state folder, which is its user's alone. Knows no route. Read next: `process.py`.
"""

import hmac
import logging
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

SECRET: Final = b"x-sageserve-secret"
_LOG: Final = logging.getLogger(__name__)


async def _answer(request: Request, error: Exception) -> Response:
    """What no route of ours says by itself: no such page, not this method, or a fault."""
    known = isinstance(error, HTTPException)
    status = error.status_code if isinstance(error, HTTPException) else 500
    if not known:
        _LOG.error("%s %s", request.method, request.url.path, exc_info=error)
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    said = {
        404: f"Unknown request URL: {request.method} {request.url.path[:200]}.",
        405: f"{request.method} is not for this URL.",
    }
    other = error.detail if isinstance(error, HTTPException) else "This request met a fault of SageServe; it is in the log."
    problem = {
        "message": said.get(status, other),
        "type": "invalid_request_error" if status < 500 else "server_error",
        "param": None,
        "code": codes.get(status, "bad_http" if status < 500 else "internal_error"),
    }
    return JSONResponse({"error": problem}, status, headers=error.headers if isinstance(error, HTTPException) else None)


IN_JSON: Final[dict[type[Exception] | int, ExceptionHandler]] = {HTTPException: _answer, Exception: _answer}
"""Of Starlette's: every answer that is an error is in the shape that clients read."""
_CLOSED: Final = {
    "error": {
        "message": "Control answers its own fleet only: ask the gateway.",
        "type": "permission_error",
        "param": None,
        "code": "not_ours",
    }
}


class FleetOnly:
    """Passes on what comes with the fleet's secret, and refuses everything else.

    Args:
        app: what it stands before.
        secret: of the fleet; empty: nobody knows it, and nobody is answered.
    """

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and not self._knows(scope):
            _LOG.warning("refused %s %s: it came without the fleet's secret", scope["method"], scope["path"])
            await JSONResponse(_CLOSED, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        said = [value for name, value in scope["headers"] if name == SECRET]
        return bool(self._secret) and len(said) == 1 and hmac.compare_digest(said[0], self._secret)
