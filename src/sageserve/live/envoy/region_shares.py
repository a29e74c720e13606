"""How a model's requests are to be shared among regions, for whoever knows only regions: the router's answer, as for an Envoy.

Asked of the same table that gateways get, by the same `shares_of`; of a region that is blind nothing is known, and so nothing of
any. Read next: `shares.py`; `live/authority/share_hand.py`, which writes them.
"""

from collections.abc import Callable, Collection

from sageserve.base.config import Scenario, ShareSettings
from sageserve.base.units import Micros
from sageserve.core.authority.shares import hundredths
from sageserve.core.layout import Layout
from sageserve.live.envoy.names import used
from sageserve.live.envoy.shares import Traffic, shares_of
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.wire import RoutingTable


class RegionShares:
    """Shares of all objects of `live.shares`.

    Args:
        scenario: with them.
        layout: the numbers behind its names.
        table: as a gateway is told.
        blind: endpoints whose signals are too old.
        now: the loop's clock.
    """

    def __init__(
        self,
        scenario: Scenario,
        layout: Layout,
        table: Callable[[], RoutingTable],
        blind: Callable[[], Collection[int]],
        now: Callable[[], Micros],
    ) -> None:
        self._scenario, self._layout = scenario, layout
        self._table, self._blind, self._now = table, blind, now
        self._routing = RoutingState(scenario, layout)

    def of(self, name: str) -> dict[str, int] | None:
        """Points of a hundred, by region that is open; None: nothing is known, or none is open."""
        live = self._scenario.live
        assert live is not None
        one, names = live.shares[name], self._layout.names
        table, now = self._table(), self._now()
        self._routing.replace(table, now)
        region = 0 if one.origin is None else names.regions.index(one.origin)
        tier = self._tier(one)
        possible = set(used(self._layout))
        walk = [
            endpoint
            for endpoint in self._routing.walk[region][names.models.index(one.model)][tier]
            if endpoint in possible and self._region(endpoint) in one.backends
        ]
        if not walk or set(walk) & set(self._blind()):
            return None
        open_ = [endpoint for endpoint in walk if self._routing.loads[endpoint].targets]
        rates = {endpoint: float(self._routing.columns[endpoint]["rate"]) for endpoint in open_}
        traffic = Traffic(rates, now - table.age, self._scenario.signals.scrape, region, tier)
        asked = shares_of(self._routing, open_, traffic)
        found = dict.fromkeys(map(self._region, open_), 0)
        for endpoint, count in asked.items():
            found[self._region(endpoint)] += count
        return hundredths(found) if any(found.values()) else None

    def _region(self, endpoint: int) -> str:
        names = self._layout.names
        return names.regions[endpoint // (len(names.models) * len(self._layout.roles))]

    def _tier(self, one: ShareSettings) -> int:
        tiers = self._scenario.tiers
        usual = next((name for name, tier in tiers.items() if not tier.batch), next(iter(tiers)))
        return list(tiers).index(one.tier or usual)
