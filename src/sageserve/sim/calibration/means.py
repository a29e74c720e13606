"""Runs of which only means are known, against the roofline: what nobody measured, and what one measured point is worth.

Requests are made with the published mean lengths and Poisson arrivals in the published phases, and played through the
simulator. Where the workload repeats its prompts and prefixes are cached, all of a prompt but its last block is found in the
cache. Read next: `data/profiles/roofline.py`, docs/reference/engine-model.md for results.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.records import UNSET
from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.data.measured.runs import MeasuredMeans, MeasuredRun
from sageserve.data.measured.validation import MeanVerdict
from sageserve.data.profiles.naming import known_gpu, known_model
from sageserve.data.profiles.roofline import scaled
from sageserve.sim.calibration.anchor import anchor_of
from sageserve.sim.replay import Arrivals, Replayed, replay

MEASURED: Final = "A"
"""Quality of runs that are judged: measured, not reconstructed."""

STEPS: Final = 24  # halvings of the interval a factor is sought in: to one part in a million
REPEATED: Final = "shared_prefix"
"""Workloads whose prompts come again: the name inference-perf gives them."""


def why_not(run: MeasuredRun) -> str:
    """Why the means of a run are not judged; empty when they are."""
    if run.means is None or run.means.e2e is None or not run.means.phases:
        return "its row has no mean E2E, tokens or rate"
    if run.quality and not run.quality.startswith(MEASURED):
        return f"its quality is {run.quality.split(':')[0]}, not {MEASURED}"
    if anchor_of(run) is None:
        return f"no roofline for {run.model or 'an unnamed model'} on {run.gpu or 'an unnamed GPU'} with tp {run.tp}"
    return ""


def validate_means(runs: Sequence[MeasuredRun], seed: int = 0) -> dict[str, MeanVerdict]:
    """Judge the roofline on runs for which `why_not` has no objection.

    Args:
        runs: of a folder.
        seed: of the arrivals.
    """
    chosen = [run for run in runs if not why_not(run)]
    groups: dict[tuple[str, str, int], list[MeasuredRun]] = {}
    for run in chosen:
        groups.setdefault(_kind(run), []).append(run)
    return {run.name: _verdict(run, [other for other in groups[_kind(run)] if other is not run], seed) for run in chosen}


def arrivals_from(run: MeasuredRun, seed: int) -> Arrivals:
    """Requests as the means describe them, sorted by arrival."""
    means = _means(run)
    random, begin, parts = stream(seed, f"validation/{run.name}"), 0.0, []
    for phase in means.phases:
        count = int(random.poisson(phase.rate * phase.seconds))
        parts.append(np.sort(random.uniform(begin, begin + phase.seconds, count)))
        begin += phase.seconds
    times = np.rint(np.concatenate(parts) * SECOND).astype(np.int64)
    ones = np.ones(len(times), np.int64)
    prompt, output, block = round(means.prompt), max(1, round(means.output)), run.limits.block_size
    repeated = run.limits.prefix_caching and REPEATED in run.workload
    cached = ones * ((prompt - 1) // block * block) if repeated else None
    return Arrivals(times, ones * prompt, ones * output, cached)


def _kind(run: MeasuredRun) -> tuple[str, str, int]:
    return known_model(run.model) or run.model, known_gpu(run.gpu) or run.gpu, run.tp


def _means(run: MeasuredRun) -> MeasuredMeans:
    assert run.means is not None, "why_not has refused it"
    return run.means


def _profile(run: MeasuredRun) -> ProfileSettings:
    found = anchor_of(run)
    assert found is not None, "why_not has refused it"
    return found.profile


def _verdict(run: MeasuredRun, others: Sequence[MeasuredRun], seed: int) -> MeanVerdict:
    means, profile, arrivals = _means(run), _profile(run), arrivals_from(run, seed)
    played = replay(profile, arrivals)
    several = played.tpot != UNSET
    model, gpu, tp = _kind(run)
    return MeanVerdict(
        model=model,
        gpu=gpu,
        tp=tp,
        e2e_error=_error(_e2e(played), means.e2e) or 0.0,
        tpot_error=_error(float(played.tpot[several].mean()), means.tpot) if several.any() else None,
        ttft_error=_error(float(played.ttft.mean()), means.ttft),
        one_point={other.name: _with_point(run, other, arrivals, seed) for other in others},
    )


def _with_point(run: MeasuredRun, point: MeasuredRun, arrivals: Arrivals, seed: int) -> float:
    """Error of mean E2E after the roofline was scaled to meet another run's mean E2E."""
    factor = factor_to(_profile(point), arrivals_from(point, seed), _means(point).e2e or 0.0)
    played = replay(scaled(_profile(run), factor, point.name), arrivals)
    return _error(_e2e(played), _means(run).e2e) or 0.0


def factor_to(profile: ProfileSettings, arrivals: Arrivals, e2e: float) -> float:
    """The factor on all coefficients at which the mean E2E is as measured, between a quarter and four.

    Args:
        profile: to scale.
        arrivals: what is played.
        e2e: measured mean, microseconds.
    """
    low, high = 0.25, 4.0
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        if _e2e(replay(scaled(profile, middle, ""), arrivals)) < e2e:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def _e2e(played: Replayed) -> float:
    return float(played.e2e.mean())


def _error(ours: float, theirs: float | None) -> float | None:
    return None if theirs is None or theirs <= 0 else ours / theirs - 1.0
