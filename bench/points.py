"""Judge derived profiles on what others measured: closed loops at a fixed concurrency, every engine, GPU and format.

    python -m bench.points                 figures by engine, dense models and mixtures of experts apart
    python -m bench.points --hold gpu      what a GPU (or a model) is predicted like when no point of it was seen
    python -m bench.points --kv bf16       with every KV cache in that format, whatever is usual
    python -m bench.points --int4 9        with weights in int4 streamed at so many TB/s at most
    python -m bench.points --imbalance 1.2    with experts that are asked for so unevenly

Each point of `$SAGESERVE_DATA/measured_points/points.csv` that a profile's name stands for is played through the simulator's own
kernel. Printed are the errors as the profiles ship, and cross-validated ones: the other folds of the same engine and kind give
one factor for all times and the band that held 90 % of their points; the fold that is held out judges both. A fold holds whole
configurations with all their concurrencies. Which rows are left out is decided by `left_out` from columns alone; those that
`may_draft` are in every table but one, which shows what they make of it.

Read next: `data/profiles/roofline.py`, docs/why/results.md.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from sageserve.base.records import Floats
from sageserve.data.measured.points import MeasuredPoint, read_points
from sageserve.data.profiles.bands import gpu_class
from sageserve.data.profiles.hardware import gpu_named
from sageserve.data.profiles.naming import known_gpu
from sageserve.data.profiles.roofline import FITTED, Efficiency
from sageserve.sim.points.predict import NEAR, group_of, predict, shape_of, ways_of, why_not

FOLDS: Final = 5
SHORTEST: Final = 0.8  # of a nominal prompt: lengths may be uniform from there
FEW: Final = 10  # points of a version: fewer say nothing
HELD: Final = 0.9  # of the points a band is made to hold
HOLDS: Final = ("configuration", "model", "gpu")
BUCKETS: Final = ((1, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 10**9))


@dataclass(frozen=True, slots=True)
class Judged:
    """A point, its band as a share, and logarithms of predicted over measured means: E2E, TTFT, TPOT."""

    point: MeasuredPoint
    band: float
    off: Floats

    @property
    def configuration(self) -> str:
        """All that is fixed while concurrency varies."""
        one = self.point
        return f"{one.model}|{one.gpu}|{one.tp}|{one.dp}|{one.ep}|{one.engine}|{one.dtype}|{one.prompt}|{one.output}"

    @property
    def group(self) -> str:
        """Those who share a factor and a band."""
        return group_of(self.point)


def left_out(point: MeasuredPoint) -> str:
    """Why a point is not judged, from its columns alone; empty: it is."""
    if point.mode != "agg":  # `sageserve validate --points` has figures of those that say how they are split
        return "prefill and decode in different pools"
    if reason := why_not(point):
        return "GPU, model or format without a name here" if reason.startswith("no ") else reason
    if None in {point.e2e_ms, point.ttft_ms, point.tpot_ms}:
        return "a latency is missing"
    if not point.clients:
        return "no fixed concurrency"
    return "its GPUs at their peak rates would take longer" if is_too_fast(point) else ""


def may_draft(point: MeasuredPoint) -> bool:
    """Whether an engine is likely to have predicted several tokens at once, which no column says: the recipes of these do."""
    return point.engine.startswith("trtllm ") and point.model == "deepseek-ai/DeepSeek-R1"


def is_too_fast(point: MeasuredPoint) -> bool:
    """Whether prompts alone ask for more arithmetic than the GPUs of a point can do in its E2E: several replicas, or a cache."""
    one, name, ways = shape_of(point), known_gpu(point.gpu), ways_of(point)
    assert name is not None
    assert ways is not None
    assert point.e2e_ms is not None
    gpu = gpu_named(name)
    always, routed = one.always / gpu.peak(one.always_weights), one.routed * one.routed_share / gpu.peak(one.weights)
    asked = point.clients * SHORTEST * point.prompt * 2 * (always + routed)
    return asked / ways.gpus > point.e2e_ms / 1e3


def judge(point: MeasuredPoint, efficiency: Efficiency = FITTED) -> Judged | str:
    """A point played, or why it cannot be."""
    found = predict(point, efficiency)
    if found.reason is not None or found.e2e_ms is None or found.high_ms is None:
        return "does not fit"
    pairs = ((found.e2e_ms, point.e2e_ms), (found.ttft_ms, point.ttft_ms), (found.tpot_ms, point.tpot_ms))
    off = np.log(np.array(pairs, np.float64))
    return Judged(point, round(1 - found.e2e_ms / found.high_ms, 3), off[:, 0] - off[:, 1])


def fold_of(text: str) -> int:
    """Fold of whatever is held out together; the same in every run."""
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big") % FOLDS


def cross_validated(points: list[Judged], held: Callable[[Judged], str]) -> tuple[Floats, Floats]:
    """Per point its logarithmic errors by the factor that others gave (float64[n, 3]), and the band they gave (float64[n]).

    Args:
        points: of one group.
        held: what is held out together.
    """
    off, names = np.array([point.off for point in points]), [held(point) for point in points]
    fold = np.array([fold_of(name) for name in names])
    left, bands = np.full_like(off, np.nan), np.full(len(points), np.nan)
    for k in range(FOLDS):
        out, others = fold == k, fold != k
        if not out.any() or others.sum() < 2:
            continue
        factor = np.median(off[others, 0])
        left[out] = off[out] - factor
        bands[out] = np.quantile(np.abs(off[others, 0] - factor), HELD)
    return left, bands


def anchored(points: list[Judged]) -> Floats:
    """float64[k]: logarithmic E2E errors of points whose configuration was scaled to meet its middle one."""
    by: dict[str, list[Judged]] = {}
    for point in points:
        by.setdefault(point.configuration, []).append(point)
    left: list[float] = []
    for group in by.values():
        ordered = sorted(group, key=lambda one: one.point.clients)
        middle = ordered[len(ordered) // 2]
        left += [float(point.off[0] - middle.off[0]) for point in ordered if point is not middle]
    return np.array(left)


def relative(off: Floats) -> Floats:
    """Predicted over measured, less one."""
    return np.expm1(off)


def line(name: str, points: list[Judged], held: Callable[[Judged], str]) -> str:
    """A row of the table."""
    off = np.array([point.off for point in points])
    bands = np.array([point.band for point in points])
    e2e, ttft = relative(off[:, 0]), np.abs(relative(off[:, 1]))
    left, found = cross_validated(points, held)
    seen = ~np.isnan(found)
    shown = " " * 35
    if seen.any():
        after, width = relative(left[seen, 0]), np.expm1(found[seen])
        inside = np.abs(left[seen, 0]) <= found[seen]
        shown = f"{np.abs(after).mean():8.1%}{(np.abs(after) <= NEAR).mean():7.0%}{np.median(width):9.0%}{inside.mean():8.0%}"
    ours = f"{np.abs(e2e).mean():8.1%}{np.median(e2e):+8.1%}{(np.abs(e2e) <= NEAR).mean():7.0%}{np.median(ttft):8.0%}"
    return f"{name:22}{len(points):5}{ours}{(np.abs(e2e) <= bands).mean():8.0%}   {shown}"


def report(points: list[Judged], hold: str) -> None:
    """Print the tables."""
    ways: tuple[Callable[[Judged], str], ...] = (lambda p: p.configuration, lambda p: p.point.model, lambda p: p.point.gpu)
    held = ways[HOLDS.index(hold)]
    print(f"\n{'':27}{'as the profiles ship':>31}{'':8}   {'one factor, ' + hold + ' held out':>32}")
    ours = f"{'E2E':>8}{'median':>8}{'±15%':>7}{'TTFT':>8}{'in band':>8}"
    print(f"{'':22}{'n':>5}{ours}   {'E2E':>8}{'±15%':>7}{'90% band':>9}{'holds':>8}")
    groups = sorted({point.group for point in points})
    for group in groups:
        print(line(group, [point for point in points if point.group == group], held))
    print("\nby engine; without those of DeepSeek-R1 on TRT-LLM that may predict several tokens at once; by version")
    for name, mine in _engines(points).items():
        print(line(name, mine, held))
    print("\ndata parallel engines apart, and weights of few bits on GPUs with units for four")
    for name, mine in sorted(_parts(points).items()):
        print(line(name, mine, held))
    print(
        "\nwidths that held 90 % of the points by engine, GPUs and kind of model; what widths of the other folds held of a fold;"
    )
    print("what the widths that ship held")
    for name, mine in sorted(_classes(points).items()):
        print(_width(name, mine, held))
    print("\nmedian E2E by concurrency, as the profiles ship")
    print(f"{'':22}" + "".join(f"{f'{low}-{high}' if high < 10**9 else f'{low}-':>9}" for low, high in BUCKETS))
    for group in groups:
        of = [point for point in points if point.group == group]
        print(f"{group:22}" + "".join(_median(p for p in of if a <= p.point.clients <= b) for a, b in BUCKETS))
    print("\nE2E at other concurrencies once a configuration's profile meets its middle point")
    for group in groups:
        left = np.abs(relative(anchored([point for point in points if point.group == group])))
        if len(left):
            print(f"{group:22}{len(left):5} points   median {np.median(left):.1%}, mean {left.mean():.1%}")


def _engines(points: list[Judged]) -> dict[str, list[Judged]]:
    """Points by engine, dense models and mixtures together, and by version where more than a few are of it."""
    found: dict[str, list[Judged]] = {}
    for one in points:
        engine, _, version = one.point.engine.partition(" ")
        found.setdefault(engine, []).append(one)
        if not may_draft(one.point):
            found.setdefault(f"{engine}, none drafts", []).append(one)
        found.setdefault(f"{engine} {version[:14] or '(not said)'}", []).append(one)
    whole = {name: len(mine) for name, mine in found.items()}
    drafts = [name for name in found if name.endswith(", none drafts") and whole[name] == whole[name.partition(",")[0]]]
    return {name: found[name] for name in sorted(found) if name not in drafts and whole[name] >= FEW}


def _classes(points: Iterable[Judged]) -> dict[str, list[Judged]]:
    """Points by group and class of GPUs, and those of all classes together."""
    found: dict[str, list[Judged]] = {}
    for one in points:
        name = known_gpu(one.point.gpu)
        assert name is not None
        for each in {gpu_class(gpu_named(name)), "any"}:
            found.setdefault(f"{one.group}, {each}", []).append(one)
    return found


def _width(name: str, points: list[Judged], held: Callable[[Judged], str]) -> str:
    """A row of widths: nothing is scaled, as nothing is where a profile prints its band."""
    off = np.abs(relative(np.array([point.off[0] for point in points])))
    fold, inside = np.array([fold_of(held(point)) for point in points]), list[bool]()
    for k in range(FOLDS):
        out = fold == k
        if out.any() and not out.all():
            inside += (off[out] <= np.quantile(off[~out], HELD)).tolist()
    shown = f"{np.mean(inside):8.0%}" if inside else f"{'':8}"
    ships = np.mean(off <= np.array([point.band for point in points]))
    return f"{name:32}{len(points):5}{np.quantile(off, HELD):8.1%}{shown}{ships:8.0%}"


def _parts(points: Iterable[Judged]) -> dict[str, list[Judged]]:
    """Points by what they say less than others about: ranks, and the format of a KV cache."""
    found: dict[str, list[Judged]] = {}
    for one in points:
        gpu = known_gpu(one.point.gpu)
        if one.point.dp > 1:
            found.setdefault(f"{one.group}, dp", []).append(one)
        if one.point.dtype == "int4":
            found.setdefault(f"{one.group}, int4", []).append(one)
            found.setdefault(f"{one.group}, int4, {one.point.gpu}", []).append(one)
        if gpu is not None and gpu_named(gpu).fp4 and one.point.dtype in {"fp8", "fp4"}:
            found.setdefault(f"{one.group}, {one.point.dtype}", []).append(one)
    return found


def _median(points: Iterable[Judged]) -> str:
    off = [point.off[0] for point in points]
    return f"{np.expm1(np.median(off)):+9.0%}" if off else f"{'':9}"


def said_folder(about: str, arguments: list[str]) -> Path:
    """The folder of measurements that a command line names, or the usual one."""
    return _asked(about, arguments).data


class _Asked(argparse.Namespace):
    data: Path
    hold: str
    kv: str
    imbalance: float
    int4: float


def _asked(about: str, arguments: list[str]) -> _Asked:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("SAGESERVE_DATA", beside))  # noqa: TID251 # the shell of a benchmark is told where data is
    parser.add_argument("--data", type=Path, default=default, help="folder that holds measured_points/points.csv")
    parser.add_argument(
        "--hold", choices=("configuration", "model", "gpu"), default="configuration", help="what is held out whole"
    )
    parser.add_argument("--kv", choices=("", "bf16", "fp8"), default="", help="format of every KV cache; empty: what is usual")
    parser.add_argument("--imbalance", type=float, default=FITTED.imbalance, help="of the GPU whose experts are asked for most")
    parser.add_argument(
        "--int4", type=float, default=FITTED.unpacked_int4, help="TB/s at most that weights in int4 are streamed at"
    )
    return parser.parse_args(arguments, _Asked())


def main() -> None:
    """Read, play, print."""
    told = _asked(__doc__ or "", sys.argv[1:])
    rows = read_points(told.data / "measured_points" / "points.csv")
    why = Counter[str]()
    points: list[Judged] = []
    efficiency = replace(FITTED, imbalance=told.imbalance, unpacked_int4=told.int4)
    for row in rows:
        asked = replace(row, kv_dtype=told.kv) if told.kv else row
        found = left_out(asked) or judge(asked, efficiency)
        if isinstance(found, str):
            why[found.split(":", maxsplit=1)[0]] += 1
        else:
            points.append(found)
    print(f"{len(points):,} of {len(rows):,} points played; left out:")
    for reason, count in why.most_common():
        print(f"{count:6,}  {reason}")
    report(points, told.hold)


if __name__ == "__main__":
    main()
