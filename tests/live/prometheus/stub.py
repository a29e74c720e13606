"""A small server that answers as it is told: for hostile answers, and for what a client sends."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit


class Asked:
    """One request: what was asked, and where to answer."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length") or 0)
        self.path: Final = parts.path
        self.form: Final = {
            key: values[0] for key, values in parse_qs(parts.query + "&" + handler.rfile.read(length).decode()).items()
        }
        self.headers: Final = dict(handler.headers)
        self._handler = handler

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        self._handler.send_header("Content-Length", str(len(body)))
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def stream(self, parts: Iterator[bytes]) -> None:
        """Send as it comes, without a length; end when the client has left."""
        self._handler.send_response(200)
        self._handler.end_headers()
        try:
            for part in parts:
                self._handler.wfile.write(part)
        except OSError:
            return


class Stub:
    """The server, and what it was asked."""

    def __init__(self, reply: Callable[[Asked], None]) -> None:
        stub = self
        self.reply = reply
        self.asked: list[Asked] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                one = Asked(self)
                stub.asked.append(one)
                stub.reply(one)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@contextmanager
def stub(reply: Callable[[Asked], None]) -> Iterator[Stub]:
    """Run it until the block ends."""
    made = Stub(reply)
    thread = threading.Thread(target=made.http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.http.shutdown()
        made.http.server_close()
        thread.join()
