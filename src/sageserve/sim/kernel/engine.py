"""The compiled loop of the simulator: scrape ticks, arrivals and engine blocks in order, and the doors it opens to Python.

Order at one instant: the scrape, what Python does, arrivals, instances by index. Python decides between calls of
`Kernel.run_until`; see `sim/world.py` for who does. The rules are stated in docs/reference/kernel.md.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sageserve.base.kernel import Rec, kernel
from sageserve.base.records import UNSET
from sageserve.base.sessions import Turns
from sageserve.base.units import NEVER, Micros
from sageserve.core.pace import ANSWER_WIDTH
from sageserve.core.signals import busyness, signal, smoothed
from sageserve.sim.kernel.adapters.slots import empty_slots
from sageserve.sim.kernel.arrive import arrive, empty_doors, feed_endpoint, promote
from sageserve.sim.kernel.batching import end_block
from sageserve.sim.kernel.bookkeeping import learn_lengths, note_outstanding
from sageserve.sim.kernel.leaving.landing import land
from sageserve.sim.kernel.leaving.losing import count_capacity, lose_instances
from sageserve.sim.kernel.prefix_cache import forget
from sageserve.sim.kernel.prefixes.tree import Prefixes
from sageserve.sim.kernel.queues import next_instance, row_of_rank
from sageserve.sim.kernel.ranks import end_together
from sageserve.sim.kernel.rows.adapters import Adapters
from sageserve.sim.kernel.rows.engines import OF_INSTANCES
from sageserve.sim.kernel.rows.shares import Sharers
from sageserve.sim.kernel.state import (
    IDLE,
    PLACE,
    RUNNING,
    SENDING,
    SHUT,
    WAITING,
    Setup,
    World,
    view_endpoints,
    view_engines,
    view_i8,
    view_requests,
    view_world,
)
from sageserve.sim.kernel.turns import next_turn

_RUN, _OPEN, _DRAIN, _LOSE = 0, 1, 2, 3  # deeds of `enter`
_NO_ROWS = np.zeros(0, np.int64)


@kernel
def observe(w: Rec, e: int, elapsed: int) -> None:
    """Refresh what policies see of endpoint `e`; `elapsed` microseconds have passed since the last time."""
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[e]
    engines = view_engines(w["at_engines"], w["units"])
    used = 0
    running = 0
    waiting = 0
    for i in range(e * w["slots"], (e + 1) * w["slots"]):
        if engines[i]["phase"] != SHUT and engines[i]["draining"] == 0:
            used += engines[i]["used"]
            running += engines[i]["running"]
            waiting += engines[i]["waiting"]
            others = engines[i]["others"]
            for u in range(others, others + engines[i]["ranks"] - 1):
                used += engines[u]["used"]
                running += engines[u]["running"]
                waiting += engines[u]["waiting"]
    endpoint["rate"] = smoothed(endpoint["rate"], endpoint["offered"], elapsed, w["half_life"])
    endpoint["offered"] = 0.0
    endpoint["fed_work"] = 0.0
    endpoint["fed_tokens"] = 0.0
    endpoint["running"] = running
    endpoint["waiting"] = waiting
    endpoint["kv"] = 0.0
    endpoint["busy"] = 0.0
    if endpoint["open"] > 0:
        endpoint["kv"] = used / endpoint["kv_tokens"]
        endpoint["busy"] = busyness(endpoint["rate"], endpoint["backlog"], w["half_life"], endpoint["open"])
    endpoint["seen"] = signal(w["signal"], endpoint["kv"], endpoint["busy"])


@kernel
def scrape(w: Rec, now: int) -> None:
    """Everything that happens when the fleet is scraped: see, learn, empty the doors, promote, feed."""
    for e in range(w["endpoint_count"]):
        observe(w, e, now - w["last_scrape"])
    w["last_scrape"] = now
    w["next_scrape"] = now + w["scrape"]
    learn_lengths(w)
    for model in range(w["models"]):
        empty_doors(w, model, now)
    for model in range(w["models"]):
        promote(w, model, now)
    for e in range(w["endpoint_count"]):
        feed_endpoint(w, e, now)


@kernel
def end_next(w: Rec, now: int) -> bool:
    """What is next of instances: a block ends, or a KV cache lands; True when one that was draining is empty and closed."""
    i = next_instance(w)
    if i >= w["units"]:
        land(w, i - w["units"], now)
        return False
    engines = view_engines(w["at_engines"], w["units"])
    draining = engines[engines[i]["head"]]["draining"]
    finished = end_together(w, i, now) if engines[i]["lockstep"] != 0 else end_block(w, i, now)
    if draining == 0 and finished > 0:
        feed_endpoint(w, engines[i]["endpoint"], now)
    return draining != 0 and w["drained_count"] > 0


@kernel
def run(w: Rec, until: int) -> bool:
    """Play everything before `until`, and the scrape at `until`; True when stopped early: one is drained, or asked for."""
    requests = view_requests(w["at_requests"], w["rows"])
    times = view_i8(w["at_times"], 2 * w["leaves"])
    row = w["next_row"]
    rows = w["alone"]
    tick = w["next_scrape"]
    events = 0
    w["drained_count"] = 0
    w["asked"] = 0
    while True:
        alone = requests[row]["arrival"] if row < rows else NEVER
        arrival = min(alone, w["next_turn"])
        block = times[1]
        if tick <= arrival and tick <= block and tick <= until:
            scrape(w, tick)
            tick = w["next_scrape"]
        elif arrival <= block:
            if arrival >= until:
                break
            q = row
            if alone == arrival:
                row += 1
            else:
                q = next_turn(w)
            arrive(w, q, arrival)
            if w["asked"] != 0:
                w["next_row"] = row
                w["now"] = arrival
                w["events"] += events + 1
                return True
        else:
            if block >= until:
                break
            if end_next(w, block):
                w["next_row"] = row
                w["now"] = block
                w["events"] += events + 1
                return True
        events += 1
    w["next_row"] = row
    w["now"] = until
    w["events"] += events
    return False


@kernel
def open_instance(w: Rec, i: int) -> None:
    """Instance `i`, which must be closed or draining, may receive work from now on."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    if engine["phase"] == SHUT:
        engine["phase"] = IDLE
        for k in range(engine["ranks"]):
            view_engines(w["at_engines"], w["units"])[row_of_rank(w, i, k)]["steps"] = 0
            forget(w, row_of_rank(w, i, k))
            if w["adapted"] != 0:
                empty_slots(w, row_of_rank(w, i, k))
        view_i8(w["at_opened"], w["instances"])[i] = w["now"]
    engine["draining"] = 0
    endpoint["open"] += 1
    count_capacity(w, i, 1)
    note_outstanding(w, i)
    if endpoint["open"] == 1 and w["sleepers"] != 0:
        empty_doors(w, engine["model"], w["now"])


@kernel
def drain_instance(w: Rec, i: int) -> bool:
    """Instance `i`, which must be open, receives nothing more; True when it was empty and is closed at once."""
    engine = view_engines(w["at_engines"], w["units"])[i]
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[engine["endpoint"]]
    endpoint["open"] -= 1
    count_capacity(w, i, -1)
    if engine["in_flight"] == 0:
        engine["phase"] = SHUT
    else:
        engine["draining"] = 1
    note_outstanding(w, i)
    return bool(engine["in_flight"] == 0)


@kernel
def enter(address: int, deed: int, number: int, rows: NDArray[Any]) -> bool:
    """Do one of four things that Python asks of a world: by itself, each would be compiled with all that it reaches.

    Args:
        address: of the WORLD record.
        deed: _RUN until `number`, _OPEN or _DRAIN instance `number`, or _LOSE so many instances.
        number: see there.
        rows: int64; instances to lose, then the requests that they have, in the order in which they are sent again.
    """
    w = view_world(address, 1)[0]
    if deed == _RUN:
        return run(w, number)
    if deed == _OPEN:
        open_instance(w, number)
    elif deed == _DRAIN:
        return drain_instance(w, number)
    else:
        lose_instances(w, rows, number)
    return False


class Kernel:
    """One simulated world, from Python: run, open, drain, look.

    Args:
        setup: what to simulate.
        requests: REQUEST rows, sorted by arrival (`request_rows` makes them); written to.
        turns: which of them wait for answers; the same that the rows were made with.
        prefixes: hashes of their prompts' blocks (`prefixes_of` the trace and the turns).
        sharers: tenants that share (`sharers_of`); None: nobody does.
        adapters: that requests ask for (`adapters_of`); None: nobody does.
    """

    def __init__(
        self,
        setup: Setup,
        requests: NDArray[Any],
        turns: Turns | None = None,
        prefixes: Prefixes | None = None,
        sharers: Sharers | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        self.world = World(setup, requests, turns, prefixes, sharers, adapters)
        self.requests = requests
        self.endpoints = self.world.endpoints
        self.engines = self.world.engines  # instances, then further ranks
        self.demand_tokens = self.world.arrays["demand_tokens"]  # by (region, model, tier), prompt tokens that arrived
        self.demand_work = self.world.arrays["demand_work"]  # microseconds of the model's fastest engine they need
        self.mixes = self.world.arrays["mixes"].reshape(setup.models, -1)  # what waits depend on; see `core/response.py`
        self.answers = self.world.arrays["answers"].reshape(-1, ANSWER_WIDTH)  # by (model, tier); none: no `itl`
        self.demand_requests = self.world.arrays["demand_requests"]
        self.could, self.missed = self.world.arrays["promises"].reshape(2, -1)  # see DemandSeen
        self.made_tokens = self.world.arrays["made_tokens"]  # output tokens of finished requests
        self.slot_wait = self.world.arrays["slot_wait"]  # by request, us that it was passed over for its adapter; one row without
        self.adapter_loads = self.world.arrays["adapter_loads"]  # by endpoint, adapters that were brought into slots
        self.adapter_admitted = self.world.arrays["adapter_admitted"]  # by endpoint, requests of adapters that were admitted
        self.held = self.world.arrays["held"]  # by (region, model, tier), requests that wait at a door
        self.batch_waiting = self.world.arrays["batch_count"]  # by model

    def counted(self, name: str) -> NDArray[np.int64]:
        """int64[instances]: a number of every engine (a column of ENGINE), of all ranks of an instance together."""
        rows, instances = self.engines, self.world.setup.endpoints * self.world.setup.slots
        if name in OF_INSTANCES:
            return rows[name][:instances].astype(np.int64)
        return np.bincount(rows["head"], rows[name], instances).astype(np.int64)

    @property
    def now(self) -> Micros:
        """The instant everything before which has been played."""
        return int(self.world.record["now"])

    @property
    def drained(self) -> list[int]:
        """Instances that became empty and closed in the last call of `run_until`."""
        return [int(i) for i in self.world.arrays["drained"][: int(self.world.record["drained_count"])]]

    @property
    def asked(self) -> bool:
        """Whether the first of its kind waits for an endpoint that sleeps since `run_until` was called last."""
        return bool(self.world.record["asked"])

    @property
    def scraped(self) -> Micros:
        """When policies last saw the fleet."""
        return int(self.world.record["last_scrape"])

    @property
    def blocks(self) -> NDArray[Any]:
        """BLOCK rows in order of their starts, as many as `Setup.block_rows` had room for."""
        return self.world.arrays["blocks"][: min(self.block_count, self.world.setup.block_rows)]

    @property
    def block_count(self) -> int:
        """Blocks begun so far, if they are logged; those the log had no room for included."""
        return int(self.world.record["block_count"])

    @property
    def preemptions(self) -> int:
        """Requests preempted so far."""
        return int(self.world.record["preemptions"])

    def run_until(self, time: Micros) -> bool:
        """Play until `time`; True when it returned early: a draining instance became empty (see `drained`), or see `asked`."""
        early = bool(enter(self.world.address, _RUN, time, _NO_ROWS))
        self.world.check_rules()
        return early

    def revise(self, i: int, profile: int) -> None:
        """Instance `i`, which must be closed, is an engine of another PROFILE row, with as many ranks and as much memory."""
        self.engines["profile"][self.engines["head"] == i] = profile

    def open(self, i: int) -> None:
        """Let instance `i` receive work from now on."""
        enter(self.world.address, _OPEN, i, _NO_ROWS)

    def drain(self, i: int) -> bool:
        """Stop instance `i` from receiving work; True when it was empty and is closed at once."""
        return bool(enter(self.world.address, _DRAIN, i, _NO_ROWS))

    def lose(self, instances: Iterable[int]) -> None:
        """Open or draining instances are gone at once, with what they were doing; others are left as they are.

        Their requests are sent anew in order of rows, but interactive ones that had a first token: those are broken off (SHED).
        """
        shut = self.engines["phase"] == SHUT
        gone = np.array([i for i in instances if not shut[i]], np.int64)
        lost = np.zeros(len(self.engines) + 1, np.bool_)  # one more, for requests that were never placed
        lost[gone] = True
        state = self.requests["state"] & PLACE
        inside = ((state >= WAITING) & (state <= RUNNING)) | (state == SENDING)
        there = inside & lost[self.requests["instance"]]
        if self.world.setup.handover is not None:  # whose KV cache is kept there
            sources = self.world.arrays["source"]
            there |= (sources != UNSET) & lost[np.where(sources == UNSET, UNSET, self.engines["head"][sources])]
        enter(self.world.address, _LOSE, len(gone), np.concatenate([gone, np.flatnonzero(there)]))

    def set_feed(self, endpoint: int, *, one_below: float, two_below: float) -> None:
        """Change the utilisation below which an endpoint is given batch jobs."""
        self.endpoints["one_below"][endpoint] = one_below
        self.endpoints["two_below"][endpoint] = two_below

    def arrived(self) -> int:
        """Requests that have come to the front door."""
        return int(self.world.record["next_row"]) + int(self.world.record["turns_arrived"])

    def finished(self) -> bool:
        """Whether every request that has arrived or will arrive is done, refused or shed."""
        return self.unfinished() == 0

    def unfinished(self) -> int:
        """Requests that are not done, refused or shed, those that have not arrived yet but will included."""
        gone = sum(int(self.world.record[name]) for name in ("refused", "shed", "never_arrived"))
        done = int(self.endpoints["finished"].sum()) - int(self.world.record["handed"])  # who was handed over finished twice
        return len(self.requests) - done - gone
