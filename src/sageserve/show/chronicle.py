"""What a journal tells over the whole run: decisions with their reasons, forecasts as they were made, plans as they came back.

One pass, line by line. Plans are kept as numbers and words, not as programs: the journal of a week holds hundreds of them. Solves
nothing. Read next: `story.py` for one pool at one instant, `figures/capacity.py`, `figures/forecasts.py`, `figures/reasons.py`.
"""

from dataclasses import dataclass, field
from typing import Final

from sageserve.base.config import Scenario
from sageserve.base.units import SECOND, Micros
from sageserve.core.actions import Reason
from sageserve.core.plan.explain import AnyPlan
from sageserve.core.plan.what_if import Question
from sageserve.core.work import FitAsked, Forecasted, Solve, SolveAhead, Solved, SolvedAhead
from sageserve.data.results.journal import JournalLine
from sageserve.data.results.run_folder import RunFolder
from sageserve.show.story import event_of
from sageserve.show.why import pool_names, reason

REASONS: Final = {
    Reason.UTILISATION_HIGH: "utilisation above its mark",
    Reason.UTILISATION_LOW: "utilisation below its mark",
    Reason.BELOW_MINIMUM: "fewer than the minimum",
    Reason.PLANNED: "the plan says so",
    Reason.AHEAD_OF_PLAN: "more demand than planned for",
    Reason.BEHIND_PLAN: "less demand than planned for",
    Reason.QUEUE_LATE: "batch queue would be late",
    Reason.QUEUE_EMPTY: "batch queue empty",
    Reason.METRIC_HIGH: "its metrics ask for more",
    Reason.METRIC_LOW: "its metrics ask for fewer",
    Reason.RECORDED: "as recorded",
    Reason.WOKEN: "asked for while it had none",
    Reason.IDLE: "nobody asked for it",
    Reason.OWN_RULE: "the strategy's own rule",
    Reason.CANARY: "a rollout's canaries",
    Reason.ROLLING: "a rollout goes on",
    Reason.ROLLING_BACK: "a rollout is taken back",
}
"""A few words for each reason of the closed list."""


@dataclass(frozen=True, slots=True)
class Change:
    """A decision on a pool: when, what was wanted and done, why, and how many served afterwards at best."""

    at: Micros
    region: str
    model: str
    change: int
    done: int
    serving: int
    reason: Reason
    words: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """A forecast: made at an instant, for bins from `start` on; per series points and quantiles, none where nothing was known."""

    made: Micros
    start: Micros
    bin: Micros
    levels: tuple[float, ...]
    points: tuple[tuple[float, ...], ...]
    quantiles: tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan that came back: per pool its target and why; what is short, and how near to the proven bound it is."""

    at: Micros
    targets: tuple[int, ...]
    reasons: tuple[str, ...]
    short: tuple[str, ...]
    gap: float


@dataclass(slots=True)
class Chronicle:
    """Everything, in order of time.

    Args:
        changes: decisions.
        forecasts: none where the strategy forecasts nothing.
        pools: names, of the plans' targets.
        plans: none where the strategy makes none.
        failures: plans that were asked for and did not come, when and why.
    """

    changes: list[Change] = field(default_factory=list)
    forecasts: list[Forecast] = field(default_factory=list)
    pools: tuple[str, ...] = ()
    plans: list[Planned] = field(default_factory=list)
    failures: list[tuple[Micros, str]] = field(default_factory=list)


def chronicle(run: RunFolder) -> Chronicle:
    """Read a run's journal.

    Raises:
        ResultError: it cannot be read.
    """
    found = Chronicle()
    fits: dict[int, FitAsked] = {}
    asked: dict[int, Question] = {}
    end, warm_up = round(run.summary.window_s * SECOND), run.warm_up
    for line in run.journal():
        if line.now > end:
            break  # what happens while the last requests are done is not drawn
        _asks(line, fits, asked)
        if line.now < 0:
            continue  # what was decided in a warm-up is not drawn
        _changes(found, line, run.scenario)
        match line.event:
            case Forecasted(number=number) as made if number in fits and made.bin:
                levels = fits.pop(number).levels
                start = made.start - warm_up
                found.forecasts.append(Forecast(line.now, start, made.bin, levels, made.points, made.quantiles))
            case Forecasted(failure=failure) if failure:
                found.failures.append((line.now, failure))
            case Solved(number=number, plan=plan, failure=failure) | SolvedAhead(number=number, plan=plan, failure=failure):
                question_of = asked.pop(number, None)
                if plan is not None and question_of is not None:
                    found.pools = pool_names(question_of)
                    found.plans.append(_planned(line.now, question_of, plan))
                elif failure:
                    found.failures.append((line.now, failure))
            case _:
                pass
    return found


def _asks(line: JournalLine, fits: dict[int, FitAsked], asked: dict[int, Question]) -> None:
    for action in line.actions:
        match action:
            case FitAsked(number=number):
                fits[number] = action
            case Solve(number=number, problem=question) | SolveAhead(number=number, outlook=question):
                asked[number] = question
            case _:
                pass


def _changes(found: Chronicle, line: JournalLine, scenario: Scenario) -> None:
    for decided in line.decisions:
        one, (region, _, rest) = decided.decision, decided.pool.partition("/")
        model = max((name for name in scenario.models if rest.startswith(f"{name}/")), key=len, default=rest)
        told = event_of(line.now, decided, scenario)
        found.changes.append(Change(line.now, region, model, one.change, one.done, one.serving, one.reason, told.words))


def _planned(at: Micros, question: Question, plan: AnyPlan) -> Planned:
    reasons = tuple(reason(question, plan, p) for p in range(len(plan.target)))
    return Planned(at, plan.target, reasons, plan.short_sentences, plan.gap)
