"""What a benchmark found as measured runs: the closed loop, which a fit may see, and the open loop, which judges it.

Knows no network. Read next: `data/measured/runs.py` for the records, `data/measured/write.py` for the files.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from sageserve.base.records import Ints
from sageserve.base.units import SECOND, Micros
from sageserve.data.measured.runs import (
    BATCHED_DEFAULT,
    SEQUENCES_DEFAULT,
    EngineLimits,
    MeasuredRun,
    MeasuredSeries,
    means_of,
    requests_of,
)
from sageserve.live.benchmark.client import RequestSample
from sageserve.live.benchmark.load import Stretch
from sageserve.live.benchmark.run import Benchmarked
from sageserve.live.benchmark.watch import CounterReading

CLOSED: Final = "closed-loop"
OPEN: Final = "open-loop"
_BUSY: Final = 0.7  # of a core: from here on the client's own queue shows in the times
_LATE: Final = 20_000  # microseconds
_CACHED: Final = 0.01  # share of prompt tokens


def measured_runs(found: Benchmarked) -> tuple[MeasuredRun, MeasuredRun]:
    """The closed loop with all its levels one after the other, and the open loop; times from the first request of each."""
    limits, assumed = _limits(found)
    notes = (*found.notes, *assumed, *_warnings(found))
    closed, opened = (
        _run(found, name, parts, limits)
        for name, parts in ((CLOSED, found.stretches), (OPEN, [found.opened] if found.opened else []))
    )
    return replace(closed, notes=notes), replace(opened, notes=notes)


def _run(found: Benchmarked, name: str, parts: Sequence[Stretch], limits: EngineLimits) -> MeasuredRun:
    samples = [sample for part in parts for sample in part.samples]
    start = min(sample.sent for sample in samples)
    requests = requests_of(_columns(samples, start), name)
    return MeasuredRun(
        name=name,
        limits=limits,
        model=found.options.model,
        gpu=found.options.gpu,
        tp=found.options.tp,
        engine=found.engine,
        source=f"sageserve calibrate benchmark, seed {found.options.seed}, {found.options.minutes:g} minutes",
        workload="; ".join(part.name for part in parts),
        quality="A measured per request",
        requests=requests,
        series=_series(found.watched.readings, start, max(part.ended for part in parts)),
        means=means_of(requests),
    )


def _columns(samples: Sequence[RequestSample], start: Micros) -> dict[str, Ints]:
    columns = {
        "arrival": [sample.sent - start for sample in samples],
        "prompt": [sample.prompt for sample in samples],
        "output": [sample.output for sample in samples],
        "ttft": [sample.ttft for sample in samples],
        "e2e": [sample.e2e for sample in samples],
    }
    if any(sample.cached is not None for sample in samples):
        columns["cached"] = [sample.cached or 0 for sample in samples]
    return {name: np.array(values, np.int64) for name, values in columns.items()}


def _series(readings: Sequence[CounterReading], start: Micros, end: Micros) -> MeasuredSeries | None:
    """Second by second between two instants; None with fewer than two looks at the counters."""
    inside = [each for each in readings if start <= each.time <= end]
    if len(inside) < 2:
        return None

    def column(name: str, missing: float) -> list[float]:
        values = (each.get(name) for each in inside)
        return [missing if value is None else value for value in values]

    time = np.array([each.time - start for each in inside], np.int64)
    seconds = np.diff(time) / SECOND
    prompt, output, preempted = (np.diff(column(name, 0.0)) for name in ("prompt_tokens", "output_tokens", "preemptions"))
    return MeasuredSeries(
        time=time[1:],
        prompt_rate=prompt / seconds,
        output_rate=output / seconds,
        running=np.array(column("running", 0.0)[1:]),
        waiting=np.array(column("waiting", 0.0)[1:]),
        kv_share=np.array(column("kv_share", np.nan)[1:]),
        preemptions=preempted if inside[0].get("preemptions") is not None else None,
    )


def _limits(found: Benchmarked) -> tuple[EngineLimits, list[str]]:
    """The engine's limits, and which of them nobody stated."""
    options, cache, notes = found.options, found.watched.cache, []
    shown = found.watched.readings[-1].get("kv_tokens") if found.watched.readings else None
    kv_tokens = options.kv_tokens or cache.kv_tokens or round(shown or 0) or None
    sequences = options.max_sequences or found.batch_limit
    if sequences is None:
        notes.append(f"max_num_seqs is taken as {SEQUENCES_DEFAULT}: say --max-sequences as the engine was started with")
    elif options.max_sequences is None:
        notes.append(f"max_num_seqs is {sequences}: the batch grew no further")
    if options.max_batched_tokens is None:
        notes.append(f"max_num_batched_tokens is taken as {BATCHED_DEFAULT}: say --max-batched-tokens")
    limits = EngineLimits(
        max_sequences=sequences or SEQUENCES_DEFAULT,
        max_batched_tokens=options.max_batched_tokens or BATCHED_DEFAULT,
        kv_tokens=kv_tokens,
        block_size=cache.block_size,
        prefix_caching=cache.prefix_caching,
    )
    return limits, notes


def _warnings(found: Benchmarked) -> list[str]:
    """What may have bent the numbers."""
    warnings = []
    stretches = [*found.stretches, *([found.opened] if found.opened else [])]
    busiest = max(stretches, key=lambda each: each.cpu)
    if busiest.cpu > _BUSY:
        warnings.append(
            f"{busiest.name}: this client used {busiest.cpu:.0%} of a core, so times are partly its own; use a faster machine"
        )
    if found.opened is not None and found.opened.late > _LATE:
        warnings.append(f"a request of the open loop was sent {found.opened.late / 1000:.0f} ms late: this machine is busy")
    samples = [sample for each in stretches for sample in each.samples]
    cached, prompt = sum(sample.cached or 0 for sample in samples), sum(sample.prompt for sample in samples)
    if cached > _CACHED * prompt:
        warnings.append(f"a prefix cache held {cached / prompt:.0%} of the prompt tokens, although all prompts differ")
    failed = sum(len(each.failures) for each in stretches)
    if failed:
        warnings.append(f"{failed} requests failed; their load is not on record")
    if not found.watched.readings:
        warnings.append("the engine shows no counters: running, waiting and KV use are not on record")
    if found.watched.engines > 1:
        warnings.append(f"{found.watched.engines} engines answer at this address: the profile takes them for one")
    return warnings
