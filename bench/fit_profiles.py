"""Fit the engine profiles of the paper's four models, so that anyone can repeat `data/builtin/profiles.yaml`.

Reads the measurements published with splitwise-sim and SageServe from `$SAGESERVE_DATA/profiles` (or
`../shared/data/profiles` beside the repository), in which iterations prefill or decode and never do both, and prints, per
model, GPU and tensor parallelism, the coefficients of

    t = a + b·P + e·Σ p·(context + p/2) + c·n + d·K,    an iteration that prefills takes at least `floor`,

with one `a` for prefill and decode, because an iteration that does both pays it once. Beside them: the error in sample, with one
condition left out, and of two separate fits with an `a` each, which is what the shared `a` costs. As a profile's curve this is
flat until a prefill is longer than the floor, and the floor's rest is what prefill runs without CUDA graphs (`Fit.curve`): both
kinds of iterations take exactly as long, and one that does both the longer of the two, and c·n.

Llama-3.x was measured on A100 TP2 and TP4 only. Its TP8 and H100 values are scaled, coefficient by coefficient, by what
Llama-2-70B shows for the same step; where decode did not show a cost of KV tokens, memory bandwidth sets its least value.

    python bench/fit_profiles.py [--data FOLDER]

Knows nothing of the package. Read next: `src/sageserve/data/builtin/profiles.yaml`.
"""

import argparse
import csv
import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

Key = tuple[str, str, int]
"""Model, GPU, tensor parallelism."""

SECONDS = ("Llama-3.1-8B", "Llama-3.2-3B")
"""These files are in seconds, and their token_time is that of the whole generation."""

CONTEXT_END = 8192
"""Decode times of the Llama-3 files jump by 1-16 ms per token past this context: another effect."""


@dataclass(frozen=True)
class Point:
    """One condition, the median of its repetitions: the terms of the model and the time, in ms."""

    prefill: float  # P
    attention: float  # Σ p·(context + p/2)
    sequences: float  # n
    kv: float  # K
    time: float

    @property
    def terms(self) -> tuple[float, ...]:
        """The row of the design matrix: a, b, e, c, d."""
        return (1.0, self.prefill, self.attention, self.sequences, self.kv)


@dataclass(frozen=True)
class Fit:
    """Coefficients (ms, ms/token, ms/token², ms/sequence, ms/token), the floor, and the errors in percent."""

    a: float
    b: float
    e: float
    c: float
    d: float
    floor: float

    def curve(self) -> tuple[list[list[float]], float]:
        """Knots of `iteration_ms`, and `eager_ms`."""
        eager = max(0.0, self.floor - self.a)
        bend = max(2, round(eager / self.b) + 1)
        return [[1, round(self.a, 2)], [bend, round(self.a, 2)], [8192, round(self.a + self.b * 8192 - eager, 2)]], round(
            eager, 2
        )

    def time(self, point: Point) -> float:
        """Milliseconds the model gives a point."""
        value = float(np.dot((self.a, self.b, self.e, self.c, self.d), point.terms))
        return max(self.floor, value) if point.prefill and not point.sequences else value


def read(folder: Path) -> dict[Key, list[Point]]:
    """All conditions by model, GPU and parallelism, without `h100-80gb-pcap` (derived from h100-80gb)."""
    prefill: dict[tuple[Key, int], list[float]] = defaultdict(list)
    decode: dict[tuple[Key, int, int, int], list[tuple[float, float]]] = defaultdict(list)
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["hardware"].endswith("pcap"):
                    continue
                key = (row["model"], row["hardware"], int(row["tensor_parallel"]))
                prompt, batch, tokens = (int(row[name]) for name in ("prompt_size", "batch_size", "token_size"))
                first, token, whole = (float(row[name]) for name in ("prompt_time", "token_time", "e2e_time"))
                if key[0] in SECONDS:
                    first, token, whole = first * 1e3, token * 1e3 / (tokens - 1), whole * 1e3
                if batch == 1:  # at larger batches the prompt times contain queueing
                    prefill[key, prompt].append(first)
                if key[0] not in SECONDS or prompt + tokens <= CONTEXT_END:
                    made = (whole - first) / token  # some runs stopped early: count the tokens that were made
                    decode[key, prompt, batch, tokens].append((token, made))
    points: dict[Key, list[Point]] = defaultdict(list)
    for (key, prompt), times in prefill.items():
        points[key].append(Point(prompt, prompt * prompt / 2, 0, 0, median(times)))
    for (key, prompt, batch, _), pairs in decode.items():
        kv = batch * (prompt + median(made for _, made in pairs) / 2)
        points[key].append(Point(0, 0, batch, kv, median(time for time, _ in pairs)))
    return points


def nonnegative(terms: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of relative errors with coefficients >= 0, exact: tries every set of non-zero ones."""
    best, least = np.zeros(terms.shape[1]), np.inf
    rows = terms / times[:, None]
    for size in range(1, terms.shape[1] + 1):
        for chosen in itertools.combinations(range(terms.shape[1]), size):
            part, *_ = np.linalg.lstsq(rows[:, chosen], np.ones(len(times)), rcond=None)
            error = float(((rows[:, chosen] @ part - 1) ** 2).sum())
            if (part >= 0).all() and error < least:
                best, least = np.zeros(terms.shape[1]), error
                best[list(chosen)] = part
    return best


def fit(points: Sequence[Point]) -> Fit:
    """The best of the fits with the 0 to 4 shortest prompts held by the floor."""
    prompts = sorted((point for point in points if point.prefill), key=lambda point: point.prefill)
    best: tuple[float, Fit] | None = None
    for held in range(min(5, len(prompts) + 1)):
        low = prompts[:held]
        rest = [point for point in points if point not in low]
        solved = nonnegative(np.array([p.terms for p in rest]), np.array([p.time for p in rest]))
        a, b, e, c, d = (float(value) for value in solved)
        found = Fit(a, b, e, c, d, median(p.time for p in low) if low else 0.0)
        error = sum((found.time(p) / p.time - 1) ** 2 for p in points)
        if best is None or error < best[0]:
            best = (error, found)
    assert best is not None
    return best[1]


def percent(found: Fit, points: Sequence[Point]) -> float:
    """Mean absolute relative error over the points."""
    return 100 * float(np.mean([abs(found.time(p) / p.time - 1) for p in points])) if points else float("nan")


def left_out(points: Sequence[Point]) -> tuple[float, float]:
    """Mean and largest error of a condition that the fit has not seen."""
    errors = [percent(fit([p for p in points if p is not point]), [point]) for point in points]
    return float(np.mean(errors)), max(errors)


DERIVED = ("Llama-3.1-8B", "Llama-3.2-3B")
KV_BYTES = {"Llama-3.1-8B": 131_072, "Llama-3.2-3B": 114_688}  # 2 x layers x 8 KV heads x 128 x 2 bytes
BANDWIDTH = {"a100-80gb": 2.039e12, "h100-80gb": 3.35e12}  # bytes/s of one SXM GPU, vendor's figures


def scaled(one: Fit, over: Fit, under: Fit) -> Fit:
    """`one` times `over / under`, coefficient by coefficient."""

    def times(name: str) -> float:
        return float(getattr(one, name)) * float(getattr(over, name)) / float(getattr(under, name))

    return Fit(times("a"), times("b"), times("e"), times("c"), times("d"), times("floor"))


def derive(fits: dict[Key, Fit]) -> Iterator[tuple[str, str, Fit]]:
    """TP8 on both GPUs for the models measured at TP4 on A100 only."""
    four = fits["llama2-70b", "a100-80gb", 4]
    for model in DERIVED:
        for gpu in ("a100-80gb", "h100-80gb"):
            found = scaled(fits[model, "a100-80gb", 4], fits["llama2-70b", gpu, 8], four)
            least = KV_BYTES[model] / (8 * BANDWIDTH[gpu]) * 1e3
            yield model, gpu, replace(found, d=max(found.d, least))


def show(points: dict[Key, list[Point]]) -> Iterator[str]:
    """The table, one line per fit."""
    yield (
        f"{'model':13} {'gpu':10} tp {'a ms':>6} {'b us':>6} {'c us':>6} {'d ns':>6} {'e ns':>6} {'floor':>6}"
        "   error % in sample: all prefill decode (own a: prefill decode)   left out: mean max"
    )
    for key, rows in sorted(points.items()):
        found = fit(rows)
        first = [p for p in rows if p.prefill]
        later = [p for p in rows if not p.prefill]
        mean, worst = left_out(rows)
        yield (
            f"{key[0]:13} {key[1]:10} {key[2]:2} {found.a:6.2f} {found.b * 1e3:6.2f} {found.c * 1e3:6.1f}"
            f" {found.d * 1e6:6.1f} {found.e * 1e6:6.2f} {found.floor:6.2f}   {percent(found, rows):21.1f}"
            f" {percent(found, first):7.1f} {percent(found, later):6.1f} {percent(fit(first), first):17.1f}"
            f" {percent(fit(later), later):6.1f} {mean:18.1f} {worst:4.1f}"
        )


def main() -> None:
    """Print the fits, then what is derived from them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SAGESERVE_DATA"))  # noqa: TID251  # a bench is its own shell
    folder = parser.parse_args().data or Path(__file__).parents[2] / "shared" / "data"
    points = read(Path(folder) / "profiles")
    for line in show(points):
        print(line)
    print("\nas settings of a profile: iteration_ms, eager_ms")
    for key, rows in sorted(points.items()):
        print(f"{key[0]:13} {key[1]:10} {key[2]:2}", *fit(rows).curve())
    print("\nderived, not measured")
    for model, gpu, found in derive({key: fit(rows) for key, rows in points.items()}):
        print(
            f"{model:13} {gpu:10}  8 {found.a:6.2f} {found.b * 1e3:6.2f} {found.c * 1e3:6.1f}"
            f" {found.d * 1e6:6.1f} {found.e * 1e6:6.2f} {found.floor:6.2f}  ",
            *found.curve(),
        )


if __name__ == "__main__":
    main()
