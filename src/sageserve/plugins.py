"""What a strategy or a forecaster of your own is written with: one place to import from, stable within a minor version.

    from sageserve.plugins import Decision, Observed, Reason, Unified

A strategy is a class as `Strategy` and `StrategyKind` say, most easily one that inherits from `Unified`; a forecaster one as
`Forecaster` says. Defines nothing itself. Read next: docs/how-to/own-strategies.md.
"""

from sageserve.base.config import Scenario
from sageserve.base.records import Demand
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Micros
from sageserve.core.actions import Decision, Feed, Reason
from sageserve.core.events import (
    DemandSeen,
    DoorSeen,
    EndpointSeen,
    EnginesSeen,
    InstanceComing,
    InstanceDrained,
    InstanceLeaving,
    InstanceLost,
    InstanceReady,
    Observed,
    SpotTaken,
    StartFailed,
)
from sageserve.core.fleet import Fleet, Pool, Role, State
from sageserve.core.forecast import FORECASTERS, FittedForecaster, Forecaster, QuantileForecast, Series
from sageserve.core.layout import Layout
from sageserve.core.strategies import STRATEGIES, Strategy, StrategyKind
from sageserve.core.strategies.base import Unified
from sageserve.core.strategies.steps import CoolDown, EndpointLook, look, to_target
from sageserve.core.work import Fit, Fitted, Solve, SolveAhead, Solved, SolvedAhead

__all__ = [
    "DAY",
    "FORECASTERS",
    "HOUR",
    "MINUTE",
    "SECOND",
    "STRATEGIES",
    "CoolDown",
    "Decision",
    "Demand",
    "DemandSeen",
    "DoorSeen",
    "EndpointLook",
    "EndpointSeen",
    "EnginesSeen",
    "Feed",
    "Fit",
    "Fitted",
    "FittedForecaster",
    "Fleet",
    "Forecaster",
    "InstanceComing",
    "InstanceDrained",
    "InstanceLeaving",
    "InstanceLost",
    "InstanceReady",
    "Layout",
    "Micros",
    "Observed",
    "Pool",
    "QuantileForecast",
    "Reason",
    "Role",
    "Scenario",
    "Series",
    "Solve",
    "SolveAhead",
    "Solved",
    "SolvedAhead",
    "SpotTaken",
    "StartFailed",
    "State",
    "Strategy",
    "StrategyKind",
    "Unified",
    "look",
    "to_target",
]
