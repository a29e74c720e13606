"""Clusters and targets of the live settings: names that resolve, and counts that fit the budget and the stock.

Knows the settings tree only; what is really there, `sageserve doctor` looks up. Read next:
`data/scenarios/checks.py`, which calls this.
"""

from collections.abc import Iterator, Sequence

from sageserve.base.config import ModelSettings, ProfileSettings, Scenario
from sageserve.base.config.clusters import KNOWS_PODS, RAY, TargetSettings
from sageserve.base.units import show_money
from sageserve.data.documents import suggest
from sageserve.data.scenarios.problem import SettingProblem, unknown
from sageserve.data.yaml_positions import Keys


def cluster_names(scenario: Scenario) -> Iterator[SettingProblem]:
    """Clusters, pools, tiers and GPU types that targets name and nobody defines."""
    live = scenario.live
    if live is None:
        return
    yield from _agents(scenario)
    yield from _shares(scenario)
    yield from _gates(scenario)
    for name, target in live.targets.items():
        keys: Keys = ("live", "targets", name)
        yield from unknown((*keys, "cluster"), "cluster", [target.cluster], live.clusters)
        yield from _pool(scenario, target, keys)
        for label, value in target.series.items():
            if not label.replace("_", "a").isalnum() or label[0].isdigit():
                yield SettingProblem((*keys, "series"), f"{label!r} is not the name of a label", arithmetic=False)
            elif value.startswith("=~") and len(value) == 2:
                yield SettingProblem((*keys, "series", label), "=~ needs a regular expression", arithmetic=False)
    yield from unknown(("live", "tiers"), "tier", live.tiers, scenario.tiers)
    if live.safety.freeze:
        yield from _freeze(live.safety.freeze)
    yield from unknown(("live", "safety", "budget", "gpus"), "stock", live.safety.budget.gpus, stocks(scenario))


def _agents(scenario: Scenario) -> Iterator[SettingProblem]:
    """Clusters of agents of which something is asked that only credentials give."""
    assert scenario.live is not None
    followed = {one.cluster for one in scenario.live.services}
    for name, one in scenario.live.clusters.items():
        keys: Keys = ("live", "clusters", name)
        if one.agent is None:
            continue
        for key, given in (("context", one.context is not None), ("ray", one.ray is not None), ("pods", one.pods)):
            if given:
                said = f"an agent acts on cluster {name!r}, and nobody here asks its API server"
                yield SettingProblem((*keys, key), said, arithmetic=False, hint=f"leave {key} out, or agent")
        if name in followed:
            said = f"live.services follows engines of cluster {name!r}, whose API server only its agent asks"
            yield SettingProblem((*keys, "agent"), said, arithmetic=False, hint="give the cluster that has services a context")
        if one.agent.bearer_file is not None and any(
            (url or "").startswith("http:") for url in (one.agent.plans, one.agent.report)
        ):
            yield SettingProblem(
                (*keys, "agent", "bearer_file"), "a token is not sent in the clear", arithmetic=False, hint="https://…"
            )


def _shares(scenario: Scenario) -> Iterator[SettingProblem]:
    """Names of objects with shares that nobody defines, and clusters that have no place for a lease."""
    live = scenario.live
    assert live is not None
    for name, one in live.shares.items():
        keys: Keys = ("live", "shares", name)
        yield from unknown((*keys, "cluster"), "cluster", [one.cluster], live.clusters)
        yield from unknown((*keys, "model"), "model", [one.model], scenario.models)
        yield from unknown((*keys, "origin"), "region", [] if one.origin is None else [one.origin], scenario.regions)
        yield from unknown((*keys, "tier"), "tier", [] if one.tier is None else [one.tier], scenario.tiers)
        yield from unknown((*keys, "backends"), "region", one.backends, scenario.regions)
        for region in one.backends:
            there_too = [target.cluster for target in live.targets.values() if target.pool.startswith(f"{region}/{one.model}/")]
            known = [live.clusters[cluster] for cluster in there_too if cluster in live.clusters]
            if all(cluster.agent is not None and cluster.prometheus is None for cluster in known):
                said = f"nobody here sees {one.model} in {region}, so that its share is not known"
                hint = f"write a target of a pool {region}/{one.model}/GPU, in a cluster whose Prometheus is reached from here"
                yield SettingProblem((*keys, "backends", region), said, arithmetic=False, hint=hint)
        if name in live.targets:
            yield SettingProblem(keys, "a target has that name already: orders go by it", arithmetic=False)
        there = live.clusters.get(one.cluster)
        if there is not None and (there.ray is not None or there.agent is not None):
            said = f"cluster {one.cluster!r} is a Ray cluster" if there.ray is not None else f"an agent acts on {one.cluster!r}"
            yield SettingProblem(
                (*keys, "cluster"), f"{said}, and nobody here writes objects of Kubernetes there", arithmetic=False
            )
        elif there is not None and all(target.cluster != one.cluster for target in live.targets.values()):
            said = f"cluster {one.cluster!r} has no target, beside which the lease and orders are kept"
            yield SettingProblem(
                (*keys, "cluster"), said, arithmetic=False, hint="write a target of it; authority: observe will do"
            )


def _gates(scenario: Scenario) -> Iterator[SettingProblem]:
    """Gates of engines that nobody defines, and two that would be told of the same room, or by the same key."""
    assert scenario.live is not None
    seen: dict[tuple[str, ...], str] = {}
    for name, one in scenario.live.gates.items():
        keys: Keys = ("live", "gates", name)
        yield from unknown((*keys, "region"), "region", [one.region], scenario.regions)
        yield from unknown((*keys, "model"), "model", [one.model], scenario.models)
        defined = one.region in scenario.regions and one.model in scenario.models
        if defined and not any(pool.startswith(f"{one.region}/{one.model}/") for pool in pools(scenario)):
            yield SettingProblem((*keys, "model"), f"{one.region} has no pool of {one.model}", arithmetic=False)
        for key, place, said in (
            ("model", ("engines", one.region, one.model), f"engines of {one.model} in {one.region} have one gate, {{}} already"),
            ("control_key", ("key", one.redis, one.control_key), "{} has that key already"),
        ):
            if (other := seen.setdefault(place, name)) != name:
                yield SettingProblem((*keys, key), said.format(other), arithmetic=False)


def service_problems(scenario: Scenario) -> Iterator[SettingProblem]:
    """Clusters, regions, models and GPU types of services that nobody defines, and two that would be told of the same engines."""
    live = scenario.live
    seen: dict[str, int] = {}
    for number, one in enumerate(() if live is None else live.services):
        assert live is not None
        keys: Keys = ("live", "services", number)
        yield from unknown((*keys, "cluster"), "cluster", [one.cluster], live.clusters)
        yield from unknown((*keys, "region"), "region", [one.region], scenario.regions)
        yield from unknown((*keys, "model"), "model", [one.model], scenario.models)
        if one.cluster in live.clusters and live.clusters[one.cluster].ray is not None:
            yield SettingProblem((*keys, "cluster"), f"cluster {one.cluster!r} is a Ray cluster, which has no Services")
        there = [pool for pool in pools(scenario) if pool.startswith(f"{one.region}/{one.model}/")]
        if one.gpu is not None and there and f"{one.region}/{one.model}/{one.gpu}" not in there:
            said = f"no pool of {one.model} in {one.region} has {one.gpu}; there are {', '.join(there)}"
            yield SettingProblem((*keys, "gpu"), said)
        if one.name in seen:
            yield SettingProblem(keys, f"{one.name} is services[{seen[one.name]}] already")
        seen.setdefault(one.name, number)


def _freeze(windows: Sequence[str]) -> Iterator[SettingProblem]:
    from sageserve.data.watched.freeze_windows import freeze_windows  # noqa: PLC0415 # time zones: a gateway has none

    try:
        freeze_windows(windows)
    except ValueError as error:
        yield SettingProblem(("live", "safety", "freeze"), str(error), arithmetic=False)


def pool_names(scenario: Scenario) -> Iterator[SettingProblem]:
    """Pools that counts are given of, and that cannot be."""
    known = pools(scenario)
    yield from unknown(("fleet", "starts"), "pool", scenario.fleet.starts, known)
    yield from unknown(("strategy", "recorded", "counts"), "pool", scenario.strategy.recorded.counts, known)


def stocks(scenario: Scenario) -> list[str]:
    """Every `region/gpu` that a scenario has."""
    return [f"{region}/{gpu}" for region, settings in scenario.regions.items() for gpu in settings.gpus]


def pools(scenario: Scenario) -> list[str]:
    """Every `region/model/gpu` that a scenario can have; with `/prefill` or `/decode` where these are apart."""
    return [
        f"{region}/{model}/{gpu}{role}"
        for region, settings in scenario.regions.items()
        for model, served in scenario.models.items()
        for role, engines in _uses(served).items()
        for gpu in engines
        if gpu in settings.gpus and ((some := scenario.fleet.gpus_at(region, model)) is None or gpu in some)
    ]


def _uses(served: ModelSettings) -> dict[str, dict[str, ProfileSettings]]:
    if served.disaggregated is None:
        return {"": served.engines}
    return {"/prefill": served.engines, "/decode": served.decode_engines}


def _pool(scenario: Scenario, target: TargetSettings, keys: Keys) -> Iterator[SettingProblem]:
    known = [pool for pool in pools(scenario) if not pool.endswith(("/prefill", "/decode"))]
    if target.pool not in known:
        text = f"pool {target.pool!r} is not defined{suggest(target.pool, known)}"
        hint = "a pool is region/model/gpu: the region has that GPU type, and the model an engine on it"
        yield SettingProblem((*keys, "pool"), text, arithmetic=False, hint=hint)


def gpus_of(scenario: Scenario, target: TargetSettings) -> int:
    """GPUs of one instance of a target."""
    _, model, gpu = _parts(target.pool)
    return target.gpus or scenario.models[model].engines[gpu].gpus


def _parts(pool: str) -> tuple[str, str, str]:
    region, rest = pool.split("/", 1)
    model, gpu = rest.rsplit("/", 1)
    return region, model, gpu


def target_arithmetic(scenario: Scenario) -> Iterator[SettingProblem]:
    """Bounds the wrong way round, two targets on one object, minima beyond budget or stock, tiers with nowhere to go."""
    live = scenario.live
    if live is None or not live.targets:
        if live is not None and live.scaler is not None:
            yield SettingProblem(
                ("live", "scaler"), "nothing to answer about", hint="write live.targets: which object is which pool"
            )
        return
    if live.scaler is not None and not any(one.keda for one in live.targets.values()):
        yield SettingProblem(
            ("live", "scaler"),
            "every target would only be told its own minimum",
            hint="write `keda: true` at targets KEDA asks for",
        )
    seen: dict[tuple[str, str, str], str] = {}
    for name, target in live.targets.items():
        keys: Keys = ("live", "targets", name)
        if target.min > target.max:
            yield SettingProblem((*keys, "min"), f"min {target.min} > max {target.max} instances")
        if target.kind == "HorizontalPodAutoscaler" and target.authority == "full":
            yield SettingProblem(
                (*keys, "authority"), "an HPA has bounds and no replicas: `full` needs the object that it scales"
            )
        here = live.clusters.get(target.cluster)
        if here is not None and (here.ray is not None) is not (target.kind == RAY):
            said = "is a Ray cluster, which has no" if here.ray is not None else "is no Ray cluster (`ray`), so that it has no"
            yield SettingProblem((*keys, "kind"), f"cluster {target.cluster!r} {said} {target.kind}", arithmetic=False)
        if target.kind == RAY and target.authority == "full" and target.min < 1:
            yield SettingProblem((*keys, "min"), "Ray Serve runs one replica at least: write `min: 1` or more")
        if here is not None and here.pods:
            yield from _pods_of(target, keys)
        place = target.cluster, target.kind, target.name
        if place in seen:
            yield SettingProblem((*keys, "name"), f"{target.kind} {target.name} is already target {seen[place]!r}")
        seen.setdefault(place, name)
    yield from _budget(scenario)
    yield from _tiers(scenario)


def _pods_of(target: TargetSettings, keys: Keys) -> Iterator[SettingProblem]:
    """Whether it can be said which pods a target has."""
    if target.kind == RAY:
        yield SettingProblem(keys, f"cluster {target.cluster!r} follows pods, and a {RAY} has none", arithmetic=False)
    elif not target.selector and target.kind not in KNOWS_PODS:
        said = f"which pods a {target.kind} has is not known, and cluster {target.cluster!r} follows them"
        yield SettingProblem((*keys, "selector"), said, arithmetic=False, hint="write selector: {LABEL: VALUE}, as its pods have")


def _budget(scenario: Scenario) -> Iterator[SettingProblem]:
    assert scenario.live is not None
    needs: dict[str, list[str]] = {}
    total: dict[str, int] = {}
    cost, costs = 0.0, []
    for name, target in scenario.live.targets.items():
        region, _, gpu = _parts(target.pool)
        each = gpus_of(scenario, target)
        stock = f"{region}/{gpu}"
        needs.setdefault(stock, []).append(f"{name} {target.min} x {each}")
        total[stock] = total.get(stock, 0) + target.min * each
        prices = scenario.regions[region].gpus[gpu].price
        price = prices.of_gpu(prices.on_demand, scenario.gpus[gpu].per_vm) * each
        cost += target.min * price
        costs.append(f"{name} {target.min} x {show_money(price, scenario.currency)}/h")
    budget = scenario.live.safety.budget
    for stock, parts in needs.items():
        region, gpu = stock.rsplit("/", 1)
        have = min(budget.gpus.get(stock, 1 << 62), scenario.regions[region].gpus[gpu].gpus)
        if total[stock] > have:
            text = f"the minima of targets need {' + '.join(parts)} = {total[stock]} > {have} GPUs of {stock}"
            yield SettingProblem(("live", "targets"), text, hint="lower `min` of a target, or raise the budget and the stock")
    if budget.per_hour is not None and cost > budget.per_hour:
        least, most = (show_money(one, scenario.currency) for one in (cost, budget.per_hour))
        text = f"the minima of targets cost {' + '.join(costs)} = {least}/h > {most}/h"
        yield SettingProblem(("live", "safety", "budget", "per_hour"), text)


def _tiers(scenario: Scenario) -> Iterator[SettingProblem]:
    """A tier whose requests enter a region that has no target for their model, and may not leave it."""
    assert scenario.live is not None
    served = {tuple(_parts(target.pool)[:2]) for target in scenario.live.targets.values()}
    for name, tier in scenario.tiers.items():
        if tier.regions == "any":
            continue
        for model in {model for _, model in served}:
            missing = [g for g in scenario.regions if not any((one, model) in served for one in scenario.serving(name, g))]
            if missing:
                text = f"may not leave its origin, but no target serves {model} in {', '.join(missing)}"
                if isinstance(tier.regions, tuple):
                    text = f"may be served in {', '.join(tier.regions)} alone, but no target serves {model} there"
                yield SettingProblem(("tiers", name, "regions"), text, hint="write `regions: any`, or add a target there")
