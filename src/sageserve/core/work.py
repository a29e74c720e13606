"""Slow work as actions whose results come back as events: fitting forecasts and solving programs.

    Fit -> Fitted         Solve -> Solved         SolveAhead -> SolvedAhead

A shell hands them to `perform`, in another thread or after a simulated delay; the result depends on the request alone.
What cannot be carried out, of these or any other action, ends in the event that `came_to_nothing` names.
Read next: `forecast/` and `plan/` for what is done, `strategies/planned.py` for who asks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, assert_never

from msgspec import Struct

from sageserve.base.errors import PlanError
from sageserve.base.units import Micros
from sageserve.core.actions import Action, Decision, Donate, Drain, Feed, Reclaim, Release, Roll, Start
from sageserve.core.events import (
    Event,
    InstanceDrained,
    Looked,
    SpotTaken,
    StartFailed,
)
from sageserve.core.plan.horizon import HorizonPlan
from sageserve.core.plan.horizon import solve as solve_ahead
from sageserve.core.plan.hourly import Plan, solve
from sageserve.core.plan.hourly_rows import HourlyProblem
from sageserve.core.plan.outlook import Outlook

if TYPE_CHECKING:  # every gateway knows of this work, and fits nothing
    from sageserve.core.forecast import QuantileForecast, Series


@dataclass(frozen=True, slots=True)
class Fit:
    """Fit a forecaster to each series and predict."""

    number: int
    method: str
    series: "tuple[Series, ...]"
    bins: int
    levels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `Fit` gave: one forecast per series; None for a series of which nothing can be said yet.

    No forecasts at all: the fit failed, and `failure` says why.
    """

    number: int
    forecasts: "tuple[QuantileForecast | None, ...]"
    failure: str = ""


class Solve(Struct, frozen=True, tag="solve"):
    """Solve an integer program."""

    number: int
    problem: HourlyProblem


class Solved(Struct, frozen=True, tag="solved"):
    """What `Solve` gave; `failure` says why there is no plan."""

    number: int
    plan: Plan | None
    failure: str = ""


class SolveAhead(Struct, frozen=True, tag="solve_ahead"):
    """Solve a receding-horizon program."""

    number: int
    outlook: Outlook


class SolvedAhead(Struct, frozen=True, tag="solved_ahead"):
    """What `SolveAhead` gave; `failure` says why there is no plan."""

    number: int
    plan: HorizonPlan | None
    failure: str = ""


class FitAsked(Struct, frozen=True, tag="fit"):
    """What the journal keeps of a `Fit`: how, and how many series; their values are in the demand events before it."""

    number: int
    method: str
    series: int
    bins: int
    levels: tuple[float, ...]


class Forecasted(Struct, frozen=True, tag="fitted", omit_defaults=True):
    """What the journal keeps of a `Fitted`: per series the point forecast, and one row per bin of its quantiles."""

    number: int
    start: Micros
    bin: Micros
    points: tuple[tuple[float, ...], ...]
    quantiles: tuple[tuple[tuple[float, ...], ...], ...]
    failure: str = ""


Work: TypeAlias = Fit | Solve | SolveAhead
Done: TypeAlias = Fitted | Solved | SolvedAhead
AnyAction: TypeAlias = Action | Work
AnyEvent: TypeAlias = Event | Done
RecordedAction: TypeAlias = Action | FitAsked | Solve | SolveAhead
RecordedEvent: TypeAlias = Event | Forecasted | Solved | SolvedAhead


class Entry(Struct, frozen=True):
    """One line of the journal: what was heard, decided and done at an instant."""

    now: Micros
    event: RecordedEvent
    decisions: tuple[Decision, ...]
    actions: tuple[RecordedAction, ...]


def entry(now: Micros, event: AnyEvent, decisions: tuple[Decision, ...], actions: tuple[AnyAction, ...]) -> Entry | None:
    """What the journal keeps of an instant; None of a look or a minute's demand that led to nothing."""
    if isinstance(event, Looked) and not decisions and not actions:
        return None
    return Entry(now, recorded_event(event), decisions, tuple(recorded_action(action) for action in actions))


def recorded_action(action: AnyAction) -> RecordedAction:
    """What the journal keeps of an action."""
    if isinstance(action, Fit):
        return FitAsked(action.number, action.method, len(action.series), action.bins, action.levels)
    return action


def recorded_event(event: AnyEvent) -> RecordedEvent:
    """What the journal keeps of an event."""
    if not isinstance(event, Fitted):
        return event
    known = [forecast for forecast in event.forecasts if forecast is not None]
    return Forecasted(
        event.number,
        known[0].start if known else 0,
        known[0].bin if known else 0,
        tuple(() if forecast is None else tuple(forecast.point.tolist()) for forecast in event.forecasts),
        tuple(() if forecast is None else tuple(map(tuple, forecast.values.tolist())) for forecast in event.forecasts),
        event.failure,
    )


def came_to_nothing(action: AnyAction, why: str) -> AnyEvent | None:
    """The event that ends an action which could not be carried out; None where nothing waits for one."""
    match action:
        case Start(instance=i) | Reclaim(instance=i):
            return StartFailed(i, why)
        case Drain(instance=i):
            return InstanceDrained(i)  # nothing of it is known, so nothing is left to wait for
        case Donate(instance=i):
            return SpotTaken(i)
        case Fit(number=number):
            return Fitted(number, (), why)
        case Solve(number=number):
            return Solved(number, None, why)
        case SolveAhead(number=number):
            return SolvedAhead(number, None, why)
        case Release() | Feed() | Roll():
            return None
        case _:
            assert_never(action)


def perform(work: Work) -> Done:
    """Do the work; the answer depends on nothing but the request."""
    match work:
        case Fit():
            return Fitted(work.number, tuple(_forecast(work, series) for series in work.series))
        case Solve():
            try:
                return Solved(work.number, solve(work.problem))
            except PlanError as error:
                return Solved(work.number, None, str(error))
        case SolveAhead():
            try:
                return SolvedAhead(work.number, solve_ahead(work.outlook))
            except PlanError as error:
                return SolvedAhead(work.number, None, str(error))
        case _:
            assert_never(work)


def _forecast(work: Fit, series: "Series") -> "QuantileForecast | None":
    from sageserve.core.forecast import forecaster  # noqa: PLC0415 # as above

    if len(series) == 0:
        return None
    return forecaster(work.method).fit(series).predict(work.bins, work.levels)
