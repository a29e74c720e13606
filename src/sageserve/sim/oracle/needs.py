"""What each request needs at least, and when: GPU time of its cheapest engine, and the steps of time in which it is done.

A request that keeps its promise is prefilled between its arrival and the promised instant, and its answer is made by the slowest
iterations after that; batch work is done by its deadline. Who is refused for length needs nothing. Who cannot be in time at any
idle engine is hopeless. Read next: `prices.py`, `dual.py`.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.kernel import kernel
from sageserve.base.records import UNSET, Bools, Floats, Ints, Trace, cached_tokens
from sageserve.base.sessions import turns_before
from sageserve.base.units import MINUTE, Micros
from sageserve.core.layout import Layout
from sageserve.core.order import promised_us
from sageserve.core.perf import first_time, gain, request_work
from sageserve.sim.oracle.prices import Prices, WorkAsked, as_row, prices_of, slowest_iteration

STEP: Final[Micros] = 15 * MINUTE
BUCKETS: Final = 96
PER_DOUBLING: Final = 4.0
FIRST: Final = 12.0
"""Bucket k ends at 2^(FIRST + (k + 1)/PER_DOUBLING) microseconds of a GPU; the first holds all below."""

_CACHE_BLOCK: Final = 16


@dataclass(frozen=True, slots=True)
class Needs:
    """Requests of one model that need the same, together.

    Args:
        tier: int64[n], code of their tier.
        bucket: int64[n], by their GPU time.
        begin, end: int64[n], first and last step in which they are done if they are in time.
        count: float64[n], requests.
        work: float64[n], GPU-microseconds of all of them.
        hopeless: int64[tiers], how many are missed by everybody.
        lost: float64[steps], GPU-microseconds of the hopeless ones by arrival.
    """

    tier: Ints
    bucket: Ints
    begin: Ints
    end: Ints
    count: Floats
    work: Floats
    hopeless: Ints
    lost: Floats


def edges() -> Floats:
    """float64[BUCKETS + 1]: GPU-microseconds at which buckets begin; the last is above all requests that were ever seen."""
    found: Floats = 2.0 ** (FIRST + np.arange(BUCKETS + 1) / PER_DOUBLING)
    found[0] = 0.0
    return found


def needs_of(trace: Trace, layout: Layout, model: int, nearest: Ints) -> Needs:
    """Those of one model.

    Args:
        trace: requests that arrive by themselves.
        layout: with engines as they are.
        model: code.
        nearest: int64[regions], least microseconds on the network.
    """
    context = int(layout.context[model])
    rows = np.flatnonzero((trace.model == model) & (trace.prompt < context))  # longer ones are refused
    some = trace.take(rows)
    answer = np.minimum(some.output, context - some.prompt)
    cached, shared = _found(some, layout)
    engines = sorted({pool.profile for pool in layout.pools if pool.model == model})
    prices = [_priced(layout.profiles[row], some, answer, cached, context, shared=shared) for row in engines]
    slowest = max((slowest_iteration(as_row(layout.profiles[row]), context) for row in engines), default=0.0)
    promised = promised_us(layout.tiers, some.tier, some.prompt)
    if some.deadline is not None:
        promised = np.where(some.deadline == UNSET, promised, some.deadline - some.arrival)
    batch = layout.tiers["batch"][some.tier].astype(np.bool_)
    work, idle = np.full(len(some), np.inf), np.full(len(some), np.inf)
    usable = _usable(layout)[some.region, model, some.tier] if len(some) else np.zeros((0, len(layout.profiles)), np.bool_)
    for row, price in zip(engines, prices, strict=True):
        numbers = np.array([price.prefill, price.step, price.read])
        least_work((some.prompt, cached, answer, usable[:, row]), layout.profiles[row], numbers, (work, idle))
    could = np.isfinite(work)  # in a region that runs the model
    due = some.arrival + promised + np.where(batch, 0, np.ceil(answer * slowest)).astype(np.int64)
    hopeless = ~batch & (idle + nearest[some.region] > promised) | ~could
    return _gathered(some, np.where(could, work, 0.0), due, hopeless)


def _found(some: Trace, layout: Layout) -> tuple[NDArray[np.int32], bool]:
    """Tokens of each prompt that are in a cache at best, and whether sequences may share memory."""
    stated = cached_tokens(some, layout.prefix_hits)
    if some.blocks is None or not len(some.blocks.hashes):
        return stated, False
    counts, blocks = some.blocks.counts(), some.blocks
    _, place, often = np.unique(blocks.hashes, return_inverse=True, return_counts=True)
    alone = np.concatenate([[0], np.cumsum((often < 2)[place])])  # nobody else has that block: nor those after it
    ends = zip(blocks.ends - counts, blocks.ends, strict=True)
    whole = np.array([np.searchsorted(alone[start + 1 : end + 1], alone[start], "right") for start, end in ends])
    most = (some.prompt - 1) // _CACHE_BLOCK * _CACHE_BLOCK
    hashed = np.where(turns_before(some) == UNSET, np.minimum(whole * blocks.size, most), most)
    return np.where(counts > 0, np.maximum(hashed, stated), stated).astype(np.int32), True


def _priced(
    profile: Any,  # noqa: ANN401 # a PROFILE row
    some: Trace,
    answer: NDArray[Any],
    cached: NDArray[np.int32],
    context: int,
    *,
    shared: bool,
) -> Prices:
    steps = np.maximum(answer - 1.0 - (profile["drafted"] > 0), 0.0) / float(gain(profile))
    read = steps * (some.prompt + 1.0 + float(gain(profile)) * np.maximum(steps - 1.0, 0.0) / 2)
    asked = WorkAsked(float((some.prompt - cached).sum()), float(steps.sum()), float(read.sum()))
    return prices_of(as_row(profile), asked, context, shared=shared)


def _usable(layout: Layout) -> Bools:
    """bool[regions, models, tiers, profiles]: the engines that may do a request, by where it enters."""
    regions, models, tiers = layout.walk.shape[:3]
    usable = np.zeros((regions, models, tiers, len(layout.profiles)), np.bool_)
    for g, m, k in np.ndindex(regions, models, tiers):
        there = set(layout.walk[g, m, k].tolist())
        usable[g, m, k, [pool.profile for pool in layout.pools if pool.endpoint in there]] = True
    return usable


@kernel
def least_work(
    requests: tuple[NDArray[Any], NDArray[Any], NDArray[Any], Bools],
    profile: Any,  # noqa: ANN401 # a PROFILE row
    prices: Floats,
    into: tuple[Floats, Floats],
) -> None:
    """GPU-microseconds that requests take an engine at least, and until an idle one's first token, where that is less than known.

    Args:
        requests: prompts, cached tokens, answers, and whether the engine may do them.
        profile: a PROFILE row.
        prices: float64[3], of a prompt token, a step and a token read.
        into: float64[n] twice, lowered.
    """
    prompt, cached, answer, usable = requests
    work, idle = into
    for q in range(len(prompt)):
        if not usable[q]:
            continue
        todo, whole = float(prompt[q] - cached[q]), float(prompt[q] + cached[q])
        steps = float(answer[q]) - 1.0
        if profile["drafted"] != 0:
            steps = max(steps - 1.0, 0.0) / gain(profile)
        read = steps * (prompt[q] + 1.0 + gain(profile) * max(steps - 1.0, 0.0) / 2)
        own = 0.5 * profile["attention"] * todo * whole + profile["decode"] * steps + profile["kv"] * read
        priced = (own + prices[0] * todo + prices[1] * steps + prices[2] * read) * profile["per_rank"]
        owed = request_work(profile, prompt[q], cached[q], float(answer[q]))  # what the summary says of it at the end
        work[q] = min(work[q], min(priced, owed) * profile["gpus"])
        idle[q] = min(idle[q], float(int(first_time(profile, prompt[q], cached[q])) + profile["entry"]))


def _gathered(some: Trace, work: Floats, due: Ints, hopeless: Bools) -> Needs:
    steps = int(-(-some.window // STEP))
    begin = some.arrival // STEP
    end = np.clip(due // STEP, begin, steps - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bucket = np.clip((PER_DOUBLING * (np.log2(work) - FIRST)).astype(np.int64) if len(work) else begin, 0, BUCKETS - 1)
    tiers = len(some.names.tiers)
    gone = np.bincount(some.tier[hopeless], minlength=tiers).astype(np.int64)
    lost: Floats = np.bincount(begin[hopeless], work[hopeless], minlength=steps).astype(np.float64)
    live = ~hopeless
    code = ((some.tier[live].astype(np.int64) * BUCKETS + bucket[live]) * steps + begin[live]) * steps + end[live]
    known, place, count = np.unique(code, return_inverse=True, return_counts=True)
    rest, last = np.divmod(known, steps)
    rest, first = np.divmod(rest, steps)
    tier, size = np.divmod(rest, BUCKETS)
    total: Floats = np.bincount(place, work[live], minlength=len(known)).astype(np.float64)
    order = np.argsort(last, kind="stable")
    tier, size, first, last = (column[order] for column in (tier, size, first, last))
    return Needs(tier, size, first, last, count[order].astype(np.float64), total[order], gone, lost)
