"""How much one instance sustains within its promise: the load theta is made from.

Queueing makes requests miss their TTFT target that an idle instance would have met. The largest load at which that share stays
below what the tier allows depends on how many instances share the queue; it is found from the wait in an M/G/c queue
(Erlang C, with the exponential tail and the factor (1 + cv^2)/2 of Allen and Cunneen). Against the simulated engine (o365
lengths, 4 to 16 instances) the share it predicts is within 3 points. Pure arithmetic; explained by `Load`.
"""

from math import ceil, exp
from typing import Final

from msgspec import Struct

_STEPS: Final = 40  # halvings of the interval: far below a millionth
_MOST: Final = 4_096  # instances that share a queue: beyond, more of them change the load by less than a thousandth


class Load(Struct, frozen=True):
    """The sustainable load of one instance among `instances`, and why.

    Args:
        instances: that share the queue.
        service_us: mean engine time of a request.
        slack_us: time a request may wait and still meet its target.
        misses: share of requests that may miss because of waiting.
        load: share of its time an instance may be busy.
    """

    instances: int
    service_us: float
    slack_us: float
    misses: float
    load: float


def erlang_c(servers: int, load: float) -> float:
    """Chance that a request must wait when `servers` are busy a share `load` of their time (Erlang C)."""
    offered = servers * load
    blocked = 1.0
    for n in range(1, servers + 1):  # Erlang B by its recursion
        blocked = offered * blocked / (n + offered * blocked)
    return blocked / (1 - load * (1 - blocked))


def waits_longer(servers: int, load: float, wait_us: float, *, service_us: float, variation: float) -> float:
    """Share of requests that wait longer than `wait_us`.

    Args:
        servers: instances that share the queue.
        load: share of their time they are busy, below 1.
        wait_us: the wait in question, microseconds; every wait is longer than a negative one.
        service_us: mean engine time of a request, microseconds.
        variation: squared coefficient of variation of the engine time.
    """
    if wait_us < 0:
        return 1.0
    pace = 2 * servers * (1 - load) / ((1 + variation) * service_us)
    return erlang_c(servers, load) * exp(-pace * wait_us)


def sustainable(servers: int, *, service_us: float, slack_us: float, misses: float, variation: float = 0.5) -> Load:
    """The largest load at which at most a share `misses` of requests waits longer than `slack_us`."""
    low, high = 0.0, 0.999
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if waits_longer(servers, middle, slack_us, service_us=service_us, variation=variation) <= misses:
            low = middle
        else:
            high = middle
    return Load(servers, service_us, slack_us, misses, low)


def needed(busy: float, *, service_us: float, slack_us: float, misses: float) -> Load:
    """The load of the fewest instances, 1 to 4,096, that together sustain as much engine time as `busy` instances have."""

    def of(count: int) -> Load:
        return sustainable(count, service_us=service_us, slack_us=slack_us, misses=misses)

    low = high = min(max(1, ceil(busy)), _MOST)  # a load is never above one
    found = of(high)
    while found.load * high < busy and high < _MOST:
        low, high = high + 1, min(2 * high, _MOST)
        found = of(high)
    while low < high:
        middle = (low + high) // 2
        tried = of(middle)
        if tried.load * middle >= busy:
            high, found = middle, tried
        else:
            low = middle + 1
    return found
