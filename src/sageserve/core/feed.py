"""How batch work enters the shared pool: who may take a job now and how many, when a job goes first, when it is given up.

Paper, section 5 (asynchronous feed): one job below 60 % utilisation, two below 50 %, interactive priority after 10 h.
Utilisation is what was last scraped plus what was fed since. When to ask is the same in the simulator and live: a job that comes
is offered to the endpoint of `pick_feed` (one job), an endpoint where a place came free is fed (`share`), and after each scrape
what `is_urgent` is promoted, which is to be routed as interactive work is, then every endpoint is fed. What stays with the
callers is the queue itself: memory of a compiled world, or a durable store and held connections. Compiled, without state.
Read next: `sim/kernel/arrive.py` and `live/control/batch_queue.py`, the callers; docs/reference/kernel.md, "Batch feed".
"""

from typing import Any, Final

from numpy.typing import NDArray

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
def share(feed: int, kind: int, endpoint: Rec, half_life: float) -> int:
    """How many jobs an open endpoint may be given now: as `allowance` says of its predicted utilisation."""
    return allowance(feed, predicted(kind, endpoint, half_life), endpoint["one_below"], endpoint["two_below"])


@kernel
def share_left(feed: int, kind: int, endpoint: Rec, half_life: float, left: int) -> int:
    """How many more an endpoint may be given, after one of its share was: STEPS sticks to the share, FILL asks again."""
    return share(feed, kind, endpoint, half_life) if feed == FILL else left


@kernel
def note_fed(endpoint: Rec, work: float, tokens: float) -> None:
    """Count a job that was given to an endpoint, until the next scrape sees it.

    Args:
        endpoint: an ENDPOINT row; written to.
        work: microseconds of engine time the job is expected to need.
        tokens: KV tokens it is expected to hold at its end.
    """
    endpoint["fed_work"] += work
    endpoint["fed_tokens"] += tokens


@kernel
def pick_feed(kind: int, half_life: float, endpoints: NDArray[Any], walk: NDArray[Any], begin: int, end: int) -> int:
    """The endpoint that a job which comes now is offered to: the least utilised of its walk that takes batch work.

    Args:
        kind: LOAD, KV or BUSY.
        half_life: microseconds over which `busy` is averaged.
        endpoints: ENDPOINT rows of the fleet.
        walk: endpoint numbers, nearest first, padded with -1.
        begin: first position in `walk`.
        end: position after the last.

    Returns:
        Its number, the nearest of equals; -1 when none is open and takes batch work.
    """
    best = -1
    least = 0.0
    for position in range(begin, end):
        e = walk[position]
        if e < 0:
            break
        if endpoints[e]["open"] == 0 or endpoints[e]["feeds"] == 0:
            continue
        utilisation = predicted(kind, endpoints[e], half_life)
        if best < 0 or utilisation < least:
            best = int(e)
            least = utilisation
    return best


@kernel
def first_open(endpoints: NDArray[Any], walk: NDArray[Any], begin: int, end: int) -> int:
    """The nearest endpoint of a walk with an open instance, by whose engine a job's service time is judged; -1: none.

    Args:
        endpoints: ENDPOINT rows of the fleet.
        walk: endpoint numbers, nearest first, padded with -1.
        begin: first position in `walk`.
        end: position after the last.
    """
    for position in range(begin, end):
        e = walk[position]
        if e < 0:
            break
        if endpoints[e]["open"] > 0:
            return int(e)
    return -1


@kernel
def is_urgent(age: int, slack: int, service: float, promote_after: int, safety: float) -> bool:
    """Whether a batch job should have interactive priority now: it is then routed like an interactive request.

    Args:
        age: microseconds since it arrived.
        slack: microseconds to its deadline.
        service: microseconds of engine time it is expected to need.
        promote_after: age from which every job is promoted (10 h in the paper).
        safety: a job is promoted when its slack is below `service` times this.
    """
    return age > promote_after or slack < service * safety


@kernel
def is_over(deadline: int, now: int) -> bool:
    """Whether what waits for capacity has waited until its deadline: it is given up, for its promise is broken."""
    return deadline <= now
