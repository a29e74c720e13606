"""Any forecasters, weighted by how well each did at earlier instants of the same history.

The generic sibling of `blend.py`: it knows its members only by their protocol, so it refits each of them at every origin
it judges by, and its bands are the weighted bands of its members. Slower by the number of origins.
Read next: `catalog.py`, where forecasters are found by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sageserve.base.records import Floats
from sageserve.core.forecast.series import Forecaster, QuantileForecast, Series, levels_checked

ORIGINS: Final = 8  # instants each member is judged at
JUDGED_SHARE: Final = 0.25  # they lie in the newest quarter of the history
STEEPNESS: Final = 8.0  # weight ~ error^-8: with eight judgements only, milder than the blend's
ERROR_FLOOR: Final = 1e-6  # of the mean


@dataclass(frozen=True, slots=True)
class _FittedEnsemble:
    members: tuple[Forecaster, ...]
    history: Series

    def predict(self, bins: int, quantiles: Sequence[float] = ()) -> QuantileForecast:
        levels = levels_checked(bins, quantiles)
        share = self._shares(bins)
        forecasts = [member.fit(self.history).predict(bins, levels) for member in self.members]
        point = np.einsum("e,eh->h", share, np.stack([each.point for each in forecasts]))
        values = np.einsum("e,ehq->hq", share, np.stack([each.values for each in forecasts]))
        return QuantileForecast(
            start=self.history.end,
            bin=self.history.bin,
            point=point,
            levels=levels,
            values=np.maximum.accumulate(values, axis=1),
            calibrated=all(each.calibrated for each in forecasts),
        )

    def _shares(self, bins: int) -> Floats:
        """float64[e], summing to 1; equal shares when the history is too short to judge by."""
        values, n = self.history.values, len(self.history)
        first = max(int((1 - JUDGED_SHARE) * n), int(np.argmax(np.isfinite(values))) + 1)
        error = np.full(len(self.members), ERROR_FLOOR * max(float(np.nanmean(values)), 1e-300))
        for known in sorted({int(each) for each in np.linspace(first, n - bins, ORIGINS) if first <= each < n}):
            past = Series(values[:known], self.history.bin, self.history.start)
            truth = values[known : known + bins]
            for e, member in enumerate(self.members):
                missed = np.abs(member.fit(past).predict(len(truth)).point - truth)
                error[e] += float(missed[np.isfinite(truth)].sum()) / (ORIGINS * bins)
        share = (error / error.min()) ** -STEEPNESS
        return share / np.asarray(share.sum())


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Members weighted by rolling-origin error on the history only.

    Args:
        members: one at least.
        name: the word people choose it by.
    """

    members: tuple[Forecaster, ...]
    name: str = "ensemble"

    def fit(self, history: Series) -> _FittedEnsemble:
        """Remember the history; members are fitted when the horizon is known."""
        return _FittedEnsemble(self.members, history.observed())
