"""What the benchmark sends when: levels of concurrency, lengths of prompts and answers, arrivals of the open loop.

A fifth of the closed-loop time goes to prompts of fixed lengths one after the other, the rest equally to the levels; the last
fifth of all is an open loop with Poisson arrivals that no fit sees. Lengths are log-uniform: short ones are frequent, long ones
occur. Pure: no clock, no network. Read next: `run.py`.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from sageserve.base.errors import MeasurementError
from sageserve.base.records import Ints
from sageserve.base.units import SECOND, Micros
from sageserve.data.measured.runs import SEQUENCES_DEFAULT

LEVELS: Final = (1, 4, 16, 64)
PROMPTS: Final = (128, 1024, 4096)
OUTPUT_HIGH: Final = 512
OPEN_SHARE: Final = 0.2  # of the time: one minute of five
LENGTHS_SHARE: Final = 0.2  # of the closed-loop time
OPEN_LOAD: Final = 0.7  # of the throughput at the highest level: queues form and drain, none grows for a minute
_PROMPT_LOW: Final = 32
_OUTPUT_LOW: Final = 8
_TURNS: Final = 5  # answers are cut so that a request takes at most a fifth of its level's time
_PREFILL_PART: Final = 20  # a prompt takes at most a twentieth of it


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOptions:
    """What the user asked for.

    Args:
        url: of the engine, with or without /v1.
        model: as the engine names it.
        key: sent as a bearer token; never shown.
        minutes: of the whole benchmark, about.
        seed: of prompts, lengths and arrivals.
        levels: concurrencies of the closed loop, below the engine's own limit.
        prompts: lengths tried one after the other.
        output_high: tokens of the longest answer.
        max_sequences: the engine's max_num_seqs; None: found out if its counters show it.
        max_batched_tokens: the engine's max_num_batched_tokens; None: vLLM's default is assumed.
        context: tokens; None: as the engine states it.
        kv_tokens: capacity of the KV cache; None: as the engine's counters state it.
        metrics_url: of the engine's counters; None: /metrics beside /v1.
        gpu: what it runs on, for the record and for a roofline to begin from; empty: not said.
        tp: its tensor parallelism.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    minutes: float = 5.0
    seed: int = 1
    levels: tuple[int, ...] = LEVELS
    prompts: tuple[int, ...] = PROMPTS
    output_high: int = OUTPUT_HIGH
    max_sequences: int | None = None
    max_batched_tokens: int | None = None
    context: int | None = None
    kv_tokens: int | None = None
    metrics_url: str | None = None
    gpu: str = ""
    tp: int = 1

    @property
    def open_s(self) -> float:
        """Seconds of the open loop."""
        return self.minutes * 60 * OPEN_SHARE

    @property
    def lengths_s(self) -> float:
        """Seconds of the prompts of fixed lengths, all together."""
        return (self.minutes * 60 - self.open_s) * LENGTHS_SHARE

    @property
    def levels_s(self) -> float:
        """Seconds of all levels together."""
        return self.minutes * 60 - self.open_s - self.lengths_s


@dataclass(frozen=True, slots=True)
class Mix:
    """Lengths of prompts and answers, each log-uniform between its ends."""

    prompt_low: int
    prompt_high: int
    output_low: int
    output_high: int

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Tokens of a prompt and of its answer."""
        prompt, output = (
            int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
            for low, high in ((self.prompt_low, self.prompt_high), (self.output_low, self.output_high))
        )
        return prompt, output


def fixed_lengths(options: BenchmarkOptions, context: int | None) -> tuple[int, ...]:
    """The prompt lengths that fit the engine's context; half of the context where none does."""
    fitting = tuple(sorted({length for length in options.prompts if context is None or length + 2 * _OUTPUT_LOW <= context}))
    return fitting or (max((context or 2) // 2, 1),)


def levels_of(options: BenchmarkOptions) -> tuple[int, ...]:
    """The concurrencies to hold, rising: the wished ones, and the engine's limit as the last.

    Raises:
        MeasurementError: only one request at a time is asked for, from which no batch can be learnt.
    """
    most = options.max_sequences or SEQUENCES_DEFAULT
    levels = tuple(sorted({level for level in (*options.levels, most) if 1 <= level <= most}))
    if len(levels) < 2:
        raise MeasurementError(
            "with one request at a time the load never varies: what a batch costs cannot be learnt",
            hint="allow more than one: --max-sequences N, as the engine was started with",
        )
    return levels


def mix_for(options: BenchmarkOptions, context: int | None, *, ttft: dict[int, Micros], tpot: float, level_us: float) -> Mix:
    """Lengths that let a level finish many requests, from what single requests took.

    Args:
        options: for the longest answer.
        context: tokens, if known.
        ttft: median time to first token by prompt length, one request at a time.
        tpot: microseconds per token that is to be expected.
        level_us: how long a level lasts.
    """
    quick = [length for length, took in ttft.items() if took <= level_us / _PREFILL_PART]
    prompt_high = max(quick, default=min(ttft))
    if context is not None:
        prompt_high = min(prompt_high, context // 2)
    output_high = min(options.output_high, max(2 * _OUTPUT_LOW, int(level_us / _TURNS / max(tpot, 1.0))))
    if context is not None:
        output_high = min(output_high, max(context - prompt_high - 2 * _OUTPUT_LOW, 1))
    return Mix(min(_PROMPT_LOW, prompt_high), prompt_high, min(_OUTPUT_LOW, output_high), output_high)


def poisson_arrivals(rate: float, seconds: float, rng: np.random.Generator) -> Ints:
    """int64[n]: microseconds from the start at which requests are sent, `rate` per second on average."""
    expected = rate * seconds
    if expected <= 0:
        return np.zeros(0, np.int64)
    gaps = rng.exponential(SECOND / rate, int(expected + 6 * np.sqrt(expected) + 10))
    times = np.cumsum(gaps)
    return times[times < seconds * SECOND].astype(np.int64)
