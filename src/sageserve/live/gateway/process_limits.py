"""What a gateway process asks of the machine before it serves: more open files, and less memory.

Read next: `server.py`, the caller.
"""

import ctypes
import resource
from contextlib import suppress


def raise_limits() -> None:
    """Allow as many open files as the system lets us: two per request under way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def give_back_memory() -> None:
    """Give back to the machine what reading the settings took and freed, where the C library can (glibc): half a megabyte."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
