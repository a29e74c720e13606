"""Sweeps: the same results whatever the number of workers, nothing played twice, and what happens when a worker dies.

Read next: `tests/cli/test_compare.py` for what is shown of them.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

from sageserve.base.errors import ResultError, TraceError
from sageserve.data.results.summary import Summary
from sageserve.data.results.sweep_folder import Kept, source_of
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.requests import Requests
from sageserve.data.workload.generate import generate, history
from sageserve.sim.oracle import oracle_bound
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from sageserve.sim.sweep.cell import Bounded, Cell, Failed, Finished, Outcome, Player
from sageserve.sim.sweep.processes import Processes
from sageserve.sim.sweep.room import WORKER_BYTES, cores, free_memory, memory_of, workers_that_fit
from sageserve.sim.sweep.run import Watch, sweep

SMALL = ("workload.generate.requests=2000", "workload.generate.length=1h", "workload.generate.bursts=[]")


def cell(strategy: str = "reactive", seed: int = 1, *overrides: str) -> Cell:
    settings = load_scenario("quickstart", overrides=[*SMALL, f"strategy.name={strategy}", f"seed={seed}", *overrides])
    return Cell(f"{strategy}-{seed}", settings)


def told(outcome: Outcome | None) -> Summary:
    """The summary of a cell without what differs between two runs on one machine."""
    assert isinstance(outcome, Finished), outcome
    return msgspec.structs.replace(outcome.summary, cpu_s=0.0, requests_per_cpu_s=None)


class Here:
    """Plays cells in this process, and remembers which."""

    def __init__(self) -> None:
        self.played: list[str] = []

    def run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        player = Player()
        for number, one in reversed(list(enumerate(cells))):  # the order of outcomes is nobody's promise
            if interrupted():
                return
            self.played.append(one.name)
            outcome = player.play(one)
            assert outcome is not None
            yield number, outcome


def test_results_are_the_same_with_one_worker_two_and_none() -> None:
    cells = [cell("reactive", 1), cell("siloed", 1), cell("reactive", 2)]
    expected = [
        msgspec.structs.replace(
            summarise(simulate(one.scenario, generate(one.scenario)), 1.0), cpu_s=0.0, requests_per_cpu_s=None
        )
        for one in cells
    ]
    assert expected[0] != expected[1] != expected[2]
    for runner in (Here(), Processes(1), Processes(2)):
        assert [told(outcome) for outcome in sweep(cells, runner)] == expected


def test_forecasters_are_given_what_came_before() -> None:
    busy = ("workload.generate.requests=60000", "workload.generate.begins=1d", "workload.generate.length=90m")
    with_past = cell("lt-i", 1, *busy, "workload.generate.history=2d")
    (outcome,) = sweep([with_past], Here())
    run = simulate(with_past.scenario, generate(with_past.scenario), earlier=history(with_past.scenario))
    assert told(outcome).instance_hours == summarise(run, 1.0).instance_hours
    (without,) = sweep([cell("lt-i", 1, *busy)], Here())
    assert told(without).instance_hours != told(outcome).instance_hours


def test_finished_cells_are_not_played_again(tmp_path: Path) -> None:
    cells = [cell("reactive", 1), cell("reactive", 2)]
    first, second, third = Here(), Here(), Here()
    kept = Kept(tmp_path / "out")
    (alone,) = sweep(cells[:1], first, kept=kept)
    both = sweep(cells, second, kept=Kept(tmp_path / "out"))
    assert (first.played, second.played) == (["reactive-1"], ["reactive-2"])
    assert both[0] == alone  # to the bytes, the CPU seconds too: it was read
    changed = cell("reactive", 1, "fleet.start=4")
    sweep([changed], third, kept=kept)
    assert third.played == ["reactive-1"]
    summaries = list((tmp_path / "out").glob("*/summary.json"))
    assert len(summaries) == 3
    summaries[0].write_bytes(b"{")  # damaged
    again = Here()
    sweep([*cells, changed], again, kept=kept)
    assert len(again.played) == 1


def test_equal_cells_are_played_once_and_progress_is_told() -> None:
    runner, heard = Here(), list[tuple[int, int]]()
    outcomes = sweep([cell(), cell(), cell("siloed")], runner, watch=Watch(lambda done, total: heard.append((done, total))))
    assert sorted(runner.played) == ["reactive-1", "siloed-1"]
    assert outcomes[0] is outcomes[1]
    assert heard == [(0, 2), (1, 2), (2, 2)]


def test_the_bound_is_a_cell_of_its_own_and_kept(tmp_path: Path) -> None:
    settings = cell().scenario
    cells = [cell(), Cell("oracle-1", settings, what="bound")]
    run, bound = sweep(cells, Here(), kept=Kept(tmp_path))
    assert isinstance(bound, Bounded)
    assert bound.bound == oracle_bound(settings, generate(settings))
    assert isinstance(run, Finished)
    again = Here()
    assert sweep(cells, again, kept=Kept(tmp_path)) == [run, bound]
    assert again.played == []


def test_a_mistake_in_a_cell_is_told_and_the_others_go_on() -> None:
    wrong = Cell("wrong", cell().scenario, source_of(TraceOptions((Path(__file__),))))
    outcomes = sweep([wrong, cell()], Processes(1))
    assert isinstance(outcomes[0], Failed)
    assert outcomes[0].mistake
    assert Path(__file__).name in outcomes[0].message
    assert isinstance(outcomes[1], Finished)


class Dies(Player):
    """Dies at cells of seed 13, and the first time at cells of seed 7."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def requests(self, cell: Cell) -> Requests:
        seed = cell.scenario.seed
        before = self._folder / str(seed)
        if seed == 13 or (seed == 7 and not before.exists()):
            with before.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().requests(cell)


def test_a_dead_worker_costs_its_cell_one_retry_and_the_others_nothing(tmp_path: Path) -> None:
    cells = [cell("reactive", seed) for seed in (1, 7, 13, 2)]
    outcomes = sweep(cells, Processes(2, partial(Dies, tmp_path)))
    assert [isinstance(outcome, Finished) for outcome in outcomes] == [True, True, False, True]
    assert isinstance(outcomes[2], Failed)
    assert "twice" in outcomes[2].message
    assert (tmp_path / "13").read_text() == "xx"
    assert (tmp_path / "7").read_text() == "x"


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    cells = [cell("reactive", seed) for seed in (1, 2, 3)]
    done: list[int] = []
    watch = Watch(lambda finished, _total: done.append(finished), lambda: bool(done) and done[-1] >= 1)
    outcomes = sweep(cells, Processes(1), kept=Kept(tmp_path), watch=watch)
    assert sum(outcome is None for outcome in outcomes) == 2
    rest = Here()
    assert None not in sweep(cells, rest, kept=Kept(tmp_path))
    assert len(rest.played) == 2


def test_a_trace_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    keys = []
    for tokens in (10, 20, 10):
        rows = [f"{second},{tokens + second},{10}" for second in range(100)]
        path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, "x,1,1"]) + "\n")
        keys.append(Cell("file", cell().scenario, source_of(TraceOptions((path,)))).key("code"))
    assert keys[0] == keys[2] != keys[1]
    (outcome,) = sweep([Cell("file", cell().scenario, source_of(TraceOptions((path,), load=2.0)))], Here())
    assert isinstance(outcome, Finished)
    assert outcome.summary.requests.arrived == 200
    assert "1 row" in outcome.remarks[0]
    with pytest.raises(TraceError, match=r"none\.csv"):
        source_of(TraceOptions((tmp_path / "none.csv",)))
    with pytest.raises(TraceError, match="--map"):
        source_of(TraceOptions(maps=("a=b",)))


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ResultError, match="not of a sweep"):
        Kept(tmp_path)
    with pytest.raises(ResultError, match="is a file"):
        Kept(tmp_path / "mine.txt")
    Kept(tmp_path, replace=True)


def test_as_many_workers_as_have_cores_and_memory() -> None:
    small = cell()
    large = cell("reactive", 1, "workload.generate.requests=900000000")
    assert memory_of(large) > 100 << 30 > memory_of(small) > WORKER_BYTES
    assert workers_that_fit([large, small]) <= max(1, free_memory() // memory_of(large))
    assert workers_that_fit([small]) == 1
    assert workers_that_fit([small] * 1000) <= cores()
