"""The present state of a live fleet as one value: for `status --json`, `top`, and the live page.

Names instead of numbers, seconds instead of microseconds. Read from the fleet, the fleet view and the queue; changes nothing.
Read next: `process.py`, which hands it out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from sageserve.base.config import Scenario
from sageserve.base.units import SECOND, Micros
from sageserve.base.version import __version__
from sageserve.core.fleet import Fleet, State
from sageserve.data.results.journal import Stamped
from sageserve.live.control.fleet_view import FleetView
from sageserve.live.control.live_rollouts import RolloutStatus
from sageserve.live.control.sleeping import Sleeping
from sageserve.live.wire import layout_mark, settings_mark


class InstanceStatus(Struct, frozen=True):
    """One instance that is not off."""

    instance: int
    pool: str
    state: str
    since_s: float
    url: str
    in_flight: int  # requests there now
    kv: float | None  # share of its memory in use, None when it was not seen
    seen_s: float | None  # age of that
    metrics: str = "/metrics"  # path of its metrics, below its URL


class PodsStatus(Struct, frozen=True):
    """Pods of a pool whose instances follow them, by what they are; `late` are among those that come."""

    ready: int
    coming: int
    late: int
    unschedulable: int
    gated: int  # held back by a quota
    leaving: int
    why: str  # what the scheduler says of one that cannot come, or which gate holds it
    start_s_p50: float | None  # measured from a pod's creation to its being Ready; None: too few were seen
    start_s_p95: float | None


class PoolStatus(Struct, frozen=True):
    """A pool's instances by state."""

    pool: str
    serving: int
    coming: int
    draining: int
    spot: int
    maximum: int
    pods: PodsStatus | None = None  # None: its instances follow no pods


class EndpointStatus(Struct, frozen=True):
    """One model in one region."""

    endpoint: str
    region: str
    model: str
    utilisation: float
    kv: float
    busy: float
    blind: bool
    waiting_batch: int  # jobs of the model, in all regions
    pools: tuple[PoolStatus, ...]
    pressure: float = 0.0  # asked for beyond all there is; utilisation, kv and busy are 1 at most
    slack_batch_s: float | None = None  # to the first deadline of what waits of the model; None: nothing that may begin now
    sleep: str = ""  # asleep, waking or awake; empty: it keeps an instance always
    held: int = 0  # requests that wait for an instance of it


class TierStatus(Struct, frozen=True):
    """A service class since this control process began."""

    tier: str
    requests: int
    finished: int
    refused: int
    on_time: int


class DecisionStatus(Struct, frozen=True):
    """One decision, in words."""

    wall_s: float
    pool: str
    change: int
    done: int
    reason: str
    blocked: str
    words: str


class GatewayAddress(Struct, frozen=True):
    """Where clients go."""

    url: str
    processes: int
    knowing: int  # of these, processes that know of every instance that may receive requests


class GatewayStatus(Struct, frozen=True):
    """A gateway process that is connected."""

    host: str  # machine or pod; empty: it did not say
    worker: int
    release: str  # of the program; empty: it did not say
    layout: str  # mark of regions, models, GPUs and maxima: control listens to no other than its own
    settings: str  # mark of all settings
    heard_s: float  # since its last report
    knowing: bool  # of every instance that may receive requests
    requests: int  # that it has at engines


class QueueRole(Struct, frozen=True):
    """Which of the control processes that share a batch queue this one is.

    Args:
        role: leader, which runs it, or standby.
        leader: name of the one that leads, as last read; empty: none does.
        epoch: how often that changed.
        heard_s: since it was read; None: it was not yet.
        trouble: why it cannot be read or written; empty: it can.
    """

    role: Literal["leader", "standby"]
    leader: str
    epoch: int
    heard_s: float | None
    trouble: str = ""

    @property
    def words(self) -> str:
        """In a sentence."""
        if self.trouble:
            return f"Who runs the batch queue is not known: {self.trouble}."
        if self.role == "leader":
            return f"This process runs the batch queue (epoch {self.epoch})."
        led = f"{self.leader} runs it (epoch {self.epoch})" if self.leader else "nobody runs it yet"
        return f"This process stands by for the batch queue: {led}."


class Status(Struct, frozen=True):
    """Everything.

    Args:
        fleet: the scenario's name.
        strategy: the rule that scales.
        acting: decisions are carried out, and not only written down.
        gateway: where clients go.
        gateways: processes that are connected; `layout` and `settings` of control, to compare.
        up_s: seconds since this control process began.
        scraped_s: seconds since the engines were last looked at.
        gpus_held: GPUs that instances hold now.
        endpoints: model by model and region by region.
        instances: those that are not off.
        tiers: promises.
        decisions: latest first.
        notes: what the reader should know, in sentences.
        ended: instances that hung and were ended since this control process began.
        failing: a sentence for each pool whose starts go on failing; they are notes, too, from the first one on.
        rollouts: of this fleet, since it is up, the latest first.
        queue: which of the control processes that share its batch queue this one is; None: no other could have it open.
        watched: servers through which a fleet that others run is seen; none: it is ours, and there is a gateway.
    """

    fleet: str
    strategy: str
    acting: bool
    gateway: GatewayAddress
    up_s: float
    scraped_s: float
    gpus_held: int
    endpoints: tuple[EndpointStatus, ...]
    instances: tuple[InstanceStatus, ...]
    tiers: tuple[TierStatus, ...]
    decisions: tuple[DecisionStatus, ...]
    notes: tuple[str, ...] = ()
    ended: int = 0
    failing: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    rollouts: tuple[RolloutStatus, ...] = ()
    gateways: tuple[GatewayStatus, ...] = ()
    layout: str = ""
    settings: str = ""
    queue: QueueRole | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """What a status is read from.

    Args:
        scenario: as it is served.
        fleet: instances.
        fleet view: gateways and engines.
        now: the loop's clock.
        waiting: batch work that waits, by model.
        slack: microseconds to the first deadline of that, by model.
        recent: journal lines, oldest first.
        words: a decision in a sentence.
        url: of the gateway.
        sleeping: endpoints that may have no instance; None: none may.
        role: which of the control processes of its batch queue this one is.
    """

    scenario: Scenario
    fleet: Fleet
    view: FleetView
    now: Callable[[], Micros]
    waiting: Callable[[], tuple[int, ...]]
    slack: Callable[[], tuple[Micros | None, ...]]
    recent: Callable[[], Iterable[Stamped]]
    words: Callable[[Stamped], tuple[str, ...]]
    url: str
    sleeping: Sleeping | None = None
    role: Callable[[], QueueRole | None] = lambda: None


def status(
    sources: Sources,
    notes: tuple[str, ...] = (),
    ended: int = 0,
    failing: tuple[str, ...] = (),
    rollouts: tuple[RolloutStatus, ...] = (),
) -> Status:
    """The present state."""
    scenario, fleet, now = sources.scenario, sources.fleet, sources.now()
    live = scenario.live
    return Status(
        fleet=scenario.name,
        strategy=scenario.strategy.name,
        acting=live is None or (live.safety.act and live.ours),  # what others run is only watched
        gateway=GatewayAddress(sources.url, len(sources.view.gateways), sources.view.knowing()),
        up_s=now / SECOND,
        scraped_s=(now - sources.view.scraped) / SECOND,
        gpus_held=sum(len(gpus) for gpus in fleet.gpus),
        endpoints=_endpoints(sources),
        instances=tuple(_instances(sources)),
        tiers=_tiers(sources),
        decisions=_decisions(sources),
        notes=notes,
        ended=ended,
        failing=failing,
        rollouts=rollouts,
        gateways=tuple(_gateways(sources)),
        layout=layout_mark(sources.view.layout),
        settings=settings_mark(scenario),
        queue=sources.role(),
    )


def _gateways(sources: Sources) -> Iterable[GatewayStatus]:
    now, view = sources.now(), sources.view
    for _, one in sorted(view.gateways.items(), key=lambda item: (item[1].host, item[1].worker, item[0])):
        requests = sum(count.in_flight for count in one.instances.values())
        knowing = view.knows(one)
        mark = (one.release, one.layout, one.settings)
        yield GatewayStatus(one.host, one.worker, *mark, (now - one.heard_at) / SECOND, knowing, requests)


def differing(sources: Sources) -> tuple[str, ...]:
    """Gateways with other settings than control, in sentences; those of another release may differ in defaults."""
    ours, view = settings_mark(sources.scenario), sources.view
    return tuple(
        f"{one.name} has other settings than control (mark {one.settings}, control's is {ours}): "
        + (f"it is of release {one.release}." if one.release != __version__ else "give both the same scenario.")
        for one in view.gateways.values()
        if one.settings not in {"", ours}
    )


def _endpoints(sources: Sources) -> tuple[EndpointStatus, ...]:
    view, fleet = sources.view, sources.fleet
    names, blind, waiting, slack = view.layout.names, view.blind(), sources.waiting(), sources.slack()
    found = []
    for e, row in enumerate(view.endpoints):
        pools = view.layout.endpoint_pools(e)
        if not pools:
            continue
        counts = tuple(
            PoolStatus(
                pool.name,
                fleet.serving(pool.number),
                fleet.coming(pool.number),
                fleet.count(pool.number, State.DRAINING),
                fleet.count(pool.number, State.SPOT),
                pool.end - pool.begin,
            )
            for pool in pools
        )
        first = slack[pools[0].model]
        found.append(
            EndpointStatus(
                view.layout.endpoint_name(e),
                names.regions[pools[0].region],
                names.models[pools[0].model],
                min(1.0, float(row["seen"])),
                min(1.0, float(row["kv"])),
                min(1.0, float(row["busy"])),
                e in blind,
                waiting[pools[0].model],
                counts,
                max(0.0, float(row["seen"]) - 1.0),
                None if first is None else first / SECOND,
                *_sleep(sources.sleeping, e),
            )
        )
    return tuple(found)


def _sleep(sleeping: Sleeping | None, endpoint: int) -> tuple[str, int]:
    """How an endpoint that may have no instance is, and who waits for one."""
    if sleeping is None or (state := sleeping.state(endpoint)) is None:
        return "", 0
    return str(state), sleeping.held(endpoint)


def _instances(sources: Sources) -> Iterable[InstanceStatus]:
    fleet, view, now = sources.fleet, sources.view, sources.now()
    for i, state in enumerate(fleet.state):
        if state is State.OFF:
            continue
        here = view.opened.get(i)
        was_seen = here is not None and here.seen_at >= 0
        yield InstanceStatus(
            i,
            fleet.pools[fleet.pool_of[i]].name,
            state.name.lower(),
            (now - fleet.since[i]) / SECOND,
            here.place.url if here is not None else "",
            int(view.in_flight[i]),
            here.kv if here is not None and was_seen else None,
            (now - here.seen_at) / SECOND if here is not None and was_seen else None,
            here.place.metrics if here is not None else "/metrics",
        )


def _tiers(sources: Sources) -> tuple[TierStatus, ...]:
    names, totals = sources.view.layout.names, sources.view.totals
    shape = (-1, len(names.tiers))
    columns = [
        column.reshape(shape).sum(axis=0).tolist()
        for column in (totals.requests, totals.finished, totals.refused, totals.on_time)
    ]
    return tuple(TierStatus(tier, *numbers) for tier, *numbers in zip(names.tiers, *columns, strict=True))


def _decisions(sources: Sources) -> tuple[DecisionStatus, ...]:
    found = []
    for stamped in sources.recent():
        for decided, words in zip(stamped.line.decisions, sources.words(stamped), strict=True):
            one = decided.decision
            found.append(DecisionStatus(stamped.wall / 1e6, decided.pool, one.change, one.done, one.reason, one.blocked, words))
    return tuple(reversed(found))
