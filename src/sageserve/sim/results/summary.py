"""What is made of a run: attainment, latencies, GPU-hours by state, money. Every number is defined in docs/reference/summary.md.

Reads the run, changes nothing. Memory beside the run: 16 bytes per request. Read next: `meter.py` for what is measured per
request, `data/results/summary.py` for the records.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from sageserve.base.config import TierSettings
from sageserve.base.records import UNSET as NOWHERE
from sageserve.base.records import Floats, Ints
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.base.version import __version__
from sageserve.core.fleet import Pool, State
from sageserve.data.billing.allocations import Allocation, tables_of
from sageserve.data.results.summary import (
    AfterWindow,
    ConversationCounts,
    Hours,
    ModelSummary,
    ModelTier,
    PrefixCounts,
    Quantiles,
    RequestCounts,
    Summary,
    TierSummary,
    Utilisation,
)
from sageserve.sim.faults import true_layout
from sageserve.sim.kernel.state import reference_profiles
from sageserve.sim.results.allocation import allocations_of
from sageserve.sim.results.causes import CAUSES, KEPT, causes_of
from sageserve.sim.results.costs import cost_of_run, counts_of_run, curves_of_run, stock_counts_of_run
from sageserve.sim.results.energy import energy_of_run
from sageserve.sim.results.meter import RequestBlock, adapters_of, arrived, blocks, tenants_of, told_of_slots
from sageserve.sim.results.rollouts import rollouts_of
from sageserve.sim.results.starved import starved_of
from sageserve.sim.results.work import add_work_left
from sageserve.sim.run import Run, Talk, kernel_setup

_FOR_WANT = [CAUSES.index(cause) for cause in ("shed", "unfinished", "pace", "queue")]  # what more instances may help
_DIGITS = 6  # microseconds, and millionths of an hour or a dollar


@dataclass(slots=True)
class _Cell:
    """What one model's requests of one tier came to."""

    requests: int = 0
    finished: int = 0
    refused: int = 0
    shed: int = 0
    undecided: int = 0
    met: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    ttft: list[Ints] = field(default_factory=list)
    e2e: list[Ints] = field(default_factory=list)
    tpot: list[Floats] = field(default_factory=list)
    causes: Ints = field(default_factory=lambda: np.zeros(KEPT + 1, np.int64))

    def add(self, block: "_Sorted", part: slice, *, paced: bool) -> None:
        done = block.finished[part]
        self.requests += len(done)
        self.finished += int(done.sum())
        self.refused += int(block.refused[part].sum())
        self.shed += int(block.shed[part].sum())
        self.undecided += int(block.undecided[part].sum())
        self.met += int(block.met[part].sum())
        self.prompt_tokens += int(block.prompt[part][done].sum(dtype=np.int64))
        self.output_tokens += int(block.output[part][done].sum(dtype=np.int64))
        self.ttft.append(block.ttft[part][done])
        self.e2e.append(block.e2e[part][done])
        if paced:
            several = done & (block.output[part] > 1)
            self.tpot.append(block.after_first[part][several] / (block.output[part][several] - 1))
        self.causes += np.bincount(block.causes[part], minlength=KEPT + 1)


class _Sorted:
    """The columns of a block that are counted, in the order of cells (model x tiers + tier)."""

    def __init__(self, block: RequestBlock, causes: NDArray[np.uint8], tiers: int, cells: int) -> None:
        code = (block.rows["model"].astype(np.uint16) * tiers + block.rows["tier"]).astype(np.uint16)
        order = np.argsort(code, kind="stable")
        self.ends = np.cumsum(np.bincount(code, minlength=cells))
        self.finished, self.refused, self.shed = block.finished[order], block.refused[order], block.shed[order]
        self.undecided, self.met = block.undecided[order], block.met[order]
        self.prompt, self.output = block.rows["prompt"][order], block.rows["output"][order]
        self.ttft, self.e2e = block.ttft[order], block.e2e[order]
        self.causes = causes[order]
        self._rows, self._order = block.rows, order

    @cached_property
    def after_first(self) -> Ints:
        """int64[n]: microseconds from the first token to the last."""
        found: Ints = (self._rows["finish"] - self._rows["first"])[self._order]
        return found


def summarise(run: Run, cpu_s: float) -> Summary:
    """Everything worth knowing about a run.

    Args:
        run: finished or interrupted.
        cpu_s: CPU seconds that playing it took.
    """
    scenario, names = run.scenario, run.layout.names
    owed, idle, adapters = work_gpu_hours(run), _idle_shares(run), adapters_of(run)
    cells, late, minutes = _measure(run, float(owed.sum()))
    ledger, cost = run.fleet.ledger, cost_of_run(run)
    tiers = {name: _tier(tier, [row[k] for row in cells]) for k, (name, tier) in enumerate(scenario.tiers.items())}
    models = {name: _model(run, m, cells[m], idle, float(owed[m])) for m, name in enumerate(names.models)}
    every = [cell for row in cells for cell in row]
    came, finished, refused, shed = (
        sum(getattr(cell, name) for cell in every) for name in ("requests", "finished", "refused", "shed")
    )
    return Summary(
        version=__version__,
        scenario=scenario.name,
        strategy=scenario.strategy.name,
        order=scenario.order.kind,
        signal=scenario.signals.kind,
        seed=scenario.seed,
        partial=run.partial,
        window_s=_round(run.window / SECOND),
        played_s=_round(run.now / SECOND),
        requests=RequestCounts(came, finished, came - finished - refused - shed, refused, shed),
        tiers=tiers,
        models=models,
        gpu_hours=_hours(run, run.layout.pools, in_gpus=True, idle=idle),
        instance_hours=_hours(run, run.layout.pools, in_gpus=False, idle=idle),
        cost_usd=cost,
        currency=scenario.currency,
        cost_by=tables_of(allocations_of(run, cost, idle)),
        utilisation=_utilisation(run),
        after_window=late,
        starts=ledger.starts,
        start_failures=ledger.failures,
        reclaims=ledger.reclaims,
        spot_taken=ledger.taken,
        preemptions=run.kernel.preemptions - run.preempted_before,
        notes=(*run.notes, *told_of_slots(run, adapters)),
        cpu_s=_round(cpu_s),
        requests_per_cpu_s=_round(came / cpu_s) if cpu_s > 0 else None,
        gpus=counts_of_run(run),
        vm_gpus=stock_counts_of_run(run),
        vm_hours=curves_of_run(run),
        starved=starved_of(run, minutes, {m for m, row in enumerate(cells) if _fails(run, row)}),
        stocks=_stocks(run, idle),
        conversations=UNSET if run.talk is None else _conversations(run, run.talk),
        prefix_cache=_prefix_cache(run),
        adapters=adapters or UNSET,
        energy=energy_of_run(run, idle),
        rollouts=rollouts_of(run) or UNSET,
        tenants=tenants_of(run) or UNSET,
        own_code=run.own_code or UNSET,
        warm_up_s=_round(run.warm_up / SECOND) if run.warm_up else UNSET,
    )


def costs_of_run(run: Run) -> tuple[Allocation, ...]:
    """Who pays what, line by line; the summary's `cost_by` are sums of these."""
    return allocations_of(run, cost_of_run(run), _idle_shares(run))


def _prefix_cache(run: Run) -> PrefixCounts | UnsetType:
    """What requests that were placed found."""
    rows = run.requests[: arrived(run)]
    served = rows["instance"] != NOWHERE
    prompt, found = (int(rows[name].sum(dtype=np.int64, where=served)) for name in ("prompt", "cached"))
    return PrefixCounts(prompt, found, _round(found / prompt)) if found else UNSET


def _conversations(run: Run, talk: Talk) -> ConversationCounts:
    """What became of turns that waited for answers."""
    count = arrived(run)
    rows, waited = run.requests[:count], talk.waited[:count]
    served = rows[waited & (rows["instance"] != NOWHERE)]
    prompt = int(served["prompt"].sum(dtype=np.int64))
    return ConversationCounts(
        conversations=len(np.unique(talk.session[talk.waited])),
        followed=int(waited.sum()),
        never_arrived=0 if run.partial else len(run.requests) - count,
        after_window=int((waited & (rows["arrival"] >= run.window)).sum()),
        cached_share=_round(int(served["cached"].sum(dtype=np.int64)) / prompt) if prompt else None,
    )


def _fails(run: Run, row: list[_Cell]) -> bool:
    """Whether a model misses a promise."""
    found = zip(run.scenario.tiers.values(), (_attainment([cell]) for cell in row), strict=True)
    return any(share is not None and share < tier.percentile for tier, share in found)


def _measure(run: Run, owed: float) -> tuple[list[list[_Cell]], AfterWindow, Ints]:
    """Counts and latencies by [model][tier], what was finished after the window, and misses by [model, minute of arrival]."""
    models, tiers = len(run.layout.names.models), len(run.layout.names.tiers)
    cells = [[_Cell() for _ in range(tiers)] for _ in range(models)]
    paced = [tier.itl is not None for tier in run.scenario.tiers.values()]
    late, latest = 0, run.window
    minutes = np.zeros((models, run.window // MINUTE + 1), np.int64)
    for block in blocks(run):
        causes = causes_of(run, block)
        waited = block.rows[np.isin(causes, _FOR_WANT) & (block.rows["arrival"] < run.window)]
        np.add.at(minutes, (waited["model"], waited["arrival"] // MINUTE), 1)
        ordered = _Sorted(block, causes, tiers, models * tiers)
        for number, (first, end) in enumerate(pairwise([0, *ordered.ends.tolist()])):
            if end > first:
                k = number % tiers
                cells[number // tiers][k].add(ordered, slice(first, end), paced=paced[k])
        finish = block.rows["finish"]
        late += int((finish > run.window).sum())
        latest = max(latest, int(finish.max(initial=NOWHERE)))
    return cells, AfterWindow(late, _round((latest - run.window) / SECOND) if late else None, _round(owed)), minutes


def work_gpu_hours(run: Run) -> Floats:
    """float64[models]: GPU-hours of work that had arrived by the end of the window (or the interruption) and was not done.

    A model's work is taken at the speed of its fastest engine among those the fleet can hold, times that engine's GPUs.
    """
    fastest, profiles = reference_profiles(kernel_setup(run.scenario, run.layout)), true_layout(run.scenario, run.layout).profiles
    owed = np.zeros(len(fastest))
    add_work_left(run.requests[: arrived(run)], profiles, fastest, min(run.now, run.window), owed)
    hours: Floats = owed * profiles["gpus"][fastest] / HOUR
    return hours


def _tier(tier: TierSettings, cells: list[_Cell]) -> TierSummary:
    requests = sum(cell.requests for cell in cells)
    attainment = _attainment(cells)
    return TierSummary(
        requests=requests,
        finished=sum(cell.finished for cell in cells),
        undecided=sum(cell.undecided for cell in cells),
        attainment=attainment,
        percentile=tier.percentile,
        kept=None if attainment is None else attainment >= tier.percentile,
        promise="deadline" if tier.batch else "ttft",
        promise_s=_round(tier.patience / SECOND),
        ttft_s=_quantiles([part for cell in cells for part in cell.ttft]),
        e2e_s=_quantiles([part for cell in cells for part in cell.e2e]),
        shed=sum(cell.shed for cell in cells),
        itl_s=None if tier.itl is None else _round(tier.itl / SECOND),
        missed=_missed(cells),
        possible=_possible(cells),
        growth_s=_round(tier.growth / SECOND) if tier.growth else UNSET,
        tpot_s=UNSET if tier.itl is None else _quantiles([part for cell in cells for part in cell.tpot]),
    )


def _model(run: Run, m: int, cells: list[_Cell], idle: Floats, owed: float) -> ModelSummary:
    pools = tuple(pool for pool in run.layout.pools if pool.model == m)
    return ModelSummary(
        requests=sum(cell.requests for cell in cells),
        finished=sum(cell.finished for cell in cells),
        prompt_tokens=sum(cell.prompt_tokens for cell in cells),
        output_tokens=sum(cell.output_tokens for cell in cells),
        gpu_hours=_hours(run, pools, in_gpus=True, idle=idle),
        instance_hours=_hours(run, pools, in_gpus=False, idle=idle),
        tiers={name: _model_tier(cell) for name, cell in zip(run.layout.names.tiers, cells, strict=True)},
        work_gpu_hours=_round(owed),
    )


def _model_tier(cell: _Cell) -> ModelTier:
    pace = _quantiles(cell.tpot).p95
    return ModelTier(
        cell.requests,
        _attainment([cell]),
        _quantiles(cell.ttft).p95,
        _missed([cell]),
        _possible([cell]),
        tpot_s_p95=UNSET if pace is None else pace,
    )


def _missed(cells: list[_Cell]) -> dict[str, int]:
    """Requests that missed their promise, by cause; causes that nobody had are left out."""
    counts = sum((cell.causes for cell in cells), np.zeros(KEPT + 1, np.int64)).tolist()
    return {cause: count for cause, count in zip(CAUSES, counts, strict=False) if count}


def _possible(cells: list[_Cell]) -> float | None:
    """The share that an idle fleet could have kept."""
    judged = sum(cell.requests - cell.undecided for cell in cells)
    missed = _missed(cells)
    return _round(1.0 - (missed.get("alone", 0) + missed.get("network", 0)) / judged) if judged else None


def _attainment(cells: list[_Cell]) -> float | None:
    judged = sum(cell.requests - cell.undecided for cell in cells)
    # rounded down: a promise that was missed by one request in millions is not shown as kept
    return sum(cell.met for cell in cells) * 10**_DIGITS // judged / 10**_DIGITS if judged else None


def _quantiles(parts: Sequence[Ints | Floats]) -> Quantiles:
    """Of microseconds, in seconds; between two values it is interpolated."""
    if not sum(len(part) for part in parts):
        return Quantiles(None, None, None)
    values: Floats = np.quantile(np.concatenate(parts), [0.50, 0.95, 0.99], overwrite_input=True) / SECOND
    p50, p95, p99 = (_round(value) for value in values.tolist())
    return Quantiles(p50, p95, p99)


def _hours(run: Run, pools: tuple[Pool, ...], *, in_gpus: bool, idle: Floats) -> Hours:
    time, unused = dict.fromkeys(State, 0.0), 0.0
    for pool in pools:
        for state, gpu_us in zip(State, run.fleet.ledger.gpu_us[pool.number], strict=True):
            time[state] += gpu_us / (1 if in_gpus else pool.gpus)
            if state is State.SERVING:
                unused += float(idle[pool.endpoint]) * gpu_us / (1 if in_gpus else pool.gpus)
    waste = time[State.STARTING] + time[State.RECLAIMING] + time[State.DRAINING]
    smallest: dict[int, int] = {}
    for pool in pools:
        need = pool.floor * (pool.gpus if in_gpus else 1)
        smallest[pool.endpoint] = min(smallest.get(pool.endpoint, need), need)
    return Hours(
        total=_round((time[State.SERVING] + waste) / HOUR),
        serving=_round(time[State.SERVING] / HOUR),
        starting=_round(time[State.STARTING] / HOUR),
        reclaiming=_round(time[State.RECLAIMING] / HOUR),
        draining=_round(time[State.DRAINING] / HOUR),
        spot=_round(time[State.SPOT] / HOUR),
        waste=_round(waste / HOUR),
        floor=_round(sum(smallest.values()) * min(run.now, run.window) / HOUR),
        idle=_round(unused / HOUR) if run.timeline.length else None,
    )


def _stocks(run: Run, idle: Floats) -> dict[str, float]:
    """GPU-hours held by region/gpu."""
    stocks = enumerate(run.layout.stocks)
    return {stock.name: _hours(run, _of_stock(run, number), in_gpus=True, idle=idle).total for number, stock in stocks}


def _of_stock(run: Run, stock: int) -> tuple[Pool, ...]:
    return tuple(pool for pool in run.layout.pools if pool.stock == stock)


def _idle_shares(run: Run) -> Floats:
    """float64[endpoints]: share of their serving time in which engines had nothing to do, as sampled every minute."""
    serving, busy = run.timeline.column("serving"), np.minimum(run.timeline.column("busy"), 1)
    shares: Floats = 1.0 - (busy * serving).sum(axis=0) / np.maximum(serving.sum(axis=0), 1)
    return shares


def _utilisation(run: Run) -> Utilisation:
    serving = run.timeline.column("serving")
    held = int(serving.sum())
    if held == 0:
        return Utilisation(None, None, None, None)

    def mean(values: Floats) -> float:
        return _round(float((values * serving).sum()) / held)

    seen, kv, busy = (run.timeline.column(name) for name in ("seen", "kv", "busy"))
    pressure = mean(np.maximum(seen - 1, 0))
    return Utilisation(mean(np.minimum(seen, 1)), mean(np.minimum(kv, 1)), mean(np.minimum(busy, 1)), pressure)


def _round(value: float) -> float:
    return round(value, _DIGITS)
