"""Service classes of requests that were recorded without one: shares by hour of the week, as the settings have them.

From the traffic that the scenario describes (`workload.generate`), where it describes that model; else from `workload.assign`;
else equal, which is said. Knows no history. Read next: `requests.py`.
"""

from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Floats
from sageserve.base.units import HOUR, WEEK, Micros
from sageserve.data.workload.rates import rates_of, streams_of

HOURS: Final = 168
_EPOCH_HOUR: Final = 72  # 1970 began on a Thursday; hours of the week are counted from Monday 00:00 UTC


def hour_of_week(micros: Micros) -> int:
    """Hour of the week, from Monday 00:00 UTC, of an instant since 1970."""
    return (micros // HOUR + _EPOCH_HOUR) % HOURS


def hourly_shares(scenario: Scenario, region: str, model: str) -> tuple[Floats, str]:
    """Shares of the service classes in a model's requests of a region, and where they come from.

    Returns:
        float64[168, tiers], rows add up to 1; and a sentence when they are a guess, else an empty text.
    """
    shares = _described(scenario, region, model)
    if shares is not None:
        return shares, ""
    assigned = scenario.workload.assign.tier
    weights = np.array([assigned.get(tier, 0.0) for tier in scenario.tiers]) if assigned else np.ones(len(scenario.tiers))
    said = f"nothing says which service class requests of {model} were: equal shares are assumed; write workload.assign.tier, or "
    said += "give live.tiers the priorities that the gateway records"
    if assigned:
        said = ""
    return np.tile(weights / weights.sum(), (HOURS, 1)), said


def _described(scenario: Scenario, region: str, model: str) -> Floats | None:
    """From the traffic's shapes, without noise, growth and bursts; none where they do not describe this model."""
    generate = scenario.workload.generate
    shapes = {
        name: {group: shape.model_copy(update={"noise": 0.0}) for group, shape in groups.items()}
        for name, groups in generate.shapes.items()
    }
    if model not in shapes:
        return None
    calm = {"shapes": shapes, "bursts": (), "growth_per_week": 0.0, "begins": 0, "length": WEEK}
    plain = scenario.model_copy(
        update={"workload": scenario.workload.model_copy(update={"generate": generate.model_copy(update=calm)})}
    )
    streams = streams_of(plain)
    rates = rates_of(plain, streams, 0, HOURS * 60)
    mine = (streams.region == tuple(scenario.regions).index(region)) & (streams.model == tuple(scenario.models).index(model))
    found = np.zeros((HOURS, len(scenario.tiers)))
    for column in np.flatnonzero(mine):
        found[:, streams.tier[column]] += rates[:, column].reshape(HOURS, 60).sum(axis=1)
    total = found.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        return None
    shares: Floats = found / total
    return shares
