"""Small planning problems for the tests, and the paper's program solved by trying everything.

Shares no code with the planner beyond the types of its input. Read next: `tests/core/test_plan_hourly.py`.
"""

import itertools
from collections.abc import Iterator

from hypothesis import strategies as st

from sageserve.core.plan.hourly_rows import HourlyProblem, PoolFacts, StockFacts

REGIONS = ("east", "west")
MODELS = ("big", "small")
GPUS = ("h100", "a100")


def problem(
    *, demand: tuple[tuple[float, ...], ...], pools: tuple[PoolFacts, ...], free: tuple[int, ...] = (80, 80), minimum: int = 0
) -> HourlyProblem:
    """A problem of one window over the first regions and models, with a stock per region."""
    regions, models = len(demand), len(demand[0])
    stocks = tuple(StockFacts(f"{REGIONS[g]}/h100", free[g]) for g in range(regions))
    kept = tuple((minimum,) * models for _ in range(regions))
    return HourlyProblem(REGIONS[:regions], MODELS[:models], stocks, pools, (demand,), (0.0,) * models, kept)


def pool(region: int, model: int, *, now: int = 0, price: float = 100.0, start: float = 0.0, theta: float = 1000.0) -> PoolFacts:
    """A pool of at most 20 instances of eight GPUs."""
    name = f"{REGIONS[region]}/{MODELS[model]}/h100"
    return PoolFacts(name, region, model, region, 8, price, start, theta, now, 20)


@st.composite
def problems(draw: st.DrawFn) -> HourlyProblem:
    """Problems of at most four pools with at most five numbers each; many of them cannot be met."""
    shape = draw(st.sampled_from([(1, 1, 1), (1, 1, 2), (2, 1, 1), (1, 2, 1), (2, 1, 2), (1, 2, 2), (2, 2, 1)]))
    regions, models, kinds = shape
    pools = []
    thetas = draw(st.lists(st.integers(500, 5000), min_size=models * kinds, max_size=models * kinds))
    prices = draw(st.lists(st.integers(20, 120), min_size=kinds, max_size=kinds))
    for g, m, k in itertools.product(range(regions), range(models), range(kinds)):
        if draw(st.integers(0, 9)) == 0:
            continue  # not every model runs everywhere
        now, maximum = draw(st.integers(0, 4)), draw(st.integers(1, 4))
        pools.append(
            PoolFacts(
                f"{REGIONS[g]}/{MODELS[m]}/{GPUS[k]}",
                region=g,
                model=m,
                stock=g * kinds + k,
                gpus=draw(st.sampled_from([1, 4, 8])),
                price_per_hour=float(prices[k]),
                start_cost=float(draw(st.integers(0, 30))),
                theta=float(thetas[m * kinds + k]),
                now=min(now, maximum),
                maximum=maximum,
            )
        )
    stocks = tuple(StockFacts(f"{REGIONS[g]}/{GPUS[k]}", draw(st.integers(0, 16))) for g in range(regions) for k in range(kinds))
    rate = st.integers(0, 9000).map(float)
    demand = tuple(tuple(tuple(draw(rate) for _ in range(models)) for _ in range(regions)) for _ in range(2))
    buffer = tuple(float(draw(st.integers(0, 500))) for _ in range(models))
    minimum = tuple(tuple(draw(st.integers(0, 2)) for _ in range(models)) for _ in range(regions))
    weight = tuple(float(draw(st.integers(1, 3))) for _ in range(models))
    return HourlyProblem(REGIONS[:regions], MODELS[:models], stocks, tuple(pools), demand, buffer, minimum, 0.8, weight)


def candidates(case: HourlyProblem) -> Iterator[tuple[int, ...]]:
    """Every set of numbers that stock and maxima allow."""
    for numbers in itertools.product(*(range(one.lowest, one.maximum + 1) for one in case.pools)):
        for s, stock in enumerate(case.stocks):
            members = [(one, x) for one, x in zip(case.pools, numbers, strict=True) if one.stock == s]
            if sum(one.gpus * (x - one.now) for one, x in members) > stock.free:
                break
        else:
            yield numbers


def cost(case: HourlyProblem, numbers: tuple[int, ...]) -> float:
    """The paper's objective: sum of price x change + start cost x starts."""
    pairs = zip(case.pools, numbers, strict=True)
    return sum(one.price_per_hour * (x - one.now) + one.start_cost * max(0, x - one.now) for one, x in pairs)


def missing(case: HourlyProblem, numbers: tuple[int, ...]) -> float:
    """Weighted tokens/s that these numbers leave unserved: 1 in total, 0.1 in a region, the minimum at 0.1 per instance."""
    total = 0.0
    for m in range(len(case.models)):
        weight = case.weight[m] if case.weight else 1.0
        mine = [(one, x) for one, x in zip(case.pools, numbers, strict=True) if one.model == m]
        peak = max(sum(region[m] for region in window) for window in case.demand) + case.buffer[m]
        total += weight * max(0.0, peak - sum(one.theta * x for one, x in mine))
        for g in range(len(case.regions)):
            here = [(one, x) for one, x in mine if one.region == g]
            if here:
                local = case.epsilon * max(window[g][m] for window in case.demand)
                total += 0.1 * weight * max(0.0, local - sum(one.theta * x for one, x in here))
                slowest = min(one.theta for one, _ in here)
                total += 0.1 * weight * slowest * max(0, case.minimum[g][m] - sum(x for _, x in here))
    return total
