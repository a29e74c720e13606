"""Control's own door: only processes of this fleet are answered, which know its secret.

Control listens on the loopback address, which every user of the machine can reach, and believes a header that says whose key a
request came with. The secret is made anew for each run of a fleet, told to its processes in their environment, and kept for
commands like `sageserve status` in the state folder, which is its user's alone. Knows no route. Read next: `process.py`.
"""

import hmac
import logging
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SECRET: Final = b"x-sageserve-secret"
_LOG: Final = logging.getLogger(__name__)
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
