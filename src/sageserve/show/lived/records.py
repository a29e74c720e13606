"""The records of a stretch of a live fleet: what it held, which promises were kept, whose requests came. Nothing is computed.

Names are those of summary.json where the meaning is the same. None stands for what was not kept, and `left_out` says why.
Read next: `read.py`, which fills them in; docs/how-to/operate.md.
"""

from msgspec import Struct

from sageserve.data.results.summary import Quantiles
from sageserve.show.choices import Choices


class LivedHours(Struct, frozen=True):
    """GPU-hours by state; `total` = serving + starting + reclaiming + draining, `waste` = the last three; `spot` is apart."""

    total: float
    serving: float
    starting: float
    reclaiming: float
    draining: float
    waste: float
    spot: float


class LivedCost(Struct, frozen=True):
    """What instances held, at the prices of the settings; reserved GPUs are paid whether they were used or not."""

    total: float
    reserved: float
    on_demand: float
    spot_income: float


class LivedPool(Struct, frozen=True):
    """Instances of a pool that served: hours, the most and the mean."""

    instance_hours: float
    peak: int
    mean: float


class LivedTier(Struct, frozen=True):
    """A service class.

    Args:
        requests: that came.
        missed: answered later than promised, or turned away; None: not known.
        attainment: share of the others; None: not known, or nobody asked.
        percentile: share that is promised.
        promise: in words.
        lines: requests of which a line was kept; the rest of this is of them alone.
        answered: of these; None where no lines were kept, as below.
        turned_away: with 429.
        left: their clients did.
        failed: every other one.
        first_s: until the first of an answer came, of those answered; of an answer that was not streamed, all of it.
        e2e_s: until its end.
    """

    requests: int
    missed: int | None
    attainment: float | None
    percentile: float
    promise: str
    lines: int = 0
    answered: int | None = None
    turned_away: int | None = None
    left: int | None = None
    failed: int | None = None
    first_s: Quantiles | None = None
    e2e_s: Quantiles | None = None


class LivedTenant(Struct, frozen=True):
    """What came with the keys of a name, as far as lines were kept."""

    requests: int
    answered: int
    turned_away: int
    prompt_tokens: int
    output_tokens: int


class LivedReport(Struct, frozen=True):
    """A stretch of a fleet that ran.

    Args:
        fleet: the scenario's name.
        strategy: the rule that decides, by the settings in force now.
        begins_s: the first minute, seconds since 1970.
        ends_s: the end of the last one.
        hours: that were taken down; what lies between was not, for nothing ran or nobody looked.
        requests: that came.
        pools: by name.
        gpu_hours: None where the journal does not reach.
        cost: likewise.
        tiers: by name, in the order of the settings.
        tenants: those that asked most first; empty where no lines were kept.
        starts: instances that were started; None where the journal does not reach, as below.
        start_failures: starts that came to nothing, and instances that died.
        reclaims: instances taken back from the spot market.
        spot_taken: donated instances that the cloud took.
        choices: what was decided, as far as the journal goes back.
        left_out: what cannot be known, and why.
        notes: what the reader should know, in sentences.
        currency: of the cost.
    """

    fleet: str
    strategy: str
    begins_s: float
    ends_s: float
    hours: float
    requests: int
    pools: dict[str, LivedPool]
    gpu_hours: LivedHours | None
    cost: LivedCost | None
    tiers: dict[str, LivedTier]
    tenants: dict[str, LivedTenant]
    starts: int | None
    start_failures: int | None
    reclaims: int | None
    spot_taken: int | None
    choices: Choices
    left_out: dict[str, str]
    notes: tuple[str, ...]
    currency: str
