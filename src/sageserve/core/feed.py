"""How batch work enters the shared pool: how many jobs an endpoint may be given now, and when a job is promoted.

Paper, section 5 (asynchronous feed): one job below 60 % utilisation, two below 50 %, interactive priority after 10 h.
Utilisation is what was last scraped plus what was fed since. Compiled, without state of its own.
"""

from typing import Final

from sageserve.base.kernel import Rec, kernel
from sageserve.core.signals import signal

STEPS: Final = 0
FILL: Final = 1
DIRECT: Final = 2
FEEDS: Final = ("steps", "fill", "direct")


@kernel
def predicted(kind: int, endpoint: Rec, half_life: float) -> float:
    """Utilisation of an open endpoint as last scraped plus what was fed to it since.

    Args:
        kind: LOAD, KV or BUSY.
        endpoint: an ENDPOINT row with at least one open instance.
        half_life: microseconds over which `busy` is averaged.
    """
    busy = endpoint["busy"] + endpoint["fed_work"] / (half_life * endpoint["open"])
    kv = endpoint["kv"] + endpoint["fed_tokens"] / endpoint["kv_tokens"]
    return signal(kind, kv, busy)


@kernel
def allowance(feed: int, utilisation: float, one_below: float, two_below: float) -> int:
    """How many jobs an endpoint at this utilisation may be given at once (FILL: one, and ask again)."""
    if feed == FILL:
        return 1 if utilisation < one_below else 0
    if utilisation < two_below:
        return 2
    return 1 if utilisation < one_below else 0


@kernel
def is_urgent(age: int, slack: int, service: float, promote_after: int, safety: float) -> bool:
    """Whether a batch job should have interactive priority now.

    Args:
        age: microseconds since it arrived.
        slack: microseconds to its deadline.
        service: microseconds of engine time it is expected to need.
        promote_after: age from which every job is promoted (10 h in the paper).
        safety: a job is promoted when its slack is below `service` times this.
    """
    return age > promote_after or slack < service * safety
