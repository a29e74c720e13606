"""Measured runs that were never measured: requests played through an engine whose coefficients are known.

Read next: `test_logs.py`, `test_counters.py`.
"""

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.records import Floats, Ints
from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.data.measured.runs import EngineLimits, MeasuredRun, MeasuredSeries, requests_of
from sageserve.sim.replay import Arrivals, replay_series

TRUTH = ProfileSettings(
    gpu="h100-80gb",
    tp=1,
    gpus=1,
    iteration_ms=((1, 8.03), (10_001, 308.03)),
    decode_us_per_sequence=30.0,
    kv_ns_per_token=40.0,
    attention_ns_per_token2=1.0,
    first_token_ms=6.0,
    kv_tokens=400_000,
    max_sequences=64,
    max_batched_tokens=2048,
    source="made up",
)


def made_run(
    truth: ProfileSettings = TRUTH, *, requests: int = 160, seconds: float = 40.0, seed: int = 1, waves: bool = True
) -> MeasuredRun:
    """A run of an engine with these coefficients; the load comes in two waves, or not at all in waves.

    Args:
        truth: of the engine.
        requests: how many.
        seconds: over which they arrive.
        seed: of arrivals and lengths.
        waves: few, many, few, many requests per second.
    """
    random = stream(seed, "tests/made-run")
    places = np.sort(random.uniform(0, 1, requests))
    if waves:
        places = places - 0.12 * np.sin(4 * np.pi * places) / np.pi
    arrivals = Arrivals(
        np.rint(np.sort(places) * seconds * SECOND).astype(np.int64),
        random.integers(50, 2_000, requests),
        random.integers(20, 400, requests),
    )
    played, seen = replay_series(truth, arrivals)
    columns = {"arrival": arrivals.arrival, "prompt": arrivals.prompt, "output": arrivals.output}
    measured = requests_of({**columns, "ttft": played.ttft, "e2e": played.e2e}, "made up")
    return MeasuredRun(
        name="made",
        limits=EngineLimits(truth.max_sequences, truth.max_batched_tokens, truth.kv_tokens),
        requests=measured,
        series=MeasuredSeries(
            time=seen.time,
            prompt_rate=_rates(seen.time, arrivals.arrival + played.ttft, arrivals.prompt),
            output_rate=_output_rates(seen.time, arrivals, played.ttft, played.e2e),
            running=seen.running,
            waiting=seen.waiting,
            kv_share=seen.kv_share,
            preemptions=np.zeros(len(seen.time)),
        ),
    )


def _rates(
    time: Ints,
    when: Ints,
    tokens: Ints,
) -> Floats:
    row = np.minimum(np.searchsorted(time, when), len(time) - 1)
    return np.bincount(row, weights=tokens.astype(np.float64), minlength=len(time)).astype(np.float64)


def _output_rates(
    time: Ints,
    arrivals: Arrivals,
    ttft: Ints,
    e2e: Ints,
) -> Floats:
    """Tokens spread evenly between the first and the last of each answer."""
    rates = np.zeros(len(time))
    for begin, first, whole, tokens in zip(arrivals.arrival, ttft, e2e, arrivals.output, strict=True):
        when = np.linspace(begin + first, begin + whole, int(tokens))
        rates += np.bincount(np.minimum(np.searchsorted(time, when), len(time) - 1), minlength=len(time))
    return rates
