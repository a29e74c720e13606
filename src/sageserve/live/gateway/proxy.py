"""Requests that are control's: passed on as they come, both ways, with back-pressure, however large.

Who asks was checked before; control hears the name of the key, and believes it because the gateway knows the fleet's secret.
Reads no body and retries nothing. Read next: `client.py`, the caller.
"""

from typing import Final

from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.live.gateway.api_error import ApiError, broken, no_capacity
from sageserve.live.gateway.context import GatewayContext
from sageserve.live.gateway.downstream import Downstream
from sageserve.live.gateway.framing import ResponseHead
from sageserve.live.gateway.request import HttpRequest
from sageserve.live.gateway.upstream import EngineConnection

PATIENCE: Final = 5 * MINUTE  # a large batch file is checked line by line before it is answered for
_AHEAD: Final = 1 << 20  # bytes of a body that are kept while control does not take them


class Passage:
    """A request on its way to control, and the answer on its way back."""

    __slots__ = (
        "_ahead",
        "_chunked",
        "_client",
        "_complete",
        "_connection",
        "_context",
        "_head",
        "_one",
        "_over",
        "_since",
        "full",
    )

    def __init__(self, context: GatewayContext, client: Downstream, one: HttpRequest) -> None:
        self._context = context
        self._client = client
        self._one = one
        self._connection: EngineConnection | None = None
        self._ahead: list[bytes] = []
        self._complete = one.complete
        self._head: ResponseHead | None = None
        self._chunked = False
        self._over = False
        self._since: Micros = one.arrived
        self.full = False  # control does not take the body as fast as it comes

    def begin(self) -> None:
        """Connect, and say on whose behalf, which control believes because of the secret beside it.

        Raises:
            ApiError: there is no control process.
        """
        one, context = self._one, self._context
        if context.admin is None:
            raise no_capacity("Files, batches and pages are served by the control process, which this gateway does not know yet.")
        assert one.holder is not None, "who asks was told from the header"
        ours = b"x-sageserve-key: %b\r\nx-sageserve-secret: %b\r\n" % (
            one.holder.name.encode(),
            context.internal.encode(),
        )
        head = b"%b %b HTTP/1.1\r\nhost: %b\r\n%bx-request-id: %b\r\n%bconnection: close\r\n" % (
            one.method,
            one.url,
            one.noted.get(b"host", b"localhost"),
            one.fields,
            one.id,
            ours,
        )
        if one.chunked:
            head += b"transfer-encoding: chunked\r\n"
        elif one.length or one.method in {b"POST", b"PUT", b"PATCH"}:
            head += b"content-length: %d\r\n" % one.length
        self._ahead.append(head + b"\r\n")
        for piece in one.pieces:
            self._ahead.append(self._framed(piece))
        one.pieces = []
        if self._complete and one.chunked:
            self._ahead.append(b"0\r\n\r\n")
        context.exchanges[self] = None
        context.pool_at(*context.admin).open(self._connected)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._one.chunked else data

    def _connected(self, connection: EngineConnection | None, reason: str) -> None:
        if self._over:
            if connection is not None:
                connection.let_go()
        elif connection is None:
            self._fail(no_capacity(f"The control process, which serves this, cannot be reached: {reason}."))
        else:
            self._connection = connection
            data, self._ahead = b"".join(self._ahead), []
            connection.begin(self, data, b"")
            if self.full:
                self.drained(True)

    @property
    def answering(self) -> bool:
        """Whether the client was sent a part of the answer."""
        return self._head is not None

    def body(self, data: bytes) -> None:
        """A part of the body came."""
        if self._over:
            return
        if self._connection is not None:
            self._connection.send(self._framed(data))
            return
        self._ahead.append(self._framed(data))
        if not self.full and sum(map(len, self._ahead)) > _AHEAD:
            self.full = True
            self._client.hold(True)

    def complete(self) -> None:
        """The body is complete."""
        self._complete = True
        if self._one.chunked and not self._over:
            if self._connection is not None:
                self._connection.send(b"0\r\n\r\n")
            else:
                self._ahead.append(b"0\r\n\r\n")

    def answered(self, head: ResponseHead) -> None:
        """Control answers."""
        self._head = head
        self._chunked = head.length < 0 and self._client.modern
        if self._one.method == b"HEAD":
            framing = b"content-length: %d\r\n" % max(0, head.length)
        elif head.length >= 0:
            framing = b"content-length: %d\r\n" % head.length if head.status not in {204, 304} else b""
        else:
            framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        fields = b"%b%b%b%b" % (b"".join(head.fields), self._one.ours, framing, self._client.ending())
        self._client.write(b"HTTP/1.1%b\r\n%b\r\n" % (head.line[8:], fields))
        if self._one.method == b"HEAD":
            self._finish()

    def took(self, data: bytes, done: bool) -> None:
        """A part of the answer came."""
        if self._over:
            return
        if data:
            self._client.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        if done:
            if self._chunked:
                self._client.write(b"0\r\n\r\n")
            self._finish()

    def lost(self, reason: str, *, stale: bool) -> None:
        """The connection to control broke."""
        self._connection = None
        if self._over:
            return
        if self._head is None:
            self._fail(broken(f"The control process did not answer: {reason}."))
        else:
            self._free()
            self._client.cut()

    def drained(self, ready: bool) -> None:
        """Control takes no more of the body for now, or takes it again."""
        if self.full == ready and not self._over:
            self.full = not ready
            self._client.hold(self.full)

    def _finish(self) -> None:
        if not self._over:
            self._free()
            self._client.finished()

    def _fail(self, problem: ApiError) -> None:
        self._free()
        self._client.refuse(problem, b"")

    def _free(self) -> None:
        self._over = True
        self._context.exchanges.pop(self, None)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.let_go()
        if self.full:
            self.full = False
            self._client.hold(False)

    def gone(self) -> None:
        """The client left."""
        if not self._over:
            self._free()

    def stop(self) -> None:
        """The gateway stops."""
        if not self._over:
            self._free()
            self._client.cut()

    def pause(self) -> None:
        """The client does not keep up."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The client keeps up again."""
        if self._connection is not None:
            self._connection.resume()

    def check(self, now: Micros) -> None:
        """Give up on a control process that hangs; one that streams events is given its time between them."""
        if self._connection is not None and self._connection.fresh:
            self._connection.fresh = False
            self._since = now
        elif not self._complete:
            self._since = now
        elif self._head is None and now - self._since > PATIENCE:
            problem = broken(f"The control process did not answer within {PATIENCE // SECOND} s.", status=504, code="timeout")
            self._fail(problem)
