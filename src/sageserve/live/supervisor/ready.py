"""How a child says that it is ready: a byte for each of its processes, into a pipe whose number is in its environment.

Written by `say_ready`, read by `ReadySigns`; both ends close what they do not need, so that no descriptor is left open. Knows no
process. Read next: `children.py`.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

READY: Final = "SAGESERVE_READY"
"""Variable that holds the descriptor."""


class ReadySigns:
    """The supervisor's end for one run of a child; to be made in a running event loop.

    Args:
        count: bytes to come; 0: there is no pipe.
        ready: called when they have come.
    """

    def __init__(self, count: int, ready: Callable[[], None]) -> None:
        self._left = count
        self._ready = ready
        self.passed: tuple[int, ...] = ()
        self.environment: dict[str, str] = {}
        if count:
            self._reading, writing = os.pipe()
            os.set_blocking(self._reading, False)
            self.passed = (writing,)
            self.environment = {READY: str(writing)}

    def begun(self) -> None:
        """The child was started, or could not be: only its own end is left."""
        for writing in self.passed:
            os.close(writing)
            asyncio.get_running_loop().add_reader(self._reading, self._read)
        self.passed = ()

    def _read(self) -> None:
        said = os.read(self._reading, 64)
        self._left -= len(said)
        if said and self._left <= 0:
            self._ready()
        if not said or self._left <= 0:
            asyncio.get_running_loop().remove_reader(self._reading)
            os.close(self._reading)


def say_ready(descriptor: str) -> Callable[[], None]:
    """What to call once when ready; does nothing where nobody asked (an empty string)."""
    if not descriptor:
        return lambda: None

    def say() -> None:
        with suppress(OSError):  # the supervisor is gone, and this process will be
            os.write(int(descriptor), b".")
            os.close(int(descriptor))

    return say
