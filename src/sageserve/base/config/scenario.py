"""The root of the settings tree, and the two questions about it that need more than one node.

Knows names and types; reads no file (`data/scenarios/load.py` does) and judges nothing (`data/scenarios/checks.py` does).
"""

from typing import Annotated, Self

from pydantic import Field

from sageserve.base.config.hardware import GpuSettings, RegionSettings
from sageserve.base.config.live import LiveSettings, TenantSettings
from sageserve.base.config.models import ModelSettings
from sageserve.base.config.rules import (
    AdmissionSettings,
    BatchSettings,
    FaultSettings,
    FleetSettings,
    OrderSettings,
    RolloutSettings,
    RoutingSettings,
    SignalSettings,
    SpotSettings,
    StrategySettings,
    TierSettings,
)
from sageserve.base.config.settings import Name, Settings
from sageserve.base.config.traffic import WorkloadSettings
from sageserve.base.units import Micros


class Scenario(Settings):
    """Everything about a run."""

    name: Name = Field(description="of the scenario; the file's name when left out")
    about: str = Field(default="", description="what it is for, in a sentence")
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$", description="of every price and cost, as ISO 4217 has it: EUR")
    carbon_price: float = Field(
        default=0.0,
        ge=0,
        le=1_000_000,
        description="of a tonne of CO2: plans weigh it beside the prices of GPUs, and no bill holds it; 0: not weighed",
    )
    seed: int = Field(default=1, ge=0, lt=2**63, description="of all random streams; 1: any number gives equal bytes")
    gpus: dict[Name, GpuSettings] = Field(min_length=1, description="GPU types by name")
    regions: dict[Name, RegionSettings] = Field(min_length=1, max_length=255, description="by name")
    models: dict[Name, ModelSettings] = Field(min_length=1, max_length=255, description="by the name they serve under")
    tiers: dict[Name, TierSettings] = Field(min_length=1, max_length=255, description="service classes by name")
    tenants: dict[Annotated[str, Field(pattern=r"^\S(.*\S)?$", max_length=200)], TenantSettings] = Field(
        default={},
        description="weights by which tenants share a tier, by name; one has all tenants of a trace share, none nobody",
    )
    fleet: FleetSettings = Field(default=FleetSettings(), description="how many instances an endpoint has")
    signals: SignalSettings = Field(default=SignalSettings(), description="what policies see, and how old it may be")
    routing: RoutingSettings = Field(default=RoutingSettings(), description="how a request finds its instance")
    admission: AdmissionSettings = Field(default=AdmissionSettings(), description="who is turned away, live and simulated")
    order: OrderSettings = Field(default=OrderSettings(), description="which waiting request is next")
    batch: BatchSettings = Field(default=BatchSettings(), description="how non-interactive work enters")
    spot: SpotSettings = Field(default=SpotSettings(), description="what happens to instances not needed")
    faults: FaultSettings = Field(default=FaultSettings(), description="what goes wrong, and how often")
    rollouts: tuple[RolloutSettings, ...] = Field(
        default=(), description="new versions of engines or weights; none unless asked for"
    )
    strategy: StrategySettings = Field(default=StrategySettings(), description="how many instances each pool has")
    workload: WorkloadSettings = Field(default=WorkloadSettings(), description="requests when no trace is given")
    live: LiveSettings | None = Field(
        default=None, description="the live control plane; none: all defaults, and no simulation reads it"
    )

    def rtt(self, origin: Name, region: Name) -> Micros:
        """Median round-trip time in microseconds; one stated direction stands for both.

        Raises:
            KeyError: an unknown region, or a pair without a round-trip time (a checked scenario has none).
        """
        if origin == region:
            return self.regions[origin].local_rtt
        there, back = self.regions[origin].rtt, self.regions[region].rtt
        return there[region] if region in there else back[origin]

    def serving(self, tier: Name, origin: Name) -> list[Name]:
        """Regions that may serve requests of a tier that enter at `origin`: every walk, plan and check asks this."""
        match self.tiers[tier].regions:
            case "any":
                return list(self.regions)
            case "origin":
                return [origin]
            case listed:
                return [region for region in self.regions if region in listed]

    def weights(self) -> dict[str, float]:
        """Of those who share a tier's capacity, live by the names of their keys; whoever is not named weighs 1."""
        found = {name: tenant.weight for name, tenant in self.tenants.items()}
        for key in self.live.keys if self.live is not None else ():
            found[key.name] = found.get(key.name, 1.0) if key.weight is None else key.weight
        return found

    @property
    def shared(self) -> bool:
        """Whether tenants of a trace share by weight: one is named, or live there are keys of two names."""
        return bool(self.tenants) or len(self.weights()) > 1

    def at(self, region: Name, model: Name) -> Self:
        """The same with the fleet's numbers for one endpoint."""
        return self if self.fleet.endpoints is None else self.model_copy(update={"fleet": self.fleet.at(region, model)})

    def gpus_at(self, model: Name, region: Name, *, decode: bool = False) -> list[Name]:
        """GPU types an endpoint may use: the one it starts with first, then as the model or `fleet.endpoints` lists them.

        None at all when the region has no GPU that the model can run on, or none that it may use: there is no such endpoint.

        Args:
            model: its name.
            region: its name.
            decode: of the instances that only decode, where prefill and decode are apart.
        """
        stock, served = self.regions[region].gpus, self.models[model]
        engines = served.decode_engines if decode else served.engines
        usable = [gpu for gpu, engine in engines.items() if gpu in stock and stock[gpu].gpus >= engine.gpus]
        chosen = self.fleet.gpus_at(region, model)
        if chosen is not None:
            return [gpu for gpu in chosen if gpu in usable]
        return sorted(usable, key=lambda gpu: gpu != self.fleet.gpu)

    def places(self, model: Name) -> list[Name]:
        """Regions that have an endpoint of a model."""
        return [region for region in self.regions if self.gpus_at(model, region)]

    def start_gpu(self, model: Name, region: Name) -> Name | None:
        """GPU type an endpoint's first instances use; None: there is no such endpoint."""
        return next(iter(self.gpus_at(model, region)), None)
