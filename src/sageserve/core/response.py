"""The response curve: how many requests are late for queueing alone, and the sustainable load of instances worth having.

A prompt waits for prompts, not for whole answers: engines compute prompts beside decoding and finish an iteration at a time. What
decoding takes of the engine makes prompts slower, but only in part, because an iteration reads the weights once for both. With
that pace the wait for a first token is that of an M/G/c queue of prompts (Erlang C, the exponential tail and the factor
(1 + cv²)/2 of Allen and Cunneen), after the iterations that a prompt finds in progress and shares. Late is counted over requests
that an idle engine would serve in time; no number of instances saves the others. `python -m bench.response` holds the curve
against the simulator. Pure arithmetic. Read next: `core/strategies/demand_estimates.py`, docs/reference/planning.md.
"""

from math import ceil, exp, log2
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sageserve.base.kernel import kernel
from sageserve.base.records import Floats, Ints
from sageserve.base.units import MINUTE, NEVER
from sageserve.core.engine.timing import EngineRow
from sageserve.core.pace import DOUBLINGS, PARTS
from sageserve.core.perf import SHARED, allowed, first_time, prefill_work, request_work
from sageserve.core.unevenness import loads_found

SLACK_BINS: Final = 64
MIX_WIDTH: Final = 4 + SLACK_BINS
"""Columns of a counted mix: requests, prefill (us), its squares, decoding (us), then requests by how long they may wait."""

FULL: Final = 0.9
"""Load above which no engine is planned: the curve knows prompts, and beyond it memory is what they wait for."""

_FIRST: Final = 10.0  # log2 of the first bin's slack in microseconds: a millisecond
_PER_DOUBLING: Final = 3.0  # bins: a slack is known to 12 %
STEPS: Final = 2.0  # iterations of decoding before and around a prompt at full load; likewise
_NUMBERS: Final = 5  # of a mix, before its rates of minutes and its slow shares
_SCANNED: Final = 128
_SCANNED_UNEVEN: Final = 16  # of a curve that has no steep places
_LEAST_LEFT: Final = 0.1  # of an engine for prompts, or of time to catch up, however much is asked for
_HALVINGS: Final = 24  # of an interval of loads: below a millionth
_SERVERS_MOST: Final = 4096  # instances that share a queue: beyond, more of them change the load by less than a thousandth


class RequestMix(Struct, frozen=True):
    """What an engine is asked for, as far as the wait for a first token depends on it.

    Args:
        prefill_us: mean engine time of a prompt.
        variation: squared coefficient of variation of it.
        decode_us: mean engine time of an answer.
        step_us: time of an iteration that decodes.
        slacks: microseconds that requests may wait, of those that an idle engine would serve in time, ascending.
        weights: share of each, adding up to one; none at all: no request could be in time.
        eligible: share of requests that an idle engine would serve in time.
        slow: share of requests whose tokens come slower than promised though an idle engine would be fast enough, as
            `core/pace.py` has it; none: no pace is promised.
        uneven: squared coefficient of variation of the rate between minutes, as `core/unevenness.py` has it; 0: it is even.
    """

    prefill_us: float
    variation: float
    decode_us: float
    step_us: float
    slacks: tuple[float, ...]
    weights: tuple[float, ...]
    eligible: float = 1.0
    slow: tuple[float, ...] = ()
    uneven: float = 0.0

    @property
    def each_us(self) -> float:
        """Mean engine time of a request."""
        return self.prefill_us + self.decode_us

    @property
    def slack_us(self) -> float:
        """Microseconds that half of the requests which could be in time may wait; 0 when none could."""
        shares = np.cumsum(self.weights)
        return self.slacks[int(np.searchsorted(shares, shares[-1] / 2))] if len(shares) else 0.0


class Load(Struct, frozen=True):
    """The load of the fewest instances that are enough for some engine time, and why.

    Args:
        instances: that share the queue, of all regions that the router pools.
        load: share of its time an instance may be busy.
        mix: of requests.
        late: share of those that could be in time and are late for queueing, at this load.
    """

    instances: int
    load: float
    mix: RequestMix
    late: float


@kernel
def slack_bin(slack_us: float) -> int:
    """The bin of a slack, 0 to SLACK_BINS - 1."""
    if slack_us < 1.0:
        return 0
    return min(max(int(_PER_DOUBLING * (log2(slack_us) - _FIRST)), 0), SLACK_BINS - 1)


BIN_SLACKS: Final[tuple[float, ...]] = tuple((2.0 ** (_FIRST + (np.arange(SLACK_BINS) + 0.5) / _PER_DOUBLING)).tolist())
"""The slack that stands for each bin, its geometric middle, microseconds."""


@kernel
def note_request(counted: Floats, prefill_us: float, work_us: float, slack_us: float) -> None:
    """Count a request.

    Args:
        counted: float64[MIX_WIDTH], added to.
        prefill_us: engine time of its prompt.
        work_us: engine time of all of it, as far as one can expect.
        slack_us: its patience less the time to a first token at an idle engine; not above 0: it cannot be in time.
    """
    counted[0] += 1.0
    counted[1] += prefill_us
    counted[2] += prefill_us * prefill_us
    counted[3] += work_us - prefill_us
    if slack_us > 0.0:
        counted[4 + slack_bin(slack_us)] += 1.0


@kernel
def note_requests(
    requests: tuple[Ints, NDArray[Any], NDArray[Any], Ints],
    profile: EngineRow,
    answer: float,
    promise: tuple[int, int],
    mixes: Floats,
) -> Floats:
    """Count many requests of one model and tier, each in the mix of its minute.

    Args:
        requests: arrivals (us), prompts and cached tokens, round trips to their region (us).
        profile: of the engine that would serve them.
        answer: tokens of an answer, as far as one can expect.
        promise: patience (us; NEVER: they are not counted) and growth of their tier, as `base/promise.py` has them.
        mixes: float64[minutes, MIX_WIDTH], added to.

    Returns:
        float64[requests], engine microseconds of each.
    """
    arrival, prompt, cached, nearby = requests
    patience, growth = promise
    work = np.zeros(len(prompt))
    for q in range(len(prompt)):
        work[q] = request_work(profile, prompt[q], cached[q], answer)
        if patience != NEVER:
            idle = first_time(profile, prompt[q], cached[q]) + profile["entry"] + nearby[q]
            slack = allowed(patience, growth, prompt[q]) - idle
            note_request(mixes[arrival[q] // MINUTE], prefill_work(profile, prompt[q], cached[q]), work[q], slack)
    return work


def mix_of(counted: Floats, step_us: float) -> RequestMix | None:
    """The mix of what was counted, float64[MIX_WIDTH]; None when nothing was."""
    requests = float(counted[0])
    if requests <= 0 or counted[1] <= 0:
        return None
    prefill = float(counted[1]) / requests
    could = counted[4:]
    there = np.flatnonzero(could > 0)
    total = float(could.sum())
    return RequestMix(
        prefill_us=prefill,
        variation=max(float(counted[2]) / requests / prefill**2 - 1.0, 0.0),
        decode_us=float(counted[3]) / requests,
        step_us=step_us,
        slacks=tuple(BIN_SLACKS[k] for k in there.tolist()),
        weights=tuple((could[there] / total).tolist()) if total > 0 else (),
        eligible=total / requests,
    )


@kernel
def must_wait(servers: int, load: float) -> float:
    """Chance that a request finds all `servers` busy when each is busy a share `load` of its time (Erlang C)."""
    offered = servers * load
    blocked = 1.0
    for n in range(1, servers + 1):  # Erlang B by its recursion
        blocked = offered * blocked / (n + offered * blocked)
    return blocked / (1.0 - load * (1.0 - blocked))


@kernel
def slow_share(servers: int, load: float, slow: Floats) -> float:
    """Share that is slower than promised of what a mix says of it, between its loads and its numbers of instances."""
    width = PARTS + 1
    at, row = load * PARTS, min(log2(float(servers)), DOUBLINGS - 1.0)
    k, part = min(int(row), DOUBLINGS - 2), min(int(at), PARTS - 1)
    first = slow[k * width + part] + (at - part) * (slow[k * width + part + 1] - slow[k * width + part])
    k += 1
    then = slow[k * width + part] + (at - part) * (slow[k * width + part + 1] - slow[k * width + part])
    return first + (row - (k - 1)) * (then - first)


@kernel
def late_share(servers: int, load: float, mix: Floats, slacks: Floats) -> float:
    """`late`, of arrays as `arrays_of` makes them.

    Args:
        servers: instances that share the queue.
        load: share of all engine time that is asked for.
        mix: prefill_us, variation, decode_us, step_us, how many rates of minutes there are, those, what is slow.
        slacks: float64[2, n], slacks and weights.
    """
    if load <= 0.0:
        return 0.0
    if load >= 1.0:
        return 1.0
    slow = _NUMBERS + int(mix[_NUMBERS - 1])
    if slow > _NUMBERS:
        found = _uneven_share(servers, load, mix, mix[_NUMBERS:slow], slacks)
    else:
        share = mix[0] / (mix[0] + mix[2])
        left = 1.0 - SHARED * (1.0 - share) * load
        busy = share * load / left
        pace = 2.0 * servers * (1.0 - busy) / ((1.0 + mix[1]) * mix[0] / left)
        wait = must_wait(servers, busy)
        delay = STEPS * load * mix[3]
        found = 0.0
        for k in range(slacks.shape[1]):
            spare = slacks[0, k] - delay
            found += slacks[1, k] * (1.0 if spare < 0.0 else wait * exp(-pace * spare))
    if len(mix) > slow:
        found += (1.0 - found) * slow_share(servers, load, mix[slow:])
    return found


@kernel
def _uneven_share(servers: int, load: float, mix: Floats, rates: Floats, slacks: Floats) -> float:
    """Late ones where minutes differ: the mean over the minutes that requests come in, and what full ones leave to later ones.

    A minute is too short for the queue that there would be in the long run near full load, and in one that asks for more prompts
    than can be computed it grows: those are late that come when it has outgrown their slack, and while it is worked off.
    """
    share = mix[0] / (mix[0] + mix[2])
    found, later = 0.0, 0.0
    for k in range(len(rates)):
        here = load * rates[k]
        left = max(1.0 - SHARED * (1.0 - share) * here, _LEAST_LEFT)
        busy = share * here / left
        spread = (1.0 + mix[1]) * mix[0] / left / servers
        pace = 2.0 * max(1.0 - busy, (spread / MINUTE) ** 0.5) / spread
        wait = must_wait(servers, busy) if busy < 1.0 else 1.0
        delay = STEPS * min(max(here, load), 1.0) * mix[3]
        grown = (busy - 1.0) * MINUTE
        for j in range(slacks.shape[1]):
            spare = max(slacks[0, j] - delay, 0.0)
            one = 1.0 if slacks[0, j] < delay else wait * exp(-pace * spare)
            if grown > spare:
                one += (1.0 - one) * (1.0 - spare / grown)
                later += slacks[1, j] * (grown - spare) / MINUTE / busy
            found += slacks[1, j] * one
    found /= len(rates)
    mean = share * load / (1.0 - SHARED * (1.0 - share) * load)
    later *= mean / max(1.0 - mean, _LEAST_LEFT) / len(rates)
    return found + (1.0 - found) * later / (1.0 + later)


@kernel
def saved_by_one(servers: int, load: float, mix: Floats, slacks: Floats) -> float:
    """Requests per microsecond that one instance more keeps in time, of mix and slacks as `late_share` takes them."""
    fewer = late_share(servers + 1, load * servers / (servers + 1), mix, slacks)
    return (late_share(servers, load, mix, slacks) - fewer) * servers * load / (mix[0] + mix[2])


@kernel
def _held(mix: Floats, slacks: Floats, worth: float, group: int, full: float, into: Floats) -> None:
    """`held`; `into` is float64[most + 1]."""
    for servers in range(1, len(into)):
        together = servers * group
        low = min(into[servers - 1] / servers, full)  # one more holds no less
        high = _rise(mix, slacks, worth, together, low, full) if len(mix) > _NUMBERS else full
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            if saved_by_one(together, middle, mix, slacks) * worth <= 1.0:
                low = middle
            else:
                high = middle
        into[servers] = servers * low


@kernel
def _rise(mix: Floats, slacks: Floats, worth: float, servers: int, low: float, full: float) -> float:
    """The least load above `low`, of 128 or 16, at which one instance more would be worth its price; `full` where there is none.

    Where a pace is promised, one more saves nothing beyond the load at which all are slow, and there it would take several; so it
    is where minutes differ, and most requests of the full ones are late.
    """
    parts = _SCANNED if len(mix) > _NUMBERS + int(mix[_NUMBERS - 1]) else _SCANNED_UNEVEN
    for k in range(1, parts):
        load = low + (full - low) * k / parts
        if saved_by_one(servers, load, mix, slacks) * worth > 1.0:
            return load
    return full


def arrays_of(mix: RequestMix) -> tuple[Floats, Floats]:
    """A mix as `late_share` takes it."""
    rates = loads_found(mix.uneven)
    return (
        np.array([mix.prefill_us, mix.variation, mix.decode_us, mix.step_us, len(rates), *rates, *mix.slow]),
        np.array([mix.slacks, mix.weights], float).reshape(2, -1),
    )


def late(servers: int, load: float, mix: RequestMix) -> float:
    """Share of requests that miss a promise for queueing alone, of those that an idle engine would serve in time.

    With p the prompts' share of engine time, decoding leaves left = 1 - (1 - p) load / 2 of an engine; prompts keep it busy
    r = p load / left with a service time of S = prefill / left, and wait for d = 2 load step to join. Then

        late = sum_k w_k (1 if slack_k < d else C(n, r) exp(-2 n (1 - r) (slack_k - d) / ((1 + cv²) S)))

    Where minutes differ it is the mean over the minutes that requests come in, and what full ones leave to later ones.

    Args:
        servers: instances that share the queue.
        load: share of all engine time that is asked for.
        mix: of requests.
    """
    return float(late_share(servers, load, *arrays_of(mix)))


def held(mix: RequestMix, worth: float, most: int, *, group: int = 1, full: float = FULL) -> Floats:
    """Busy instances up to which 0, 1, 2, ... `most` instances are enough, because one more would not be worth its price.

    One more saves late(n) - late(n + 1) of the requests that could be in time. It is had while that, times what a request in
    time is worth, is more than an instance costs in the same time (a newsvendor's choice).

    Args:
        mix: of requests.
        worth: of a request that is in time, in microseconds of an instance's price.
        most: instances.
        group: endpoints of as many instances each that share their queue, because the router pools them.
        full: load above which no engine is planned.

    Returns:
        float64[most + 1], rising.
    """
    into = np.zeros(most + 1)
    numbers, slacks = arrays_of(mix)
    _held(numbers, slacks, worth * mix.eligible, group, full, into)
    return into


def sustainable(servers: int, mix: RequestMix, misses: float) -> float:
    """The largest load of so many instances at which no more than a share `misses` is late."""
    numbers, slacks = arrays_of(mix)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if late_share(servers, middle, numbers, slacks) <= misses:
            low = middle
        else:
            high = middle
    return low


def fewest(busy: float, mix: RequestMix, misses: float) -> int:
    """The fewest instances, 1 to 4,096, that have so much engine time and make no more than a share `misses` late."""
    low = high = min(max(1, ceil(busy)), _SERVERS_MOST)  # a load is never above one
    while sustainable(high, mix, misses) * high < busy and high < _SERVERS_MOST:
        low, high = high + 1, min(2 * high, _SERVERS_MOST)
    while low < high:
        middle = (low + high) // 2
        if sustainable(middle, mix, misses) * middle >= busy:
            high = middle
        else:
            low = middle + 1
    return high


def instances_for(busy: Floats, held: Floats) -> Floats:
    """Instances that are enough for so many busy ones, fractions between whole numbers; beyond the last, at its load."""
    beyond = held[-1] / (len(held) - 1)
    return np.where(busy <= held[-1], np.interp(busy, held, np.arange(len(held))), busy / max(beyond, 1e-9))
