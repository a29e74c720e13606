"""Small worlds for comparing simulators: a fleet, a trace and a script of what a controller does, from one seed.

A case is drawn number by number from `Draw`, so that the same code makes seeded cases and hypothesis examples that shrink.
`drive` plays a case on anything with the kernel's control surface. Read next: `reference.py`, `test_kernel_against_reference.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import UNSET, Labels, Names, Trace
from sageserve.base.rng import stream
from sageserve.base.sessions import Turns, closed_loop
from sageserve.core.feed import DIRECT, FILL, STEPS
from sageserve.core.order import TIER
from sageserve.core.perf import PROFILE
from sageserve.sim.kernel.prefixes.tree import Prefixes, prefixes_of
from sageserve.sim.kernel.rows.adapters import Adapters
from sageserve.sim.kernel.rows.shares import Sharers
from sageserve.sim.kernel.state import Setup, request_rows
from tests.sim.case_adapters import slot_waits, with_adapters
from tests.sim.case_doors import ODD, with_admission, with_distances, with_sleepers
from tests.sim.case_engines import NOTHING, crowd, curve, line, with_ranks, with_rules, with_speculation
from tests.sim.case_handover import with_handover
from tests.sim.case_hashes import with_affinity, with_hashes, with_quickest
from tests.sim.case_tenants import with_tenants

Draw = Callable[[int, int], int]
"""draw(low, high) is an integer in [low, high]; low is the simplest."""

LIMITS = ("max_sequences", "kv_tokens", "max_batched")
GRAIN = 100  # microseconds; in coarse worlds everything takes a multiple of it, so that many things happen at once
LONGEST = 4_000  # control steps until a case must have come to its end


class Simulator(Protocol):
    """What a script can do to a simulated world."""

    def run_until(self, t: int) -> bool: ...
    def open(self, i: int) -> None: ...
    def drain(self, i: int) -> bool: ...
    def lose(self, instances: tuple[int, ...]) -> None: ...
    def finished(self) -> bool: ...
    @property
    def now(self) -> int: ...
    @property
    def drained(self) -> list[int]: ...
    @property
    def requests(self) -> NDArray[Any]: ...
    @property
    def batch_waiting(self) -> NDArray[np.int64]: ...
    @property
    def demand_requests(self) -> NDArray[np.int64]: ...
    @property
    def demand_tokens(self) -> NDArray[np.int64]: ...
    @property
    def demand_work(self) -> NDArray[np.float64]: ...
    @property
    def could(self) -> NDArray[np.int64]: ...
    @property
    def missed(self) -> NDArray[np.int64]: ...
    @property
    def mixes(self) -> NDArray[np.float64]: ...
    @property
    def answers(self) -> NDArray[np.float64]: ...
    @property
    def made_tokens(self) -> NDArray[np.int64]: ...
    @property
    def endpoints(self) -> NDArray[Any]: ...
    @property
    def held(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True)
class Case:
    """One world and what is done to it.

    Args:
        setup: what to simulate.
        trace: its requests.
        opened: instances that are open from the start.
        script: instants, and the instances whose openness is flipped then.
        replace: whether a drained instance is replaced by another at the very instant.
        turns: which requests wait for answers; None: nobody does.
        lost: steps of the script at which all of its instances are lost instead.
        sharers: tenants that share; None: nobody does.
        adapters: that requests ask for; None: nobody does.
    """

    setup: Setup
    trace: Trace
    opened: tuple[int, ...]
    script: tuple[tuple[int, tuple[int, ...]], ...]
    replace: bool
    turns: Turns | None = None
    lost: frozenset[int] = frozenset()
    sharers: Sharers | None = None
    adapters: Adapters | None = None

    @property
    def prefixes(self) -> Prefixes | None:
        """Hashes of the prompts, in the order in which simulators hold them."""
        return prefixes_of(self.trace, self.turns)


@dataclass(frozen=True, slots=True)
class Stop:
    """What can be seen when the controller has its turn."""

    now: int
    drained: tuple[int, ...]
    endpoints: NDArray[Any]
    requests: NDArray[Any]
    batch_waiting: NDArray[np.int64]
    demand: NDArray[np.float64]  # requests, prompt tokens, work, finished output tokens, could be in time, missed; by cell
    mixes: NDArray[np.float64]  # and answers
    held: NDArray[np.int64]
    slot_waits: NDArray[np.int64]


def look(sim: Simulator) -> Stop:
    """Everything that can be seen now."""
    return Stop(
        now=int(sim.now),
        drained=tuple(int(i) for i in sim.drained),
        endpoints=sim.endpoints.copy(),
        requests=sim.requests.copy(),
        batch_waiting=sim.batch_waiting.copy(),
        demand=np.stack([sim.demand_requests, sim.demand_tokens, sim.demand_work, sim.made_tokens, sim.could, sim.missed]),
        mixes=np.concatenate((sim.mixes.ravel(), sim.answers.ravel())),
        held=sim.held.copy(),
        slot_waits=slot_waits(sim),
    )


def seeded(seed: int) -> Draw:
    """Draw from the named stream of this seed."""
    generator = stream(seed, "sim/cases")
    return lambda low, high: int(generator.integers(low, high + 1))


def make_case(draw: Draw, most_requests: int = 150, *, crowded: bool = False) -> Case:
    """Draw a world, its trace and its script; a crowded one is all talk, on engines that hold little more than a context."""
    grain = GRAIN if draw(0, 2) == 2 else 1
    setup = _setup(draw, grain)
    trace = _trace(draw, setup, draw(1, most_requests), grain)
    instances = setup.endpoints * setup.slots
    most = draw(0, 4)  # of four instances, so many are open from the start
    opened = tuple(i for i in range(instances) if draw(1, 4) <= most)
    end = int(trace.arrival[-1]) + 20_000
    at, steps = 0, []
    for _ in range(draw(0, 9)):
        at = _instant(draw, setup, trace, at, end)
        steps.append((at, _flips(draw, setup)))
    setup, replaces = with_admission(draw, setup), draw(0, 1) == 1
    trace = _with_conversations(draw, trace, grain, always=crowded)
    if crowded:
        crowd(setup.profiles, int(setup.context.max()) + draw(0, 12))
    setup = with_affinity(draw, with_ranks(draw, with_distances(draw, setup, grain)))
    trace, setup = with_hashes(draw, trace, often=crowded), with_quickest(draw, setup)
    lost = frozenset(k for k in range(len(steps)) if draw(0, 1)) if draw(0, 3) == 3 else frozenset()
    setup = with_sleepers(draw, with_speculation(draw, setup if crowded else with_rules(draw, setup)))
    setup = with_handover(draw, setup, grain, talks=closed_loop(trace) is not None or trace.blocks is not None)
    setup, trace, sharers = with_tenants(draw, setup, trace)
    setup, adapters = with_adapters(draw, setup, len(trace), grain)
    return Case(setup, trace, opened, tuple(steps), replaces, closed_loop(trace), lost, sharers, adapters)


def _with_conversations(draw: Draw, trace: Trace, grain: int, *, always: bool) -> Trace:
    """In one of five worlds requests are turns: most wait for answers, some arrive by themselves, some stand alone."""
    if not always and draw(0, 4) < 4:
        return trace
    n, longest = len(trace), 20_000 >> draw(0, 12)
    sessions = draw(1, max(1, n // 2))
    session = np.array([draw(-1, sessions - 1) for _ in range(n)], np.int32)
    delay = [UNSET if draw(0, 5) == 0 else draw(0, longest) // grain * grain for _ in range(n)]
    names = tuple(f"talk-{number}" for number in range(sessions))
    return replace(trace, labels={"session": Labels(session, names)}, delay=np.array(delay, np.int64)).check()


def _instant(draw: Draw, setup: Setup, trace: Trace, after: int, end: int) -> int:
    """A control instant not before `after`: anywhere, on an arrival, or on a scrape."""
    kind = draw(0, 3)
    step = min(end, after + draw(0, end // 4))
    if kind == 0:
        return max(after, int(trace.arrival[draw(0, len(trace) - 1)]))
    return step if kind < 3 else -(-step // setup.scrape) * setup.scrape


def _flips(draw: Draw, setup: Setup) -> tuple[int, ...]:
    """Instances to flip: a few, or all of one endpoint."""
    if draw(0, 3) == 3:
        e = draw(0, setup.endpoints - 1)
        return tuple(range(e * setup.slots, (e + 1) * setup.slots))
    instances = setup.endpoints * setup.slots
    return tuple(sorted({draw(0, instances - 1) for _ in range(draw(1, 4))}))


def _setup(draw: Draw, grain: int) -> Setup:
    regions, models, roles = draw(1, 3), draw(1, 2), draw(1, 2)
    slots = draw(1, 5)
    if draw(0, 11) == 11:
        regions, models, roles, slots = 1, 1, draw(1, 2), draw(33, 40)
    endpoints = regions * models * roles
    context = np.array([draw(12, 90) for _ in range(models)], np.int64)
    profiles = _profiles(draw, int(context.max()), grain)
    tiers = _tiers(draw)
    return Setup(
        regions=regions,
        models=models,
        roles=roles,
        slots=slots,
        profiles=profiles,
        slot_profile=np.array([draw(0, len(profiles) - 1) for _ in range(endpoints * slots)], np.int32),
        context=context,
        tiers=tiers,
        walk=_walk(draw, (regions, models, roles), tiers),
        feeds=np.array([draw(0, 4) < 4 for _ in range(endpoints)], np.bool_),
        order=draw(0, 3),
        route=draw(0, 2),
        threshold=draw(0, 10) / 8 * ODD,
        signal=draw(0, 2),
        scrape=draw(1_000 // grain, 30_000 // grain) * grain,
        half_life=float(draw(5_000, 200_000)),
        feed=(STEPS, FILL, STEPS, FILL, DIRECT)[draw(0, 4)],
        two_below=draw(0, 8) / 8 * ODD,
        one_below=draw(0, 12) / 8 * ODD,
        promote_after=1_000 << draw(0, 9),
        safety=draw(0, 16) / 4 * ODD,
        output_guess=draw(4, 40) / 2 if draw(0, 2) else float(draw(200, 900)),
        prefix_hits=tuple(draw(0, 8) / 8 for _ in range(models)) if draw(0, 2) == 2 else (),
    )


def _profiles(draw: Draw, context: int, grain: int) -> NDArray[Any]:
    rows = np.zeros(draw(1, 3), PROFILE)
    odd = ODD if draw(0, 1) else 1.0
    chunked = draw(0, 2)
    for row in rows:
        if grain > 1:
            curve(row, [(1, draw(1, 8) * grain), (2, draw(0, 1) * grain)])
            row["decode"] = draw(0, 1) * grain
            row["eager"] = draw(0, 3) * grain
        else:
            curve(row, [(1, draw(80, 8_000) / 8 * odd), *((draw(1, 60), draw(0, 160) / 8 * odd) for _ in range(draw(1, 6)))])
            row["decode"] = draw(0, 400) / 8 * odd
            row["kv"] = draw(0, 64) / 64 * odd
            row["attention"] = draw(0, 32) / 128 * odd
            row["eager"] = draw(0, 3) * draw(0, 4_000) / 8 * odd
        row["kv_tokens"] = context + (draw(0, 30) if draw(0, 2) < 2 else draw(200, 800))
        row["weight"] = draw(1_000, 2_000)
        row["max_sequences"] = row["graphs"] = draw(1, 12)
        row["max_batched"] = row["max_sequences"] + (draw(1, 12) if draw(0, 1) else draw(20, 200))
        row["caching"] = draw(0, 1)
        row["entry"] = draw(0, 3) * draw(0, 500)
        row["chunked"] = row["mixed"] = chunked if chunked < 2 else draw(0, 1)
        row["gpus"] = row["ranks"] = row["per_rank"] = row["evicts"] = 1
        row["shared_tokens"] = NOTHING
        row["per_sequence"], row["per_kv"], row["per_token"] = (1 / row[of] for of in LIMITS)
        row["whole"] = (np.interp(row["max_batched"], *line(row)) + row["eager"]) / row["max_batched"]
    return rows


def _tiers(draw: Draw) -> NDArray[Any]:
    rows = np.zeros(draw(1, 4), TIER)
    for row in rows:
        row["urgent"] = draw(0, 20_000)
        row["expired"] = draw(0, 40_000)
        row["patience"] = draw(1_000, 300_000)
        row["growth"] = 100 * row["expired"] if row["urgent"] % 4 == 3 else 0  # what prompts of 80 tokens feel; nothing drawn
        row["rank"], row["batch"] = draw(0, 3), draw(0, 2) == 2
        row["gap"] = 50 + row["expired"] // 16 if row["urgent"] % 4 == 2 and not row["batch"] else 0  # nothing drawn
    return rows


def _walk(draw: Draw, shape: tuple[int, int, int], tiers: NDArray[Any]) -> NDArray[np.int32]:
    regions, models, roles = shape
    apart = draw(0, 1) == 1  # roles serve different tiers
    reach = draw(1, regions)
    walk = np.full((regions, models, len(tiers), regions * roles), UNSET, np.int32)
    for g, m, k in np.ndindex(regions, models, len(tiers)):
        role = int(tiers[k]["batch"]) % roles
        roles_tried = [role] if apart else [(role + o) % roles for o in range(roles)]
        places = [((g + step) % regions, o) for step in range(reach) for o in roles_tried]
        for position, (region, o) in enumerate(places):
            walk[g, m, k, position] = (region * models + m) * roles + o
    return walk


def _trace(draw: Draw, setup: Setup, n: int, grain: int) -> Trace:
    gap, together = 8 << draw(0, 10), draw(1, 4)  # mean time between arrivals; of four, so many come at once with the one before
    longest_prompt, longest_output = draw(2, 80), draw(1, 45)
    at, arrival = 0, []
    for _ in range(n):
        if draw(1, 4) >= together:
            at += draw(0, 2 * gap) // grain * grain
        arrival.append(at)
    own = draw(0, 2) == 2
    deadline = np.array([a + draw(0, 200_000) if own and draw(0, 1) else UNSET for a in arrival], np.int64)
    columns = np.array(
        [
            (
                draw(1, longest_prompt),
                1 if draw(0, 5) == 0 else draw(1, longest_output),
                draw(0, setup.models - 1),
                draw(0, setup.regions - 1),
                draw(0, len(setup.tiers) - 1),
            )
            for _ in range(n)
        ]
    )
    cached = [draw(0, prompt - 1) if draw(0, 1) else UNSET for prompt in columns[:, 0].tolist()] if draw(0, 2) == 2 else None
    kinds = (("model", setup.models), ("region", setup.regions), ("tier", len(setup.tiers)))
    return Trace(
        arrival=np.array(arrival, np.int64),
        prompt=columns[:, 0].astype(np.int32),
        output=columns[:, 1].astype(np.int32),
        model=columns[:, 2].astype(np.uint8),
        region=columns[:, 3].astype(np.uint8),
        tier=columns[:, 4].astype(np.uint8),
        names=Names(*(tuple(f"{kind}-{i}" for i in range(many)) for kind, many in kinds)),
        window=at + 1,
        deadline=deadline if own else None,
        cached=None if cached is None else np.array(cached, np.int32),
    ).check()


@dataclass(slots=True)
class _Player:
    """Plays a script; knows which instances it opened, never what the simulator thinks."""

    sim: Simulator
    case: Case
    opened: set[int]

    def flip(self, i: int) -> None:
        if i in self.opened:
            self.opened.discard(i)
            self.sim.drain(i)
        else:
            self.opened.add(i)
            self.sim.open(i)

    def run(self, t: int) -> Iterator[Stop]:
        early = True
        while early:
            early = self.sim.run_until(t)
            stop = look(self.sim)
            yield stop
            if self.case.replace:
                for i in stop.drained:
                    self._replace(i)

    def _replace(self, i: int) -> None:
        slots = self.case.setup.slots
        first = i // slots * slots
        spare = [one for one in range(first, first + slots) if one not in self.opened]
        if spare:
            self.flip(spare[0])


def watch(sim: Simulator, case: Case) -> Iterator[Stop]:
    """Play the script, then open one instance of every endpoint and run until everything is served.

    Raises:
        AssertionError: the simulator does not come to an end.
    """
    player = _Player(sim, case, set())
    for i in case.opened:
        player.flip(i)
    for number, (at, flips) in enumerate(case.script):
        yield from player.run(max(at, int(sim.now)))
        if number in case.lost:
            sim.lose(flips)
            player.opened -= set(flips)
            continue
        for i in flips:
            player.flip(i)
    for first in range(0, case.setup.endpoints * case.setup.slots, case.setup.slots):
        if not player.opened & set(range(first, first + case.setup.slots)):
            player.flip(first)
    for _ in range(LONGEST):
        if sim.finished():
            return
        yield from player.run(int(sim.now) + 5 * case.setup.scrape)
    raise AssertionError("the simulator did not come to an end")


def drive(sim: Simulator, case: Case) -> list[Stop]:
    """Everything `watch` sees."""
    return list(watch(sim, case))


def fresh_rows(case: Case) -> NDArray[Any]:
    """REQUEST rows nobody has written to."""
    return request_rows(case.trace, case.setup, case.turns)
