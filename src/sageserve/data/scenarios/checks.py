"""Can these settings work together? Names that are not defined, and arithmetic that does not come out.

Every check is a function from a scenario to the problems it finds; each problem says which numbers meet. Whatever is
found here would otherwise show as a fleet that never serves, hours into a run.
Knows the settings tree only: no file, no trace. Read next: `load.py`, which adds the places; `checking/clusters.py` for clusters.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Literal, TypeAlias

from sageserve.base.config import FleetSettings, ModelSettings, ProfileSettings, Scenario, TierSettings
from sageserve.base.units import Micros, show_duration, show_size
from sageserve.core.engine.timing import first_time, gain, iteration_time, row_of
from sageserve.data.documents import suggest
from sageserve.data.scenarios.checking.apart import apart_names, apart_settings
from sageserve.data.scenarios.checking.clusters import cluster_names, pool_names, service_problems, target_arithmetic
from sageserve.data.scenarios.problem import SettingProblem, unknown
from sageserve.data.yaml_positions import Keys


def problems(scenario: Scenario) -> list[SettingProblem]:
    """Everything that keeps a scenario from working, undefined names first; empty when it can work."""
    names = [*_unknown_names(scenario), *_endpoint_names(scenario), *_round_trips(scenario)]
    names += [*pool_names(scenario), *cluster_names(scenario), *service_problems(scenario), *apart_names(scenario)]
    if names:  # the arithmetic needs every name
        return names
    single = (_promises, _sizes, _shares, _weights)
    checks = (*single, _engines, _placement, _stock, apart_settings, _reach, _energy, target_arithmetic)
    return [problem for check in checks for problem in check(scenario)]


def remarks(scenario: Scenario) -> list[str]:
    """What works, and yet may say little: engines not known, profiles of another engine or version, settings nobody asks for."""
    found = [*_never_idle(scenario), *_all_wait(scenario)]
    for name, model in scenario.models.items():
        if not model.engine:
            continue
        from sageserve.data.profiles.engines import other_engine, unknown_engine  # noqa: PLC0415 # two megabytes of a gateway

        if text := unknown_engine(model.engine):
            found.append(f"models.{name}.engine: {text}")
        profiles = {gpu: other_engine(engine.engine, model.engine) for gpu, engine in model.engines.items()}
        found += [f"models.{name}.engines.{gpu}: the profile {text}" for gpu, text in profiles.items() if text]
    return found


def _never_idle(scenario: Scenario) -> Iterator[str]:
    ends = [scenario.at(region, model).fleet.minimum for region in scenario.regions for model in scenario.models]
    if "idle" in scenario.fleet.model_fields_set and ends and min(ends) > 0:
        yield "fleet.idle: no endpoint has a minimum of 0, so that none is ever left without instances"


def _all_wait(scenario: Scenario) -> Iterator[str]:
    if scenario.tenants and not scenario.admission.act:
        yield "tenants: with admission off nobody is turned away, so that they share the batch queue alone"


# ------------------------------------------------------------------------------------------------ names


def _unknown_names(scenario: Scenario) -> Iterator[SettingProblem]:
    regions, models, tiers, gpus = scenario.regions, scenario.models, scenario.tiers, scenario.gpus
    for region, settings in regions.items():
        yield from unknown(("regions", region, "gpus"), "GPU type", settings.gpus, gpus)
        yield from unknown(("regions", region, "rtt"), "region", settings.rtt, regions)
    for model, served in models.items():
        yield from unknown(("models", model, "engines"), "GPU type", served.engines, gpus)
        for gpu, engine in served.engines.items():
            if engine.gpu != gpu:
                text = f"the profile is for {engine.gpu!r}, it cannot say how fast {gpu!r} is"
                yield SettingProblem(("models", model, "engines", gpu), text, arithmetic=False)
    for name, tier in tiers.items():
        yield from _known_regions(name, tier, regions)
    yield from unknown(("fleet", "gpu"), "GPU type", [scenario.fleet.gpu] if scenario.fleet.gpu else [], gpus)
    for i, outage in enumerate(scenario.faults.outages):
        yield from unknown(("faults", "outages", i, "region"), "region", [outage.region], regions)
    for i, rollout in enumerate(scenario.rollouts):
        yield from unknown(("rollouts", i, "model"), "model", [rollout.model], models)
    assign, generate = scenario.workload.assign, scenario.workload.generate
    at: Keys = ("workload", "assign")
    yield from unknown((*at, "model"), "model", assign.model, models)
    yield from unknown((*at, "tier"), "tier", assign.tier, tiers)
    yield from unknown((*at, "region"), "region", assign.region, regions)
    at = ("workload", "generate")
    yield from unknown((*at, "tiers"), "tier", generate.tiers, tiers)
    yield from unknown((*at, "regions"), "region", generate.regions, regions)
    yield from unknown((*at, "shift"), "region", generate.shift, regions)
    yield from unknown((*at, "shapes"), "model", generate.shapes, models)
    for i, burst in enumerate(generate.bursts):
        yield from unknown((*at, "bursts", i, "models"), "model", burst.models, models)
        yield from unknown((*at, "bursts", i, "tiers"), "tier", burst.tiers, tiers)


def _known_regions(name: str, tier: TierSettings, regions: Mapping[str, object]) -> Iterator[SettingProblem]:
    """Regions of a tier's list that there are none of."""
    listed = tier.regions if isinstance(tier.regions, tuple) else ()
    for i, region in enumerate(listed):
        if region not in regions:
            text = f"region {region!r} is not defined{suggest(region, tuple(regions))}"
            yield SettingProblem(("tiers", name, "regions", i), text, arithmetic=False, hint=f"regions: {', '.join(regions)}")


def _round_trips(scenario: Scenario) -> Iterator[SettingProblem]:
    for one, other in combinations(scenario.regions, 2):
        if other not in scenario.regions[one].rtt and one not in scenario.regions[other].rtt:
            text = f"no round-trip time between {one!r} and {other!r}; write `rtt: {{{other}: 32ms}}` under {one!r}"
            yield SettingProblem(("regions", one, "rtt"), text, arithmetic=False)


# ------------------------------------------------------------------------------------------------ single settings that contradict


def _promises(scenario: Scenario) -> Iterator[SettingProblem]:
    for name, tier in scenario.tiers.items():
        match tier.ttft, tier.deadline:
            case None, None:
                yield SettingProblem(("tiers", name), "promises nothing: give `ttft: 1s` or `deadline: 24h`")
            case int(), int():
                yield SettingProblem(("tiers", name), "promises both `ttft` and `deadline`: keep the one that it is judged by")
            case _:
                pass
        if tier.ttft is None and tier.growth:
            text = "adds to `ttft`, which is not promised: give that too, or leave this out"
            yield SettingProblem(("tiers", name, "ttft_per_1k_tokens"), text)


def _sizes(scenario: Scenario) -> Iterator[SettingProblem]:
    yield from _fleet_sizes(scenario)
    rules = {"reactive": scenario.strategy.reactive, "siloed": scenario.strategy.siloed}
    for name, rule in rules.items():
        if rule.low >= rule.high:
            text = f"low {rule.low:g} is not below high {rule.high:g}: every look would add and remove"
            yield SettingProblem(("strategy", name, "low"), text)
    if scenario.batch.two_below > scenario.batch.one_below:
        text = f"two jobs below {scenario.batch.two_below:g}, but one below {scenario.batch.one_below:g}: bands inverted"
        yield SettingProblem(("batch", "two_below"), text)
    for name, tier in scenario.tiers.items():
        if tier.batch and tier.regions != "any" and scenario.batch.feed != "direct":
            where = "may not leave the region it enters" if tier.regions == "origin" else f"only {', '.join(tier.regions)}"
            text = f"the batch queue of a model serves all regions, but {name} {where}"
            yield SettingProblem(("tiers", name, "regions"), text, hint="write `batch.feed: direct`, or `regions: any`")
    for region, settings in scenario.regions.items():
        for gpu, stock in settings.gpus.items():
            if stock.reserved > stock.gpus:
                keys: Keys = ("regions", region, "gpus", gpu, "reserved")
                yield SettingProblem(keys, f"reserved {stock.reserved} > stock {stock.gpus} GPUs")


def _weights(scenario: Scenario) -> Iterator[SettingProblem]:
    for i, key in enumerate(scenario.live.keys if scenario.live is not None else ()):
        tenant = scenario.tenants.get(key.name)
        if tenant is not None and key.weight not in {None, tenant.weight}:
            text = f"{key.weight:g}, and tenants.{key.name}.weight is {tenant.weight:g}: keep one, both worlds share by it"
            yield SettingProblem(("live", "keys", i, "weight"), text)


def _shares(scenario: Scenario) -> Iterator[SettingProblem]:
    assign, generate = scenario.workload.assign, scenario.workload.generate
    groups = {
        ("workload", "assign", "model"): assign.model,
        ("workload", "assign", "tier"): assign.tier,
        ("workload", "assign", "region"): assign.region,
        ("workload", "generate", "tiers"): generate.tiers,
        ("workload", "generate", "regions"): generate.regions,
    }
    for keys, shares in groups.items():
        if any(value < 0 for value in shares.values()):
            yield SettingProblem(keys, "a share is negative")
        elif shares and not any(shares.values()):
            yield SettingProblem(keys, f"all shares are 0: nothing is drawn from {', '.join(shares)}")


# ------------------------------------------------------------------------------------------------ numbers of endpoints


_Number: TypeAlias = Literal["start", "minimum", "maximum"]


def _endpoint_names(scenario: Scenario) -> Iterator[SettingProblem]:
    """Patterns that no endpoint fits, and GPU types that are not there or that an endpoint could not use."""
    ends = [f"{region}/{model}" for region in scenario.regions for model in scenario.models]
    fitted = {p for region in scenario.regions for model in scenario.models for p in scenario.fleet.fitting(region, model)}
    for pattern, one in (scenario.fleet.endpoints or {}).items():
        keys: Keys = ("fleet", "endpoints", pattern)
        if pattern not in fitted:
            hint = f"a pattern is of region/model: {', '.join(ends[:4])}{', ...' if len(ends) > 4 else ''}"
            text = f"no endpoint fits {pattern!r}{suggest(pattern, ends)}"
            yield SettingProblem(keys, text, arithmetic=False, hint=hint)
        yield from unknown((*keys, "gpus"), "GPU type", one.gpus or (), scenario.gpus)


def _fleet_sizes(scenario: Scenario) -> Iterator[SettingProblem]:
    """Numbers that contradict each other, each contradiction once, and endpoints that may use no GPU they could use."""
    told: set[tuple[Keys, str]] = set()
    for region in scenario.regions:
        for model in scenario.models:
            for problem in _endpoint_sizes(scenario, region, model):
                if (problem.keys, problem.text) not in told:
                    told.add((problem.keys, problem.text))
                    yield problem


def _endpoint_sizes(scenario: Scenario, region: str, model: str) -> Iterator[SettingProblem]:
    fleet = scenario.fleet.at(region, model)
    pairs: tuple[tuple[_Number, str, _Number, bool], ...] = (
        ("minimum", ">", "maximum", fleet.minimum > fleet.maximum),
        ("start", ">", "maximum", fleet.start > fleet.maximum),
        ("start", "<", "minimum", fleet.start < fleet.minimum),
    )
    for one, sign, other, wrong in pairs:
        if wrong:
            places = _said(scenario, region, model, one), _said(scenario, region, model, other)
            where = max(places, key=len)  # a pattern's, if any
            text = f"{one} {getattr(fleet, one)} {sign} {other} {getattr(fleet, other)} instances"
            yield SettingProblem(where, f"{text} of {region}/{model}" if len(where) > 2 else text)
    pattern = scenario.fleet.said(region, model, "gpus")
    if pattern is not None and scenario.fleet.gpus_at(region, model) and not scenario.gpus_at(model, region):
        keys = ("fleet", "endpoints", pattern, "gpus")
        yield SettingProblem(keys, f"{model} runs on none of them in {region}: name one it has an engine for, or [] for none")


def _said(scenario: Scenario, region: str, model: str, key: _Number) -> Keys:
    """Where a number of an endpoint was said."""
    pattern = scenario.fleet.said(region, model, key)
    return ("fleet", key) if pattern is None else ("fleet", "endpoints", pattern, key)


# ------------------------------------------------------------------------------------------------ memory and stock


def _engines(scenario: Scenario) -> Iterator[SettingProblem]:
    for name, model in scenario.models.items():
        if model.engine and _names_none(model.engine):
            text = f"{model.engine!r} names no engine"
            yield SettingProblem(("models", name, "engine"), text, arithmetic=False, hint="write name and version: vllm 0.19")
        for gpu, engine in model.engines.items():
            keys: Keys = ("models", name, "engines", gpu)
            yield from (SettingProblem(keys, text) for text in _engine(model, engine, scenario, gpu))
        for gpu, engine in (model.disaggregated.decode if model.disaggregated else {}).items():
            keys = ("models", name, "disaggregated", "decode", gpu)
            yield from (SettingProblem(keys, text) for text in _engine(model, engine, scenario, gpu))


def _names_none(engine: str) -> bool:
    from sageserve.data.profiles.engines import engine_named  # noqa: PLC0415 # as above

    return engine_named(engine) is None


def _engine(model: ModelSettings, engine: ProfileSettings, scenario: Scenario, gpu: str) -> Iterator[str]:
    per_vm, memory = scenario.gpus[gpu].per_vm, scenario.gpus[gpu].memory
    if engine.kv_tokens < model.context:
        yield f"kv_tokens {engine.kv_tokens} < context {model.context}: one full-length request does not fit the KV cache"
    if engine.tp * engine.dp > engine.gpus:
        ranks = f"{engine.dp} ranks of " if engine.dp > 1 else ""
        yield f"{ranks}tp {engine.tp} > {engine.gpus} GPUs of an instance"
    if engine.ep > engine.gpus:
        yield f"ep {engine.ep} > {engine.gpus} GPUs of an instance"
    if engine.gpus > per_vm:
        yield f"an instance needs {engine.gpus} GPUs, a VM of {gpu} has {per_vm}"
    if engine.weights is not None:
        tokens = engine.dp * engine.kv_tokens
        kv = tokens * (engine.kv_per_token or 0)
        if (need := engine.weights + kv) > (have := engine.gpus * memory):
            yield (
                f"{show_size(engine.weights)} of weights + {tokens} KV tokens x {engine.kv_per_token or 0} B"
                f" = {_gib(need)} > {engine.gpus} GPUs x {show_size(memory)} = {_gib(have)}"
            )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}GiB"


def _placement(scenario: Scenario) -> Iterator[SettingProblem]:
    for name, model in scenario.models.items():
        if scenario.places(name):
            continue
        if scenario.model_copy(update={"fleet": FleetSettings(gpu=scenario.fleet.gpu)}).places(name):
            yield SettingProblem(("fleet", "endpoints"), f"{name} is placed in no region: give one of them GPU types for it")
            continue
        held = "; ".join(f"{region} has {_holds(scenario, region)}" for region in scenario.regions)
        needs = " or ".join(f"{engine.gpus} {gpu}" for gpu, engine in model.engines.items())
        yield SettingProblem(("models", name, "engines"), f"no region can run it: an instance needs {needs}; {held}")


def _holds(scenario: Scenario, region: str) -> str:
    stock = scenario.regions[region].gpus
    return ", ".join(f"{settings.gpus} {gpu}" for gpu, settings in stock.items()) or "no GPUs"


def _stock(scenario: Scenario) -> Iterator[SettingProblem]:
    for region, settings in scenario.regions.items():
        needs: dict[str, list[str]] = {}
        total: dict[str, int] = {}
        for name, model in scenario.models.items():
            for engines, decode in ((model.engines, False), (model.decode_engines, True)):
                if gpu := next(iter(scenario.gpus_at(name, region, decode=decode)), None):
                    start, each = scenario.at(region, name).fleet.start, engines[gpu].gpus
                    needs.setdefault(gpu, []).append(f"{name}{' (decode)' if decode else ''} {start} x {each}")
                    total[gpu] = total.get(gpu, 0) + start * each
        for gpu, parts in needs.items():
            if total[gpu] > (have := settings.gpus[gpu].gpus):
                text = f"the first instances need {' + '.join(parts)} = {total[gpu]} > {have} GPUs in stock"
                where = "fleet.start" if scenario.fleet.endpoints is None else "start in fleet or fleet.endpoints"
                hint = f"lower {where}, or raise the stock of the region"
                yield SettingProblem(("regions", region, "gpus", gpu, "gpus"), text, hint=hint)


def _energy(scenario: Scenario) -> Iterator[SettingProblem]:
    """Power and carbon are given for all of the fleet or for none of it: sums over a part would be taken for the whole."""
    held = {gpu for region in scenario.regions.values() for gpu in region.gpus}
    known = {gpu for gpu in held if scenario.gpus[gpu].power is not None}
    for gpu in sorted(held - known) if known else ():
        text = f"no `power`, which {', '.join(sorted(known))} has: give that of every GPU type that a region holds, or of none"
        yield SettingProblem(("gpus", gpu), text, arithmetic=False)
    for gpu, settings in scenario.gpus.items():
        if settings.power is not None and settings.power.busy < settings.power.idle:
            text = f"busy {settings.power.busy:g} W < idle {settings.power.idle:g} W"
            yield SettingProblem(("gpus", gpu, "power"), text)
    told = [name for name, region in scenario.regions.items() if region.carbon is not None]
    if told and not known:
        text = "carbon without energy: give `power: {idle: 70, busy: 700}` of the GPU types too"
        yield SettingProblem(("regions", told[0], "carbon"), text, arithmetic=False)
    if scenario.carbon_price and not told:
        text = "a price of CO2 that nobody counts: give `carbon` of every region, and `power` of the GPU types"
        yield SettingProblem(("carbon_price",), text, arithmetic=False)
    for name in scenario.regions if told else ():
        if name not in told:
            text = f"no `carbon`, which {told[0]} has: give that of every region, or of none"
            yield SettingProblem(("regions", name), text, arithmetic=False)


# ------------------------------------------------------------------------------------------------ promises against physics


def first_token_us(engine: ProfileSettings) -> Micros:
    """Microseconds until an idle instance answers a prompt of one token."""
    return round(first_time(row_of(engine), 1, 0))


def _allowed(scenario: Scenario, tier: str, model: str, origin: str) -> list[str]:
    return [region for region in scenario.serving(tier, origin) if scenario.start_gpu(model, region)]


def _reach(scenario: Scenario) -> Iterator[SettingProblem]:
    for name, tier in scenario.tiers.items():
        for model in scenario.models:
            if not scenario.places(model):
                continue  # already said
            yield from _serves(scenario, name, model, tier)


def _serves(scenario: Scenario, name: str, model: str, tier: TierSettings) -> Iterator[SettingProblem]:
    lacking = [origin for origin in scenario.regions if not _allowed(scenario, name, model, origin)]
    if lacking:
        text = f"may not leave its origin, but {', '.join(lacking)} cannot run {model}"
        if isinstance(tier.regions, tuple):
            text = f"may be served in {', '.join(tier.regions)} alone, and {model} cannot run there"
        yield SettingProblem(
            ("tiers", name, "regions"), text, hint="write `regions: any`, or give the regions GPUs that can run it"
        )
        return
    slowest = max((_fastest(scenario, name, model, origin) for origin in scenario.regions), key=lambda found: found[0])
    total, story = slowest
    key = "deadline" if tier.ttft is None else "ttft"
    if total > (allowed := tier.patience_of(1)):
        text = f"{show_duration(allowed)} is out of reach for {model}: {story} = {show_duration(total)} on an idle instance"
        yield SettingProblem(("tiers", name, key), text)
    step = min(_step_us(engine) for engine in scenario.models[model].engines.values())
    if tier.itl is not None and step > tier.itl:
        text = f"{show_duration(tier.itl)} is out of reach for {model}: a token takes {show_duration(step)}"
        yield SettingProblem(("tiers", name, "itl"), text)


def _step_us(engine: ProfileSettings) -> Micros:
    row = row_of(engine)
    return round(iteration_time(row, 0, 0.0, 1, 0) / gain(row))


def _fastest(scenario: Scenario, tier: str, model: str, origin: str) -> tuple[Micros, str]:
    """Time of the fastest possible first token for a one-token prompt from `origin`, and how it adds up."""
    times = []
    for region in _allowed(scenario, tier, model, origin):
        rtt = scenario.rtt(origin, region)
        for gpu in scenario.gpus_at(model, region):
            work = first_token_us(scenario.models[model].engines[gpu])
            story = f"from {origin} {show_duration(rtt)} to {region} and back + {show_duration(work)} first token on {gpu}"
            times.append((rtt + work, story))
    return min(times)
