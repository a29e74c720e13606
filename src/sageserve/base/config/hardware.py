"""Settings of what is bought: GPU types, and regions with their stock, prices and distances.

Knows nothing of models and rules. Read next: `models.py` for what runs on it.
"""

from typing import Annotated, Literal

from pydantic import Field

from sageserve.base.config.settings import Name, Settings
from sageserve.base.units import MINUTE, Duration, Price, Size


class PowerSettings(Settings):
    """Watts of one GPU, with its share of the server and of cooling where they shall count."""

    idle: float = Field(ge=0, le=100_000, description="held, and not at work")
    busy: float = Field(ge=0, le=100_000, description="at work")


class GpuSettings(Settings):
    """A GPU type as it is bought: VMs of `per_vm` GPUs."""

    memory: Size = Field(description="of one GPU")
    per_vm: int = Field(default=8, ge=1, le=64, description="8: DGX and ND-series VMs of A100 and H100 (paper)")
    start: Duration = Field(
        default=10 * MINUTE,
        description="a VM from the cloud until it can load; 10 min as the paper's slowest start",
    )
    power: PowerSettings | None = Field(default=None, description="of one GPU, in watts; none: energy is not counted")


class PriceSettings(Settings):
    """Per hour of one VM, or of one GPU, in the scenario's currency."""

    on_demand: Price = Field(description="paid for what exceeds the reserved GPUs")
    reserved: Price | None = Field(default=None, description="none: everything is paid on demand, as in the paper")
    spot: Price = Field(default=0.0, description="what a donated VM earns; 0: donations are counted in hours only")
    per: Literal["vm", "gpu"] = Field(default="vm", description="what these prices are of: a VM, as clouds have them, or a GPU")

    @property
    def committed(self) -> float:
        """What is reserved costs this: the price reserved, or that on demand where there is no other."""
        return self.on_demand if self.reserved is None else self.reserved

    def of_gpu(self, price: float, per_vm: int) -> float:
        """One of these prices, of one GPU of a VM of so many."""
        return price if self.per == "gpu" else price / per_vm


class StockSettings(Settings):
    """What a region owns or may hold of one GPU type."""

    gpus: int = Field(ge=0, description="the most GPUs that can be held at once, starting and donated ones included")
    reserved: int = Field(
        default=0, ge=0, description="of these, committed: paid at the reserved price, used or not; 0: nothing reserved"
    )
    price: PriceSettings = Field(description="of one VM, or of one GPU")


Grams = Annotated[float, Field(ge=0, lt=1_000_000)]


class RegionSettings(Settings):
    """A data-centre region: GPUs by type, and median round-trip times to other regions."""

    gpus: dict[Name, StockSettings] = Field(description="stock by GPU type")
    rtt: dict[Name, Duration] = Field(
        default_factory=dict,
        description="to other regions; one direction is enough, the other is taken as equal",
    )
    local_rtt: Duration = Field(
        default=5_000, description="within the region: measured medians between US data centres are 3-10 ms"
    )
    carbon: Grams | Annotated[tuple[Grams, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="g of CO2 equivalents per kWh of its grid: a number, a list by the hour from the start of the window, or a "
        "CSV file with the column g_per_kwh; none: CO2 is not counted",
    )
