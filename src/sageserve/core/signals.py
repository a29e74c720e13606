"""The signal that policies see, a utilisation: memory (`kv`), engine time (`busy`), or the larger of both (`load`).

`kv` is the paper's and nearly blind for prefill-heavy traffic; what binds is what counts, so `load` is the default.
Compiled, pure. Read next: `route.py` and `feed.py`, the readers.
"""

from typing import Final

from sageserve.base.kernel import kernel

LOAD: Final = 0
KV: Final = 1
BUSY: Final = 2
SIGNALS: Final = ("load", "kv", "busy")


@kernel
def smoothed(rate: float, offered: float, elapsed: int, half_life: float) -> float:
    """The offered rate (engine us per us), averaged over a half-life, after `offered` us more came in `elapsed` us."""
    if elapsed <= 0:
        return rate
    return rate + (1.0 - 2.0 ** (-elapsed / half_life)) * (offered / elapsed - rate)


@kernel
def busyness(rate: float, backlog: float, half_life: float, instances: int) -> float:
    """Share of the engines' time that is asked for: what comes in, and prompts that wait, worked off over a half-life."""
    return (rate + max(backlog, 0.0) / half_life) / instances


@kernel
def signal(kind: int, kv: float, busy: float) -> float:
    """The utilisation policies see: `kv`, `busy`, or the larger of both (LOAD)."""
    if kind == KV:
        return kv
    if kind == BUSY:
        return busy
    return max(kv, busy)
