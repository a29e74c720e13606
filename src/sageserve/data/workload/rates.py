"""Request rates of generated traffic: weekly shapes, noise, bursts and growth as expected requests per minute.

A stream is the traffic of one (model, region, tier); rates are a table of minutes × streams. Knows the settings
of the generator and draws only the noise; draws no request (`generate.py` does).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.config.traffic import GeneratorSettings, ShapeSettings
from sageserve.base.errors import ConfigError
from sageserve.base.records import Bools, Floats
from sageserve.base.rng import stream
from sageserve.base.units import HOUR, MINUTE, WEEK, Micros

Group: TypeAlias = Literal["interactive", "batch"]

Measure: TypeAlias = Literal["tokens", "turns", "time"]
"""Of what quantile points give lengths."""

_MEASURES: Final[Mapping[Measure, tuple[str, str]]] = {
    "tokens": ("1", "[[0, 10], [0.5, 800], [1, 8000]]"),
    "turns": ("1", "[[0.4, 1], [1, 12]]"),
    "time": ("1ms", "[[0, 2s], [0.5, 20s], [1, 10m]]"),
}
"""The least length, and points as a user writes them."""

NOISE_MEMORY: Final = 0.5
"""Lag-one correlation of the minute noise: the O365 series have 0.2 to 0.7 once hourly means are taken out."""

CHUNK: Final = 1 << 18  # rows drawn at a time: the intermediate arrays stay in the cache
_TABLE: Final = 2048  # steps of an inverse distribution table: a quantile is met within 0.05 %


@dataclass(frozen=True, slots=True)
class Streams:
    """All streams of a scenario, and what their rates are made of.

    Args:
        model: uint8[s], code of each stream's model; `region` and `tier` likewise.
        shape: int64[s], row of `shapes` each stream follows.
        weight: float64[s], requests per minute where the shape is 1.
        shapes: (model, group, settings) of each shape in use.
    """

    model: NDArray[np.uint8]
    region: NDArray[np.uint8]
    tier: NDArray[np.uint8]
    shape: NDArray[np.int64]
    weight: Floats
    shapes: tuple[tuple[str, Group, ShapeSettings], ...]

    def __len__(self) -> int:
        return len(self.model)

    @property
    def interactive(self) -> Bools:
        """bool[s]: whether somebody waits for its answers."""
        groups = np.array([group == "interactive" for _, group, _ in self.shapes], dtype=np.bool_)
        return groups[self.shape]


def streams_of(scenario: Scenario) -> Streams:
    """The streams of a scenario's generator, weighted so that the window holds the wanted shares of requests.

    Raises:
        ConfigError: nothing to generate, names the scenario does not define, or shares that add up to nothing.
    """
    settings = scenario.workload.generate
    _check_names(scenario, settings)
    shapes = _shapes(scenario, settings)
    regions = _shares(settings.regions, tuple(scenario.regions), "regions")
    model_codes = {name: code for code, name in enumerate(scenario.models)}
    tier_codes = {name: code for code, name in enumerate(scenario.tiers)}
    of_shape = _requests_of(settings, shapes)
    rows: list[tuple[int, int, int, int, float]] = []
    minutes = np.arange(minutes_of(settings.length))
    for index, (model, group, shape) in enumerate(shapes):
        tiers = _shares(settings.tiers, _tiers_of(scenario, group), "tiers")
        level = sum(share * float(_profile(settings, shape, region, minutes).sum()) for region, share in regions.items())
        if not level > 0:
            raise ConfigError(
                f"workload.generate.shapes.{model}.{group} is 0 all through the window",
                hint="give an hour and a day of the window a rate above 0, or set its share to 0",
            )
        for code, (_region, region_share) in enumerate(regions.items()):
            for tier, tier_share in tiers.items():
                weight = of_shape[index] * region_share * tier_share / level
                rows.append((model_codes[model], code, tier_codes[tier], index, weight))
    table = np.array([row for row in rows if row[4] > 0], dtype=np.float64)
    return Streams(
        model=table[:, 0].astype(np.uint8),
        region=table[:, 1].astype(np.uint8),
        tier=table[:, 2].astype(np.uint8),
        shape=table[:, 3].astype(np.int64),
        weight=table[:, 4],
        shapes=shapes,
    )


def rates_of(scenario: Scenario, streams: Streams, first: int, count: int) -> Floats:
    """Expected requests per minute.

    Args:
        scenario: settings and seed.
        streams: of the same scenario.
        first: the first minute, counted from t = 0; negative before the window.
        count: how many minutes.

    Returns:
        float64[count, streams].
    """
    settings = scenario.workload.generate
    minutes = np.arange(first, first + count)
    regions = tuple(scenario.regions)
    growth = (1.0 + settings.growth_per_week) ** (minutes * (MINUTE / WEEK))
    rates = np.empty((count, len(streams)))
    made: dict[tuple[int, int], Floats] = {}
    for column in range(len(streams)):
        key = int(streams.shape[column]), int(streams.region[column])
        if key not in made:
            model, group, shape = streams.shapes[key[0]]
            region = regions[key[1]]
            era = "window" if first >= 0 else "history"
            noise = _noise(shape.noise, count, scenario.seed, f"{era}/noise/{model}/{group}/{region}")
            level = _profile(settings, shape, region, minutes)
            noisy = level * noise
            if noisy.any():  # noise moves requests between minutes; it must not change the shares of shapes
                noisy *= level.sum() / noisy.sum()
            made[key] = noisy * growth
        rates[:, column] = made[key] * streams.weight[column]
    _add_bursts(scenario, streams, minutes, rates)
    return rates


def length_table(points: Sequence[tuple[float, float]], where: str, what: Measure = "tokens") -> Floats:
    """Inverse distribution of lengths at equal steps of probability, log-linear between the points.

    Args:
        points: (quantile, length), rising; constant before the first and after the last.
        where: the setting they came from, for errors.
        what: of what they are lengths; times are in milliseconds.

    Returns:
        float64[steps + 1], lengths.

    Raises:
        ConfigError: no points, quantiles that do not rise within 0..1, or lengths that fall or are below 1.
    """
    quantiles = np.array([point[0] for point in points], dtype=np.float64)
    lengths = np.array([point[1] for point in points], dtype=np.float64)
    rising = len(points) > 0 and bool((np.diff(quantiles) > 0).all() and (np.diff(lengths) >= 0).all())
    if not rising or quantiles[0] < 0 or quantiles[-1] > 1 or lengths[0] < 1 or lengths[-1] >= 2**31:
        least, example = _MEASURES[what]
        raise ConfigError(
            f"{where}: points must be (quantile, {what}) with rising quantiles in 0..1 and {what} from {least} up",
            hint=f"for example {example}",
        )
    steps = np.linspace(0.0, 1.0, _TABLE + 1)
    return np.asarray(np.exp(np.interp(steps, quantiles, np.log(lengths))))


def lengths_of(rows: NDArray[np.int32], tables: Floats, rng: np.random.Generator) -> NDArray[np.int32]:
    """Lengths by inverse transform.

    Args:
        rows: int32[n], the row of `tables` that each is drawn from.
        tables: float64[rows, steps + 1], of `length_table`.
        rng: gives one draw per length, in order.
    """
    steps = tables.shape[1] - 1
    flat = tables.ravel()
    lengths = np.empty(len(rows), dtype=np.int32)
    for first in range(0, len(rows), CHUNK):
        part = rows[first : first + CHUNK]
        position = rng.random(len(part)) * steps
        place = position.astype(np.int32)
        position -= place
        place += part * (steps + 1)
        low = flat[place]
        lengths[first : first + CHUNK] = np.rint(low + (flat[place + 1] - low) * position)
    return lengths


def _shapes(scenario: Scenario, settings: GeneratorSettings) -> tuple[tuple[str, Group, ShapeSettings], ...]:
    found = tuple(
        (model, group, shape)
        for model, by_group in settings.shapes.items()
        for group, shape in by_group.items()
        if shape.share > 0 and _tiers_of(scenario, group)
    )
    if not found:
        raise ConfigError(
            f"scenario {scenario.name} describes no traffic: workload.generate.shapes is empty",
            hint="extend traffic-o365, describe shapes of your own, or give a trace with --trace",
        )
    return found


def _tiers_of(scenario: Scenario, group: Group) -> tuple[str, ...]:
    return tuple(name for name, tier in scenario.tiers.items() if tier.batch == (group == "batch"))


def _requests_of(settings: GeneratorSettings, shapes: Sequence[tuple[str, Group, ShapeSettings]]) -> list[float]:
    """Requests of each shape in the window; a group without shapes leaves its share to the other."""
    wanted: dict[Group, float] = {"interactive": settings.interactive, "batch": 1.0 - settings.interactive}
    present = {group for _, group, _ in shapes}
    total = sum(wanted[group] for group in present)
    if not total > 0:
        raise ConfigError(
            f"workload.generate.interactive is {settings.interactive:g}, but only the other group has shapes",
            hint="change workload.generate.interactive, or add shapes",
        )
    return [
        settings.requests * (wanted[group] / total) * shape.share / sum(other.share for _, same, other in shapes if same == group)
        for _, group, shape in shapes
    ]


def _shares(given: Mapping[str, float], names: Sequence[str], where: str) -> dict[str, float]:
    """Shares that add up to 1; equal ones where none are given for these names."""
    picked = {name: given.get(name, 0.0) for name in names}
    if not any(name in given for name in names):
        picked = dict.fromkeys(names, 1.0)
    total = sum(picked.values())
    if min(picked.values()) < 0 or not total > 0:
        raise ConfigError(
            f"workload.generate.{where}: shares must not be negative, and one must be above 0", hint="such as {a: 0.7, b: 0.3}"
        )
    return {name: value / total for name, value in picked.items()}


def _check_names(scenario: Scenario, settings: GeneratorSettings) -> None:
    bursts = settings.bursts
    checks: tuple[tuple[str, Sequence[str], Mapping[str, object]], ...] = (
        ("shapes", tuple(settings.shapes), scenario.models),
        ("regions", tuple(settings.regions), scenario.regions),
        ("shift", tuple(settings.shift), scenario.regions),
        ("tiers", tuple(settings.tiers), scenario.tiers),
        ("bursts.models", [name for burst in bursts for name in burst.models], scenario.models),
        ("bursts.tiers", [name for burst in bursts for name in burst.tiers], scenario.tiers),
    )
    for where, names, known in checks:
        stray = [name for name in names if name not in known]
        if stray:
            raise ConfigError(
                f"workload.generate.{where}: scenario {scenario.name} does not define {', '.join(stray)}",
                hint=f"it defines {', '.join(known)}",
            )


def _profile(settings: GeneratorSettings, shape: ShapeSettings, region: str, minutes: NDArray[np.int64]) -> Floats:
    """Relative rate at the middle of each minute: hours × days, linear between the middles of the hours."""
    week = np.outer(shape.days, shape.hours).ravel()
    local = settings.begins - settings.shift.get(region, 0) + minutes * MINUTE + MINUTE // 2
    rate: Floats = np.interp((local % WEEK) / HOUR - 0.5, np.arange(7 * 24), week, period=WEEK // HOUR)
    return rate


def _noise(deviation: float, count: int, seed: int, name: str) -> Floats:
    """A log-normal factor with mean 1 whose logarithm remembers `NOISE_MEMORY` of the minute before."""
    if deviation == 0.0 or count == 0:
        return np.ones(count)
    draws = stream(seed, name).standard_normal(count)
    draws[1:] *= np.sqrt(1.0 - NOISE_MEMORY**2)
    # A first-order filter by powers: memory**20 is below a millionth, so twenty terms are the whole sum.
    kernel = NOISE_MEMORY ** np.arange(20)
    walk = np.convolve(draws, kernel)[:count]
    factor: Floats = np.exp(deviation * walk - deviation**2 / 2)
    return factor


def _add_bursts(scenario: Scenario, streams: Streams, minutes: NDArray[np.int64], rates: Floats) -> None:
    """Multiply the rates of planned bursts; a minute that is covered in part is raised in part."""
    models, tiers = tuple(scenario.models), tuple(scenario.tiers)
    for burst in scenario.workload.generate.bursts:
        starts = minutes * MINUTE
        covered = np.minimum(starts + MINUTE, burst.at + burst.length) - np.maximum(starts, burst.at)
        extra = 1.0 + np.clip(covered, 0, MINUTE) / MINUTE * (burst.factor - 1.0)
        chosen: Bools = np.array(
            [
                (not burst.models or models[model] in burst.models) and (not burst.tiers or tiers[tier] in burst.tiers)
                for model, tier in zip(streams.model, streams.tier, strict=True)
            ],
            dtype=np.bool_,
        )
        rates[:, chosen] *= extra[:, None]


def minutes_of(span: Micros) -> int:
    """Minutes that cover a span."""
    return -(-span // MINUTE)
