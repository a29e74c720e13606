"""The receding-horizon program: hand-worked days, laws of every plan, and small cases tried in every way."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sageserve.base.errors import PlanError
from sageserve.core.plan.horizon import HorizonPlan, PlanReason, solve
from sageserve.core.plan.horizon_rows import SHORTAGE, build
from sageserve.core.plan.outlook import (
    BatchDemand,
    Endpoint,
    HorizonPool,
    HorizonStock,
    Lot,
    Outlook,
    Stream,
    Way,
    chains,
    coarsening,
    first_step,
    last_step,
)

PRICE = 100.0


def pool(
    name: str = "east/big/h100", *, stock: int = 0, serving: int = 0, lead: float = 0.0, price: float = PRICE
) -> HorizonPool:
    return HorizonPool(name, stock, 8, price, start_cost=5.0, lead_hours=lead, serving=serving, maximum=20, reclaim_hours=0.0)


def steady(name: str, ways: tuple[Way, ...], rates: tuple[float, ...], *, headroom: float = 1.0) -> Stream:
    return Stream(name, ways, tuple(headroom * rate for rate in rates), rates)


def outlook(
    *,
    pools: tuple[HorizonPool, ...],
    streams: tuple[Stream, ...] = (),
    batches: tuple[BatchDemand, ...] = (),
    steps: int = 4,
    gpus: int = 160,
) -> Outlook:
    stocks = tuple(HorizonStock(f"stock {number}", gpus) for number in range(1 + max(one.stock for one in pools)))
    return Outlook((1.0,) * steps, pools, stocks, streams, batches, (), whole_steps=steps)


def serving(plan: HorizonPlan, number: int = 0) -> list[float]:
    return [round(step.serving[number], 6) for step in plan.steps]


def test_follows_demand_step_by_step() -> None:
    case = outlook(pools=(pool(serving=1),), streams=(steady("east", (Way(0, 1.0),), (1.0, 3.0, 2.2, 1.0)),))
    plan = solve(case)
    assert serving(plan) == [1, 3, 3, 1]
    assert plan.costs.serving == pytest.approx(8 * PRICE)
    assert plan.short == ()
    assert plan.why == (PlanReason.DEMAND,)


def test_batch_work_fills_the_valley_and_costs_nothing_more() -> None:
    stream = steady("east", (Way(0, 1.0),), (4.0, 1.0, 1.0, 4.0))
    # Stopping for two hours saves nothing here: the starts would cost more than the valley's two hours of three instances.
    dear = msgspec.structs.replace(pool(serving=4), start_cost=400.0, reclaim_cost=400.0)
    alone = solve(outlook(pools=(dear,), streams=(stream,)))
    work = BatchDemand("east", (Way(0, 1.0),), (Lot(0.0, 4.0, 6.0),))
    both = solve(outlook(pools=(dear,), streams=(stream,), batches=(work,)))
    assert serving(both) == serving(alone) == [4, 4, 4, 4]
    assert [step.done[0] for step in both.steps] == pytest.approx([0, 3, 3, 0])
    assert both.costs.serving == pytest.approx(alone.costs.serving)


def test_batch_work_uses_the_headroom_of_interactive_work() -> None:
    stream = steady("east", (Way(0, 1.0),), (2.0, 2.0), headroom=1.5)
    work = BatchDemand("east", (Way(0, 1.0),), (Lot(0.0, 2.0, 2.0),))
    plan = solve(outlook(pools=(pool(serving=3),), streams=(stream,), batches=(work,), steps=2))
    assert serving(plan) == [3, 3]
    assert sum(step.done[0] for step in plan.steps) == pytest.approx(2.0)


def test_batch_work_waits_for_the_cheap_hours_until_its_deadline() -> None:
    stream = steady("east", (Way(0, 1.0),), (1.0, 1.0, 1.0, 1.0))
    for due, hours in ((4.0, 1), (2.0, 2), (1.0, 4)):
        work = BatchDemand("east", (Way(0, 1.0),), (Lot(0.0, due, 4.0),))
        plan = solve(outlook(pools=(pool(serving=1),), streams=(stream,), batches=(work,)))
        done = [step.done[0] for step in plan.steps]
        assert sum(done) == pytest.approx(4.0)
        assert sum(done[int(due) :]) == pytest.approx(0.0), hours
        assert plan.short == ()


def test_carried_work_is_done_now_only_where_now_is_cheaper() -> None:
    later = BatchDemand("east", (Way(0, 1.0),), (Lot(0.0, 99.0, 2.0),), carry_cost=PRICE / 2)
    assert sum(step.done[0] for step in solve(outlook(pools=(pool(),), batches=(later,))).steps) == pytest.approx(0.0)
    sooner = msgspec.structs.replace(later, carry_cost=2 * PRICE)
    assert sum(step.done[0] for step in solve(outlook(pools=(pool(),), batches=(sooner,))).steps) == pytest.approx(2.0)


def test_traffic_goes_where_it_is_cheap_but_only_where_it_may() -> None:
    pools = (pool("east/big/h100", price=100.0, serving=2), pool("west/big/h100", stock=1, price=10.0, serving=2))
    free = steady("east free", (Way(0, 1.0), Way(1, 1.0, 1.0)), (1.0, 1.0))
    near = steady("east near", (Way(0, 1.0),), (1.0, 1.0))
    plan = solve(outlook(pools=pools, streams=(free, near), steps=2))
    assert {(flow.stream, flow.pool): round(flow.units, 6) for flow in plan.flows} == {(0, 1): 1.0, (1, 0): 1.0}
    assert plan.costs.travel == pytest.approx(2.0)


def test_a_start_is_made_its_lead_time_before_it_is_needed() -> None:
    stream = steady("east", (Way(0, 1.0),), (1.0, 1.0, 3.0, 3.0))
    plan = solve(outlook(pools=(pool(serving=1, lead=1.5),), streams=(stream,)))
    assert [step.start[0] for step in plan.steps] == pytest.approx(
        [2, 0, 0, 0]
    )  # 0 h + 1.5 h is ready at 2 h, 1 h + 1.5 h is not
    assert serving(plan) == [1, 1, 3, 3]
    assert plan.target == (3,)
    assert plan.needed_from == (2,)
    assert plan.why == (PlanReason.LATER,)


def test_what_comes_too_late_is_short_unless_donated_instances_are_taken_back() -> None:
    stream = steady("east", (Way(0, 1.0),), (3.0, 3.0))
    slow = pool(serving=1, lead=1.0)
    plan = solve(outlook(pools=(slow,), streams=(stream,), steps=2))
    assert plan.steps[0].short == pytest.approx((2.0,))
    assert plan.statement == "demand east: 2 of 3 units missing at worst, in 1 steps"
    assert plan.why == (PlanReason.SHORT,)
    spare = msgspec.structs.replace(slow, spot=2)
    plan = solve(outlook(pools=(spare,), streams=(stream,), steps=2))
    assert plan.reclaim == (2,)
    assert plan.short == ()


def test_starts_under_way_count_from_when_they_are_ready() -> None:
    stream = steady("east", (Way(0, 1.0),), (1.0, 2.0))
    coming = msgspec.structs.replace(pool(serving=1, lead=1.0), coming=((0.5, 1),))
    plan = solve(outlook(pools=(coming,), streams=(stream,), steps=2))
    assert plan.start == (0,)
    assert serving(plan) == [1, 2]
    assert plan.target == (2,)


def test_stock_is_shared_and_shortage_falls_on_the_lighter() -> None:
    pools = (pool("east/big/h100"), pool("east/small/h100"))
    streams = (steady("big", (Way(0, 1.0),), (2.0, 2.0)), steady("small", (Way(1, 1.0),), (2.0, 2.0)))
    heavy = msgspec.structs.replace(streams[1], weight=5.0)
    plan = solve(outlook(pools=pools, streams=(streams[0], heavy), steps=2, gpus=24))
    assert (serving(plan, 0), serving(plan, 1)) == ([1, 1], [2, 2])
    assert "stock stock 0" in {one.name for one in plan.binding}


def test_donated_instances_are_let_go_when_their_gpus_are_needed() -> None:
    donated = msgspec.structs.replace(pool("east/big/h100"), spot=3)
    small = msgspec.structs.replace(pool("east/small/h100"), gpus=4)
    stream = steady("small", (Way(1, 1.0),), (1.0, 1.0))
    plan = solve(outlook(pools=(donated, small), streams=(stream,), steps=2, gpus=24))
    assert plan.start == (0, 1)
    assert plan.give == (1, 0)  # half its GPUs are needed, all of it has to go
    assert solve(outlook(pools=(donated, small), streams=(stream,), steps=2, gpus=32)).give == (0, 0)


def test_minimum_is_kept_and_named() -> None:
    case = outlook(pools=(pool(serving=5),), steps=2)
    plan = solve(msgspec.structs.replace(case, endpoints=(Endpoint("east/big", (0,), 2),)))
    assert plan.target == (2,)
    assert plan.stop == (3,)
    assert plan.why == (PlanReason.MINIMUM,)
    short = solve(msgspec.structs.replace(case, endpoints=(Endpoint("east/big", (0,), 2),), stocks=(HorizonStock("stock", 8),)))
    assert short.statement == "minimum east/big: 1 of 2 instances at worst"


def test_margin_multiplies_what_is_needed() -> None:
    case = outlook(pools=(pool(serving=2),), streams=(steady("east", (Way(0, 1.0),), (2.0,)),), steps=1)
    assert solve(case).target == (2,)
    assert solve(msgspec.structs.replace(case, margin=1.4)).target == (3,)


def test_spot_income_makes_idle_hours_dear_but_starts_nothing() -> None:
    paid = msgspec.structs.replace(pool(serving=2), spot_income_per_hour=60.0)
    stream = steady("east", (Way(0, 1.0),), (2.0, 1.0, 1.0, 2.0))
    unpaid = msgspec.structs.replace(pool(serving=2), start_cost=210.0, reclaim_cost=210.0)
    stays = solve(outlook(pools=(unpaid,), streams=(stream,)))
    assert serving(stays) == [2, 2, 2, 2]
    leaves = solve(outlook(pools=(msgspec.structs.replace(unpaid, spot_income_per_hour=60.0),), streams=(stream,)))
    assert serving(leaves) == [2, 1, 1, 2]
    assert leaves.costs.spot_income == pytest.approx(120.0)
    assert all(step.start == (0,) for step in solve(outlook(pools=(paid,), streams=(stream,))).steps)


def test_a_lost_region_is_answered() -> None:
    pools = (msgspec.structs.replace(pool(serving=3), coming=((0.5, 1),)), pool("west/big/h100", stock=1, serving=1))
    stream = steady("east", (Way(0, 1.0), Way(1, 1.0)), (3.0, 3.0))
    case = outlook(pools=pools, streams=(stream,), steps=2)
    plan = solve(msgspec.structs.replace(case, stocks=(HorizonStock("east", 0), HorizonStock("west", 160))))
    assert plan.stop[0] == 3
    assert plan.target[1] == 3


@pytest.mark.parametrize("change", [{"steps": ()}, {"steps": (1.0, 1.0)}, {"margin": 0.0}])
def test_malformed_outlooks_are_refused(change: dict[str, object]) -> None:
    case = outlook(pools=(pool(),), streams=(steady("east", (Way(0, 1.0),), (1.0,)),), steps=1)
    with pytest.raises(PlanError, match="not well formed"):
        solve(msgspec.structs.replace(case, **change))


def test_steps_grow_with_distance() -> None:
    steps = coarsening(24.0)
    assert steps[:9] == (0.25,) * 8 + (0.5,)
    assert sum(steps) == pytest.approx(24.0)
    assert len(steps) < 24
    assert first_step(steps, 0.3) == 2
    assert last_step(steps, 0.5) == 1
    assert last_step(steps, 0.1) == -1
    assert last_step(steps, 25.0) == len(steps)


lots = st.lists(
    st.builds(Lot, st.integers(-2, 4).map(float), st.integers(1, 7).map(float), st.integers(1, 3).map(float)), max_size=5
)


@given(lots)
def test_chains_hold_all_work_and_keep_its_order(given_lots: list[Lot]) -> None:
    found = chains(given_lots, (1.0,) * 5)
    assert sum(work for chain in found for _, _, work in chain) == sum(lot.work for lot in given_lots if lot.arrives <= 4)
    for chain in found:
        assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(chain))
        assert all(first <= last for first, last, _ in chain)


@st.composite
def outlooks(draw: st.DrawFn) -> Outlook:
    """Two regions, one or two types, four steps, one batch; often short of stock."""
    count = draw(st.integers(1, 3))
    pools = tuple(
        HorizonPool(
            f"pool {p}",
            stock=p % 2,
            gpus=draw(st.sampled_from([4, 8])),
            price_per_hour=float(draw(st.integers(20, 120))),
            start_cost=float(draw(st.integers(0, 30))),
            lead_hours=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0])),
            serving=draw(st.integers(0, 4)),
            maximum=6,
            coming=((1.0, draw(st.integers(0, 1))),),
            spot=draw(st.integers(0, 1)),
            spot_income_per_hour=float(draw(st.integers(0, 20))),
        )
        for p in range(count)
    )
    allowed = draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True))
    rates = tuple(draw(st.integers(0, 50)) / 10 for _ in range(4))
    stream = steady("stream", tuple(Way(p, 1.0 + 0.5 * p, 0.1 * p) for p in sorted(allowed)), rates, headroom=1.2)
    batch = BatchDemand(
        "batch", tuple(Way(p, 1.0) for p in range(count)), tuple(draw(lots)), carry_cost=float(draw(st.integers(0, 100)))
    )
    stocks = tuple(HorizonStock(f"stock {s}", draw(st.sampled_from([16, 32, 64]))) for s in range(2))
    endpoint = Endpoint("endpoint", tuple(range(count)), draw(st.integers(0, 2)))
    return Outlook((1.0,) * 4, pools, stocks, (stream,), (batch,), (endpoint,))


@given(outlooks())
def test_every_plan_keeps_the_laws(case: Outlook) -> None:
    plan, count = solve(case), len(case.pools)
    owned = [
        sum(one.gpus * one.held for one in case.pools if one.stock == s) <= stock.gpus for s, stock in enumerate(case.stocks)
    ]
    for p, one in enumerate(case.pools):
        there, donated = float(one.serving), float(one.spot)
        for s, step in enumerate(plan.steps):
            ready = sum(plan.steps[t].start[p] for t in range(s + 1) if first_step(case.steps, t + one.lead_hours) == s)
            coming = sum(n for hours, n in one.coming if first_step(case.steps, hours) == s)
            there += ready + coming + step.reclaim[p] - step.stop[p]
            assert step.serving[p] == pytest.approx(there, abs=1e-5)
            assert step.spot[p] <= donated + step.stop[p] - step.reclaim[p] + 1e-5
            donated = step.spot[p]
    for s, step in enumerate(plan.steps):
        if all(owned):
            for k, stock in enumerate(case.stocks):
                used = sum(one.gpus * (step.serving[p] + step.spot[p]) for p, one in enumerate(case.pools) if one.stock == k)
                assert used <= stock.gpus + 1e-4
        assert step.short[0] >= -1e-6, s
    taken = sum(flow.units for flow in plan.flows) + plan.steps[0].short[0]
    assert taken == pytest.approx(case.streams[0].rate[0], abs=1e-5)
    assert {flow.pool for flow in plan.flows} <= {way.pool for way in case.streams[0].ways}
    assert len(plan.target) == count
    assert plan.bound <= plan.objective + 1e-6


@given(outlooks())
def test_batch_work_is_never_early_and_late_only_when_it_says_so(case: Outlook) -> None:
    plan = solve(case)
    done = list(itertools.accumulate(step.done[0] for step in plan.steps))
    for s in range(4):
        arrived = sum(lot.work for lot in case.batches[0].lots if lot.arrives <= s)
        due = sum(lot.work for lot in case.batches[0].lots if last_step(case.steps, lot.due) <= s and lot.arrives <= s)
        assert done[s] <= arrived + 1e-5
        assert done[s] + plan.steps[s].late[0] >= due - 1e-5


@given(outlooks())
def test_same_outlook_gives_the_same_bytes(case: Outlook) -> None:
    again = msgspec.json.decode(msgspec.json.encode(case), type=Outlook)
    assert msgspec.json.encode(solve(case)) == msgspec.json.encode(solve(again))


@given(outlooks())
def test_more_demand_is_never_cheaper_and_no_plan_beats_its_relaxation(case: Outlook) -> None:
    more = msgspec.structs.replace(case.streams[0], rate=tuple(1.5 * rate for rate in case.streams[0].rate))
    one, other = solve(case), solve(msgspec.structs.replace(case, streams=(more,)))
    assert other.objective >= one.bound - 1e-6 * abs(one.bound) - 1e-6
    program, _ = build(case)
    assert program.relaxed().objective <= one.objective + 1e-6 * abs(one.objective) + 1e-6


@given(st.lists(st.integers(0, 30), min_size=3, max_size=3), st.integers(0, 3), st.sampled_from([0.0, 1.0]))
@settings(max_examples=30)
def test_single_pool_is_as_good_as_the_best_of_all_numbers(tenths: list[int], now: int, lead: float) -> None:
    rates = tuple(x / 10 for x in tenths)
    case = outlook(pools=(pool(serving=now, lead=lead),), streams=(steady("east", (Way(0, 1.0),), rates),), steps=3, gpus=24)
    plan = solve(case)

    def cost(numbers: tuple[int, ...]) -> float:
        total, before = 0.0, now
        donated = 0
        for s, x in enumerate(numbers):
            if x > before and donated < x - before:
                if lead and s == 0:
                    return float("inf")
                total += 5.0 * (x - before - donated)
            donated = max(0, donated + before - x)
            total += PRICE * x + SHORTAGE * PRICE * max(0.0, rates[s] - x)
            before = x
        return total

    best = min(cost(numbers) for numbers in itertools.product(range(4), repeat=3))
    assert plan.objective == pytest.approx(best, abs=10.5)  # a tenth of an instance in the first step, and the nudges
    assert cost(tuple(round(step.serving[0]) for step in plan.steps)) == pytest.approx(best, abs=10.5)
