"""foresight: the outlook it draws from what was seen, and what it does with the plan that comes back.

10,000 tokens/s of 100 us each keep one instance busy; where requests in time are worth nothing, an instance is as busy as it may
be, 0.9 of its time. Read next: `driven.py`; `src/sageserve/core/strategies/foresight.py`, `core/strategies/foresight_inputs.py`.
"""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import Scenario, SpotSettings
from sageserve.base.errors import PlanError
from sageserve.base.records import Demand, Floats
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros, duration_us
from sageserve.core.actions import Drain, Feed, Reason, Reclaim, Start
from sageserve.core.events import DemandSeen, EndpointSeen, Observed
from sageserve.core.forecast import QuantileForecast
from sageserve.core.history import BIN
from sageserve.core.plan.outlook import Lot, begins
from sageserve.core.strategies.foresight_inputs import ForesightInputs
from sageserve.core.work import Fit, SolveAhead, SolvedAhead, perform
from tests.core.driven import Driven, asked
from tests.core.small import TIERS, fleet_of, layout_of, scenario
from tests.core.test_demand_estimates import kinds

LEVELS = (0.5, 0.9)


def settings_of(**rules: object) -> Scenario:
    own = {"name": "foresight", "foresight": {"quantile": 0.9, "headroom": 10} | rules}
    return scenario(gpus=160, fleet={"start": 2, "minimum": 1, "maximum": 8}, strategy=own)


def headroom_of(**rules: object) -> Scenario:
    """The same where a request in time is worth so much that all headroom is had, and no queue is ever long enough to matter."""
    patient = {name: TIERS[name] for name in ("iw-n", "niw")} | {"iw-f": {"ttft": "10m"}}
    own = {"name": "foresight", "foresight": {"quantile": 0.9, "headroom": 10, "worth": 10.0} | rules}
    return scenario(gpus=160, tiers=patient, fleet={"start": 2, "minimum": 1, "maximum": 8}, strategy=own)


def begin(*, rate: float = 1_000.0, serving: int = 2, **rules: object) -> Driven:
    """An hour of steady demand was heard."""
    driven = Driven(settings_of(**rules), serving)
    driven.hear(rate, until=HOUR)
    return driven


def horizon_of(settings: Scenario, tokens: Floats | None = None) -> ForesightInputs:
    """Demand heard from 0 on: float64[bins, regions, models, tiers], 100 us and a request per 500 tokens."""
    horizon = ForesightInputs(settings, layout_of(settings), None)
    for k, row in enumerate(np.zeros((0,)) if tokens is None else tokens):
        flat = tuple(round(float(one)) for one in row.ravel())
        work, requests = tuple(100.0 * one for one in flat), tuple(one // 500 for one in flat)
        horizon.demand.history.add(DemandSeen(k * BIN, BIN, flat, (0,) * len(flat), requests, work))
    return horizon


def forecast(start: Micros, middle: list[float], *, high: float = 1.5) -> QuantileForecast:
    """Tokens/s by bin; the upper quantile is `high` times the middle."""
    point = np.array(middle) * 900
    return QuantileForecast(start, BIN, point, LEVELS, np.stack([point, high * point], axis=1), True)


# ------------------------------------------------------------------------------------------------ acting


def test_without_history_the_guard_alone_acts_until_a_bin_was_seen() -> None:
    driven = Driven(settings_of())
    for step in range(60):
        actions = driven.look(step * 15 * SECOND, 0.69, 0.5, 0.71, 0.5)
        assert not [one for one in actions if isinstance(one, Fit | SolveAhead | Drain)]
        assert [(one.pool, one.reason) for one in driven.decisions] == [(2, Reason.UTILISATION_HIGH)] * (step == 0)
    driven.hear(1_000.0, until=BIN)
    fit = asked(driven.look(BIN))
    assert isinstance(fit, Fit)
    assert (fit.bins, fit.levels, len(fit.series)) == (48, LEVELS, 4)
    assert isinstance(asked(driven.answer(BIN, fit)), SolveAhead)


def test_targets_are_applied_at_once_and_what_is_coming_counts() -> None:
    driven = begin()
    actions = driven.plan(HOUR, (5, 1, 2, 2))
    assert [type(one) for one in actions if not isinstance(one, Feed)] == [Start, Start, Start, Drain]
    assert [(one.pool, one.change, one.done, one.target) for one in driven.decisions] == [(0, 3, 3, 5), (1, -1, -1, 1)]
    assert {one.reason for one in driven.decisions} == {Reason.PLANNED}
    driven.hear(1_000.0, until=HOUR + BIN)
    driven.plan(HOUR + BIN, (6, 1, 2, 2))
    assert [(one.pool, one.change) for one in driven.decisions] == [(0, 1)]


def test_a_plan_every_quarter_and_a_fit_every_hour() -> None:
    driven = begin()
    asks: list[tuple[Micros, str]] = []
    for minute in range(60, 200):
        now = minute * MINUTE
        driven.hear(1_000.0, until=now // BIN * BIN)
        for one in driven.look(now):
            if isinstance(one, Fit):
                asks.append((minute, "fit"))
                driven.answer(now, one)
            elif isinstance(one, SolveAhead):
                asks.append((minute, "solve"))
    assert asks == [(m, "fit" if m % 60 == 0 else "solve") for m in range(60, 200, 15)]


def test_without_a_plan_the_last_one_stands_and_an_older_answer_is_not_heard() -> None:
    driven = begin()
    driven.settle(HOUR, driven.plan(HOUR, (3, 2, 2, 2)))
    driven.hear(1_000.0, until=HOUR + BIN)
    old = asked(driven.look(HOUR + BIN, 0.7))
    assert driven.controller.handle(HOUR + BIN, SolvedAhead(old.number, None, "no answer before its limits")) == ()
    driven.hear(1_000.0, until=HOUR + 2 * BIN)
    new = asked(driven.look(HOUR + 2 * BIN, 0.7))
    assert driven.answer(HOUR + 2 * BIN, old, (8, 8, 8, 8)) == ()
    assert driven.serving() == [3, 2, 2, 2]
    assert isinstance(old, SolveAhead)
    assert isinstance(new, SolveAhead)
    assert new.outlook.pools[0].serving == 3


def test_the_guard_adds_one_when_an_endpoint_is_fuller_than_it_may_be() -> None:
    driven = begin(rate=5_000.0, worth=0.0, guard=0.05)
    driven.plan(HOUR, (2, 2, 2, 2))
    for step, seen in enumerate([0.94, 0.96]):
        now = HOUR + (step + 1) * MINUTE
        actions = driven.look(now, seen, 0.5, 0.95, 0.5)
        assert [(one.pool, one.change, one.reason) for one in driven.decisions] == [(0, 1, Reason.AHEAD_OF_PLAN)] * (step == 1)
        driven.settle(now, actions)
    driven.look(HOUR + 4 * MINUTE, 9.9, 0.5, 0.5, 0.5)
    driven.look(HOUR + 4 * MINUTE + 14 * SECOND, 99.9, 0.5, 0.5, 0.5)
    assert not driven.decisions, "it waits a moment between steps"


@pytest.mark.parametrize(
    ("seen", "donated", "stopped"),
    [
        (0.42, True, False),  # one alone would be 0.84 busy; 0.9 less 0.08 to spare is the most
        (0.40, True, True),
        (0.40, False, False),  # it would be back in a quarter of an hour and not in a minute
    ],
)
def test_between_plans_one_is_stopped_where_one_fewer_would_do_and_could_be_had_back(
    seen: float, donated: bool, stopped: bool
) -> None:
    driven = Driven(settings_of(worth=0.0).model_copy(update={"spot": SpotSettings(donate=donated)}), 2)
    driven.hear(5_000.0, until=HOUR)
    driven.plan(HOUR, (2, 2, 2, 2))
    driven.look(HOUR + MINUTE, seen, 0.5, 0.5, 0.5)
    assert [(one.pool, one.change, one.reason) for one in driven.decisions] == [(0, -1, Reason.BEHIND_PLAN)] * stopped


def test_before_the_first_plan_the_reactive_marks_stop_instances_too() -> None:
    driven = Driven(settings_of(), 3)
    driven.look(MINUTE, 0.29, 0.31, 0.5, 0.5)
    assert [(one.pool, one.change, one.reason) for one in driven.decisions] == [(0, -1, Reason.UTILISATION_LOW)]


def test_endpoints_are_fed_as_far_as_the_plan_has_batch_work_for_them() -> None:
    driven = begin(rate=5_000.0, worth=0.0)
    idle = [one for one in driven.plan(HOUR, (2, 2, 2, 2)) if isinstance(one, Feed)]
    assert [(one.endpoint, one.one_below, one.two_below) for one in idle] == [(e, 0.0, 0.0) for e in range(4)]
    driven.hear(5_000.0, until=HOUR + BIN, batch=2_000.0)
    program = asked(driven.look(HOUR + BIN, waiting=(3_600, 0)))
    assert isinstance(program, SolveAhead)
    done = perform(program)
    assert isinstance(done, SolvedAhead)
    assert done.plan is not None
    first = done.plan.steps[0]
    feeds = [one for one in driven.controller.handle(HOUR + BIN, done) if isinstance(one, Feed)]
    assert program.outlook.batches[0].ways[0].use == pytest.approx(1 / 0.9)
    assert first.done[0] > 0, "two regions x 2,000 tokens/s for a quarter of an hour wait"
    for model, found in ((0, feeds[0]), (1, feeds[1])):
        expected = sum(stream.expected[0] for stream in program.outlook.streams[model::2]) * 0.9
        there = sum(first.serving[model::2])
        wanted = min((expected + first.done[model] / 0.25) * program.outlook.margin / there, 0.9) if first.done[model] else 0.0
        assert found.one_below == found.two_below == pytest.approx(wanted)
    assert feeds[0] == Feed(0, feeds[2].one_below, feeds[2].two_below), "both regions alike"


def test_an_instance_donated_by_one_plan_is_taken_back_by_the_next() -> None:
    driven = begin()
    driven.settle(HOUR, driven.plan(HOUR, (1, 2, 2, 2)))
    driven.hear(1_000.0, until=HOUR + BIN)
    program = asked(driven.look(HOUR + BIN))
    assert isinstance(program, SolveAhead)
    assert (program.outlook.pools[0].serving, program.outlook.pools[0].spot) == (1, 1)
    actions = driven.answer(HOUR + BIN, program, (2, 2, 2, 2))
    assert [type(one) for one in actions if not isinstance(one, Feed)] == [Reclaim]


def test_a_forecaster_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(PlanError, match="no forecaster is called 'magic'"):
        Driven(settings_of(forecaster="magic"))


# ------------------------------------------------------------------------------------------------ demand ahead


def flat(bins: int, rate: float) -> Floats:
    """Tokens per bin of the first region, model and tier."""
    tokens = np.zeros((bins, 2, 2, 3))
    tokens[:, 0, 0, 0] = rate * 900
    return tokens


def expected_of(horizon: ForesightInputs, now: Micros) -> tuple[list[float], list[float]]:
    """Tokens/s of the first stream by step: expected, and kept capacity for."""
    layout = layout_of(settings_of(worth=0.0))
    outlook = horizon.outlook(now, fleet_of(layout))
    stream = outlook.streams[0]
    return [one * 9_000 for one in stream.expected], [one * 9_000 for one in stream.rate]


def test_steps_read_the_bins_they_cover_the_mean_to_expect_and_the_highest_to_keep() -> None:
    horizon = horizon_of(headroom_of(), flat(4, 1_000.0))
    rates = [1_000.0 + 10 * k for k in range(48)]
    horizon.take((forecast(HOUR, rates), None, None, None))
    expected, kept = expected_of(horizon, HOUR)
    times = [round(4 * hours) for hours in begins(horizon.steps)]
    for s, (a, b) in enumerate(pairwise(times)):
        assert expected[s] == pytest.approx(np.mean(rates[a:b]))
        assert kept[s] == pytest.approx(1.5 * max(rates[a:b]))
    assert times[-1] == 48


def test_headroom_is_limited() -> None:
    horizon = horizon_of(headroom_of(headroom=1.2), flat(4, 1_000.0))
    horizon.take((forecast(HOUR, [1_000.0] * 48), None, None, None))
    expected, kept = expected_of(horizon, HOUR)
    assert expected == pytest.approx([1_000.0] * len(horizon.steps))
    assert kept == pytest.approx([1_200.0] * len(horizon.steps))


def test_without_a_forecast_the_last_hour_goes_on() -> None:
    horizon = horizon_of(settings_of(worth=0.0), np.concatenate([flat(4, 500.0), flat(4, 1_500.0)]))
    expected, kept = expected_of(horizon, 2 * HOUR)
    assert expected == kept == pytest.approx([1_500.0] * len(horizon.steps))


@pytest.mark.parametrize(
    ("newest", "first", "later"),
    [
        (1_000.0, 1_200.0, 1_200.0),  # as forecast: the bins that are still to come
        (1_500.0, 1_800.0, 1_200.0 * 1.5**0.5),  # half as much again now, its square root in an hour
        (500.0, 600.0, 1_200.0 * 0.5**0.5),
        (0.0, 600.0, 1_200.0 * 0.5**0.5),  # never less than half
        (2_000.0, 2_400.0, 1_200.0 * 2**0.5),
        (9_000.0, 9_000.0, 4_500.0),  # a burst beyond any factor: itself, and half of it in an hour
    ],
)
def test_the_newest_bin_corrects_an_older_forecast(newest: float, first: float, later: float) -> None:
    horizon = horizon_of(settings_of(worth=0.0), np.concatenate([flat(4, 1_000.0), flat(1, newest)]))
    horizon.take((forecast(HOUR, [1_000.0, *[1_200.0] * 47]), None, None, None))
    expected, _ = expected_of(horizon, HOUR + BIN)
    assert expected[0] == pytest.approx(first)
    assert expected[4] == pytest.approx(later)


def test_demand_where_none_was_forecast_is_planned_for() -> None:
    horizon = horizon_of(settings_of(worth=0.0), np.concatenate([flat(4, 0.0), flat(1, 3_000.0)]))
    horizon.take((forecast(HOUR, [0.0] * 48), None, None, None))
    expected, kept = expected_of(horizon, HOUR + BIN)
    assert expected[0] == kept[0] == pytest.approx(3_000)
    assert expected[-1] < 10


def test_a_forecast_that_ended_long_ago_says_its_last_bin() -> None:
    horizon = horizon_of(settings_of(worth=0.0), flat(120, 1_000.0))
    horizon.take((forecast(0, [500.0] * 47 + [1_000.0]), None, None, None))
    expected, _ = expected_of(horizon, 30 * HOUR)
    assert expected == pytest.approx([1_000.0] * len(horizon.steps))


# ------------------------------------------------------------------------------------------------ batch work ahead

arrivals = st.lists(st.integers(0, 40), max_size=60)  # jobs of 500 tokens by bin


@given(arrivals, st.integers(0, 500), st.sampled_from(["1h", "4h", "10h", "24h"]), st.sampled_from(["2h", "24h"]))
def test_lots_hold_all_work_that_waits_and_are_due_after_they_arrive(
    jobs: list[int], waits: int, promote_after: str, deadline: str
) -> None:
    tiers = TIERS | {"niw": {"deadline": deadline}}
    settings = scenario(tiers=tiers, batch={"promote_after": promote_after}, strategy={"name": "foresight"})
    tokens = np.zeros((len(jobs), 2, 2, 3))
    tokens[:, 1, 0, 2] = 500.0 * np.array(jobs)
    horizon = horizon_of(settings, tokens)
    horizon.demand.see(Observed(0, (EndpointSeen(0.5, 0.0, 0.5),) * 4, (waits, 0)))
    outlook = horizon.outlook(len(jobs) * BIN, fleet_of(layout_of(settings)))
    lots = outlook.batches[0].lots
    there, coming = lots[: -len(horizon.steps)], lots[-len(horizon.steps) :]
    each = float(horizon.demand.history.batch_prompt_mean([2])[0] * horizon.demand.work_per_token(batch=True)[0] / HOUR)
    assert sum(lot.work for lot in there) == pytest.approx(waits * each)
    patience = max(min(float(promote_after[:-1]), float(deadline[:-1])) - 0.5, horizon.steps[0])
    for lot in lots:
        assert lot.arrives + horizon.steps[0] <= lot.due <= lot.arrives + patience
    assert [lot.due for lot in there] == sorted((lot.due for lot in there), reverse=True), "the newest wait longest"
    per_hour = float(horizon.demand.history.rate(24 * HOUR)[1, 0, 2]) * 3_600 / 500 if jobs else 0.0
    assert [lot.arrives for lot in coming] == list(begins(horizon.steps))[:-1]
    assert sum(lot.work for lot in coming) == pytest.approx(per_hour * 12 * each)
    assert not [lot for lot in outlook.batches[1].lots if lot.work], "the other model has no batch work"


def test_what_waits_is_the_newest_of_what_came_and_due_by_its_age() -> None:
    settings = settings_of(worth=0.0)
    tokens = np.zeros((10, 2, 2, 3))  # two and a half hours: the oldest group is half of one
    tokens[:, 0, 0, 2] = [500] * 2 + [1_000] * 4 + [2_000] * 4
    horizon = horizon_of(settings, tokens)
    unit = 500 * 100 / 1e6 / 3_600  # instance-hours per job

    def due(waits: int) -> list[Lot]:
        horizon.demand.see(Observed(0, (EndpointSeen(0.5, 0.0, 0.5),) * 4, (waits, 0)))
        lots = horizon.outlook(10 * BIN, fleet_of(layout_of(settings))).batches[0].lots
        return [Lot(lot.arrives, lot.due, round(lot.work / unit, 6)) for lot in lots[: -len(horizon.steps)] if lot.work > 1e-12]

    assert due(0) == []
    assert due(10) == [Lot(0.0, 8.5, 10.0)]  # 10 h of age less half an hour, less the hour they may have waited
    assert due(20) == [Lot(0.0, 8.5, 16.0), Lot(0.0, 7.5, 4.0)]
    assert due(26) == [Lot(0.0, 8.5, 16.0), Lot(0.0, 7.5, 8.0), Lot(0.0, 6.5, 2.0)]
    assert due(30) == [Lot(0.0, 8.5, 16.0), Lot(0.0, 7.5, 8.0), Lot(0.0, 6.5, 2.0), Lot(0.0, 6.5, 4.0)]


def test_jobs_beyond_the_age_of_promotion_are_due_at_once() -> None:
    settings = scenario(batch={"promote_after": "2h"}, strategy={"name": "foresight"})
    tokens = np.zeros((16, 2, 2, 3))
    tokens[:4, 0, 0, 2] = 500
    horizon = horizon_of(settings, tokens)
    horizon.demand.see(Observed(0, (EndpointSeen(0.5, 0.0, 0.5),) * 4, (4, 0)))
    lots = horizon.outlook(4 * HOUR, fleet_of(layout_of(settings))).batches[0].lots[: -len(horizon.steps)]
    assert [lot.due for lot in lots if lot.work] == [horizon.steps[0]]


# ------------------------------------------------------------------------------------------------ pools


def test_pools_carry_weights_lead_times_and_prices() -> None:
    settings = kinds()
    layout, horizon = layout_of(settings), ForesightInputs(settings, layout_of(settings), None)
    tokens = (900_000, 0, 0)
    horizon.demand.history.add(DemandSeen(0, BIN, tokens, (0, 0, 0), (900, 0, 0), (9e7, 0.0, 0.0)))
    fleet = fleet_of(layout)
    fleet.start(0, 0, fleet.room(0))
    fleet.ready(0, 0)
    fleet.start(1, 0, fleet.room(0))
    outlook = horizon.outlook(BIN, fleet)
    fast, slow = outlook.streams[0].ways
    assert (fast.use, slow.use) == pytest.approx((1.0, 2.0))
    first = outlook.pools[0]
    assert (first.serving, first.spot, first.maximum, first.gpus) == (1, 0, 4, 8)
    lead = 10 / 60 + 2  # a VM, then weights from remote storage
    assert [first.lead_hours, first.start_cost] == pytest.approx([lead, 80 * lead])
    assert [count for _, count in first.coming] == [1]
    assert first.coming[0][0] == pytest.approx(lead / 2)
    assert [stock.gpus for stock in outlook.stocks] == [32, 32]
    assert [(endpoint.pools, endpoint.minimum) for endpoint in outlook.endpoints] == [((0, 1), 2)]
    fleet.measured_start(0, 3 * HOUR)
    measured = horizon.outlook(BIN, fleet).pools
    assert [one.lead_hours for one in measured] == pytest.approx([3.0, lead])
    assert measured[0].start_cost == pytest.approx(240.0)


def test_history_from_before_the_first_instant_is_planned_from_at_once() -> None:
    tokens = np.zeros((96, 2, 2, 3))
    tokens[:, 0, 0, 0] = 900 * 200_000.0
    driven = Driven(settings_of(), earlier=Demand(-24 * HOUR, BIN, tokens, tokens, tokens / 500))
    program = asked(driven.answer(0, asked(driven.look(0))))
    assert isinstance(program, SolveAhead)
    done = perform(program)
    assert isinstance(done, SolvedAhead)
    assert done.plan is not None
    assert sum(done.plan.target[0::2]) > 2 > max(done.plan.target[1::2])


@pytest.mark.parametrize(
    ("rtt", "pinned", "reached"), [("70ms", False, True), ("500ms", False, True), ("501ms", False, False), ("70ms", True, False)]
)
def test_traffic_is_planned_only_for_regions_that_its_promise_reaches(rtt: str, pinned: bool, reached: bool) -> None:
    base = settings_of()
    east = base.regions["east"].model_copy(update={"rtt": {"west": duration_us(rtt)}})
    tiers = {
        name: tier.model_copy(update={"regions": "origin" if pinned and not tier.batch else "any"})
        for name, tier in base.tiers.items()
    }
    settings = base.model_copy(update={"regions": {**base.regions, "east": east}, "tiers": tiers})
    layout, horizon = layout_of(settings), ForesightInputs(settings, layout_of(settings), None)
    horizon.demand.history.add(DemandSeen(0, BIN, *(((900,) * 12,) * 3), (9e7,) * 12))
    outlook = horizon.outlook(BIN, fleet_of(layout))
    from_east = next(stream for stream in outlook.streams if stream.name == "east/big")
    assert {layout.pools[way.pool].region for way in from_east.ways} == ({0, 1} if reached else {0})
    anywhere = {layout.pools[way.pool].region for way in outlook.batches[0].ways}
    assert anywhere == {0, 1}, "batch work minds neither"
