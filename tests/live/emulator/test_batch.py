"""The batch keeps the simulator's rules: equal requests get equal times to the microsecond."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import AdapterSettings, ProfileSettings
from sageserve.base.config.models import SpeculativeSettings
from sageserve.base.units import NEVER, Micros
from sageserve.core import perf
from sageserve.core.engine.timing import iteration_time, row_of
from sageserve.core.perf import profile_rows
from sageserve.live.emulator.batch import Sequence
from sageserve.live.emulator.ranks import EngineRanks
from sageserve.sim.replay import Arrivals, replay

whole = st.integers(0, 40)


@st.composite
def curves(draw: st.DrawFn, *, exact: bool) -> tuple[tuple[int, float], ...]:
    """Knots; between those of exact ones every token takes whole microseconds."""
    knots = [(1, float(draw(st.integers(1, 20))))]
    slopes = whole if exact else st.floats(0, 40)
    for distance, slope in draw(st.lists(st.tuples(st.integers(1, 60), slopes), min_size=1, max_size=6)):
        tokens, time = knots[-1]
        later = time + slope * distance / 1e3
        knots.append((tokens + distance, round(later, 3) if exact else later))
    return tuple(knots)


@st.composite
def profiles(draw: st.DrawFn, *, exact: bool) -> ProfileSettings:
    """A small engine; `exact` ones take whole microseconds for everything, so that rounding cannot differ."""
    number = whole if exact else st.floats(0, 40)
    return ProfileSettings(
        gpu="x",
        tp=1,
        gpus=1,
        iteration_ms=draw(curves(exact=exact)),
        eager_ms=draw(st.integers(0, 30)),
        decode_us_per_sequence=draw(number),
        kv_ns_per_token=draw(number) * (1000 if exact else 1),
        attention_ns_per_token2=draw(st.sampled_from([0, 2000] if exact else [0, 1.7, 30.0])),
        kv_tokens=draw(st.integers(150, 1000)),
        max_sequences=draw(st.integers(1, 8)),
        max_batched_tokens=draw(st.integers(16, 200)),
        chunked=draw(st.booleans()),
        mixed=draw(st.sampled_from([None, None, True, False])),
        evicts=draw(st.sampled_from([True, True, False])),
        graph_sequences=draw(st.sampled_from([None, None, 1, 3])),
        dp=draw(st.sampled_from([1, 1, 2, 3])),
        lockstep=draw(st.booleans()),
        prefix_caching=draw(st.booleans()),
        source="made up",
    )


@st.composite
def adapting(draw: st.DrawFn) -> ProfileSettings:
    """A small exact engine, in one of two cases with slots for adapters."""
    profile = draw(profiles(exact=True))
    if draw(st.booleans()):
        return profile
    load, *more = (draw(st.integers(0, 3_000)) for _ in range(3))
    told = AdapterSettings(slots=draw(st.integers(1, 3)), adapter_us=more[0], any_us=more[1]).model_copy(update={"load": load})
    return profile.model_copy(update={"adapters": told})


@st.composite
def speculating(draw: st.DrawFn) -> ProfileSettings:
    """Such an engine, in one of two cases with drafts; a drafter that takes time would not take whole microseconds."""
    profile = draw(adapting())
    if draw(st.booleans()):
        return profile
    told = SpeculativeSettings(tokens=draw(st.integers(1, 4)), acceptance=draw(st.sampled_from([0, 0.3, 0.7, 1])), draft=0)
    batched = profile.max_batched_tokens + profile.max_sequences * told.tokens
    return profile.model_copy(update={"speculative": told, "max_batched_tokens": batched, "kv_ns_per_token": 0})


Row = tuple[int, int, int, int, int]
"""Arrival, prompt, output, cached, adapter."""


@st.composite
def row(draw: st.DrawFn) -> Row:
    prompt = draw(st.integers(1, 100))
    arrival, output, cached = draw(st.integers(0, 400_000)), draw(st.integers(1, 40)), draw(st.integers(0, prompt - 1))
    return arrival, prompt, output, cached, draw(st.integers(-1, 5))


requests = st.lists(row(), min_size=1, max_size=25)


class Recorder:
    """Keeps when each sequence had its first and its last token."""

    def __init__(self) -> None:
        self.first: dict[int, Micros] = {}
        self.end: dict[int, Micros] = {}
        self.tokens = 0

    def made(self, now: Micros, decoded: list[Sequence], prompts: list[Sequence]) -> None:
        for one in [*decoded, *prompts]:
            self.tokens += 1
            self.first.setdefault(one.number, now)
            if one.made == one.output:
                self.end[one.number] = now


def play(batch: EngineRanks, rows: list[Row], *, step: Micros = 0) -> None:
    """Let all requests arrive and finish; with `step`, the clock is looked at only so often."""
    for number, (arrival, prompt, output, cached, adapter) in enumerate(rows):
        batch.advance(arrival - 1)
        batch.submit(Sequence(number, prompt=prompt, output=output, arrival=arrival, cached=cached, adapter=adapter))
    while batch.due < NEVER:
        batch.advance(batch.due + step)


@given(profile=speculating(), rows=requests, step=st.sampled_from([0, 50_000]))
def test_first_token_and_end_are_the_simulators(profile: ProfileSettings, rows: list[Row], step: Micros) -> None:
    rows = sorted(rows)
    recorder = Recorder()
    batch = EngineRanks(row_of(profile), recorder)
    play(batch, rows, step=step)
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    expected = replay(profile, Arrivals(*columns))
    assert [recorder.first[i] - rows[i][0] for i in range(len(rows))] == expected.ttft.tolist()
    assert [recorder.end[i] - rows[i][0] for i in range(len(rows))] == expected.e2e.tolist()
    assert batch.preemptions == expected.preemptions
    assert (batch.used, batch.running, batch.waiting) == (0, 0, 0)
    assert recorder.tokens == sum(output for _, _, output, _, _ in rows)


@given(
    profile=profiles(exact=False),
    tokens=st.integers(0, 8192),
    attention=st.integers(0, 10**8),
    sequences=st.integers(0, 256),
    kv=st.integers(0, 10**6),
)
def test_an_iteration_takes_what_the_engine_model_says(
    profile: ProfileSettings, tokens: int, attention: int, sequences: int, kv: int
) -> None:
    ours = iteration_time(row_of(profile), tokens, attention / 2, sequences, kv)
    theirs = perf.iteration_time(profile_rows([profile])[0], float(tokens), attention / 2, sequences, kv)
    assert ours == float(theirs)


@given(profile=speculating(), rows=requests, leave=st.sets(st.integers(0, 24)), when=st.integers(0, 400_000))
def test_those_who_leave_free_their_memory_and_get_no_token_more(
    profile: ProfileSettings, rows: list[Row], leave: set[int], when: Micros
) -> None:
    recorder = Recorder()
    batch = EngineRanks(row_of(profile), recorder)
    sequences = [Sequence(i, prompt=p, output=o, arrival=0, adapter=a) for i, (_, p, o, _, a) in enumerate(rows)]
    for one in sequences:
        batch.submit(one)
    batch.advance(when)
    left = {i for i in leave if i < len(rows) and sequences[i].place != Sequence.OUT}
    made = {i: sequences[i].made for i in left}
    for i in left:
        batch.abort(sequences[i])
        batch.abort(sequences[i])  # twice is once
    while batch.due < NEVER:
        batch.advance(batch.due)
    assert {i: sequences[i].made for i in left} == made
    assert set(recorder.end) == set(range(len(rows))) - left
    assert (batch.used, batch.running, batch.waiting) == (0, 0, 0)


def test_lower_priority_numbers_go_first_but_take_no_running_place() -> None:
    recorder = Recorder()
    profile = ProfileSettings(
        gpu="x", tp=1, gpus=1, iteration_ms=((1, 10.0), (2, 10.0)), decode_us_per_sequence=0, kv_ns_per_token=0,
        attention_ns_per_token2=0, kv_tokens=1000, max_sequences=1, source="made up",
    )  # fmt: skip
    batch = EngineRanks(row_of(profile), recorder)
    for number, priority in enumerate([5, 5, 1]):
        batch.submit(Sequence(number, prompt=10, output=3, arrival=number, priority=priority))
        batch.advance(number)
    while batch.due < NEVER:
        batch.advance(batch.due)
    assert sorted(recorder.end, key=recorder.end.__getitem__) == [0, 2, 1]


def test_a_slow_engine_takes_so_many_times_as_long() -> None:
    ends = []
    for slowness in (1.0, 3.0):
        recorder = Recorder()
        profile = ProfileSettings(
            gpu="x", tp=1, gpus=1, iteration_ms=((1, 10.0), (2, 10.0)), decode_us_per_sequence=0, kv_ns_per_token=0,
            attention_ns_per_token2=0, kv_tokens=1000, source="made up",
        )  # fmt: skip
        batch = EngineRanks(row_of(profile), recorder)
        batch.slowness = slowness
        play(batch, [(0, 10, 5, 0, -1)])
        ends.append(recorder.end[0])
    assert ends == [50_000, 150_000]
