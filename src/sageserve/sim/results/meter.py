"""What every request felt, measured where it entered: latencies with network time, and whether its promise was kept.

Works through the rows of a run in blocks that stay in the cache, and says what each tenant of a trace got, and what LoRA adapters
did. Decides nothing and writes nothing.
Read next: `summary.py` (what is made of it), `export.py` (how it becomes files).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from msgspec import UNSET as UNSAID
from msgspec import UnsetType
from numpy.typing import NDArray

from sageserve.base.config import ProfileSettings
from sageserve.base.records import UNSET, Bools, Ints
from sageserve.base.rng import stream
from sageserve.base.units import NEVER, SECOND
from sageserve.core.engine.timing import decoding_time, row_of
from sageserve.core.layout import Layout
from sageserve.data.billing.allocations import NO_TENANT, OTHERS, TENANTS
from sageserve.data.results.summary import AdapterCounts, Quantiles, TenantSummary
from sageserve.sim.kernel.state import DONE, PLACE, REFUSED, SHED
from sageserve.sim.run import Run

_DIGITS: Final = 6
_COLUMNS: Final = 6  # of a tenant and tier: requests, finished, shed, undecided, met, tokens of those that finished
_TOKENS: Final = _COLUMNS - 1
_TOGETHER: Final = 64  # sequences of an iteration, beside which what adapters take is shown
BLOCK: Final = 1 << 17  # rows: 8 MB of 64 bytes each; also the unit in which network times are drawn


@dataclass(frozen=True, slots=True)
class RequestBlock:
    """Some requests in order of arrival; all columns have n rows.

    Args:
        rows: REQUEST[n].
        served: int64[n], region of the instance; UNSET where it was never placed.
        ttft: int64[n] microseconds from arrival to the first token, network, every queue and the engine's front end
            (`first_token_ms`) included; UNSET: none.
        e2e: int64[n] microseconds from arrival to the last token; UNSET: not finished.
        met: bool[n], the promise was kept.
        undecided: bool[n], not finished and not late when the run was interrupted.
    """

    rows: NDArray[Any]
    served: Ints
    ttft: Ints
    e2e: Ints
    met: Bools
    undecided: Bools

    @property
    def finished(self) -> Bools:
        """bool[n]: the last token was made."""
        return (self.rows["state"] & PLACE) == DONE

    @property
    def refused(self) -> Bools:
        """bool[n]: longer than its model's context."""
        return (self.rows["state"] & PLACE) == REFUSED

    @property
    def shed(self) -> Bools:
        """bool[n]: turned away by admission, or given up in the batch queue."""
        return (self.rows["state"] & PLACE) == SHED


def instance_regions(layout: Layout) -> Ints:
    """int64[instances]: the region of each instance."""
    per_region = len(layout.names.models) * len(layout.roles) * layout.slots
    return np.arange(layout.instances, dtype=np.int64) // per_region


def arrived(run: Run) -> int:
    """How many requests have arrived: all, unless the run was interrupted or conversations were broken off."""
    return run.kernel.arrived() - run.unjudged


def blocks(run: Run) -> Iterator[RequestBlock]:
    """Every request that has arrived, in order."""
    regions = instance_regions(run.layout)
    tiers = list(run.scenario.tiers.values())
    batch = np.array([tier.batch for tier in tiers])
    gap = np.array([NEVER if tier.itl is None else tier.itl for tier in tiers], np.int64)
    for number, first in enumerate(range(0, arrived(run), BLOCK)):
        rows = run.requests[first : min(first + BLOCK, arrived(run))]
        instance = rows["instance"]
        served = np.where(instance == UNSET, UNSET, regions[instance])
        network = _network(run, number, rows["region"], served)
        arrival = rows["arrival"]
        away = network - arrival
        ttft = np.where(rows["first"] == UNSET, UNSET, rows["first"] + away)
        e2e = np.where(rows["finish"] == UNSET, UNSET, rows["finish"] + away)
        allowed = rows["deadline"] - arrival
        done = rows["finish"] != UNSET
        tier = rows["tier"]
        met = done & (np.where(batch[tier], e2e, ttft) <= allowed)
        if (gap < NEVER).any():
            met &= (rows["finish"] - rows["first"]) <= np.where(gap[tier] == NEVER, NEVER, gap[tier] * (rows["output"] - 1))
        undecided = np.zeros(len(rows), np.bool_)
        if run.partial:
            undecided = ~done & ~np.isin(rows["state"] & PLACE, (REFUSED, SHED)) & (rows["deadline"] > run.now)
        yield RequestBlock(rows, served, ttft, e2e, met, undecided)


def _network(run: Run, number: int, origin: NDArray[np.uint8], served: Ints) -> Ints:
    """Round trip between the region of origin and the one that serves, drawn around its median where the scenario says so."""
    medians = run.layout.rtt[origin, np.maximum(served, 0)]
    spread = run.scenario.faults.rtt_spread
    if spread == 0:
        return medians
    factor = np.exp(spread * stream(run.scenario.seed, f"rtt/{number}").standard_normal(len(medians)))
    return np.rint(medians * factor).astype(np.int64)


# ------------------------------------------------------------------------------------------------ by tenant


def tenants_of(run: Run) -> dict[str, TenantSummary]:
    """By name, who asked most first; beyond `TENANTS` together. Empty where the trace names none."""
    if run.tenants is None:
        return {}
    names = (NO_TENANT, *run.tenants.names)
    counts = _counts(run, run.tenants.codes.astype(np.int64) + 1, len(names))
    asked = counts[..., 0].sum(axis=1)
    order = [k for k in np.argsort(-asked, kind="stable").tolist() if asked[k]]
    shared, weights = run.scenario.shared, run.scenario.weights()
    found = {names[k]: _summary(run, counts[k], weights.get(names[k], 1.0) if shared else UNSAID) for k in order[:TENANTS]}
    rest = order[TENANTS:]
    return found | ({OTHERS: _summary(run, counts[rest].sum(axis=0))} if rest else {})


def _counts(run: Run, tenant: Ints, many: int) -> Ints:
    """int64[tenants, tiers, columns]."""
    tiers = len(run.layout.names.tiers)
    counts = np.zeros((many * tiers, _COLUMNS), np.int64)
    end = 0
    for block in blocks(run):
        first, end = end, end + len(block.rows)
        cell = tenant[first:end] * tiers + block.rows["tier"]
        columns = (np.ones(len(cell), np.bool_), block.finished, block.shed, block.undecided, block.met)
        for number, column in enumerate(columns):
            counts[:, number] += np.bincount(cell[column], minlength=many * tiers)
        tokens = block.rows["prompt"].astype(np.int64) + block.rows["output"]
        np.add.at(counts[:, _TOKENS], cell[block.finished], tokens[block.finished])
    return counts.reshape(many, tiers, _COLUMNS)


def _summary(run: Run, counts: Ints, weight: float | UnsetType = UNSAID) -> TenantSummary:
    requests, finished, shed = counts.sum(axis=0)[:3].tolist()
    attainment, tokens = {}, {}
    for name, (came, _, _, undecided, met, made) in zip(run.layout.names.tiers, counts.tolist(), strict=True):
        judged = came - undecided
        if came:  # rounded down, as that of the tier is
            attainment[name] = met * 10**_DIGITS // judged / 10**_DIGITS if judged else None
            tokens[name] = made
    return TenantSummary(requests, finished, shed, attainment, weight, tokens if run.scenario.shared else UNSAID)


# ----------------------------------------------------------------------------------------------- by adapter


def adapters_of(run: Run) -> dict[str, AdapterCounts]:
    """By model, what loading and waiting for slots came to; empty where no engine has slots, or nobody asks for an adapter."""
    kernel, found = run.kernel, {}
    if not kernel.world.record["adapted"]:
        return {}
    rows, codes = kernel.requests, kernel.world.arrays["adapter"]
    for m, name in enumerate(run.layout.names.models):
        ours = kernel.endpoints["model"] == m
        requests, loads = (int(counted[ours].sum()) for counted in (kernel.adapter_admitted, kernel.adapter_loads))
        if requests == 0:
            continue
        mine = (rows["model"] == m) & (codes != UNSET)
        waits = kernel.slot_wait[mine & (kernel.slot_wait > 0)]
        p50, p95, p99 = np.quantile(waits, [0.50, 0.95, 0.99]).tolist() if len(waits) else (None, None, None)
        found[name] = AdapterCounts(
            adapters=len(np.unique(codes[mine])),
            requests=requests,
            loads=loads,
            load_share=round(loads / requests, _DIGITS),
            waited=len(waits),
            wait_s=Quantiles(*(None if one is None else round(one / SECOND, _DIGITS) for one in (p50, p95, p99))),
            longest_wait_s=round(int(waits.max()) / SECOND, _DIGITS) if len(waits) else None,
        )
    return found


def told_of_slots(run: Run, found: Mapping[str, AdapterCounts]) -> Iterator[str]:
    """The same in words, and what strategies do not know of it."""
    for name, one in found.items():
        model = run.scenario.models[name]
        each = [*model.engines.values(), *model.decode_engines.values()]
        engines = [engine for engine in each if engine.adapters is not None]
        slots = "/".join(dict.fromkeys(str(engine.adapters.slots) for engine in engines if engine.adapters is not None))
        text = (
            f"{name}: {one.adapters:,} LoRA adapters, {slots} slots an engine; {one.loads:,} loads for {one.requests:,} requests"
        )
        if one.waited:
            text += f"; {one.waited:,} waited for a slot, {one.wait_s.p95:.3g} s at p95 and {one.longest_wait_s:.3g} s at most"
        yield text
        more = [(_most_for_adapters(engine, one.adapters), engine) for engine in engines]
        us, engine = max(more, key=lambda pair: pair[0])
        share = us / decoding_time(row_of(engine), float(min(_TOGETHER, engine.max_sequences)))
        if us:
            yield (
                f"{name}: plans do not know what adapters take, up to {us / 1e3:.3g} ms an iteration, {share:.1%} of one in which"
                f" {min(_TOGETHER, engine.max_sequences)} decode"
            )


def _most_for_adapters(engine: ProfileSettings, adapters: int) -> float:
    """Microseconds of an iteration in which as many slots compute as there are, or adapters."""
    told = engine.adapters
    return 0.0 if told is None else (told.any_us or 0.0) + min(told.slots or 0, adapters) * (told.adapter_us or 0.0)
