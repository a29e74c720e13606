"""Where a request goes: first the endpoint, along its walk from the nearest region on, then the instance (by work, or affinity).

Small compiled functions over the fleet's columns; the gateway calls them, the simulator compiles them into its loop.
They see what was last scraped and what the gateway itself counts, never the true output length. Read next: `feed.py`.
"""

from typing import Any, Final

from numpy.typing import NDArray

from sageserve.base.kernel import Rec, kernel
from sageserve.core.perf import SHARED
from sageserve.core.signals import signal

LN2: Final = 0.6931471805599453
THRESHOLD: Final = 0
NEAREST: Final = 1
LEAST: Final = 2
QUICKEST: Final = 3
ROUTES: Final = ("threshold", "nearest", "least", "quickest")
LEAST_WORK: Final = 0
AFFINITY: Final = 1
INSTANCES: Final = ("least", "affinity")


@kernel
def expected_busy(rules: Rec, endpoint: Rec, elapsed: int) -> float:
    """Engine time asked of an open endpoint now: as last scraped, corrected by what was sent to it since."""
    news = (endpoint["offered"] - endpoint["rate"] * elapsed) * LN2 / rules["half_life"]
    return float(endpoint["busy"] + news / endpoint["open"])


@kernel
def expected(rules: Rec, endpoint: Rec, elapsed: int) -> float:
    """Utilisation of an open endpoint now: as last scraped, corrected by what was sent to it since.

    Without the correction all traffic of a scrape period would follow one stale number, and regions would take turns at being
    flooded. The offered rate is an exponential average; this is its first-order change.

    Args:
        rules: a row with `signal` and `half_life`.
        endpoint: an ENDPOINT row with at least one open instance.
        elapsed: microseconds since the scrape.
    """
    return signal(rules["signal"], endpoint["kv"], expected_busy(rules, endpoint, elapsed))


@kernel
def expected_first(rules: Rec, endpoint: Rec, elapsed: int, alone: float, queued: float) -> float:
    """Microseconds until an open endpoint would have made a request's first token.

    Prompts are computed beside decoding, which takes up to half of the engine's time from them (see `core/response.py`).

    Args:
        rules: a row with `half_life`.
        endpoint: an ENDPOINT row with at least one open instance.
        elapsed: microseconds since the scrape.
        alone: microseconds the request's own prompt takes where nothing else is.
        queued: microseconds of prompts that are before it at the instance it would go to.
    """
    return (alone + queued) / (1.0 - SHARED * min(max(expected_busy(rules, endpoint, elapsed), 0.0), 1.0))


@kernel
def pick_endpoint(rules: Rec, endpoints: NDArray[Any], walk: NDArray[Any], begin: int, end: int, elapsed: int) -> int:
    """The endpoint that takes a request; -1 when none of its walk has an open instance.

    Args:
        rules: a row with `route`, `threshold`, `signal` and `half_life`. Route THRESHOLD takes the first endpoint below the
            threshold, else the least utilised; NEAREST the first; LEAST the least, and so does QUICKEST where a request is sent
            anew: what it goes by is `expected_first`.
        endpoints: ENDPOINT rows of the fleet.
        walk: endpoint numbers, nearest first, padded with -1.
        begin: first position in `walk`.
        end: position after the last.
        elapsed: microseconds since the scrape.
    """
    best = -1
    least = 0.0
    for position in range(begin, end):
        e = walk[position]
        if e < 0:
            break
        if endpoints[e]["open"] == 0:
            continue
        if rules["route"] == NEAREST:
            return int(e)
        utilisation = expected(rules, endpoints[e], elapsed)
        if rules["route"] == THRESHOLD and utilisation < rules["threshold"]:
            return int(e)
        if best < 0 or utilisation < least:
            best = int(e)
            least = utilisation
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


@kernel
def pick_affine(
    overlap: float, prompt: int, outstanding: NDArray[Any], begin: int, found: NDArray[Any], weights: NDArray[Any]
) -> int:
    """Affinity: the row with the least work after a prompt whose beginning some have in their caches; lowest row of equals.

    The work that is outstanding and what is left to compute of the prompt are weighed in one unit, so that a full queue outweighs
    a found beginning, and a found beginning a short queue.

    Args:
        overlap: what a token that is found counts for; 1: as much as one that waits, 0: nothing.
        prompt: tokens of the prompt.
        outstanding: int64, weighted outstanding tokens; CLOSED for instances that may not receive work.
        begin: first row of the endpoint in `outstanding`.
        found: int64[n], tokens of the prompt that each has.
        weights: int64[n], weight of a token at each.
    """
    best = begin
    least = 0
    for k in range(len(found)):
        cost = outstanding[begin + k] + (prompt - int(overlap * found[k])) * weights[k]
        if k == 0 or cost < least:
            best = begin + k
            least = cost
    return best


CLOSED: Final = 2**62
"""`outstanding` of an instance that may not receive work."""
