"""The plan a strategy would make at an instant: from what was heard until then and given counts, without playing a run.

The same `DemandEstimates` and `ForesightInputs` that the strategies use, asked once. Changes nothing and acts on nothing;
batch queues are taken as empty, because only a run knows what waits. Read next: `strategies/demand_estimates.py`,
`strategies/foresight_inputs.py`; `plan/explain.py` for questions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from msgspec import Struct

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, PlanError
from sageserve.base.records import Demand, Floats
from sageserve.base.units import HOUR, SECOND, Micros, show_duration
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.core.events import DemandSeen
from sageserve.core.fleet import Fleet
from sageserve.core.forecast import QuantileForecast, Series, incredible
from sageserve.core.history import BIN
from sageserve.core.layout import Layout
from sageserve.core.plan.explain import AnyPlan, solve
from sageserve.core.plan.what_if import Question
from sageserve.core.response import Load
from sageserve.core.strategies import layout_of, strategy_kind
from sageserve.core.strategies.demand_estimates import DemandEstimates
from sageserve.core.strategies.foresight_inputs import ForesightInputs
from sageserve.core.work import Fit, Fitted, perform

Planner: TypeAlias = Literal["lt-i", "lt-u", "lt-ua", "foresight"]

PLANNERS: Final[tuple[str, ...]] = get_args(Planner)
"""Strategies that make plans. The first three make the same ones, and differ in how they follow them."""


class Theta(Struct, frozen=True):
    """What one instance of a pool sustains, and how that comes about: load x 1 s / engine time per token.

    Args:
        pool: its name.
        tokens_per_s: prompt tokens, with the answers that come with them.
        engine_us_per_token: engine time per prompt token on this pool's engine, answers included.
        load: why an instance may be busy that share of its time and not more.
    """

    pool: str
    tokens_per_s: float
    engine_us_per_token: float
    load: Load


class Expected(Struct, frozen=True):
    """Demand that was planned for, beside what was seen: prompt tokens/s.

    Args:
        name: `region/model`, or `batch model` for what the batch queue adds.
        expected: the middle of the forecast for the plan's first step.
        now: planned for in that step, headroom included.
        peak: the most planned for in any step of the plan.
        seen: mean of the last hour.
    """

    name: str
    expected: float
    now: float
    peak: float
    seen: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan with all it was made from.

    Args:
        question: what was solved.
        plan: the answer.
        expected: demand planned for, beside what was seen.
        thetas: what an instance sustains, by pool.
        data_until: the instant the newest whole bin of demand ends.
        expires: the instant the strategy would plan again.
        unknown: `region/model` for which the last hour's mean stands for a forecast.
        incredible: `region/model` and a sentence, where a quantile lies far above all that was ever seen.
    """

    question: Question
    plan: AnyPlan
    expected: tuple[Expected, ...]
    thetas: tuple[Theta, ...]
    data_until: Micros
    expires: Micros
    unknown: tuple[str, ...]
    incredible: tuple[tuple[str, str], ...]


def planned_layout(scenario: Scenario) -> Layout:
    """The layout of a scenario under its strategy.

    Raises:
        PlanError: the strategy makes no plans.
    """
    name = scenario.strategy.name
    if name not in PLANNERS:
        raise PlanError(f"the strategy {name} makes no plan", hint=f"choose one that does: {', '.join(PLANNERS)}")
    return layout_of(scenario)


def within_demand(now: Micros, window: Micros) -> Micros:
    """The instant itself.

    Args:
        now: microseconds from the start.
        window: of the demand.

    Raises:
        ConfigError: the demand ends before it, so nobody can have heard it.
    """
    if now > window:
        raise ConfigError(
            f"{show_duration(now)} is after the end of the demand",
            hint=f"it ends at {show_duration(window)}; choose a time up to then",
        )
    return now


def start_counts(scenario: Scenario, layout: Layout) -> dict[str, int]:
    """Instances by pool name at the start of a run."""
    initial = strategy_kind(scenario.strategy.name).initial(scenario, layout)
    return {pool.name: count for pool, count in zip(layout.pools, initial, strict=True)}


def propose(
    scenario: Scenario, now: Micros, heard: Iterable[DemandSeen], *, earlier: Demand | None, counts: Mapping[str, int]
) -> Proposal:
    """The plan that `strategy.name` would make at `now`.

    Args:
        scenario: with a strategy that plans.
        now: microseconds from the start.
        heard: demand until `now`, in order, from 0 on.
        earlier: demand before 0, None when nothing is known.
        counts: instances that serve, by pool name; none where a pool is not named.

    Raises:
        PlanError: the strategy makes no plans, the instances do not fit, or there is no plan.
    """
    layout = planned_layout(scenario)
    fleet = _fleet(layout, counts, now)
    if scenario.strategy.name == "foresight":
        return _ahead(scenario, layout, fleet, heard=heard, now=now, earlier=earlier)
    return _hourly(scenario, layout, fleet, heard=heard, now=now, earlier=earlier)


def _hourly(
    scenario: Scenario, layout: Layout, fleet: Fleet, *, heard: Iterable[DemandSeen], now: Micros, earlier: Demand | None
) -> Proposal:
    rules, prospects = scenario.strategy.planned, DemandEstimates(scenario, layout, earlier)
    _hear(prospects, heard, now)
    series = tuple(prospects.series())
    forecasts = _forecasts(series, rules.forecaster, prospects.bins, (rules.quantile,))
    prospects.take(forecasts, late=now - prospects.history.end)
    problem = prospects.problem(fleet)
    seen, batch_seen = _last_hour(prospects)
    ends, rows = _endpoints(layout), _rows(prospects)  # both parts of a model are told the same
    planned = [max(window[g][rows[m]] for window in problem.demand) for g, m, _ in ends]
    expected = [Expected(name, rate, rate, rate, float(seen[g, m])) for rate, (g, m, name) in zip(planned, ends, strict=True)]
    expected += [
        Expected(f"batch {model}", *(problem.buffer[rows[m]],) * 3, float(batch_seen[m]))
        for m, model in enumerate(layout.names.models)
    ]
    return Proposal(
        question=problem,
        plan=solve(problem),
        expected=tuple(expected),
        thetas=_thetas(layout, prospects, prospects.loads),
        data_until=prospects.history.end,
        expires=(now // rules.every + 1) * rules.every,
        unknown=_unknown(layout, forecasts),
        incredible=_incredible(layout, series, forecasts),
    )


def _ahead(
    scenario: Scenario, layout: Layout, fleet: Fleet, *, heard: Iterable[DemandSeen], now: Micros, earlier: Demand | None
) -> Proposal:
    rules, horizon = scenario.strategy.foresight, ForesightInputs(scenario, layout, earlier)
    prospects = horizon.demand
    _hear(prospects, heard, now)
    fitted_at = max(now // rules.refit * rules.refit, prospects.history.start + BIN)  # in between, the newest bin corrects it
    series = tuple(one.until(fitted_at) for one in prospects.series())
    forecasts = _forecasts(series, rules.forecaster, horizon.bins, horizon.levels)
    horizon.take(forecasts)
    outlook = horizon.outlook(now, fleet)
    seen, batch_seen = _last_hour(prospects)
    tokens = (SECOND / prospects.work_per_token()).tolist()  # per second of a busy instance
    batch_tokens = (SECOND / prospects.work_per_token(batch=True)).tolist()
    expected = []
    rows, parts = _rows(prospects), prospects.parts
    for g, m, name in _endpoints(layout):
        part, whose = rows[m], f"{layout.names.regions[g]}/{parts[rows[m]].name}"
        mine = [stream for stream in outlook.streams if stream.name.partition(" ")[0] == whose]
        rate, middle = np.sum([stream.rate for stream in mine], axis=0).tolist(), sum(stream.expected[0] for stream in mine)
        rates = (middle * tokens[part], rate[0] * tokens[part], max(rate) * tokens[part])
        expected.append(Expected(name, *rates, float(seen[g, m])))
    for m, model in enumerate(layout.names.models):
        mean = sum(lot.work for lot in outlook.batches[rows[m]].lots) / sum(outlook.steps) * batch_tokens[rows[m]]
        expected.append(Expected(f"batch {model}", *(mean,) * 3, float(batch_seen[m])))
    return Proposal(
        question=outlook,
        plan=solve(outlook),
        expected=tuple(expected),
        thetas=_thetas(layout, prospects, prospects.loads),
        data_until=prospects.history.end,
        expires=(now // rules.every + 1) * rules.every,
        unknown=_unknown(layout, forecasts),
        incredible=_incredible(layout, series, forecasts),
    )


def _hear(prospects: DemandEstimates, heard: Iterable[DemandSeen], now: Micros) -> None:
    for bin_seen in heard:
        prospects.history.add(bin_seen)
    if not prospects.known:
        raise PlanError(
            f"nothing is known of demand at {show_duration(now)}, so no strategy plans",
            hint=f"choose a time after the first {show_duration(BIN)}",
        )


def _forecasts(
    series: Sequence[Series], method: str, bins: int, levels: tuple[float, ...]
) -> tuple[QuantileForecast | None, ...]:
    """As the action `Fit` gives them: None for a series of which nothing is known."""
    fitted = perform(Fit(0, method, tuple(series), bins, levels))
    assert isinstance(fitted, Fitted)
    return fitted.forecasts


def _fleet(layout: Layout, counts: Mapping[str, int], now: Micros) -> Fleet:
    """A fleet in which these instances serve."""
    fleet = Fleet(layout.pools, layout.stocks, layout.instances, np.zeros(layout.instances, np.int64))
    for pool in layout.pools:
        wanted = counts.get(pool.name, 0)
        for i in range(pool.begin, pool.begin + wanted):
            gpus = fleet.room(pool.number) if i < pool.end else ()
            if not gpus:
                limit = pool.limit(fleet.serving(pool.number))
                raise PlanError(f"{wanted} instances of {pool.name}: {limit}", hint="lower the number, or raise the limit")
            fleet.start(i, now, gpus)
            fleet.ready(i, now)
    return fleet


def _endpoints(layout: Layout) -> list[tuple[int, int, str]]:
    """(region, model, `region/model`) of every pair, pools or not: demand may enter anywhere."""
    names = layout.names
    return [(g, m, f"{region}/{model}") for g, region in enumerate(names.regions) for m, model in enumerate(names.models)]


def _rows(prospects: DemandEstimates) -> list[int]:
    """The row of a plan that stands for each model: its own, or that of its prompts."""
    return [next(k for k, part in enumerate(prospects.parts) if part.model == m) for m in range(prospects.history.shape[1])]


def _last_hour(prospects: DemandEstimates) -> tuple[Floats, Floats]:
    """Interactive tokens/s [regions, models] and batch tokens/s [models], means of the last hour."""
    rate = prospects.history.rate(HOUR)
    return rate[..., prospects.interactive].sum(axis=-1), rate[..., prospects.batch].sum(axis=(0, 2))


def _thetas(layout: Layout, prospects: DemandEstimates, loads: Sequence[Load]) -> tuple[Theta, ...]:
    per_token = prospects.work_per_token()
    found = []
    for pool, part in zip(layout.pools, prospects.part_of, strict=True):
        weight = int(layout.profiles[pool.profile]["weight"]) / WEIGHT_ONE
        engine = float(per_token[part]) * weight
        load = loads[part]
        found.append(Theta(pool.name, load.load * SECOND / engine, engine, load))
    return tuple(found)


def _unknown(layout: Layout, forecasts: Sequence[QuantileForecast | None]) -> tuple[str, ...]:
    """Streams of which nothing was known, so that their last hour's mean stands for the forecast."""
    return tuple(name for forecast, (_, _, name) in zip(forecasts, _endpoints(layout), strict=True) if forecast is None)


def _incredible(
    layout: Layout, series: Sequence[Series], forecasts: Sequence[QuantileForecast | None]
) -> tuple[tuple[str, str], ...]:
    """Streams whose forecast has a quantile far above all that was seen, with the sentence."""
    found = zip((name for _, _, name in _endpoints(layout)), series, forecasts, strict=True)
    notes = ((name, incredible(seen, coming)) for name, seen, coming in found if coming is not None)
    return tuple((name, note) for name, note in notes if note is not None)
