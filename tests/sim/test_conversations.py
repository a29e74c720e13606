"""Conversations in a closed loop equal a naive calculation to the microsecond, wait for slow fleets, and are accounted for.

Engines here run one sequence at a time, so what happens can be worked out request by request. Larger batches are the business of
`reference.py`, which plays conversations too. Read next: docs/reference/kernel.md, "Conversations".
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Labels, Trace
from sageserve.base.rng import stream
from sageserve.base.sessions import closed_loop
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.core.layout import lay_out, unified_roles
from sageserve.data.results.summary import ConversationCounts, Summary
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.state import DONE, FUTURE, PLACE, request_rows
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, Simulation, kernel_setup, simulate
from tests.core.small import ENGINE, row, scenario, trace

BASE, PREFILL, DECODE, KV, ATTENTION, ENTRY, RTT = 7_000, 20, 300, 0.5, 0.002, 4_000, 3_000  # us, of one engine
OUTPUT = 200  # what the kernel guesses, so that no guess is learned
SPEED = {
    "decode_us_per_sequence": DECODE,
    "kv_ns_per_token": KV * 1e3,
    "attention_ns_per_token2": ATTENTION * 1e3,
    "first_token_ms": ENTRY / 1e3,
}
FEATURES: dict[str, object] = {"max_sequences": 1, "max_batched_tokens": 16_384, "chunked": False}
PATIENT: dict[str, object] = {"iw-f": {"ttft": "2h"}}


def fleet(
    instances: int, *, faster: float = 1.0, loop: str = "closed", tiers: dict[str, object] = PATIENT, admission: str = "off"
) -> Scenario:
    """One model in one region on that many engines."""
    speed: dict[str, object] = {name: value / faster for name, value in SPEED.items()}
    speed["iteration_ms"] = [[tokens, (BASE + PREFILL * tokens) / 1e3 / faster] for tokens in (1, 10_001)]
    models = {"big": {"context": 16_000, "engines": {"h100": ENGINE | speed | FEATURES}}}
    stock = {"h100": {"gpus": 80, "price": {"on_demand": "80/h"}}}
    return scenario(
        models=models,
        regions={"east": {"gpus": stock, "local_rtt": f"{RTT}us"}},
        fleet={"start": instances, "minimum": instances, "maximum": 8},
        strategy={"name": f"fixed:{instances}"},
        workload={"loop": loop},
        tiers=tiers,
        admission=admission,
    )


def talks(settings: Scenario, count: int = 200, *, within: int = 10 * MINUTE, tier: str = "iw-f") -> Trace:
    """Conversations of one to eight turns that begin at random; prompts grow by the answer and what is added."""
    draw = stream(7, "talks")
    rows: list[tuple[int, int, int, int, int]] = []  # arrival, session, turn, pause, prompt
    for session in range(count):
        at, prompt = int(draw.integers(0, within)), int(draw.integers(20, 900))
        for turn in range(1, int(draw.integers(2, 10))):
            pause = UNSET if turn == 1 else int(draw.integers(1, 40 * SECOND))
            rows.append((at, session, turn, pause, prompt))
            at, prompt = at + int(draw.integers(0, 40 * SECOND)), prompt + OUTPUT + int(draw.integers(1, 300))
    rows.sort()
    plain = trace(settings, [row(one[0], prompt=one[4], output=OUTPUT, tier=tier) for one in rows], window=HOUR)
    return replace(
        plain,
        labels={"session": Labels(np.array([one[1] for one in rows], np.int32), tuple(f"c{k}" for k in range(count)))},
        counts={"turn": np.array([one[2] for one in rows], np.int32)},
        delay=np.array([one[3] for one in rows], np.int64),
    ).check()


@dataclass
class Naive:
    """One engine that serves one request at a time, first come first served."""

    queue: list[int] = field(default_factory=list)
    inside: int | None = None
    prefilled: int = 0  # when the prompt of the one inside is done
    end: int = 2**62
    kept: dict[int, int] = field(default_factory=dict)  # session: tokens of the turn that was here last


def rounded(microseconds: float) -> int:
    return max(1, int(microseconds + 0.5))


def service(prompt: int, found: int) -> tuple[int, int]:
    """Microseconds of the prompt, of which some is found in the cache, and of the other tokens of the answer."""
    rest, more = prompt - found, OUTPUT - 1
    first = rounded(BASE + PREFILL * rest + ATTENTION * rest * (found + rest / 2))
    step = BASE + PREFILL + DECODE + KV * (prompt + 1)
    return first, rounded(step * more + KV * more * (more - 1) / 2)


def worked_out(told: Trace, instances: int) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Arrival, last token and cached tokens of every request: one event after the other, everything looked at every time."""
    session, turn = told.labels["session"].codes.tolist(), told.counts["turn"].tolist()
    row_of = {(session[q], turn[q]): q for q in range(len(told))}
    pause = [] if told.delay is None else told.delay.tolist()
    coming = {q: int(told.arrival[q]) for q in range(len(told)) if turn[q] == 1}
    arrival: dict[int, int] = dict(coming)
    finish: dict[int, int] = {}
    cached: dict[int, int] = {}
    engines = [Naive() for _ in range(instances)]

    def outstanding(i: int, now: int) -> tuple[int, int]:
        one = engines[i]
        here = one.queue + ([] if one.inside is None else [one.inside])
        waiting = one.queue + ([one.inside] if one.inside is not None and now <= one.prefilled else [])
        return sum(int(told.prompt[q]) - cached[q] for q in waiting) + OUTPUT * len(here), i

    while coming or any(one.inside is not None for one in engines):
        at = min([(coming[q], q) for q in coming], default=(2**62, -1))
        end = min((one.end, i) for i, one in enumerate(engines))
        if at[0] <= end[0]:
            now, q = at
            del coming[q]
            i = min(range(instances), key=lambda one: outstanding(one, now))
            kept = engines[i].kept.get(session[q], 0)
            cached[q] = min(kept, int(told.prompt[q]) - 1) // 16 * 16
            engines[i].queue.append(q)
        else:
            now, i = end
            done = engines[i].inside
            assert done is not None
            finish[done] = now + ENTRY
            engines[i].kept[session[done]] = int(told.prompt[done]) + OUTPUT - 1
            engines[i].inside, engines[i].end = None, 2**62
            later = row_of.get((session[done], turn[done] + 1))
            if later is not None:
                coming[later] = arrival[later] = finish[done] + RTT + pause[later]
        one = engines[i]
        if one.inside is None and one.queue:
            one.inside = one.queue.pop(0)
            first, rest = service(int(told.prompt[one.inside]), cached[one.inside])
            one.prefilled, one.end = now + first, now + first + rest
    return arrival, finish, cached


def played(settings: Scenario, told: Trace) -> Run:
    return simulate(settings, told, debug=True)


def counted(run: Run) -> tuple[Summary, ConversationCounts]:
    """The summary, held against the law of accounts."""
    summary = summarise(run, 1.0)
    talk, counts = summary.conversations, summary.requests
    assert isinstance(talk, ConversationCounts)
    assert counts.arrived == counts.finished + counts.shed + counts.refused + counts.unfinished
    if not run.partial:
        assert counts.arrived + talk.never_arrived == len(run.requests)
    return summary, talk


@pytest.mark.parametrize("instances", [1, 3])
def test_two_hundred_conversations_equal_a_naive_calculation_to_the_microsecond(instances: int) -> None:
    settings = fleet(instances)
    told = talks(settings)
    run = played(settings, told)
    arrival, finish, cached = worked_out(told, instances)
    assert run.talk is not None
    session, turn = told.labels["session"].codes.tolist(), told.counts["turn"].tolist()
    row_of = {(session[q], turn[q]): q for q in range(len(told))}
    rows = [row_of[key] for key in zip(run.talk.session.tolist(), run.talk.number.tolist(), strict=True)]
    assert run.requests["arrival"].tolist() == sorted(arrival.values())
    assert run.requests["arrival"].tolist() == [arrival[q] for q in rows]
    assert run.requests["finish"].tolist() == [finish[q] for q in rows]
    assert run.requests["cached"].tolist() == [cached[q] for q in rows]
    assert (run.requests["deadline"] - run.requests["arrival"] == 2 * HOUR).all()
    share = counted(run)[1].cached_share
    assert share is not None
    assert share > 0.3 if instances > 1 else share > 0.7


def test_doubling_the_speed_of_engines_shortens_a_closed_loop_and_not_an_open_one() -> None:
    ends: dict[tuple[str, float], tuple[int, int]] = {}
    for loop in ("closed", "open"):
        for faster in (1.0, 2.0):
            settings = fleet(1, faster=faster, loop=loop)
            rows = played(settings, talks(settings, 60, within=MINUTE)).requests
            ends[loop, faster] = int(rows["arrival"].max()), int(rows["finish"].max())
    assert ends["open", 1.0][0] == ends["open", 2.0][0], "who does not wait for answers comes when he comes"
    assert ends["closed", 2.0][0] < 0.8 * ends["closed", 1.0][0]
    assert ends["closed", 2.0][1] < 0.8 * ends["closed", 1.0][1]


def test_an_open_loop_keeps_the_times_of_the_trace_and_speaks_of_no_conversations() -> None:
    settings = fleet(1, loop="open")
    told = talks(settings, 20)
    run = played(settings, told)
    assert (run.requests["arrival"] == told.arrival).all()
    assert not isinstance(summarise(run, 1.0).conversations, ConversationCounts)
    assert (run.requests["cached"] == 0).all()


def test_engines_without_a_prefix_cache_find_nothing_of_a_conversation() -> None:
    settings = fleet(1)
    without = settings.models["big"].model_copy(update={"prefix_cache": False})
    run = played(settings.model_copy(update={"models": {"big": without}}), talks(settings, 20))
    assert counted(run)[1].cached_share == 0.0


def test_who_gets_no_answer_asks_nothing_more() -> None:
    """A context that the third turn outgrows; everything after it never arrives, and nobody waits for it."""
    settings = fleet(1)
    small = settings.models["big"].model_copy(update={"context": 1_000})
    settings = settings.model_copy(update={"models": {"big": small}})
    told = replace(talks(settings, 1), arrival=np.arange(5) * SECOND, prompt=np.array([300, 600, 1_200, 1_500, 1_800], np.int32))
    told = replace(
        told,
        **{name: getattr(told, name)[:5] for name in ("output", "model", "region", "tier", "deadline")},
        labels={"session": Labels(np.zeros(5, np.int32), ("c",))},
        counts={"turn": np.arange(1, 6, dtype=np.int32)},
        delay=np.array([UNSET, 5, 5, 5, 5]),
    ).check()
    run = played(settings, told)
    summary, talk = counted(run)
    assert (summary.requests.finished, summary.requests.refused, talk.never_arrived, talk.followed) == (2, 1, 2, 2)
    assert any("2 never arrived" in note for note in run.notes)
    assert run.now < 2 * HOUR, "nobody waits for turns that never come"


def test_who_arrives_alone_goes_before_a_turn_of_the_same_instant() -> None:
    settings = fleet(1)
    pair = talks(settings, 1).take(np.arange(2))
    turn = int(played(settings, pair).requests["arrival"][1])
    both = pair.take(np.array([0, 1, 1]))
    both = replace(
        both,
        arrival=np.array([pair.arrival[0], pair.arrival[0], turn]),
        prompt=np.array([*pair.prompt.tolist(), 77], np.int32),
        labels={"session": Labels(np.array([0, 0, UNSET], np.int32), ("c",))},
    ).check()
    rows = played(settings, both).requests
    assert rows["arrival"][1:].tolist() == [turn, turn]
    assert rows["prompt"][1:].tolist() == [77, int(pair.prompt[1])]
    assert rows["finish"][1] < rows["finish"][2]


def test_shed_turns_end_their_conversations_and_the_sum_holds() -> None:
    settings = fleet(1, tiers={"iw-f": {"ttft": "4s"}}, admission="on")
    run = played(settings, talks(settings, within=MINUTE))
    summary, talk = counted(run)
    assert summary.requests.shed > 20
    assert talk.never_arrived > 20
    assert summary.requests.unfinished == 0


def test_an_interrupted_run_owes_what_is_under_way() -> None:
    settings = fleet(1)
    told = talks(settings)
    simulation = Simulation(settings, told)
    run = simulation.play(interrupted=lambda: simulation.run.now >= 5 * MINUTE)
    summary, talk = counted(run)
    assert summary.partial
    assert (summary.requests.unfinished > 0, talk.never_arrived) == (True, 0)
    place = run.requests["state"] & PLACE
    assert summary.requests.arrived == int((place != FUTURE).sum()) < len(told)
    assert (np.diff(run.requests["arrival"][: summary.requests.arrived]) >= 0).all()


def test_turns_after_the_window_are_played_and_counted_apart() -> None:
    settings = fleet(1)
    told = talks(settings, 60, within=MINUTE)
    told = replace(told, window=(int(told.arrival[-1]) // MINUTE + 1) * MINUTE)
    run = played(settings, told)
    summary, talk = counted(run)
    assert ((run.requests["state"] & PLACE) == DONE).all()
    assert talk.after_window == int((run.requests["arrival"] >= told.window).sum()) > 0
    assert summary.gpu_hours.total == pytest.approx(8 * told.window / HOUR)
    assert any(f"{talk.after_window:,} arrived after the window" in note for note in run.notes)


def test_an_instance_that_was_closed_has_forgotten_what_was_said() -> None:
    """Two turns an hour apart: what is drained and opened again in between begins anew."""
    settings = fleet(1)
    told = talks(settings, 1)
    turns = closed_loop(told)
    setup = kernel_setup(settings, lay_out(settings, unified_roles(settings), lambda _: (1,)))
    for close in (False, True):
        kernel = Kernel(setup, request_rows(told, setup, turns), turns)
        kernel.open(0)
        while int(kernel.endpoints["finished"][0]) == 0:
            kernel.run_until(kernel.now + 1_000)
        if close:
            assert kernel.drain(0)
            kernel.open(0)
        while not kernel.finished():
            kernel.run_until(kernel.now + MINUTE)
        cached = kernel.requests["cached"]
        assert bool(cached[1] == 0) is close
        assert (cached[2:] > 0).all()
