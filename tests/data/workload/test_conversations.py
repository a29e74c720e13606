"""Laws of generated conversations: the exact count, prompts that grow by answer and message, turns that stay in the window.

Read next: `data/workload/conversations.py`.
"""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sageserve.base.config.traffic import GeneratorSettings
from sageserve.base.errors import ConfigError
from sageserve.base.records import UNSET, Trace
from sageserve.base.sessions import closed_loop, turns_before
from sageserve.base.units import MINUTE, SECOND
from sageserve.data.workload.generate import generate, history
from tests.data.scenes import scenario
from tests.data.workload.test_generate import FLAT, WEEKDAYS

SHAPE = {
    "share": 1,
    "hours": FLAT,
    "days": WEEKDAYS,
    "prompt": ((0, 20), (1, 400)),
    "output": ((0, 5), (1, 100)),
}
SHAPES = {"big": {"interactive": SHAPE, "batch": SHAPE}, "small": {"interactive": SHAPE}}
TALK = {"turns": ((0, 1), (1, 9)), "think": ((0, "1s"), (1, "1m")), "added": ((0, 3), (1, 60))}


def drawn(seed: int = 1, **more: object) -> Trace:
    made = {"requests": 20_000, "length": "1d", "shapes": SHAPES, "conversations": TALK, **more}
    return generate(scenario(generate=GeneratorSettings.model_validate(made), seed=seed)).check()


@given(requests=st.integers(1, 2000), minutes=st.integers(1, 300), seed=st.integers(0, 2**40), most=st.integers(1, 30))
def test_the_count_is_exact_and_the_trace_is_sound(requests: int, minutes: int, seed: int, most: int) -> None:
    trace = drawn(seed, requests=requests, length=f"{minutes}m", conversations={**TALK, "turns": ((0, 1), (1, most))})
    assert (len(trace), trace.window) == (requests, minutes * MINUTE)


def test_a_turn_holds_the_conversation_so_far_and_comes_after_its_pause() -> None:
    trace = drawn()
    before = turns_before(trace)
    later = np.flatnonzero(before != UNSET)
    earlier = before[later]
    assert len(later) > 5_000
    assert trace.delay is not None
    assert (trace.counts["turn"][later] == trace.counts["turn"][earlier] + 1).all()
    assert (trace.arrival[later] == trace.arrival[earlier] + trace.delay[later]).all()
    added = trace.prompt[later] - trace.prompt[earlier] - trace.output[earlier]
    assert (int(added.min()), int(added.max())) == (3, 60)
    assert (trace.delay[later].min() >= SECOND, trace.delay[later].max() <= MINUTE) == (True, True)
    assert (trace.model[later] == trace.model[earlier]).all()
    firsts = (before == UNSET) & (trace.counts["turn"] != UNSET)
    assert (trace.counts["turn"][firsts] == 1).all()
    assert (trace.delay[before == UNSET] == UNSET).all()


def test_batch_work_stands_alone_and_shares_hold() -> None:
    trace = drawn(requests=100_000)
    batch = trace.tier == 2
    assert (trace.labels["session"].codes[batch] == UNSET).all()
    assert float(batch.mean()) == pytest.approx(0.28, abs=0.02)


def test_turns_have_the_quantiles_asked_for() -> None:
    trace = drawn(requests=100_000, conversations={**TALK, "turns": ((0.5, 3), (1, 3)), "think": ((0, "1s"), (1, "2s"))})
    codes = trace.labels["session"].codes
    sizes = np.bincount(codes[codes != UNSET])
    assert float((sizes == 3).mean()) > 0.95  # the window, the context or the exact count end the others


def test_conversations_end_where_the_context_does() -> None:
    trace = drawn(conversations={**TALK, "turns": ((0, 60), (1, 80)), "added": ((0, 200), (1, 900))})
    small = (trace.model == 1) & (trace.counts["turn"] > 1)
    assert bool(small.any())
    assert int((trace.prompt + trace.output)[small].max()) <= 4_096


def test_equal_seeds_give_equal_conversations() -> None:
    one, two, other = drawn(3), drawn(3), drawn(4)
    assert (one.prompt == two.prompt).all()
    assert one.labels["session"].names == two.labels["session"].names
    assert (one.arrival != other.arrival).any()


def test_one_turn_each_is_no_conversation() -> None:
    trace = drawn(conversations={"turns": ((0, 1), (1, 1))})
    assert closed_loop(trace) is None
    assert not trace.labels


def test_history_has_prompts_as_long_as_the_window() -> None:
    settings: dict[str, object] = {"requests": 100_000, "length": "7d", "shapes": SHAPES, "conversations": TALK, "history": "7d"}
    trace = generate(scenario(generate=GeneratorSettings.model_validate(settings)))
    before = history(scenario(generate=GeneratorSettings.model_validate(settings)))
    mean = before.prompt_tokens[..., :2].sum() / before.requests[..., :2].sum()
    assert mean == pytest.approx(float(trace.prompt[trace.tier < 2].mean()), rel=0.05)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"turns": ((0, 0.5), (1, 3))}, "turns: points must be \\(quantile, turns\\)"),
        ({"think": ((0, "10s"), (1, "5s"))}, "think: points must be \\(quantile, time\\) .* from 1ms up"),
        ({"added": ((0.5, 10), (0.5, 20))}, "added: points must be"),
    ],
)
def test_bad_points_are_refused_by_their_setting(bad: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        drawn(conversations={**TALK, **bad})
