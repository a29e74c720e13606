"""Conversations of a trace: which turn follows which, what their prompts hold, and what changes of a trace leave whole.

Read next: `base/sessions.py`, `assembly/sessions.py`.
"""

import json
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Labels, Names, Trace
from sageserve.base.sessions import closed_loop, turns_before
from sageserve.base.units import SECOND
from sageserve.data.traces.changes.transform import load, scale_time
from sageserve.data.traces.inspect import ConversationSummary, LengthSummary, overview
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is

Row = tuple[int, int, int]  # session, turn and pause; -1: none


def made(rows: list[Row], *, counted: bool = True) -> Trace:
    """Requests a second apart, of these sessions, turns and pauses."""
    n = len(rows)
    sessions, turns, pauses = (np.array([row[place] for row in rows], dtype=np.int64) for place in range(3))
    return Trace(
        arrival=np.arange(n, dtype=np.int64) * SECOND,
        prompt=np.arange(10, 10 + n, dtype=np.int32),
        output=np.full(n, 4, dtype=np.int32),
        model=np.zeros(n, np.uint8),
        region=np.zeros(n, np.uint8),
        tier=np.zeros(n, np.uint8),
        names=Names(("m",), ("r",), ("t",)),
        window=n * SECOND,
        labels={"session": Labels(sessions.astype(np.int32), ("a", "b", "c", "d"))},
        counts={"turn": turns.astype(np.int32)} if counted else {},
        delay=pauses,
    ).check()


def read(lines: list[dict[str, object]], path: Path, **more: object) -> Trace:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_as_is(path, TraceOptions(**more))[0]  # type: ignore[arg-type]  # options by name


ROWS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3), st.integers(-1, 5)), min_size=1, max_size=30)


class TestTurns:
    @given(ROWS, st.booleans())
    def test_turns_follow_each_other_as_a_naive_search_says(self, rows: list[Row], counted: bool) -> None:
        trace = made(rows, counted=counted)
        expected = []
        for number, (session, turn, _) in enumerate(rows):
            own = (turn if counted else 0, number)
            earlier = [
                (other[1] if counted else 0, place)
                for place, other in enumerate(rows)
                if other[0] == session != UNSET and (other[1] if counted else 0, place) < own
            ]
            expected.append(max(earlier)[1] if earlier else UNSET)
        assert turns_before(trace).tolist() == expected

    @given(ROWS)
    def test_a_closed_loop_holds_every_request_once_and_links_turns_both_ways(self, rows: list[Row]) -> None:
        trace = made(rows)
        before, loop = turns_before(trace), closed_loop(trace)
        waiting = [number for number, row in enumerate(rows) if before[number] != UNSET and row[2] != UNSET]
        if loop is None:
            assert not waiting
            return
        assert loop.order[loop.first :].tolist() == waiting
        assert sorted(loop.order.tolist()) == list(range(len(rows)))
        assert loop.order[: loop.first].tolist() == sorted(loop.order[: loop.first].tolist())
        for place, row in enumerate(loop.order.tolist()):
            assert (loop.before[place] == UNSET) == (before[row] == UNSET)
            if before[row] != UNSET:
                assert loop.order[loop.before[place]] == before[row]
            if place >= loop.first:
                assert loop.after[loop.before[place]] == place
                assert loop.pause[place] == rows[row][2]
        assert (loop.after != UNSET).sum() == len(waiting)

    def test_recorded_times_wait_for_nothing(self) -> None:
        assert closed_loop(made([(0, 1, -1), (0, 2, -1), (1, 1, -1)])) is None


class TestPrompts:
    LINES = (
        {"session_id": "a", "timestamp": 0, "input_length": 600, "output_length": 50},
        {"session_id": "b", "timestamp": 0, "input_length": 10, "output_length": 7},
        {"session_id": "a", "delay": 3000, "input_length": 80, "output_length": 20},
        {"session_id": "a", "delay": 3000, "input_length": 30, "output_length": 5},
    )

    def test_the_conversation_so_far_is_put_before_what_a_turn_adds(self, tmp_path: Path) -> None:
        trace = read(list(self.LINES), tmp_path / "t", prompts="added")
        assert trace.prompt.tolist() == [600, 10, 730, 780]

    def test_prompts_shorter_than_their_conversation_raise_the_question(self, tmp_path: Path) -> None:
        trace = read(list(self.LINES), tmp_path / "t")
        assert trace.prompt.tolist() == [600, 10, 80, 30]
        assert any("2 of 2 later turns are shorter" in note and "--prompts added" in note for note in trace.notes)

    def test_whole_prompts_raise_none(self, tmp_path: Path) -> None:
        lines = [self.LINES[0], {"session_id": "a", "delay": 1, "input_length": 650, "output_length": 1}]
        assert not any("--prompts" in note for note in read(lines, tmp_path / "t").notes)

    def test_without_sessions_nothing_can_be_added(self, tmp_path: Path) -> None:
        with pytest.raises(TraceError, match="which session"):
            read([{"timestamp": 0, "input_length": 600, "output_length": 50}], tmp_path / "t", prompts="added")

    def test_a_prompt_that_grows_beyond_all_bounds_is_refused(self, tmp_path: Path) -> None:
        turn = {"session_id": "a", "input_length": 2_000_000_000, "output_length": 1}
        with pytest.raises(TraceError, match="2,147,483,647"):
            read([turn | {"timestamp": 0}, turn | {"delay": 1}], tmp_path / "t", prompts="added")


class TestChanges:
    def test_pauses_stretch_with_time(self) -> None:
        trace = scale_time(made([(0, 1, -1), (0, 2, 5)]), 2.5)
        assert trace.delay is not None
        assert trace.delay.tolist() == [UNSET, 12]

    @given(ROWS.filter(lambda rows: len(rows) > 3), st.integers(0, 20))
    def test_copies_keep_the_order_of_turns(self, rows: list[Row], seed: int) -> None:
        trace = made([(session, UNSET, pause) for session, _, pause in rows], counted=False)
        copied = load(trace, 3.0, seed)
        order = {int(prompt): place for place, prompt in enumerate(trace.prompt)}  # each prompt is of one length
        for code in range(len(copied.labels["session"].names)):
            mine = copied.prompt[copied.labels["session"].codes == code].tolist()
            assert mine == sorted(mine, key=lambda prompt: order[prompt])


class TestOverview:
    def test_conversations_are_counted(self) -> None:
        trace = made([(0, 1, -1), (0, 2, 2 * SECOND), (1, 1, -1), (0, 3, 4 * SECOND), (-1, -1, -1)])
        found = overview(trace, "t").conversations
        assert isinstance(found, ConversationSummary)
        assert (found.conversations, found.follow, found.shorter) == (1, 2, 2)
        assert found.turns == LengthSummary(3.0, 3, 3, 3, 3, 3)
        assert found.pause_s is not None
        assert (found.pause_s.mean, found.pause_s.longest) == (3.0, 4.0)

    def test_sessions_of_one_request_are_none(self) -> None:
        assert overview(made([(0, 1, -1), (1, 1, 3)]), "t").conversations is None


@pytest.mark.parametrize(
    ("times", "name", "said", "pause"),
    [
        ((0.0, 1.5), "delay", 2.5, 2.5),  # times with fractions are seconds, and so are pauses beside them
        ((0, 1500), "delay", 2.5, 0.0025),  # as this format says: milliseconds
        ((0.0, 1.5), "delay_ms", 2.5, 0.0025),  # as the name says
    ],
)
def test_pauses_are_in_the_unit_of_times(tmp_path: Path, times: tuple[float, ...], name: str, said: float, pause: float) -> None:
    lengths = {"session_id": "a", "input_length": 100, "output_length": 10}
    lines: list[dict[str, object]] = [{**lengths, "timestamp": time} for time in times]
    lines[1][name] = said
    found = read(lines, tmp_path / "t.jsonl")
    assert found.delay is not None
    assert found.delay[1] == round(pause * SECOND)
    assert found.arrival[-1] == 1_500_000
    assert any("pauses are read as seconds" in note for note in found.notes) == (pause == said)
