"""Random calls: the SQL store says what the plain one in memory says, after every one of them.

Read next: `src/sageserve/live/store/memory.py`, the model.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sageserve.live.store.interface import Store
from sageserve.live.store.memory import MemoryStore
from sageserve.live.store.models import File, Lease, ListRange, NewJob, Result, StoreError, Usage
from sageserve.live.store.sql import open_store
from tests.live.store.conftest import _emptied
from tests.live.store.test_store import batch

LINES = st.integers(1, 4)
MODELS = st.sampled_from(["a", "b"])


class Machine(RuleBasedStateMachine):
    """Two stores side by side."""

    open: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.model = MemoryStore()
        self.real = type(self).open()
        self.now = 0
        self.made = 0
        self.epochs = [0]
        self.recorded: set[tuple[int, int]] = set()

    def both(self, call: Callable[[Store], Any]) -> Any:  # noqa: ANN401 # whatever the call gives
        answers: list[Any] = []
        for store in (self.model, self.real):
            try:
                answers.append(call(store))
            except StoreError as error:
                answers.append(type(error))
        assert answers[0] == answers[1]
        return answers[0]

    @rule(ends=st.integers(1, 3), model=MODELS, lines=st.integers(0, 4))
    def submit(self, ends: int, model: str, lines: int) -> None:
        self.made += 1
        self.now += 1
        made = self.both(lambda store: store.add_batch(batch(self.made, ends=ends)))
        jobs = [NewJob(k, f"c{k}", b"{}") for k in range(1, lines + 1)]
        if jobs:
            self.both(lambda store: store.hold(made.number, model, jobs))

    def some(self, number: int) -> int:
        return 1 + number % self.made

    @precondition(lambda self: self.made)
    @rule(number=st.integers(0, 50), model=MODELS)
    def accept(self, number: int, model: str) -> None:
        self.now += 1
        self.both(lambda store: store.accept(self.some(number), model, self.now))

    @precondition(lambda self: self.made)
    @rule(number=st.integers(0, 50), verb=st.sampled_from(["cancel", "expire", "finish", "begin_reading"]))
    def move(self, number: int, verb: str) -> None:
        self.now += 1
        more = () if verb == "begin_reading" else (self.now,)
        self.both(lambda store: getattr(store, verb)(self.some(number), *more))

    @precondition(lambda self: self.made)
    @rule(number=st.integers(0, 50))
    def close_one(self, number: int) -> None:
        self.now += 1
        at = self.some(number)
        name = f"file-{at}-{self.now}"
        output = File(name, "me", name, "batch_output", self.now, self.now + 3, size=1)

        def close(store: Store) -> None:
            store.begin_file(output)
            store.append(name, 0, b"x")
            store.close_batch(at, (output, None), self.now)

        self.both(close)

    @rule()
    def begin_epoch(self) -> None:
        self.epochs.append(self.both(lambda store: store.begin_epoch()))

    @rule(
        leases=st.lists(st.tuples(st.integers(1, 6), LINES), max_size=3),
        results=st.lists(st.tuples(st.integers(1, 6), LINES, st.booleans()), max_size=4),
        old=st.booleans(),
    )
    def commit(self, leases: list[tuple[int, int]], results: list[tuple[int, int, bool]], old: bool) -> None:
        epoch = self.epochs[0] if old else self.epochs[-1]
        taken = [Lease(key, 1) for key in leases]
        ended = [Result((b, line), ok, 200, "r", b"{}", "", Usage(1, 2, 3, 4)) for b, line, ok in results]

        def do(store: Store) -> tuple[set[tuple[int, int]], int, bool]:
            done = store.commit(epoch, taken, ended)
            assert len(done.recorded) == len(set(done.recorded))
            return set(done.recorded), done.late, done.superseded

        recorded, _, _ = self.both(do)
        assert not recorded & self.recorded, "a job was recorded twice"
        self.recorded |= recorded

    @rule(after=st.booleans())
    def expire_files(self, after: bool) -> None:
        self.both(lambda store: store.expire_files(self.now if after else 0))

    @invariant()
    def say_the_same(self) -> None:
        self.both(lambda store: store.batches("me", ListRange(None, 100)))
        self.both(lambda store: store.unfinished())
        self.both(lambda store: store.unfinished_jobs())
        self.both(lambda store: [store.queued(model, 5) for model in "ab"])
        self.both(lambda store: store.files("me", ListRange(None, 100), None))
        self.both(lambda store: [self.bare(store, number) for number in range(1, self.made + 1)])

    @staticmethod
    def bare(store: Store, number: int) -> list[Any]:
        """Outcomes without usage, which is kept per batch."""
        found = store.outcomes(number, 0, 10)
        return [(o.line, o.custom_id, o.state, o.result and replace(o.result, usage=Usage())) for o in found]

    def teardown(self) -> None:
        self.real.close()


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 12), ("postgres", 5)])
def test_sql_says_what_memory_says(request: pytest.FixtureRequest, tmp_path: Path, kind: str, examples: int) -> None:
    postgres = request.getfixturevalue("postgres") if kind == "postgres" else ""

    def fresh() -> Store:
        if postgres:
            return open_store(_emptied(postgres), tmp_path)
        return open_store("sqlite", Path(tempfile.mkdtemp(dir=tmp_path)))

    machine = type("M", (Machine,), {"open": staticmethod(fresh)})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=25))
