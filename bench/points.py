"""Judge derived profiles on what others measured: closed loops at a fixed concurrency, every engine, GPU and format.

    python -m bench.points                 figures by engine, dense models and mixtures of experts apart
    python -m bench.points --hold gpu      what a GPU (or a model) is predicted like when no point of it was seen

Each point of `$SAGESERVE_DATA/measured_points/points.csv` that a profile's name stands for is played through the simulator's own
kernel. Printed are the errors as the profiles ship, and cross-validated ones: the other folds of the same engine and kind give
one factor for all times and the band that held 90 % of their points; the fold that is held out judges both. A fold holds whole
configurations with all their concurrencies. Which rows are left out is decided by `left_out` from columns alone.

Knows nothing of versions: an engine is its name. Read next: `data/profiles/roofline.py`, docs/why/results.md.
"""

import argparse
import csv
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from sageserve.base.errors import SageServeError
from sageserve.base.records import Floats
from sageserve.base.rng import stream
from sageserve.data.profiles.hardware import FORMATS, gpu_named, is_model, shape
from sageserve.data.profiles.roofline import FITTED, BatchLimits, Efficiency, band, roofline
from sageserve.sim.calibration.anchor import known_model
from sageserve.sim.replay import replay_closed

FOLDS: Final = 5
ROUNDS: Final = 5  # requests per client: the first is a burst in measurements as well
MOST: Final = 4_000  # requests per point
HELD: Final = 0.9  # of the points a band is made to hold
NEAR: Final = 0.15
HOLDS: Final = ("configuration", "model", "gpu")
LATENT: Final = ("e2e", "ttft", "tpot")
GPUS: Final = {
    "h100_sxm": "h100-80gb",
    "h200_sxm": "h200",
    "b200_sxm": "b200",
    "b300_sxm": "b300",
    "a100_40gb": "a100-40gb",
    "a800_80gb": "a800-80gb",
    "rtx_4090": "rtx-4090",
    "rtx_5090": "rtx-5090",
    "rtx_pro_6000": "rtx-pro-6000",
}
DTYPES: Final = {"bf16": "bf16", "fp16": "bf16", "fp8": "fp8", "fp4": "nvfp4", "mxfp4": "mxfp4", "int4": "int4"}
_FORMAT: Final = re.compile(r"(-fp8-dynamic|-fp8|-nvfp4)$", re.IGNORECASE)
BUCKETS: Final = ((1, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 10**9))

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Judged:
    """A point: logarithms of predicted over measured means, in the order of LATENT, and what it belongs to."""

    row: Row
    model: str
    engine: str
    mixture: bool
    clients: int
    band: float
    off: Floats

    @property
    def configuration(self) -> str:
        """All that is fixed while concurrency varies."""
        return "|".join(self.row[name] for name in ("model", "gpu", "tp", "dp", "ep", "engine", "dtype", "isl", "osl"))

    @property
    def group(self) -> tuple[str, str]:
        """Those who share a factor and a band."""
        return self.engine, "mixture" if self.mixture else "dense"


def left_out(row: Row) -> str:
    """Why a row is not judged, from its columns alone; empty: it is."""
    if row["mode"] != "agg":
        return "prefill and decode in different pools"
    if row["dp"] not in {"", "1"} or row["note"].startswith(("attention DP", "tp_size", "moe_tp")):
        return "data parallel, or its parallelism is not clear"
    if not (row["concurrency"].isdigit() and row["e2e_ms"] and row["ttft_ms"] and row["tpot_ms"]):
        return "no fixed concurrency, or a latency is missing"
    if row["gpu"] not in GPUS and row["gpu"] not in {"gb200", "gb300", "mi300x"}:
        return "GPU without a name here"
    return "" if model_of(row) else "model or format without a name here"


def model_of(row: Row) -> str:
    """Our name of the model in its format; empty when there is none."""
    plain = known_model(_FORMAT.sub("", row["model"]).replace("Meta-Llama", "Llama"))
    wanted = DTYPES.get(row["dtype"])
    if plain is None or wanted is None:
        return ""
    if plain.startswith("gpt-oss"):  # published in mxfp4 alone; other words are about its KV cache or arithmetic
        return plain
    if shape(plain).weights == wanted:
        return plain
    name = f"{plain}-{wanted}"
    return name if wanted in FORMATS and is_model(name) else ""


def judge(row: Row, efficiency: Efficiency = FITTED) -> Judged | str:
    """A point played, or why it cannot be."""
    model, gpu, clients = model_of(row), GPUS.get(row["gpu"], row["gpu"]), int(row["concurrency"])
    one, rates, tp = shape(model), gpu_named(gpu), int(row["tp"])
    sequences = max(256, clients)
    n = clients if "one round" in row["note"] or "at once" in row["note"] else min(max(ROUNDS * clients, 16), MOST)
    random = stream(1, f"bench/points/{row['id']}")
    low = 0.8 if "uniform 0.8" in row["note"] else 1.0
    prompt, output = (random.integers(int(low * int(row[name])), int(row[name]) + 1, n) for name in ("isl", "osl"))
    try:
        limits = BatchLimits(sequences, max(8192, sequences + 1))
        profile = roofline(one, rates, tp, name=gpu, limits=limits, efficiency=efficiency)
        played = replay_closed(profile, prompt, output, clients)
    except SageServeError as error:
        return f"does not fit: {error.message[:40]}"
    means = (played.e2e.mean(), played.ttft.mean(), played.tpot[output > 1].mean() if (output > 1).any() else np.nan)
    off = np.log([mean / 1e3 / float(row[f"{name}_ms"]) for mean, name in zip(means, LATENT, strict=True)])
    return Judged(row, model, row["engine"].split()[0], one.experts is not None, clients, band(one, rates, tp) / 100, off)


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
        ordered = sorted(group, key=lambda point: point.clients)
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
    ways: tuple[Callable[[Judged], str], ...] = (lambda p: p.configuration, lambda p: p.model, lambda p: p.row["gpu"])
    held = ways[HOLDS.index(hold)]
    print(f"\n{'':27}{'as the profiles ship':>31}{'':8}   {'one factor, ' + hold + ' held out':>32}")
    ours = f"{'E2E':>8}{'median':>8}{'±15%':>7}{'TTFT':>8}{'in band':>8}"
    print(f"{'':22}{'n':>5}{ours}   {'E2E':>8}{'±15%':>7}{'90% band':>9}{'holds':>8}")
    groups = sorted({point.group for point in points})
    for engine, kind in groups:
        print(line(f"{engine}, {kind}", [point for point in points if point.group == (engine, kind)], held))
    print("\nthe band a profile prints, and the points of vLLM that keep to it")
    for width in sorted({point.band for point in points}):
        off = np.array([point.off[0] for point in points if point.engine == "vllm" and point.band == width])
        print(f"±{width:.0%}{len(off):6} points   {(np.abs(relative(off)) <= width).mean():.0%}")
    print("\nmedian E2E by concurrency, as the profiles ship")
    print(f"{'':22}" + "".join(f"{f'{low}-{high}' if high < 10**9 else f'{low}-':>9}" for low, high in BUCKETS))
    for engine, kind in groups:
        of = [point for point in points if point.group == (engine, kind)]
        print(f"{f'{engine}, {kind}':22}" + "".join(_median(p for p in of if a <= p.clients <= b) for a, b in BUCKETS))
    print("\nE2E at other concurrencies once a configuration's profile meets its middle point")
    for engine, kind in groups:
        left = np.abs(relative(anchored([point for point in points if point.group == (engine, kind)])))
        if len(left):
            print(f"{f'{engine}, {kind}':22}{len(left):5} points   median {np.median(left):.1%}, mean {left.mean():.1%}")


def _median(points: Iterable[Judged]) -> str:
    off = [point.off[0] for point in points]
    return f"{np.expm1(np.median(off)):+9.0%}" if off else f"{'':9}"


def said_folder(about: str, arguments: list[str]) -> Path:
    """The folder of measurements that a command line names, or the usual one."""
    return _asked(about, arguments).data


class _Asked(argparse.Namespace):
    data: Path
    hold: str


def _asked(about: str, arguments: list[str]) -> _Asked:
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("SAGESERVE_DATA", beside))  # noqa: TID251 # the shell of a benchmark is told where data is
    parser.add_argument("--data", type=Path, default=default, help="folder that holds measured_points/points.csv")
    parser.add_argument(
        "--hold", choices=("configuration", "model", "gpu"), default="configuration", help="what is held out whole"
    )
    return parser.parse_args(arguments, _Asked())


def main() -> None:
    """Read, play, print."""
    told = _asked(__doc__ or "", sys.argv[1:])
    with (told.data / "measured_points" / "points.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    why = Counter[str]()
    points: list[Judged] = []
    for row in rows:
        found = left_out(row) or judge(row)
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
