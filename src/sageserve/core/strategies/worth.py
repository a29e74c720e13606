"""What a request in time is worth, in dollars: driven by the promises, so that they are kept and no more is paid for.

A promise of 95 % allows a twentieth of the requests to be late. While fewer are, what would keep them in time costs more than
anyone asked for; while more are, not enough is had. So the worth rises or falls with the share of the allowance that is used, up
to the most that a request may be worth, which it begins with. It is the same for all models: then the last dollar saves as many
requests in one as in the other. Requests that even an idle engine serves too late are left out, for no number of instances saves
them. Pure arithmetic on counts. Read next: `foresight_inputs.py`.
"""

from math import exp
from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.units import HOUR, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.layout import Layout
from sageserve.core.plan.outlook import TierKept

_FADE: Final[Micros] = HOUR  # half-life of the counts: four plans show what the last one did
_PRIOR: Final = 30.0  # requests in time that nobody saw: a few late ones are no evidence
_PACE: Final = 1.0  # e-foldings per hour and allowance: as slow as the counts, or it would swing
_MOST: Final = 2.0  # allowances beyond the aim that count: an outage is over before its misses are forgotten
_STRICT: Final = 1e-3  # of the requests may be late where none may: else the first one would count without end
_LOWEST: Final = 1 / 64  # of the most: a cent where half a dollar is the most, which still pays for the middle of forecasts


class PromisedWorth:
    """Dollars that a request in time is worth now.

    Args:
        scenario: for tiers and `strategy.foresight`.
        layout: numbers of regions, models and tiers.
    """

    def __init__(self, scenario: Scenario, layout: Layout) -> None:
        self._rules = scenario.strategy.foresight
        self._shape = (-1, len(layout.names.tiers))
        self._tiers = [(k, name, tier.percentile) for k, (name, tier) in enumerate(scenario.tiers.items()) if not tier.batch]
        self._counts = np.zeros((3, len(layout.names.tiers)))  # requests, those that could be in time, those that were not
        self.dollars = self._rules.worth

    def see(self, seen: DemandSeen) -> None:
        """Count what became of requests in one bin."""
        if not seen.could:
            return
        rows = [np.array(part, float).reshape(self._shape).sum(axis=0) for part in (seen.requests, seen.could, seen.missed)]
        self._counts = self._counts * 0.5 ** (seen.length / _FADE) + rows

    def kept(self) -> tuple[TierKept, ...]:
        """By interactive tier: the share that is promised, and that kept lately of the requests that could be in time."""
        return tuple(TierKept(name, promised, 1.0 - self._missed(k)) for k, name, promised in self._tiers)

    def adjust(self) -> None:
        """Raise or lower the worth, once per plan, by how much of the tightest allowance was used lately."""
        if not self._rules.driven or not self._counts[1].any():
            return
        used = max(self._missed(k) / max(1.0 - promised, _STRICT) for k, _, promised in self._tiers)
        factor = exp(_PACE * self._rules.every / HOUR * min(used - self._rules.aim, _MOST))
        self.dollars = min(max(self.dollars * factor, self._rules.worth * _LOWEST), self._rules.worth)

    def _missed(self, tier: int) -> float:
        asked, could, missed = self._counts[:, tier].tolist()
        return min(max(missed - (asked - could), 0.0) / (could + _PRIOR), 1.0)
