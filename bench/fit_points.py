"""Fit what weights of few bits and experts reach, on the points of vLLM in `measured_points/points.csv`.

    python -m bench.fit_points
    python -m bench.fit_points --scan expert_us_fp4=3,3.5,4,4.5,5.15     one of them alone, by halves of the configurations

The runs of `fit_roofline.py` are finer, per request, and all of bf16: what they say stays. The eight efficiencies that they say
nothing about (NAMES) are looked for here with the simulator in the loop: Gauss-Newton on logarithms of mean E2E and TPOT, pulled
towards PRIOR. Each half of the configurations is judged by a fit to the other; then all are fitted together. Some minutes of CPU.

Read next: `points.py`, which plays a point and judges every engine; `data/profiles/roofline.py`, where the result stands.
"""

import sys
from dataclasses import replace
from typing import Final

import numpy as np

from bench.points import Judged, fold_of, judge, left_out, relative, said_folder
from sageserve.base.records import Floats
from sageserve.base.rng import stream
from sageserve.data.measured.points import MeasuredPoint, read_points
from sageserve.data.profiles.roofline import FITTED, Efficiency
from sageserve.sim.points.predict import shape_of

NAMES: Final = (
    "bandwidth_fp8",
    "bandwidth_fp4",
    "compute_fp8",
    "compute_fp4",
    "expert_width",
    "expert_us",
    "expert_us_fp4",
    "unpacked_int4",
)
PRIOR: Final = np.array(
    [0.65, 0.6, 0.45, 0.4, 4000.0, 4.0, 4.0, 3.0]
)  # GEMM kernels by format: gemm_shares.csv beside the points
SPREAD: Final = np.array([0.25, 0.3, 0.3, 0.4, 0.4, 0.8, 0.8, 0.5])  # of their logarithms
NOISE: Final = 0.15  # of a point: versions of one engine differ by as much
FAR: Final = 0.5  # a point further off is not this model's business: other limits, several replicas
SAMPLE: Final = 140  # points of a fit
ROUNDS: Final = 4


def made(at: Floats) -> Efficiency:
    """The efficiencies of logarithms of those in NAMES."""
    return replace(FITTED, **{name: float(value) for name, value in zip(NAMES, np.exp(at), strict=True)})


def misses(rows: list[MeasuredPoint], efficiency: Efficiency) -> Floats:
    """float64[2 n]: logarithmic errors of E2E and TPOT; 0 where a point cannot be played."""
    found = [judge(row, efficiency) for row in rows]
    off = np.array([one.off[[0, 2]] if isinstance(one, Judged) else (0.0, 0.0) for one in found])
    return np.asarray(np.nan_to_num(off).ravel())


def fit(rows: list[MeasuredPoint]) -> Efficiency:
    """The efficiencies that meet the points, between what they say and what was thought before."""
    prior, at = np.log(PRIOR), np.log(PRIOR)
    for _ in range(ROUNDS):
        here = misses(rows, made(at))
        kept = np.abs(here) < FAR
        slopes = np.stack([(misses(rows, made(at + 0.1 * unit)) - here) / 0.1 for unit in np.eye(len(at))], axis=1)
        equations = np.concatenate([slopes[kept] / NOISE, np.diag(1 / SPREAD)])
        wanted = np.concatenate([-here[kept] / NOISE, (prior - at) / SPREAD])
        at = at + np.clip(np.linalg.lstsq(equations, wanted, rcond=None)[0], -0.3, 0.3)
        print({name: round(float(value), 3) for name, value in zip(NAMES, np.exp(at), strict=True)}, flush=True)
    return made(at)


def sampled(rows: list[MeasuredPoint]) -> list[MeasuredPoint]:
    """As many as a fit takes, dense models and mixtures alike, the same in every run."""
    random, chosen = stream(1, "bench/fit_points"), list[MeasuredPoint]()
    for mixture in (False, True):
        alike = [row for row in rows if (shape_of(row).experts is not None) == mixture]
        chosen += [alike[k] for k in sorted(random.permutation(len(alike))[: SAMPLE // 2].tolist())]
    return chosen


def said(name: str, rows: list[MeasuredPoint], efficiency: Efficiency) -> str:
    """How far off points are."""
    found = [one for one in (judge(row, efficiency) for row in rows) if isinstance(one, Judged)]
    lines = []
    for kind, mixture in (("dense", False), ("mixture", True)):
        off = relative(np.array([one.off[0] for one in found if (shape_of(one.point).experts is not None) == mixture]))
        text = (
            f"E2E mean {np.abs(off).mean():6.1%}, median {np.median(off):+6.1%}, within 15 % {(np.abs(off) <= 0.15).mean():.0%}"
        )
        lines.append(f"{name:28}{kind:9}{len(off):5}  {text}")
    return "\n".join(lines)


def scan(asked: str, halves: list[list[MeasuredPoint]]) -> None:
    """How far off the points of each half are whose prediction depends on an efficiency, by its values."""
    name, _, text = asked.partition("=")
    values = [float(one) for one in text.split(",")]
    off = np.array([misses(halves[0] + halves[1], replace(FITTED, **{name: value}))[::2] for value in values])
    depends = np.ptp(off, axis=0) > 0
    first = np.arange(off.shape[1]) < len(halves[0])
    print(
        f"{name:>24}" + "".join(f"{f'half {k}, {(depends & mine).sum()} points':>24}" for k, mine in enumerate((first, ~first)))
    )
    for value, row in zip(values, off, strict=True):
        means = (relative(row[depends & mine]) for mine in (first, ~first))
        print(f"{value:24g}" + "".join(f"{np.abs(one).mean():15.1%}{np.median(one):+9.1%}" for one in means))


def main() -> None:
    """Read, fit, judge, print."""
    arguments = sys.argv[1:]
    asked = arguments.pop(arguments.index("--scan") + 1) if "--scan" in arguments[:-1] else ""
    table = said_folder(__doc__ or "", [one for one in arguments if one != "--scan"]) / "measured_points" / "points.csv"
    rows = [row for row in read_points(table) if row.engine.split()[:1] == ["vllm"] and not left_out(row)]
    halves: list[list[MeasuredPoint]] = [[], []]
    for row in rows:
        halves[fold_of(f"{row.model}|{row.gpu}|{row.tp}|{row.engine}|{row.dtype}|{row.prompt}|{row.output}") % 2].append(row)
    if asked:
        scan(asked, halves)
        return
    print(said("as shipped", rows, FITTED), flush=True)
    for k, half in enumerate(halves):
        print(said(f"half {k}, fitted on the other", half, fit(sampled(halves[1 - k]))), flush=True)
    print(said("all in the fit", rows, fit(sampled(rows))))


if __name__ == "__main__":
    main()
