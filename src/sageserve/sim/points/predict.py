"""What derived profiles make of measured points: each is played through the simulator's own kernel at its concurrency or rate.

    predict(point)         # E2E, TTFT, TPOT in the mean and the band of E2E, or the reason why there is no prediction
    judge(points)          # all of them, and how far off they are by engine, dense models and mixtures of experts apart

Nothing here is fitted, and what was measured is not looked at before it is judged. Read next: `data/measured/points.py` for the
form of a table, `data/profiles/roofline.py`; `bench/points.py`, which cross-validates.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import numpy as np

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import ConfigError, SageServeError
from sageserve.base.records import Ints
from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.data.measured.points import MeasuredPoint, PointGroup, PointVerdict, PredictedPoint
from sageserve.data.profiles.bands import band_of
from sageserve.data.profiles.engines import usual_limits
from sageserve.data.profiles.hardware import ModelShape, gpu_named, shape
from sageserve.data.profiles.naming import known_gpu, model_in
from sageserve.data.profiles.roofline import DEFAULTS, FITTED, BatchLimits, Efficiency, Parallelism, roofline
from sageserve.sim.points.pools import pools_of
from sageserve.sim.replay import Arrivals, EnginePool, Replayed, replay, replay_apart, replay_closed

ROUNDS: Final = 5  # requests of each client: the first are a burst, as they are in measurements
LEAST: Final = 16  # requests
MOST: Final = 4_000
NEAR: Final = 0.15
_MICRO: Final = 1e3  # microseconds in a millisecond
_UNCLEAR: Final = ("tp_size", "moe_tp")  # notes of the points that are shared with this project


def why_not(point: MeasuredPoint) -> str:
    """Why a point has no prediction, from its columns alone; empty when it may have one."""
    if point.mode != "agg" and (reason := _why_not_apart(point)):
        return reason
    if not (point.tp and point.prompt and point.output):
        return "its parallelism or its lengths are not known"
    if point.note.startswith(_UNCLEAR) or (point.mode == "agg" and ways_of(point) is None):
        return "its parallelism is not clear"
    if not (point.clients or point.rate):
        return "it has neither a fixed concurrency nor a rate"
    if known_gpu(point.gpu) is None:
        return f"no rates are known of the GPU {point.gpu}"
    if model_in(point.model, point.dtype) is None:
        return f"no shape is known of {point.model} in {point.dtype}"
    return ""


def _why_not_apart(point: MeasuredPoint) -> str:
    """Why a point that is not of engines which do all of a request has no prediction; empty when it may have one."""
    if point.mode != "disagg":
        return f"its mode is {point.mode[:20]}, neither agg nor disagg"
    if pools_of(point) is None:
        return "how many instances prefill and how many decode is not said"
    return "" if point.clients else "prefill and decode in different pools are predicted at a fixed concurrency alone"


def ways_of(point: MeasuredPoint) -> Parallelism | None:
    """How an engine is spread over its GPUs; None when its columns do not say it.

    Some write the GPUs of all ranks as `tp`, others those of each: `gpus` decides. Where each GPU is a rank, all of them share
    out the experts; with an `ep` of fewer, `gpus` is a product of the two.
    """
    gpus = point.gpus or point.tp * point.dp
    if point.dp == 1:
        return Parallelism(point.tp)
    if gpus % point.dp or (gpus == point.dp and 1 < point.ep < gpus):
        return None
    return Parallelism(gpus // point.dp, point.dp, min(point.ep, gpus))


def shape_of(point: MeasuredPoint) -> ModelShape:
    """The shape of the model of a point for which `why_not` has no objection.

    Where its KV cache's format is not said, a mixture in eight bits on GPUs with units for four has one of eight bits, as recipes
    for these GPUs do; else it is as the checkpoint.
    """
    name, gpu = model_in(point.model, point.dtype), known_gpu(point.gpu)
    assert name is not None
    assert gpu is not None
    found = shape(name)
    usual = "fp8" if found.experts is not None and found.weights == "fp8" and gpu_named(gpu).fp4 else found.cache
    return found.model_copy(update={"cache": point.kv_dtype or usual})


def group_of(point: MeasuredPoint) -> str:
    """Engine without its version, dense or mixture, and whether prefill and decode are apart."""
    engine = point.engine.split()[0] if point.engine else "unknown"
    apart = ", disaggregated" if point.mode == "disagg" else ""
    return f"{engine}, {'dense' if shape_of(point).experts is None else 'mixture'}{apart}"


def limits_of(point: MeasuredPoint, gpu: str, tp: int) -> BatchLimits:
    """How the engine of a point fills its iterations: as is usual for it, and at least so that all clients find a place.

    Prompts are prefilled beside decoding also where the engine does it first: clients with answers of one length stay in step
    then, and meet in bursts that nobody measured (SGLang's TTFT, dense models: off by 184 % in the median instead of 57 %).

    Args:
        point: whose engine and version count, if they are known.
        gpu: our name.
        tp: GPUs of a rank.
    """
    limits = DEFAULTS
    for text in (point.engine, point.engine.partition(" ")[0]):  # a version that is no number, or older than is known
        with suppress(ConfigError):
            limits = usual_limits(text, gpu_named(gpu), gpu, tp)
            break
    sequences = max(limits.max_sequences, point.clients)
    return replace(limits, mixed=True, max_sequences=sequences, max_batched_tokens=max(limits.max_batched_tokens, sequences + 1))


def derived(point: MeasuredPoint, efficiency: Efficiency = FITTED) -> ProfileSettings:
    """The profile that is derived for the engine of a point, for which `why_not` has no objection.

    Raises:
        SageServeError: the model does not fit.
    """
    ways = ways_of(point)
    assert ways is not None
    return _engine(point, ways, efficiency)


def _engine(point: MeasuredPoint, ways: Parallelism, efficiency: Efficiency) -> ProfileSettings:
    name = known_gpu(point.gpu)
    assert name is not None
    limits = limits_of(point, name, ways.tp)
    return roofline(shape_of(point), gpu_named(name), ways, name=name, limits=limits, efficiency=efficiency)


def played_e2e_ms(point: MeasuredPoint, profile: ProfileSettings) -> float:
    """Mean E2E of a point's requests on an engine of a profile, milliseconds.

    Raises:
        SageServeError: its requests do not fit into the memory.
    """
    return float(_played(point, profile).e2e.mean()) / _MICRO


def predict(point: MeasuredPoint, efficiency: Efficiency = FITTED) -> PredictedPoint:
    """What a point is predicted to measure.

    Args:
        point: of any table.
        efficiency: what engines reach of peak rates.
    """
    if reason := why_not(point):
        return PredictedPoint(point.id, reason=reason)
    one, name = shape_of(point), known_gpu(point.gpu)
    assert name is not None
    try:
        played = _played(point, derived(point, efficiency)) if point.mode == "agg" else _played_apart(point, efficiency)
    except SageServeError as error:
        return PredictedPoint(point.id, reason=error.message)
    e2e = float(played.e2e.mean()) / _MICRO
    width = band_of(one, gpu_named(name), point.engine or DEFAULTS.engine).percent / 100
    return PredictedPoint(
        point.id,
        e2e_ms=_digits(e2e),
        ttft_ms=_digits(float(played.ttft.mean()) / _MICRO),
        tpot_ms=_digits(float(played.tpot[played.tpot >= 0].mean()) / _MICRO) if (played.tpot >= 0).any() else None,
        low_ms=_digits(e2e / (1 + width)),
        high_ms=_digits(e2e / (1 - width)),
    )


def judge(points: Sequence[MeasuredPoint], progress: Callable[[int], None] | None = None) -> PointVerdict:
    """Predict points, and say how far off they are.

    Args:
        points: of a table.
        progress: told how many are done.
    """
    found: list[PredictedPoint] = []
    groups: dict[str, list[tuple[MeasuredPoint, PredictedPoint]]] = {}
    for number, point in enumerate(points, start=1):
        found.append(predict(point))
        if found[-1].reason is None and point.e2e_ms is not None:
            groups.setdefault(group_of(point), []).append((point, found[-1]))
        if progress is not None:
            progress(number)
    return PointVerdict(found, {name: _group(groups[name]) for name in sorted(groups)})


def _played(point: MeasuredPoint, profile: ProfileSettings) -> Replayed:
    random = stream(1, f"points/{point.id}")
    once = "one round" in point.note or "at once" in point.note
    n = point.clients if once else min(max(ROUNDS * point.clients, LEAST), MOST)
    if point.rate:
        n = MOST // 4
    prompt, output = _lengths(point, random, n)
    if point.clients:
        return replay_closed(profile, prompt, output, point.clients)
    arrival = np.cumsum(random.exponential(SECOND / point.rate, n)).astype(np.int64)
    return replay(profile, Arrivals(arrival, prompt, output))


def _lengths(point: MeasuredPoint, random: np.random.Generator, n: int) -> tuple[Ints, Ints]:
    """Tokens of prompts and answers of n requests."""
    low = 0.8 if "uniform 0.8" in point.note else 1.0
    prompt, output = (random.integers(max(1, int(low * most)), most + 1, n) for most in (point.prompt, point.output))
    return prompt, output


def _played_apart(point: MeasuredPoint, efficiency: Efficiency) -> Replayed:
    """The requests of a point on two pools; each engine that decodes has room for its share of the clients."""
    pools = pools_of(point)
    assert pools is not None
    each = -(-point.clients // (pools.decodes * pools.decode.dp))
    prefill = _engine(replace(point, clients=0), pools.prefill, efficiency)
    decode = _engine(replace(point, clients=each), pools.decode, efficiency)
    n = min(max(ROUNDS * point.clients, LEAST), MOST)
    requests = _lengths(point, stream(1, f"points/{point.id}"), max(n, 2 * point.clients))
    token_us = pools.token_us(shape_of(point).kv_bytes)
    return replay_apart(
        EnginePool(prefill, pools.prefills), EnginePool(decode, pools.decodes), requests, point.clients, token_us=token_us
    )


def _group(pairs: list[tuple[MeasuredPoint, PredictedPoint]]) -> PointGroup:
    rows = [(point.e2e_ms, found.e2e_ms, found.low_ms, found.high_ms) for point, found in pairs]
    measured, predicted, low, high = np.array(rows, np.float64).T
    off = predicted / measured - 1
    return PointGroup(
        n=len(pairs),
        e2e_mape=_digits(float(np.abs(off).mean())),
        within_15=_digits(float((np.abs(off) <= NEAR).mean())),
        median=_digits(float(np.median(off))),
        covered=_digits(float(((low <= measured) & (measured <= high)).mean())),
        width=_digits(float(np.median(1 - predicted / high))),
    )


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
