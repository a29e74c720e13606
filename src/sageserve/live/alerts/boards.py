"""Dashboards made of a scenario's promises: what somebody on call looks at, in this order.

    promises   error budget left, burn rate, share kept, times, requests, failures
    fleet      demand beside capacity, instances, decisions, batch work against deadlines, what is not seen

Read next: `promise_panels.py`, `fleet_panels.py`; `grafana.py`; docs/how-to/alerts.md.
"""

from dataclasses import replace

from sageserve.base.config import Scenario
from sageserve.live.alerts import fleet_panels, promise_panels
from sageserve.live.alerts.figures import Board, BoardChoice
from sageserve.live.alerts.rules import Source, promises_of


def boards_of(scenario: Scenario, source: Source) -> tuple[Board, Board]:
    """Dashboards of a fleet.

    Args:
        scenario: for its tiers.
        source: whose histograms, as for alerts; `engines` of a fleet that is watched, which has no gateway of ours.

    Raises:
        ConfigError: no tier promises a time to the first token that is the same for prompts of all lengths.
    """
    promises = promises_of(scenario, source)
    ours = source == "gateway"
    kept = [replace(one, matchers=_and(one.matchers, f'{one.by}=~"$model"')) for one in promises]
    by, counted = promises[0].by, f"{promises[0].histogram}_count"
    more = (promise_panels.requests(), promise_panels.failures()) if ours else (promise_panels.engines(),)
    fleet = (
        fleet_panels.capacity(),
        fleet_panels.instances(),
        fleet_panels.decisions(),
        *((fleet_panels.batch(),) if ours else ()),
        fleet_panels.sight(ours=ours),
    )
    found = BoardChoice("model", f"label_values({counted}, {by})")
    places = (
        BoardChoice("region", "label_values(sageserve_utilisation, region)"),
        BoardChoice("model", 'label_values(sageserve_utilisation{region=~"$region"}, model)'),
    )
    about = "Made of the scenario's promises: write it again when they change."
    return (
        Board(
            "sageserve-promises",
            f"SageServe {scenario.name}: promises",
            about,
            (found,),
            (promise_panels.budget(kept), promise_panels.times(kept, ours=ours), *more),
        ),
        Board("sageserve-fleet", f"SageServe {scenario.name}: fleet", about, places, fleet),
    )


def _and(*matchers: str) -> str:
    return ",".join(filter(None, matchers))
