"""The outlook foresight plans for: demand in busy instances, batch work in lots with deadlines, pools with lead times.

A unit of demand is one instance of the model's fastest profile, of as many as the response curve says are enough; a unit of batch
work keeps one busy, and uses as much more as the curve rises. A pool uses its weight per unit. Pure arithmetic on what was seen
and forecast. Read next: `foresight.py`, `core/plan/outlook.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Final

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import Demand, Floats
from sageserve.base.units import HOUR, NEVER, SECOND, Micros
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.core.fleet import Fleet, Pool, State
from sageserve.core.forecast import QuantileForecast
from sageserve.core.history import BIN
from sageserve.core.layout import Layout
from sageserve.core.plan.horizon import HorizonPlan
from sageserve.core.plan.outlook import (
    BatchDemand,
    Endpoint,
    HorizonPool,
    HorizonStock,
    Lot,
    Outlook,
    Stream,
    Together,
    Way,
    begins,
    coarsening,
)
from sageserve.core.strategies.demand_estimates import DemandEstimates
from sageserve.core.strategies.parts import PlannedPart, pairs_of
from sageserve.core.strategies.worth import PromisedWorth

_NETWORK_SHARE: Final = 0.5  # of the tightest first-token target that a round trip may take; the engine needs the rest
_MIDDLE: Final = 0.5
_NORMAL: Final = NormalDist()  # between two quantiles of a forecast
_BINS_PER_HOUR: Final = HOUR // BIN
_DRIFT: Final = 2.0  # the newest bin may correct the forecast's level by this factor at most
_FADE_HOURS: Final = 1.0  # half-life of that correction


@dataclass(frozen=True, slots=True)
class _Group:
    """Tiers that the same regions may serve: `may` is bool[origins, regions]."""

    tiers: list[int]
    may: NDArray[np.bool_]


class ForesightInputs:
    """Draws the outlook.

    Args:
        scenario: for `strategy.foresight`, prices, delays.
        layout: numbers of regions, models, pools.
        earlier: what arrived before the first instant, None when nothing is known.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None) -> None:
        self._rules = scenario.strategy.foresight
        self.demand = DemandEstimates(scenario, layout, earlier, foresight=True)
        self.worth = PromisedWorth(scenario, layout)
        self._scenario = scenario
        self._layout = layout
        hours = self._rules.horizon / HOUR
        self.steps = coarsening(hours, first=BIN / HOUR)
        self.bins = int(np.ceil(hours * _BINS_PER_HOUR))
        self.levels = (_MIDDLE, self._rules.quantile) if self._rules.quantile != _MIDDLE else (_MIDDLE,)
        self._forecasts: tuple[QuantileForecast | None, ...] = ()
        self._expected = np.zeros((len(self.demand.parts), len(self.steps)))  # busy instances, all regions
        interactive = [tier for tier in scenario.tiers.values() if not tier.batch]
        self._groups = self._alike()
        self._reach = min((tier.patience for tier in interactive), default=NEVER) * _NETWORK_SHARE
        self._loads = [0.0] * len(self.demand.parts)
        self.drawn = False  # whether there has been an outlook

    def take(self, forecasts: tuple[QuantileForecast | None, ...]) -> None:
        """Keep forecasts of the series that `demand.series` gave; none at all when fitting failed."""
        self._forecasts = forecasts

    def full(self, pool: Pool, serving: int) -> float:
        """Utilisation of a pool's endpoint above which it needs one more, whatever the plan says; at first the reactive mark."""
        if not self.drawn:
            return self._scenario.strategy.reactive.high
        most = self.demand.busy_most(self.demand.part_of[pool.number], serving)
        shown = self.demand.shown(self.demand.part_of[pool.number])
        return most / serving * shown + self._rules.guard if serving > 0 else 1.0

    def near(self, endpoint: int) -> list[int]:
        """Endpoints that take what is too much for this one, itself among them."""
        each = len(self._layout.names.models) * len(self._layout.roles)
        region = endpoint // each
        if self._scenario.routing.region == "nearest" or not self.drawn:
            return [endpoint]
        regions = range(len(self._layout.names.regions))
        return [endpoint + (g - region) * each for g in regions if all(self._reaches(region, g, one) for one in self._groups)]

    def few(self, pool: Pool, serving: int) -> float:
        """Utilisation of a pool's endpoint below which one instance fewer would do, with something to spare."""
        fewer = serving - 1
        if fewer <= 0:
            return 0.0
        part = self.demand.part_of[pool.number]
        return (self.demand.busy_most(part, fewer) / fewer * self.demand.shown(part) - self._rules.relax) * fewer / serving

    def feed_level(self, plan: HorizonPlan, here: Pool) -> float:
        """Utilisation up to which endpoints like a pool's are fed: that of expected demand plus the batch work planned now."""
        first, part = plan.steps[0], self.demand.part_of[here.number]
        work = first.done[part] / first.hours
        if work <= 0:
            return 0.0
        there = sum(first.serving[pool.number] / self._weight(pool) for pool in self.demand.parts[part].pools)
        planned = (float(self._expected[part, 0]) + work) * self._rules.margin / max(there, 1e-9)
        return min(planned, self._loads[part]) * self.demand.shown(part)

    def outlook(self, now: Micros, fleet: Fleet) -> Outlook:
        """Everything the program needs to know at this instant."""
        per_token = self.demand.work_per_token() / SECOND
        self.worth.adjust()
        self.demand.be_worth(self.worth.dollars)
        parts, names = self.demand.parts, self._layout.names
        high, middle = (tokens[:, self.demand.models] for tokens in self._tokens())
        expected = middle * per_token[:, None]  # [regions, parts, steps] busy instances
        self._expected = expected.sum(axis=0)
        lots = self._lots(self.demand.work_per_token(batch=True) / SECOND)
        waiting = np.array([sum(lot.work for lot in mine if lot.arrives == 0.0) for mine in lots]) / self.steps[-1]
        busy = (self._expected.max(axis=1) + waiting) / len(names.regions)
        self._loads = [load.load for load in self.demand.sustainable_loads(busy)]
        rows = range(len(parts))
        levels = [min(self.demand.level(k), self._rules.quantile) for k in rows]
        above = np.array([_NORMAL.inv_cdf(level) for level in levels]) / (_NORMAL.inv_cdf(self.levels[-1]) or 1.0)
        high = np.minimum(middle + (high - middle) * np.maximum(above, 0.0)[:, None], middle * self._rules.headroom)
        kept = high * per_token[:, None]
        rates = np.stack([self.demand.instances(k, np.maximum(kept, expected)[:, k]) for k in rows], axis=1)
        means = np.stack([self.demand.instances(k, expected[:, k]) for k in rows], axis=1)
        slopes = [float(np.diff(self.demand.instances(k, np.array([busy[k], busy[k] + 1.0])))[0]) for k in rows]
        self.drawn = True
        ahead = now + self._rules.horizon
        price = max(self.demand.hour_price(pool, now, ahead) for pool in self._layout.pools)  # later is not cheaper
        return Outlook(
            steps=self.steps,
            pools=tuple(self._pool(pool, fleet, now) for pool in self._layout.pools),
            stocks=tuple(HorizonStock(stock.name, stock.gpus) for stock in self._layout.stocks),
            streams=tuple(self._streams(rates, means, levels)),
            batches=tuple(
                BatchDemand(f"batch {part.name}", self._ways(part, -1, slopes[k]), tuple(lots[k]), carry_cost=price * slopes[k])
                for k, part in enumerate(parts)
            ),
            endpoints=tuple(
                Endpoint(self._layout.endpoint_name(e), tuple(pool.number for pool in pools), pools[0].floor)
                for e in range(self._layout.endpoints)
                if (pools := self._layout.endpoint_pools(e))
            ),
            margin=self._rules.margin,
            reserve=self._scenario.spot.donate,
            worth=self.worth.dollars,
            tiers=self.worth.kept(),
            apart=self._together(),
        )

    def _together(self) -> Together | UnsetType:
        """Which demands go the same way: of prompts, and of the answers to them."""
        if not (pairs := pairs_of(self.demand.parts)):
            return UNSET
        parts, groups = len(self.demand.parts), len(self._groups)
        streams = [
            ((g * parts + one) * groups + k, (g * parts + other) * groups + k)
            for g in range(len(self._layout.names.regions))
            for one, other in pairs
            for k in range(groups)
        ]
        return Together(tuple(streams), pairs, tuple(pool.region for pool in self._layout.pools))

    def _alike(self) -> list[_Group]:
        """Tiers of interactive demand that the same regions may serve, wherever it enters."""
        names, found = self._layout.names, list[_Group]()
        for k in self.demand.interactive:
            allowed = [self._scenario.serving(names.tiers[k], origin) for origin in names.regions]
            may = np.array([[region in served for region in names.regions] for served in allowed])
            alike = next((group for group in found if np.array_equal(group.may, may)), None)
            if alike is None:
                found.append(_Group([k], may))
            else:
                alike.tiers.append(k)
        everywhere = np.ones((len(names.regions), len(names.regions)), np.bool_)
        return found or [_Group([], everywhere)]

    def _streams(self, rates: Floats, means: Floats, levels: list[float]) -> Iterator[Stream]:
        """Demand by region and part (float64[regions, parts, steps], instances), divided by where its tiers may be served."""
        names, day = self._layout.names, self.demand.history.rate(24 * HOUR)
        together = day[..., self.demand.interactive].sum(axis=-1)
        parts = [day[..., group.tiers].sum(axis=-1) for group in self._groups]
        shares = [np.divide(part, together, out=np.full_like(part, 1 / len(parts)), where=together > 0) for part in parts]
        for g, region in enumerate(names.regions):
            for k, part in enumerate(self.demand.parts):
                for group, share in zip(self._groups, shares, strict=True):
                    mine = "" if len(parts) == 1 else f" ({', '.join(names.tiers[one] for one in group.tiers)})"
                    here = share[g, part.model]
                    rate, mean = (rates[g, k] * here).tolist(), (means[g, k] * here).tolist()
                    ways = self._ways(part, g, 1.0, group)
                    yield Stream(f"{region}/{part.name}{mine}", ways, tuple(rate), tuple(mean), level=levels[k])

    def _weight(self, pool: Pool) -> float:
        return int(self._layout.profiles[pool.profile]["weight"]) / WEIGHT_ONE

    def _ways(self, part: PlannedPart, origin: int, use: float, group: _Group | None = None) -> tuple[Way, ...]:
        """Pools that may serve a part: from an origin those within reach, dearer by the way; batch work (-1) goes anywhere."""
        found = []
        for pool in part.pools:
            if group is None or self._reaches(origin, pool.region, group):
                way = 0.0 if origin < 0 else float(self._layout.rtt[origin, pool.region]) / 1000 * self._rules.travel
                found.append(Way(pool.number, self._weight(pool) * use, way))
        return tuple(found)

    def _reaches(self, origin: int, region: int, group: _Group) -> bool:
        """Whether interactive work of one region may be planned for another: its tiers may go there, and the way is short."""
        if origin == region:
            return True
        return bool(group.may[origin, region]) and float(self._layout.rtt[origin, region]) <= self._reach

    def _pool(self, pool: Pool, fleet: Fleet, now: Micros) -> HorizonPool:
        names, stock = self._layout.names, self._layout.stocks[pool.stock]
        load = self._scenario.models[names.models[pool.model]].load
        price = stock.purchase.price_on_demand * pool.gpus
        vm = self._scenario.gpus[stock.gpu].start
        lead = fleet.took.get(pool.number, vm + load.fresh) / HOUR
        reclaiming = fleet.count(pool.number, State.RECLAIMING)
        starting = max(0, fleet.coming(pool.number) - reclaiming)
        coming = ((lead / 2, starting), (load.reclaim / HOUR, reclaiming))
        return HorizonPool(
            name=pool.name,
            stock=pool.stock,
            gpus=pool.gpus,
            price_per_hour=price,
            start_cost=price * lead,
            lead_hours=lead,
            serving=fleet.serving(pool.number),
            maximum=pool.end - pool.begin,
            coming=tuple((hours, count) for hours, count in coming if count),
            spot=fleet.count(pool.number, State.SPOT),
            spot_income_per_hour=stock.purchase.price_spot * pool.gpus if self._scenario.spot.donate else 0.0,
            reclaim_hours=load.reclaim / HOUR,
            reclaim_cost=price * load.reclaim / HOUR,
            carbon_per_hour=self._carbon(pool, now),
        )

    def _carbon(self, pool: Pool, now: Micros) -> tuple[float, ...]:
        stock = self._layout.stocks[pool.stock]
        times = [now + round(at * HOUR) for at in begins(self.steps)]
        return tuple(pool.gpus * stock.carbon_cost(*span) for span in pairwise(times)) if stock.carbon else ()

    def _tokens(self) -> tuple[Floats, Floats]:
        """float64[regions, models, steps] twice: interactive tokens/s to keep capacity for, and to expect."""
        regions, models, _ = self.demand.history.shape
        seen = self.demand.history.rate(HOUR)[..., self.demand.interactive].sum(axis=-1)
        latest = self.demand.history.rate(BIN)[..., self.demand.interactive].sum(axis=-1)
        high, middle = np.zeros((regions, models, len(self.steps))), np.zeros((regions, models, len(self.steps)))
        times = begins(self.steps)
        for k in range(regions * models):
            g, m = divmod(k, models)
            forecast = self._forecasts[k] if k < len(self._forecasts) else None
            if forecast is None:
                high[g, m], middle[g, m] = seen[g, m], seen[g, m]
                continue
            passed = max(0, (self.demand.history.end - forecast.start) // BIN)
            drift, beyond = self._drift(forecast, passed, float(latest[g, m]))
            for s in range(len(self.steps)):
                a = min(passed + int(times[s] * _BINS_PER_HOUR), len(forecast.point) - 1)
                b = min(max(a + 1, passed + int(times[s + 1] * _BINS_PER_HOUR)), len(forecast.point))
                fade = 0.5 ** (times[s] / _FADE_HOURS)
                factor = drift**fade / (BIN / SECOND)
                middle[g, m, s] = max(forecast.at(_MIDDLE)[a:b].mean() * factor, beyond * fade)
                high[g, m, s] = max(forecast.at(self.levels[-1])[a:b].max() * factor, beyond * fade)
        return high, middle

    def _drift(self, forecast: QuantileForecast, passed: int, latest: float) -> tuple[float, float]:
        """How far the newest bin is above what the forecast said of it, and what it was where that does not say it all.

        1 and 0 for a forecast that begins now. A burst beyond any factor, or from nothing, is itself what is expected at first.
        """
        if passed == 0:
            return 1.0, 0.0
        said = float(forecast.at(_MIDDLE)[min(passed, len(forecast.point)) - 1]) / (BIN / SECOND)
        drift = min(max(latest / said, 1 / _DRIFT), _DRIFT) if said > 0 else 1.0
        return drift, latest if latest > said * _DRIFT else 0.0

    def _lots(self, per_token: Floats) -> list[list[Lot]]:
        """Batch work per part in busy-instance hours: what waits, by the hour it arrived, and what will probably come.

        What waits beyond all that ever arrived (the mean length is an estimate) is as old as the oldest of it.
        """
        tokens = self.demand.history.tokens()[..., self.demand.batch].sum(axis=(1, 3))  # [bins, models]
        patience = max((self.demand.promotion - self._rules.ready) / HOUR, self.steps[0])
        waiting = self.demand.waiting_tokens()[self.demand.models]  # by part: both have all of it to do
        lots: list[list[Lot]] = [[] for _ in self.demand.parts]
        for part, m in enumerate(self.demand.models.tolist()):
            scale, left = float(per_token[part]) / (HOUR / SECOND), float(waiting[part])
            age = 0.0
            for k in range(len(tokens) - 1, -1, -_BINS_PER_HOUR):
                if left <= 0:
                    break
                came = float(tokens[max(0, k - _BINS_PER_HOUR + 1) : k + 1, m].sum())
                mine = min(left, came)
                left -= mine
                age += 1.0
                lots[part].append(Lot(0.0, max(patience - age, self.steps[0]), mine * scale))
            if left > 0:
                lots[part].append(Lot(0.0, max(patience - age, self.steps[0]), left * scale))
            rate = float(self.demand.history.rate(24 * HOUR)[:, m, self.demand.batch].sum()) * float(per_token[part])
            for begin, length in zip(begins(self.steps), self.steps, strict=False):
                lots[part].append(Lot(begin, begin + patience, rate * length))
        return lots
