"""From what arrived to what a plan needs: series to forecast, demand in tokens/s, and theta, the tokens/s of one instance.

theta = sustainable load x tokens per engine time: the load from `core/theta.py` for the tightest first-token target, the
tokens per engine time from the mix that was seen. Shared by every strategy that plans.
Knows no thresholds. Read next: `planned.py`.
"""

from typing import Final

import numpy as np

from sageserve.base.config import Scenario
from sageserve.base.records import Demand, Floats
from sageserve.base.units import HOUR, SECOND, Micros
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.core.events import Observed
from sageserve.core.fleet import Fleet, Pool
from sageserve.core.forecast import QuantileForecast, Series
from sageserve.core.history import BIN, DemandHistory
from sageserve.core.layout import Layout
from sageserve.core.perf import OUTPUT_GUESS, first_time, request_work
from sageserve.core.plan.hourly_rows import HourlyProblem, PoolFacts, StockFacts, windows
from sageserve.core.theta import Load, needed

_LEAST_SLACK: Final = 0.25  # of the target: queueing always gets this much, or a target that cannot be met would forbid any load


class DemandEstimates:
    """What is known and expected of demand.

    Args:
        scenario: for tiers and `strategy.planned`.
        layout: numbers of regions, models, tiers and pools.
        earlier: what arrived before the first instant, None when nothing is known.
        misses: share of requests that queueing may make late; that of `strategy.planned` when left out.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None, misses: float | None = None) -> None:
        names = layout.names
        self.history = DemandHistory((len(names.regions), len(names.models), len(names.tiers)), earlier)
        self._rules = scenario.strategy.planned
        self._misses = self._rules.misses if misses is None else misses
        self._layout = layout
        self._reference = [layout.fastest(m) for m in range(len(names.models))]
        tiers = list(scenario.tiers.values())
        queued = scenario.batch.feed != "direct"  # batch work that no queue holds back arrives like any other
        self.interactive = [k for k, tier in enumerate(tiers) if not (tier.batch and queued)]
        self.batch = [k for k, tier in enumerate(tiers) if tier.batch and queued]
        self.promotion = min([scenario.batch.promote_after, *(tiers[k].patience for k in self.batch)])  # age of a job, or due
        tight = min((tier for tier in tiers if not tier.batch), key=lambda tier: tier.patience, default=tiers[0])
        self._target = tight.patience
        self._waiting = np.zeros(len(names.models))  # jobs in the batch queue of each model
        self.forecast = np.zeros(self.history.shape[:2])
        self._scenario = scenario
        self.loads: list[Load] = []

    @property
    def known(self) -> bool:
        """Whether there is anything to plan from: one whole bin of arrivals, before or after the first instant."""
        return len(self.history.tokens()) > 0

    @property
    def bins(self) -> int:
        """How many bins ahead a forecast must reach: to the next plan."""
        return max(1, -(-self._rules.every // BIN))

    def series(self) -> tuple[Series, ...]:
        """Interactive prompt tokens per bin, one series per (region, model), models changing fastest."""
        tokens = self.history.tokens()[..., self.interactive].sum(axis=-1)
        regions, models, _ = self.history.shape
        return tuple(Series(tokens[:, g, m], BIN, self.history.start) for g in range(regions) for m in range(models))

    def take(self, forecasts: tuple[QuantileForecast | None, ...], *, late: Micros = 0) -> None:
        """Keep the forecast peak of each series, tokens/s; the last hour's mean where nothing could be forecast.

        Args:
            forecasts: of the series that `series` gave; none at all when fitting failed.
            late: from the end of the newest whole bin to the instant they were asked for.
        """
        models = self.history.shape[1]
        seen = self.history.rate(HOUR)[..., self.interactive].sum(axis=-1)
        for k in range(self.forecast.size):
            g, m = divmod(k, models)
            forecast = forecasts[k] if k < len(forecasts) else None
            if forecast is None:
                self.forecast[g, m] = seen[g, m]
            else:
                first = min((late + self._rules.ahead) // BIN, len(forecast.point) - 1) * BIN
                peak = forecast.peak(first, max(late + self._rules.every, first + 1), level=self._rules.quantile)
                self.forecast[g, m] = peak / (BIN / SECOND)

    def see(self, event: Observed) -> None:
        """Keep what the last look at the fleet said of the batch queues."""
        self._waiting = np.array(event.batch_waiting, float)

    def waiting_tokens(self) -> Floats:
        """float64[models]: prompt tokens that wait in the batch queues."""
        return self._waiting * self.history.batch_prompt_mean(self.batch)

    def batch_rate(self) -> Floats:
        """float64[models]: tokens/s of batch work to plan for in the coming hour.

        Jobs that will reach the age of promotion in it are interactive work then, so they are planned in full: the queue is
        served oldest first, so they are what waits beyond all that arrived in the last `promote_after` less one hour. The
        paper's buffer, a tenth of the past hour's batch tokens, comes on top.
        """
        waiting = self.waiting_tokens()
        young = max(self.promotion - self._rules.every, BIN)
        recent = self.history.seen(young)[..., self.batch].sum(axis=(0, 2))
        promoted = np.maximum(waiting - recent, 0.0) / (self._rules.every / SECOND)
        return promoted + self._rules.batch_buffer * self.history.rate(HOUR)[..., self.batch].sum(axis=(0, 2))

    def observed_to_forecast(self, endpoint: int, span: Micros) -> float:
        """What arrived at an endpoint's region and model in the newest `span`, against its forecast; 1 without a forecast."""
        at = endpoint // len(self._layout.roles)
        g, m = divmod(at, len(self._layout.names.models))
        expected = float(self.forecast[g, m])
        seen = float(self.history.now(span)[g, m, self.interactive].sum())
        return seen / expected if expected > 0 else 1.0

    def work_per_token(self, *, batch: bool = False) -> Floats:
        """float64[models]: engine microseconds per interactive (or batch) prompt token, on the model's fastest engine.

        The other kind's, where the scenario has no tier of one.
        """
        tiers = (self.batch or self.interactive) if batch else (self.interactive or self.batch)
        mix = self.history.rate(24 * HOUR).sum(axis=0)[:, tiers]
        prior = np.array([[self._prior(m)] * self.history.shape[2] for m in range(len(mix))])
        each = self.history.work_per_token(prior)[:, tiers]
        total = mix.sum(axis=1)
        return np.where(total > 0, (each * mix).sum(axis=1) / np.maximum(total, 1e-9), each.mean(axis=1))

    def sustainable_loads(self, demand: Floats) -> list[Load]:
        """The load one instance of each model sustains, when `demand` (float64[models], busy instances) shares a queue.

        Kept as `loads` for whoever explains a plan.
        """
        each = np.array([self._prior(m) for m in range(len(demand))]) * self.history.prompt_mean()
        service = self.history.work_per_request(each)
        self.loads = [self._load(m, float(demand[m]), float(service[m])) for m in range(len(demand))]
        return self.loads

    def problem(self, fleet: Fleet) -> HourlyProblem:
        """The integer program of the paper for what is forecast now."""
        per_token = self.work_per_token()
        busy = (self.forecast.sum(axis=0) + self.batch_rate()) * per_token / SECOND
        self.sustainable_loads(busy / len(self._layout.names.regions))
        pools = self._layout.pools
        weights = [int(self._layout.profiles[pool.profile]["weight"]) / WEIGHT_ONE for pool in pools]
        theta = [
            self.loads[pool.model].load * SECOND / (float(per_token[pool.model]) * weight)
            for pool, weight in zip(pools, weights, strict=True)
        ]
        names = self._layout.names
        return HourlyProblem(
            regions=names.regions,
            models=names.models,
            stocks=tuple(StockFacts(stock.name, fleet.unplanned(k)) for k, stock in enumerate(self._layout.stocks)),
            pools=tuple(self._facts(pool, one, fleet) for pool, one in zip(pools, theta, strict=True)),
            demand=windows(self.forecast),
            buffer=tuple(self.batch_rate().tolist()),
            minimum=tuple(tuple(self._minimum(g, m) for m in range(len(names.models))) for g in range(len(names.regions))),
            epsilon=self._rules.epsilon,
        )

    def _minimum(self, region: int, model: int) -> int:
        return max((pool.minimum for pool in self._layout.pools if (pool.region, pool.model) == (region, model)), default=0)

    def _facts(self, pool: Pool, theta: float, fleet: Fleet) -> PoolFacts:
        price = self._layout.stocks[pool.stock].purchase.price_on_demand * pool.gpus
        load = self._scenario.models[self._layout.names.models[pool.model]].load
        return PoolFacts(
            name=pool.name,
            region=pool.region,
            model=pool.model,
            stock=pool.stock,
            gpus=pool.gpus,
            price_per_hour=price,
            start_cost=price * load.fresh / HOUR,
            theta=theta,
            now=fleet.serving(pool.number) + fleet.coming(pool.number),
            maximum=pool.end - pool.begin,
        )

    def _load(self, m: int, busy: float, service_us: float) -> Load:
        profile = self._layout.profiles[self._reference[m]]
        tokens = int(min(max(float(self.history.prompt_mean()[m]), 1.0), float(self._layout.context[m])))
        found = int(tokens * self._layout.prefix_hits[m])
        idle = float(first_time(profile, tokens, min(found, tokens - 1)))
        slack = max(self._target - idle - int(profile["entry"]), _LEAST_SLACK * self._target)
        return needed(busy, service_us=service_us, slack_us=slack, misses=self._misses)

    def _prior(self, m: int) -> float:
        """Engine time per prompt token for a guess of the mix: all that is known before the first requests."""
        profile = self._layout.profiles[self._reference[m]]
        prompt = int(max(float(self.history.prompt_mean()[m]), 1.0))
        found = min(int(prompt * self._layout.prefix_hits[m]), prompt - 1)
        return float(request_work(profile, prompt, found, OUTPUT_GUESS) / prompt)
