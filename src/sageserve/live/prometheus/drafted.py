"""A first scenario of a fleet that is there: what a Prometheus server shows of it, as a draft whose guesses are marked.

    draft, notes = drafted(discover(server, now), DraftOptions("fleet", server.url, "h100-80gb"))

Pools of one model on one GPU type in one region are one; a region is what the label `cluster` says. Writes nothing. Read next:
`discover.py`; `data/scenarios/draft.py`, which makes the text.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sageserve.base.urls import shown_url
from sageserve.data.profiles.match import match_profile
from sageserve.data.profiles.naming import known_gpu
from sageserve.data.scenarios.draft import WATCHED, Draft, DraftModel, DraftPool, ModelTraffic, scenario_name
from sageserve.live.prometheus.discover import Discovery, FoundPool, FoundScaler

HERE: Final = "region-1"
CONTEXT: Final = 8192  # tokens, at least
ALL: Final = "chat"
"""The tier of requests whose class nobody counts."""
_DEPLOYMENT: Final = "Deployment"
_PRIORITY: Final = re.compile(r"-?\d{1,9}")


@dataclass(frozen=True, slots=True)
class DraftOptions:
    """What nobody records.

    Args:
        name: of the scenario.
        url: of the server.
        gpu: type of instances of which none is recorded.
        region: of instances whose cluster has no name.
    """

    name: str
    url: str
    gpu: str
    region: str = HERE


def drafted(found: Discovery, options: DraftOptions) -> tuple[Draft, tuple[str, ...]]:
    """The draft, and what had to be taken for granted, in sentences.

    Raises:
        ConfigError: no known model fits on such GPUs.
    """
    notes = list(found.notes)
    groups: dict[tuple[str, str, str], list[FoundPool]] = {}
    for pool in found.pools:
        region = scenario_name(pool.cluster) if pool.cluster else options.region
        groups.setdefault((region, pool.model, _gpu(pool, options, notes)), []).append(pool)
    models = tuple(_models(groups))
    pools = tuple(_pool(key, mine, found.scalers, notes) for key, mine in groups.items())
    places = {(one.region, one.model) for one in pools}
    regions = tuple(dict.fromkeys(one.region for one in pools))
    if len(places) < len(regions) * len(models):
        notes.append(
            "not every model is in every region: `sageserve backtest` then wants a scenario by region, without what is elsewhere"
        )
    tiers, priorities = _tiers(found)
    at = shown_url(options.url)
    if at != options.url:
        basic = f"live.clusters.{WATCHED}.prometheus.basic"
        notes.append(f"the user and the password of the URL are not written down; write {basic}: {{user: …, password_file: …}}")
    draft = Draft(
        options.name,
        f"what {at} records",
        models,
        regions,
        tiers,
        url=at,
        pools=pools,
        priorities=priorities,
    )
    return draft, tuple(dict.fromkeys(notes))


def _gpu(pool: FoundPool, options: DraftOptions, notes: list[str]) -> str:
    known = known_gpu(pool.gpu) if pool.gpu else None
    if known is None:
        said = f"runs on {pool.gpu!r}, of which no rates are known" if pool.gpu else "does not say what it runs on"
        notes.append(f"{_who(pool)} {said}; {options.gpu} is taken (--gpu)")
    return known or options.gpu


def _who(pool: FoundPool) -> str:
    return "/".join(word for word in (pool.cluster, pool.namespace, pool.workload, pool.model) if word)


def _models(groups: dict[tuple[str, str, str], list[FoundPool]]) -> Iterable[DraftModel]:
    """Each model with a profile on every GPU type it runs on; the type of most instances first."""
    for model in dict.fromkeys(name for _, name, _ in groups):
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for (_, name, gpu), mine in groups.items():
            if name == model:
                counts[gpu] = counts.get(gpu, 0) + sum(one.instances for one in mine)
                sizes[gpu] = max(sizes.get(gpu, 0), *(one.gpus for one in mine))
        order = sorted(counts, key=lambda gpu: -counts[gpu])
        matches = {gpu: match_profile(model, gpu, CONTEXT, sizes[gpu]) for gpu in order}
        yield DraftModel(
            scenario_name(model),
            {gpu: match.profile for gpu, match in matches.items()},
            matches[order[0]].candidates,
            min(match.context for match in matches.values()),
            ModelTraffic(share=1.0),
        )


def _pool(key: tuple[str, str, str], mine: Sequence[FoundPool], scalers: Sequence[FoundScaler], notes: list[str]) -> DraftPool:
    region, model, gpu = key
    largest = max(mine, key=lambda one: one.instances)
    if len(mine) > 1:
        notes.append(f"{', '.join(_who(one) for one in mine)} are one pool, {'/'.join(key)}: its target names the largest")
    bounds = [one for pool in mine for one in scalers if (one.namespace, one.workload) == (pool.namespace, pool.workload)]
    said = len(bounds) == len(mine)
    return DraftPool(
        region,
        scenario_name(model),
        gpu,
        instances=sum(one.instances for one in mine),
        low=sum(one.low for one in bounds) if said else 0,
        high=max(sum(one.high for one in bounds), 1) if said else 0,
        kind=_DEPLOYMENT,
        name=f"{_object(largest.namespace or 'default')}/{_object(largest.workload or model)}",
        sure=False,
        series=_series([one.series for one in mine]),
    )


def _object(name: str) -> str:
    """A name as Kubernetes writes them."""
    return scenario_name(name).lower().replace("_", "-").replace("/", "-").strip("-.") or "unnamed"


def _series(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Labels that tell the series of several pools, of those that all of them have."""
    found = {}
    for label in each[0]:
        values = dict.fromkeys(one[label] for one in each if label in one)
        if len(values) == 1 and all(label in one for one in each):
            found[label] = next(iter(values))
        elif all(label in one for one in each):
            found[label] = (
                f"=~{'|'.join(value.removeprefix('=~') if value.startswith('=~') else re.escape(value) for value in values)}"
            )
    return found


def _tiers(found: Discovery) -> tuple[tuple[str, ...], dict[str, int]]:
    """Service classes that gateways count, and the priorities that stand for them; one where nobody counts any."""
    said = next((values for values in found.fronts.values() if values), ())
    if not all(_PRIORITY.fullmatch(value) for value in said):
        return tuple(dict.fromkeys(scenario_name(value) for value in said)), {}
    order = sorted((int(value) for value in said), reverse=True)
    names = {f"priority-{number}" if number >= 0 else f"batch-{-number}": number for number in order}  # below 0 may be shed
    return tuple(names) or (ALL,), names
