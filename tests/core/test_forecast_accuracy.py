"""Figures on real demand, so that a change that loses accuracy is seen; `bench/forecast.py` measures all series.

The next-hour figure is of days 4 to 7 and so includes a day that parameters were chosen on; the others are of days 5 to 7.

Read next: `docs/reference/forecasting.md`.
"""

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from sageserve.base.units import DAY, MINUTE
from sageserve.core.forecast import HOUR_AHEAD, PLANNING, Score, Series, backtest, forecaster, origins

COLUMNS = ("Llama-2-70B(A)_prod", "Llama-3.1-8B(C)_prod")


@pytest.fixture(scope="module")
def week(shared_data: Path) -> dict[str, Series]:
    """Prompt tokens per five minutes."""
    with gzip.open(shared_data / "o365_nov2024" / "prompt_tokens_per_minute_nov2024.csv.gz", "rt") as file:
        rows = list(csv.reader(file))
    table = np.array(rows[1:], dtype=np.float64)
    places = {name: rows[0].index(name) for name in COLUMNS}
    return {name: Series(table[:, i].reshape(-1, 5).sum(axis=1), 5 * MINUTE) for name, i in places.items()}


def judge(series: Series, name: str, *, first_day: int) -> dict[str, Score]:
    at = origins(series, first=(first_day - 1) * DAY, last=7 * DAY)
    return backtest(series, forecaster(name), at=at, spans=(HOUR_AHEAD, PLANNING))


@pytest.mark.slow
def test_next_hour_of_llama_2_70b_is_foretold(week: dict[str, Series]) -> None:
    ours = judge(week["Llama-2-70B(A)_prod"], "blend", first_day=4)["next hour"]
    assert ours.wape is not None
    assert ours.wape < 0.083


@pytest.mark.extended
@pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="ten seconds of ARIMA: set SAGESERVE_LONG=1")  # noqa: TID251 # by hand
def test_next_hour_of_llama_2_70b_is_closer_than_arima(week: dict[str, Series]) -> None:
    series = week["Llama-2-70B(A)_prod"]
    ours = judge(series, "blend", first_day=4)["next hour"]
    pytest.importorskip("statsforecast", reason="the extra `forecast` is not installed")
    hourly = series.coarser(12)
    at = origins(hourly, first=3 * DAY, last=7 * DAY)
    arima = backtest(hourly, forecaster("arima"), at=at, spans=(HOUR_AHEAD,), intervals=False)["next hour"]
    assert ours.missed < 0.85 * arima.missed


@pytest.mark.slow
@pytest.mark.parametrize("column", COLUMNS)
def test_planning_span_beats_both_baselines_and_covers(week: dict[str, Series], column: str) -> None:
    ours, last, seasonal = (
        judge(week[column], name, first_day=5)["20-60 min"] for name in ("blend", "last-value", "seasonal-naive")
    )
    assert ours.missed < 0.8 * min(last.missed, seasonal.missed)
    assert ours.coverage is not None
    assert 0.75 <= ours.coverage <= 0.85
