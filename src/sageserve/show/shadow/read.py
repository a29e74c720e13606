"""A state folder of `sageserve watch` or `up`, read and summed up: minutes, journal and settings become one report.

    report = read_shadow(Path("~/.local/state/sageserve-watch"), last=7 * DAY)

Reads only; the fleet may be watched meanwhile. Read next: `reckon.py`.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Struct

from sageserve.base.config import Scenario
from sageserve.base.errors import ResultError
from sageserve.base.units import MINUTE, SECOND, Micros
from sageserve.core.layout import Layout
from sageserve.core.strategies import layout_of
from sageserve.data.results.journal import LIVE, LiveJournal, is_state_folder, read_stamped
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.watched.minutes import newest_minute, read_minutes
from sageserve.show.shadow.forecast import ForecastJudge, TokenMinutes
from sageserve.show.shadow.reckon import EndpointCounts, ShadowEndpoint, counts_of, reckon, refusals


class ShadowReport(Struct, frozen=True):
    """A fleet that was watched.

    Args:
        fleet: the scenario's name.
        strategy: the rule that decided.
        begins_s: the first minute, seconds since 1970.
        ends_s: the end of the last one.
        watched_hours: minutes that were taken down.
        decisions: that were made.
        blocked: by what kept them from being done; `shadow`: nothing else.
        endpoints: in the order of the settings.
        harm: instance-minutes, of all.
        help: likewise.
        saves_usd: what ran less what would have, on demand; below 0: it would have cost more.
        broken_minutes_saved: minutes in which what ran was short, less those in which what would have run is, over all endpoints.
        refused: why a target should not be given more rights yet, by endpoint; nothing: it may, when `doctor` finds no error.
        currency: of costs, those called `_usd` too.
    """

    fleet: str
    strategy: str
    begins_s: float
    ends_s: float
    watched_hours: float
    decisions: int
    blocked: dict[str, int]
    endpoints: tuple[ShadowEndpoint, ...]
    harm: float
    help: float
    saves_usd: float
    broken_minutes_saved: int
    refused: dict[str, tuple[str, ...]]
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class ShadowReading:
    """A report with the minutes behind it."""

    report: ShadowReport
    scenario: Scenario
    counts: dict[str, EndpointCounts]


def read_shadow(state: Path, last: Micros | None = None) -> ShadowReading:
    """Read a state folder.

    Args:
        state: of `sageserve watch` or `sageserve up`.
        last: microseconds back from where the minutes end that count; None: all that was kept.

    Raises:
        ResultError: nothing was watched there, or not in that time.
    """
    if not is_state_folder(state):
        raise ResultError(f"{state} is no folder of `sageserve watch` or `up`", hint="name the one it keeps with --state")
    begin = 0 if last is None else newest_minute(state) + MINUTE - last
    scenario = load_scenario(state / "scenario.yaml")
    layout = layout_of(scenario)
    counts = counts_of(read_minutes(state, begin), layout)
    walls = np.unique(np.concatenate([one.wall for one in counts.values()]))
    if not len(walls):
        raise ResultError(f"{state} holds no minute of that time", hint="a minute is there once its demand is counted: wait two")
    span = int(walls[0]), int(walls[-1]) + MINUTE
    blocked, by_endpoint = _decisions(state, layout, span)
    judge = _judged(state, scenario, layout, counts)
    numbers = {name: number for number, name in enumerate(_series(layout))}
    budget = min(
        ((tier.ttft, 1.0 - tier.percentile) for tier in scenario.tiers.values() if tier.ttft is not None and not tier.growth),
        default=(0, 0.0),
    )[1]
    endpoints = tuple(reckon(name, one, judge.score(numbers[name]), budget) for name, one in counts.items() if len(one.wall))
    return ShadowReading(
        ShadowReport(
            fleet=scenario.name,
            strategy=scenario.strategy.name,
            begins_s=span[0] / SECOND,
            ends_s=span[1] / SECOND,
            watched_hours=len(walls) / 60,
            decisions=sum(blocked.values()),
            blocked=dict(sorted(blocked.items(), key=lambda one: (-one[1], one[0]))),
            endpoints=endpoints,
            harm=sum(one.harm for one in endpoints),
            help=sum(one.help for one in endpoints),
            saves_usd=sum(one.did.cost_usd - one.would.cost_usd for one in endpoints),
            broken_minutes_saved=sum(one.did.short_minutes - one.would.short_minutes for one in endpoints),
            refused={one.endpoint: refusals(one, counts[one.endpoint], by_endpoint[one.endpoint]) for one in endpoints},
            currency=scenario.currency,
        ),
        scenario,
        counts,
    )


def _series(layout: Layout) -> list[str]:
    """Names of endpoints in the order of forecasts: regions, and in each of them models."""
    return [f"{region}/{model}" for region in layout.names.regions for model in layout.names.models]


def _decisions(state: Path, layout: Layout, span: tuple[Micros, Micros]) -> tuple[Counter[str], Counter[str]]:
    """Decisions by what blocked them, and by endpoint."""
    endpoint = {pool.name: layout.endpoint_name(pool.endpoint) for pool in layout.pools}
    blocked: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for stamped in read_stamped(state / LIVE):
        if span[0] <= stamped.wall < span[1] + MINUTE:
            for one in stamped.line.decisions:
                blocked[one.decision.blocked.value] += 1
                places[endpoint.get(one.pool, one.pool)] += 1
    return blocked, places


def _judged(state: Path, scenario: Scenario, layout: Layout, counts: dict[str, EndpointCounts]) -> ForecastJudge:
    """Forecasts of the journal against what came."""
    names = _series(layout)
    judge = ForecastJudge(len(names))
    begins = next((one.wall for one in read_stamped(state / LIVE)), None)
    if begins is not None:
        tokens = {
            number: TokenMinutes(counts[name].wall - begins, counts[name].tokens, counts[name].seen)
            for number, name in enumerate(names)
            if name in counts
        }
        judge.read(LiveJournal(state, scenario, begins, 0).lines(), tokens)
    return judge
