"""What a profile means to a user: first token, tokens per second, requests per second, dollars per million tokens.

Arithmetic of the engine model at one example request; no queue is simulated. Read next: `core/engine/timing.py` for the formula,
`core/response.py` for the load an instance sustains.
"""

from math import exp
from typing import Final

from msgspec import Struct

from sageserve.base.config import ProfileSettings
from sageserve.base.units import HOUR, SECOND
from sageserve.core.engine.timing import decoding_time, first_time, gain, iteration_time, prefill_work, request_work, row_of
from sageserve.core.response import RequestMix, must_wait, sustainable

PROMPT: Final = 1000
OUTPUT: Final = 300
BATCHES: Final = (1, 16, 64)
TTFT_PROMISE_S: Final = 1.0
MISSES: Final = 0.05
HALVINGS: Final = 20


class Pace(Struct, frozen=True):
    """Decoding at one batch size of each rank: milliseconds per token of a request, and tokens per second of the instance."""

    batch: int
    tpot_ms: float
    tokens_per_s: float


class Speed(Struct, frozen=True):
    """An instance serving requests of PROMPT and OUTPUT tokens.

    Args:
        ttft_ms: first token of a prompt of PROMPT tokens on an idle instance.
        paces: decoding at the batches of BATCHES that fit, and at the largest that does.
        requests_per_s_most: what full batches do; queues grow without end there.
        requests_per_s: that one instance alone sustains with MISSES of requests later than TTFT_PROMISE_S; 0: never.
        usd_per_million: dollars per million prompt and output tokens at that rate; None without a price.
    """

    ttft_ms: float
    paces: tuple[Pace, ...]
    requests_per_s_most: float
    requests_per_s: float
    usd_per_million: float | None = None


def speed(profile: ProfileSettings, *, gpu_hour: float | None = None) -> Speed:
    """What an instance of a profile does.

    Args:
        profile: of the instance.
        gpu_hour: dollars per hour of one GPU, if known.
    """
    first = ttft_ms(profile, PROMPT)
    row = row_of(profile)
    service, prefill = request_work(row, PROMPT, 0, float(OUTPUT)), prefill_work(row, PROMPT, 0)
    slack = TTFT_PROMISE_S * SECOND - first * 1e3
    mix = RequestMix(prefill, 0.0, service - prefill, decoding_time(row, 1.0), (slack,), (1.0,))
    held = PROMPT + OUTPUT * (0.5 if row["evicts"] else 1.0)
    places = profile.dp * min(float(row["max_sequences"]), row["kv_tokens"] / held)
    load = min(sustainable(1, mix, MISSES), place_load(max(1, int(places)), service, slack))
    rate = load * SECOND / service if first < TTFT_PROMISE_S * 1e3 else 0.0
    dollars = None
    if gpu_hour is not None and rate > 0:
        dollars = gpu_hour * profile.gpus / (rate * (HOUR / SECOND) * (PROMPT + OUTPUT)) * 1e6
    return Speed(first, tuple(_paces(profile)), SECOND / service, rate, dollars)


def place_load(places: int, service: float, slack: float) -> float:
    """The largest load at which no more than MISSES of requests wait longer than their slack for a place in the batch.

    A batch is a queue with as many servers as requests are together on a full engine (Erlang C), each of which takes the time
    of an answer there, `places * service`; lengths that are all equal halve the wait (Allen and Cunneen).

    Args:
        places: requests that are together at most.
        service: microseconds of engine time of a request among its like, on a full engine.
        slack: microseconds that it may wait.
    """
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if must_wait(places, middle) * exp(-2.0 * (1.0 - middle) * max(slack, 0.0) / service) <= MISSES:
            low = middle
        else:
            high = middle
    return low


def ttft_ms(profile: ProfileSettings, prompt: int) -> float:
    """Milliseconds until an idle instance answers a prompt, in as many iterations as its token budget asks for."""
    return first_time(row_of(profile), prompt, 0) / 1e3 + profile.first_token_ms


def tpot_ms(profile: ProfileSettings, batch: int) -> float:
    """Milliseconds that a token takes when so many sequences decode, each half-way through its output."""
    row = row_of(profile)
    return iteration_time(row, 0, 0.0, batch, batch * (PROMPT + OUTPUT // 2)) / gain(row) / 1e3


def _paces(profile: ProfileSettings) -> list[Pace]:
    most = max(1, min(profile.max_sequences, profile.kv_tokens // (PROMPT + OUTPUT)))
    batches = sorted({*(batch for batch in BATCHES if batch < most), most})
    return [Pace(batch, (took := tpot_ms(profile, batch)), profile.dp * batch * 1e3 / took) for batch in batches]
