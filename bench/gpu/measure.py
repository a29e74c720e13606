"""Measure a shape: step times over a grid, what it can do at most, and requests by chance at shares of that.

What comes out is a folder that `sageserve validate` reads, with `steps.csv`, `run.json` and the steps of the runs beside its
three files. Needs torch, Triton and numpy, no sageserve. Read next: `predict.py`.
"""

import csv
import gc
import gzip
import io
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from bench.gpu.loop import Engine, Look, Machine, Sequence, Step, play
from bench.gpu.shapes import LIMITS, PAGE, SHAPES, Limits, Shape
from bench.gpu.steps import all_timed

_BEGUN: Final = time.perf_counter()
SHARES: Final = (0.5, 0.8, 1.1)
SEED: Final = 20261127
SATURATED_S: Final = 14.0
SETTLED: Final = 0.4  # of that time, until as many sequences come as go
PROMPT: Final = (400.0, 1.0)  # median and sigma of a log-normal distribution, tokens
OUTPUT: Final = (150.0, 0.8)


@dataclass(frozen=True, slots=True)
class Played:
    """Requests that were served at a share of what the engine can do."""

    name: str
    rate: float
    requests: list[Sequence]
    steps: list[Step]
    looks: list[Look]
    refused: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was measured of a shape."""

    name: str
    shape: Shape
    limits: Limits
    kv_tokens: int
    steps: list[Step]
    capacity: float
    runs: list[Played]


def lengths(count: int, limits: Limits, seed: int = SEED) -> tuple[Any, Any]:
    """int[n] prompts and answers, drawn; both fit into the context."""
    draw = np.random.default_rng(seed)
    prompt = np.clip(np.exp(np.log(PROMPT[0]) + PROMPT[1] * draw.standard_normal(count)), 16, limits.context * 4 // 5)
    output = np.clip(np.exp(np.log(OUTPUT[0]) + OUTPUT[1] * draw.standard_normal(count)), 2, min(800, limits.context // 6))
    return prompt.astype(int), output.astype(int)


def arriving(rate: float, seconds: float, limits: Limits, seed: int = SEED) -> list[Sequence]:
    """Requests by chance, `rate` per second."""
    count = max(4, round(rate * seconds))
    gaps = np.random.default_rng(seed + 1).exponential(1e6 / rate, count)
    prompt, output = lengths(count, limits, seed)
    times = np.cumsum(gaps) - gaps[0]
    return [Sequence(k, int(times[k]), int(prompt[k]), int(output[k])) for k in range(count)]


def capacity(machine: Machine, limits: Limits, seconds: float) -> float:
    """Requests per second of an engine that never runs out of them."""
    prompt, output = lengths(20_000, limits)
    endless = [Sequence(k, 0, int(prompt[k]), int(output[k])) for k in range(len(prompt))]
    engine = Engine(machine, limits)
    steps, _ = play(engine, endless, until=round(seconds * 1e6))
    engine.leave()
    late = [step for step in steps if step.start >= SETTLED * seconds * 1e6]
    if not late:
        raise SystemExit(f"no step began in the last {1 - SETTLED:.0%} of {seconds:g} s: give more --seconds")
    took = sum(step.time for step in late) / 1e6
    made = sum(step.decoding + step.ended for step in late) / float(output.mean())
    read = sum(step.prompt for step in late) / float(prompt.mean())
    return (made + read) / 2 / took


def measure(name: str, machine: Machine, kv_tokens: int, seconds: float) -> Measured:
    """Measure a shape on a machine that holds it.

    Args:
        name: of the shape.
        machine: with the model on it.
        kv_tokens: of its cache.
        seconds: of arrivals per run.
    """
    limits = LIMITS[name]
    steps = all_timed(machine, limits, kv_tokens)
    say(f"{name}: {len(steps)} steps timed")
    most = capacity(machine, limits, min(SATURATED_S, seconds))
    say(f"{name}: {most:.2f} requests/s at most")
    runs = []
    for share in SHARES:
        requests = arriving(share * most, seconds, limits)
        engine = Engine(machine, limits)
        played, looks = play(engine, requests)
        runs.append(Played(f"{SHAPES[name].name}-load{share}", share * most, requests, played, looks, engine.refused))
        p50 = median(step.time for step in played) / 1e3
        say(f"{name}: {len(requests)} requests at {share} of that, {len(played)} steps, {p50:.2f} ms in the median")
    return Measured(name, SHAPES[name], limits, kv_tokens, steps, most, runs)


def run(names: list[str], seconds: float, into: Path) -> None:
    """Measure shapes one after another, and write a folder after each.

    Args:
        names: of shapes.
        seconds: of arrivals per run.
        into: folder; one per shape is made in it.
    """
    import torch

    from bench.gpu.machine import Device

    gc.disable()  # a pause of the interpreter is not the engine's
    for name in names:
        begun = time.perf_counter()
        device = Device(SHAPES[name], LIMITS[name])
        kv_tokens = device.model.pages * PAGE
        say(f"{name}: on the device after {time.perf_counter() - begun:.0f} s, {kv_tokens:,} KV tokens")
        with torch.inference_mode():
            found = measure(name, device, kv_tokens, seconds)
        write(found, machine_of(torch), into / name)
        del device
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def machine_of(torch: Any) -> dict[str, str]:
    """What names the machine."""
    import triton

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "triton": triton.__version__,
        "python": platform.python_version(),
        "cpus": str(len(os.sched_getaffinity(0))),
    }


def write(found: Measured, machine: dict[str, str], into: Path) -> None:
    """Write what was measured."""
    into.mkdir(parents=True, exist_ok=True)
    _table(into / "steps.csv", [field.name for field in fields(Step)][1:], (list(asdict(s).values())[1:] for s in found.steps))
    header = ["experiment", "arrival_s", "input_tokens", "output_tokens", "ttft_ms", "e2e_ms"]
    _table(into / "requests.csv", header, (row for one in found.runs for row in _requests(one)))
    header = ["experiment", "t_s", "prompt_tok_s", "gen_tok_s", "running", "waiting", "kv_cache_pct"]
    _table(into / "timeseries.csv", header, (row for one in found.runs for row in _series(one, found.kv_tokens)))
    header = [
        "experiment",
        "model",
        "gpu",
        "tp",
        "max_num_seqs",
        "max_num_batched_tokens",
        "kv_blocks",
        "block_size",
        "chunked_prefill",
    ]
    sizes = [1, found.limits.sequences, found.limits.batched, found.kv_tokens // PAGE, PAGE, "true", "false", "bench.gpu"]
    _table(
        into / "experiments.csv",
        [*header, "prefix_caching", "engine"],
        ([one.name, found.shape.name, machine["gpu"], *sizes] for one in found.runs),
    )
    runs = {one.name: {"rate_per_s": round(one.rate, 4), "waited_for_memory": one.refused} for one in found.runs}
    whole = {
        "machine": machine,
        "shape": asdict(found.shape),
        "kv_tokens": found.kv_tokens,
        "capacity_per_s": round(found.capacity, 3),
    }
    (into / "run.json").write_text(json.dumps(whole | {"runs": runs}, indent=1) + "\n", encoding="utf-8")
    header = ["experiment", *(field.name for field in fields(Step))]
    text = _csv(header, ([one.name, *asdict(step).values()] for one in found.runs for step in one.steps))
    (into / "iterations.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def _table(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    path.write_text(_csv(header, rows), encoding="utf-8")


def _csv(header: list[str], rows: Iterable[list[Any]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


def _requests(one: Played) -> Iterable[list[Any]]:
    zero = one.requests[0].arrival
    for r in one.requests:
        yield [one.name, (r.arrival - zero) / 1e6, r.prompt, r.output, (r.first - r.arrival) / 1e3, (r.finish - r.arrival) / 1e3]


def _series(one: Played, kv_tokens: int) -> Iterable[list[Any]]:
    before = 0
    for look in one.looks:
        took = (look.time - before) / 1e6
        share = round(100 * look.held / kv_tokens, 2)
        rates = round(look.prompt / took, 1), round(look.made / took, 1)
        yield [one.name, round(look.time / 1e6, 6), *rates, look.running, look.waiting, share]
        before = look.time


def say(text: str) -> None:
    """A line for who waits."""
    print(f"{time.perf_counter() - _BEGUN:6.1f} s  {text}", file=sys.stderr, flush=True)
