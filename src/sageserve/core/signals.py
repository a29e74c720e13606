"""The utilisation that policies see: memory (`kv`), engine time (`busy`), or the larger of both (`load`).

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
def signal(kind: int, kv: float, busy: float) -> float:
    """The utilisation policies see: `kv`, `busy`, or the larger of both (LOAD)."""
    if kind == KV:
        return kv
    if kind == BUSY:
        return busy
    return max(kv, busy)
