"""One engine plays requests again: the simulator's own kernel with one region, one model and one instance.

What a fleet simulation does with an engine, this does alone, so that a profile can be judged against a measured run.
Some milliseconds for a few hundred requests: a fit calls it hundreds of times. Knows no measurements. Read next:
`sim/calibration/` for the fits, docs/reference/kernel.md for the rules the engine follows.
"""

from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.base.records import UNSET, Floats, Ints, Names, Trace
from sageserve.base.units import DAY, SECOND, Micros
from sageserve.core.feed import DIRECT
from sageserve.core.handover import Handover
from sageserve.core.order import FCFS, TIER
from sageserve.core.perf import profile_rows
from sageserve.core.route import NEAREST
from sageserve.core.signals import LOAD
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.rows.adapters import Adapters
from sageserve.sim.kernel.state import RUNNING, WAITING, Setup, request_rows

_LONGEST: Final = 2**31 - 2  # tokens: a measured engine has shown that it takes the context
_STEP: Final = 600 * SECOND  # how far the kernel plays at once when nobody looks
_GIVE_UP: Final = 30 * DAY  # no measured run is longer
_SCRAPE: Final = DAY  # nobody routes here
_BLOCKS_PER_REQUEST: Final = 6  # an arrival cuts one, a prompt takes one or more, a finish ends one; a fuller log is played again


@dataclass(frozen=True, slots=True)
class Replayed:
    """What one engine made of the requests; UNSET where a request was never finished.

    Args:
        ttft: int64[n], microseconds from arrival to the first token.
        tpot: int64[n], microseconds per token after the first; UNSET for requests of one token.
        e2e: int64[n], microseconds from arrival to the last token.
        finish: int64[n], microseconds, when the last token came.
        preemptions: requests that lost their place in the batch.
    """

    ttft: Ints
    tpot: Ints
    e2e: Ints
    finish: Ints
    preemptions: int


@dataclass(frozen=True, slots=True)
class ReplayedSeries:
    """The engine as a scrape would have seen it at given instants.

    Args:
        time: int64[n], microseconds.
        running: float64[n], requests in the batch.
        waiting: float64[n], requests in the queue.
        kv_share: float64[n], share of the KV cache in use.
    """

    time: Ints
    running: Floats
    waiting: Floats
    kv_share: Floats


@dataclass(frozen=True, slots=True)
class ReplayedBlocks:
    """What the engine's iterations were made of: runs of them with the same members, in order. All columns have b rows.

    Iteration j of a row, from 0, computes `tokens` prompt tokens with an attention sum of attention + j * tokens^2, beside
    `decoding` sequences that read kv + j * decoding tokens.

    Args:
        start: int64[b], microseconds.
        iterations: int64[b].
        tokens: int64[b], of prompts, per iteration.
        attention: float64[b], sum of p * (x + p/2) over pieces of p tokens after x, in the first iteration.
        decoding: int64[b], sequences.
        kv: int64[b], KV tokens of these, in the first iteration.
    """

    start: Ints
    iterations: Ints
    tokens: Ints
    attention: Floats
    decoding: Ints
    kv: Ints


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests to play, sorted by arrival: microseconds, tokens; all columns have n rows.

    `cached` prompt tokens, fewer than the prompt's, are found in the prefix cache; None: nothing is found. `adapter` numbers the
    LoRA adapters that are asked for, UNSET: none is; None: nobody asks.
    """

    arrival: Ints
    prompt: Ints
    output: Ints
    cached: Ints | None = None
    adapter: Ints | None = None

    def __len__(self) -> int:
        return len(self.arrival)


def replay(profile: ProfileSettings, arrivals: Arrivals) -> Replayed:
    """Play requests through one engine until all are done.

    Args:
        profile: of the engine.
        arrivals: what arrives.

    Raises:
        MeasurementError: a request is larger than the KV cache, or the engine would need more than 30 days.
    """
    kernel = _kernel(profile, arrivals)
    while not kernel.finished():
        _go_on(kernel, kernel.now + _STEP)
    return _result(kernel)


def replay_closed(profile: ProfileSettings, prompt: Ints, output: Ints, clients: int) -> Replayed:
    """Play requests through one engine, each client sending its next one as soon as it has the last token of the one before.

    Args:
        profile: of the engine.
        prompt: int64[n], tokens, in the order they are sent.
        output: int64[n], tokens.
        clients: that send at once; the first requests arrive at time 0.

    Raises:
        MeasurementError: as for `replay`.
    """
    kernel = _kernel(profile, Arrivals(np.zeros(len(prompt), np.int64), prompt, output), clients=clients)
    while not kernel.finished():
        _go_on(kernel, kernel.now + _STEP)
    return _result(kernel)


@dataclass(frozen=True, slots=True)
class EnginePool:
    """Engines that are alike.

    Args:
        profile: of each.
        instances: how many.
    """

    profile: ProfileSettings
    instances: int


def replay_apart(
    prefill: EnginePool, decode: EnginePool, requests: tuple[Ints, Ints], clients: int, *, token_us: float, latency: Micros = 0
) -> Replayed:
    """Play requests through engines that prefill and engines that decode, each client sending its next one as in `replay_closed`.

    Args:
        prefill: engines that hand requests over when their prompts are filled.
        decode: engines that are handed them.
        requests: int64[n] twice, tokens of prompts and answers, in the order they are sent.
        clients: that send at once; the first requests arrive at time 0.
        token_us: microseconds that the KV cache of a token takes on the link of an engine that prefills.
        latency: microseconds more, until the other side has it.

    Raises:
        MeasurementError: as for `replay`.
    """
    arrivals = Arrivals(np.zeros(len(requests[0]), np.int64), *requests)
    for pool in (prefill, decode):
        _check(pool.profile, arrivals)
    slots = max(prefill.instances, decode.instances)
    rows = np.full((2, slots), -1, np.int32)
    rows[0, : prefill.instances], rows[1, : decode.instances] = 0, 1
    setup = replace(
        _setup(prefill.profile),
        roles=2,
        slots=slots,
        profiles=profile_rows([prefill.profile, decode.profile]),
        slot_profile=rows.ravel(),
        feeds=np.zeros(2, bool),
        clients=clients,
        output_guess=float(requests[1].mean()),
        handover=Handover((True,), (token_us,), (latency,)),
    )
    kernel = Kernel(setup, request_rows(_trace(arrivals), setup))
    for instance in np.flatnonzero(setup.slot_profile >= 0):
        kernel.open(int(instance))
    while not kernel.finished():
        _go_on(kernel, kernel.now + _STEP)
    return _result(kernel)


def replay_series(profile: ProfileSettings, arrivals: Arrivals, looks: Ints | None = None) -> tuple[Replayed, ReplayedSeries]:
    """Play requests through one engine until all are done, and look at it now and then.

    Args:
        profile: of the engine.
        arrivals: what arrives.
        looks: int64[n], microseconds, ascending; None: every second until all are done.

    Raises:
        MeasurementError: as for `replay`.
    """
    kernel = _kernel(profile, arrivals)
    seen: list[tuple[int, int, int, float]] = []
    for instant in count(SECOND, SECOND) if looks is None else looks.tolist():
        if looks is None and kernel.finished():
            break
        _go_on(kernel, instant)
        place = kernel.requests["state"]
        used = int(kernel.engines["used"].sum())
        in_batch, queued = int((place > WAITING).sum()) - int((place > RUNNING).sum()), int((place == WAITING).sum())
        seen.append((instant, in_batch, queued, used / (profile.dp * profile.kv_tokens)))
    while not kernel.finished():
        _go_on(kernel, kernel.now + _STEP)
    columns = np.array(seen, np.float64).reshape(-1, 4)
    series = ReplayedSeries(columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2], columns[:, 3])
    return _result(kernel), series


def replay_blocks(profile: ProfileSettings, arrivals: Arrivals) -> tuple[Replayed, ReplayedBlocks]:
    """Play requests through one engine until all are done, and say what its iterations were made of.

    Args:
        profile: of the engine.
        arrivals: what arrives.

    Raises:
        MeasurementError: as for `replay`.
    """
    rows = _BLOCKS_PER_REQUEST * len(arrivals)
    while True:
        kernel = _kernel(profile, arrivals, block_rows=rows)
        while not kernel.finished():
            _go_on(kernel, kernel.now + _STEP)
        if kernel.block_count <= rows:
            return _result(kernel), _blocks(kernel)
        rows = kernel.block_count


def _go_on(kernel: Kernel, until: Micros) -> None:
    kernel.run_until(until)
    if until > _GIVE_UP:
        raise MeasurementError(
            f"{kernel.unfinished()} requests are not done after 30 days of simulated time",
            hint="the profile is too slow or its KV cache too small for these requests",
        )


def _kernel(profile: ProfileSettings, arrivals: Arrivals, *, clients: int = 0, block_rows: int = 0) -> Kernel:
    _check(profile, arrivals)
    setup = replace(_setup(profile), clients=clients, block_rows=block_rows)
    adapters = None if arrivals.adapter is None else Adapters(arrivals.adapter.astype(np.int32))
    kernel = Kernel(setup, request_rows(_trace(arrivals), setup), adapters=adapters)
    kernel.open(0)
    return kernel


def _check(profile: ProfileSettings, arrivals: Arrivals) -> None:
    """Refuse what an engine of that memory can never serve: it would wait forever."""
    if len(arrivals) == 0:
        raise MeasurementError("there are no requests to play", hint="requests.csv holds one row per finished request")
    largest = int((arrivals.prompt + arrivals.output).max())
    if largest > profile.kv_tokens:
        raise MeasurementError(
            f"a request of {largest:,} tokens does not fit into a KV cache of {profile.kv_tokens:,}",
            hint="kv_tokens is num_gpu_blocks x block_size of the engine: check it",
        )


def _setup(profile: ProfileSettings) -> Setup:
    tiers: NDArray[Any] = np.zeros(1, TIER)
    tiers["patience"] = DAY
    return Setup(
        regions=1,
        models=1,
        roles=1,
        slots=1,
        profiles=profile_rows([profile]),
        slot_profile=np.zeros(1, np.int32),
        context=np.array([_LONGEST], np.int64),
        tiers=tiers,
        walk=np.zeros((1, 1, 1, 1), np.int32),
        feeds=np.zeros(1, bool),
        order=FCFS,
        route=NEAREST,
        threshold=1.0,
        signal=LOAD,
        scrape=_SCRAPE,
        half_life=float(SECOND),
        feed=DIRECT,
        two_below=0.0,
        one_below=0.0,
        promote_after=DAY,
        safety=1.0,
        output_guess=1.0,
    )


def _trace(arrivals: Arrivals) -> Trace:
    n = len(arrivals)
    return Trace(
        arrival=arrivals.arrival,
        prompt=arrivals.prompt.astype(np.int32),
        output=arrivals.output.astype(np.int32),
        model=np.zeros(n, np.uint8),
        region=np.zeros(n, np.uint8),
        tier=np.zeros(n, np.uint8),
        names=Names(("engine",), ("here",), ("all",)),
        window=int(arrivals.arrival[-1]) + 1,
        cached=None if arrivals.cached is None else arrivals.cached.astype(np.int32),
    ).check()


def _result(kernel: Kernel) -> Replayed:
    rows = kernel.requests
    ttft, e2e = rows["first"] - rows["arrival"], rows["finish"] - rows["arrival"]
    steps = np.maximum(rows["output"].astype(np.int64) - 1, 1)
    tpot = np.where(rows["output"] > 1, np.rint((e2e - ttft) / steps).astype(np.int64), UNSET)
    return Replayed(ttft=ttft, tpot=tpot, e2e=e2e, finish=rows["finish"].copy(), preemptions=kernel.preemptions)


def _blocks(kernel: Kernel) -> ReplayedBlocks:
    """The log of one instance; a block that was cut has as many iterations as decode steps were made in it."""
    rows = kernel.blocks
    made = np.diff(rows["steps"], append=int(kernel.engines["steps"][0]))
    decoding = rows["running"].astype(np.int64)
    return ReplayedBlocks(
        start=rows["start"].copy(),
        iterations=np.where(decoding > 0, made, rows["length"]),
        tokens=rows["tokens"].copy(),
        attention=rows["attention"].copy(),
        decoding=decoding,
        kv=np.where(decoding > 0, rows["kv"], 0),
    )
