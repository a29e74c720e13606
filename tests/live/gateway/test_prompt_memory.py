"""Where the gateway sends prompts that begin alike, what it remembers of them, and that it decides as the simulator does.

Read next: `src/sageserve/live/gateway/prompt_memory.py`.
"""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sageserve.core import route
from sageserve.live.gateway.prompt_memory import BLOCK, BLOCKS_MAX, TOKEN_BYTES, Beginning, PromptMemory, keys_of
from sageserve.live.gateway.python_kernels import pick_affine
from tests.live.gateway.test_own_counts import FIRST, NEAR, row, state_of

TOKENS = BLOCK // TOKEN_BYTES  # of a block, when a body has four bytes per token


def body(*messages: str, **before: object) -> bytes:
    return json.dumps({**before, "messages": [{"role": "user", "content": one} for one in messages], "stream": True}).encode()


def asked(data: bytes, overlap: float = 1.0) -> Beginning:
    return Beginning(data, len(data) // TOKEN_BYTES, overlap)


instances = st.tuples(st.one_of(st.integers(0, 10**9), st.just(route.CLOSED)), st.integers(0, 4_000), st.integers(1_000, 3_000))


@given(st.lists(instances, min_size=1, max_size=8), st.floats(0, 4), st.integers(4_001, 20_000), st.integers(0, 3))
def test_the_gateway_weighs_as_the_simulator_does(
    rows: list[tuple[int, int, int]], overlap: float, prompt: int, begin: int
) -> None:
    """One function: compiled over arrays, and as plain Python over lists; and what it says is the least by its definition."""
    outstanding, found, weights = (list(column) for column in zip(*rows, strict=True))
    padded = [0] * begin + outstanding
    plain = pick_affine(overlap, prompt, padded, begin, found, weights)
    columns = [np.array(column, np.int64) for column in (padded, found, weights)]
    assert route.pick_affine(overlap, prompt, columns[0], begin, columns[1], columns[2]) == plain
    costs = [work + (prompt - int(overlap * there)) * weight for work, there, weight in rows]
    assert plain - begin == costs.index(min(costs))


def test_turns_of_a_conversation_stay_and_others_go_where_there_is_room() -> None:
    state = state_of(row(FIRST), row(FIRST + 1, "http://engine:9001"))
    first = asked(body("a" * 4_000))
    target = state.choose_at(NEAR, first)
    assert target is not None
    target.prompts.note(first.keys)
    one = state.weigh(target, first.prompt, 0, 0)
    state.place(one)
    state.begin(one)  # its answer is under way: 300 tokens of work more than the other has
    again = asked(body("a" * 4_000, "and so on " * 40))
    assert state.choose_at(NEAR, again) is target
    assert state.choose_at(NEAR, asked(body("b" * 4_000))) is not target
    assert state.choose_at(NEAR) is not target


def test_a_full_queue_outweighs_a_beginning_that_is_found() -> None:
    state = state_of(row(FIRST), row(FIRST + 1, "http://engine:9001"))
    talk = asked(body("a" * 4_000))
    target = state.targets[FIRST]
    target.prompts.note(talk.keys)
    for _ in range(3):
        state.place(state.weigh(target, talk.prompt, 0, 0))
    assert state.choose_at(NEAR, talk) is state.targets[FIRST + 1]
    assert state.choose_at(NEAR, asked(body("a" * 4_000), overlap=10.0)) is target


def test_what_is_found_is_work_that_is_not_expected() -> None:
    state = state_of(row(FIRST))
    target = state.targets[FIRST]
    whole, rest = state.weigh(target, 1_000, 0, 0), state.weigh(target, 1_000, 0, 0, 896)
    assert rest.work < whole.work
    assert rest.prefill < whole.prefill
    state.place(rest)
    assert target.unfinished == 104
    state.begin(rest)
    assert target.unfinished == 0


def test_what_comes_before_the_messages_does_not_matter_and_a_cut_block_does_not_count() -> None:
    assert keys_of(body("x" * 3_000, user="alice")) == keys_of(body("x" * 3_000, user="someone else", n=2))
    assert keys_of(body("x")) == []
    long = keys_of(body("x" * 3_000))
    assert len(long) == len(set(long)) == (len(body("x" * 3_000)) - body("x").find(b'"messages"')) // BLOCK
    assert len(keys_of(b"x" * (BLOCK * (BLOCKS_MAX + 9)))) == BLOCKS_MAX


def test_a_block_counts_only_after_the_same_beginning() -> None:
    memory = PromptMemory(100_000)
    memory.note(keys_of(b"a" * BLOCK + b"c" * BLOCK))
    assert memory.found(keys_of(b"b" * BLOCK + b"c" * BLOCK)) == 0
    assert memory.found(keys_of(b"a" * BLOCK + b"d" * BLOCK)) == 1


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=30), st.integers(1, 8))
def test_memory_is_bounded_and_finds_what_a_naive_one_finds(prompts: list[list[int]], room: int) -> None:
    memory = PromptMemory(room * TOKENS)
    recent: list[int] = []  # blocks, the least recently sent first
    for prompt in prompts:
        keys = keys_of(b"".join(bytes([97 + letter]) * BLOCK for letter in prompt))
        naive = next((at for at, key in enumerate(keys) if key not in recent), len(keys))
        assert memory.found(keys) == naive
        memory.note(keys)
        recent = [key for key in recent if key not in keys] + keys[::-1]
        recent = recent[-room:]
        assert len(memory) == len(recent) <= room
