"""Settings of the workload: shares for columns a trace lacks, and a generator that needs no trace.

Knows no traffic of anyone; `data/builtin/traffic-o365.yaml` does. Read next: `data/workload/generate.py` for how it
is drawn.
"""

from typing import Literal

from pydantic import Field

from sageserve.base.config.settings import Name, Settings
from sageserve.base.units import DAY, MINUTE, SECOND, Duration, Share


class AssignSettings(Settings):
    """Seeded shares for columns a trace does not have; shares are relative."""

    model: dict[Name, float] = Field(default_factory=dict, description="empty: equal shares")
    tier: dict[Name, float] = Field(default_factory=dict, description="empty: equal shares")
    region: dict[Name, float] = Field(default_factory=dict, description="empty: equal shares")


class BurstSettings(Settings):
    """A planned burst in generated traffic."""

    at: Duration = Field(description="from the start of the window")
    length: Duration = Field(description="how long it lasts")
    factor: float = Field(gt=0, le=1000, description="times the usual rate")
    models: tuple[Name, ...] = Field(default=(), description="empty: all")
    tiers: tuple[Name, ...] = Field(default=(), description="empty: all")


class ShapeSettings(Settings):
    """Traffic of one model in one tier group."""

    share: float = Field(ge=0, description="of requests, relative")
    hours: tuple[float, ...] = Field(min_length=24, max_length=24, description="relative rate by local hour of day")
    days: tuple[float, ...] = Field(min_length=7, max_length=7, description="relative rate, Monday first")
    noise: float = Field(
        default=0.0,
        ge=0,
        le=3,
        description="deviation of the log rate from minute to minute; 0: a plain Poisson rate",
    )
    prompt: tuple[tuple[float, float], ...] = Field(description="(quantile, tokens) points of the prompt lengths")
    output: tuple[tuple[float, float], ...] = Field(description="(quantile, tokens) points of the output lengths")


class ConversationSettings(Settings):
    """Conversations of generated interactive traffic: a prompt is the conversation so far, and what its turn adds.

    A shape's prompt lengths are those of first turns. The points are of round numbers, not measured: describe your own.
    """

    turns: tuple[tuple[float, float], ...] = Field(
        default=(), description="(quantile, turns) points, such as [[0.4, 1], [1, 12]]; empty: every request stands alone"
    )
    think: tuple[tuple[float, Duration], ...] = Field(
        default=((0.0, 2 * SECOND), (0.5, 20 * SECOND), (0.95, 3 * MINUTE), (1.0, 10 * MINUTE)),
        description="(quantile, time) points from an answer to the next turn: to read it and to write",
    )
    added: tuple[tuple[float, float], ...] = Field(
        default=((0.0, 5), (0.5, 60), (0.95, 600), (1.0, 4000)), description="(quantile, tokens) points of what a later turn adds"
    )


class GeneratorSettings(Settings):
    """A workload that needs no file."""

    requests: int = Field(default=1_000_000, ge=1, le=1_000_000_000, description="in the window; a tenth of the paper's")
    length: Duration = Field(default=7 * DAY, description="of the window: one week, the longest cycle of the traffic")
    begins: Duration = Field(default=0, description="offset of t = 0 from Monday 00:00; 0: on a Monday")
    interactive: Share = Field(default=0.72, description="IW share of requests: 72 % (paper)")
    tiers: dict[Name, float] = Field(
        default_factory=dict, description="relative shares inside interactive and inside batch; empty: equal"
    )
    regions: dict[Name, float] = Field(default_factory=dict, description="relative shares; empty: equal")
    shift: dict[Name, Duration] = Field(
        default_factory=dict, description="local time behind the first region; empty: all in one time zone"
    )
    shapes: dict[Name, dict[Literal["interactive", "batch"], ShapeSettings]] = Field(
        default_factory=dict, description="by model and tier group; empty: nothing can be generated"
    )
    conversations: ConversationSettings = Field(
        default=ConversationSettings(), description="turns of interactive requests; none unless asked for"
    )
    bursts: tuple[BurstSettings, ...] = Field(default=(), description="none unless asked for")
    growth_per_week: float = Field(default=0.0, ge=-0.99, le=100, description="0.1 is 10 % more per week; 0: steady")
    history: Duration = Field(default=0, description="arrivals before t = 0 that forecasters may see; 0: none")


class WorkloadSettings(Settings):
    """Where requests come from when no trace is given, and whether their conversations wait for answers."""

    generate: GeneratorSettings = Field(default=GeneratorSettings(), description="a workload that needs no file")
    assign: AssignSettings = Field(default=AssignSettings(), description="shares for columns a trace does not have")
    warm_up: Duration = Field(
        default=0,
        ge=0,
        description="a first part of the requests that is played and not judged, in whole minutes; 0: all are judged",
    )
    loop: Literal["closed", "open"] = Field(
        default="closed",
        description="closed: a turn with a pause comes that long after the answer before it; open: at the times of the trace",
    )
