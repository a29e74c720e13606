"""Judge the forecasters on real demand: WAPE, bias and coverage, by forecasts from growing histories.

Reads `$SAGESERVE_DATA` (or `../shared/data` beside the repository): the O365 week per minute, ServeGen's week per client
in 10-minute bins, and the sampled ServeGen requests per model and tier. Prints one JSON line per series and forecaster on
stdout, and a table and a summary on stderr. Days 5 to 7 are judged unless told otherwise;
parameters were chosen mainly on days 3 and 4.

    python bench/forecast.py [--data FOLDER] [--only TEXT] [--first-day 5] [--last-day 7] [--library]

Read next: `docs/reference/forecasting.md` for the figures and what they mean.
"""

import argparse
import csv
import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from sageserve.base.records import Floats
from sageserve.base.units import DAY, HOUR, MINUTE, Micros
from sageserve.core.forecast import HOUR_AHEAD, PLANNING, Score, Series, Span, backtest, forecaster, origins

DAILY_ACF = 0.4  # hourly sums correlate with those a day earlier at least this well: a daily cycle
BUSY = 1.0  # requests/s from which a single client is worth a line
BROKEN = {
    "o365/Bloom-176B(B)_prod": "bridged by straight lines",
    "o365/Llama-3.2-3B(D)_prod": "stops on the second day",
}
BASELINES = ("last-value", "seasonal-naive")


@dataclass(frozen=True)
class Case:
    """One series to judge."""

    name: str
    series: Series
    on_off: bool  # a tenth or more of its bins are zero
    daily: bool


def case(name: str, values: Floats, bin_us: Micros) -> Case:
    """A series, and whether it has a daily cycle."""
    per_hour = HOUR // bin_us
    hourly = np.nan_to_num(values)[: len(values) // per_hour * per_hour].reshape(-1, per_hour).sum(axis=1)
    related = np.corrcoef(hourly[:-24], hourly[24:])[0, 1]
    return Case(name, Series(values, bin_us), bool(np.mean(values == 0) >= 0.1), bool(related >= DAILY_ACF))


def o365(folder: Path) -> Iterator[Case]:
    """Prompt tokens per 5 minutes, eight columns, three regions together."""
    with gzip.open(folder / "o365_nov2024" / "prompt_tokens_per_minute_nov2024.csv.gz", "rt") as file:
        rows = list(csv.reader(file))
    table = np.array(rows[1:], dtype=np.float64)
    for column, name in enumerate(rows[0][1:], start=1):
        yield case(f"o365/{name}", table[:, column].reshape(-1, 5).sum(axis=1), 5 * MINUTE)


def clients(folder: Path) -> Iterator[Case]:
    """Requests per 10 minutes of each model, its interactive clients together, and its busy interactive clients.

    Bins in which a whole model shows less than a third of its median are gaps of the collection (all clients vanish
    and come back at once), and are marked missing.
    """
    with (folder / "servegen_week" / "client_table.csv").open() as file:
        listed = list(csv.DictReader(file))
    for model in ("m-large", "m-mid", "m-small"):
        table = pq.read_table(folder / "servegen_week" / f"requests_per_10min_by_client_{model}.parquet")
        counts = np.stack([table.column(name).to_numpy() for name in table.column_names[1:]], axis=1).astype(np.float64)
        total = counts.sum(axis=1)
        counts[total < np.median(total) / 3] = np.nan
        inter = [row for row in listed if row["model"] == model and row["suggested_tier"] == "IW"]
        yield case(f"servegen/{model}", counts.sum(axis=1), 10 * MINUTE)
        columns = [int(row["client_id"]) for row in inter]
        yield case(f"servegen/{model}/IW", counts[:, columns].sum(axis=1), 10 * MINUTE)
        for row in inter:
            if float(row["mean_rps"]) >= BUSY and row["days_active"] == "14":
                yield case(f"servegen/{model}/c{row['client_id']}", counts[:, int(row["client_id"])], 10 * MINUTE)


def tiered(folder: Path) -> Iterator[Case]:
    """Requests and prompt tokens per 5 minutes, and requests per hour, of each model and tier of the sampled week."""
    table = pq.read_table(
        folder / "servegen_week" / "tiered_7d.parquet", columns=["arrival_ms", "model", "tier", "prompt_tokens"]
    )
    model, tier = (table.column(name).combine_chunks() for name in ("model", "tier"))
    minute = table.column("arrival_ms").to_numpy() // 60_000
    tokens = table.column("prompt_tokens").to_numpy().astype(np.float64)
    names = [name for name in model.dictionary.to_pylist() if name != "deepseek-r1"]  # one day, repeated
    for name in sorted(names):
        for level in sorted(tier.dictionary.to_pylist()):
            rows = model.indices.to_numpy() == model.dictionary.index(name).as_py()
            rows &= tier.indices.to_numpy() == tier.dictionary.index(level).as_py()
            requests = np.bincount(minute[rows], minlength=10_080)[:10_080].astype(np.float64)
            prompts = np.bincount(minute[rows], weights=tokens[rows], minlength=10_080)[:10_080]
            yield case(f"tiered/{name}_{level}/requests", requests.reshape(-1, 5).sum(axis=1), 5 * MINUTE)
            yield case(f"tiered/{name}_{level}/prompt", prompts.reshape(-1, 5).sum(axis=1), 5 * MINUTE)
            yield case(f"hourly/{name}_{level}/requests", requests.reshape(-1, 60).sum(axis=1), HOUR)


def spans_of(each: Case) -> tuple[Span, ...]:
    """The next hour, and 20 to 60 minutes where bins are fine enough; hourly bins have an interval themselves."""
    return (Span("next hour", 0, HOUR),) if each.series.bin == HOUR else (HOUR_AHEAD, PLANNING)


def show(found: dict[str, dict[str, dict[str, Score]]], cases: dict[str, Case]) -> None:
    """The table and the summary."""
    console = Console(stderr=True, width=150)
    table = Table(
        "series",
        "daily",
        *(f"{name} {what}" for what in ("hour", "20-60") for name in ("blend", "last", "seas")),
        "bias",
        "cover",
    )
    beaten, covered, daily = 0, 0, 0
    for name, by in found.items():
        spans = [span.name for span in spans_of(cases[name])]
        judged = [[wape(by[who][span]) for who in ("blend", *BASELINES)] for span in spans]
        last = by["blend"][spans[-1]]
        cells = [f"{value:.3f}" for row in judged for value in row] + [""] * (6 - 3 * len(judged))
        counts = cases[name].daily and name not in BROKEN
        win, cover = min(judged[-1][1:]) > judged[-1][0], 0.75 <= (last.coverage or 0.0) <= 0.85
        if counts:
            daily, beaten, covered = daily + 1, beaten + win, covered + cover
        note = BROKEN.get(name) or ("daily" if counts else "-") + (", on/off" if cases[name].on_off else "")
        table.add_row(
            name,
            note,
            *cells,
            f"{last.bias:+.3f}",
            f"{last.coverage:.3f}" + ("" if cover else " !"),
            style="" if win or not counts else "bold red",
        )
    console.print(table)
    console.print(
        f"{daily} series with a daily cycle: better than both baselines on {beaten}, 80 % interval covers 75-85 % on {covered}"
    )


def wape(score: Score) -> float:
    """That of a series with demand; infinite without."""
    return float("inf") if score.wape is None else score.wape


def line(name: str, who: str, scores: dict[str, Score], **more: object) -> str:
    """One result as JSON."""
    return json.dumps({"series": name, "forecaster": who, **{span: asdict(each) for span, each in scores.items()}, **more})


def library(each: Case, days: tuple[int, int]) -> None:
    """The library's methods one hour ahead on hourly bins, point forecasts only, beside ours on both bins."""
    hourly = each.series.coarser(HOUR // each.series.bin)
    for who in ("arima", "auto-arima", "ets", "mstl", "blend", "last-value"):
        at = origins(hourly, first=(days[0] - 1) * DAY, last=days[1] * DAY - HOUR)
        scores = backtest(hourly, forecaster(who), at=at, spans=(HOUR_AHEAD,), intervals=False)
        print(line(each.name, who, scores, bins="hourly", days=days))
    at = origins(each.series, first=(days[0] - 1) * DAY, last=days[1] * DAY - HOUR)
    scores = backtest(each.series, forecaster("blend"), at=at, spans=(HOUR_AHEAD,), intervals=False)
    print(line(each.name, "blend", scores, bins="5 min, summed", days=days))


def main() -> None:
    """Measure and print."""
    given = os.environ.get("SAGESERVE_DATA")  # noqa: TID251  # a benchmark is told where its data is, as the CLI is
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path(given) if given else beside)
    parser.add_argument("--only", default="", help="series whose name holds this text")
    parser.add_argument("--first-day", type=int, default=5)
    parser.add_argument("--last-day", type=int, default=7)
    parser.add_argument("--library", action="store_true", help="ARIMA and friends, one hour ahead, instead")
    args = parser.parse_args()
    cases = {each.name: each for source in (o365, clients, tiered) for each in source(args.data) if args.only in each.name}
    if args.library:
        for each in cases.values():
            library(each, (args.first_day, args.last_day))
        return
    found: dict[str, dict[str, dict[str, Score]]] = {}
    for name, each in cases.items():
        at = origins(each.series, first=(args.first_day - 1) * DAY, last=args.last_day * DAY - HOUR)
        for who in ("blend", *BASELINES):
            began = time.process_time()
            scores = backtest(each.series, forecaster(who), at=at, spans=spans_of(each))
            spent = (time.process_time() - began) / len(at)
            found.setdefault(name, {})[who] = scores
            print(line(name, who, scores, daily=each.daily, on_off=each.on_off, cpu_ms_per_forecast=round(spent * 1e3, 1)))
        sys.stdout.flush()
    show(found, cases)


if __name__ == "__main__":
    main()
