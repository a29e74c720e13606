"""What happened to one pool of a run until an instant: instances by state, the plan in force, decisions since, inputs with ages.

Read from the journal, and from the requests who was turned away (`hour.py`); a plan is explained by solving the problem that the
journal has again. Strategies without plans are told by their thresholds. Runs nothing. Read next: `answer.py`,
`data/results/journal.py`.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, assert_never

from msgspec import Struct
from msgspec.structs import replace

from sageserve.base.config import ReactiveSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.core.actions import Blocked, Decision, Donate, Drain, Reason, Reclaim, Release, Roll, Start
from sageserve.core.events import InstanceComing, InstanceLeaving, InstanceLost, InstanceReady, SpotTaken, StartFailed
from sageserve.core.fleet import Pool, State
from sageserve.core.layout import Layout
from sageserve.core.plan.explain import AnyPlan
from sageserve.core.plan.what_if import Question
from sageserve.core.plan_once import PLANNERS
from sageserve.core.strategies import layout_of, strategy_kind
from sageserve.core.strategies.reactive import Reactive
from sageserve.core.work import FitAsked, Forecasted, RecordedAction, RecordedEvent, Solve, SolveAhead, Solved, SolvedAhead
from sageserve.data.results.journal import Decided, JournalLine, LiveJournal
from sageserve.data.results.run_folder import RunFolder
from sageserve.show.answer import PlanAnswer, answer, find_pool
from sageserve.show.hour import hour_before
from sageserve.show.rolls import ROLLS, roll_notes

_KEPT: Final = 8  # decisions that are told; older ones are counted

BLOCKED: Final[Mapping[Blocked, str]] = {
    Blocked.NOT: "",
    Blocked.NO_STOCK: "no GPUs were free",
    Blocked.NO_SLOT: "the pool was at its maximum",
    Blocked.AT_MINIMUM: "the endpoint was at its minimum",
    Blocked.BLIND: "its signals were too old to take anything away",
    Blocked.TOO_FAST: "as many were drained within the hour as the safety rules allow",
    Blocked.NO_HEADROOM: "the others would have been too full",
    Blocked.SHADOW: "decisions are only written down",
}


class Event(Struct, frozen=True):
    """One decision on the pool: when, what was wanted and done, the reason from the closed list, and the same in words."""

    at: Micros
    change: int
    done: int
    reason: Reason
    blocked: Blocked
    seen: float
    age: Micros
    words: str


class PlanInForce(Struct, frozen=True):
    """The last plan before the instant: when it was asked for and came back, how far its demand data reached, and the answer."""

    asked_at: Micros
    made_at: Micros
    data_until: Micros | None
    answer: PlanAnswer


class Story(Struct, frozen=True):
    """A pool at an instant.

    Args:
        pool: its name.
        at: microseconds from the start.
        strategy: of the run.
        serving: instances that serve.
        coming: instances that start or are taken back.
        draining: instances that finish what they have.
        donated: instances on the spot market.
        plan: the plan in force; None where the strategy makes none, or before the first.
        decisions: on this pool, since the plan came back, or the latest where there is none; oldest first.
        earlier: how many more there were before those.
        asked: interactive requests of the pool's region and model that came in the hour before the instant.
        shed: those of them that were turned away.
        notes: what the reader should know, in sentences.
        begins: of a live fleet, where its journal begins, from which all instants count: microseconds since 1970.
    """

    pool: str
    at: Micros
    strategy: str
    serving: int
    coming: int
    draining: int
    donated: int
    plan: PlanInForce | None
    decisions: tuple[Event, ...]
    earlier: int
    asked: int
    shed: int
    notes: tuple[str, ...]
    begins: Micros | None = None


@dataclass(slots=True)
class _Reading:
    """What the journal said so far."""

    pool: Pool
    states: dict[int, State] = field(default_factory=dict)
    fits: dict[int, Micros] = field(default_factory=dict)
    asked: dict[int, tuple[Micros, Question]] = field(default_factory=dict)
    plan: tuple[Micros, Micros, Question, AnyPlan] | None = None  # asked, came back, problem, answer
    data_until: Micros | None = None
    failure: str = ""
    unfitted: str = ""  # why the last forecast failed
    rolls: list[tuple[Micros, Roll]] = field(default_factory=list)
    decisions: deque[tuple[Micros, Decided]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    decided: int = 0


def story(run: RunFolder, pool: str, at: Micros | None = None) -> Story:
    """What led to a pool's number, and what would have changed it.

    Args:
        run: the result folder.
        pool: its name or a beginning of it.
        at: microseconds from the start; the end of the window when None. Until the last request is done may be asked about.

    Raises:
        ConfigError: no such pool, or an instant after the end.
    """
    scenario = run.scenario
    end = round(run.summary.played_s * SECOND)
    when = min(end, round(run.summary.window_s * SECOND)) if at is None else at
    if when > end:
        raise ConfigError(f"the run ended at {show_duration(end)}", hint=f"choose a time up to then, not {show_duration(when)}")
    layout = layout_of(scenario)
    reading = _read_until(when, run.journal(), layout, pool)
    if reading.data_until is not None:
        reading.data_until -= run.warm_up
    hour = hour_before(run, layout, reading.pool, when)
    told = _story(reading, scenario, when, hour.asked, hour.shed)
    return replace(told, notes=(*told.notes, *hour.notes(), *_outage_notes(reading.pool, scenario, when, run.warm_up)))


def live_story(live: LiveJournal, pool: str, at: Micros | None = None) -> Story:
    """The same of a live fleet; who was turned away is not in its journal.

    Args:
        live: its journal.
        pool: its name or a beginning of it.
        at: microseconds from the oldest line; the newest one when None.

    Raises:
        ConfigError: no such pool, or an instant after the newest line.
    """
    if at is not None and at > live.ends:
        newest = datetime.fromtimestamp((live.begins + live.ends) // SECOND, UTC)
        raise ConfigError(
            f"the journal's newest line is of {newest:%Y-%m-%d %H:%M:%S} UTC", hint="leave --at out: nothing has happened since"
        )
    when = live.ends if at is None else at
    reading = _read_until(when, live.lines(), layout_of(live.scenario), pool)
    return replace(_story(reading, live.scenario, when, 0, 0), begins=live.begins)


def _read_until(when: Micros, lines: Iterable[JournalLine], layout: Layout, pool: str) -> _Reading:
    name = find_pool([one.name for one in layout.pools], pool)
    reading = _Reading(next(one for one in layout.pools if one.name == name))
    for line in lines:
        if line.now > when:
            break
        _read(reading, line)
    return reading


def _story(reading: _Reading, scenario: Scenario, at: Micros, asked: int, shed: int) -> Story:
    name, states = reading.pool.name, list(reading.states.values())
    since, plan = -1, None
    if reading.plan is not None:
        fitted, since, question, found = reading.plan
        plan = PlanInForce(fitted, since, reading.data_until, answer(question, found, name, scenario.currency))
    told = [(now, decided) for now, decided in reading.decisions if plan is None or now >= since]
    return Story(
        pool=name,
        at=at,
        strategy=scenario.strategy.name,
        serving=states.count(State.SERVING),
        coming=states.count(State.STARTING) + states.count(State.RECLAIMING),
        draining=states.count(State.DRAINING),
        donated=states.count(State.SPOT),
        plan=plan,
        decisions=tuple(event_of(now, decided, scenario) for now, decided in told),
        earlier=reading.decided - len(told),
        asked=asked,
        shed=shed,
        notes=(
            *_notes(reading, scenario),
            *roll_notes(reading.rolls, scenario),
            *_shed_note(asked, shed),
        ),
    )


def _notes(reading: _Reading, scenario: Scenario) -> tuple[str, ...]:
    strategy, notes = scenario.strategy.name, []
    if strategy not in PLANNERS:
        notes.append(f"{strategy} makes no plan, so there is none to solve again: its decisions are the whole reason")
    elif reading.plan is None:
        notes.append("no plan had come back by then")
    if not reading.decided:
        notes.append("no decision had changed this pool: it stands as it started")
    if reading.failure:
        notes.append(f"the last solve gave no plan, the one before stands: {reading.failure}")
    if reading.unfitted:
        notes.append(f"the last forecast failed, the mean of the hour before stands for it: {reading.unfitted}")
    if strategy in {"lt-u", "lt-ua"} and reading.plan is not None:
        rules = scenario.strategy.planned
        notes.append(
            f"{strategy} takes the plan as a destination: one step towards it when utilisation passes"
            f" {rules.high:g} or falls below {rules.low:g}"
        )
    return tuple(notes)


def _outage_notes(pool: Pool, scenario: Scenario, at: Micros, warm_up: Micros) -> tuple[str, ...]:
    """What is to be known of outages that go on, in the pool's region or in another one; they count from before the warm-up."""
    here, notes = list(scenario.regions)[pool.region], []
    for outage in scenario.faults.outages:
        begin = outage.at - warm_up
        if not outage.donated_only and begin <= at < begin + outage.length:
            span = f"from {show_duration(begin)} to {show_duration(begin + outage.length)}"
            what = "its instances are gone, starts fail" if outage.region == here else "its requests go elsewhere, here too"
            notes.append(f"{outage.region} is lost {span} (faults.outages): {what}")
    return tuple(notes)


def _shed_note(asked: int, shed: int) -> tuple[str, ...]:
    if not shed:
        return ()
    counted = f"{shed:,} of {asked:,} interactive requests of its region and model were turned away in the hour before"
    return (f"{counted}: what waits nowhere asks for no instance",)


def _read(reading: _Reading, line: JournalLine) -> None:
    _hear(reading, line.now, line.event)
    for action in line.actions:
        _do(reading, line.now, action)
    mine = [decided for decided in line.decisions if decided.pool == reading.pool.name]
    reading.decisions.extend((line.now, decided) for decided in mine)
    reading.decided += len(mine)


def _hear(reading: _Reading, now: Micros, event: RecordedEvent) -> None:
    match event:
        case InstanceReady(instance=i):
            _becomes(reading, i, State.SERVING)
        case StartFailed(instance=i) | SpotTaken(instance=i) | InstanceLost(instance=i):
            _becomes(reading, i, State.OFF)
        case InstanceComing(instance=i):
            _becomes(reading, i, State.STARTING)
        case InstanceLeaving(instance=i):
            _becomes(reading, i, State.DRAINING)
        case Forecasted(failure=failure) if failure:
            reading.unfitted = failure
        case Forecasted(start=start):
            reading.data_until, reading.unfitted = start, ""
        case Solved(number=number, plan=plan, failure=failure) | SolvedAhead(number=number, plan=plan, failure=failure):
            asked = reading.asked.pop(number, None)
            reading.failure = failure
            if plan is not None and asked is not None:
                reading.plan = (asked[0], now, asked[1], plan)
        case _:
            pass


def _do(reading: _Reading, now: Micros, action: RecordedAction) -> None:
    match action:
        case Start(instance=i):
            _becomes(reading, i, State.STARTING)
        case Reclaim(instance=i):
            _becomes(reading, i, State.RECLAIMING)
        case Drain(instance=i):
            _becomes(reading, i, State.DRAINING)
        case Donate(instance=i):
            _becomes(reading, i, State.SPOT)
        case Release(instance=i):
            _becomes(reading, i, State.OFF)
        case FitAsked(number=number):
            reading.fits[number] = now
        case Solve(number=number, problem=problem):
            reading.asked[number] = (reading.fits.pop(number, now), problem)
        case SolveAhead(number=number, outlook=outlook):
            reading.asked[number] = (reading.fits.pop(number, now), outlook)
        case Roll(model=model) if model == reading.pool.model:
            reading.rolls.append((now, action))
        case _:
            pass


def _becomes(reading: _Reading, instance: int, state: State) -> None:
    if reading.pool.begin <= instance < reading.pool.end:
        reading.states[instance] = state


def event_of(now: Micros, decided: Decided, scenario: Scenario) -> Event:
    """A decision of the journal, with its reason in words and what kept it from being done."""
    one = decided.decision
    words = _words(decided, scenario)
    if one.blocked is not Blocked.NOT:
        words += f"; {abs(one.done)} of {abs(one.change)} done: {BLOCKED[one.blocked]}"
    return Event(now, one.change, one.done, one.reason, one.blocked, one.seen, one.age, words)


def _marks(one: Decision, scenario: Scenario) -> ReactiveSettings | None:
    """The marks a decision was made by: a strategy that plans has the reactive ones until there is a plan, and a target."""
    name = scenario.strategy.name
    kind = strategy_kind(name)
    if isinstance(kind, type) and issubclass(kind, Reactive):
        return kind.rules(scenario)
    if name in PLANNERS:
        return scenario.strategy.planned if one.target >= 0 else scenario.strategy.reactive
    return None


def _used(seen: float) -> str:
    """Utilisation is all there is at most; what was asked for beyond that is told as such."""
    more = f" and {seen - 1:.2f} more asked for" if seen >= 1.005 else ""
    return f"{min(seen, 1.0):.2f}{more}"


SAID: Final[Mapping[Reason, str]] = {
    Reason.QUEUE_LATE: "the batch queue would have missed its deadline",
    Reason.QUEUE_EMPTY: "the batch queue was empty",
    Reason.WOKEN: "it had no instance, and was asked for by what waited or was too much for others",
    Reason.IDLE: "it had no work for long, and may have no instance then",
}


def _words(decided: Decided, scenario: Scenario) -> str:
    """A decision's reason with the numbers it was based on."""
    one = decided.decision
    rules = _marks(one, scenario)
    high, low = (f" {rules.high:g}", f" {rules.low:g}") if rules is not None else (" its mark", " its mark")
    age = one.age if one.age < SECOND else round(one.age / (SECOND // 10)) * (SECOND // 10)
    seen = f"utilisation {_used(one.seen)} ({show_duration(age)} old)"
    if one.coming and one.change > 0:
        seen += f", {_used(one.seen * one.serving / (one.serving + one.coming))} once {one.coming} more serve,"
    match one.reason:
        case Reason.UTILISATION_HIGH:
            return f"{seen} was above{high}"
        case Reason.UTILISATION_LOW:
            return f"{seen} was below{low}"
        case Reason.BELOW_MINIMUM | Reason.CANARY | Reason.ROLLING | Reason.ROLLING_BACK:
            held = f"{one.serving} served and {one.coming} were coming"
            return f"{ROLLS[one.reason]}; {held}" if one.reason in ROLLS else f"only {held}, fewer than the minimum"
        case Reason.PLANNED | Reason.RECORDED:
            who = "the plan" if one.reason is Reason.PLANNED else "the fleet's history"
            return f"{who} says {one.target}; {one.serving} served and {one.coming} were coming"
        case Reason.AHEAD_OF_PLAN:
            return f"{seen} was above what the plan keeps room for"
        case Reason.BEHIND_PLAN:
            return f"{seen} was below{low}, and less arrives than was planned for"
        case Reason.QUEUE_LATE | Reason.QUEUE_EMPTY | Reason.WOKEN | Reason.IDLE:
            return SAID[one.reason]
        case Reason.METRIC_HIGH | Reason.METRIC_LOW | Reason.OWN_RULE:
            much = "fewer" if one.reason is Reason.METRIC_LOW or one.change < 0 else "more"
            who = f"the rule of {scenario.strategy.name}" if one.reason is Reason.OWN_RULE else "its metrics"
            target = f", {one.target}" if one.target >= 0 else f" at {seen}"
            return f"{who} asked for {much}{target}; {one.serving} served and {one.coming} were coming"
        case _:
            assert_never(one.reason)
