"""Measure the traffic of Office 365 in November 2024, so that anyone can repeat `data/builtin/traffic-o365.yaml`.

Reads prompt tokens per hour and minute and length quantiles from `$SAGESERVE_DATA/o365_nov2024` (or
`../shared/data/o365_nov2024` beside the repository) and prints the built-in file, byte for byte.

* hours × days: the rank-one fit (leading singular vectors) of each series' 7 × 24 table of hours. The series sum
  three regions whose clocks differ, so the hours are moved back by the mean lag of the regions.
* share: tokens of the week over the mean prompt.
* noise: the spread of the minutes around the quarter of an hour they are in, without the part that single requests make, and
  widened because regions draw their noise independently.

    python bench/calibrate_traffic.py [--data FOLDER] > src/sageserve/data/builtin/traffic-o365.yaml

Draws its mean lengths from the package's own table, so that they are those of the generator.
Read next: `src/sageserve/data/workload/rates.py`.
"""

import argparse
import csv
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sageserve.data.workload.rates import length_table

Floats = NDArray[np.float64]

SMOOTH = 15  # minutes: longer than a burst of requests, shorter than the plateaus between switches
SWITCH = 4.0  # a minute this many times above or below its neighbours is another level, not noise
BRIDGE = 1e-3  # a minute within this share of the straight line between its neighbours was filled in

SERIES = {
    "llama-2-70b": "Llama-2-70B(A)",
    "bloom-176b": "Bloom-176B(B)",
    "llama-3.1-8b": "Llama-3.1-8B(C)",
    "llama-3.2-3b": "Llama-3.2-3B(D)",
}
GROUPS = {"interactive": "prod", "batch": "dev"}  # the paper's IW and NIW
REGIONS = {"eastus": (0.43, 0), "centralus": (0.30, 1), "westus": (0.28, 3)}  # share, hours behind the first
CUT_HOURS = 41  # llama-3.2-3b prod has next to nothing after them
CUT_MODEL, STEADY_MODEL = "llama-3.2-3b", "llama-3.1-8b"
FLOOR = 0.01  # of the mean: below it an hour or a day of a series is silence, not a measured ratio

HEAD = """\
# Traffic of Office 365, one week of November 2024: a part, to extend together with a fleet.
# Printed by bench/calibrate_traffic.py; change it there. Sources: prompt tokens per minute recovered from the figure
# notebooks/all_arrival.pdf of shashwatj07/SageServe (MIT), length quantiles digitised (±5 %) from the same repository.
# The names are the paper's: models of the figure are GPT-4o, GPT-4o-mini, GPT-3.5 and a second GPT-4o deployment.
# Limits: missing minutes were bridged by straight lines; t = 0 is a Monday 00:00 on the data's clock, likely UTC, so
# 17:00 to 19:00 is noon in the US; bloom-176b prod goes on and off without a cycle, which shapes do not repeat;
# llama-3.2-3b prod was recorded for {cut} h only: its share is what it sent in them, its days are {steady}'s.
# Tokens over mean prompts make {total:.1f} M requests in the week, {iw:.0%} of them IW; published are 7.2 M and 72 %.
# The length quantiles make {output:.0f} output tokens a request in that mix; published are 222, so their tail is missing.

about: arrivals and token lengths as measured in Office 365 in November 2024, scaled to any number of requests

workload:
  generate:
    interactive: 0.72 # IW is 72 % of requests, NIW 28 % (SageServe, arXiv 2502.14617)
    tiers: {{iw-f: 1, iw-n: 1, niw: 1}} # the paper does not publish how IW splits into fast and normal: halves
    regions: {regions} # shares of requests in the figure (they add up to 1.01)
    shift: {shift} # time zones of the regions' users: Eastern, Central, Pacific
    shapes:"""


@dataclass(frozen=True)
class Measured:
    """One series: a model in a group."""

    tokens: float
    requests: float
    hours: Floats
    days: Floats
    noise: float


def read_table(path: Path) -> Mapping[str, Floats]:
    """Columns of a CSV of numbers by name, plain or gzipped."""
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.suffix == ".gz" else raw
    rows = list(csv.reader(text.decode().splitlines()))
    numbers = np.array(rows[1:], dtype=np.float64)
    return {name: numbers[:, column] for column, name in enumerate(rows[0])}


def with_ends(quantiles: Sequence[float], tokens: Sequence[float]) -> list[tuple[float, float]]:
    """Quantile points from 0 to 1: both ends continue the outermost piece on a log scale."""
    log, q = np.log(np.array(tokens)), np.array(quantiles)
    low = log[0] - (log[1] - log[0]) / (q[1] - q[0]) * q[0]
    high = log[-1] + (log[-1] - log[-2]) / (q[-1] - q[-2]) * (1 - q[-1])
    values = np.maximum(np.rint(np.exp(np.array([low, *log, high]))), 1)
    return list(zip([0.0, *quantiles, 1.0], values.tolist(), strict=True))


def week_shape(hourly: Floats) -> tuple[Floats, Floats]:
    """Hours and days, each with mean 1, whose product is nearest to the 7 × 24 table.

    Single outbursts are cut to five times the upper quartile first: they are no habit of their hour or day.
    """
    table = np.minimum(hourly, 5 * np.percentile(hourly, 75)).reshape(7, 24)
    left, _, right = np.linalg.svd(table, full_matrices=False)
    days, hours = np.abs(left[:, 0]), np.abs(right[0])
    return hours / hours.mean(), days / days.mean()


def back_by_mean_lag(hours: Floats) -> Floats:
    """The profile on the first region's clock: the sum over regions lags it by their mean shift."""
    weight = sum(share for share, _ in REGIONS.values())
    lag = sum(share * behind for share, behind in REGIONS.values()) / weight
    return np.asarray(np.interp(np.arange(24) + lag, np.arange(24), hours, period=24))


def minute_noise(minutes: Floats, table: Floats, per_minute: float) -> float:
    """Deviation of the log rate of one region from minute to minute.

    The half-width of the central 68 % of log(minute / moving median of 15 minutes), or the log-normal with the same
    coefficient of variation where that is less; less the variance of few requests of unequal length. Left out are
    minutes bridged by straight lines, and switches between levels (a factor of 4 or more): gaps of the recording, which
    on bloom-176b prod would otherwise pass for noise.
    """
    padded = np.pad(minutes, SMOOTH // 2, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, SMOOTH), axis=1)
    bend = np.abs(np.diff(np.pad(minutes, 1, mode="edge"), 2))
    bridged = bend < BRIDGE * np.maximum(minutes, 1.0)
    level = (minutes > smooth / SWITCH) & (minutes < smooth * SWITCH)
    active = (minutes > 0) & level & ~bridged & (smooth > 0.1 * minutes.mean())
    ratio = minutes[active] / smooth[active]
    log = np.log(ratio)
    robust = (np.percentile(log, 84) - np.percentile(log, 16)) / 2
    spread = min(np.expm1(robust**2), ratio.var())
    shot = (table**2).mean() / table.mean() ** 2 / per_minute
    weights = np.array([share for share, _ in REGIONS.values()])
    alone = ((weights / weights.sum()) ** 2).sum()
    return float(np.sqrt(np.log1p(max(spread - shot, 0.0) / alone)))


def measure(folder: Path) -> tuple[dict[tuple[str, str], Measured], dict[str, dict[str, list[tuple[float, float]]]]]:
    """All series, and the quantile points of prompts and outputs by model."""
    hourly = read_table(folder / "prompt_tokens_per_hour_nov2024.csv")
    minutely = read_table(folder / "prompt_tokens_per_minute_nov2024.csv.gz")
    lengths = json.loads((folder / "lengths.json").read_text())
    points = {
        model: {kind: with_ends(lengths["quantiles"], lengths[f"{kind}_tokens"][model]) for kind in ("prompt", "output")}
        for model in SERIES
    }
    found: dict[tuple[str, str], Measured] = {}
    for model, name in SERIES.items():
        table = length_table(points[model]["prompt"], model)
        for group, kind in GROUPS.items():
            series, minutes = hourly[f"{name}_{kind}"], minutely[f"{name}_{kind}"]
            hours, days = week_shape(series)
            span = minutes
            if (model, group) == (CUT_MODEL, "interactive"):
                hours = np.array([series[hour:CUT_HOURS:24].mean() for hour in range(24)])
                hours, days = hours / hours.mean(), found[STEADY_MODEL, group].days
                span = minutes[: CUT_HOURS * 60]
            requests = series.sum() / table.mean()
            noise = minute_noise(span, table, requests / len(span))
            found[model, group] = Measured(series.sum(), requests, back_by_mean_lag(hours), days, noise)
    return found, points


def listed(values: Floats) -> str:
    """Relative numbers with mean 1, three digits, nothing below the floor."""
    return "[" + ", ".join(f"{max(value, FLOOR):.3g}" for value in values) + "]"


def pairs(points: Sequence[tuple[float, float]]) -> str:
    """Quantile points as YAML."""
    return "[" + ", ".join(f"[{quantile:g}, {tokens:g}]" for quantile, tokens in points) + "]"


def mapping(items: Mapping[str, str]) -> str:
    """A YAML mapping on one line."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"


def render(folder: Path) -> str:
    """The built-in file."""
    found, points = measure(folder)
    total = sum(series.requests for series in found.values())
    lines = [
        HEAD.format(
            total=total / 1e6,
            output=sum(
                series.requests * length_table(points[model]["output"], model).mean() for (model, _), series in found.items()
            )
            / total,
            iw=sum(series.requests for (_, group), series in found.items() if group == "interactive") / total,
            cut=CUT_HOURS,
            steady=STEADY_MODEL,
            regions=mapping({name: f"{share:.2f}" for name, (share, _) in REGIONS.items()}),
            shift=mapping({name: f"{behind}h" for name, (_, behind) in REGIONS.items() if behind}),
        )
    ]
    for model in SERIES:
        lines.append(f"      {model}:")
        for group, kind in GROUPS.items():
            series = found[model, group]
            mean = series.tokens / series.requests
            of_group = sum(other.requests for (_, same), other in found.items() if same == group)
            origin = (
                f"{kind}: {series.tokens / 1e9:.2f} G prompt tokens in the week / mean prompt {mean:,.0f}"
                f" = {series.requests / 1e6:.2f} M requests"
            )
            lines += [
                f"        {group}:",
                f"          share: {series.requests / of_group:.3f} # {origin}",
                f"          hours: {listed(series.hours)} # 24 h, mean 1",
                f"          days: {listed(series.days)} # Monday to Sunday, mean 1",
                f"          noise: {series.noise:.2f} # of one region; measured on the sum of three",
                f"          prompt: {pairs(points[model]['prompt'])} # measured 0.1 to 0.97, ends extrapolated",
                f"          output: {pairs(points[model]['output'])} # likewise",
            ]
    return "\n".join(lines) + "\n"


def data_folder() -> Path:
    """Where the measurements are unless `--data` says otherwise."""
    given = os.environ.get("SAGESERVE_DATA")  # noqa: TID251  # a bench is told where its data is, as the CLI is
    root = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return root / "o365_nov2024"


def main() -> None:
    """Print the built-in file."""
    parser = argparse.ArgumentParser(description="Measure the traffic of data/builtin/traffic-o365.yaml")
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the measurements")
    print(render(parser.parse_args().data), end="")


if __name__ == "__main__":
    main()
