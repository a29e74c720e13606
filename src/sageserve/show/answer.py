"""Answers about one pool of a plan: why its number, why not one less, why not one more, and what would change it.

Each answer is solved again from the problem that the plan was made from; nothing is guessed. Knows no file and no run.
Read next: `story.py` for pools of runs, `core/plan/explain.py` for the solving.
"""

from collections.abc import Sequence
from difflib import get_close_matches

from msgspec import Struct

from sageserve.base.errors import ConfigError
from sageserve.base.units import money_before, show_money
from sageserve.core.plan.explain import AnyPlan, Other, Threshold, what_would_change, why_not
from sageserve.core.plan.hourly_rows import HourlyProblem, rows_of
from sageserve.core.plan.outlook import Outlook
from sageserve.core.plan.what_if import Question
from sageserve.show.why import amount, held_now, hours, pool_names, ratio, reason, standings


class Alternative(Struct, frozen=True):
    """Another number: what it would mean with everything else free to move, and when nothing else moves.

    Args:
        other: the best plan with that number, or why there is none.
        alone: what that number breaks by itself, in sentences with amounts.
        sentence: both in words.
    """

    other: Other
    alone: tuple[str, ...]
    sentence: str


class PlanAnswer(Struct, frozen=True):
    """Everything about one pool of a plan.

    Args:
        pool: its name.
        before: instances that served or were coming when it was planned.
        target: what was planned.
        reason: why, in a few words.
        demand: what the plan expected, in sentences.
        standings: how the constraints on the pool stand.
        less: why not one less.
        more: why not one more.
        changes: at which demand and price the number changes.
        short: what the plan could not give, in sentences.
        status: of the solver.
        gap: distance to the proven bound.
        input_hash: of the problem.
        period: what the plan's amounts are for, such as `per hour`.
    """

    pool: str
    before: int
    target: int
    reason: str
    demand: tuple[str, ...]
    standings: tuple[str, ...]
    less: Alternative
    more: Alternative
    changes: tuple[Threshold, ...]
    short: tuple[str, ...]
    status: str
    gap: float
    input_hash: str
    period: str


def find_pool(names: Sequence[str], text: str) -> str:
    """The pool that is meant: its name, or a beginning that no other pool shares.

    Raises:
        ConfigError: there is none, or more than one.
    """
    if text in names:
        return text
    found = [name for name in names if name.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{text!r} may mean {len(found)} pools", hint=f"one of {', '.join(found[:6])}")
    near = get_close_matches(text, names, n=1) or get_close_matches(text, [name.rsplit("/", 1)[0] for name in names], n=1)
    raise ConfigError(
        f"there is no pool {text!r}", hint=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names[:6])}"
    )


def answer(question: Question, plan: AnyPlan, name: str, currency: str = "USD") -> PlanAnswer:
    """Everything about the pool of this name, with prices in a currency (ISO 4217); solves about thirty times."""
    pool = pool_names(question).index(name)
    return PlanAnswer(
        pool=name,
        before=held_now(question)[pool],
        target=plan.target[pool],
        reason=reason(question, plan, pool),
        demand=(*ratio(question, plan, pool), *_demand(question, pool, currency)),
        standings=standings(question, plan, pool),
        less=_alternative(question, plan, pool, -1, currency),
        more=_alternative(question, plan, pool, 1, currency),
        changes=what_would_change(question, plan, pool),
        short=plan.short_sentences,
        status=plan.status,
        gap=plan.gap,
        input_hash=plan.input_hash,
        period=f"over {hours(sum(question.steps))}" if isinstance(question, Outlook) else "per hour",
    )


def _alternative(question: Question, plan: AnyPlan, pool: int, by: int, currency: str) -> Alternative:
    other = why_not(question, plan, pool, by, currency)
    alone = _alone(question, plan, pool, other)
    period = "per hour" if isinstance(question, HourlyProblem) else "over the horizon"
    cost = f"{show_money(abs(other.dollars), currency)} {period} {_more(other.dollars)}"
    return Alternative(other, alone, _sentence(other, alone, "at the same cost" if abs(other.dollars) < 0.01 else cost))


def _sentence(other: Other, alone: tuple[str, ...], price: str) -> str:
    if not other.possible:
        return f"not possible: {'; '.join(alone) or other.sentence}"
    moved = ", ".join(f"{name} {by:+d}" for name, by in other.moves)
    if other.breaks:
        return f"it would be short: {'; '.join(other.breaks)}" + (f" (even with {moved})" if moved else "")
    if moved and alone:
        return f"alone it would break {'; '.join(alone)}; with {moved} it holds, {price}"
    return f"{price}, with {moved}" if moved else f"{price}, and nothing else changes"


def _more(dollars: float) -> str:
    return "more" if dollars > 0 else "less"


def _alone(question: Question, plan: AnyPlan, pool: int, other: Other) -> tuple[str, ...]:
    """What breaks when only this pool changes, with amounts where the program is over targets."""
    if not isinstance(question, HourlyProblem):
        return other.alone
    target = [other.asked if p == pool else to for p, to in enumerate(plan.target)]
    rows = {row.name: row for row in rows_of(question)}
    found = []
    for name in other.alone:
        row = rows.get(name)
        if row is None:
            found.append(f"{name}: {question.pools[pool].maximum} instances at most")
        else:
            found.append(f"{name}: {amount(row.has(target))} of {amount(row.needed)} {row.unit}")
    return tuple(found)


def _demand(question: Question, pool: int, currency: str) -> tuple[str, ...]:
    """What the plan expected of the demand that this pool may serve."""
    if isinstance(question, HourlyProblem):
        here = question.pools[pool]
        model, region = question.models[here.model], question.regions[here.region]
        local = max(window[here.region][here.model] for window in question.demand)
        total = max(sum(row[here.model] for row in window) for window in question.demand)
        batch = amount(question.buffer[here.model])
        return (
            f"forecast peak {amount(local)} tokens/s of {model} in {region}, {amount(total)} everywhere + {batch} of batch work",
            f"one instance sustains {amount(here.theta)} tokens/s; a region must hold {question.epsilon:.0%} of its own peak",
        )
    found = []
    for stream in question.streams:
        uses = [way.use for way in stream.ways if way.pool == pool]
        if uses:
            worst = max(range(len(stream.rate)), key=lambda s: stream.rate[s])
            when = "now" if worst == 0 else f"in {hours(sum(question.steps[:worst]))}"
            use = uses[0] * question.margin
            level = f" (quantile {stream.level:.2f})" if stream.level else ""
            found.append(
                f"{stream.name}: instances for {amount(use * stream.expected[0])} expected now, {amount(use * stream.rate[0])}"
                f" kept{level}; most {amount(use * stream.rate[worst])} {when}"
            )
    for work in question.batches:
        uses = [way.use for way in work.ways if way.pool == pool]
        if uses:
            waiting = sum(lot.work for lot in work.lots if lot.arrives <= 0) * uses[0]
            later = sum(lot.work for lot in work.lots if lot.arrives > 0) * uses[0]
            found.append(f"{work.name}: {amount(waiting)} instance-hours wait, {amount(later)} are to come")
    return (*found, *_worth(question, currency))


def _worth(outlook: Outlook, currency: str) -> tuple[str, ...]:
    """What a request in time was taken to be worth, and the promises that this follows from."""
    if not outlook.worth:
        return ()
    kept = "; ".join(f"{one.kept:.2%} of {one.tier}, promised {one.promised:.0%}" for one in outlook.tiers)
    told = f": kept lately, of those that could be in time, {kept}" if kept else ""
    return (f"a request in time counts {money_before(currency)}{amount(outlook.worth)}{told}",)
