"""Hold the response curve against the simulator: late requests at so many instances, so busy, of several mixes.

    python -m bench.response            one line per mix and count of instances, then how many points are off, and by how much
    python -m bench.response --points   every point
    python -m bench.response --fit      how many points are off with other constants of the curve
    python -m bench.response --itl      the same of promised paces: answers that are slower than 1.1 to 3 times an idle engine's
    python -m bench.response --uneven   the same where the rate is another one every minute: gamma distributed about its mean

A mix is a model of o365-paper-peak with the lengths of its workload and one promise. Its requests arrive at one endpoint of n
instances at random (Poisson) instants, fast enough for the load. Late are those whose first token comes after the promise and
would not at an idle engine. The curve is given the mix that the kernel counted, as a strategy is.

A point is off when the curve is more than 1.5 points of late requests and more than a fifth of them away. Knows no strategy.
Read next: `src/sageserve/core/response.py`, docs/reference/planning.md.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.figures import show
from bench.world import opened, play
from sageserve.base.config import Scenario, TierSettings
from sageserve.base.rebound import rebound
from sageserve.base.records import Names, Trace
from sageserve.base.rng import stream
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.layout import Layout, lay_out, unified_roles
from sageserve.core.pace import ANSWER_WIDTH, DecodingLoad, length_column, slow_by_load, step_time
from sageserve.core.perf import decoding_time, first_time
from sageserve.core.response import RequestMix, arrays_of, late, late_share, mix_of, must_wait, slow_share
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.workload.generate import generate
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.state import request_rows
from sageserve.sim.run import kernel_setup

COUNTS: Final = (1, 2, 4, 8, 16, 32)
LOADS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MODELS: Final = ("bloom-176b", "llama-2-70b", "llama-3.1-8b", "llama-3.2-3b")
PROMISES: Final = ("1s", "3s")
REQUESTS: Final = 3_000  # per instance
LEAST: Final = 30_000
SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS: Final = (1.0, 1.5, 2.0, 2.5, 3.0)
PACES: Final = (1.1, 1.25, 1.5, 2.0, 3.0)  # times what a token takes at an idle engine
UNEVEN: Final = (0.05, 0.25, 0.7)  # squared coefficients of variation of the rates of minutes
UNEVEN_COUNTS: Final = (1, 2, 4, 8)
UNEVEN_LOADS: Final = (0.3, 0.5, 0.65, 0.8)
UNEVEN_REQUESTS: Final = 40_000  # per instance: a share of late ones is that of some hundred minutes
BUSY: Final = 0.8  # from here on the wait depends on how long the run is
OFF_POINTS, OFF_SHARE = 0.015, 0.20


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompts and answers of one model's requests, tokens."""

    model: str
    prompt: NDArray[np.int32]
    output: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Point:
    """Late requests, of those that could be in time: as simulated, and as the curve says of the mix.

    Args:
        instances, load: how many, and how busy.
        mix: of the requests, as counted.
        simulated, foretold: shares of late ones.
    """

    instances: int
    load: float
    mix: RequestMix
    simulated: float
    foretold: float

    @property
    def off(self) -> bool:
        """Further away than is allowed."""
        return abs(self.foretold - self.simulated) > max(OFF_POINTS, OFF_SHARE * self.simulated)


def lengths() -> Iterator[Lengths]:
    """Those of the built-in workload."""
    trace = generate(load_scenario("o365-paper-peak", overrides=["workload.generate.requests=200000"]))
    for model in MODELS:
        mine = trace.model == trace.names.models.index(model)
        if mine.any():
            yield Lengths(model, trace.prompt[mine], trace.output[mine])


def fleet(model: str, instances: int, promise: str) -> tuple[Scenario, Layout]:
    """One endpoint of so many instances of the engine that o365-paper-peak gives the model, and one tier."""
    tree = load_scenario("o365-paper-peak").model_dump(mode="json", exclude_unset=True)
    gpu = next(iter(tree["models"][model]["engines"]))
    tree |= {
        "regions": {"here": {"gpus": {gpu: {"gpus": 8 * instances, "price": {"on_demand": "98.32/h"}}}}},
        "models": {model: tree["models"][model]},
        "tiers": {"chat": {"ttft": promise}},
        "fleet": {"start": instances, "minimum": instances, "maximum": instances},
        "gpus": {gpu: tree["gpus"][gpu]},
        "admission": {"act": False},  # who is turned away is not late
    }
    for name in ("workload", "strategy", "spot"):
        tree.pop(name, None)
    scenario = Scenario.model_validate(tree)
    return scenario, lay_out(scenario, unified_roles(scenario), lambda _: (instances,))


def played(those: Lengths, instances: int, load: float, promise: str, uneven: float = 0.0) -> Point:
    """Simulate one point."""
    kernel, layout, tier = simulated(those, instances, load, promise, uneven)
    profile = layout.profiles[layout.fastest(0)]
    mix = mix_of(kernel.mixes[0], float(decoding_time(profile, 1.0)))
    assert mix is not None
    mix = msgspec.structs.replace(mix, uneven=uneven)
    return Point(instances, load, mix, _late(kernel.requests, profile, tier.patience), late(instances, load, mix))


def paced(those: Lengths, instances: int, load: float) -> Iterator[Point]:
    """Simulate once, and count slow answers for each pace."""
    kernel, layout, _ = simulated(those, instances, load, PROMISES[-1])
    profile = layout.profiles[layout.fastest(0)]
    plain = mix_of(kernel.mixes[0], float(decoding_time(profile, 1.0)))
    assert plain is not None
    rows, answers = kernel.requests, np.zeros((1, ANSWER_WIDTH))
    for output, count in enumerate(np.bincount(rows["output"]).tolist()):
        answers[0, length_column(output)] += count
    asked = DecodingLoad(plain.each_us, plain.prefill_us, plain.variation, float(rows["prompt"].mean()))
    idle = float(step_time(profile, 1.0, float(rows["prompt"].mean() + rows["output"].mean() / 2)))
    for times in PACES:
        slow = (rows["finish"] - rows["first"] > times * idle * (rows["output"] - 1)).mean()
        mix = msgspec.structs.replace(plain, slow=slow_by_load(profile, asked, answers, np.array([times * idle])))
        yield Point(instances, load, mix, float(slow), float(slow_share(instances, load, np.array(mix.slow))))


def simulated(
    those: Lengths, instances: int, load: float, promise: str, uneven: float = 0.0
) -> tuple[Kernel, Layout, TierSettings]:
    """Play requests at random instants, fast enough for the load; in minutes of so uneven rates."""
    scenario, layout = fleet(those.model, instances, promise)
    count = UNEVEN_REQUESTS * instances if uneven else max(LEAST, REQUESTS * instances)
    draw = stream(1, f"response/{those.model}/{instances}/{load}")
    chosen = draw.integers(0, len(those.prompt), count)
    gaps = draw.exponential(1.0, count)
    setup = kernel_setup(scenario, layout)
    spread = np.cumsum(gaps)
    apart = _trace(those, chosen, (spread * SECOND).astype(np.int64))  # only to count the work
    counter = opened(setup, request_rows(apart, setup))
    counter.run_until(int(apart.arrival[-1]) + 1)
    each = float(counter.mixes[0][1] + counter.mixes[0][3]) / float(counter.mixes[0][0])
    arrival = spread * each / (load * instances)
    if uneven:
        rates = draw.gamma(1 / uneven, uneven, int(2 * arrival[-1] / MINUTE) + 100)
        arrival = np.interp(arrival, MINUTE * np.cumsum([0.0, *rates]), MINUTE * np.arange(len(rates) + 1.0))
    trace = _trace(those, chosen, arrival.astype(np.int64))
    kernel = opened(setup, request_rows(trace, setup))
    play(kernel)
    return kernel, layout, next(iter(scenario.tiers.values()))


def _trace(those: Lengths, chosen: NDArray[np.int64], arrival: NDArray[np.int64]) -> Trace:
    none = np.zeros(len(chosen), np.uint8)
    return Trace(
        arrival=arrival,
        prompt=those.prompt[chosen],
        output=those.output[chosen],
        model=none,
        region=none,
        tier=none,
        names=Names((those.model,), ("here",), ("chat",)),
        window=int(arrival[-1]) + SECOND,
    )


def _late(rows: NDArray[np.void], profile: np.void, patience: Micros) -> float:
    prompts, which = np.unique(rows["prompt"], return_inverse=True)
    idle = np.array([first_time(profile, int(prompt), 0) for prompt in prompts])[which] + int(profile["entry"])
    could = idle <= patience
    return float((rows["first"] - rows["arrival"] > patience)[could].mean()) if could.any() else 0.0


def fit(points: list[Point]) -> None:
    """Print how many points are off with other constants of the curve."""
    for shared in SHARES:
        for steps in STEPS:
            curve = rebound(late_share, must_wait=rebound(must_wait), SHARED=shared, STEPS=steps)
            tried = (
                replace(point, foretold=float(curve(point.instances, point.load, *arrays_of(point.mix)))) for point in points
            )
            off = [point for point in tried if point.off]
            below = sum(point.load < BUSY for point in off)
            print(f"{shared:.2f} of decoding felt, {steps:.1f} iterations to join: {len(off)} off, {below} of them below {BUSY}")


def unevenly(*, points: bool) -> Iterator[Point]:
    """Points of the second promise with minutes of uneven rates, a line per count of instances printed."""
    for those in lengths():
        for uneven in UNEVEN:
            for instances in UNEVEN_COUNTS:
                line = [played(those, instances, load, PROMISES[-1], uneven) for load in UNEVEN_LOADS]
                even = [late(p.instances, p.load, msgspec.structs.replace(p.mix, uneven=0.0)) for p in line]
                texts = (
                    f"{p.load:.2f}: {p.simulated:.2%}|{p.foretold:.2%}{'*' if p.off else ''} (taken for even {one:.2%})"
                    for p, one in zip(line, even, strict=True)
                )
                print(f"{those.model} uneven {uneven} n={instances}", *(texts if points else ()), flush=True)
                yield from line


def tell(found: list[Point]) -> None:
    """Print how many points are off, and by how much."""
    off = [point for point in found if point.off]
    show("response_points", len(found), "points")
    show("response_off", len(off), "points off")
    show(f"response_off_below_{BUSY}", sum(point.load < BUSY for point in off), "points off")
    show("response_error", 100 * float(np.mean([abs(point.foretold - point.simulated) for point in found])), "points")
    if found and found[0].mix.uneven:
        even = [late(p.instances, p.load, msgspec.structs.replace(p.mix, uneven=0.0)) - p.simulated for p in found]
        show("response_error_taken_for_even", 100 * float(np.mean(np.abs(even))), "points")


def main() -> None:
    """Print the points, and how many are off."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", action="store_true", help="print every point")
    parser.add_argument("--fit", action="store_true", help="count the points that are off with other constants")
    parser.add_argument("--itl", action="store_true", help="hold the curve of a promised pace against the simulator")
    parser.add_argument("--uneven", action="store_true", help="hold the curve of uneven arrivals against the simulator")
    asked = parser.parse_args()
    found: list[Point] = []
    if asked.uneven:
        tell(found := [*unevenly(points=asked.points)])
        return
    for those in lengths():
        for promise in ("itl",) if asked.itl else PROMISES:
            for instances in COUNTS:
                lines = [
                    [*paced(those, instances, load)] if asked.itl else [played(those, instances, load, promise)] for load in LOADS
                ]
                line = [point for points in lines for point in points]
                found += line
                texts = (f"{p.load:.1f}: {p.simulated:.2%}|{p.foretold:.2%}{'*' if p.off else ''}" for p in line)
                print(f"{those.model} {promise} n={instances}", *(texts if asked.points else ()), flush=True)
    tell(found)
    if asked.fit and not asked.itl:
        fit(found)


if __name__ == "__main__":
    main()
