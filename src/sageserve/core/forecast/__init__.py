"""Forecasts of demand per series: naive, profile regressions, library models, blends, with calibrated quantiles.

Fitting is slow work: strategies ask for it as an action, and what comes back is an event. Nothing here reads a clock, a
file or anything newer than the history it is given. Read next: `series.py` for the protocol, `blend.py` for the default.
"""

from sageserve.core.forecast.backtest import HOUR_AHEAD, INTERVAL, PLANNING, Score, Span, backtest, origins
from sageserve.core.forecast.blend import Blend
from sageserve.core.forecast.catalog import DEFAULT, FORECASTERS, SLOW, forecaster
from sageserve.core.forecast.ensemble import Ensemble
from sageserve.core.forecast.judging import JudgingPlan, incredible, judging_plan, verdict
from sageserve.core.forecast.library import FromLibrary, Method
from sageserve.core.forecast.naive import LastValue, SeasonalNaive
from sageserve.core.forecast.series import FittedForecaster, Forecaster, QuantileForecast, Series

__all__ = [
    "DEFAULT",
    "FORECASTERS",
    "HOUR_AHEAD",
    "INTERVAL",
    "PLANNING",
    "SLOW",
    "Blend",
    "Ensemble",
    "FittedForecaster",
    "Forecaster",
    "FromLibrary",
    "JudgingPlan",
    "LastValue",
    "Method",
    "QuantileForecast",
    "Score",
    "SeasonalNaive",
    "Series",
    "Span",
    "backtest",
    "forecaster",
    "incredible",
    "judging_plan",
    "origins",
    "verdict",
]
