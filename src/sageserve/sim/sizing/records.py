"""The answer of `sageserve size`: a fleet, what it takes to buy it, how sure it is, why it is not smaller. Nothing is computed.

Keys are stable. Read next: `run.py`, which fills it; docs/how-to/how-many-gpus.md.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from sageserve.data.results.summary import GpuCounts

HOURS_PER_MONTH = 730
"""Of 8,760 in a year: what clouds bill by."""


class FleetLine(Struct, frozen=True):
    """One pool: `instances` of `model` on `gpu` in `region`, and the GPUs they hold together.

    Args:
        region: its name.
        model: its name.
        gpu: type.
        instances: of the model.
        gpus: of all of them.
        role: prefill or decode where these are apart; left out where they are not.
    """

    region: str
    model: str
    gpu: str
    instances: int
    gpus: int
    role: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def pool(self) -> str:
        """region/model/gpu, with its role where it has one."""
        name = f"{self.region}/{self.model}/{self.gpu}"
        return name if isinstance(self.role, msgspec.UnsetType) else f"{name}/{self.role}"


class OneLess(Struct, frozen=True):
    """Why a pool has not one instance less.

    Args:
        pool: region/model/gpu.
        why: `breaks` a promise in a window that was played; `unsure` that it holds in another; `minimum`, the scenario's;
            `backlog`, more work arrives than it can do; `last`, no other instance runs the model; `none`, it has none, and other
            pools carry what enters its region; `unused`, nothing asks for the model.
        tier: whose promise.
        share: of its requests in time, of `unsure` the safety; None where there is no such number.
        window: seed of the window, of the tightest one; None where no single one is meant.
        needed: of `unsure`, the safety that is asked for of this promise alone.
        without: of `breaks`, what had been lost then; empty: nothing.
    """

    pool: str
    why: Literal["breaks", "unsure", "minimum", "backlog", "last", "none", "unused"]
    tier: str = ""
    share: float | None = None
    window: int | None = None
    needed: float | None = None
    without: str = ""


class QuotaLine(Struct, frozen=True):
    """GPUs of one type in one region.

    Args:
        gpus: that the fleet needs, in whole VMs.
        vms: the same in VMs.
        stock: GPUs that the scenario says there are.
        ask: GPUs beyond them.
    """

    gpus: int
    vms: int
    stock: int
    ask: int


class CostLine(Struct, frozen=True):
    """What GPUs of one type in one region cost in a month, in the currency of the scenario; cents add up.

    Args:
        reserved_gpus: committed, paid whether they are used or not.
        reserved_per_gpu_hour: price.
        reserved: dollars of a month.
        on_demand_gpus: those of whole VMs beyond, in the mean.
        on_demand_per_gpu_hour: price.
        on_demand: dollars of a month.
    """

    reserved_gpus: int
    reserved_per_gpu_hour: float
    reserved: float
    on_demand_gpus: float
    on_demand_per_gpu_hour: float
    on_demand: float


class ReserveLine(Struct, frozen=True):
    """What would be cheapest to reserve of one type in one region, solved over how long how many GPUs are in use.

    Args:
        gpus: to reserve, in whole VMs.
        per_month: cost of a month with that, the rest on demand.
    """

    gpus: int
    per_month: float


class PromiseProof(Struct, frozen=True):
    """A tier's promise over all models: of the model that is least sure of it.

    Args:
        safety: chance that it holds in a window that was not played.
        low: the share of requests in time that such a window keeps at least, with the confidence asked for.
        percentile: the share that is promised.
        kept_least: the least share that was kept in a window.
        model: which one.
        target: the share that was sized for: the percentile, or where that is out of reach its share of what is in reach.
        reach: where the promise is out of reach, the share that idle engines serve in time.
        needed: the safety that is asked for of this promise alone; None: its requests are so few that none may be late, or that
            a fleet that is late for none cannot be shown to be that safe; that all windows keep it is what is asked for.
    """

    safety: float
    low: float
    percentile: float
    kept_least: float
    model: str
    target: float
    reach: float | None = None
    needed: float | None = None

    @property
    def kept(self) -> bool:
        """It held in every window, and is as safe as was asked for."""
        return self.kept_least >= self.percentile and (self.needed is None or self.safety >= self.needed)


class Growth(Struct, frozen=True):
    """Traffic that was sized for beyond what there is, and what it would be without.

    Args:
        factor: times the requests there are.
        gpus_without: of whole VMs, for the traffic there is.
        cost_per_month_usd_without: of them.
    """

    factor: float
    gpus_without: int
    cost_per_month_usd_without: float


class Survival(Struct, frozen=True):
    """What is survived, and what it would be without.

    Args:
        what: `region` or `vm`: any one of them may be lost for as long as a window lasts.
        gpus_without: of whole VMs, for a fleet that loses nothing, with the same traffic.
        cost_per_month_usd_without: of them.
    """

    what: str
    gpus_without: int
    cost_per_month_usd_without: float


class Nine(Struct, frozen=True):
    """The same fleet with one more nine of safety.

    Args:
        safety: a tenth of the doubt.
        gpus: of whole VMs; None: no fleet was found that is as safe.
        cost_per_month_usd: of them.
    """

    safety: float
    gpus: int | None
    cost_per_month_usd: float | None


class Lead(Struct, frozen=True):
    """By when to ask for quota.

    Args:
        lead_s: seconds from asking until it is there.
        reached_s: seconds from the traffic there is until that which was sized for, as the scenario grows; 0: it is there.
    """

    lead_s: float
    reached_s: float

    @property
    def due_s(self) -> float:
        """Seconds from the traffic there is until it must be asked for; below 0: it should have been."""
        return self.reached_s - self.lead_s


class Sizing(Struct, frozen=True):
    """The least fleet of constant size, or what a strategy needs.

    Args:
        fleet: its pools; of a strategy, the most instances it held.
        quota: by region/gpu.
        cost_per_month_usd: of 730 hours.
        proof: by tier.
        cost: by region/gpu, what the cost is made of.
        less: for each pool, why it has not one instance less.
        safety: that was asked for, of all promises together.
        windows: that were played.
        requests: of the first window.
        plays: of a window, in the search.
        scenario: its name.
        notes: of the trace, and of the search.
        reserve: by region/gpu, the cheapest reservation, where there is a price for it.
        strategy: whose needs these are; empty: of a fleet of constant size.
        growth: the condition on traffic, with its price; None: there is none.
        survive: the condition on losses, with its price; None: there is none. Proofs are then of the worst loss.
        nine: what one more nine of safety would take; None: it was not asked for.
        lead: by when to ask for quota; None: it was not asked for.
        counts: of a strategy, GPUs of each pool over time: highest peak and p99 of the windows, mean, lowest minimum.
        currency: of every amount, those called `_usd` too.
    """

    fleet: list[FleetLine]
    quota: dict[str, QuotaLine]
    cost_per_month_usd: float
    proof: dict[str, PromiseProof]
    cost: dict[str, CostLine]
    less: list[OneLess]
    safety: float
    windows: int
    requests: int
    plays: int
    scenario: str
    notes: tuple[str, ...] = ()
    reserve: dict[str, ReserveLine] = {}
    strategy: str = ""
    counts: dict[str, GpuCounts] = {}
    growth: Growth | None = None
    survive: Survival | None = None
    nine: Nine | None = None
    lead: Lead | None = None
    currency: str = "USD"

    @property
    def gpus(self) -> int:
        """Of whole VMs, all regions and types together."""
        return sum(line.gpus for line in self.quota.values())


def sizing_json(sizing: Sizing) -> bytes:
    """Indented, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(sizing), indent=2) + b"\n"
