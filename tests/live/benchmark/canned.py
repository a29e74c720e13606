"""A server on loopback that gives one fixed answer to every POST: engines that cannot be measured, and odd streams.

Read next: `test_client.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

STREAM = "text/event-stream"


def events(*texts: str) -> bytes:
    """Server-sent events with these texts."""
    return b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)


@asynccontextmanager
async def canned(*pieces: bytes, status: int = 200, kind: str = STREAM, pause_s: float = 0.02) -> AsyncIterator[str]:
    """Answer every POST with these pieces, one write each with a pause before it, and every GET with 404; gives the URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        else:
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode())
            for piece in pieces:
                await asyncio.sleep(pause_s)
                writer.write(piece.replace(b"ECHO", _key(head)))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"


def _key(head: bytes) -> bytes:
    """What the client sent as its key."""
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"authorization: bearer "):
            return line.split(b" ", 2)[2]
    return b""
