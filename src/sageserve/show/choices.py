"""What a run decided: how often for which reason, what kept decisions from being done, and the largest of them.

Reads the journal once, line by line. Draws nothing. Read next: `story.py` for the words of a decision and for one pool alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

from sageserve.base.config import Scenario
from sageserve.base.units import Micros
from sageserve.core.actions import Blocked
from sageserve.core.work import Solved, SolvedAhead
from sageserve.data.results.journal import Decided, JournalLine
from sageserve.show.story import BLOCKED, event_of

LARGEST: Final = 6


class ReasonLine(Struct, frozen=True):
    """The decisions of one reason and direction.

    Args:
        reason: from the closed list of reasons.
        decisions: how many.
        wanted: instances, with sign.
        done: instances, with sign.
    """

    reason: str
    decisions: int
    wanted: int
    done: int


class BlockedLine(Struct, frozen=True):
    """Why decisions were not done wholly: how many of them, and how many instances were missing."""

    why: str
    words: str
    decisions: int
    missing: int


class ToldDecision(Struct, frozen=True):
    """One decision: when, on which pool, what was wanted and done, and the reason with its numbers."""

    at: Micros
    pool: str
    wanted: int
    done: int
    reason: str
    words: str


class Choices(Struct, frozen=True):
    """All decisions of a run.

    Args:
        decisions: how many.
        reasons: the most frequent first.
        blocked: likewise.
        largest: by instances wanted, then the earlier; at most `LARGEST`.
        plans: programs solved.
        plans_failed: of these, without a plan.
    """

    decisions: int
    reasons: tuple[ReasonLine, ...]
    blocked: tuple[BlockedLine, ...]
    largest: tuple[ToldDecision, ...]
    plans: int
    plans_failed: int


@dataclass(slots=True)
class _Tally:
    """Sums while the journal is read; `largest` is kept short."""

    decisions: int = 0
    reasons: dict[tuple[str, bool], list[int]] = field(default_factory=dict)
    blocked: dict[Blocked, list[int]] = field(default_factory=dict)
    largest: list[tuple[Micros, Decided]] = field(default_factory=list)
    plans: int = 0
    failed: int = 0


def choices(journal: Iterable[JournalLine], scenario: Scenario) -> Choices:
    """Sum up a journal.

    Args:
        journal: lines in order; those of a warm-up, before 0, are left out.
        scenario: of the run, for the thresholds in the words.
    """
    tally = _Tally()
    for line in journal:
        if line.now < 0:
            continue
        if isinstance(line.event, Solved | SolvedAhead):
            tally.plans += 1
            tally.failed += line.event.plan is None
        for decided in line.decisions:
            _add(tally, line.now, decided)
    _shorten(tally)
    reasons = [ReasonLine(reason, *numbers) for (reason, _), numbers in tally.reasons.items()]
    blocked = [BlockedLine(why.value, BLOCKED[why], *numbers) for why, numbers in tally.blocked.items()]
    return Choices(
        decisions=tally.decisions,
        reasons=tuple(sorted(reasons, key=lambda one: (-one.decisions, one.reason, -one.wanted))),
        blocked=tuple(sorted(blocked, key=lambda one: (-one.decisions, one.why))),
        largest=tuple(_told(now, decided, scenario) for now, decided in tally.largest),
        plans=tally.plans,
        plans_failed=tally.failed,
    )


def _add(tally: _Tally, now: Micros, decided: Decided) -> None:
    one = decided.decision
    tally.decisions += 1
    line = tally.reasons.setdefault((one.reason.value, one.change > 0), [0, 0, 0])
    for place, number in enumerate((1, one.change, one.done)):
        line[place] += number
    if one.blocked is not Blocked.NOT:
        stopped = tally.blocked.setdefault(one.blocked, [0, 0])
        stopped[0] += 1
        stopped[1] += abs(one.change - one.done)
    tally.largest.append((now, decided))
    if len(tally.largest) > 20 * LARGEST:
        _shorten(tally)


def _shorten(tally: _Tally) -> None:
    tally.largest = sorted(tally.largest, key=lambda each: (-abs(each[1].decision.change), each[0]))[:LARGEST]


def _told(now: Micros, decided: Decided, scenario: Scenario) -> ToldDecision:
    event = event_of(now, decided, scenario)
    return ToldDecision(now, decided.pool, event.change, event.done, event.reason.value, event.words)
