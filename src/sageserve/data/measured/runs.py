"""A measured run of one engine: its limits, its requests, what it showed every second, and its means.

A run comes from an engine that someone else drove, so everything but the name may be missing. Times are whole
microseconds, shares are 0 to 1. Knows no files and no simulator. Read next: `files.py` for the folder a run
is kept in, `sim/replay.py` for playing it again, docs/reference/latency.md for what TTFT, TPOT and E2E mean.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.errors import MeasurementError
from sageserve.base.records import UNSET, Bools, Floats, Ints
from sageserve.base.units import SECOND

SEQUENCES_DEFAULT: Final = 256
"""vLLM's max_num_seqs when nothing is said."""

BATCHED_DEFAULT: Final = 2048
"""max_num_batched_tokens of vLLM's chunked prefill on GPUs below 70 GiB, when nothing is said."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What bounds a batch of the measured engine.

    Args:
        max_sequences: vLLM's max_num_seqs.
        max_batched_tokens: vLLM's max_num_batched_tokens.
        kv_tokens: capacity of the KV cache, blocks x block size; None when it was not recorded.
        block_size: tokens per KV block.
        chunked: prompts are prefilled in pieces beside decoding.
        prefix_caching: blocks of equal prefixes are shared.
        mixed, evicts: as in a profile.
        assumed: fields that were not recorded, by name.
    """

    max_sequences: int = SEQUENCES_DEFAULT
    max_batched_tokens: int = BATCHED_DEFAULT
    kv_tokens: int | None = None
    block_size: int = 16
    chunked: bool = True
    prefix_caching: bool = False
    mixed: bool | None = None
    evicts: bool = True
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MeasuredRequests:
    """Finished requests as columns, sorted by arrival; all have n rows.

    Args:
        arrival: int64[n], microseconds since the first arrival.
        prompt: int64[n], prompt tokens.
        output: int64[n], output tokens.
        ttft: int64[n], microseconds from arrival to the first token.
        tpot: int64[n], microseconds per token after the first, (e2e - ttft) / (output - 1); UNSET for one token.
        e2e: int64[n], microseconds from arrival to the last token.
        cached: int64[n], prompt tokens that a prefix cache held; None when that was not recorded.
    """

    arrival: Ints
    prompt: Ints
    output: Ints
    ttft: Ints
    tpot: Ints
    e2e: Ints
    cached: Ints | None = None

    def __len__(self) -> int:
        return len(self.arrival)

    def rows(self, chosen: Bools) -> "MeasuredRequests":
        """The requests at which `chosen` is true."""
        return MeasuredRequests(
            arrival=self.arrival[chosen],
            prompt=self.prompt[chosen],
            output=self.output[chosen],
            ttft=self.ttft[chosen],
            tpot=self.tpot[chosen],
            e2e=self.e2e[chosen],
            cached=None if self.cached is None else self.cached[chosen],
        )

    def first_half(self) -> Bools:
        """bool[n]: the earlier half of the arrivals, which a fit may see."""
        return np.arange(len(self)) < len(self) // 2


@dataclass(frozen=True, slots=True)
class MeasuredSeries:
    """What the engine showed, about once a second; row i covers the time since row i - 1 (or since 0).

    Args:
        time: int64[n], microseconds since the first arrival, increasing.
        prompt_rate: float64[n], prompt tokens per second.
        output_rate: float64[n], generated tokens per second.
        running: float64[n], requests in the batch at that instant.
        waiting: float64[n], requests in the queue at that instant.
        kv_share: float64[n], share of the KV cache in use; NaN where it was not recorded.
        preemptions: float64[n], preemptions since the row before; None when they were not recorded.
    """

    time: Ints
    prompt_rate: Floats
    output_rate: Floats
    running: Floats
    waiting: Floats
    kv_share: Floats
    preemptions: Floats | None = None

    def __len__(self) -> int:
        return len(self.time)

    def rows(self, chosen: Bools) -> "MeasuredSeries":
        """The seconds at which `chosen` is true."""
        return MeasuredSeries(
            time=self.time[chosen],
            prompt_rate=self.prompt_rate[chosen],
            output_rate=self.output_rate[chosen],
            running=self.running[chosen],
            waiting=self.waiting[chosen],
            kv_share=self.kv_share[chosen],
            preemptions=None if self.preemptions is None else self.preemptions[chosen],
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of constant arrival rate: requests per second, seconds."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class MeasuredMeans:
    """Means over a run: mean tokens, microseconds (None: not recorded), and the phases of its arrivals."""

    requests: int
    prompt: float
    output: float
    phases: tuple[Phase, ...] = ()
    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One experiment.

    Args:
        name: of the experiment.
        limits: of the engine.
        model: as the engine named it; empty when not recorded.
        gpu: GPU type, as recorded.
        tp: tensor parallelism.
        dp: data parallel ranks.
        engine: name and version of the engine.
        source: where the measurement comes from.
        quality: what is known about its trustworthiness.
        workload: what was sent.
        requests: per request; None when only means or counters are known.
        series: second by second; None when not recorded.
        means: of the whole run; None when neither given nor computable.
        notes: what had to be assumed, in sentences.
    """

    name: str
    limits: EngineLimits = EngineLimits()
    model: str = ""
    gpu: str = ""
    tp: int = 1
    dp: int = 1
    engine: str = ""
    source: str = ""
    quality: str = ""
    workload: str = ""
    requests: MeasuredRequests | None = None
    series: MeasuredSeries | None = None
    means: MeasuredMeans | None = None
    notes: tuple[str, ...] = ()


def tpot_of(ttft: Ints, e2e: Ints, output: Ints) -> Ints:
    """int64[n]: microseconds per output token after the first, rounded; UNSET where there is only one token."""
    steps = np.maximum(output - 1, 1)
    return np.where(output > 1, np.rint((e2e - ttft) / steps).astype(np.int64), UNSET)


def requests_of(columns: dict[str, Ints], where: str) -> MeasuredRequests:
    """Requests from columns arrival, prompt, output, ttft, e2e and, if known, cached, in any order of rows.

    Raises:
        MeasurementError: an impossible value; `where` names the file.
    """
    order = np.argsort(columns["arrival"], kind="stable")
    sorted_ = {name: np.ascontiguousarray(column[order], np.int64) for name, column in columns.items()}
    _check_requests(sorted_, order, where)
    return MeasuredRequests(
        arrival=sorted_["arrival"],
        prompt=sorted_["prompt"],
        output=sorted_["output"],
        ttft=sorted_["ttft"],
        tpot=tpot_of(sorted_["ttft"], sorted_["e2e"], sorted_["output"]),
        e2e=sorted_["e2e"],
        cached=sorted_.get("cached"),
    )


def means_of(requests: MeasuredRequests) -> MeasuredMeans | None:
    """Means of a run's requests; None when there are none."""
    if len(requests) == 0:
        return None
    several = requests.tpot != UNSET
    span = max(int(requests.arrival[-1] - requests.arrival[0]), 1) / SECOND
    return MeasuredMeans(
        requests=len(requests),
        prompt=float(requests.prompt.mean()),
        output=float(requests.output.mean()),
        phases=(Phase(len(requests) / span, span),),
        ttft=float(requests.ttft.mean()),
        tpot=float(requests.tpot[several].mean()) if several.any() else None,
        e2e=float(requests.e2e.mean()),
    )


def _check_requests(columns: dict[str, Ints], order: Ints, where: str) -> None:
    cached = columns.get("cached", np.zeros_like(columns["prompt"]))
    faults: tuple[tuple[str, Bools], ...] = (
        ("arrival_s is negative", columns["arrival"] < 0),
        ("input_tokens must be at least 1", columns["prompt"] < 1),
        ("output_tokens must be at least 1", columns["output"] < 1),
        ("ttft_ms must be more than 0", columns["ttft"] <= 0),
        ("e2e_ms is less than ttft_ms", columns["e2e"] < columns["ttft"]),
        ("cached_tokens is negative", cached < 0),
        ("cached_tokens is more than input_tokens", cached > columns["prompt"]),
    )
    for sentence, wrong in faults:
        if wrong.any():
            row = int(order[np.flatnonzero(wrong)[0]]) + 1
            raise MeasurementError(
                f"{where}: request {row}: {sentence} ({int(wrong.sum())} of {len(order)} requests)",
                hint="times are counted from the arrival of a request; leave out requests that failed",
            )
