"""From what arrived to what a plan needs: series to forecast, demand in tokens/s, and the instances that demand is worth.

How many requests are late at how many instances is the response curve (`core/response.py`) of the mix that was seen; one
instance more is had while the requests it keeps in time are worth more than it costs. Shared by every strategy that plans.
Knows no thresholds. Read next: `planned.py`, `core/response.py`.
"""

from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import Demand, Floats
from sageserve.base.units import HOUR, SECOND, Micros
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.core.events import Observed
from sageserve.core.fleet import Fleet, Pool
from sageserve.core.forecast import QuantileForecast, Series
from sageserve.core.history import BIN, DemandHistory
from sageserve.core.layout import Layout
from sageserve.core.pace import DecodingLoad, guessed_answers, slow_by_load
from sageserve.core.perf import OUTPUT_GUESS, decode_work, decoding_time, first_time, prefill_work, request_work
from sageserve.core.plan.hourly_rows import HourlyProblem, PoolFacts, StockFacts, windows
from sageserve.core.response import FULL, Load, RequestMix, held, instances_for, late
from sageserve.core.strategies.parts import (
    LEAST_US,
    Does,
    PlannedPart,
    decode_mix,
    parts_by_pool,
    parts_of,
    prefill_mix,
)

FLAT: Final = 0.75
"""Load at which instances are enough where there is no curve: the tuned threshold's."""
_VARIATION_GUESS: Final = 0.5  # of prompts, before any were seen: between that of O365's 70B (0.2) and its 8B (1.3)
_LEAST_SLACK: Final = 0.25  # of the target: a guess of the mix leaves queueing this much
_POOLED: Final = ("least", "quickest")  # routers that send to where there is room, however near the rest is


def homes(scenario: Scenario, layout: Layout) -> NDArray[np.int64] | None:
    """int64[regions, models, tiers]: the region in which demand is planned for: the nearest, where its own may not serve it.

    None where no tier has a list of regions.
    """
    names = layout.names
    if all(isinstance(tier.regions, str) for tier in scenario.tiers.values()):
        return None
    found = np.indices(layout.walk.shape[:3])[0]
    for g, m, k in np.ndindex(found.shape):
        if names.regions[g] not in scenario.serving(names.tiers[k], names.regions[g]) and layout.walk[g, m, k, 0] >= 0:
            found[g, m, k] = layout.walk[g, m, k, 0] // (len(names.models) * len(layout.roles))
    return found


class DemandEstimates:
    """What is known and expected of demand.

    Args:
        scenario: for tiers and `strategy.planned`.
        layout: numbers of regions, models, tiers and pools.
        earlier: what arrived before the first instant, None when nothing is known.
        foresight: its worth and its curve are those of `strategy.foresight`, not those of `strategy.planned`.
    """

    def __init__(self, scenario: Scenario, layout: Layout, earlier: Demand | None, *, foresight: bool = False) -> None:
        names = layout.names
        shape = (len(names.regions), len(names.models), len(names.tiers))
        self.history = DemandHistory(shape, earlier, home=homes(scenario, layout))
        self._rules = scenario.strategy.planned
        ahead = scenario.strategy.foresight
        self._worth, self._curve = (ahead.worth, ahead.curve) if foresight else (self._rules.worth, "learned")
        self._uneven = foresight and ahead.curve == "learned"
        self._layout = layout
        self._reference = [layout.fastest(m) for m in range(len(names.models))]  # whose time is heard
        self.parts = parts_of(layout)
        self.part_of = parts_by_pool(layout, self.parts)
        self.models = np.array([part.model for part in self.parts], np.int64)  # of the parts
        tiers = list(scenario.tiers.values())
        queued = scenario.batch.feed != "direct"  # batch work that no queue holds back arrives like any other
        self.interactive = [k for k, tier in enumerate(tiers) if not (tier.batch and queued)]
        self.batch = [k for k, tier in enumerate(tiers) if tier.batch and queued]
        self.promotion = min([scenario.batch.promote_after, *(tiers[k].patience for k in self.batch)])  # age of a job, or due
        self._promised = [tier for tier in tiers if not tier.batch] or tiers[:1]
        self._waiting = np.zeros(len(names.models))  # jobs in the batch queue of each model
        self.forecast = np.zeros(self.history.shape[:2])
        self._scenario = scenario
        self.loads: list[Load] = []
        ends = [layout.endpoint_pools(e) for e in range(layout.endpoints)]
        self._most = [
            max((sum(pool.end - pool.begin for pool in pools) for pools in ends if pools and pools[0] in part.pools), default=1)
            for part in self.parts
        ]
        self._group = len(names.regions) if scenario.routing.region in _POOLED else 1
        self._gaps = np.array([float(gap) for gap in layout.tiers["gap"]])
        self._mixes = [self._paced(part, self._guess(part.model)) for part in self.parts]
        self._held = [self._enough(k) for k in range(len(self.parts))]
        self._shown = [1.0] * len(self.parts)

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
        """float64[parts]: engine microseconds per interactive (or batch) prompt token, on the part's fastest engine.

        The other kind's, where the scenario has no tier of one.
        """
        tiers = (self.batch or self.interactive) if batch else (self.interactive or self.batch)
        mix = self.history.rate(24 * HOUR).sum(axis=0)[:, tiers]
        prior = np.array([[self._prior(m)] * self.history.shape[2] for m in range(len(mix))])
        each = self.history.work_per_token(prior)[:, tiers]
        total = mix.sum(axis=1)
        whole = np.where(total > 0, (each * mix).sum(axis=1) / np.maximum(total, 1e-9), each.mean(axis=1))
        return np.array([self._share(part, float(whole[part.model]), batch=batch) for part in self.parts])

    def _share(self, part: PlannedPart, whole: float, *, batch: bool) -> float:
        """Engine microseconds of a part per prompt token, where all that a request takes is `whole` per token."""
        if part.does is Does.WHOLE:
            return whole
        tiers = (self.batch or self.interactive) if batch else (self.interactive or self.batch)
        prompt, prefill, decode = self._apart(part, tiers)
        if part.does is Does.DECODE:
            return decode / prompt
        mix = None if batch else self._seen(part.model)
        return max(prefill / prompt if mix is None else whole * mix.prefill_us / mix.each_us, self._link_us(part))

    def _apart(self, part: PlannedPart, tiers: list[int]) -> tuple[float, float, float]:
        """Mean prompt of a model's requests of these tiers, and engine microseconds to prefill and to decode one of them."""
        requests, prompts, answers = (column[part.model, tiers] for column in self.history.lengths(OUTPUT_GUESS))
        shares = requests / total if (total := requests.sum()) > 0 else np.full(len(tiers), 1 / len(tiers))
        profile, hits = self._layout.profiles[part.reference], self._layout.prefix_hits[part.model]
        prefill = decode = 0.0
        for share, prompt, answer in zip(shares.tolist(), prompts.tolist(), answers.tolist(), strict=True):
            length = max(int(prompt), 1)
            prefill += share * float(prefill_work(profile, length, min(int(length * hits), length - 1)))
            decode += share * float(decode_work(profile, length, answer))
        return max(float(shares @ prompts), 1.0), max(prefill, LEAST_US), max(decode, LEAST_US)

    def _link_us(self, part: PlannedPart) -> float:
        """Microseconds per prompt token that the KV cache takes on the links of an instance, one of each of its ranks."""
        handover = self._layout.handover
        per_rank = float(self._layout.profiles[part.reference]["per_rank"])
        return 0.0 if handover is None else handover.token_us[part.model] * per_rank

    def sustainable_loads(self, demand: Floats) -> list[Load]:
        """The load of the instances that are enough for `demand` (float64[parts], busy instances of one region), by part.

        Takes in the mix of late. Kept as `loads` for whoever explains a plan.
        """
        for k, part in enumerate(self.parts):
            mix = self._seen(part.model) or self._guess(part.model)
            if self._uneven:
                found = self.history.minutes.of(part.model, self.interactive, pooled=self._group > 1)
                mix = replace(mix, uneven=found) if found else mix
            self._mixes[k] = self._paced(part, mix)
            self._held[k] = self._enough(k)
            self._shown[k] = mix.prefill_us / self._mixes[k].prefill_us if part.does is Does.PREFILL else 1.0
        self.loads = [self._load(k, float(busy)) for k, busy in enumerate(demand)]
        return self.loads

    def _seen(self, m: int) -> RequestMix | None:
        """The mix of a model, with all that its requests take; None where nothing was seen, or is to be believed."""
        step = float(decoding_time(self._layout.profiles[self._reference[m]], 1.0))
        return None if self._curve == "guessed" else self.history.mix(m, step)

    def _way_us(self, m: int, prompt: int) -> float:
        """Microseconds that the KV cache of a prompt is on its way, over a link that is free."""
        handover = self._layout.handover
        return 0.0 if handover is None else prompt * handover.token_us[m] + handover.latency[m]

    def instances(self, part: int, busy: Floats) -> Floats:
        """Instances that are enough for so many busy ones, by the mix of the latest `sustainable_loads`; fractions between."""
        return instances_for(busy, self._held[part])

    def busy_most(self, part: int, serving: int) -> float:
        """Busy instances up to which so many serving ones are enough."""
        return float(self._held[part][min(max(serving, 0), self._most[part])])

    def shown(self, part: int) -> float:
        """Share of a part's load that utilisation shows: signals are of engines, and do not see a link that is slower."""
        return self._shown[part]

    def be_worth(self, dollars: float) -> None:
        """From now on a request in time is worth that much."""
        self._worth = dollars

    def level(self, part: int) -> float:
        """Quantile of demand up to which instances are worth having, by the mix of the latest `sustainable_loads`; 0.5 at least.

        The newsvendor's critical ratio: an instance that is wanted with a chance p keeps p times the requests it can serve in an
        hour in time, and is had while they are worth more than its hour.
        """
        mix = self._mixes[part]
        worth = self._worth_us(part) * mix.eligible * FULL  # of all the requests that it serves, in its own time
        return max(1.0 - mix.each_us / worth, 0.5) if worth > 0 else 0.5

    def problem(self, fleet: Fleet) -> HourlyProblem:
        """The integer program of the paper for what is forecast now."""
        per_token = self.work_per_token()
        busy = (self.forecast.sum(axis=0) + self.batch_rate())[self.models] * per_token / SECOND
        self.sustainable_loads(busy / len(self._layout.names.regions))
        pools = self._layout.pools
        weights = [int(self._layout.profiles[pool.profile]["weight"]) / WEIGHT_ONE for pool in pools]
        theta = [
            self.loads[part].load * SECOND / (float(per_token[part]) * weight)
            for part, weight in zip(self.part_of, weights, strict=True)
        ]
        regions = self._layout.names.regions
        return HourlyProblem(
            regions=regions,
            models=tuple(part.name for part in self.parts),
            stocks=tuple(StockFacts(stock.name, fleet.unplanned(k)) for k, stock in enumerate(self._layout.stocks)),
            pools=tuple(self._facts(pool, one, fleet) for pool, one in zip(pools, theta, strict=True)),
            demand=windows(self.forecast[:, self.models]),
            buffer=tuple(self.batch_rate()[self.models].tolist()),
            minimum=tuple(tuple(self._minimum(g, part) for part in self.parts) for g in range(len(regions))),
            epsilon=self._rules.epsilon,
        )

    def _enough(self, part: int) -> Floats:
        """Busy instances up to which 0, 1, 2, ... instances of a part are enough."""
        if self._curve == "flat":
            return np.arange(self._most[part] + 1, dtype=np.float64) * FLAT
        return held(self._mixes[part], self._worth_us(part), self._most[part], group=self._group)

    def _minimum(self, region: int, part: PlannedPart) -> int:
        return max((pool.floor for pool in part.pools if pool.region == region), default=0)

    def _facts(self, pool: Pool, theta: float, fleet: Fleet) -> PoolFacts:
        stock, now = self._layout.stocks[pool.stock], self.history.end
        price = stock.purchase.price_on_demand * pool.gpus
        load = self._scenario.models[self._layout.names.models[pool.model]].load
        return PoolFacts(
            name=pool.name,
            region=pool.region,
            model=self.part_of[pool.number],
            stock=pool.stock,
            gpus=pool.gpus,
            price_per_hour=price,
            start_cost=price * load.fresh / HOUR,
            theta=theta,
            now=fleet.serving(pool.number) + fleet.coming(pool.number),
            maximum=pool.end - pool.begin,
            carbon_per_hour=stock.carbon_cost(now, now + HOUR) * pool.gpus,
        )

    def _load(self, part: int, busy: float) -> Load:
        count = max(int(np.ceil(self.instances(part, np.array([busy]))[0] - 1e-9)), 1)
        load = self.busy_most(part, count) / min(count, self._most[part])
        return Load(count * self._group, load, self._mixes[part], late(count * self._group, load, self._mixes[part]))

    def _worth_us(self, part: int) -> float:
        """Microseconds of an instance that a request in time is worth; of the dearest the part has."""
        now = self.history.end
        prices = [self.hour_price(pool, now, now + HOUR) for pool in self.parts[part].pools]
        return self._worth / price * HOUR if (price := max(prices, default=0.0)) > 0 else float("inf")

    def hour_price(self, pool: Pool, begin: Micros, end: Micros) -> float:
        """What an hour of an instance is weighed at between two times: its price, and what its CO2 is worth."""
        stock = self._layout.stocks[pool.stock]
        return (stock.purchase.price_on_demand + stock.carbon_cost(begin, end)) * pool.gpus

    def _guess(self, m: int) -> RequestMix:
        """The mix of a model of which nothing has been seen."""
        profile = self._layout.profiles[self._reference[m]]
        prompt = int(min(max(float(self.history.prompt_mean()[m]), 1.0), float(self._layout.context[m]) - 1))
        found = min(int(prompt * self._layout.prefix_hits[m]), prompt - 1)
        idle = first_time(profile, prompt, found) + int(profile["entry"]) + self._way_us(m, prompt)
        prefill = float(prefill_work(profile, prompt, found))
        tight = min(tier.patience_of(prompt) for tier in self._promised)
        return RequestMix(
            prefill_us=prefill,
            variation=_VARIATION_GUESS,
            decode_us=float(request_work(profile, prompt, found, OUTPUT_GUESS)) - prefill,
            step_us=float(decoding_time(profile, 1.0)),
            slacks=(max(tight - idle, _LEAST_SLACK * tight),),
            weights=(1.0,),
        )

    def _paced(self, part: PlannedPart, mix: RequestMix) -> RequestMix:
        """What a part is asked for by requests of a mix, with the share of answers that would be slower than promised.

        Before any answers were seen, of a guess of them.
        """
        prompt = float(self.history.prompt_mean()[part.model])
        if part.does is Does.PREFILL:
            return prefill_mix(mix, self._link_us(part) * prompt)
        asked = DecodingLoad(mix.each_us, mix.prefill_us, mix.variation, prompt)
        if part.does is Does.DECODE:
            profile = self._layout.profiles[part.reference]
            mix = decode_mix(mix, self._apart(part, self.interactive or self.batch)[2], float(decoding_time(profile, 1.0)))
            asked = DecodingLoad(mix.each_us, 0.0, 0.0, prompt)  # no prompt holds it up
        if not self._gaps.any():
            return mix
        answers = self.history.answers(part.model)
        if self._curve == "guessed" or not answers.any():
            answers = guessed_answers(self.interactive, answers.shape, OUTPUT_GUESS)
        return replace(mix, slow=slow_by_load(self._layout.profiles[part.reference], asked, answers, self._gaps))

    def _prior(self, m: int) -> float:
        """Engine time per prompt token for a guess of the mix: all that is known before the first requests."""
        profile = self._layout.profiles[self._reference[m]]
        prompt = int(max(float(self.history.prompt_mean()[m]), 1.0))
        found = min(int(prompt * self._layout.prefix_hits[m]), prompt - 1)
        return float(request_work(profile, prompt, found, OUTPUT_GUESS) / prompt)
