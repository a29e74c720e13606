"""Who is let in when not everybody can be: keys share a tier's capacity of a model in proportion to their weights.

Requests are let in or turned away at once, so that nobody's can be held back for another's: whoever is ahead of the others is
turned away while the queue is half as long as it may be, and who is behind finds the other half. Each gateway process
shares out what comes to it. Decides with `core/fair_share.py`. Read next: `exchange.py`, which asks.
"""

from sageserve.base.units import Micros
from sageserve.core.fair_share import FairShare, room
from sageserve.live.gateway.keys import KeyAccount, KeyRing
from sageserve.live.gateway.routing_state import RoutingState
from sageserve.live.gateway.targets import Placement


class GatewayShares:
    """Accounts by model and tier.

    Args:
        routing: says how full an endpoint is.
        keys: with one account there is nobody to share with.
    """

    def __init__(self, routing: RoutingState, keys: KeyRing) -> None:
        self._routing = routing
        self._alone = len(keys.accounts) < 2
        self._accounts: dict[tuple[int, int], FairShare] = {}

    def admits(self, placed: Placement, payer: KeyAccount, model: int, now: Micros) -> bool:
        """Whether a request that was weighed may go to its target; what it is expected to take is charged if so."""
        routing = self._routing
        if self._alone:
            return routing.admits(placed)
        account = self._accounts.get((model, placed.tier))
        if account is None:
            account = self._accounts[model, placed.tier] = FairShare()
        if not routing.admits(placed, room(account.lead(payer.name, now))):
            return False
        account.charge(payer.name, payer.weight, placed.prompt + routing.guess[model])
        return True
