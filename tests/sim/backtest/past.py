"""A fleet's past that is known: a small fleet is played, and what Prometheus would have recorded of it is kept.

Four hours of the small scenario's east, which scales out and in again once. Read next: `test_backtest.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Ints, Trace
from sageserve.base.rng import stream
from sageserve.base.units import DAY, HOUR, SECOND, Micros
from sageserve.core.layout import names_of
from sageserve.data.rebuild.render import write_openmetrics
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.backtest.exported import Recording, engine_series
from sageserve.sim.run import Run, simulate

RECORDING = Recording(19_674 * DAY, 30 * SECOND, tiers=False)
LENGTH = 4 * HOUR
POOL = "east/m/h100"
YAML = """
name: past
gpus: {h100: {memory: 80GiB, start: 5m}}
regions:
  east: {gpus: {h100: {gpus: 64, reserved: 8, price: {on_demand: 10/h, reserved: 5/h, spot: 1/h}}}}
models:
  m:
    context: 8000
    load: {local: 5m}
    engines:
      h100:
        {gpu: h100, tp: 8, gpus: 8, iteration_ms: [[1, 10.02], [10001, 210.02]], decode_us_per_sequence: 0.0,
         kv_ns_per_token: 0.0, attention_ns_per_token2: 0.0, kv_tokens: 100000, source: made up}
tiers: {fast: {ttft: 1s, priority: 0}}
fleet: {start: 2, minimum: 1, maximum: 6}
admission: "off"
batch: {feed: direct}
spot: {donate: false}
strategy: {name: recorded, recorded: {counts: {east/m/h100: [[0, 2], [1h, 3], [3h, 2]]}}}
"""


@dataclass(frozen=True, slots=True)
class Past:
    """A run, and the files of it: settings, and what was recorded."""

    scenario: Scenario
    trace: Trace
    run: Run
    settings: Path
    history: Path


def past(folder: Path) -> Past:
    """Play and record it."""
    settings, history = folder / "past.yaml", folder / "past.om"
    settings.write_text(YAML, "utf-8")
    scenario = load_scenario(str(settings))
    trace = traffic(scenario)
    run = simulate(scenario, trace)
    write_openmetrics(history, engine_series(run, RECORDING, region=0, lives=True))
    return Past(scenario, trace, run, settings, history)


def traffic(scenario: Scenario) -> Trace:
    """Two requests per second in the second and third hour, one in the others."""
    rng = stream(1, "past")
    counts = rng.poisson([3600, 7200, 7200, 3600])
    return lengths_for(scenario, spread(rng, counts.tolist(), HOUR), rng, LENGTH)


def spread(rng: np.random.Generator, counts: Sequence[int], each: Micros) -> Ints:
    """Instants, so many in every stretch of `each` microseconds."""
    return np.sort(np.concatenate([k * each + rng.integers(0, each, n) for k, n in enumerate(counts)]))


def lengths_for(
    scenario: Scenario,
    arrival: Ints,
    rng: np.random.Generator,
    window: Micros,
    prompt: tuple[float, float] = (6.5, 0.9),
    output: tuple[float, float] = (5.0, 0.7),
) -> Trace:
    """Requests of one model, region and tier at these instants, with log-normal lengths: mean and spread of the logarithm."""
    n = len(arrival)
    zeros = np.zeros(n, np.uint8)
    return Trace(
        arrival=arrival,
        prompt=np.clip(np.exp(rng.normal(*prompt, n)), 1, 6000).astype(np.int32),
        output=np.clip(np.exp(rng.normal(*output, n)), 1, 1500).astype(np.int32),
        model=zeros,
        region=zeros,
        tier=zeros,
        names=names_of(scenario),
        window=window,
    ).check()
