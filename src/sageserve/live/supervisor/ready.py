"""How a child says that it is ready, and that it goes on: bytes into a pipe whose number is in its environment.

A dot for each of its processes once that is ready; from then on each may say its number again and again (a plus and four bytes),
so that one that hangs is told from one that has nothing to do. Written by `say_ready` and `say_alive`, read by `ChildSigns`; both
ends close what they do not need. Knows no process. Read next: `children.py`.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

READY: Final = "SAGESERVE_READY"
"""Variable that holds the descriptor."""
_DOT: Final = b"."[0]
_BEAT: Final = 5  # bytes


class ChildSigns:
    """The supervisor's end for one run of a child; to be made in a running event loop.

    Args:
        count: processes that say they are ready; 0: there is no pipe.
        ready: called when they have.
    """

    def __init__(self, count: int, ready: Callable[[], None]) -> None:
        self._left = count
        self._ready = ready
        self._rest = b""
        self._missed: dict[int, int] = {}  # looks since a process was heard of, by its number
        self.passed: tuple[int, ...] = ()
        self.environment: dict[str, str] = {}
        if count:
            self._reading, writing = os.pipe()
            os.set_blocking(self._reading, False)
            os.set_blocking(writing, False)  # a supervisor that does not read holds nobody up
            self.passed = (writing,)
            self.environment = {READY: str(writing)}

    def begun(self) -> None:
        """The child was started, or could not be: only its own end is left."""
        for writing in self.passed:
            os.close(writing)
            asyncio.get_running_loop().add_reader(self._reading, self._read)
        self.passed = ()

    def silent(self, looks: int) -> list[int]:
        """Numbers of processes that were not heard of for so many looks, of which this is one; they are forgotten."""
        for number in self._missed:
            self._missed[number] += 1
        found = [number for number, missed in self._missed.items() if missed > looks]
        for number in found:
            del self._missed[number]
        return found

    def _read(self) -> None:
        said = os.read(self._reading, 1 << 16)
        if not said:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)
        data = self._rest + said
        while data:
            if data[0] == _DOT:
                data = data[1:]
                self._left -= 1
                if self._left == 0:
                    self._ready()
            elif len(data) >= _BEAT:
                self._missed[int.from_bytes(data[1:_BEAT])] = 0
                data = data[_BEAT:]
            else:
                break
        self._rest = data


def say_ready(descriptor: str) -> Callable[[], None]:
    """What to call once when ready; does nothing where nobody asked (an empty string)."""
    return lambda: _say(descriptor, b".")


def say_alive(descriptor: str) -> Callable[[], None]:
    """What to call once a second from then on, by whatever is to be seen to go on."""
    return lambda: _say(descriptor, b"+" + os.getpid().to_bytes(4))


def _say(descriptor: str, what: bytes) -> None:
    if descriptor:
        with suppress(OSError):  # the supervisor is gone, and this process will be; or it has not read for a long time
            os.write(int(descriptor), what)
