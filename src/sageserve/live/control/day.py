"""The last 24 hours of a fleet for the live page: demand beside capacity, promises, backlog, decisions, the forecast ahead.

    GET /admin/day   `DayView` as JSON

Minutes and lines of the journal come as they are written, and at the start from the state folder. What is held is bounded: a day
of minutes, MOST decisions and plans, one forecast. Decides nothing. Read next: `data/watched/minutes.py`; `page/day.js` draws it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Final, TypeAlias, TypeVar

from msgspec import Struct

from sageserve.base.config import Scenario
from sageserve.base.errors import ResultError
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Micros
from sageserve.core.layout import Layout
from sageserve.core.plan.horizon import HorizonPlan
from sageserve.core.work import Forecasted, Solved, SolvedAhead
from sageserve.data.results.journal import LIVE, Stamped, newest_stamped
from sageserve.data.watched.minutes import EndpointMinute, WatchedMinute, read_minutes

STEP: Final = 5 * MINUTE
"""One point of a line: 288 a day."""
AHEAD: Final = 6 * HOUR
MOST: Final = 1000
"""Decisions and plans that are held."""
_TAIL: Final = 4 << 20
"""Bytes of the journal that are read at the start."""
Values: TypeAlias = tuple[float | None, ...]
_Item = TypeVar("_Item")


class DayDecision(Struct, frozen=True):
    """A decision, in words."""

    at_s: float
    pool: str
    words: str
    blocked: str


class DayPlan(Struct, frozen=True):
    """A plan: what each pool should have, why, and what could not be had."""

    at_s: float
    targets: dict[str, int]
    why: dict[str, str]
    short: str


class Unseen(Struct, frozen=True):
    """A time in which an endpoint was not seen."""

    begins_s: float
    ends_s: float
    why: str


class ForecastAhead(Struct, frozen=True):
    """Demand that is expected, in instances of the fastest type; one value a bin.

    Args:
        begins_s: of the bins, seconds since 1970.
        middle: the forecast.
        low: of its lowest quantile; empty: it has none.
        high: of its highest.
    """

    begins_s: tuple[float, ...]
    middle: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class EndpointDay(Struct, frozen=True):
    """One endpoint; None where nothing is known. In instances of the model's fastest type.

    Args:
        endpoint: region/model.
        busy: what demand kept busy.
        needed: the most that kept promises.
        did: what served.
        would: what decisions asked for.
        late: share of late requests.
        unseen: when, and why.
        ahead: the newest forecast; None: there is none.
        pools: names of its pools.
    """

    endpoint: str
    busy: Values
    needed: Values
    did: Values
    would: Values
    late: Values
    unseen: tuple[Unseen, ...]
    ahead: ForecastAhead | None
    pools: tuple[str, ...]


class TierDay(Struct, frozen=True):
    """Promises kept of a service class; None where nobody asked.

    Args:
        tier: its name.
        promised: the share.
        kept: shares.
    """

    tier: str
    promised: float
    kept: Values


class BacklogDay(Struct, frozen=True):
    """Batch work of a model.

    Args:
        model: its name.
        waiting: at the end of each step.
        slack_s: to the deadline that comes first.
    """

    model: str
    waiting: Values
    slack_s: Values


class DayView(Struct, frozen=True):
    """Everything.

    Args:
        begins_s: of the first step, seconds since 1970.
        now_s: when this was read.
        step_s: of lines.
        endpoints: that are known.
        tiers: none of a fleet that others run.
        backlog: likewise.
        decisions: oldest first.
        plans: likewise.
    """

    begins_s: float
    now_s: float
    step_s: float
    endpoints: tuple[EndpointDay, ...]
    tiers: tuple[TierDay, ...]
    backlog: tuple[BacklogDay, ...]
    decisions: tuple[DayDecision, ...]
    plans: tuple[DayPlan, ...]


class LastDay:
    """What happened in the last 24 hours.

    Args:
        scenario: for promises.
        layout: for names and weights.
        state: folder whose minutes and journal are read first.
        now: the wall clock, microseconds since 1970.
        words: a journal line's decisions in sentences.
    """

    def __init__(
        self,
        scenario: Scenario,
        layout: Layout,
        state: Path,
        now: Callable[[], Micros],
        words: Callable[[Stamped], tuple[str, ...]],
    ) -> None:
        self._scenario = scenario
        self._layout = layout
        self._now = now
        self._words = words
        self._minutes: deque[WatchedMinute] = deque(maxlen=DAY // MINUTE)
        self._decisions: deque[DayDecision] = deque(maxlen=MOST)
        self._plans: deque[DayPlan] = deque(maxlen=MOST)
        self._forecast: tuple[Micros, Forecasted] | None = None  # where its bins begin by the wall clock
        since = now() - DAY
        with suppress(ResultError):  # nothing was kept yet
            self._minutes.extend(read_minutes(state, since))
        for line in newest_stamped(state / LIVE, _TAIL):
            if line.wall >= since:
                self.hear(line)

    def add(self, minute: WatchedMinute) -> None:
        """A minute is counted."""
        self._minutes.append(minute)

    def hear(self, stamped: Stamped) -> None:
        """A line of the journal."""
        event, at_s = stamped.line.event, stamped.wall / SECOND
        if isinstance(event, Forecasted) and not event.failure:
            self._forecast = stamped.wall + event.start - stamped.line.now, event
        elif isinstance(event, Solved | SolvedAhead) and event.plan is not None:
            names = [pool.name for pool in self._layout.pools]
            why = map(str, event.plan.why) if isinstance(event.plan, HorizonPlan) else ()
            targets = dict(zip(names, event.plan.target, strict=False))  # of settings as they were then
            self._plans.append(DayPlan(at_s, targets, dict(zip(names, why, strict=False)), event.plan.statement))
        if stamped.line.decisions:
            for decided, words in zip(stamped.line.decisions, self._words(stamped), strict=True):
                self._decisions.append(DayDecision(at_s, decided.pool, words, decided.decision.blocked.value))

    def view(self) -> DayView:
        """All of it, as of now."""
        now = self._now()
        begin = (now - DAY) // STEP * STEP
        steps: list[list[WatchedMinute]] = [[] for _ in range((now - begin) // STEP + 1)]
        for minute in self._minutes:
            if 0 <= (at := (minute.wall - begin) // STEP) < len(steps):
                steps[at].append(minute)
        since_s = begin / SECOND
        return DayView(
            since_s,
            now / SECOND,
            STEP / SECOND,
            tuple(self._endpoints(steps, now)),
            tuple(self._tiers(steps)),
            tuple(self._backlog(steps)),
            tuple(one for one in self._decisions if one.at_s >= since_s),
            tuple(one for one in self._plans if one.at_s >= since_s),
        )

    def _endpoints(self, steps: Sequence[Sequence[WatchedMinute]], now: Micros) -> Iterator[EndpointDay]:
        layout, endpoint_of = self._layout, {pool.name: pool.endpoint for pool in self._layout.pools}
        strength = {pool.name: layout.strength(pool) for pool in layout.pools}
        seen: dict[str, list[list[tuple[Micros, EndpointMinute]]]] = {}
        counts: dict[int, list[list[tuple[float, float]]]] = {}
        for at, step in enumerate(steps):
            for minute in step:
                for one in minute.endpoints:
                    seen.setdefault(one.endpoint, [[] for _ in steps])[at].append((minute.wall, one))
                sums: dict[int, tuple[float, float]] = {}
                for pool in minute.pools:
                    if (endpoint := endpoint_of.get(pool.pool)) is not None:
                        did, would = sums.get(endpoint, (0.0, 0.0))
                        worth = strength[pool.pool]
                        sums[endpoint] = did + pool.did * worth, would + pool.would * worth
                for endpoint, sides in sums.items():
                    counts.setdefault(endpoint, [[] for _ in steps])[at].append(sides)
        for endpoint in range(layout.endpoints):
            if not (pools := layout.endpoint_pools(endpoint)):
                continue
            name = layout.endpoint_name(endpoint)
            found, sides_at = seen.get(name, [[] for _ in steps]), counts.get(endpoint, [[] for _ in steps])
            ends = [[one for _, one in step] for step in found]
            yield EndpointDay(
                name,
                _each(ends, lambda some: fmean(one.busy for one in some)),
                _each(ends, lambda some: float(max(one.needed for one in some))),
                _each(sides_at, lambda some: fmean(one[0] for one in some)),
                _each(sides_at, lambda some: fmean(one[1] for one in some)),
                _each(ends, lambda some: max((one.late for one in some if one.late is not None), default=None)),
                tuple(_unseen([(wall, one.blind) for step in found for wall, one in step])),
                self._ahead(ends, pools[0].region * len(layout.names.models) + pools[0].model, now),
                tuple(pool.name for pool in pools),
            )

    def _ahead(self, ends: Sequence[Sequence[EndpointMinute]], series: int, now: Micros) -> ForecastAhead | None:
        """The forecast in instances: as many for each token as in the last day."""
        if self._forecast is None or series >= len(self._forecast[1].points):
            return None
        begin, event = self._forecast
        recent = [one for step in ends for one in step if not one.blind]
        tokens = sum(one.tokens for one in recent)
        if not tokens:
            return None
        worth = sum(one.busy for one in recent) / tokens * MINUTE / event.bin  # instances for a token a bin
        points, quantiles = event.points[series], event.quantiles[series] if series < len(event.quantiles) else ()
        rows = [k for k in range(len(points)) if now - event.bin < begin + k * event.bin < now + AHEAD]
        whole = all(k < len(quantiles) and len(quantiles[k]) > 1 for k in rows)
        return ForecastAhead(
            tuple((begin + k * event.bin) / SECOND for k in rows),
            tuple(round(points[k] * worth, 3) for k in rows),
            tuple(round(min(quantiles[k]) * worth, 3) for k in rows) if whole else (),
            tuple(round(max(quantiles[k]) * worth, 3) for k in rows) if whole else (),
        )

    def _tiers(self, steps: Sequence[Sequence[WatchedMinute]]) -> Iterator[TierDay]:
        for name, tier in self._scenario.tiers.items():
            found = [[one for minute in step for one in minute.tiers if one.tier == name] for step in steps]
            if any(found):
                yield TierDay(
                    name, tier.percentile, _each(found, lambda some: _kept([(one.requests, one.missed) for one in some]))
                )

    def _backlog(self, steps: Sequence[Sequence[WatchedMinute]]) -> Iterator[BacklogDay]:
        for model in self._layout.names.models:
            found = [[one for minute in step for one in minute.backlog if one.model == model] for step in steps]
            if any(one.waiting for step in found for one in step):
                yield BacklogDay(
                    model, _each(found, lambda some: float(some[-1].waiting)), _each(found, lambda some: some[-1].slack_s)
                )


def _each(steps: Sequence[Sequence[_Item]], value: Callable[[Sequence[_Item]], float | None]) -> Values:
    """One value a step; None where there is none."""
    found = (value(step) if step else None for step in steps)
    return tuple(None if one is None else round(one, 4) for one in found)


def _kept(counts: Sequence[tuple[int, int]]) -> float | None:
    requests, missed = (sum(one[at] for one in counts) for at in (0, 1))
    return max(0.0, 1.0 - missed / requests) if requests else None


def _unseen(minutes: Sequence[tuple[Micros, str]]) -> Iterator[Unseen]:
    """Times in which one reason held, from minutes in order."""
    begin = end = 0
    last = ""
    for wall, why in (*minutes, (0, "")):
        if last and (why != last or wall != end):
            yield Unseen(begin / SECOND, end / SECOND, last)
            last = ""
        if why and not last:
            begin, last = wall, why
        end = wall + MINUTE
