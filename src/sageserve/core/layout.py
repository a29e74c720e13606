"""From settings to codes: which regions, models, tiers, pools and endpoints there are, and who may serve whom.

Names become numbers here once; everything per request works with the numbers. Endpoint = (region x models + model) x roles +
role; its instance rows lie side by side, pool after pool. Knows no policy. Read next: `fleet.py`, `route.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import ProfileSettings, Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import Names
from sageserve.base.units import SECOND
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.core.feed import DIRECT, FEEDS
from sageserve.core.fleet import Pool, Role, Stock
from sageserve.core.handover import DECODE, PREFILL, Handover
from sageserve.core.ledger import Purchase
from sageserve.core.order import TIER
from sageserve.core.perf import OUTPUT_GUESS, profile_rows, request_work

_TYPICAL_CONTEXT = 2000  # tokens: where profiles of one model are compared for their weights


@dataclass(frozen=True, slots=True)
class Layout:
    """The numbers behind a scenario's names.

    Args:
        names: models, regions and tiers in order of their codes.
        roles: in order of preference.
        pools: in order of their numbers.
        stocks: (region, GPU type) pairs.
        slots: instance rows per endpoint.
        profiles: PROFILE rows.
        slot_profile: int32[instances], -1 for rows that no pool uses.
        tiers: TIER rows.
        context: int64[models].
        walk: int32[regions, models, tiers, endpoints tried], nearest first, padded with -1.
        rtt: int64[regions, regions], microseconds.
        feeds: bool[endpoints], given batch work from the queue.
        feed: STEPS, FILL or DIRECT; DIRECT too where no role is given work from the queue, or nothing would ever leave it.
        prefix_hits: share of a prompt found in the prefix cache, by model, where a trace does not say.
        handover: models whose prefill and decode are apart; None: none is.
    """

    names: Names
    roles: tuple[Role, ...]
    pools: tuple[Pool, ...]
    stocks: tuple[Stock, ...]
    slots: int
    profiles: NDArray[Any]
    slot_profile: NDArray[np.int32]
    tiers: NDArray[Any]
    context: NDArray[np.int64]
    walk: NDArray[np.int32]
    rtt: NDArray[np.int64]
    feeds: NDArray[np.bool_]
    feed: int
    prefix_hits: tuple[float, ...]
    handover: Handover | None = None

    @property
    def apart(self) -> tuple[bool, ...]:
        """By model, whether instances of role 0 only prefill and those of role 1 decode."""
        return (False,) * len(self.names.models) if self.handover is None else self.handover.apart

    @property
    def endpoints(self) -> int:
        """How many endpoints there are."""
        return len(self.names.regions) * len(self.names.models) * len(self.roles)

    @property
    def wakes(self) -> NDArray[np.bool_]:
        """bool[endpoints]: may have no instance, and has one again when it is asked for."""
        found = np.zeros(self.endpoints, np.bool_)
        for pool in self.pools:
            found[pool.endpoint] = pool.sleeps and pool.minimum > 0
        return found

    @property
    def instances(self) -> int:
        """How many instance rows there are."""
        return self.endpoints * self.slots

    def endpoint_pools(self, endpoint: int) -> list[Pool]:
        """The pools of an endpoint, in order of preference."""
        return [pool for pool in self.pools if pool.endpoint == endpoint]

    def fastest(self, model: int) -> int:
        """Row of the fastest profile among a model's pools, in whose time its demand is measured; -1 when it has no pool."""
        rows = {pool.profile for pool in self.pools if pool.model == model}
        return min(rows, key=lambda row: (int(self.profiles[row]["weight"]), row), default=-1)

    def strength(self, pool: Pool) -> float:
        """Instances of its model's fastest type that one of a pool is worth."""
        return WEIGHT_ONE / int(self.profiles[pool.profile]["weight"])

    def role_name(self, endpoint: int) -> str:
        """What the instances of an endpoint do: the strategy's word, or prefill or decode where these are apart."""
        at, role = divmod(endpoint, len(self.roles))
        return role_name(self.roles, role, apart=self.apart[at % len(self.names.models)])

    def endpoint_name(self, endpoint: int) -> str:
        """`region/model`, with `/role` where the model has more than one."""
        at, _ = divmod(endpoint, len(self.roles))
        region, model = divmod(at, len(self.names.models))
        name = f"{self.names.regions[region]}/{self.names.models[model]}"
        return f"{name}/{self.role_name(endpoint)}" if has_roles(self.roles, apart=self.apart[model]) else name


def has_roles(roles: tuple[Role, ...], *, apart: bool) -> bool:
    """Whether a model's instances have roles that are to be told apart."""
    return apart or sum(not _only_decodes(role) for role in roles) > 1


def _only_decodes(role: Role) -> bool:
    """Whether it is the second one of `unified_roles`."""
    return role.name == DECODE and not role.tiers


def role_name(roles: tuple[Role, ...], role: int, *, apart: bool) -> str:
    """What instances of a role do."""
    return (PREFILL, DECODE)[role] if apart else roles[role].name


def names_of(scenario: Scenario) -> Names:
    """The names of a scenario in order of their codes, which is the order of the file."""
    return Names(tuple(scenario.models), tuple(scenario.regions), tuple(scenario.tiers))


def unified_roles(scenario: Scenario) -> tuple[Role, ...]:
    """One role that serves every tier; batch tiers come from the queue manager unless the feed is direct.

    Where a model's prefill and decode are apart there is a second one, without tiers: what it has comes from the first.
    """
    shared = Role("shared", tuple(range(len(scenario.tiers))), queued=scenario.batch.feed != "direct")
    return (shared, Role(DECODE, (), queued=False)) if any_apart(scenario) else (shared,)


def any_apart(scenario: Scenario) -> str:
    """The first model whose prefill and decode are apart; empty where there is none."""
    return next((name for name, model in scenario.models.items() if model.disaggregated is not None), "")


def refuse_apart(scenario: Scenario, what: str) -> None:
    """Say that something has no answer where prefill and decode are apart.

    Raises:
        ConfigError: they are.
    """
    if model := any_apart(scenario):
        raise ConfigError(
            f"models.{model}.disaggregated: {what} where prefill and decode are apart",
            hint=f"leave it out with --set models.{model}.disaggregated=null, or play the fleet: sageserve simulate",
        )


def lay_out(
    scenario: Scenario, roles: tuple[Role, ...], minimum: Callable[[Scenario], tuple[int, ...]], *, sleeps: bool = True
) -> Layout:
    """Number everything in a scenario.

    Args:
        scenario: with all profiles resolved.
        roles: the strategy's.
        minimum: instances an endpoint keeps, by role; asked with the fleet's numbers for that endpoint.
        sleeps: where the fleet's minimum is 0, endpoints of which one is to be kept may have none; false: they keep it.
    """
    names = names_of(scenario)
    stocks = _stocks(scenario)
    engines = [(model, gpu, False) for model in names.models for gpu in scenario.models[model].engines]
    engines += [(model, gpu, True) for model in names.models for gpu in scenario.models[model].decode_engines]
    profiles = profile_rows([engine_of(scenario, *engine) for engine in engines])
    _weigh(profiles, [(names.models.index(model), decode) for model, _, decode in engines])
    ends = [(region, model) for region in names.regions for model in names.models]
    kinds = [max(len(scenario.gpus_at(m, g)), len(scenario.gpus_at(m, g, decode=True))) for g, m in ends]
    slots = max(scenario.at(g, m).fleet.maximum * count for (g, m), count in zip(ends, kinds, strict=True))
    pools = _pools(scenario, roles, minimum, slots, engines, sleeps=sleeps)
    slot_profile = np.full(len(names.regions) * len(names.models) * len(roles) * slots, -1, np.int32)
    for pool in pools:
        slot_profile[pool.begin : pool.end] = pool.profile
    rtt = _round_trips(scenario, names)
    served = {pool.endpoint for pool in pools}
    walk = _walks(scenario, names, roles, rtt, served)
    feeds = np.array([role.queued for _ in range(len(names.regions) * len(names.models)) for role in roles])
    context = np.array([scenario.models[model].context for model in names.models], np.int64)
    return Layout(
        names,
        roles,
        pools,
        stocks,
        slots,
        profiles,
        slot_profile,
        tiers=tier_rows(scenario),
        context=context,
        walk=walk,
        rtt=rtt,
        feeds=feeds,
        feed=FEEDS.index(scenario.batch.feed) if any(role.queued for role in roles) else DIRECT,
        prefix_hits=tuple(scenario.models[model].prefix_hits for model in names.models),
        handover=_handover(scenario, names),
    )


def _handover(scenario: Scenario, names: Names) -> Handover | None:
    if not any_apart(scenario):
        return None
    told = [(scenario.models[model].disaggregated, scenario.models[model].kv_sent or 0) for model in names.models]
    return Handover(
        tuple(one is not None for one, _ in told),
        tuple(0.0 if one is None else size * SECOND / one.link for one, size in told),
        tuple(0 if one is None else one.latency for one, _ in told),
    )


def engine_of(scenario: Scenario, model: str, gpu: str, decode: bool) -> ProfileSettings:  # as `engines` are listed
    """The engine of a model on a GPU type; of its instances that decode, where these are apart."""
    served = scenario.models[model]
    return (served.decode_engines if decode else served.engines)[gpu]


def tier_rows(scenario: Scenario) -> NDArray[Any]:
    """TIER rows in the order of the scenario's tiers."""
    rows = np.zeros(len(scenario.tiers), TIER)
    for row, tier in zip(rows, scenario.tiers.values(), strict=True):
        row["urgent"], row["expired"], row["patience"] = tier.urgent, tier.expired, tier.patience
        row["growth"], row["rank"], row["batch"] = tier.growth, tier.priority, tier.batch
        row["gap"] = 0 if tier.batch or tier.itl is None else tier.itl
    return rows


def _stocks(scenario: Scenario) -> tuple[Stock, ...]:
    stocks = []
    for region, settings in scenario.regions.items():
        for gpu, stock in settings.gpus.items():
            per_vm, price = scenario.gpus[gpu].per_vm, stock.price
            committed, on_demand, spot = (price.of_gpu(one, per_vm) for one in (price.committed, price.on_demand, price.spot))
            purchase = Purchase(stock.reserved, committed, on_demand, spot)
            stocks.append(Stock(f"{region}/{gpu}", gpu, stock.gpus, per_vm, purchase, _carbon(scenario, region, gpu)))
    return tuple(stocks)


def _carbon(scenario: Scenario, region: str, gpu: str) -> tuple[float, ...]:
    """What the CO2 of a GPU's hour at work is worth, by the hour: price per tonne x kW x g/kWh / 1e6."""
    power, grid = scenario.gpus[gpu].power, scenario.regions[region].carbon
    if not scenario.carbon_price or power is None or grid is None:
        return ()
    grams = (grid,) if isinstance(grid, float) else grid
    return tuple(scenario.carbon_price * power.busy / 1000 * each / 1e6 for each in grams)


def _pools(
    scenario: Scenario,
    roles: tuple[Role, ...],
    minimum: Callable[[Scenario], tuple[int, ...]],
    slots: int,
    engines: list[tuple[str, str, bool]],
    *,
    sleeps: bool,
) -> tuple[Pool, ...]:
    pools: list[Pool] = []
    stocks = [(region, gpu) for region, settings in scenario.regions.items() for gpu in settings.gpus]
    for g, region in enumerate(scenario.regions):
        for m, model in enumerate(scenario.models):
            here = scenario.at(region, model)
            most, kept = here.fleet.maximum, minimum(here)
            apart = scenario.models[model].disaggregated is not None
            for o, role in enumerate(roles):
                endpoint = (g * len(scenario.models) + m) * len(roles) + o
                decode = apart and o > 0
                if _only_decodes(role) and not decode:
                    continue
                for k, gpu in enumerate(scenario.gpus_at(model, region, decode=decode)):
                    begin = endpoint * slots + k * most
                    told = f"/{role_name(roles, o, apart=apart)}" if has_roles(roles, apart=apart) else ""
                    name = f"{region}/{model}/{gpu}{told}"
                    pools.append(
                        Pool(
                            number=len(pools),
                            name=name,
                            region=g,
                            model=m,
                            role=o,
                            endpoint=endpoint,
                            profile=engines.index((model, gpu, decode)),
                            stock=stocks.index((region, gpu)),
                            gpus=engine_of(scenario, model, gpu, decode).gpus,
                            begin=begin,
                            end=begin + most,
                            minimum=kept[o],
                            sleeps=sleeps and here.fleet.minimum == 0 and max(kept) > 0,
                        )
                    )
    return tuple(pools)


def _weigh(profiles: NDArray[Any], models: list[tuple[int, bool]]) -> None:
    """Weight of each profile: its time for a typical request against the fastest profile of the same model and use."""
    times = [request_work(profile, _TYPICAL_CONTEXT, 0, OUTPUT_GUESS) for profile in profiles]
    for k, model in enumerate(models):
        fastest = min(time for time, other in zip(times, models, strict=True) if other == model)
        profiles[k]["weight"] = round(WEIGHT_ONE * times[k] / fastest) if fastest > 0 else WEIGHT_ONE


def _round_trips(scenario: Scenario, names: Names) -> NDArray[np.int64]:
    size = len(names.regions)
    rtt = np.zeros((size, size), np.int64)
    for a, origin in enumerate(names.regions):
        for b, other in enumerate(names.regions):
            rtt[a, b] = scenario.rtt(origin, other)
    return rtt


def _walks(
    scenario: Scenario, names: Names, roles: tuple[Role, ...], rtt: NDArray[np.int64], served: set[int]
) -> NDArray[np.int32]:
    regions, models = len(names.regions), len(names.models)
    walk = np.full((regions, models, len(names.tiers), regions * len(roles)), -1, np.int32)
    for g in range(regions):
        near = sorted(range(regions), key=lambda other: (other != g, int(rtt[g, other]), other))
        for k, tier in enumerate(names.tiers):
            allowed = scenario.serving(tier, names.regions[g])
            may = [other for other in near if names.regions[other] in allowed]
            open_to = [o for o, role in enumerate(roles) if k in role.tiers]
            for m in range(models):
                tried = [(other * models + m) * len(roles) + o for other in may for o in open_to]
                tried = [endpoint for endpoint in tried if endpoint in served]
                walk[g, m, k, : len(tried)] = tried
    return walk
