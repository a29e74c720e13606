"""Fit the efficiencies of `data/profiles/roofline.py` to measured runs, and say what it misses by on models it has not seen.

    python -m bench.fit_roofline [--data FOLDER]

Reads runs of quality A from `$SAGESERVE_DATA/validation` (or `../shared/data/validation` beside the repository), plays each
through one engine with a derived profile, and compares mean E2E. Prints the fitted efficiencies, and per run the error with all
models in the fit, with its own model left out, and with its own model left out but corrected on the model's other run. Runs that
take no part follow.

Few runs do not determine seven numbers. Each starts from what is known without them (`PRIOR`) and pays for leaving it (`SPREAD`,
as a share), as in ridge regression; a run counts with an error of 3 % in E2E and 30 % in TTFT. `kv_bandwidth` and `link` stay as
they are: no run here depends on them enough. What experts and weights of few bits reach is `fit_points.py`'s.

The H100 runs send the same prompts again and again with prefix caching on: all of a prompt but its last block is found in the
cache. That part is not computed, but it is read: the engine is given the rest as prompt, and a cost per sequence for reading.

Read next: docs/reference/profiles.md.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import ProfileSettings
from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.data.measured.files import read_measured
from sageserve.data.measured.runs import MeasuredRun
from sageserve.data.profiles.hardware import gpu_named, shape
from sageserve.data.profiles.roofline import BLOCK, FITTED, BatchLimits, Efficiency, Parallelism, roofline, scaled
from sageserve.sim.replay import Arrivals, replay

PRIOR = Efficiency(
    bandwidth=0.88,  # large matrix times vector kernels reach 80 to 90 % of the data sheet
    compute=0.60,  # large matrix products of inference engines: 50 to 75 %
    host_us=900.0,  # vLLM's scheduler and sampler between two iterations: about a millisecond
    layer_us=15.0,  # some ten kernels a layer, a microsecond or two between them in a CUDA graph
    eager_us=30.0,  # the same kernels launched one by one, which hides behind arithmetic for the most part
    exchange_us=8.0,  # a one-shot all-reduce of some hundred kilobytes between two GPUs over NVLink: 5 to 12
    sequence_us=20.0,  # Python's work on one token of one sequence: tens of microseconds
    sharpness=4.0,  # where streaming and multiplying take as long, an iteration takes 19 % more than either
    first_token_ms=15.0,  # HTTP, tokenizer and hand-over between processes, there and back: 5 to 40
)
SPREAD = {
    "bandwidth": 0.08,
    "compute": 0.25,
    "host_us": 0.5,
    "layer_us": 0.4,
    "eager_us": 0.5,
    "exchange_us": 0.4,
    "sequence_us": 0.5,
    "first_token_ms": 0.7,
    "sharpness": 0.5,
}
NOISE = 0.03
NOISE_TTFT = 0.3  # a mean of tens of milliseconds with bursts in it

SHAPES = {
    "meta-llama/Llama-2-70b": "llama-2-70b",
    "meta-llama/Llama-2-70b-hf": "llama-2-70b",
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Llama-3.1-8B": "llama-3.1-8b",
    "meta-llama/Llama-3.1-70B-Instruct": "llama-3.1-70b",
    "mistralai/Mixtral-8x7B-v0.1": "mixtral-8x7b",
    "mistralai/Mistral-Nemo-Instruct-2407": "mistral-nemo-12b",
    "codellama/CodeLlama-34b-Instruct-hf": "codellama-34b",
    "01-ai/Yi-34B": "yi-34b",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2.5-7b",
}
GPUS = {"H100-80GB": "h100-80gb", "H100": "h100-80gb", "RTXPRO6000": "rtx-pro-6000", "RTX4090": "rtx-4090"}


@dataclass(frozen=True)
class Case:
    """A run and what is played for it: arrivals, and the prompt tokens of each that the cache holds."""

    run: MeasuredRun
    model: str
    arrivals: Arrivals
    cached: int

    def profile(self, efficiency: Efficiency) -> ProfileSettings:
        """What the roofline gives for its model, GPU and limits."""
        limits = BatchLimits(self.run.limits.max_sequences, self.run.limits.max_batched_tokens)
        gpu = GPUS[self.run.gpu]
        return roofline(
            shape(self.model), gpu_named(gpu), Parallelism(self.run.tp), name=gpu, limits=limits, efficiency=efficiency
        )

    def played(self, profile: ProfileSettings) -> tuple[float, float]:
        """Mean E2E and TTFT in ms that an engine of that profile shows."""
        reading = profile.decode_us_per_sequence + self.cached * profile.kv_ns_per_token / 1e3
        kv_tokens = self.run.limits.kv_tokens or profile.kv_tokens
        engine = profile.model_copy(update={"decode_us_per_sequence": reading, "kv_tokens": kv_tokens})
        shown = replay(engine, self.arrivals)
        return float(shown.e2e[self.judged()].mean()) / 1e3, float(shown.ttft[self.judged()].mean()) / 1e3

    def e2e(self, profile: ProfileSettings) -> float:
        """Mean E2E in ms."""
        return self.played(profile)[0]

    def judged(self) -> NDArray[np.bool_]:
        """The first half of runs that are kept request by request; the second half is for judging profiles."""
        requests = self.run.requests
        return np.ones(len(self.arrivals), bool) if requests is None else requests.first_half()

    def measured(self) -> float:
        """Mean E2E in ms, as measured."""
        if self.run.requests is not None:
            return float(self.run.requests.e2e[self.judged()].mean()) / 1e3
        assert self.run.means is not None
        assert self.run.means.e2e is not None
        return self.run.means.e2e / 1e3


def case_of(run: MeasuredRun) -> Case:
    """The arrivals of a run: as recorded, or drawn from its phases with its mean lengths."""
    model = SHAPES[run.model]
    if run.requests is not None:
        requests = run.requests
        return Case(run, model, Arrivals(requests.arrival, requests.prompt, requests.output), 0)
    assert run.means is not None
    draw, begin, parts = stream(1, f"fit_roofline/{run.name}"), 0.0, []
    for phase in run.means.phases:
        count = round(phase.rate * phase.seconds)
        parts.append(begin + np.sort(draw.uniform(0, phase.seconds, count)))  # a Poisson process of that many
        begin += phase.seconds
    arrival = (np.concatenate(parts) * SECOND).astype(np.int64)
    prompt, output = round(run.means.prompt), round(run.means.output)
    cached = (prompt - 1) // BLOCK * BLOCK
    n = len(arrival)
    return Case(run, model, Arrivals(arrival, np.full(n, prompt - cached, np.int64), np.full(n, output, np.int64)), cached)


def errors(cases: Sequence[Case], efficiency: Efficiency) -> NDArray[np.float64]:
    """Predicted over measured mean E2E, less one."""
    return np.array([case.e2e(case.profile(efficiency)) / case.measured() - 1 for case in cases])


def misses(cases: Sequence[Case], efficiency: Efficiency) -> NDArray[np.float64]:
    """Logarithms of predicted over measured in units of their noise: E2E of every run, TTFT where no queue rules it."""
    found = []
    for case in cases:
        e2e, ttft = case.played(case.profile(efficiency))
        found.append(np.log(e2e / case.measured()) / NOISE)
        if case.run.requests is None and case.run.means and case.run.means.ttft:
            found.append(np.log(ttft / (case.run.means.ttft / 1e3)) / NOISE_TTFT)
    return np.array(found)


def fit(cases: Sequence[Case], rounds: int = 4) -> Efficiency:
    """Gauss-Newton on the logarithms of the efficiencies, held by their priors."""
    names = list(SPREAD)
    prior = np.log([getattr(PRIOR, name) for name in names])
    weight = np.array([SPREAD[name] for name in names])
    at = prior.copy()

    def made(logs: NDArray[np.float64]) -> Efficiency:
        return replace(PRIOR, **dict(zip(names, np.exp(logs).tolist(), strict=True)))

    for _ in range(rounds):
        here = misses(cases, made(at))
        slopes = np.stack([(misses(cases, made(at + 0.05 * unit)) - here) / 0.05 for unit in np.eye(len(at))], axis=1)
        rows = np.concatenate([slopes, np.diag(1 / weight)])
        left = np.concatenate([-here, (prior - at) / weight])
        step = np.linalg.lstsq(rows, left, rcond=None)[0]
        at = at + np.clip(step, -0.15, 0.15)  # beyond, a run that is nearly saturated is no line any more
    return made(at)


def corrected(case: Case, point: Case, efficiency: Efficiency) -> float:
    """Error of a case when the profile is scaled to meet another run of the same model."""
    low, high = 0.5, 2.0
    for _ in range(14):
        middle = (low * high) ** 0.5
        short = point.e2e(scaled(point.profile(efficiency), middle, "")) < point.measured()
        low, high = (middle, high) if short else (low, middle)
    return case.e2e(scaled(case.profile(efficiency), (low * high) ** 0.5, "")) / case.measured() - 1


def report(cases: Sequence[Case]) -> None:
    """Print efficiencies and errors."""
    whole = fit(cases)
    print("efficiency      in data/profiles/roofline.py    fitted to all")
    for field, now, found in zip(fields(FITTED), astuple(FITTED), astuple(whole), strict=True):
        print(f"{field.name:16}{now:14.4g}{found:17.4g}")
    print(f"\n{'run':52}{'measured':>9}{'all':>8}{'left out':>10}{'one point':>11}")
    seen, unseen, points = errors(cases, whole), [], []
    folds = {model: fit([case for case in cases if case.model != model]) for model in sorted({case.model for case in cases})}
    for case, error in zip(cases, seen, strict=True):
        fold = folds[case.model]
        unseen.append(errors([case], fold)[0])
        others = [other for other in cases if other.model == case.model and other is not case]
        after = corrected(case, others[0], fold) if others else None
        points += [] if after is None else [after]
        shown = "" if after is None else f"{after:+11.1%}"
        print(f"{case.run.name:52}{case.measured():9.0f}{error:+8.1%}{unseen[-1]:+10.1%}{shown}")
    on_h100 = [error for case, error in zip(cases, unseen, strict=True) if case.run.gpu == "H100-80GB"]
    for what, values in (("all in the fit", seen), ("left out", unseen), ("left out, H100", on_h100), ("one point", points)):
        print(f"{what:20} mean {np.abs(values).mean():.1%}, worst {np.abs(values).max():.1%} of {len(values)}")


def main() -> None:
    """Read, fit, print."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    default = Path(os.environ.get("SAGESERVE_DATA", beside))  # noqa: TID251 # the shell of a benchmark is told where data is
    parser.add_argument("--data", type=Path, default=default, help="folder that holds validation/experiments.csv")
    runs = read_measured(parser.parse_args().data / "validation")
    cases = [case_of(run) for run in runs if run.quality.startswith("A") and run.gpu != "RTX4090"]
    report(cases)
    print("\nnot in the fit: RTX 4090, and runs of quality C (reconstructed: plausibility only), by data/profiles/roofline.py")
    for run in runs:
        if not run.quality.startswith("A") or run.gpu == "RTX4090":
            case = case_of(run)
            print(f"{run.name:52}{case.measured():9.0f}{errors([case], FITTED)[0]:+8.1%}  {case.model} tp{run.tp}")


if __name__ == "__main__":
    main()
