"""Where a request goes: first the endpoint (region), then the instance.

Small compiled functions over the fleet's columns; the gateway calls them, the simulator compiles them into its loop.
They see what was last scraped and what the gateway itself counts, never the true output length. Read next: `feed.py`.
"""

from typing import Any, Final

from numpy.typing import NDArray

from sageserve.base.kernel import kernel

THRESHOLD: Final = 0
NEAREST: Final = 1
LEAST: Final = 2
ROUTES: Final = ("threshold", "nearest", "least")


@kernel
def pick_endpoint(route: int, threshold: float, endpoints: NDArray[Any], walk: NDArray[Any], begin: int, end: int) -> int:
    """The endpoint that takes a request; -1 when none of its walk has an open instance.

    Args:
        route: THRESHOLD takes the first below `threshold`, else the least utilised; NEAREST the first; LEAST the least.
        threshold: utilisation, a share.
        endpoints: ENDPOINT rows of the fleet.
        walk: endpoint numbers, nearest first, padded with -1.
        begin: first position in `walk`.
        end: position after the last.
    """
    best = -1
    least = 0.0
    for position in range(begin, end):
        e = walk[position]
        if e < 0:
            break
        if endpoints[e]["open"] == 0:
            continue
        seen = endpoints[e]["seen"]
        if route == NEAREST or (route == THRESHOLD and seen < threshold):
            return int(e)
        if best < 0 or seen < least:
            best = int(e)
            least = seen
    return best


@kernel
def pick_instance(outstanding: NDArray[Any], begin: int, end: int) -> int:
    """Row in [begin, end) with the least outstanding work, lowest row of equals.

    Args:
        outstanding: int64, weighted outstanding tokens; CLOSED for instances that may not receive work.
        begin: first row of the endpoint.
        end: row after its last.
    """
    best = begin
    least = outstanding[begin]
    for row in range(begin + 1, end):
        if outstanding[row] < least:
            best = row
            least = outstanding[row]
    return best


CLOSED: Final = 2**62
"""`outstanding` of an instance that may not receive work."""
