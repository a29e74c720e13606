"""The wall clock of commands: what time it is, and how an instant is shown.

Decisions get their time as an argument; this is where it comes from. Read next: `live/control/loop.py` for the monotonic one.
"""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sageserve.base.units import Micros


def wall_now() -> "Micros":
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def show_wall(wall: "Micros") -> str:
    """An instant, microseconds since 1970, in the zone of whoever reads; also one that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(wall / 1e6))
    except (OverflowError, ValueError, OSError):
        return "a day that no calendar has"
