"""What instances find of prompts whose blocks are hashed: worked examples on reference and kernel, and laws of the kernel.

Worlds that nobody worked out are the business of `test_kernel_against_reference.py`. Read next: docs/reference/kernel.md, "Block
hashes"; `reference_cache.py`, the naive cache.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET as UNSET_FIELD

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, PromptBlocks
from sageserve.base.units import SECOND
from sageserve.data.results.summary import PrefixCounts
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.requests import requests_of
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.prefixes.tree import NO_BLOCK, UNHASHED, Prefixes, grow
from sageserve.sim.kernel.state import Setup
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core import small
from tests.core.small import ENGINE, scenario
from tests.sim.cases import Simulator
from tests.sim.reference import Reference
from tests.sim.test_reference_by_hand import END, PLAIN, engine, rows

Hashes = Sequence[Sequence[int]]
Make = Callable[..., Simulator]


def one_instance() -> Scenario:
    """One model in one region on one instance."""
    return scenario(
        models={"big": {"context": 8_000, "engines": {"h100": ENGINE | {"kv_tokens": 20_000}}}},
        regions={"east": {"gpus": {"h100": {"gpus": 8, "price": {"on_demand": "80/h"}}}}},
        fleet={"start": 1, "minimum": 1, "maximum": 1},
        strategy={"name": "fixed:1"},
    )


@pytest.fixture(params=[Reference, Kernel])
def make(request: pytest.FixtureRequest) -> Make:
    kind: Make = request.param
    return kind


def hashed(hashes: Hashes, size: int, after: Sequence[int] = ()) -> Prefixes:
    """Prefixes of these hashes."""
    ends = np.cumsum([len(one) for one in hashes])
    blocks = PromptBlocks(ends, np.array([one for each in hashes for one in each], np.uint64), size)
    return Prefixes(blocks, np.array(after or [UNSET] * len(hashes), np.int64))


def played(make: Make, setup: Setup, requests: Sequence[tuple[int, int, int]], prefixes: Prefixes) -> list[tuple[int, int, int]]:
    """(first, finish, cached) of every request when one instance is open."""
    sim = make(setup, rows(setup, *requests), None, prefixes)
    sim.open(0)
    sim.run_until(END)
    return [(int(r["first"]), int(r["finish"]), int(r["cached"])) for r in sim.requests]


def test_whoever_comes_later_finds_the_blocks_of_who_came_before(make: Make) -> None:
    # 100 + 40; then two of four blocks of 10 tokens are there, 20 tokens, of which whole blocks of 16 count: 100 + 24
    found = played(make, PLAIN, [(0, 40, 1), (1_000, 40, 1)], hashed([(1, 2, 3, 4), (1, 2, 7, 8)], 10))
    assert found == [(140, 140, 0), (1_000 + 100 + 20, 1_120, 20)]


def test_a_prompt_that_is_there_is_computed_from_its_last_sixteen_on(make: Make) -> None:
    found = played(make, PLAIN, [(0, 64, 1), (1_000, 64, 1)], hashed([(1, 2), (1, 2)], 32))
    assert found == [(164, 164, 0), (1_116, 1_116, 48)]


def test_equal_hashes_after_other_blocks_are_other_blocks(make: Make) -> None:
    found = played(make, PLAIN, [(0, 64, 1), (1_000, 64, 1)], hashed([(1, 2), (3, 2)], 32))
    assert [cached for _, _, cached in found] == [0, 0]


def test_a_block_that_is_cut_is_in_no_cache(make: Make) -> None:
    found = played(make, PLAIN, [(0, 60, 1), (1_000, 60, 1)], hashed([(1, 2), (1, 2)], 32))
    assert [cached for _, _, cached in found] == [0, 32]


def test_shared_blocks_take_memory_once(make: Make) -> None:
    # 103 tokens hold 51 and, beside 40 that are shared, 11 more and room for 2: both at once, 100 + 50 + 10; else one waits
    setup = replace(PLAIN, profiles=engine(kv_tokens=103), context=np.array([100], np.int64))
    both = [(0, 50, 3), (0, 50, 3)]
    assert played(make, setup, both, hashed([(1, 2, 3), (1, 2, 4)], 20)) == [(160, 400, 0), (160, 400, 40)]
    assert played(make, setup, both, hashed([(1, 2, 3), (5, 6, 7)], 20)) == [(150, 370, 0), (520, 740, 0)]


def test_what_nobody_uses_goes_when_memory_is_needed_least_recent_first(make: Make) -> None:
    # Memory for 101. A and B leave 40 each; C needs 41: A's last block goes. B finds all it had, A its first block
    setup = replace(PLAIN, profiles=engine(kv_tokens=101), context=np.array([100], np.int64))
    requests = [(0, 40, 1), (1_000, 40, 1), (2_000, 40, 1), (3_000, 40, 1), (4_000, 40, 1)]
    found = played(make, setup, requests, hashed([(1, 2), (3, 4), (5, 6), (3, 4), (1, 2)], 20))
    assert [cached for _, _, cached in found] == [0, 0, 0, 32, 20]


def test_an_answer_is_found_by_the_turn_that_follows(make: Make) -> None:
    # 32 and an answer of 33 leave 64 that were computed; the next turn has them and 16 of its own
    two = [(0, 32, 33), (10_000, 80, 1)]
    assert played(make, PLAIN, two, hashed([(1,), (1, 2)], 32, (1, UNSET)))[1][2] == 64
    assert played(make, PLAIN, [(0, 32, 32), two[1]], hashed([(1,), (1, 2)], 32, (1, UNSET)))[1][2] == 32
    assert played(make, PLAIN, two, hashed([(1,), (1, 2)], 32))[1][2] == 32


def test_who_is_not_hashed_finds_what_is_stated(make: Make) -> None:
    requests = rows(PLAIN, (0, 64, 1), (1_000, 64, 1), (2_000, 64, 1))
    requests["cached"] = 30
    sim = make(PLAIN, requests, None, hashed([(1, 2), (), (1, 2)], 32))
    sim.open(0)
    sim.run_until(END)
    assert sim.requests["cached"].tolist() == [0, 30, 48]


def test_engines_without_a_cache_find_nothing(make: Make) -> None:
    setup = replace(PLAIN, caches=(False,))
    found = played(make, setup, [(0, 64, 1), (1_000, 64, 1)], hashed([(1, 2), (1, 2)], 32))
    assert [cached for _, _, cached in found] == [0, 0]


def test_an_instance_that_was_closed_has_an_empty_cache(make: Make) -> None:
    sim = make(PLAIN, rows(PLAIN, (0, 64, 1), (1_000, 64, 1)), None, hashed([(1, 2), (1, 2)], 32))
    sim.open(0)
    sim.run_until(500)
    assert sim.drain(0)
    sim.open(0)
    sim.run_until(END)
    assert sim.requests["cached"].tolist() == [0, 0]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=6), st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=8),
    st.integers(1, 6),
    st.data(),
)
def test_the_tree_says_of_every_request_what_its_hashes_say(
    requests: list[tuple[list[int], int, int]], size: int, data: st.DataObject
) -> None:
    """Segments joined again are the paths; requests share as many blocks of segments as their paths have in common."""
    after = [data.draw(st.integers(UNSET, len(requests) - 1)) for _ in requests]
    hashes, prompts, outputs = zip(*requests, strict=True)
    tree = grow(hashed(hashes, size, after), np.array(prompts, np.int32), np.array(outputs, np.int32))

    def way(segment: int) -> list[int]:
        return [] if segment < 0 else [*way(int(tree.segments[segment]["parent"])), segment]

    def common(one: Sequence[int], two: Sequence[int]) -> int:
        return next((k for k, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))

    paths = [tuple(one[: prompt // size]) for one, prompt in zip(hashes, prompts, strict=True)]
    for row, path in enumerate(paths):
        leaf, final = int(tree.rows["leaf"][row]), int(tree.rows["final"][row])
        if not hashes[row]:
            assert (leaf, final) == (UNHASHED, UNHASHED)
            continue
        assert (leaf == NO_BLOCK) == (not path)
        assert sum(int(tree.segments[s]["blocks"]) for s in way(leaf)) == len(path)
        assert way(leaf) == way(final)[: len(way(leaf))]
        later = paths[after[row]] if after[row] != UNSET else ()
        kept = min(len(later), (prompts[row] + outputs[row] - 1) // size)
        goes_on = later[: len(path)] == path and kept > len(path)
        assert (int(tree.segments[final]["end"]) if final >= 0 else 0) == (kept if goes_on else len(path))
        for other, path_of_other in enumerate(paths):
            if hashes[other]:
                shared = set(way(leaf)) & set(way(int(tree.rows["leaf"][other])))
                assert sum(int(tree.segments[s]["blocks"]) for s in shared) == common(path, path_of_other)


def lines(tmp_path: Path, name: str, records: list[dict[str, object]]) -> Path:
    path = tmp_path / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def test_hashes_and_the_same_said_as_cached_tokens_come_to_the_same(tmp_path: Path) -> None:
    """Agents with a common beginning of 3,584 tokens, a file in Mooncake's form, on one instance."""
    settings = one_instance()
    plain: list[dict[str, object]] = [{"timestamp": 400 * k, "input_length": 3_984, "output_length": 20} for k in range(40)]
    by_hash = lines(tmp_path, "a.jsonl", [one | {"hash_ids": [*range(7), 100 + k]} for k, one in enumerate(plain)])
    by_count = lines(tmp_path, "b.jsonl", [one | {"cached_tokens": 3_584 * (k > 0)} for k, one in enumerate(plain)])
    runs = [simulate(settings, requests_of(TraceOptions(files=(path,)), settings).trace) for path in (by_hash, by_count)]
    one, other = (run.requests for run in runs)
    assert all((one[name] == other[name]).all() for name in ("first", "finish", "cached"))
    assert one["cached"].tolist() == [0, *[3_584] * 39]


def test_wide_hashes_are_told_apart(tmp_path: Path) -> None:
    wide = [2**64 - 1, 2**63, 2**63 - 1, 2**32, 5_764_607_523_034_234_880]
    hashes = [[one, wide[0]] for one in wide] + [[wide[2], wide[0]]]
    each: dict[str, object] = {"input_length": 1_024, "output_length": 2}
    records = [each | {"timestamp": 5_000 * k, "hash_ids": one} for k, one in enumerate(hashes)]
    settings = one_instance()
    trace = requests_of(TraceOptions(files=(lines(tmp_path, "wide.jsonl", records),)), settings).trace
    assert simulate(settings, trace).requests["cached"].tolist() == [0, 0, 0, 0, 0, 1_008]


def test_the_summary_says_what_was_found() -> None:
    settings = one_instance()
    rows_ = [small.row(SECOND * k, prompt=1_024, output=2) for k in range(3)]
    blocks = PromptBlocks(np.array([2, 4, 6]), np.array([1, 2, 1, 3, 1, 2], np.uint64), 512)
    told = summarise(simulate(settings, replace(small.trace(settings, rows_), blocks=blocks)), 1.0).prefix_cache
    assert told == PrefixCounts(3 * 1_024, 512 + 1_008, round((512 + 1_008) / 3_072, 6))
    assert summarise(simulate(settings, small.trace(settings, rows_)), 1.0).prefix_cache is UNSET_FIELD
