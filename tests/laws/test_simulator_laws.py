"""What must hold in every simulated world at every stop, looked up in the kernel's own memory, without the reference.

Worlds are larger than those compared with the reference: thousands of requests, constant opening and draining.
Read next: docs/reference/kernel.md, `tests/sim/test_kernel_against_reference.py`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sageserve.base.records import UNSET
from sageserve.base.sessions import Turns
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.rows.shares import Sharers
from sageserve.sim.kernel.state import (
    DONE,
    FUTURE,
    HELD,
    IDLE,
    PLACE,
    PREFILLING,
    PROMOTED,
    REFUSED,
    RUNNING,
    SENDING,
    SHED,
    SHUT,
    WAITING,
    Setup,
)
from tests.sim.cases import Case, Stop, fresh_rows, make_case, seeded, watch

REQUESTS = 3_000
SEEDS = range(90_000, 90_012)
APART = (*range(90_100, 90_105), 90_114)  # prefill and decode are apart in these
EVERY = 5  # stops between two looks into every queue


class Watched(Kernel):
    """A kernel beside which is written down which instances may receive work."""

    def __init__(self, setup: Setup, requests: NDArray[Any], turns: Turns | None, sharers: Sharers | None) -> None:
        super().__init__(setup, requests, turns, None, sharers)
        self.opened: set[int] = set()
        self.taken_back: set[int] = set()  # requests whose instance was lost

    def lose(self, instances: Iterable[int]) -> None:
        gone = set(instances)
        self.opened -= gone
        there = np.isin(self.requests["instance"], list(gone)) & ((self.requests["state"] & PLACE) != DONE)
        self.taken_back |= set(np.flatnonzero(there).tolist())
        super().lose(gone)

    def open(self, i: int) -> None:
        self.opened.add(i)
        super().open(i)

    def drain(self, i: int) -> bool:
        self.opened.discard(i)
        return super().drain(i)


def large_case(seed: int) -> Case:
    """A case with exactly as many requests as the draw allows; those of SEEDS have instances that do all of a request."""
    draw = seeded(seed)
    case = make_case(lambda low, high: high if high == REQUESTS else draw(low, high), REQUESTS)
    engines = case.setup.profiles.copy()
    engines["ranks"], engines["per_rank"], engines["lockstep"] = 1, 1.0, 0  # a row of ENGINE is an instance here
    handover = case.setup.handover if seed in APART else None
    return replace(case, setup=replace(case.setup, profiles=engines, handover=handover))


def play(seed: int) -> Iterator[tuple[Watched, Stop]]:
    case = large_case(seed)
    kernel = Watched(case.setup, fresh_rows(case), case.turns, case.sharers)
    assert len(kernel.requests) == REQUESTS
    for stop in watch(kernel, case):
        yield kernel, stop


def chain(first: int, following: NDArray[Any]) -> Iterator[int]:
    """Rows of an intrusive list."""
    seen = 0
    while first >= 0:
        yield first
        first = int(following[first])
        seen += 1
        assert seen <= len(following), "a list runs in a circle"


def places(kernel: Kernel) -> Iterator[tuple[int, int, int]]:
    """(row, state, instance) of every request that has arrived and is neither done nor refused, by walking every list."""
    arrays, world, rows = kernel.world.arrays, kernel.world.record, kernel.requests
    following = rows["next"]
    assert arrays["job_count"].sum() == arrays["batch_count"].sum()
    for begin, count in zip(arrays["batch_begin"].tolist(), arrays["job_count"].tolist(), strict=True):
        for row in arrays["batch_heap"][begin : begin + count]:
            yield int(row), HELD, UNSET
    for head in arrays["door_head"].tolist():
        for row in chain(head, following):
            yield row, HELD, UNSET
    lanes = int(world["tiers"]) + 1
    for i, engine in enumerate(kernel.engines):
        for lane in range(lanes):
            for row in chain(int(arrays["heads"][i * lanes + lane]), following):
                assert lane == (lanes - 1 if rows["state"][row] & PROMOTED else rows["tier"][row])
                yield row, WAITING, i
        for row in chain(int(engine["batch"]), following):
            yield row, PREFILLING, i
        if engine["partial"] >= 0:
            yield int(engine["partial"]), PREFILLING, i
        for row in chain(int(engine["latest"]), following):
            yield row, RUNNING, i
    yield from on_the_link(kernel)


def on_the_link(kernel: Kernel) -> Iterator[tuple[int, int, int]]:
    """The same of requests whose KV cache is sent, or waits for its turn."""
    for i, first in enumerate(kernel.world.arrays["sending"][::2].tolist()):
        for row in chain(first, kernel.requests["next"]):
            yield row, SENDING, i


def kept(kernel: Kernel) -> NDArray[Any]:
    """By request: the instance that only prefilled it and keeps its KV cache until it is let in where it is decoded."""
    sources = kernel.world.arrays["source"]
    return np.asarray(sources if kernel.world.record["hands"] else np.full(len(kernel.requests), UNSET, np.int32))


@pytest.mark.parametrize("seed", [*SEEDS, *APART])
def test_every_request_is_in_exactly_one_place(seed: int) -> None:
    for number, (kernel, _) in enumerate(play(seed)):
        if number % EVERY:
            continue
        found = list(places(kernel))
        state = kernel.requests["state"] & PLACE
        assert len({row for row, _, _ in found}) == len(found), "a request is in two places"
        assert len(found) == int(np.isin(state, (HELD, WAITING, PREFILLING, RUNNING, SENDING)).sum()), "a request is nowhere"
        for row, expected, instance in found:
            assert state[row] == expected
            assert kernel.requests["instance"][row] == instance
        sources = kept(kernel)
        assert (sources[state == SENDING] == kernel.requests["instance"][state == SENDING]).all()
        both = sources[
            (sources != UNSET) & (state != SENDING)
        ]  # they wait where they are decoded, and are kept where they were prefilled
        inside = np.bincount([*(i for _, _, i in found if i >= 0), *both.tolist()], minlength=len(kernel.engines))
        assert (kernel.engines["in_flight"] == inside).all()
        arrival = kernel.requests["arrival"][state == FUTURE]
        assert (arrival[arrival != UNSET] >= kernel.now).all()  # turns that wait for an answer have none yet
        assert (kernel.requests["arrival"][state != FUTURE] <= kernel.now).all()


@pytest.mark.parametrize("seed", [*SEEDS, *APART])
def test_memory_in_use_is_what_sequences_hold_and_never_exceeds_capacity(seed: int) -> None:
    for number, (kernel, _) in enumerate(play(seed)):
        engines, rows = kernel.engines, kernel.requests
        capacity = kernel.world.arrays["profiles"]["kv_tokens"][engines["profile"]]
        grown = engines["running"].astype(np.int64) * engines["length"]
        assert (engines["used"] <= capacity).all()
        assert (engines["used"] + grown <= capacity).all(), "a block ends beyond memory"
        if number % EVERY:
            continue
        sources = kept(kernel)
        used = np.zeros(len(engines), np.int64)
        np.add.at(used, sources[sources != UNSET], rows["prompt"][sources != UNSET].astype(np.int64) + 1)
        for row, state, i in places(kernel):
            one = rows[row]
            if state == PREFILLING:
                used[i] += int(one["prompt"]) + int(one["made"]) + 1
            elif state == RUNNING:
                left = int(one["finish_step"]) - int(engines[i]["steps"])
                used[i] += int(one["prompt"]) + int(one["output"]) - left
        one_by_one = kernel.world.arrays["profiles"]["drafted"][engines["profile"]] == 0  # who drafts makes several in a step
        assert (engines["used"] == used)[one_by_one].all()


@pytest.mark.parametrize("seed", SEEDS)
def test_time_goes_forward(seed: int) -> None:
    before = 0
    for kernel, stop in play(seed):
        assert stop.now >= before
        before = stop.now
        rows = kernel.requests
        done = (rows["state"] & PLACE) == DONE
        started = rows["first"] != UNSET
        assert (rows["first"][started] > rows["arrival"][started]).all()
        assert (rows["finish"] != UNSET)[done].all()
        assert not (rows["finish"] != UNSET)[~done].any()
        several = done & (rows["output"] > 1)
        assert (rows["finish"][several] > rows["first"][several]).all()
        assert (rows["finish"][done & (rows["output"] == 1)] == rows["first"][done & (rows["output"] == 1)]).all()
        entry = kernel.world.arrays["profiles"]["entry"][kernel.engines["profile"]][rows["instance"]]
        assert ((rows["finish"] - entry)[done] <= stop.now).all(), "only what lies outside the engine may be still to come"


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_placed_on_an_instance_that_is_not_open(seed: int) -> None:
    placed = np.full(REQUESTS, UNSET, np.int32)
    opened: set[int] = set()
    for kernel, stop in play(seed):
        now = stop.requests["instance"]
        fresh = (now != placed) & (now != UNSET)
        placed[list(kernel.taken_back)] = UNSET
        kernel.taken_back.clear()
        assert (placed[(now != placed)] == UNSET).all(), "a request moved to another instance"
        # what is open now was open during the whole run, for actions come between runs
        opened = set(kernel.opened)
        assert set(now[fresh].tolist()) <= opened
        gone = np.isin(stop.requests["state"] & PLACE, (REFUSED, SHED))
        assert (now[gone] == UNSET).all()
        placed = now
    assert opened


@pytest.mark.parametrize("seed", [*SEEDS, *APART])
def test_no_open_instance_idles_while_requests_wait_for_it(seed: int) -> None:
    for kernel, stop in play(seed):
        engines, sources = kernel.engines, kept(kernel)
        keeps = np.bincount(sources[sources != UNSET], minlength=len(engines)) > 0  # KV caches that others have no room for yet
        leaves = int(kernel.world.record["leaves"])
        times = kernel.world.arrays["times"][leaves : leaves + len(engines)]
        idle = engines["phase"] == IDLE
        assert (times[idle & (engines["waiting"] > 0) & ~keeps] == stop.now).all(), "an idle instance does not wake up"
        assert not (engines["in_flight"][engines["phase"] == SHUT]).any(), "a closed instance holds work"
        assert (times[engines["phase"] > IDLE] >= stop.now).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_counters_add_up(seed: int) -> None:
    for number, (kernel, stop) in enumerate(play(seed)):
        rows, endpoints, case = stop.requests, stop.endpoints, kernel.world.setup
        done = (rows["state"] & PLACE) == DONE
        slots = case.slots
        at = rows["instance"] // slots
        count = len(endpoints)
        assert (endpoints["finished"] == np.bincount(at[done], minlength=count)).all()
        assert (endpoints["placed"] == np.bincount(at[rows["instance"] != UNSET], minlength=count)).all()
        assert (endpoints["made"] == np.bincount(at[done], rows["output"][done], count)).all()
        opened = np.array([i in kernel.opened for i in range(count * slots)])
        assert (endpoints["open"] == opened.reshape(count, slots).sum(axis=1)).all()
        capacity = case.profiles["kv_tokens"][case.slot_profile] * opened
        assert (endpoints["kv_tokens"] == capacity.reshape(count, slots).sum(axis=1)).all()
        assert int(endpoints["preempted"].sum()) == kernel.preemptions
        if number % EVERY == 0:
            backlog_is_unfinished_prefill(kernel)


def backlog_is_unfinished_prefill(kernel: Kernel) -> None:
    profiles, rows = kernel.world.arrays["profiles"][kernel.engines["profile"]], kernel.requests
    backlog = np.zeros(len(kernel.endpoints))
    for row, state, i in places(kernel):
        if state in (WAITING, PREFILLING):
            p, x = profiles[i], float(rows["prompt"][row] + rows["made"][row])
            found = float(rows["cached"][row])
            work = (x - found) * p["whole"] + p["attention"] * (x * x - found * found) / 2
            backlog[kernel.engines["endpoint"][i]] += work
    assert np.allclose(kernel.endpoints["backlog"], backlog, rtol=1e-9, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_request_ends_and_demand_is_what_arrived(seed: int) -> None:
    kernel = [kernel for kernel, _ in play(seed)][-1]
    rows, setup = kernel.requests, kernel.world.setup
    came = (rows["state"] & PLACE) != FUTURE
    assert kernel.arrived() == int(came.sum()) == len(rows) - int(kernel.world.record["never_arrived"])
    before = kernel.world.arrays["before"]
    for row in np.flatnonzero(~came).tolist():
        assert rows["state"][before[row]] & PLACE in (REFUSED, SHED, FUTURE), "only who gets no answer asks nothing more"
    rows = rows[came]
    place = rows["state"] & PLACE
    assert np.isin(place, (DONE, REFUSED, SHED) if setup.admission else (DONE, REFUSED)).all()
    refused = rows["prompt"] + 1 > setup.context[rows["model"]]
    assert ((place == REFUSED) == refused).all()
    batch = setup.tiers["batch"][rows["tier"]] != 0
    assert (rows["deadline"][(place == SHED) & batch] <= kernel.now).all(), "batch work waits until its time is over"
    tiers = len(setup.tiers)
    cell = (rows["region"].astype(int) * setup.models + rows["model"]) * tiers + rows["tier"]
    cells = setup.regions * setup.models * tiers
    assert (kernel.demand_requests == np.bincount(cell, minlength=cells)).all()
    assert (kernel.demand_tokens == np.bincount(cell, rows["prompt"], cells)).all()
    done = place == DONE
    assert (kernel.made_tokens == np.bincount(cell[done], rows["output"][done], cells)).all()


def test_some_worlds_hand_over() -> None:
    handed = [[int(kernel.world.record["handed"]) for kernel, _ in play(seed)][-1] for seed in APART]
    assert sum(handed) > 1_000


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_equal_seeds_give_equal_bytes(seed: int) -> None:
    def columns(rows: NDArray[Any]) -> bytes:
        # not the rows themselves: what stands between the fields of a copy is nobody's
        return b"".join(rows[name].tobytes() for name in rows.dtype.names or ())

    def trail() -> list[tuple[bytes, bytes]]:
        return [(columns(stop.requests), columns(stop.endpoints)) for _, stop in play(seed)]

    assert trail() == trail()
