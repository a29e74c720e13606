"""What requests carry beside their lengths is read under any name, used where engines can, and kept.

Read next: `tests/data/traces/test_archive.py` for keeping it, `assembly/prefixes.py`.
"""

import json
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sageserve.base.errors import TraceError
from sageserve.base.records import CACHE_BLOCK, UNSET, PromptBlocks, Trace
from sageserve.base.units import SECOND
from sageserve.data.traces.archive import write_trace
from sageserve.data.traces.assembly.prefixes import blocks_found
from sageserve.data.traces.changes.transform import load
from sageserve.data.traces.inspect import overview
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is
from sageserve.data.traces.requests import requests_of


def read(lines: list[dict[str, object]], path: Path, **more: object) -> Trace:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_as_is(path, TraceOptions(**more))[0]  # type: ignore[arg-type]  # options by name


def names(trace: Trace, label: str) -> list[str | None]:
    each = trace.labels[label]  # type: ignore[index]  # a label's name
    return [None if code == UNSET else each.names[code] for code in each.codes]


class TestBlocks:
    @given(
        st.lists(st.tuples(st.integers(0, 1), st.lists(st.integers(0, 2), max_size=5)), min_size=1, max_size=25),
        st.sampled_from([0, 2**63, 2**64 - 3]),
    )
    def test_found_blocks_are_those_of_a_naive_set(self, requests: list[tuple[int, list[int]]], base: int) -> None:
        ends = np.cumsum([len(blocks) for _, blocks in requests])
        hashes = np.array([base + block for _, blocks in requests for block in blocks], dtype=np.uint64)
        models = np.array([model for model, _ in requests], dtype=np.int32)
        met: set[tuple[int, int]] = set()
        expected = []
        for model, blocks in requests:
            count = 0
            while count < len(blocks) and (model, blocks[count]) in met:
                count += 1
            expected.append(count)
            met.update((model, block) for block in blocks)
        assert blocks_found(PromptBlocks(ends, hashes, 512), models).tolist() == expected

    def test_hash_ids_say_the_same_as_cached_tokens(self, tmp_path: Path) -> None:
        lines = [
            {"timestamp": at * 400, "input_length": 3984, "output_length": 20, "hash_ids": [*range(7), 100 + at]}
            for at in range(4)
        ]
        trace = read(lines, tmp_path / "t")
        assert trace.cached is not None
        assert trace.cached.tolist() == [0, 3584, 3584, 3584]
        assert any("4 requests have block hashes (512 tokens each)" in note for note in trace.notes)

    @pytest.mark.parametrize("ids", [[2**64 - 1, 2**63], ["ab01", "ff"], "[12, 13]"])
    def test_hashes_of_any_width_and_form_are_kept_in_our_parquet(self, tmp_path: Path, ids: object) -> None:
        line = {"timestamp": 0, "input_length": 1000, "output_length": 1, "hash_ids": ids}
        trace = read([line, line | {"timestamp": 5}], tmp_path / "t")
        assert trace.cached is not None
        whole = 999 // CACHE_BLOCK * CACHE_BLOCK  # of a prompt that is found whole the last block is computed
        assert trace.cached.tolist() == [0, whole]
        write_trace(tmp_path / "t.parquet", trace)
        again, _ = read_as_is(tmp_path / "t.parquet")
        assert again.blocks is not None
        assert trace.blocks is not None
        assert (again.blocks.hashes.tolist(), again.blocks.size) == (trace.blocks.hashes.tolist(), 512)

    def test_what_the_file_says_was_cached_wins(self, tmp_path: Path) -> None:
        line: dict[str, object] = {"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2]}
        trace = read([line, line | {"cached_tokens": 16}, line], tmp_path / "t")
        assert trace.cached is not None
        assert trace.cached.tolist() == [0, 16, 1008]

    def test_blocks_of_another_size_are_known_by_their_number(self, tmp_path: Path) -> None:
        line: dict[str, object] = {"input_length": 3984, "output_length": 1, "hash_ids": [1, 2, 3, 4]}
        lines = [line | {"timestamp": at} for at in (0, 1)]
        trace = read(lines, tmp_path / "t")
        assert trace.blocks is not None
        assert trace.blocks.size == 1024

    def test_numbered_blocks_of_two_files_are_not_one(self, tmp_path: Path) -> None:
        for name in "ab":
            read([{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [0]}], tmp_path / name)
        both = requests_of(TraceOptions((tmp_path / "a", tmp_path / "b")), None).trace
        assert both.blocks is not None
        assert len(set(both.blocks.hashes.tolist())) == 2


class TestCache:
    def test_reads_and_writes_beside_the_prompt_are_added_to_it(self, tmp_path: Path) -> None:
        usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 30, "output_tokens": 5}
        trace = read([{"timestamp": 1, "usage": usage}], tmp_path / "t")
        assert trace.cached is not None
        assert (trace.prompt.tolist(), trace.cached.tolist()) == ([130], [90])

    def test_reads_inside_the_prompt_are_a_part_of_it(self, tmp_path: Path) -> None:
        usage = {"prompt_tokens": 130, "cache_read_input_tokens": 90, "completion_tokens": 5}
        trace = read([{"timestamp": 1, "usage": usage}], tmp_path / "t")
        assert trace.cached is not None
        assert (trace.prompt.tolist(), trace.cached.tolist()) == ([130], [90])


class TestSessions:
    def test_turns_with_a_pause_are_placed_as_early_as_they_can_be(self, tmp_path: Path) -> None:
        turn = {"input_length": 600, "output_length": 50}
        lines: list[dict[str, object]] = [
            {"session_id": "a", "timestamp": 0, **turn},
            {"session_id": "a", "delay": 3000, **turn},
            {"session_id": "b", "timestamp": 1000, **turn},
            {"session_id": "a", "delay": 500, **turn},
        ]
        trace = read(lines, tmp_path / "t")
        assert trace.arrival.tolist() == [0, 1_000_000, 3_000_000, 3_500_000]
        assert trace.delay is not None
        assert trace.delay.tolist() == [UNSET, UNSET, 3_000_000, 500_000]
        assert names(trace, "session") == ["a", "b", "a", "a"]

    def test_payloads_are_counted_and_their_pause_stands_behind_the_turn(self, tmp_path: Path) -> None:
        def payload(text: str, **more: object) -> dict[str, object]:
            return {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "session_id": "d", **more}

        lines = [payload("x" * 10, delay=1000), payload("y" * 4)]
        with pytest.raises(TraceError, match="text of its prompts and no count"):
            read(lines, tmp_path / "t")
        trace = read(lines, tmp_path / "t", chars_per_token=4.0, all_at="0")
        assert (trace.prompt.tolist(), trace.output.tolist()) == ([3, 1], [8, 8])
        assert trace.arrival.tolist() == [0, SECOND]

    def test_chains_of_parents_are_conversations(self, tmp_path: Path) -> None:
        links = ((1, -1), (2, 1), (3, -1), (4, 2))
        lines = [
            {"chat_id": own, "parent_chat_id": parent, "timestamp": own, "input_length": 9, "output_length": 1, "turn": 1}
            for own, parent in links
        ]
        assert names(read(lines, tmp_path / "t"), "session") == ["1", "1", "3", "1"]  # type: ignore[arg-type]  # plain records

    @pytest.mark.parametrize("factor", [0.4, 2.5])
    def test_load_takes_and_copies_conversations_whole(self, tmp_path: Path, factor: float) -> None:
        lines = [
            {"timestamp": 1000 * row, "input_length": row + 1, "output_length": 1, "session_id": f"s{row % 10}"}
            for row in range(50)
        ]
        trace = read(lines, tmp_path / "t")
        loaded = load(trace, factor, 7)
        assert len(loaded) == round(50 * factor)
        sizes = np.bincount(loaded.labels["session"].codes)
        assert ((sizes == 0) | (sizes == 5)).all()


def test_who_asked_is_kept_and_keys_are_not(tmp_path: Path) -> None:
    line = {"timestamp": 0, "prompt_tokens": 9, "output_tokens": 1, "team_id": "red", "end_user": "u1", "api_key": "sk-secret",
            "lora_name": "sql", "images": ["a.png", "b.png"]}  # fmt: skip
    trace = read([line], tmp_path / "t")
    assert [names(trace, label) for label in ("tenant", "user", "adapter")] == [["red"], ["u1"], ["sql"]]
    assert names(trace, "key")[0] != "sk-secret"
    assert trace.counts["images"].tolist() == [2]
    assert any("without effect on engines: images (1 of 1 requests)" in note for note in trace.notes)
    seen = overview(trace, "t")
    assert (seen.labels["tenant"], seen.counts["images"]) == (1, 2)
    write_trace(tmp_path / "t.parquet", trace)
    assert names(read_as_is(tmp_path / "t.parquet")[0], "key") == names(trace, "key")


def test_images_become_tokens_of_the_prompt_where_that_is_asked_for(tmp_path: Path) -> None:
    line: dict[str, object] = {"prompt_tokens": 9, "output_tokens": 1}
    lines = [line | {"timestamp": at, "images": count} for at, count in enumerate((0, 3, None))]
    assert read(lines, tmp_path / "t").prompt.tolist() == [9, 9, 9]
    trace = read(lines, tmp_path / "t", image_tokens=576)
    assert trace.prompt.tolist() == [9, 9 + 3 * 576, 9]
    assert any(
        "576 tokens are added to prompts for each of 3 images in 1 requests (--image-tokens)" in note for note in trace.notes
    )
    assert not any("without effect" in note for note in trace.notes)
    assert next(iter(overview(trace, "t").models.values())).prompt_tokens.longest == 9 + 3 * 576
    write_trace(tmp_path / "t.parquet", trace)
    with pytest.raises(TraceError, match="was added when it was written"):
        read_as_is(tmp_path / "t.parquet", TraceOptions(image_tokens=576))
    write_trace(tmp_path / "plain.parquet", read(lines, tmp_path / "t"))
    assert read_as_is(tmp_path / "plain.parquet", TraceOptions(image_tokens=576))[0].prompt.tolist() == trace.prompt.tolist()


@pytest.mark.parametrize(("count", "tokens", "said"), [(1, 0, "no number of tokens"), (None, 576, "nothing to add")])
def test_images_that_are_not_there_add_nothing(tmp_path: Path, count: int | None, tokens: int, said: str) -> None:
    line: dict[str, object] = {"timestamp": 0, "prompt_tokens": 9, "output_tokens": 1}
    line |= {"images": count} if count else {}
    with pytest.raises(TraceError, match=said):
        read([line], tmp_path / "t", image_tokens=tokens)


def test_whole_numbers_are_names_too(tmp_path: Path) -> None:
    trace = read([{"timestamp": at, "prompt_tokens": 9, "output_tokens": 1, "model": at} for at in (0, 1)], tmp_path / "t")
    assert trace.names.models == ("0", "1")
