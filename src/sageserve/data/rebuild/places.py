"""Whose series are whose: the pools of a scenario that a history is read of, and where what was read belongs.

`live.targets` says it. Without targets each model must be in one region only: its series are told by `model_name`, and its
instances are of the GPU type that an endpoint starts with.
Knows no server. Read next: `demand.py`, which is given what is placed here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.data.history.raw import label_matches
from sageserve.data.history.records import FrontHistory, PoolHistory
from sageserve.data.rebuild.demand import UNKNOWN, PlacedFront, PlacedPool


@dataclass(frozen=True, slots=True)
class WatchedPool:
    """A pool that a history is read of.

    Args:
        pool: region/model/gpu of the scenario.
        cluster: one of live.clusters; empty: there are none.
        labels: of its engines' series.
    """

    pool: str
    cluster: str
    labels: Mapping[str, str]

    @property
    def region(self) -> str:
        """Where it stands."""
        return pool_parts(self.pool)[0]

    @property
    def model(self) -> str:
        """What it serves."""
        return pool_parts(self.pool)[1]


def pool_parts(pool: str) -> tuple[str, str, str]:
    """Region, model and GPU type of region/model/gpu; models may have slashes in their names, as meta-llama/Llama-3.1-8B has."""
    region, rest = pool.split("/", 1)
    model, gpu = rest.rsplit("/", 1)
    return region, model, gpu


def watched_pools(scenario: Scenario, *, whole: bool = True) -> tuple[WatchedPool, ...]:
    """In the order of the settings.

    Args:
        scenario: with targets.
        whole: policies decide for all of it, so that all of it is to be watched.

    Raises:
        ConfigError: two targets are one pool, nothing says which series a pool's are, or an endpoint is not watched.
    """
    targets = scenario.live.targets.values() if scenario.live is not None else ()
    found = tuple(
        WatchedPool(one.pool, one.cluster, one.series or {"model_name": pool_parts(one.pool)[1]}) for one in targets
    ) or tuple(_by_model(scenario))
    names = [one.pool for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two targets are of {twice}: its history would be counted twice",
            hint="make them one, whose series match both (`=~` in front of a regular expression)",
        )
    watched = {(one.region, one.model) for one in found}
    unseen = next((place for place in _places(scenario) if whole and place not in watched), None)
    if unseen is not None:
        raise ConfigError(
            f"nobody watches {'/'.join(unseen)}, where policies would hold instances and pay for them",
            hint=f"write a target of it in live.targets, or take it out: `models: {{{unseen[1]}: null}}`, or the region's GPUs",
        )
    return found


def _places(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Every region and model that could have instances."""
    for region, at in scenario.regions.items():
        for model, served in scenario.models.items():
            if any(gpu in at.gpus and at.gpus[gpu].gpus >= engine.gpus for gpu, engine in served.engines.items()):
                yield region, model


def _by_model(scenario: Scenario) -> Iterator[WatchedPool]:
    for model, served in scenario.models.items():
        regions = [name for name, at in scenario.regions.items() if any(gpu in at.gpus for gpu in served.engines)]
        if len(regions) != 1:
            raise ConfigError(
                f"{scenario.name} has {model} in {len(regions)} regions, and nothing says which series are whose",
                hint="write live.clusters and live.targets: each with its pool and the labels of its engines' series",
            )
        yield WatchedPool(f"{regions[0]}/{model}/{scenario.start_gpu(model, regions[0])}", "", {"model_name": model})


def place_pools(watched: Sequence[WatchedPool], histories: Sequence[PoolHistory]) -> tuple[PlacedPool, ...]:
    """Histories where they belong; in the order of `watched`."""
    return tuple(PlacedPool(one.region, one.model, history) for one, history in zip(watched, histories, strict=True))


def place_fronts(
    scenario: Scenario, watched: Sequence[WatchedPool], fronts: Sequence[FrontHistory], notes: list[str]
) -> tuple[PlacedFront, ...]:
    """Gateways' counts where they belong; those of models that are nobody's are left out, which is noted.

    Args:
        scenario: for its tiers, and what priorities they have in series.
        watched: pools behind these gateways, of one Prometheus.
        fronts: what was counted there.
        notes: sentences are added to it.
    """
    found = []
    for front in fronts:
        mine = [one for one in watched if label_matches(front.model, one.labels.get("model_name", one.model))]
        regions = sorted({one.region for one in mine})
        if not mine:
            notes.append(f"requests for {front.model!r} at the gateway are left out: no target serves it")
        elif len(regions) > 1:
            notes.append(f"the gateway's counts of {front.model} are not used: they do not say which of {', '.join(regions)}")
        else:
            found.append(PlacedFront(regions[0], mine[0].model, _tier(scenario, front, notes), front))
    return tuple(found)


def _tier(scenario: Scenario, front: FrontHistory, notes: list[str]) -> str:
    """Which of the scenario's tiers a gateway's label stands for."""
    if front.tier in scenario.tiers:
        return front.tier
    known = {str(one.priority): tier for tier, one in (scenario.live.tiers if scenario.live is not None else {}).items()}
    if front.tier in known:
        return known[front.tier]
    if len(scenario.tiers) == 1:
        return next(iter(scenario.tiers))
    if front.tier:
        notes.append(f"{front.model}: no tier has priority {front.tier} (live.tiers); its requests are drawn as any")
    return UNKNOWN
