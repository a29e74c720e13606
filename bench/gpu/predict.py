"""Predict the runs of an engine from its step times: a profile is fitted to steps, and the simulator's kernel plays the requests.

Nothing of the runs is seen by the fit. Read next: `measure.py`, `src/sageserve/core/engine/timing.py` for the formula.
"""

import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

from bench.gpu.shapes import Limits
from sageserve.base.config import ProfileSettings
from sageserve.base.records import Floats
from sageserve.data.measured.files import read_measured
from sageserve.data.measured.runs import MeasuredRequests
from sageserve.sim.calibration.judge import judge
from sageserve.sim.replay import Arrivals, ReplayedBlocks, replay_blocks

KNOTS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class Fit:
    """A profile, and how far its steps are off: relative, float64[n]."""

    profile: ProfileSettings
    off: Floats


def fit(steps: dict[str, Floats], limits: Limits, kv_tokens: int) -> Fit:
    """The profile that is nearest to step times, relative to them; no coefficient is negative and F never falls.

    Args:
        steps: columns of steps.csv.
        limits: of the engine.
        kv_tokens: of its cache.
    """
    batch = steps["decoding"] + steps["prompt"]
    most = max(float(batch.max()), 2.0)
    knots = np.array([*(k for k in KNOTS if k < most), most])
    rising = np.cumsum([_hat(knots, k, batch) for k in reversed(range(len(knots)))], axis=0)[::-1].T
    beside = [steps["decoding"], steps["kv"], steps["attention"], (steps["prompt"] > 0).astype(float)]
    table = np.column_stack([rising, *beside]) / steps["time"][:, None]
    sizes = np.abs(table).max(axis=0)
    found = nnls(table / sizes, np.ones(len(batch)))[0] / sizes
    curve = np.cumsum(found[: len(knots)]) / 1e3
    s, kv, attention, eager = found[len(knots) :]
    profile = ProfileSettings(
        gpu="measured",
        tp=1,
        gpus=1,
        iteration_ms=tuple((int(k), float(ms)) for k, ms in zip(knots, curve, strict=True)),
        eager_ms=float(eager / 1e3),
        decode_us_per_sequence=float(s),
        kv_ns_per_token=float(1e3 * kv),
        attention_ns_per_token2=float(1e3 * attention),
        kv_tokens=kv_tokens,
        max_sequences=limits.sequences,
        max_batched_tokens=limits.batched,
        source="bench.gpu, step times",
    )
    return Fit(profile, table @ found - 1.0)


def _hat(knots: Floats, k: int, at: Floats) -> Floats:
    return np.asarray(np.interp(at, knots, np.eye(len(knots))[k]))


def step_times(profile: ProfileSettings, blocks: ReplayedBlocks) -> Floats:
    """float64[n]: milliseconds of every iteration of a replay."""
    j = np.concatenate([np.arange(count) for count in blocks.iterations])
    rows = np.repeat(np.arange(len(blocks.iterations)), blocks.iterations)
    n, p = blocks.decoding[rows], blocks.tokens[rows]
    kv, attention = blocks.kv[rows] + j * n, blocks.attention[rows] + j * p.astype(float) ** 2
    return composed(profile, {"decoding": n, "prompt": p, "kv": kv, "attention": attention})


def composed(profile: ProfileSettings, steps: dict[str, Any]) -> Floats:
    """float64[n]: milliseconds of steps that are made of so much."""
    tokens, times = np.array(profile.iteration_ms).T
    time = np.interp(steps["decoding"] + steps["prompt"], tokens, times) + profile.eager_ms * (steps["prompt"] > 0)
    time += 1e-3 * profile.decode_us_per_sequence * steps["decoding"] + 1e-6 * profile.kv_ns_per_token * steps["kv"]
    return np.asarray(time + 1e-6 * profile.attention_ns_per_token2 * steps["attention"])


def columns(path: Path) -> dict[str, dict[str, Floats]]:
    """Columns of numbers by experiment; of a table without experiments by the empty name. A name that ends in .gz is unpacked."""
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(row.pop("experiment", ""), []).append(row)
    return {name: {key: np.array([float(row[key]) for row in mine]) for key in mine[0]} for name, mine in found.items()}


def report(folders: list[Path]) -> int:
    """Print tables."""
    for folder in folders:
        said = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        runs = read_measured(folder)
        limits = Limits(runs[0].limits.max_sequences, runs[0].limits.max_batched_tokens, 0)
        found = fit(columns(folder / "steps.csv")[""], limits, said["kv_tokens"])
        machine = said["machine"]
        print(f"{said['shape']['name']} on {machine['gpu']}, torch {machine['torch']}, triton {machine['triton']}")
        off = np.abs(found.off)
        p90 = np.quantile(off, 0.9)
        print(f"{len(off)} step times: off by {off.mean():.1%} in the mean, {p90:.1%} at p90, {off.max():.1%} at most")
        played = columns(folder / "iterations.csv.gz")
        print(f"{'run':28}{'n':>6}{'step p50':>18}{'off':>8}{'E2E':>8}{'bias':>8}{'TPOT':>8}{'TTFT':>8}{'bias':>8}")
        for run in runs:
            assert run.requests is not None
            print(_line(run.name, run.requests, found.profile, played[run.name]))
        print(f"{'steps as they were':28}{'decode':>12}{'off':>8}{'prefill':>12}{'off':>8}")
        for name, steps in played.items():
            print(_steps_line(name, found.profile, steps))
    return 0


def _line(name: str, requests: MeasuredRequests, profile: ProfileSettings, steps: dict[str, Floats]) -> str:
    played, blocks = replay_blocks(profile, Arrivals(requests.arrival, requests.prompt, requests.output))
    errors = judge(requests, played, np.ones(len(requests), bool))
    ours, theirs = float(np.median(step_times(profile, blocks))), float(np.median(steps["time"])) / 1e3
    shown = [errors.e2e_mape, errors.e2e_bias, errors.tpot_mape, errors.ttft_mape, errors.ttft_bias]
    cells = "".join(
        f"{'-' if value is None else format(value, '+.1%' if k in {1, 4} else '.1%'):>8}" for k, value in enumerate(shown)
    )
    return f"{name:28}{len(requests):6}{f'{ours:.2f} ({theirs:.2f}) ms':>18}{ours / theirs - 1:>+8.1%}{cells}"


def _steps_line(name: str, profile: ProfileSettings, steps: dict[str, Floats]) -> str:
    """How far off the steps of a run are by the median, if they are known to be made of what they were."""
    off = 1e3 * composed(profile, steps) / steps["time"] - 1.0
    mixed = steps["prompt"] > 0
    return f"{name:28}" + "".join(f"{rows.sum():12,}{np.median(off[rows]):>+8.1%}" for rows in (~mixed, mixed))
