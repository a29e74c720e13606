"""Play a trace through a fleet: the shell that connects kernel, simulated world and controller in virtual time.

At one instant: the scrape, events of the world in order of creation, the demand and timeline sample (every minute), the
controller's look at the fleet, then arrivals and engines. GPU-hours are counted over the trace's window; what still waits then
is run to its end. Read next: `world.py`, `core/controller.py`; `sim/results/summary.py` for what is made of a run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import Infeasible, TraceError
from sageserve.base.records import UNSET, Bools, Demand, Labels, Trace
from sageserve.base.sessions import Turns, closed_loop
from sageserve.base.units import DAY, Micros, show_duration
from sageserve.core.controller import Controller
from sageserve.core.events import DemandSeen, EndpointSeen, EnginesSeen, Observed
from sageserve.core.fleet import Fleet
from sageserve.core.invariants import check_fleet
from sageserve.core.layout import Layout
from sageserve.core.order import ORDERS, promised_us
from sageserve.core.own_rules import own_rules
from sageserve.core.perf import OUTPUT_GUESS
from sageserve.core.rollout import Rollout
from sageserve.core.route import INSTANCES, ROUTES
from sageserve.core.signals import SIGNALS
from sageserve.core.strategies import kind_of, layout_of, sleepers_of
from sageserve.core.work import AnyEvent, Entry, Solved, SolvedAhead, entry
from sageserve.data.own_code import own_code
from sageserve.sim.doors import SimulatedDoor
from sageserve.sim.faults import SimulatedSight, told_of_outages, true_layout
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.prefixes.tree import prefixes_of
from sageserve.sim.kernel.rows.adapters import adapters_of, apart_by_adapter, told_of_adapters
from sageserve.sim.kernel.rows.shares import sharers_of, told_of_tenants
from sageserve.sim.kernel.state import FUTURE, PLACE, Setup, request_rows
from sageserve.sim.revisions import SimulatedRevisions, plans_of, revised, too_late
from sageserve.sim.timeline import SAMPLE, Timeline, check_warm_up
from sageserve.sim.world import SimulatedWorld

_PATIENCE = DAY  # beyond the longest deadline: work that is not done by then never will be


@dataclass(slots=True)
class Talk:
    """The conversations of a closed loop, in the order of a run's requests; columns of n rows.

    Args:
        session: int32[n], rows of `names`; UNSET for requests of no session.
        number: int32[n], which turn of its session each is, from 1; UNSET for requests of no session.
        waited: bool[n], it waits for the answer before it.
        names: of sessions.
    """

    session: NDArray[np.int32]
    number: NDArray[np.int32]
    waited: Bools
    names: tuple[str, ...]


@dataclass(slots=True)
class Run:
    """A simulation and everything it left behind.

    Args:
        scenario: what was simulated.
        layout: the numbers behind its names.
        window: the length of time GPU-hours were counted over.
        notes: what the reader or generator of the trace said, and what went wrong on the way.
        requests: REQUEST rows; at the end in order of arrival, those that never arrived last.
        fleet: as it was at the end; its ledger was closed at the end of the window.
        kernel: engines as they were at the end.
        timeline: minute by minute.
        journal: decisions, actions and life-cycle events.
        partial: it was interrupted.
        talk: at the end, who waited for whom; None: every request arrived by itself.
        own_code: hash of the source of all code of the user's.
        tenants: of the requests, in their order; None where the trace names none.
        rollouts: new revisions of models, and what became of them.
        revisions: what each instance ran when; None before anything was played.
        warm_up: microseconds played before the window; at the end all times count from its end.
        unjudged: requests that arrived in it, and are no longer among `requests` at the end.
        preempted_before: preemptions in it.
    """

    scenario: Scenario
    layout: Layout
    window: Micros
    notes: tuple[str, ...]
    requests: NDArray[Any]
    fleet: Fleet
    kernel: Kernel
    timeline: Timeline
    journal: list[Entry] = field(default_factory=list)
    partial: bool = False
    talk: Talk | None = None
    own_code: dict[str, str] = field(default_factory=dict)
    tenants: Labels | None = None
    rollouts: tuple[Rollout, ...] = ()
    revisions: SimulatedRevisions | None = None
    warm_up: Micros = 0
    unjudged: int = 0
    preempted_before: int = 0

    @property
    def now(self) -> Micros:
        """How far it was played."""
        return self.kernel.now - self.warm_up

    def begin_after(self, warm_up: Micros) -> None:
        """Leave what was played before an instant out of everything that is judged, and count times from it."""
        rows = self.requests
        came = int(((rows["state"] & PLACE) != FUTURE).sum())
        first = int(np.searchsorted(rows["arrival"][:came], warm_up))
        for name in ("arrival", "first", "finish", "deadline"):
            times = rows[name][first:came]
            np.subtract(times, warm_up, out=times, where=times != UNSET)
        self.warm_up, self.unjudged, self.requests = warm_up, first, rows[first:]
        self.window = max(self.window - warm_up, 0)
        self.timeline.begin_at(warm_up)
        self.journal = [structs.replace(line, now=line.now - warm_up) for line in self.journal]  # what is there began before it
        if self.talk is not None:
            talk = self.talk
            self.talk = Talk(talk.session[first:], talk.number[first:], talk.waited[first:], talk.names)
        if self.tenants is not None:
            self.tenants = Labels(self.tenants.codes[first:], self.tenants.names)
        self.notes = (
            *self.notes,
            f"the first {show_duration(warm_up)} were played and are not judged, nor the {first:,} requests that arrived in them",
        )


def kernel_setup(scenario: Scenario, layout: Layout) -> Setup:
    """The kernel's view of a scenario; what strategies believe of engines is in the layout."""
    rules = own_rules(scenario)
    profiles, slot_profile, believed = layout.profiles, layout.slot_profile, 0
    if scenario.faults.engine_time != 1:
        believed = len(profiles)
        profiles = np.concatenate([profiles, true_layout(scenario, layout).profiles])
        slot_profile = np.where(slot_profile >= 0, slot_profile + np.int32(believed), slot_profile)
    if scenario.rollouts:
        profiles = revised(scenario, profiles)
    return Setup(
        regions=len(layout.names.regions),
        models=len(layout.names.models),
        roles=len(layout.roles),
        slots=layout.slots,
        profiles=profiles,
        slot_profile=slot_profile,
        context=layout.context,
        tiers=layout.tiers,
        walk=layout.walk,
        feeds=layout.feeds,
        order=ORDERS.index(scenario.order.kind),
        route=0 if rules.region else ROUTES.index(scenario.routing.region),
        threshold=scenario.routing.threshold,
        instance=0 if rules.instance else INSTANCES.index(scenario.routing.instance),
        rules=rules,
        overlap=scenario.routing.overlap,
        adapter_tokens=scenario.routing.adapter_tokens,
        signal=SIGNALS.index(scenario.signals.kind),
        scrape=scenario.signals.scrape,
        half_life=float(scenario.signals.half_life),
        feed=layout.feed,
        two_below=scenario.batch.two_below,
        one_below=scenario.batch.one_below,
        promote_after=scenario.batch.promote_after,
        safety=scenario.batch.safety,
        output_guess=OUTPUT_GUESS,
        prefix_hits=layout.prefix_hits,
        caches=tuple(scenario.models[model].prefix_cache for model in layout.names.models),
        rtt=layout.rtt,
        admission=scenario.admission.act,
        admission_wait=scenario.admission.wait,
        admission_queued=scenario.admission.queued,
        believed=believed,
        sleeps=tuple(layout.wakes.tolist()),
        handover=layout.handover,
    )


def _loaded(kernel: Kernel) -> Kernel:
    """The same, with its loop compiled or loaded: from a quarter of a second to a minute that is no part of playing."""
    kernel.run_until(-1)  # before anything there is
    kernel.world.record["now"] = 0
    return kernel


class Simulation:
    """One trace, one fleet, one strategy.

    Args:
        scenario: what to simulate.
        trace: the requests; codes are those of the scenario's names in order.
        earlier: what arrived before the first instant, for forecasters; None when nothing is known.
        debug: check every law of the fleet after every event.

    Raises:
        ConfigError: no strategy of that name.
        PluginError: a strategy or forecaster of the user's cannot be made.
        Infeasible: the first instances do not fit into the VMs of a region.
        TraceError: the trace was coded for other names than the scenario's.
    """

    def __init__(self, scenario: Scenario, trace: Trace, *, earlier: Demand | None = None, debug: bool = False) -> None:
        kind, layout = kind_of(scenario), layout_of(scenario)
        if trace.names != layout.names:
            raise TraceError(f"the trace is coded for {trace.names}, the scenario {scenario.name} has {layout.names}")
        check_warm_up(scenario, trace.window)
        setup = kernel_setup(scenario, layout)
        trace = apart_by_adapter(trace) if any(model.has_adapters for model in scenario.models.values()) else trace
        turns = closed_loop(trace) if scenario.workload.loop == "closed" else None
        order = None if turns is None else turns.order
        tenants, asked = ((found := trace.labels.get(name)) and found.take(order) for name in ("tenant", "adapter"))
        sharers = sharers_of(tenants, scenario.weights()) if scenario.shared else None
        rows, prefixes = request_rows(trace, setup, turns), prefixes_of(trace, turns)
        kernel = _loaded(Kernel(setup, rows, turns, prefixes, sharers, adapters_of(asked)))
        fleet = Fleet(layout.pools, layout.stocks, layout.instances, kernel.engines["in_flight"][: layout.instances])
        self.run = Run(
            scenario,
            layout,
            trace.window,
            (*trace.notes, *told_of_tenants(tenants, scenario.tenants), *told_of_adapters(asked, rows, scenario.models)),
            kernel.requests,
            fleet,
            kernel,
            Timeline(layout, trace.window // SAMPLE + 2),
            own_code=own_code(scenario),  # now: their files may be edited while this is played
            tenants=tenants,
        )
        strategy, rollouts = kind(scenario, layout, earlier), plans_of(scenario, layout)
        sleepers = sleepers_of(scenario, layout)
        self._controller = Controller(fleet, strategy, scenario.spot, rollouts=rollouts, sleepers=sleepers)
        self._door = SimulatedDoor(layout, kernel)
        self.run.rollouts, self.run.revisions = self._controller.rollouts.all, SimulatedRevisions(scenario, layout, kernel)
        self._world = SimulatedWorld(scenario, layout, fleet, kernel, self.run.revisions)
        self._sight = SimulatedSight(scenario)
        self._debug = debug
        self._plans = 0
        self._failures: list[str] = []  # of plans that were asked for, why there is none
        self._next_look: Micros = scenario.strategy.check  # nothing has been seen before
        self._next_sample: Micros = 0
        self._counted = [np.zeros_like(counter) for counter in self._counters()]
        patience = max(tier.patience for tier in scenario.tiers.values())
        self._last = max(trace.window + patience, int(kernel.requests["deadline"].max(initial=0))) + _PATIENCE
        self._turns = turns
        if turns is not None:
            self._sessions = trace.labels["session"].names
            most, thought = turns.longest()
            later = kernel.requests[turns.first :]
            self._last += thought + (most - 1) * int(promised_us(setup.tiers, later["tier"], later["prompt"]).max())
        self._begin(kind.initial(scenario, layout))

    def play(self, progress: Callable[[Micros], None] | None = None, interrupted: Callable[[], bool] | None = None) -> Run:
        """Run to the end; `progress` is told how far it is, `interrupted` is asked whether to stop (both every minute)."""
        run = self.run
        kernel, window = run.kernel, run.window
        while not (kernel.now >= window and kernel.finished()) and kernel.now < self._last:
            until = min(self._next_look, self._next_sample, self._world.next_event)
            if kernel.now < window < until:
                until = window
            early = kernel.run_until(until)
            now = kernel.now
            if early:
                self._tell_all(now, self._world.drained())
                self._tell_all(now, self._door.seen(looked=False))
                continue
            if now >= window and not run.fleet.ledger.closed:
                run.fleet.settle(window)
            self._tell_all(now, self._world.due(now))
            self._tell_all(now, self._door.seen(looked=now == self._next_look))
            if now == self._next_sample:
                self._sample(now)
                if progress:
                    progress(now)
                if interrupted and interrupted():
                    run.partial = True
                    break
            if now == self._next_look:
                self._look(now)
        self._finish()
        return run

    def _finish(self) -> None:
        run = self.run
        if not run.fleet.ledger.closed:
            run.fleet.settle(min(run.now, run.window))
        if self._failures:
            missing = f"{len(self._failures)} of {self._plans} plans could not be made, and the one before stood"
            run.notes = (*run.notes, f"{missing}; the first because {self._failures[0]}")
        run.notes = (*run.notes, *too_late(run.scenario, run.window))
        if any(not outage.donated_only for outage in run.scenario.faults.outages):
            run.notes = (*run.notes, told_of_outages(run.journal, run.requests))
        if self._turns is not None:
            self._tell_turns(self._turns)
        if (warm_up := run.scenario.workload.warm_up) and run.now >= warm_up:
            run.begin_after(warm_up)
        elif warm_up:
            run.notes = (*run.notes, "interrupted before the warm-up was over: it is all there is")

    def _tell_turns(self, turns: Turns) -> None:
        """Bring the requests into the order in which they arrived, and say what became of conversations."""
        run, rows = self.run, self.run.requests
        gone = (rows["state"] & PLACE) == FUTURE
        order = np.lexsort((np.where(gone, 0, rows["arrival"]), gone))
        run.requests = rows[order]
        run.tenants = run.tenants and run.tenants.take(order)
        run.talk = Talk(turns.session[order], turns.number[order], order >= turns.first, self._sessions)
        waiting = len(rows) - turns.first
        said = f"{waiting:,} of {len(rows):,} requests are turns that wait for the answer before them (workload.loop: closed)"
        late = int((run.talk.waited & ~gone[order] & (run.requests["arrival"] >= run.window)).sum())
        if late:
            said += f"; {late:,} arrived after the window, whose GPU-hours are counted"
        if not run.partial and (never := int(gone.sum())):
            said += f"; {never:,} never arrived, because a turn before them was not answered"
        run.notes = (*run.notes, said)

    def _begin(self, initial: tuple[int, ...]) -> None:
        """Bring up the instances every strategy starts with."""
        for pool, count in zip(self.run.layout.pools, initial, strict=True):
            actions = self._controller.begin(0, pool.number, count)
            if len(actions) < count:
                raise Infeasible(
                    f"{count} instances of {pool.name} to begin with: {pool.limit(len(actions))}",
                    hint="begin with fewer, or raise fleet.maximum or the region's stock; an instance holds GPUs of one VM",
                )
            for action in actions:
                self._world.perform(0, action)
        for event in self._world.due(0):
            self._tell(0, event)

    def _tell_all(self, now: Micros, events: Iterable[AnyEvent]) -> None:
        for event in events:
            self._tell(now, event)

    def _tell(self, now: Micros, event: AnyEvent) -> None:
        if isinstance(event, Solved | SolvedAhead):
            self._plans += 1
            if event.plan is None:
                self._failures.append(event.failure)
        actions = self._controller.handle(now, event)
        for action in actions:
            self._world.perform(now, action)
        if (line := entry(now, event, self._controller.decisions, actions)) is not None:
            self.run.journal.append(line)
        if self._debug:
            check_fleet(self.run.fleet, now)

    def _look(self, now: Micros) -> None:
        self._next_look = now + self.run.scenario.strategy.check
        rows = self.run.kernel.endpoints
        columns = zip(rows["seen"].tolist(), rows["kv"].tolist(), rows["busy"].tolist(), strict=True)
        seen = tuple(EndpointSeen(*row) for row in columns)
        scraped = self.run.kernel.scraped
        engines = EnginesSeen(scraped, tuple(rows["running"].tolist()), tuple(rows["waiting"].tolist()))
        observed = Observed(scraped, seen, tuple(self.run.kernel.batch_waiting.tolist()))
        if self.run.revisions is not None:
            for told in self.run.revisions.seen(now, self._controller.rollouts.judged):
                self._tell(now, told)
        for event in self._sight.of(now, engines, observed):
            self._tell(now, event)

    def _counters(self) -> tuple[NDArray[Any], ...]:
        kernel = self.run.kernel
        return (
            kernel.demand_tokens,
            kernel.made_tokens,
            kernel.demand_requests,
            kernel.demand_work,
            kernel.mixes,
            kernel.could,
            kernel.missed,
            kernel.answers,
        )

    def _sample(self, now: Micros) -> None:
        self._next_sample = now + SAMPLE
        kernel = self.run.kernel
        if now == self.run.scenario.workload.warm_up > 0:
            self.run.fleet.restart(now)
            self.run.preempted_before = kernel.preemptions
        if now <= self.run.window:
            self.run.timeline.sample(now, self.run.fleet, kernel)
        counters = self._counters()
        parts = [(new - old).tolist() for new, old in zip(counters, self._counted, strict=True)]
        self._counted = [counter.copy() for counter in counters]
        if now > 0:
            *cells, mixes, could, missed, answers = parts
            told = *map(tuple, cells), tuple(map(tuple, mixes)), tuple(could), tuple(missed), tuple(map(tuple, answers))
            self._tell(now, DemandSeen(now - SAMPLE, SAMPLE, *told))


def simulate(scenario: Scenario, trace: Trace, *, earlier: Demand | None = None, debug: bool = False) -> Run:
    """Play a trace through the scenario's fleet under its strategy; same arguments, same result."""
    return Simulation(scenario, trace, earlier=earlier, debug=debug).play()
