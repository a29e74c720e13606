"""What is known of a measured engine without timing it: the roofline of its model and GPU, and its KV capacity.

Measured runs name models as hubs do (`meta-llama/Llama-3.1-8B-Instruct`) and GPUs as people do (`RTX4090`, `H100`).
Read next: `data/profiles/roofline.py`, `data/profiles/naming.py`.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from sageserve.base.errors import ConfigError, SageServeError
from sageserve.data.measured.runs import MeasuredRequests, MeasuredRun
from sageserve.data.profiles.engines import usual_limits
from sageserve.data.profiles.hardware import gpu_named, shape
from sageserve.data.profiles.naming import known_gpu, known_model
from sageserve.data.profiles.roofline import BatchLimits, Parallelism, curve, roofline
from sageserve.sim.calibration.coefficients import Anchor
from sageserve.sim.calibration.logs import arrivals_of
from sageserve.sim.replay import replay_series

SHARES: Final = (0.05, 0.95)  # of the KV cache, between which a share says how many tokens a cache holds
BLOCK: Final = 16  # tokens


def anchor_of(run: MeasuredRun) -> Anchor | None:
    """The roofline of a run's model, GPU, parallelism and limits; None when one of them is not known, or they do not fit."""
    model, gpu = known_model(run.model), known_gpu(run.gpu)
    if model is None or gpu is None:
        return None
    limits = BatchLimits(run.limits.max_sequences, max(run.limits.max_batched_tokens, run.limits.max_sequences + 1))
    try:
        found = roofline(shape(model), gpu_named(gpu), Parallelism(run.tp, run.dp), name=gpu, limits=limits)
    except SageServeError:  # it ran, so the arithmetic of memory is wrong for it: better no anchor than a false one
        return None
    terms = curve(shape(model), gpu_named(gpu), Parallelism(run.tp, run.dp))
    return Anchor(found if run.limits.kv_tokens is None else found.model_copy(update={"kv_tokens": run.limits.kv_tokens}), terms)


def with_usual_limits(run: MeasuredRun) -> MeasuredRun:
    """A run whose engine fills its iterations as is usual for it, in all that was not recorded; the same if that is not known."""
    gpu = known_gpu(run.gpu)
    if gpu is None or not run.engine:
        return run
    try:
        usual = usual_limits(run.engine, gpu_named(gpu), gpu, run.tp)
    except ConfigError:  # an engine or a version of which nothing is known
        return run
    taken = {name: getattr(usual, name) for name in run.limits.assumed}
    limits = replace(run.limits, **taken, evicts=usual.evicts, assumed=())
    if limits.chunked == usual.chunked:  # told otherwise, it is not the usual schedule
        limits = replace(limits, mixed=usual.mixed)
    what = f"what was not recorded is as usual for {usual.engine}: {', '.join(taken)}"
    notes = [note for note in run.notes if not note.startswith("limits not recorded")]
    return replace(run, limits=limits, notes=(*notes, what) if taken else run.notes)


def capacity_of(run: MeasuredRun, anchor: Anchor | None) -> tuple[int, str]:
    """KV tokens of a run's engine, and what had to be assumed (empty: nothing).

    From the engine's own figure; else from requests played through the roofline and the shares that were seen; else from
    counters of an engine that fills up; else from the roofline; else as much as the run can have used.
    """
    if run.limits.kv_tokens is not None:
        return run.limits.kv_tokens, ""
    seen = _from_requests(run, anchor) or _from_counters(run)
    if seen:
        return seen, f"KV capacity of {seen:,} tokens is inferred from shares of the KV cache in use: expect ±10 %"
    if anchor is not None:
        return (
            anchor.profile.kv_tokens,
            f"KV capacity of {anchor.profile.kv_tokens:,} tokens is arithmetic, not the engine's figure",
        )
    most = _most(run.requests)
    return most, f"KV capacity is not known: {most:,} tokens are as much as this run can have used"


def _most(requests: MeasuredRequests | None) -> int:
    if requests is None or len(requests) == 0:
        return 1 << 20
    return int((requests.prompt + requests.output).sum()) // BLOCK * BLOCK + 2 * BLOCK


def _from_requests(run: MeasuredRun, anchor: Anchor | None) -> int:
    """Tokens in use, played with a cache that never fills, over the shares that were seen; 0 when nothing can be told."""
    if run.requests is None or run.series is None or anchor is None:
        return 0
    roomy = anchor.profile.model_copy(update={"kv_tokens": _most(run.requests)})
    _, simulated = replay_series(roomy, arrivals_of(run.requests))
    row = np.minimum(np.searchsorted(simulated.time, run.series.time), len(simulated.time) - 1)
    tokens, share = simulated.kv_share[row] * roomy.kv_tokens, run.series.kv_share
    good = (share > SHARES[0]) & (share < SHARES[1])
    if int(good.sum()) < 5:
        return 0
    return int(np.median(tokens[good] / share[good])) // BLOCK * BLOCK


def _from_counters(run: MeasuredRun) -> int:
    """Tokens since the engine was empty over the share they took, while nothing had finished; 0 when that was not seen."""
    series = run.series
    if series is None or len(series) == 0 or np.isnan(series.kv_share).all():
        return 0
    seconds = np.diff(series.time, prepend=0) / 1e6
    made = np.cumsum((series.prompt_rate + series.output_rate) * seconds)
    growing = np.diff(series.running, prepend=0) > 0
    length = int(np.argmin(growing)) if not growing.all() else len(growing)
    rows = np.arange(len(series)) < length
    good = rows & (series.kv_share > SHARES[0]) & (series.kv_share < SHARES[1])
    if int(good.sum()) < 2:
        return 0
    last = int(np.flatnonzero(good)[-1])
    return int(made[last] / series.kv_share[last]) // BLOCK * BLOCK
