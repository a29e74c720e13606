"""ARIMA(3,1,2), AutoARIMA, ETS and MSTL, computed by statsforecast, behind the same protocol as our own methods.

statsforecast comes with the extra `forecast` and is imported when one of these is first fitted. Series are summed to
15-minute bins, divided by their mean and bridged linearly where bins are missing. Errors for the bands come from
refits at earlier instants, so a forecast with quantiles costs some twenty fits and one without costs one. A search for an
order costs ten fits and more, so it is made twice at most: for the forecast, and for all errors together, on what was known
before the first of them. Must not be used where a planner waits: read `blend.py` for that. Read next: `ensemble.py`, which
chooses among any of these.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, Protocol, Self

import numpy as np

from sageserve.base.errors import PlanError
from sageserve.base.records import Floats
from sageserve.base.units import DAY, HOUR, MINUTE
from sageserve.core.forecast.bands import HistoryGrid, grid_of, leads_for
from sageserve.core.forecast.naive import filled, finish
from sageserve.core.forecast.profile import Past
from sageserve.core.forecast.series import QuantileForecast, Series, day_bins, levels_checked

RESOLUTION: Final = 15 * MINUTE  # the seasonal methods need seasons of at most some hundred bins
HISTORY_DAYS: Final = 28  # the newest four weeks are fitted: enough for a weekly season, bounded in time
LEAST: Final = 24  # bins; below this no order can be estimated and the last value stands in
ERROR_ORIGINS: Final = 24  # refits that give the errors of the bands
ERROR_SPAN: Final = 2 * DAY  # over which they are spread
SEARCHED: Final = 24  # orders that a search may look at


class Method(Enum):
    """What statsforecast is asked for; the value is the word people choose it by."""

    ARIMA = "arima"  # the order (3, 1, 2) of SageServe, arXiv 2502.14617
    AUTO_ARIMA = "auto-arima"  # order by AICc, no season: a season of 96 bins takes minutes
    ETS = "ets"  # error, trend and damping by AICc
    MSTL = "mstl"  # daily season, weekly from two weeks on; trend by ETS


class _Model(Protocol):
    def forecast(self, y: Floats, h: int) -> dict[str, Floats]: ...


class _Search(_Model, Protocol):
    model_: Mapping[str, Any]  # what was found, under the library's own names

    def fit(self, y: Floats) -> Self: ...


class _Order(NamedTuple):
    """What a search for an ARIMA found: its order, and whether differences have a mean."""

    p: int
    d: int
    q: int
    mean: bool
    drift: bool


def require_library(forecaster: str) -> None:
    """Say that statsforecast is missing when a forecaster is chosen, not hours later when it is first fitted.

    Raises:
        PlanError: it is not installed.
    """
    if find_spec("statsforecast") is None:
        raise PlanError(
            f"the forecaster {forecaster} needs statsforecast, which is not installed",
            hint="pip install 'sageserve[forecast]', or use blend, which needs nothing",
        )


def _model(method: Method, n: int, day: int, order: _Order | None = None) -> _Model:
    from statsforecast import models  # noqa: PLC0415  # an extra, and seconds to import

    if order is not None:
        fixed: _Model = models.ARIMA(order=(order.p, order.d, order.q), include_mean=order.mean, include_drift=order.drift)
        return fixed
    seasons = [turn for turn in (day, 7 * day) if turn > 1 and 2 * turn <= n]
    made: _Model
    match method:
        case Method.ARIMA:
            made = models.ARIMA(order=(3, 1, 2))
        case Method.AUTO_ARIMA:
            made = _search()
        case Method.MSTL if seasons:
            made = models.MSTL(season_length=seasons)
        case Method.MSTL | Method.ETS:
            made = models.AutoETS(season_length=1, model="ZZN", damped=True)
    return made


def _search() -> _Search:
    from statsforecast import models  # noqa: PLC0415  # an extra, and seconds to import

    made: _Search = models.AutoARIMA(season_length=1, max_p=3, max_q=3, nmodels=SEARCHED, approximation=True)
    return made


def _bridged(values: Floats) -> Floats:
    """Missing bins on a straight line between their neighbours; at the ends, the nearest observed value."""
    seen = np.isfinite(values)
    return np.interp(np.arange(len(values)), np.flatnonzero(seen), values[seen])


def _hopeless(values: Floats) -> bool:
    """Whether nothing can be estimated: too few bins, or all alike."""
    return len(values) < LEAST or float(np.nanmean(values)) == 0.0 or np.nanmax(values) == np.nanmin(values)


_UNFIT: Final = (ValueError, IndexError, ZeroDivisionError, np.linalg.LinAlgError)
"""What the library raises where an order cannot be estimated on some bins, one in some hundred histories."""


def searched(values: Floats) -> _Order | None:
    """The order that AutoARIMA chooses for these bins; None where it has too little or fails.

    Args:
        values: float64[n], NaN where missing; one observed at least.
    """
    if _hopeless(values):
        return None
    model = _search()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = model.fit(y=_bridged(values) / float(np.nanmean(values))).model_
        except _UNFIT:
            return None
    p, q, *_, d, _ = found["arma"]
    return _Order(int(p), int(d), int(q), "intercept" in found["coef"], "drift" in found["coef"])


def point(method: Method, values: Floats, horizon: int, *, day: int, order: _Order | None = None) -> Floats:
    """float64[horizon]: the library's forecast, not negative; the last value where it has too little or fails.

    Args:
        method: which.
        values: float64[n], NaN where missing; one observed at least.
        horizon: bins ahead.
        day: bins in a day; 0 for no season.
        order: of an ARIMA that was searched before; None: as the method says.
    """
    last = np.full(horizon, filled(values)[-1])
    if _hopeless(values):
        return last
    mean = float(np.nanmean(values))
    scaled = _bridged(values) / mean
    model = _model(method, len(values), day, order)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimiser's complaints; a bad fit shows in the errors, which are measured
        try:
            ahead = np.asarray(model.forecast(y=scaled, h=horizon)["mean"], dtype=np.float64) * mean
        except _UNFIT:
            return last
    return np.where(np.isfinite(ahead), np.maximum(ahead, 0.0), last)


@dataclass(frozen=True, slots=True)
class _FittedLibrary:
    method: Method
    grid: HistoryGrid

    def predict(self, bins: int, quantiles: Sequence[float] = ()) -> QuantileForecast:
        levels = levels_checked(bins, quantiles)
        series, day = self.grid.series, day_bins(self.grid.series.bin)
        horizon = -(-bins // self.grid.factor)
        leads = leads_for(horizon)
        made = np.full((len(leads), len(series)), np.nan)
        origins = self._origins(horizon) if levels else []
        order = searched(self._newest(origins[0])) if origins and self.method is Method.AUTO_ARIMA else None
        for known in origins:
            made[:, known - 1] = point(self.method, self._newest(known), horizon, day=day, order=order)[leads - 1]
        coming = point(self.method, self._newest(len(series)), horizon, day=day)
        return finish(self.grid, Past(made, coming), bins, leads=leads, levels=levels, first=0)

    def _newest(self, known: int) -> Floats:
        return self.grid.series.values[max(0, known - HISTORY_DAYS * DAY // self.grid.series.bin) : known]

    def _origins(self, horizon: int) -> list[int]:
        """Lengths of history to refit at: spread over the newest days, ending where the whole horizon is known."""
        series = self.grid.series
        end = max(len(series) - horizon, len(series) // 2)
        begin = max(LEAST, end - ERROR_SPAN // series.bin, int(np.argmax(np.isfinite(series.values))) + 1)
        if begin >= end:
            return []
        return sorted({int(known) for known in np.linspace(begin, end, ERROR_ORIGINS)})


@dataclass(frozen=True, slots=True)
class FromLibrary:
    """A statistical model of statsforecast: 0.1 to 2 s for a point, up to twenty times that with quantiles."""

    method: Method = Method.ARIMA

    @property
    def name(self) -> str:
        """The method's word."""
        return self.method.value

    def fit(self, history: Series) -> _FittedLibrary:
        """Sum the history to 15-minute bins.

        Raises:
            PlanError: nothing observed, or statsforecast is not installed.
        """
        grid = grid_of(history.observed(), RESOLUTION if HOUR % history.bin == 0 else history.bin)
        _model(self.method, len(grid.series), 0)  # complain about a missing library here, not in the middle of a plan
        return _FittedLibrary(self.method, grid)
