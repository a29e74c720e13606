"""A first scenario of one's own, as commented text: models matched to profiles, sizes from the traffic, every guess marked.

    text = draft_text(Draft("fleet", "", models=(draft_model("meta-llama/Llama-3.1-8B-Instruct", "h100-80gb", traffic),), ...))

What somebody must still decide stands behind `# guess:` or `# unsure:` (`left_to_decide`). Writes no file and reads none but the
facts of models and GPUs. Read next: `edit.py`, which sets a value and keeps the comments; `data/profiles/match.py`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import ProfileSettings
from sageserve.base.records import Bools, Trace
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Micros, show_duration
from sageserve.core.engine.timing import request_work, row_of
from sageserve.data.profiles.hardware import gpu_named
from sageserve.data.profiles.library import profile_named
from sageserve.data.profiles.match import match_profile

PER_VM: Final = 8
WATCHED: Final = "watched"
"""What a draft calls the cluster of its Prometheus."""
_PEAK: Final = 5 * MINUTE
_PRICES: Final = {"h100-80gb": 98.32, "a100-80gb": 32.77}  # list prices of a VM of eight in Azure's East US, dollars per hour
_OTHER_PRICE: Final = 98.32
_BUSY: Final = 0.5  # share of its time an instance of a first fleet may be busy at the peak: promises are judged at p95
_SMALLEST: Final = 8192  # tokens of context, at least
_MOST: Final = 1000  # instances of a pool that a draft starts with, at most: more is a slip in the traffic
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_WORDS: Final = {"true", "false", "null", "yes", "no", "on", "off", "n", "y"}
_NAME: Final = re.compile(r"[^A-Za-z0-9._/-]+")
_OPEN: Final = re.compile(r"#\s*(?P<kind>guess|unsure):\s*(?P<why>.*)$")
_BATCH: Final = re.compile(r"batch|niw|offline|flex|bulk|async", re.IGNORECASE)
_FAST: Final = re.compile(r"iw-f|fast|interactive|realtime|real-time|premium|priority", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelTraffic:
    """What is known of a model's requests.

    Args:
        prompt: (quantile, tokens) points.
        output: likewise.
        share: of all requests.
        longest: tokens of the longest prompt with its answer.
        peak: requests per second in the busiest five minutes, by region.
        hours: relative rate by hour of the day.
        seen: it was measured, and not made up.
    """

    prompt: tuple[tuple[float, int], ...] = ((0.0, 50), (0.5, 1000), (0.95, 6000), (1.0, 16000))
    output: tuple[tuple[float, int], ...] = ((0.0, 10), (0.5, 250), (0.95, 900), (1.0, 2000))
    share: float = 1.0
    longest: int = 18000
    peak: Mapping[str, float] = field(default_factory=dict)
    hours: tuple[float, ...] = (1.0,) * 24
    seen: bool = False


@dataclass(frozen=True, slots=True)
class DraftModel:
    """A model of the draft.

    Args:
        name: it is served under.
        engines: by GPU type, the profile of the library that says how fast an instance is; at least one.
        candidates: other profiles that it may be; empty: it is sure.
        context: tokens.
        traffic: what is known of it.
    """

    name: str
    engines: Mapping[str, str]
    candidates: tuple[str, ...]
    context: int
    traffic: ModelTraffic

    @property
    def gpu(self) -> str:
        """Type of its first instances."""
        return next(iter(self.engines))

    @property
    def profile(self) -> str:
        """On that type."""
        return self.engines[self.gpu]


@dataclass(frozen=True, slots=True)
class DraftPool:
    """Instances that are there already, and the object that says how many.

    Args:
        region, model, gpu: of the scenario.
        instances: now.
        low, high: instances that it may have; high 0: nobody says so.
        kind, name: of the object, NAMESPACE/NAME.
        sure: the kind is known, and not taken for granted.
        series: labels of its engines' series.
    """

    region: str
    model: str
    gpu: str
    instances: int
    low: int
    high: int
    kind: str
    name: str
    sure: bool
    series: Mapping[str, str]

    @property
    def most(self) -> int:
        """Instances, at most: what is said, or twice as many as there are."""
        return self.high or max(4, 2 * self.instances)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a first scenario is made from.

    Args:
        name: of the scenario.
        source: where the facts are from, in words; empty: nothing was given.
        models: at least one.
        regions: names, at least one.
        tiers: names; empty: one is made up.
        requests: in the window.
        window: microseconds.
        url: of the Prometheus that watches it; empty: none is known.
        pools: that are there already.
        priorities: how series name the tiers, by tier.
    """

    name: str
    source: str
    models: tuple[DraftModel, ...]
    regions: tuple[str, ...]
    tiers: tuple[str, ...] = ()
    requests: int = 300_000
    window: Micros = 24 * HOUR
    url: str = ""
    pools: tuple[DraftPool, ...] = ()
    priorities: Mapping[str, int] = field(default_factory=dict)

    def gpus(self, region: str = "") -> tuple[str, ...]:
        """Types of all instances, or of those of one region."""
        placed = [one.gpu for one in self.pools if region in {"", one.region}]
        return tuple(dict.fromkeys(placed or [gpu for model in self.models for gpu in model.engines]))


def traffic_of(trace: Trace) -> dict[str, ModelTraffic]:
    """What a trace says of each of its models, the busiest first; models without requests are left out."""
    counts = np.bincount(trace.model, minlength=len(trace.names.models))
    order = [int(code) for code in np.argsort(-counts, kind="stable") if counts[code]]
    return {trace.names.models[code]: _traffic(trace, trace.model == code) for code in order}


def _traffic(trace: Trace, mine: Bools) -> ModelTraffic:
    arrival, prompt, output = trace.arrival[mine], trace.prompt[mine], trace.output[mine]
    peak: dict[str, float] = {}
    for code, region in enumerate(trace.names.regions):
        here = arrival[trace.region[mine] == code]
        if len(here):
            length = min(_PEAK, max(trace.window, 1))
            peak[scenario_name(region)] = float(np.bincount(here // length).max()) * SECOND / length
    hours = (1.0,) * 24
    if trace.window >= DAY:
        by_hour = np.bincount(arrival // HOUR % 24, minlength=24)
        hours = tuple(np.round(by_hour / by_hour.mean(), 3).tolist())
    return ModelTraffic(
        _quantiles(prompt), _quantiles(output), round(float(mine.mean()), 4), int((prompt + output).max()), peak, hours, seen=True
    )


def _quantiles(tokens: NDArray[np.int32]) -> tuple[tuple[float, int], ...]:
    levels = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 1.0)
    return tuple(zip(levels, np.quantile(tokens, levels).round().astype(int).tolist(), strict=True))


def scenario_name(name: str) -> str:
    """A name as a scenario may hold it: what it cannot hold becomes '-'."""
    tidy = _NAME.sub("-", name).strip("-./_")[:100]
    return tidy or "unnamed"


def draft_model(name: str, gpu: str, traffic: ModelTraffic) -> DraftModel:
    """Match a model's name to a profile on a GPU type.

    Raises:
        ConfigError: no such GPU type, or no known model fits on it.
    """
    context = max(_SMALLEST, 2 ** math.ceil(math.log2(max(traffic.longest, 1))))
    found = match_profile(name, gpu, context)
    return DraftModel(scenario_name(name), {gpu: found.profile}, found.candidates, found.context, traffic)


def left_to_decide(text: str) -> Iterator[tuple[int, str]]:
    """Lines of a scenario file, from 1, that are marked as guesses, with what they say and why it is one."""
    for number, line in enumerate(text.splitlines(), start=1):
        if (match := _OPEN.search(line)) and (said := line[: match.start()].strip()):
            yield number, f"{said}  ({match['why']})"


# ------------------------------------------------------------------------------------------------ the text


def draft_text(draft: Draft) -> str:
    """The scenario file."""
    parts = [_head(draft), _hardware(draft), _models(draft), _tiers(draft), _fleet(draft), _workload(draft), _live(draft)]
    return "\n".join(part for part in parts if part)


def _head(draft: Draft) -> str:
    about = f"drafted from {draft.source}" if draft.source else "a first draft, to be made yours"
    return (
        f"# {draft.name}: {about}.\n"
        "# What is marked as a guess or as unsure is yours to decide: `sageserve scenario check` lists it, and\n"
        "# `sageserve scenario set` changes it.\n"
        "# `sageserve scenario show` says what every other setting is, and why.\n\n"
        f"about: {msgspec.json.encode(about).decode()}\n"
    )


def _hardware(draft: Draft) -> str:
    lines = ["gpus:"]
    for gpu in draft.gpus():
        lines += [
            f"  {gpu}:",
            f"    memory: {gpu_named(gpu).memory / 2**30:g}GiB",
            f"    per_vm: {PER_VM} # guess: GPUs of a VM or node",
            "    start: 10m # guess: until a new VM can load a model",
        ]
    lines += ["", "regions:"]
    for number, region in enumerate(draft.regions):
        lines += [f"  {_quoted(region)}:", "    gpus:"]
        for gpu in draft.gpus(region):
            price = _PRICES.get(gpu, _OTHER_PRICE)
            why = "list price of such a VM in one cloud" if gpu in _PRICES else "that of eight H100s, for want of yours"
            lines += [
                f"      {gpu}:",
                f"        gpus: {_stock(draft, region, gpu)} # guess: the most that can be had, here room for all maxima",
                "        price:",
                f"          on_demand: {price:g}/h # guess: {why}",
            ]
        rtts = [f"{_quoted(other)}: 60ms" for other in draft.regions[number + 1 :]]
        lines += [f"    rtt: {{{', '.join(rtts)}}} # guess: round trips between the regions"] if rtts else []
    return "\n".join(lines) + "\n"


def _models(draft: Draft) -> str:
    lines = ["models: # each with an engine profile: how fast an instance is. `sageserve profile show NAME` says what one means"]
    for model in draft.models:
        unsure = f" # unsure: its name is not known; it may also be {', '.join(model.candidates) or 'none of the known'}"
        lines += [
            f"  {_quoted(model.name)}:",
            f"    context: {model.context}" + ("" if model.traffic.seen else " # guess: the longest prompt with its answer"),
            f"    engines: {{{', '.join(f'{gpu}: {name}' for gpu, name in model.engines.items())}}}"
            + (unsure if model.candidates else ""),
            "    load: {local: 5m} # guess: until weights are loaded on a VM that is there",
        ]
    return "\n".join(lines) + "\n"


def _tiers(draft: Draft) -> str:
    lines = ["tiers: # what is promised to whom: a first token, or completion"]
    for tier in draft.tiers or ("chat", "batch"):
        if _BATCH.search(tier):
            promise = "{deadline: 24h} # guess: completion within a day"
        elif _FAST.search(tier):
            promise = "{ttft: 1s} # guess: 95 % of first tokens within a second"
        else:
            promise = "{ttft: 3s} # guess: 95 % of first tokens within that"
        lines.append(f"  {_quoted(tier)}: {promise}")
    return "\n".join(lines) + "\n"


def _fleet(draft: Draft) -> str:
    needs = dict(_needs(draft))
    starts = {name: count for name, count in needs.items() if count > 2 or draft.pools}
    most = "of any of them, as its autoscaler says or twice what is there" if draft.pools else "twice what the peak needs"
    lines = [
        "fleet:",
        "  start: 2 # instances of every model in every region at the start",
        "  minimum: 1 # guess: 2 where the loss of one must not be felt",
        f"  maximum: {_maximum(draft)} # guess: {most}",
    ]
    if starts:
        lines.append(f"  starts: # {'what is there now' if draft.pools else 'where the peak needs more than two at half load'}")
        lines += [f"    {_quoted(name)}: {count}" for name, count in starts.items()]
    return "\n".join(lines) + "\n"


def _workload(draft: Draft) -> str:
    seen, batch = bool(draft.source), any(_BATCH.search(tier) for tier in draft.tiers or ("batch",))
    guess = "" if seen else " # guess: lengths of requests"
    lines = [
        f"workload: # requests when no --trace is given: {'like those of the trace' if seen else 'made up'}",
        "  generate:",
        f"    requests: {draft.requests}" + ("" if seen else " # guess: in the window, all models together"),
        f"    length: {show_duration(draft.window)}",
        f"    interactive: {0.8 if batch else 1}" + (" # guess: share of interactive tiers" if batch else ""),
        "    shapes:",
    ]
    for model in draft.models:
        lines.append(f"      {_quoted(model.name)}:")
        for group in ("interactive", "batch") if batch else ("interactive",):
            lines += [
                f"        {group}:",
                f"          share: {model.traffic.share:g}",
                f"          hours: [{', '.join(f'{hour:g}' for hour in model.traffic.hours)}] # of the day, relative",
                "          days: [1, 1, 1, 1, 1, 1, 1] # Monday first: every day alike",
                f"          prompt: {_points(model.traffic.prompt)}{guess}",
                f"          output: {_points(model.traffic.output)}{guess}",
            ]
            guess = ""
    return "\n".join(lines) + "\n"


def _points(points: Sequence[tuple[float, int]]) -> str:
    return f"[{', '.join(f'[{level:g}, {tokens}]' for level, tokens in points)}]"


def _live(draft: Draft) -> str:
    if not draft.pools:
        return ""
    lines = [
        "live: # what doctor, backtest and calibrate look at; nothing is written anywhere because of it",
        "  clusters:",
        f"    {WATCHED}: {{prometheus: {{url: {msgspec.json.encode(draft.url).decode()}}}}}",
    ]
    if draft.priorities:
        named = ", ".join(f"{_quoted(tier)}: {{priority: {number}}}" for tier, number in draft.priorities.items())
        lines.append(f"  tiers: {{{named}}} # how the gateway's series name them")
    lines.append("  targets: # whose series are whose, and what object says how many instances there are")
    for pool in draft.pools:
        series = ", ".join(f"{label}: {msgspec.json.encode(value).decode()}" for label, value in pool.series.items())
        lines += [
            f"    {_quoted(f'{pool.region}-{pool.model}-{pool.gpu}')}:",
            f"      cluster: {WATCHED}",
            f"      pool: {_quoted(f'{pool.region}/{pool.model}/{pool.gpu}')}",
            f"      kind: {pool.kind}" + ("" if pool.sure else " # guess: nothing says what object it is"),
            f"      name: {_quoted(pool.name)}" + ("" if pool.sure else " # guess: NAMESPACE/NAME of that object"),
            *([f"      min: {pool.low}"] if pool.low else []),
            f"      max: {pool.most}" + ("" if pool.high else " # guess: twice what is there; no autoscaler is recorded"),
            f"      series: {{{series}}}",
        ]
    return "\n".join(lines) + "\n"


def _needs(draft: Draft) -> Iterator[tuple[str, int]]:
    """Instances by pool: what is there, or what the busiest five minutes need at half load."""
    if draft.pools:
        yield from ((f"{one.region}/{one.model}/{one.gpu}", one.instances) for one in draft.pools)
        return
    for region in draft.regions:
        for model in draft.models:
            rate = model.traffic.peak.get(region, 0.0)
            yield f"{region}/{model.name}/{model.gpu}", min(_MOST, math.ceil(rate * _service_s(model) / _BUSY))


def _service_s(model: DraftModel) -> float:
    """Seconds of an instance that a typical request needs among its like."""
    profile: ProfileSettings = profile_named(model.profile).profile
    prompt, output = (
        sum(tokens for _, tokens in points) / len(points) for points in (model.traffic.prompt, model.traffic.output)
    )
    return request_work(row_of(profile), round(prompt), 0, output) / SECOND


def _maximum(draft: Draft) -> int:
    if draft.pools:
        return max(one.most for one in draft.pools)
    return max(4, 2 * max((count for _, count in _needs(draft)), default=0))


def _stock(draft: Draft, region: str, gpu: str) -> int:
    """GPUs of a type in a region, whole VMs: room for the most instances of all pools."""
    each = {model.name: profile_named(model.engines[gpu]).profile.gpus for model in draft.models if gpu in model.engines}
    here = [one for one in draft.pools if (one.region, one.gpu) == (region, gpu)]
    wanted = sum(one.most * each[one.model] for one in here) if draft.pools else _maximum(draft) * sum(each.values())
    return math.ceil(wanted / PER_VM) * PER_VM


def _quoted(name: str) -> str:
    """A name as a key of YAML: quoted where it would be read as something else."""
    return name if _PLAIN.fullmatch(name) and name.lower() not in _WORDS else msgspec.json.encode(name).decode()
