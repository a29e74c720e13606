"""The records of summary.json: what a run cost, waste apart, and which promises were kept. Keys are stable; nothing is computed.

docs/reference/summary.md defines every key. `null` stands where there was nothing to measure.
Read next: `sim/results/summary.py`, which fills it from a simulation; `run_folder.py` for the files of a run.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sageserve.base.units import SECOND, show_duration
from sageserve.data.billing.allocations import CostTables


class Quantiles(Struct, frozen=True):
    """Seconds."""

    p50: float | None
    p95: float | None
    p99: float | None


class RequestCounts(Struct, frozen=True):
    """Every request that arrived is in exactly one of the other four."""

    arrived: int
    finished: int
    unfinished: int
    refused: int
    shed: int = 0  # turned away; 0 too in results written before anybody was


class TierSummary(Struct, frozen=True):
    """A tier's promise, and how it was kept."""

    requests: int
    finished: int
    undecided: int  # of an interrupted run: neither done nor late
    attainment: float | None
    percentile: float
    kept: bool | None
    promise: str  # "ttft" or "deadline"
    promise_s: float
    ttft_s: Quantiles
    e2e_s: Quantiles
    shed: int = 0  # turned away: missed
    itl_s: float | None = None  # between two tokens, promised beside the first; None: no such promise
    missed: dict[str, int] = {}  # by cause, adding up; empty in results written before causes were told
    possible: float | None = None  # of the requests, what an idle fleet could have kept
    growth_s: float | UnsetType = UNSET  # seconds that 1,000 tokens of prompt add to promise_s; unset: none
    tpot_s: Quantiles | UnsetType = UNSET  # for each token after the first, mean of a request; unset: no pace is promised

    @property
    def within(self) -> str:
        """How long the promise allows, in words: `500ms`, `500ms + 200ms/1k`."""
        text = show_duration(round(self.promise_s * SECOND))
        return text if self.growth_s is UNSET else f"{text} + {show_duration(round(self.growth_s * SECOND))}/1k"

    @property
    def words(self) -> str:
        """`within`, and the promised pace of tokens behind it: `500ms + 200ms/1k, 60ms/token`."""
        return self.within if self.itl_s is None else f"{self.within}, {show_duration(round(self.itl_s * SECOND))}/token"


class Hours(Struct, frozen=True):
    """Hours by state. `total` = serving + starting + reclaiming + draining, `waste` = the last three; `spot` is apart."""

    total: float
    serving: float
    starting: float
    reclaiming: float
    draining: float
    spot: float
    waste: float
    floor: float  # the minimum every endpoint keeps
    idle: float | None = None  # of `serving`, with nothing to do; None where nothing was sampled, and in results written before


class ModelTier(Struct, frozen=True):
    """One tier of one model."""

    requests: int
    attainment: float | None
    ttft_s_p95: float | None
    missed: dict[str, int] = {}  # by cause, adding up
    possible: float | None = None  # of the requests, what an idle fleet could have kept
    tpot_s_p95: float | UnsetType = UNSET  # for each token after the first; unset: no pace is promised


class ModelSummary(Struct, frozen=True):
    """One model in all regions."""

    requests: int
    finished: int
    prompt_tokens: int
    output_tokens: int
    gpu_hours: Hours
    instance_hours: Hours
    tiers: dict[str, ModelTier]
    work_gpu_hours: float | None = None  # its part of after_window's; None in results written before


class StockCost(Struct, frozen=True):
    """GPUs of one type in one region, in the scenario's currency; amounts are whole cents."""

    reserved_gpus: int  # committed, paid whether used or not
    reserved_gpu_hours: float
    reserved_per_gpu_hour: float
    reserved: float
    unused: float  # of `reserved`, for what no VM in use needed
    on_demand_gpu_hours: float  # of whole VMs beyond
    on_demand_per_gpu_hour: float
    on_demand: float
    spot_gpu_hours: float
    spot_per_gpu_hour: float
    spot_income: float


class Cost(Struct, frozen=True):
    """In the scenario's currency; what the spot market pays is not taken off the total. Sums of the cents of `lines`."""

    total: float
    reserved: float
    on_demand: float
    spot_income: float
    unused: float = 0.0  # of `reserved`; 0 too in results written before commitments were paid in full
    lines: dict[str, StockCost] = {}  # by region/gpu; empty in results written before


class StockEnergy(Struct, frozen=True):
    """Energy of GPUs of one type in one region."""

    busy_gpu_hours: float
    other_gpu_hours: float  # held, and not at work
    kwh: float
    kg_co2: float | None  # None where the region's grid is not said


class Energy(Struct, frozen=True):
    """Sums of `lines`."""

    kwh: float
    kg_co2: float | None
    lines: dict[str, StockEnergy]  # by region/gpu
    carbon_cost: float | None = None  # what the CO2 is worth at the scenario's carbon_price; in no bill. None: it has no price


class GpuCounts(Struct, frozen=True):
    """GPUs over the window: the most, what was enough in 99 % of the time, the mean and the least."""

    peak: int
    p99: int
    mean: float
    minimum: int


class Starved(Struct, frozen=True):
    """A time in which a model held all that it may, in every region that runs it, and missed promises.

    Args:
        model: its name.
        regions: that run it.
        begins_s: seconds from the start of the window.
        ends_s: likewise.
        limit: what stood against more: the pools' `maximum`, or the `stock` of a region.
        missed: requests that arrived meanwhile and waited too long, were turned away or never finished.
        held: instances that served or were coming, at most.
        more: instances beyond these that would be enough for the busiest five minutes, by the response curve.
    """

    model: str
    regions: tuple[str, ...]
    begins_s: float
    ends_s: float
    limit: Literal["maximum", "stock"]
    missed: int
    held: int
    more: int


class RevisionCounts(Struct, frozen=True):
    """Interactive requests that a revision was sent while a rollout went on, and those whose promise was broken."""

    requests: int
    missed: int


class RolloutSummary(Struct, frozen=True):
    """A new version of a model, and what became of it.

    Args:
        model: its name.
        step: how far it was at the end; `waiting`, `canary`, `rolling`, `done`, `back`, `undone` or `stopped`.
        why: of the last step that was not the end of another; empty where it did not begin.
        begun_s: seconds from the start of the window; None: it did not begin.
        ended_s: likewise; None: it was not over.
        old: requests of the old version from its begin to its end.
        new: likewise of the new one.
        missed_more: promises that the new version broke beyond the old one's share; None where the old one was asked nothing.
        surplus_gpu_hours: of instances that started beside those they were to replace, until one of these was drained.
        steps: each with its reason.
    """

    model: str
    step: str
    why: str
    begun_s: float | None
    ended_s: float | None
    old: RevisionCounts
    new: RevisionCounts
    missed_more: int | None
    surplus_gpu_hours: float
    steps: tuple[str, ...]


class Utilisation(Struct, frozen=True):
    """Means over serving instances and time; what is asked for beyond 1 counts as 1, and is a figure of its own."""

    mean: float | None  # of the signal that policies see
    kv: float | None
    busy: float | None
    pressure: float | None = None  # asked for beyond all there is, in units of it; None too in results written before it was told


class AfterWindow(Struct, frozen=True):
    """Work that was still to do when the window ended."""

    finished: int
    latest_s: float | None
    work_gpu_hours: float | None = None  # engine time still owed then; None in results written before it was counted


class TenantSummary(Struct, frozen=True):
    """What came of a tenant's requests; the share whose promise was kept, by tier that it asked for."""

    requests: int
    finished: int
    shed: int
    attainment: dict[str, float | None]
    weight: float | UnsetType = UNSET  # left out where nobody shares, and of several together
    tokens: dict[str, int] | UnsetType = UNSET  # of prompts and answers of what finished, by tier; left out where nobody shares


class ConversationCounts(Struct, frozen=True):
    """Turns that wait for the answer before them, in a closed loop."""

    conversations: int  # that have such turns
    followed: int  # turns that arrived after that answer
    never_arrived: int  # turns without one: a turn before them was refused, shed or not finished
    after_window: int  # of those that followed, the ones that arrived after the window
    cached_share: float | None  # of their prompt tokens, where they were served


class PrefixCounts(Struct, frozen=True):
    """What served requests found in prefix caches."""

    prompt_tokens: int  # of requests that were served
    found_tokens: int  # of these, what needed no computing
    share: float


class AdapterCounts(Struct, frozen=True):
    """What became of requests for LoRA adapters of a model, those of a warm-up included."""

    adapters: int  # that were asked for
    requests: int  # for adapters that were admitted, again after a preemption included
    loads: int  # adapters that were brought into a slot for them
    load_share: float  # loads / requests
    waited: int  # requests that were passed over until a slot was free
    wait_s: Quantiles  # how long these were
    longest_wait_s: float | None


class Summary(Struct, frozen=True):
    """summary.json."""

    version: str
    scenario: str
    strategy: str
    order: str
    signal: str
    seed: int
    partial: bool
    window_s: float
    played_s: float
    requests: RequestCounts
    tiers: dict[str, TierSummary]
    models: dict[str, ModelSummary]
    gpu_hours: Hours
    instance_hours: Hours
    cost_usd: Cost
    utilisation: Utilisation
    after_window: AfterWindow
    starts: int
    start_failures: int
    reclaims: int
    spot_taken: int
    preemptions: int
    notes: tuple[str, ...]
    cpu_s: float
    requests_per_cpu_s: float | None
    currency: str = "USD"  # of cost_usd and cost_by, as the scenario's prices are
    cost_by: CostTables = CostTables()  # by who caused it, each table adding up to the total
    gpus: dict[str, GpuCounts] = {}  # held by region/model/gpu, donated ones apart; empty in results written before
    vm_gpus: dict[str, GpuCounts] = {}  # of the VMs in use by region/gpu
    vm_hours: dict[str, dict[int, float]] = {}  # by region/gpu, hours in which so many GPUs of VMs were in use
    stocks: dict[str, float] = {}  # GPU-hours held by region/gpu; empty in results written before they were counted
    starved: tuple[Starved, ...] = ()  # times in which more instances than there may be were needed
    conversations: ConversationCounts | msgspec.UnsetType = msgspec.UNSET  # left out where every request arrived by itself
    prefix_cache: PrefixCounts | msgspec.UnsetType = msgspec.UNSET  # left out where nobody found anything
    adapters: dict[str, AdapterCounts] | UnsetType = UNSET  # by model; left out where nobody was served by an adapter's slot
    energy: Energy | UnsetType = UNSET  # left out where the scenario gives no power
    rollouts: tuple[RolloutSummary, ...] | UnsetType = UNSET  # left out where the scenario has none
    tenants: dict[str, TenantSummary] | UnsetType = UNSET  # who asked most first; left out where the trace names none
    warm_up_s: float | UnsetType = UNSET  # played before the window, not judged; left out where all was
    own_code: dict[str, str] | msgspec.UnsetType = (
        msgspec.UNSET
    )  # SHA-256 of the user's strategy and forecasters, where there are any


def summary_json(summary: Summary) -> bytes:
    """The bytes of summary.json: indented, one key per line, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def parse_summary(text: bytes) -> Summary:
    """A summary from its JSON.

    Raises:
        msgspec.DecodeError: not a summary.
    """
    return msgspec.json.decode(text, type=Summary)
