"""A limit on how long rules of the user's may think: a loop that never ends must not hold every request of its process.

A rule is arithmetic in Python, so a timer of the process's own CPU time can break it off between two steps; a machine busy
with others does not. One computation that takes longer in a single step (a power of a million digits) it cannot break off: then
the process is not heard of, and the supervisor begins it anew. Read next: `own_choices.py`, which sets the limit.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Final

from sageserve.base.errors import PluginError

LONGEST_S: Final = 0.1
"""CPU time of one decision: a thousand times what a rule takes."""


class RuleTooLong(PluginError):
    """A rule was broken off."""


class RuleLimit:
    """Breaks off what goes on inside of it for too long; outside it does nothing.

    Needs the process's main thread, where a gateway's requests are; in others there is no limit.
    """

    __slots__ = ("_inside", "_on", "over")

    def __init__(self) -> None:
        self._inside = False
        self.over = False  # whether what was inside last was broken off
        self._on = threading.current_thread() is threading.main_thread()
        if self._on:
            signal.signal(signal.SIGVTALRM, self._over)

    def __enter__(self) -> None:
        """Time begins."""
        self.over = False
        if self._on:
            self._inside = True
            signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST_S)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Time ends."""
        self._inside = False
        if self._on:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _over(self, _number: int, _frame: FrameType | None) -> None:
        if self._inside:
            self._inside, self.over = False, True
            raise RuleTooLong(
                f"a rule of your own took more than {LONGEST_S:g} s of CPU time", hint="a rule is asked for every request"
            )
