"""A process that watches is told to stop while its server owes it an answer.

Read next: `command.py`; `src/sageserve/cli/watch.py`.
"""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live.watch.command import watching

NO_SERIES = b'{"status":"success","data":{"resultType":"matrix","result":[]}}'


@contextmanager
def owing() -> Iterator[tuple[str, threading.Event]]:
    """A server that answers one question and owes the answer to the next; set once that one was asked."""
    asked = threading.Event()

    def answer(server: socket.socket) -> None:
        peer, _ = server.accept()
        with peer:
            peer.recv(65536)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(NO_SERIES) + NO_SERIES)
            peer.recv(65536)
            asked.set()
            peer.recv(65536)  # until the other side is gone

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        thread.join(10)


def test_the_second_ctrl_c_waits_for_no_answer(tmp_path: Path) -> None:
    with owing() as (url, asked), watching(tmp_path, url, "--past", "0") as one:
        assert asked.wait(60)
        assert (one.state / "fleet.json").exists()
        assert one.process.stderr is not None
        one.process.send_signal(signal.SIGINT)
        assert any("again: at once" in line for line in one.process.stderr)
        assert one.process.poll() is None, "the server may still answer"
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(20) == 130  # the server is given half a minute
        assert not (one.state / "fleet.json").exists()
