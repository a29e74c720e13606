"""Today's practice: interactive and batch work on instances of their own, each scaled by thresholds, nothing shared.

16 + 4 of 20 instances in the paper (section 6). Batch requests go straight to their pool; there is no queue manager.
"""

from sageserve.base.config import ReactiveSettings, Scenario
from sageserve.core.fleet import Role
from sageserve.core.layout import Layout
from sageserve.core.strategies.base import first_instances
from sageserve.core.strategies.reactive import Reactive


class Siloed(Reactive):
    """The paper's siloed baseline: `Reactive` on separate pools."""

    @staticmethod
    def roles(scenario: Scenario) -> tuple[Role, ...]:
        """One role for interactive tiers, one for batch tiers; a role without tiers is left out."""
        tiers = list(scenario.tiers.values())
        interactive = tuple(k for k, tier in enumerate(tiers) if not tier.batch)
        batch = tuple(k for k, tier in enumerate(tiers) if tier.batch)
        roles = (Role("interactive", interactive, queued=False), Role("batch", batch, queued=False))
        return tuple(role for role in roles if role.tiers)

    @staticmethod
    def minimum(scenario: Scenario) -> tuple[int, ...]:
        """The fleet's minimum for interactive work, `siloed.batch_minimum` for batch; at least one each, as in `Reactive`."""
        floors = (scenario.fleet.minimum, scenario.strategy.siloed.batch_minimum)
        return tuple(max(floor, 1) for floor in floors[: len(Siloed.roles(scenario))])

    @staticmethod
    def initial(scenario: Scenario, layout: Layout) -> tuple[int, ...]:
        """The fleet's start, divided by `siloed.batch_share`."""

        def split(start: int, here: Scenario) -> tuple[int, ...]:
            if len(layout.roles) == 1:
                return (start,)
            least = Siloed.minimum(scenario)[1] if here.fleet.minimum else 0
            batch = max(least, round(start * scenario.strategy.siloed.batch_share))
            return (max(start - batch, 0), batch)

        return first_instances(scenario, layout, split)

    @staticmethod
    def rules(scenario: Scenario) -> ReactiveSettings:
        """The thresholds of `strategy.siloed`."""
        return scenario.strategy.siloed
