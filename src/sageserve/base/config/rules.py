"""Settings of the rules: tiers, fleet sizes, signals, routing, admission, order, batch feed, spot and strategies.

A tier's promise is its SLO, and its patience the latency budget of a request. Numbers marked (paper) are from SageServe,
arXiv 2502.14617. Knows no code that applies them: `core/` does.
Read next: `core/strategies/` for what the strategies do with their settings.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sageserve.base.config.autoscalers import HpaSettings, KedaSettings, RecordedSettings
from sageserve.base.config.live import EngineCommand
from sageserve.base.config.settings import CompiledRule, Name, Pattern, RuleName, Settings, own_rule_or
from sageserve.base.promise import allowed
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, Duration, Share


class TierSettings(Settings):
    """A service class: interactive tiers promise a first token (`ttft`), batch tiers a `deadline`."""

    ttft: Duration | None = Field(default=None, gt=0, description="time to first token that is promised; none: a batch tier")
    percentile: Share = Field(default=0.95, description="share of requests the promise is for: p95 (paper)")
    ttft_per_1k_tokens: Duration | None = Field(
        default=None,
        gt=0,
        description="added to ttft for every 1,000 tokens of the prompt; none: prompts of all lengths alike",
    )
    itl: Duration | None = Field(default=None, gt=0, description="time between tokens that is promised; none in the paper")
    deadline: Duration | None = Field(default=None, gt=0, description="completion promised; none: an interactive tier")
    priority: int = Field(default=0, ge=0, le=99, description="0 is served first; equal unless said")
    regions: Literal["any", "origin"] | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        default="any",
        description="that may serve it: any, as all tiers of the paper; origin: the one it enters alone; or a list of them",
    )
    urgent: Duration = Field(default=SECOND, description="DPA: less slack than this is urgent; 1 s, the fast target")
    expired: Duration = Field(
        default=10 * MINUTE,
        description="DPA: later than this is severely expired; 10 min, one local model load",
    )

    @property
    def batch(self) -> bool:
        """Whether the tier promises a completion and not a first token."""
        return self.ttft is None

    @property
    def patience(self) -> int:
        """Microseconds from arrival to the promise: the deadline, or the TTFT target of a prompt without a token."""
        return self.deadline if self.ttft is None and self.deadline is not None else (self.ttft or DAY)

    @property
    def growth(self) -> int:
        """Microseconds that 1,000 tokens of prompt add to `patience`."""
        return self.ttft_per_1k_tokens or 0

    def patience_of(self, prompt: int) -> int:
        """Microseconds from arrival to the promise of a request with so many prompt tokens."""
        return allowed(self.patience, self.growth, prompt)


class EndpointSettings(Settings):
    """What endpoints have whose region/model a pattern fits; what is left out is as in `fleet`, or as an earlier pattern says."""

    start: int | None = Field(default=None, ge=0, le=10_000, description="instances at t = 0; none: fleet.start")
    minimum: int | None = Field(default=None, ge=0, description="instances at least; none: fleet.minimum")
    maximum: int | None = Field(default=None, ge=1, le=10_000, description="instances per pool; none: fleet.maximum")
    gpus: tuple[Name, ...] | None = Field(
        default=None,
        description="GPU types it may use, that of the first instances first; []: not placed there; none: all that it runs on",
    )


class FleetSettings(Settings):
    """How many instances an endpoint (model x region) starts with and may have."""

    start: int = Field(default=20, ge=0, le=10_000, description="instances per endpoint at t = 0: 20 (paper)")
    minimum: int = Field(
        default=2, ge=0, description="instances per endpoint: 2, so that one may fail (paper); 0: none while nobody asks"
    )
    idle: Duration = Field(
        default=15 * MINUTE,
        gt=0,
        description="minimum 0: without work for so long an endpoint is left without instances; a start takes about 10 minutes",
    )
    maximum: int = Field(default=40, ge=1, le=10_000, description="instances per pool: twice the start leaves room")
    gpu: Name | None = Field(default=None, description="GPU type of the first instances; none: a model's first engine")
    starts: dict[Name, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="instances at t = 0 by region/model/gpu; of an endpoint that is named in it, these and no others"
    )
    endpoints: dict[Pattern, EndpointSettings] | None = Field(
        default=None,
        description="other numbers and GPU types by region/model, such as eastus/* or */llama-*; of several patterns that fit,"
        " the last that says something counts; none: all alike",
    )

    def fitting(self, region: str, model: str) -> dict[str, EndpointSettings]:
        """What is said of one endpoint, by pattern, in order."""
        name = f"{region}/{model}"
        return {pattern: one for pattern, one in (self.endpoints or {}).items() if fnmatchcase(name, pattern)}

    def said(self, region: str, model: str, key: Literal["start", "minimum", "maximum", "gpus"]) -> str | None:
        """The pattern whose word on a key counts for an endpoint; None: no pattern has one."""
        return next((p for p, one in reversed(self.fitting(region, model).items()) if getattr(one, key) is not None), None)

    def at(self, region: str, model: str) -> Self:
        """The same with the numbers of one endpoint."""
        found: dict[str, object] = {"endpoints": None}
        for one in self.fitting(region, model).values():
            numbers = {"start": one.start, "minimum": one.minimum, "maximum": one.maximum}
            found |= {key: number for key, number in numbers.items() if number is not None}
        return self.model_copy(update=found)

    def gpus_at(self, region: str, model: str) -> tuple[str, ...] | None:
        """GPU types that an endpoint may use, as it prefers them; None: nothing is said."""
        pattern = self.said(region, model, "gpus")
        return None if pattern is None or self.endpoints is None else self.endpoints[pattern].gpus

    def placed(self) -> dict[str, EndpointSettings] | None:
        """Of `endpoints`, the GPU types alone."""
        found = {p: EndpointSettings(gpus=one.gpus) for p, one in (self.endpoints or {}).items() if one.gpus is not None}
        return found or None

    def roomy(self, least: int) -> Self:
        """The same where no pool has a maximum below so many instances."""
        endpoints = {
            p: one if one.maximum is None else one.model_copy(update={"maximum": max(one.maximum, least)})
            for p, one in (self.endpoints or {}).items()
        }
        return self.model_copy(update={"maximum": max(self.maximum, least), "endpoints": endpoints or None})

    def maxima(self) -> dict[str, dict[str, int]]:
        """The maxima of `endpoints`, as a file has them."""
        return {p: {"maximum": one.maximum} for p, one in (self.endpoints or {}).items() if one.maximum is not None}


class SignalSettings(Settings):
    """What policies see of the fleet, and how old it may be."""

    kind: Literal["load", "kv", "busy"] = Field(
        default="load", description="load = max(kv, busy): KV use alone is blind to prefill-heavy traffic"
    )
    scrape: Duration = Field(default=5 * SECOND, gt=0, description="a common scrape period of engine metrics")
    half_life: Duration = Field(default=30 * SECOND, gt=0, description="of the token rates in busy: two cooldowns of 15 s")


class RoutingSettings(Settings):
    """How a request finds its region and instance."""

    region: Annotated[RuleName, *own_rule_or("threshold", "nearest", "least", "quickest")] = Field(
        default="threshold",
        description="nearest region below the threshold, else the least utilised (paper); quickest: soonest first token expected;"
        " module:function: the least by a rule of your own",
    )
    threshold: Share = Field(default=0.70, description="the first region below this utilisation takes it (paper)")
    instance: Annotated[RuleName, *own_rule_or("least", "affinity")] = Field(
        default="least",
        description="least outstanding work (paper); affinity: less what an instance has of the prompt in its prefix cache;"
        " module:function: the least by a rule of your own",
    )
    overlap: float = Field(
        default=1.0, ge=0, le=100, description="affinity: what a token in the cache counts for; 1: as much as one that waits"
    )
    adapter_tokens: int = Field(
        default=1024, ge=0, description="affinity: outstanding tokens that a LoRA adapter in a slot makes up for; simulated only"
    )


class AdmissionSettings(Settings):
    """When an interactive request is turned away at once, because waiting would break its promise anyway.

    `admission: off` in a file is short for `admission: {act: false}`. Settings of its own laid over that turn it on again.
    `admission: module:function` is short for `admission: {rule: "module:function"}`.
    """

    act: bool = Field(
        default=True,
        description="a simulation turns away whom the gateway would; false, or `admission: off`: everybody waits (paper)",
    )
    wait: float = Field(default=1.0, gt=0, description="let in while the predicted wait is below this times the TTFT target")
    queued: int = Field(default=4, ge=1, description="requests in flight per instance, in units of its max_sequences")
    rule: RuleName | None = Field(
        default=None,
        description="module:function: a rule of your own that says who is let in; none: whom `wait` and `queued` leave room for",
    )

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, given: object) -> object:
        """A switch alone stands for the node."""
        if not isinstance(given, str):
            return given
        if ":" in given:
            return {"rule": given}
        if given not in {"on", "off"}:
            raise ValueError(f"{given!r} is neither on nor off, nor settings of its own ({', '.join(cls.model_fields)})")
        return {"act": given == "on"}


class OrderSettings(Settings):
    """Which waiting request an instance takes next."""

    kind: Annotated[Literal["fcfs", "edf", "pf", "dpa"], CompiledRule] = Field(
        default="fcfs", description="what engines do unless told"
    )


class BatchSettings(Settings):
    """How non-interactive work enters the pool."""

    feed: Literal["steps", "fill", "direct"] = Field(
        default="steps",
        description="one or two jobs at a time (paper); fill: up to the band; direct: no queue",
    )
    two_below: Share = Field(default=0.50, description="two jobs at a time below this utilisation (paper)")
    one_below: Share = Field(default=0.60, description="one job at a time below this utilisation (paper)")
    promote_after: Duration = Field(default=10 * HOUR, description="age at which a job goes first: 10 h (paper)")
    safety: float = Field(default=2.0, ge=1, description="promote when slack < service time x this; 2: waits vary twofold")


class SpotSettings(Settings):
    """What happens to instances that are not needed."""

    donate: bool = Field(default=True, description="idle instances go to the spot market (paper)")
    reclaimed_by_cloud_per_hour: float = Field(
        default=0.0, ge=0, description="chance rate per donated instance; 0: never (paper)"
    )
    notice: Duration = Field(default=30 * SECOND, description="before the cloud takes one: Azure announces 30 s")


class OutageSettings(Settings):
    """A region that is lost for a while: its instances are gone at once, and nothing can be started there."""

    region: Name = Field(description="which")
    at: Duration = Field(description="from the start of the window")
    length: Duration = Field(gt=0, description="how long starts fail there")
    donated_only: bool = Field(default=False, description="the cloud only takes donated instances, also those donated meanwhile")


class FaultSettings(Settings):
    """What goes less than well in the simulated world; nothing by default, so that medians are what they say."""

    start_failure: Share = Field(default=0.0, description="chance that a start comes to nothing; 0: never (paper)")
    start_spread: float = Field(default=0.0, ge=0, le=2, description="sigma of the log of start times; 0: as stated (paper)")
    rtt_spread: float = Field(default=0.0, ge=0, le=3, description="sigma of the log of round-trip times; 0: medians")
    engine_time: float = Field(
        default=1.0, ge=0.1, le=10, description="of an iteration, in units of what strategies believe; 1: as believed"
    )
    signals_late: Duration = Field(default=0, description="strategies see engines as they were so long ago; 0: as last scraped")
    signals_lost: Share = Field(
        default=0.0, description="chance that an endpoint is not seen for a minute; what was seen before stands"
    )
    signals_noise: float = Field(default=0.0, ge=0, le=2, description="sigma of the log of what strategies see; 0: as it is")
    outages: tuple[OutageSettings, ...] = Field(default=(), description="regions lost, and when; none unless asked for")


class RolloutSettings(Settings):
    """A new version of a model's engine, or new weights: a few instances first, judged by promises, then the others, or back."""

    model: Name = Field(description="which")
    at: Duration = Field(
        default=0,
        description="from the start of the window; later, if one of the same model is not over by then; live: when told",
    )
    engine: EngineCommand | None = Field(
        default=None, description="how instances of it are run, live; none: the emulated engine. No simulation reads it"
    )
    engine_time: float = Field(
        default=1.0,
        ge=0.1,
        le=10,
        description="of an iteration, in units of what it takes without rollouts: 1.3 is slower; 1: equal",
    )
    start_failure: Share = Field(default=0.0, description="chance that a start of it comes to nothing, beside that of `faults`")
    surge: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="instances of an endpoint beyond what is wanted, at once; 0: one fewer instead, where GPUs are short",
    )
    canary: Share = Field(
        default=0.1, gt=0, le=0.5, description="of an endpoint's instances, that are new until they are judged; one at least"
    )
    judge_after: Duration = Field(
        default=10 * MINUTE, gt=0, description="that canaries serve before the others follow: tens of long answers"
    )
    judge_requests: int = Field(
        default=300, ge=1, description="that canaries were asked before the others follow: 90 % is told from 95 % by 300"
    )
    back: bool = Field(default=True, description="a version that breaks promises is replaced again; false: no more become new")


class ReactiveSettings(Settings):
    """Threshold scaling."""

    high: Share = Field(default=0.70, description="one more instance above this utilisation (paper)")
    low: Share = Field(default=0.30, description="one fewer below this utilisation (paper)")
    cooldown: Duration = Field(default=15 * SECOND, description="after an action: 15 s (paper)")


class SiloedSettings(ReactiveSettings):
    """Separate pools for interactive and batch work, each reactive."""

    batch_share: Share = Field(default=0.20, description="of the start: 4 of 20 instances (paper)")
    batch_minimum: int = Field(default=1, ge=0, description="of the batch pool: half of an endpoint's minimum of 2")


class PlannedSettings(ReactiveSettings):
    """Forecast and integer program every hour (lt-i, lt-u, lt-ua)."""

    low: Share = Field(
        default=0.50, description="a step towards the plan below this; at 0.30 (paper) a planned fleet never shrinks"
    )
    every: Duration = Field(default=HOUR, gt=0, description="a plan an hour (paper)")
    ahead: Duration = Field(default=20 * MINUTE, description="the plan reads the peak from here to the next plan (paper)")
    forecaster: RuleName = Field(default="blend", description="the best of those measured; arima is the paper's")
    quantile: Share = Field(default=0.8, description="of the forecast; its middle (paper) is too low every other hour")
    epsilon: Share = Field(default=0.8, description="of its own demand a region must hold; the router sends the rest elsewhere")
    batch_buffer: float = Field(default=0.10, ge=0, le=10, description="of the past hour's batch tokens, planned for (paper)")
    worth: float = Field(default=0.3, ge=0, description="dollars that one request more in time is worth; marks correct the plan")
    patrol: Duration = Field(default=20 * MINUTE, description="end of the hour in which lt-ua compares (paper)")
    above: float = Field(default=5.0, gt=1, description="times the forecast: keep scaling out past the plan (paper)")
    below: Share = Field(default=0.5, description="of the forecast: keep scaling in past the plan (paper)")
    latency: Duration = Field(default=2 * SECOND, description="forecast 0.7 s and program 1.4 s (paper)")


class ForesightSettings(Settings):
    """Receding horizon: quantile headroom, batch work placed by deadline, traffic between regions."""

    every: Duration = Field(default=15 * MINUTE, gt=0, description="a plan for every bin of the forecast")
    refit: Duration = Field(default=HOUR, gt=0, description="between fits the newest bin corrects the level")
    horizon: Duration = Field(
        default=12 * HOUR, description="covers the age of promotion, 10 h: no batch deadline lies beyond it"
    )
    forecaster: RuleName = Field(default="blend", description="the best of those measured")
    quantile: Share = Field(default=0.95, description="of demand that capacity is kept for, at most; worth says how much is")
    headroom: float = Field(default=1.5, ge=1, description="times the middle, at most; the guard meets the rest")
    worth: float = Field(
        default=0.6,
        ge=0,
        description="dollars that one request more in time is worth, at most",
    )
    curve: Literal["learned", "guessed", "flat"] = Field(
        default="learned",
        description="how many instances are enough: by the response curve of the requests that are seen, by that of a guess of "
        "them, or by a load of 0.75 however many there are; the last two show what the first is worth",
    )
    driven: bool = Field(default=True, description="worth falls and rises as promises are kept; false: it stays as it is")
    aim: Share = Field(default=0.5, description="of the late requests that promises allow; the rest is for what nobody foresees")
    relax: Share = Field(default=0.08, description="below the load at which one fewer would do, one is stopped between plans")
    calm: Duration = Field(default=MINUTE, description="between stops of one endpoint, where donated instances come back at once")
    margin: float = Field(default=1.03, ge=1, le=3, description="on engine time: profiles are 2-5 % off (their own errors)")
    ready: Duration = Field(default=30 * MINUTE, description="before promotion, when planned batch work is to be done")
    guard: Share = Field(default=0.10, description="above the sustainable load: one instance more, whatever the plan says")
    cooldown: Duration = Field(default=15 * SECOND, description="of the guard: 15 s (paper)")
    travel: float = Field(default=0.001, ge=0, description="dollars per ms of round trip and busy instance-hour: nearest first")


class ChironSettings(Settings):
    """Interactive, mixed and batch instances: the rule is that of Chiron, arXiv 2501.08090, the numbers are ours."""

    theta: Share = Field(
        default=0.5,
        gt=0,
        description="busy share of interactive and mixed instances at which they grow; a half absorbs twice the load unaided",
    )
    full: Share = Field(default=0.70, gt=0, description="an instance this utilised is busy: the router's threshold sends on")
    relax: Share = Field(
        default=0.6,
        description="one fewer when the busy share would stay below this times theta: starts waste 2 % of GPU-hours, 5 % at 0.8",
    )
    spend: Share = Field(
        default=0.8, gt=0, description="of the time to the deadline that the queue may take; a fifth is for the estimate's error"
    )
    cooldown: Duration = Field(default=15 * SECOND, description="after an action: as the reactive rule has it")


class TunedSettings(ReactiveSettings):
    """Threshold scaling with marks chosen on history (`sageserve tune`)."""

    high: Share = Field(default=0.75, description="one more above this; 0.75: least cost at equal promises on O365 traffic")
    low: Share = Field(default=0.60, description="one fewer below this; the paper's 0.30 keeps two instances of three idle")


class StrategySettings(Settings):
    """The rule that decides how many instances each pool has."""

    name: RuleName = Field(default="reactive", description="the paper's baseline")
    check: Duration = Field(default=15 * SECOND, gt=0, description="how often the rule looks: once per cooldown")
    reactive: ReactiveSettings = Field(default=ReactiveSettings(), description="threshold scaling")
    tuned: TunedSettings = Field(default=TunedSettings(), description="threshold scaling with tuned marks")
    hpa: HpaSettings = Field(default=HpaSettings(), description="Kubernetes' HorizontalPodAutoscaler")
    keda: KedaSettings = Field(default=KedaSettings(), description="KEDA with an HPA")
    recorded: RecordedSettings = Field(default=RecordedSettings(), description="counts of a fleet's past")
    planned: PlannedSettings = Field(default=PlannedSettings(), description="hourly plans, corrected by thresholds")
    foresight: ForesightSettings = Field(default=ForesightSettings(), description="plans over a horizon")
    siloed: SiloedSettings = Field(default=SiloedSettings(), description="separate interactive and batch pools")
    chiron: ChironSettings = Field(default=ChironSettings(), description="interactive, mixed and batch pools")
