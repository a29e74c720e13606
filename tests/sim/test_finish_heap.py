"""The heap of finish steps agrees with a plain minimum, whatever is preempted, resumed and finished, in fixed memory.

Small random worlds seldom fill a heap with stale entries, so this drives it alone. Read next: `sim/kernel/queues.py`.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sageserve.base.kernel import kernel
from sageserve.base.records import REQUEST, UNSET
from sageserve.sim.kernel.queues import add_finish, drop_first_finish, first_finish
from sageserve.sim.kernel.state import World, view_world
from tests.sim.test_reference_by_hand import PLAIN, engine

BATCH = 4
ROWS = 5
GUARD = -(10**15)  # written behind the heap; no entry looks like it

moves = st.lists(
    st.tuples(st.sampled_from(["begin", "preempt", "begin", "preempt", "finish"]), st.integers(0, ROWS - 1), st.integers(0, 9)),
    max_size=120,
)


@kernel
def add(address: int, i: int, q: int, step: int) -> None:
    add_finish(view_world(address, 1)[0], i, q, step)


@kernel
def first(address: int, i: int) -> int:
    return first_finish(view_world(address, 1)[0], i)


@kernel
def drop(address: int, i: int) -> None:
    drop_first_finish(view_world(address, 1)[0], i)


def small_world() -> tuple[World, Any]:
    """One world of two engines, and the memory of the second one's heap as a guard."""
    setup = replace(PLAIN, slots=2, slot_profile=np.zeros(2, np.int32), profiles=engine(max_sequences=BATCH))
    rows = np.zeros(ROWS, REQUEST)
    rows["finish_step"] = UNSET
    world = World(setup, rows, None, None, None)
    guard = world.arrays["finish"][2 * BATCH :]
    guard[:] = GUARD
    return world, guard


@given(moves)
@settings(max_examples=200)
def test_heap_is_a_minimum_over_what_runs(script: list[tuple[str, int, int]]) -> None:
    world, guard = small_world()
    running: dict[int, int] = {}
    for move, row, step in script:
        if move == "begin" and row not in running and len(running) < BATCH:
            add(world.address, 0, row, step)
            running[row] = step
        elif move == "preempt" and row in running:
            del running[row]
            world.requests["finish_step"][row] = UNSET
        elif move == "finish" and running:
            entry = first(world.address, 0)
            drop(world.address, 0)
            world.requests["finish_step"][entry & 0xFFFFFFFF] = UNSET
            del running[entry & 0xFFFFFFFF]
        least = min(((step << 32) | row for row, step in running.items()), default=-1)
        assert first(world.address, 0) == least
        assert int(world.engines["heap"][0]) <= 2 * BATCH
        assert (guard == GUARD).all(), "the heap grew into its neighbour's memory"
        assert all(world.requests["finish_step"][row] == step for row, step in running.items())


def test_a_resumed_request_does_not_fill_the_heap() -> None:
    world, guard = small_world()
    add(world.address, 0, 0, 100)
    add(world.address, 0, 1, 200)
    while int(world.engines["heap"][0]) < 2 * BATCH:  # preempted and resumed to the same step, again and again
        world.requests["finish_step"][1] = UNSET
        add(world.address, 0, 1, 200)
    add(world.address, 0, 2, 300)
    assert (guard == GUARD).all(), "the heap grew into its neighbour's memory"
    assert int(world.engines["heap"][0]) == 3
    assert world.requests["finish_step"][:3].tolist() == [100, 200, 300]


def test_stale_entries_make_room() -> None:
    world, guard = small_world()
    add(world.address, 0, 0, 100)
    for step in range(200, 200 + 5 * BATCH):
        world.requests["finish_step"][1] = UNSET
        add(world.address, 0, 1, step)
    assert (guard == GUARD).all(), "the heap grew into its neighbour's memory"
    assert first(world.address, 0) == 100 << 32
