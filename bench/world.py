"""A synthetic fleet and its traffic, for figures about the kernel alone: no strategy, no file, constant rate.

Three regions, four models of different speed, the paper's three tiers; log-normal lengths (medians of 1,000 prompt and 150 output
tokens). `busy_rate` finds the rate at which the fleet's own `busy` signal is 60 %. Read next: `kernel.py`.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import Labels, Names, PromptBlocks, Trace
from sageserve.base.rng import stream
from sageserve.base.units import DAY, MINUTE, SECOND, Micros
from sageserve.core.layout import lay_out, unified_roles
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.prefixes.tree import Prefixes
from sageserve.sim.kernel.state import Setup, request_rows
from sageserve.sim.run import kernel_setup

LOAD = 0.60
STEP: Micros = 15 * SECOND  # between two looks of a controller
RAMP: Micros = 3 * MINUTE  # empty engines fill up, rates are averaged over 30 s
ENDPOINTS = 12
SLOWER = np.array([1.0, 1.15, 1.3, 1.45])  # iteration times of the four models
SHARES = (1 / SLOWER) / (1 / SLOWER).sum()  # of requests, so that all models are equally busy
KNOTS = (1, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 4096)  # on one line, and as many as a derived profile has
TURNS = 5  # of a conversation, in the mean
SHARED, BLOCK = 512, 16  # tokens
STANDARD = 240  # instances of the paper's fleet


def setup(instances: int) -> Setup:
    """The kernel's view of a fleet of that many instances, a multiple of 12."""
    slots = instances // ENDPOINTS
    stock = {"h100": {"gpus": instances * 8, "price": {"on_demand": "98.32/h"}}}
    scenario = Scenario.model_validate(
        {
            "name": "synthetic",
            "gpus": {"h100": {"memory": "80GiB"}},
            "regions": {
                "a": {"gpus": stock, "rtt": {"b": "30ms", "c": "60ms"}},
                "b": {"gpus": stock, "rtt": {"c": "40ms"}},
                "c": {"gpus": stock},
            },
            "models": {f"m{m}": {"context": 400_000, "engines": {"h100": _engine(slower)}} for m, slower in enumerate(SLOWER)},
            "tiers": {"iw-f": {"ttft": "1s"}, "iw-n": {"ttft": "60s"}, "niw": {"deadline": "24h"}},
            "fleet": {"start": slots, "maximum": slots},
            # Above the load that is measured: with 0.5 and 0.6 batch work would pile up and the state would never be steady.
            "batch": {"two_below": 0.8, "one_below": 0.9},
        }
    )
    return kernel_setup(scenario, lay_out(scenario, unified_roles(scenario), lambda _: (0,)))


def _engine(slower: float) -> dict[str, object]:
    return {
        "gpu": "h100",
        "tp": 8,
        "gpus": 8,
        "iteration_ms": [[tokens, (12 + 0.05 * tokens) * slower] for tokens in KNOTS],
        "decode_us_per_sequence": 0.0,
        "kv_ns_per_token": 20 * slower,
        "attention_ns_per_token2": 0.0,
        "kv_tokens": 400_000,
        "max_batched_tokens": 4096,
        "source": "made up: of the size of a 70B model on 8 GPUs",
    }


def trace(requests: int, per_second: float) -> Trace:
    """Poisson arrivals; 20 % of the requests are batch work."""
    draw = stream(1, f"bench/{requests}")
    arrival = np.cumsum(draw.exponential(SECOND / per_second, requests)).astype(np.int64)
    tier = draw.choice(3, requests, p=[0.4, 0.4, 0.2]).astype(np.uint8)
    return Trace(
        arrival=arrival,
        prompt=np.clip(draw.lognormal(np.log(1000), 1.0, requests), 1, 16_000).astype(np.int32),
        output=np.clip(draw.lognormal(np.log(150), 0.8, requests), 1, 2_000).astype(np.int32),
        model=draw.choice(4, requests, p=SHARES).astype(np.uint8),
        region=draw.integers(0, 3, requests, dtype=np.uint8),
        tier=tier,
        names=Names(("m0", "m1", "m2", "m3"), ("a", "b", "c"), ("iw-f", "iw-n", "niw")),
        window=int(arrival[-1]) + 1,
    )


def talk(requests: int, per_second: float) -> Trace:
    """The same arrivals as turns of conversations: one of eight beginnings of 512 tokens, then 350 tokens more per turn.

    Turns of a conversation come about 20 s apart, whatever the answers take; blocks of 16 tokens are hashed.
    """
    plain, draw = trace(requests, per_second), stream(2, f"bench/{requests}")
    together = max(1, round(20 * per_second))  # conversations at a time
    session = np.where(draw.random(requests) < 1 / TURNS, np.arange(requests), -1)  # a conversation begins in a place of these
    place = draw.permutation(np.arange(requests) % together)
    order = np.lexsort((np.arange(requests), place))
    begins = (session[order] >= 0) | (np.diff(place[order], prepend=-1) != 0)
    number = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)[number]
    turn = np.arange(requests) - first
    code, depth = np.empty(requests, np.int64), np.empty(requests, np.int64)
    code[order], depth[order] = number, turn
    prompt = np.minimum(SHARED + 200 + depth * (200 + 150), 16_000)
    model, region = code % 4, code // 4 % 3
    counts = prompt // BLOCK
    ends = np.cumsum(counts)
    at = np.arange(int(ends[-1])) - np.repeat(ends - counts, counts)
    owner = np.repeat(code, counts)
    hashes = np.where(at < SHARED // BLOCK, (owner % 8) * 64 + at, 512 + owner * 1024 + at).astype(np.uint64)
    return replace(
        plain,
        prompt=prompt.astype(np.int32),
        output=np.full(requests, 150, np.int32),
        model=model.astype(np.uint8),
        region=region.astype(np.uint8),
        labels={"session": Labels(code.astype(np.int32), tuple(map(str, range(int(code.max()) + 1))))},
        blocks=PromptBlocks(ends, hashes, BLOCK),
    ).check()


def opened(world: Setup, rows: NDArray[Any], prefixes: Prefixes | None = None) -> Kernel:
    """A kernel with every instance open."""
    kernel = Kernel(world, rows, None, prefixes)
    for i in range(world.endpoints * world.slots):
        kernel.open(i)
    return kernel


def play(kernel: Kernel) -> float:
    """Play to the end in steps of a controller's look; the CPU seconds it took.

    Raises:
        RuntimeError: a request is not accounted for.
    """
    last = int(kernel.requests["arrival"][-1])
    began = time.process_time()
    while not (kernel.now > last and kernel.finished()) and kernel.now < last + DAY:
        kernel.run_until(kernel.now + STEP)
    took = time.process_time() - began
    if not kernel.finished():
        raise RuntimeError(f"{kernel.unfinished()} requests are not accounted for: this is not the load it was meant to be")
    return took


def mean_busy(world: Setup, requests: Trace) -> float:
    """Mean of the `busy` signal over endpoints and time, the way there (`RAMP`) left out."""
    kernel = opened(world, request_rows(requests, world))
    seen = []
    while kernel.now < requests.window - STEP:
        kernel.run_until(kernel.now + STEP)
        if kernel.now > RAMP:
            seen.append(float(kernel.endpoints["busy"].mean()))
    return float(np.mean(seen))


def busy_rate(instances: int) -> float:
    """Requests per second at which that many instances are 60 % busy: ten minutes of the standard fleet, scaled."""
    fleet, standard = min(instances, STANDARD), setup(min(instances, STANDARD))
    per_second = 4.0 * fleet
    for _ in range(3):  # busy is nearly proportional to the rate; the further rounds remove what is not
        per_second *= LOAD / mean_busy(standard, trace(round(600 * per_second), per_second))
    return per_second * instances / fleet
