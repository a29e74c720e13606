"""Forecasters of the user's: checked when they are found, and what they forecast is looked at before anybody plans by it.

Read next: `series.py` for the protocol, `core/plugins.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sageserve.base.errors import ConfigError, PluginError
from sageserve.core.forecast.series import FittedForecaster, QuantileForecast, Series
from sageserve.core.plugins import FORECASTER, blamed, check_call, find_plugin, where


def own_forecaster(name: str) -> "OwnForecaster | None":
    """The forecaster that the user's code calls so; None when no code does.

    Raises:
        ConfigError: it is not there, or is no forecaster.
        PluginError: an exception was raised while it was imported or made.
    """
    found: Any = find_plugin(FORECASTER, name)
    if found is None:
        return None
    if isinstance(found, type):
        check_call(f"{name}, when it is made,", found)
        try:
            found = found()
        except Exception as error:  # whatever the user's own code raises
            raise blamed(f"the forecaster {name} cannot be made", error) from error
    if not callable(getattr(found, "fit", None)):
        raise ConfigError(
            f"{where(found)}: the forecaster {name} has no method fit(history)",
            hint="what a forecaster must have is said in sageserve.plugins.Forecaster",
        )
    check_call(f"{name}.fit", found.fit, "history")
    return OwnForecaster(name, found)


class OwnForecaster:
    """A forecaster of the user's.

    Args:
        name: as it was given.
        target: theirs.
    """

    def __init__(self, name: str, target: Any) -> None:  # noqa: ANN401 # of whatever type theirs is
        self.name = name
        self.target = target

    def fit(self, history: Series) -> FittedForecaster:
        """Read a history."""
        try:
            fitted = self.target.fit(history)
        except Exception as error:  # whatever the user's own code raises
            raise blamed(f"the forecaster {self.name}", error) from error
        if not callable(getattr(fitted, "predict", None)):
            raise PluginError(
                f"{where(self.target.fit)}: {self.name}.fit gave {fitted!r}, which has no method predict(bins, quantiles)",
                hint="sageserve.plugins.FittedForecaster says what it must have",
            )
        return _OwnFitted(self.name, fitted, history)


class _OwnFitted:
    def __init__(self, name: str, target: Any, history: Series) -> None:  # noqa: ANN401 # as above
        self._name = name
        self._target = target
        self._history = history

    def predict(self, bins: int, quantiles: Sequence[float] = ()) -> QuantileForecast:
        try:
            found = self._target.predict(bins, tuple(quantiles))
        except Exception as error:  # whatever the user's own code raises
            raise blamed(f"the forecaster {self._name}", error) from error
        taken = _as_arrays(found)
        wrong = taken if isinstance(taken, str) else _wrong(taken, self._history, bins, tuple(sorted(quantiles)))
        if isinstance(taken, str) or wrong:
            raise PluginError(
                f"{where(self._target.predict)}: the forecaster {self._name} {wrong}",
                hint="sageserve.plugins.QuantileForecast says what a forecast holds",
            )
        return taken


def _as_arrays(found: object) -> QuantileForecast | str:
    """A forecast whose numbers are arrays of float64, whatever they were given as; a sentence where they are none."""
    if not isinstance(found, QuantileForecast):
        return f"gave {type(found).__name__}, not a QuantileForecast"
    try:
        return replace(
            found,
            point=np.asarray(found.point, np.float64),
            levels=tuple(float(level) for level in found.levels),
            values=np.asarray(found.values, np.float64),
        )
    except (TypeError, ValueError) as error:
        return f"gave a forecast that is no array of numbers ({error})"


def _wrong(found: QuantileForecast, history: Series, bins: int, levels: tuple[float, ...]) -> str:
    """What is wrong with a forecast; empty: nothing."""
    if (found.start, found.bin) != (history.end, history.bin):
        begins = f"forecast from {found.start} us in bins of {found.bin} us"
        return f"{begins}; the history ends at {history.end} us, in bins of {history.bin} us"
    point, values = found.point, found.values
    if found.levels != levels:
        return f"gave the quantiles {found.levels}, asked for {levels}"
    if point.shape != (bins,) or values.shape != (bins, len(levels)):
        return f"gave shapes {point.shape} and {values.shape}, asked for {(bins,)} and {(bins, len(levels))}"
    if not (np.isfinite(point).all() and np.isfinite(values).all() and (point >= 0).all() and (values >= 0).all()):
        return "gave a forecast that is negative or no number"
    if (np.diff(values, axis=1) < 0).any():
        return "gave a higher quantile below a lower one"
    return ""
