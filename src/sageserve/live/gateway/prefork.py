"""Several gateway processes on one port: started, started again when one dies, and stopped together.

The kernel deals out connections among them (SO_REUSEPORT). Knows nothing of what they do. Read next: `server.py`.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from sageserve.live.gateway.context import LOG

_PAUSE_S: Final = 1.0  # before one that died is started again: one that cannot start must not spin


def run_many(one: Callable[[int, Path | None], None], workers: int, sockets: Sequence[int] = ()) -> None:
    """Run `one(number, folder)` in so many processes until SIGTERM or SIGINT, then wait for them to finish.

    A second signal is passed on like the first. The folder is theirs to leave counts in, and gone afterwards.

    Args:
        one: what a process does.
        workers: how many there are.
        sockets: descriptors that all of them inherit. They are closed here when the end begins: open, they would go on taking in
            connections that nobody serves.
    """
    with tempfile.TemporaryDirectory(prefix="sageserve-gateway-") as folder:
        _Flock(one, Path(folder), sockets).run(workers)


class _Flock:
    def __init__(self, one: Callable[[int, Path | None], None], folder: Path, sockets: Sequence[int]) -> None:
        self._one = one
        self._folder = folder
        self._sockets = list(sockets)
        self._numbers: dict[int, int] = {}
        self._stopping = False

    def run(self, workers: int) -> None:
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, self._stop)
        for number in range(workers):
            self._start(number)
        while self._numbers:
            pid, status = os.wait()
            died = self._numbers.pop(pid, None)
            if died is not None and not self._stopping:
                LOG.error("gateway process %d ended with status %d; another one is started", died, status)
                time.sleep(_PAUSE_S)
                if not self._stopping:
                    self._start(died)

    def _start(self, number: int) -> None:
        pid = os.fork()
        if pid:
            self._numbers[pid] = number
            if self._stopping:  # the signal came before it was known
                os.kill(pid, signal.SIGTERM)
            return
        status = 1
        try:
            for sign in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sign, signal.SIG_DFL)
            _leash()
            self._one(number, self._folder)
            status = 0
        except Exception:  # noqa: BLE001 # the end of a forked process: said, and shown by its exit code
            LOG.exception("gateway process %d failed", number)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        while self._sockets:
            os.close(self._sockets.pop())
        for pid in self._numbers:
            os.kill(pid, signal.SIGTERM)


def _leash() -> None:
    """Ask the kernel to end this process with its parent; where it cannot be asked, the parent's SIGTERM must do."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
