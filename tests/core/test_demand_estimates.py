"""From what arrived to what a plan needs: series, batch work, engine time, loads and the program, against numbers by hand.

Read next: `src/sageserve/core/strategies/demand_estimates.py`, `tests/core/test_planned.py`.
"""

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.records import Demand
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.events import DemandSeen, EndpointSeen, Observed
from sageserve.core.forecast import QuantileForecast
from sageserve.core.history import BIN
from sageserve.core.plan.hourly import solve
from sageserve.core.plan_once import Theta
from sageserve.core.response import MIX_WIDTH, held, late, mix_of, note_request
from sageserve.core.strategies.demand_estimates import FLAT, DemandEstimates
from sageserve.data.scenarios.load import check
from sageserve.show.why import theta_text
from tests.core.small import ENGINE, PRICE, TIERS, fleet_of, layout_of, scenario

SHAPE = (2, 2, 3)  # regions, models, tiers of the small scenario


def prospects_of(settings: Scenario, earlier: Demand | None = None) -> DemandEstimates:
    return DemandEstimates(settings, layout_of(settings), earlier)


def seen(start: Micros, tokens: dict[tuple[int, int, int], int], *, length: Micros = BIN, work: float = 2.0) -> DemandSeen:
    """Tokens by (region, model, tier); one request per 300 tokens, `work` microseconds per token."""
    prompt = np.zeros(SHAPE, int)
    for cell, count in tokens.items():
        prompt[cell] = count
    flat = prompt.ravel().tolist()
    none = (0,) * len(flat)
    return DemandSeen(start, length, tuple(flat), none, tuple(n // 300 for n in flat), tuple(work * n for n in flat))


def waiting(*jobs: int) -> Observed:
    return Observed(0, (EndpointSeen(0.5, 0.0, 0.5),) * 4, jobs)


def forecast(*values: float) -> QuantileForecast:
    """Tokens/s by bin at the quantile that is planned for; half of it in the middle."""
    high = np.array(values) * 900.0
    return QuantileForecast(0, BIN, high / 2, (scenario().strategy.planned.quantile,), high[:, None], True)


def test_series_are_interactive_tokens_models_changing_fastest() -> None:
    tokens = np.arange(8 * 12, dtype=float).reshape(8, *SHAPE)  # two hours in bins of 15 minutes, before the first instant
    prospects = prospects_of(scenario(), Demand(-2 * HOUR, BIN, tokens, tokens, tokens))
    prospects.history.add(seen(0, {(0, 1, 0): 10, (0, 1, 1): 20, (0, 1, 2): 1_000}))
    series = prospects.series()
    assert [(one.start, one.bin, one.end) for one in series] == [(-2 * HOUR, BIN, BIN)] * 4
    assert [one.values[-1] for one in series] == [0, 30, 0, 0]
    for one, (g, m) in zip(series, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        assert one.values[:-1].tolist() == (tokens[:, g, m, 0] + tokens[:, g, m, 1]).tolist()


def test_nothing_is_known_before_one_whole_bin() -> None:
    prospects = prospects_of(scenario())
    for minute in range(15):
        assert not prospects.known
        prospects.history.add(seen(minute * MINUTE, {}, length=MINUTE))
    assert prospects.known


@pytest.mark.parametrize(("deadline", "promoted"), [("24h", 2.0), ("90m", 2.5)])
def test_batch_work_that_will_be_promoted_is_planned_in_full(deadline: str, promoted: float) -> None:
    """12 jobs of 300 tokens an hour (1 token/s) for three hours, and all of them wait."""
    tiers = TIERS | {"niw": {"deadline": deadline, "priority": 2}}
    prospects = prospects_of(scenario(tiers=tiers, batch={"promote_after": "2h"}))
    for k in range(12):
        prospects.history.add(seen(k * BIN, {(0, 0, 2): 600, (1, 0, 2): 300}))
    prospects.see(waiting(36, 0))
    assert prospects.waiting_tokens().tolist() == [10_800, 0]
    # 10,800 tokens wait; those of the newest hour (half an hour) will not be old enough (due) within the coming one
    assert prospects.batch_rate().tolist() == pytest.approx([promoted + 0.1, 0])
    prospects.see(waiting(0, 0))
    assert prospects.batch_rate().tolist() == pytest.approx([0.1, 0])


def test_jobs_of_before_the_first_instant_wait_nowhere() -> None:
    tokens = np.full((40, *SHAPE), 900.0)
    prospects = prospects_of(scenario(batch={"promote_after": "2h"}), Demand(-10 * HOUR, BIN, tokens, tokens, tokens / 300))
    prospects.see(waiting(3, 0))  # 900 tokens that came since the last bin ended, as far as anyone knows
    assert prospects.batch_rate()[0] == pytest.approx(900 / 3600 + 0.1 * 2)


def test_engine_time_per_token_is_that_of_the_mix_of_the_day() -> None:
    prospects = prospects_of(scenario())
    prospects.history.add(seen(0, {(0, 0, 0): 3_000}, work=4.0))
    prospects.history.add(seen(BIN, {(1, 0, 1): 9_000}, work=8.0))
    prospects.history.add(seen(2 * BIN, {(1, 0, 2): 600}, work=100.0))
    assert prospects.work_per_token()[0] == pytest.approx((3_000 * 4 + 9_000 * 8) / 12_000)
    assert prospects.work_per_token(batch=True)[0] == pytest.approx(100)
    # nothing seen of the other model: 1000 tokens beside what decodes, and the iterations until the next prompt
    rate = 100_000 / 1_100 / 200
    beside, between = (10_000 + 20 * tokens for tokens in (199 * rate + 1_200, 199 * rate))  # what is made, again
    assert prospects.work_per_token()[1] == pytest.approx((beside + (1 / rate - 1) * between) / 1_000)


@pytest.mark.parametrize("kept", [("niw",), ("iw-f", "iw-n")])
def test_a_scenario_may_have_batch_or_interactive_tiers_alone(kept: tuple[str, ...]) -> None:
    settings = scenario(tiers={name: TIERS[name] for name in kept})
    layout = layout_of(settings)
    prospects = DemandEstimates(settings, layout, None)
    tokens = (900,) * 4 * len(kept)
    prospects.history.add(DemandSeen(0, BIN, tokens, tokens, tokens, (1_800.0,) * 4 * len(kept)))
    prospects.see(waiting(5, 0))
    prospects.take((None,) * 4)
    assert prospects.work_per_token().tolist() == [2, 2]
    assert prospects.work_per_token(batch=True).tolist() == [2, 2]
    plan = solve(prospects.problem(fleet_of(layout)))
    assert min(plan.target) >= 1


def test_batch_work_that_no_queue_holds_back_is_demand_like_any_other() -> None:
    prospects = prospects_of(scenario(batch={"feed": "direct"}))
    prospects.history.add(seen(0, {(0, 0, 0): 900, (0, 0, 2): 1_800}))
    assert prospects.series()[0].values.tolist() == [2_700]
    assert prospects.batch_rate().tolist() == [0, 0]


def test_the_peak_is_read_from_twenty_minutes_ahead_to_the_next_plan() -> None:
    prospects = prospects_of(scenario())
    for k in range(4):
        prospects.history.add(seen(k * BIN, {(0, 0, 0): 900 * k}))
    assert prospects.bins == 4
    prospects.take((None, forecast(9, 1, 3, 2), forecast(9, 8, 3, 2), forecast(1, 2, 3, 9)))
    assert prospects.forecast.ravel().tolist() == [1.5, 3, 8, 9]  # nothing forecast: the last hour's mean
    prospects.take((None, forecast(9, 8, 3, 2), forecast(1, 2), forecast(7)), late=14 * MINUTE)
    assert prospects.forecast.ravel().tolist() == [1.5, 3, 2, 7]  # 34 minutes after the last bin: from the third on, or the last


def test_what_arrives_now_is_that_of_the_newest_minutes() -> None:
    prospects = prospects_of(scenario())
    prospects.take((forecast(0, 10), forecast(0, 10), forecast(0, 10), forecast(0, 0)))
    for minute in range(25):
        tokens = {(0, 0, 0): 60 * (100 if minute >= 20 else 1), (0, 1, 0): 600, (1, 1, 0): 600, (0, 1, 2): 60_000}
        prospects.history.add(seen(minute * MINUTE, tokens, length=MINUTE))
    ratios = [prospects.observed_to_forecast(endpoint, 5 * MINUTE) for endpoint in range(4)]
    assert ratios == pytest.approx([10, 1, 0, 1])  # of what was not forecast nothing can be said


def kinds() -> Scenario:
    """One region, one model: H100s, and A100s that take twice the time."""
    slow = ENGINE | {"gpu": "a100", "iteration_ms": [[1, 20.04], [10_001, 420.04]]}
    tree: dict[str, object] = {
        "name": "kinds",
        "gpus": {"h100": {"memory": "80GiB"}, "a100": {"memory": "80GiB"}},
        "regions": {"east": {"gpus": {gpu: {"gpus": 32, "price": PRICE} for gpu in ("h100", "a100")}}},
        "models": {
            "m": {"context": 8_000, "engines": {"h100": ENGINE, "a100": slow}, "load": {"source": "remote", "remote": "2h"}}
        },
        "tiers": TIERS,
        "fleet": {"start": 2, "minimum": 2, "maximum": 4},
    }
    return check(Scenario.model_validate(tree))


def test_the_program_has_theta_demand_prices_and_stock_of_each_pool() -> None:
    settings = kinds()
    layout = layout_of(settings)
    prospects, fleet = DemandEstimates(settings, layout, None), fleet_of(layout)
    for i in range(2):
        fleet.start(i, 0, fleet.room(0))
    counted = np.zeros(MIX_WIDTH)
    for _ in range(90):
        note_request(counted, 20_000.0, 100_000.0, 60_000.0)
    mixes = (tuple(counted.tolist()),)
    prospects.history.add(DemandSeen(0, BIN, (90_000, 0, 9_000), (0, 0, 0), (90, 0, 9), (9e6, 0.0, 9e5), mixes))
    prospects.take((forecast(0, 40_000),))
    problem = prospects.problem(fleet)
    # 100 us per token: 40,000 tokens/s, and a tenth of the hour's batch tokens, are four busy instances
    busy = (40_000 + 0.1 * 10) * 100 / 1e6
    mix = mix_of(counted, 10_020.0)  # an iteration of one token
    assert mix is not None
    enough = held(mix, settings.strategy.planned.worth / 80.0 * HOUR, 8)
    count = int(np.searchsorted(enough, busy))
    (load,) = prospects.loads
    assert (load.instances, load.mix) == (count, mix)
    assert load.load == pytest.approx(enough[count] / count)
    assert load.late == pytest.approx(late(count, load.load, mix))
    assert 0.5 < load.load < 0.9
    assert [pool.theta for pool in problem.pools] == pytest.approx([load.load * 1e4, load.load * 1e4 / 2])
    assert problem.demand == (((40_000.0,),),)
    assert problem.buffer == pytest.approx((1.0,))
    assert problem.minimum == ((2,),)
    assert [(pool.now, pool.maximum, pool.gpus) for pool in problem.pools] == [(2, 4, 8), (0, 4, 8)]
    assert [(pool.price_per_hour, pool.start_cost) for pool in problem.pools] == [(80.0, 160.0)] * 2
    assert [(stock.name, stock.free) for stock in problem.stocks] == [("east/h100", 16), ("east/a100", 32)]
    assert sum(theta.theta * n for theta, n in zip(problem.pools, solve(problem).target, strict=True)) >= 40_001


def test_loads_before_the_first_request_are_those_of_a_guess_at_this_length() -> None:
    tokens = np.zeros((4, *SHAPE))
    tokens[..., 0] = 500_000.0
    prospects = prospects_of(scenario(), Demand(-HOUR, BIN, tokens, tokens, tokens / 5_000))
    rate = 100_000 / 5_100 / 200
    service = 10_000 + 20 * (199 * rate + 5_200) + (1 / rate - 1) * (10_000 + 20 * 199 * rate)
    loads = prospects.sustainable_loads(np.array([3.0, 0.0]))
    assert [load.mix.each_us for load in loads] == pytest.approx([service] * 2, rel=1e-6)
    assert [load.mix.slack_us for load in loads] == [1e6 - 10_000 - 20 * 5_000] * 2
    assert loads[0].instances > 3
    assert loads[1].instances == 1


def test_foresight_may_do_without_its_curve_or_without_what_it_has_learned() -> None:
    def enough(curve: str) -> tuple[float, float]:
        settings = scenario(strategy={"foresight": {"curve": curve}})
        estimates = DemandEstimates(settings, layout_of(settings), None, foresight=True)
        counted = np.zeros(MIX_WIDTH)
        for _ in range(90):
            note_request(counted, 20_000.0, 100_000.0, 60_000.0)
        mixes = (tuple(counted.tolist()),) * 2
        count = len(settings.tiers)
        estimates.history.add(
            DemandSeen(0, BIN, (90_000,) * 4 * count, (0,) * 4 * count, (90,) * 4 * count, (9e6,) * 4 * count, mixes)
        )
        estimates.sustainable_loads(np.ones(2))
        return estimates.busy_most(0, 1), estimates.busy_most(0, 4) / 4

    assert enough("flat") == pytest.approx((FLAT, FLAT))
    learned, guessed = enough("learned"), enough("guessed")
    assert learned != guessed
    assert learned[0] < learned[1], "one alone may be less full than one of four"


def test_foresight_alone_goes_by_how_unevenly_requests_come_and_says_so() -> None:
    def planned(counts: tuple[int, int], curve: str = "learned", *, foresight: bool = True) -> tuple[float, str]:
        settings = scenario(strategy={"foresight": {"curve": curve}})
        estimates = DemandEstimates(settings, layout_of(settings), None, foresight=foresight)
        mix = np.zeros(MIX_WIDTH)
        note_request(mix, 20_000.0, 100_000.0, 600_000.0)
        for minute in range(60):
            requests = (counts[minute % 2],) * int(np.prod(SHAPE))
            mixes = (tuple((sum(counts) / 2 * mix).tolist()),) * 2
            estimates.history.add(DemandSeen(minute * MINUTE, MINUTE, requests, requests, requests, (1.0,) * 12, mixes))
        loads = estimates.sustainable_loads(np.ones(2))
        return estimates.busy_most(0, 4), theta_text(Theta("east/a/h100", 1.0, 1.0, loads[0]))

    even, said = planned((200, 200))
    uneven, why = planned((380, 20))
    assert uneven < 0.9 * even
    assert "from minute to minute" in why
    assert "minute" not in said
    assert planned((220, 180)) == (even, said), "about even is even"
    assert planned((380, 20), "guessed") == planned((200, 200), "guessed")
    assert planned((380, 20), foresight=False) == planned((200, 200), foresight=False)
