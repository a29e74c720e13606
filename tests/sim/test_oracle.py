"""The bound no strategy can go below: cases by hand, any schedule that a brute force can think of, and strategies that ran.

Read next: `src/sageserve/sim/oracle.py`.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import Scenario
from sageserve.base.records import Trace
from sageserve.base.units import HOUR, MINUTE, SECOND, Micros
from sageserve.data.scenarios.load import check
from sageserve.sim.oracle import STEP, Need, least, oracle_bound
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.core.small import ENGINE, PRICE, TIERS, Row, row, scenario, trace

PATIENT = TIERS | {"iw-f": {"ttft": "1h"}, "iw-n": {"ttft": "1h"}}  # so patient that an instance may always be busy
FULL = 1.0


def need(
    interactive: list[float], arrived: list[float] | None = None, due: list[float] | None = None, *, last: float = 0.25
) -> Need:
    """GPU-hours by quarter of an hour; the last step may be shorter."""
    nothing = [0.0] * len(interactive)
    hours = np.full(len(interactive), 0.25)
    hours[-1] = last
    return Need(hours, np.array(interactive), np.array(arrived or nothing), np.array(due or nothing))


# ------------------------------------------------------------------------------------------------ by hand


def test_flat_demand_needs_its_time_over_the_load() -> None:
    assert least(need([1.0] * 4), load=0.8, floor=0) == pytest.approx(5.0)
    assert least(need([1.0] * 4), load=0.8, floor=4) == pytest.approx(5.0)
    assert least(need([1.0] * 4), load=0.8, floor=10) == pytest.approx(10.0)


def test_a_peak_is_paid_for_where_it_is() -> None:
    assert least(need([0.0, 2.0, 0.0]), load=1.0, floor=0) == pytest.approx(2.0)
    assert least(need([0.0, 2.0, 0.0]), load=1.0, floor=4) == pytest.approx(1 + 2 + 1)


def test_batch_work_fills_valleys_as_far_as_its_deadline_allows() -> None:
    day = [2.0, 0.5, 0.5, 2.0]
    work = [1.0, 0.0, 0.0, 0.0]
    free = 1.5 + 1.5  # what a floor of 8 GPUs has left over in the two valleys
    assert least(need(day), load=1.0, floor=8) == pytest.approx(8)
    assert least(need(day, work, [0.0, 0.0, 1.0, 0.0]), load=1.0, floor=8) == pytest.approx(8)
    assert least(need(day, work, [1.0, 0.0, 0.0, 0.0]), load=1.0, floor=8) == pytest.approx(9), "due before the valley"
    late = [0.0, 0.0, 0.0, 1.0]
    assert least(need(day, late, late), load=1.0, floor=8) == pytest.approx(9), "arrives after the valley"
    much = [free + 2, 0.0, 0.0, 0.0]
    assert least(need(day, much, [0.0, 0.0, free + 2, 0.0]), load=1.0, floor=8) == pytest.approx(10)


def test_what_is_due_after_the_window_is_done_in_it() -> None:
    assert least(need([0.0, 0.0], [3.0, 0.0], [0.0, 0.0]), load=1.0, floor=0) == pytest.approx(3)


def test_a_step_cut_by_the_end_of_the_window_is_as_long_as_it_is() -> None:
    assert least(need([0.0, 0.0], last=0.1), load=1.0, floor=8) == pytest.approx(0.35 * 8)
    assert least(need([0.0, 1.0], last=0.1), load=1.0, floor=8) == pytest.approx(0.25 * 8 + 1.0)


def engine(settings: Scenario, trace_: Trace) -> float:
    """GPU-hours: 8 GPUs for the iterations between two of as many requests as memory holds, and for those that prefill beside.

    Memory is what limits: what is made is computed once more.
    """
    together = 100_000 / (trace_.prompt + trace_.output / 2)
    assert (together < 256).all()
    todo, steps = trace_.prompt + trace_.output, trace_.output - 1
    rate = np.minimum(together / trace_.output, 8_192 / (todo + steps))
    decoding = rate * steps
    share = np.minimum(1, rate * todo / np.minimum(todo, 8_192 - decoding))
    between, beside = (10_000 + 20 * tokens for tokens in (decoding, decoding + rate * todo / share))
    return float(((share * beside + (1 - share) * between) / rate).sum()) * settings.models["big"].engines["h100"].gpus / HOUR


def test_a_trace_needs_its_engine_time_over_the_load_and_endpoints_their_floor() -> None:
    settings = scenario(tiers=PATIENT, fleet={"start": 1, "minimum": 0, "maximum": 4})
    rows = [row(k * SECOND, prompt=5_000) for k in range(1_800)]
    found = oracle_bound(settings, trace(settings, rows))
    assert found.loads["big"] == pytest.approx(FULL)
    assert found.gpu_hours == found.models["big"] == pytest.approx(engine(settings, trace(settings, rows)) / FULL)
    floor = scenario(tiers=PATIENT, fleet={"start": 2, "minimum": 2, "maximum": 4})
    quiet = oracle_bound(floor, trace(floor, [row(0)], window=40 * MINUTE))
    assert quiet.models == {"big": pytest.approx(2 * 2 * 8 * 2 / 3), "small": pytest.approx(2 * 2 * 8 * 2 / 3)}


def test_refused_requests_need_nothing_and_answers_end_with_the_context() -> None:
    settings = scenario(tiers=PATIENT, fleet={"start": 1, "minimum": 0, "maximum": 4})
    assert oracle_bound(settings, trace(settings, [row(0, prompt=8_000)])).gpu_hours == 0
    long = trace(settings, [row(0, prompt=1_000, output=50_000)])
    ended = trace(settings, [row(0, prompt=1_000, output=7_000)])
    assert oracle_bound(settings, long) == oracle_bound(settings, ended)
    assert oracle_bound(settings, ended).gpu_hours == pytest.approx(engine(settings, ended), rel=0.02)


def test_a_request_may_be_done_by_the_engine_that_spends_least_on_it() -> None:
    small = ENGINE | {
        "gpu": "a100",
        "gpus": 2,
        "tp": 2,
        "iteration_ms": [[1, 20.04], [10_001, 420.04]],
    }  # half as fast on a quarter of it
    both = {"h100": ENGINE, "a100": small}

    def bound(*gpus: str, rows: list[Row], window: Micros = 0) -> float:
        tree: dict[str, object] = {
            "name": "kinds",
            "gpus": {gpu: {"memory": "80GiB"} for gpu in gpus},
            "regions": {"east": {"gpus": {gpu: {"gpus": 80, "price": PRICE} for gpu in gpus}}},
            "models": {"big": {"context": 8_000, "engines": {gpu: both[gpu] for gpu in gpus}}},
            "tiers": PATIENT,
            "fleet": {"start": 1, "minimum": 1, "maximum": 4},
        }
        settings = check(Scenario.model_validate(tree))
        return oracle_bound(settings, trace(settings, rows, window=window)).gpu_hours

    rows = [row(k * 100_000, prompt=5_000) for k in range(18_000)]
    assert bound("h100", "a100", rows=rows) == pytest.approx(bound("h100", rows=rows) / 2, rel=0.01)
    assert bound("h100", "a100", rows=[row(0)], window=HOUR) == pytest.approx(2), "two GPUs are enough for the floor"


@pytest.mark.parametrize(("deadline", "more"), [(None, 0.0), (STEP, 1.0), (3 * STEP, 0.0)])
def test_requests_keep_deadlines_of_their_own(deadline: Micros | None, more: float) -> None:
    """A quarter of an hour of interactive work that fills the floor, and a batch job that must run beside it or may wait."""
    stock = {"h100": scenario().regions["east"].gpus["h100"].model_dump(mode="json")}
    settings = scenario(tiers=PATIENT, regions={"east": {"gpus": stock}})
    busy: list[Row] = [row(k * 105_000, prompt=5_000) for k in range(8_500)]  # 15 minutes of work in 15 minutes
    jobs: list[Row] = [row(0, tier="niw", prompt=5_000) for _ in range(500)]
    window = 4 * STEP
    alone = oracle_bound(settings, trace(settings, busy, window=window)).gpu_hours
    own = dict.fromkeys(range(501), deadline - 1) if deadline else {}  # of everything that arrives at 0
    found = oracle_bound(settings, trace(settings, [*jobs, *busy], window=window, deadlines=own)).gpu_hours
    assert found == pytest.approx(alone + more * engine(settings, trace(settings, jobs)) / FULL, rel=2e-3)


# ------------------------------------------------------------------------------------------------ laws


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Need, float, float, float]:
    """Some work, a load, a floor, and the GPU-hours of some way to do it all in time."""
    steps = draw(st.integers(1, 8))
    interactive = [draw(st.integers(0, 20)) / 4 for _ in range(steps)]
    arrived, due, done = [0.0] * steps, [0.0] * steps, [0.0] * steps
    for _ in range(draw(st.integers(0, 10))):
        first, some, last = sorted(draw(st.integers(0, steps - 1)) for _ in range(3))
        work = draw(st.integers(1, 12)) / 4
        arrived[first] += work
        due[last] += work
        done[some] += work
    load, floor = draw(st.sampled_from([0.3, 0.7, 1.0])), draw(st.sampled_from([0.0, 4.0, 30.0]))
    hours = [0.25] * (steps - 1) + [draw(st.sampled_from([0.05, 0.25]))]
    held = [max(floor * hour, (a + b) / load) for hour, a, b in zip(hours, interactive, done, strict=True)]
    return need(interactive, arrived, due, last=hours[-1]), load, floor, sum(held)


@given(schedules())
def test_no_schedule_costs_less(case: tuple[Need, float, float, float]) -> None:
    work, load, floor, cost = case
    found = least(work, load=load, floor=floor)
    assert found <= cost + 1e-6
    total = float(work.interactive.sum() + work.arrived.sum()) / load
    assert found >= max(total, floor * float(work.hours.sum())) - 1e-6


@given(schedules(), st.integers(0, 7), st.integers(0, 7), st.booleans())
def test_more_work_never_costs_less(case: tuple[Need, float, float, float], first: int, last: int, batch: bool) -> None:
    work, load, floor, _ = case
    steps = len(work.hours)
    begin, end = sorted((first % steps, last % steps))
    step = np.eye(steps)
    more = Need(
        work.hours,
        work.interactive + (0 if batch else 1) * step[begin],
        work.arrived + (1 if batch else 0) * step[begin],
        work.due + (1 if batch else 0) * step[end],
    )
    assert least(more, load=load, floor=floor) >= least(work, load=load, floor=floor) - 1e-6


requests = st.lists(
    st.tuples(
        st.integers(0, 2 * HOUR - 1), st.sampled_from(["iw-f", "niw"]), st.integers(1, 7_900), st.integers(1, 500), st.booleans()
    ),
    min_size=1,
    max_size=30,
)


@given(requests, requests)
def test_more_requests_never_lower_the_bound(
    some: list[tuple[int, str, int, int, bool]], more: list[tuple[int, str, int, int, bool]]
) -> None:
    settings = scenario(tiers=PATIENT, fleet={"start": 1, "minimum": 0, "maximum": 4})

    def bound(listed: list[tuple[int, str, int, int, bool]]) -> float:
        rows = [
            row(at, tier=tier, prompt=prompt, output=output, model="big" if big else "small")
            for at, tier, prompt, output, big in listed
        ]
        return oracle_bound(settings, trace(settings, rows, window=2 * HOUR)).gpu_hours

    assert bound([*some, *more]) >= bound(some) - 1e-9


@pytest.mark.parametrize("name", ["siloed", "reactive", "lt-i", "lt-ua", "chiron", "foresight"])
@pytest.mark.parametrize("batch", [False, True])
def test_no_strategy_holds_less_than_the_bound_less_what_it_leaves_to_do(name: str, batch: bool) -> None:
    settings = scenario(
        tiers=PATIENT | {"niw": {"deadline": "40m"}},
        gpus=96,
        fleet={"start": 3, "minimum": 1, "maximum": 6},
        batch={"promote_after": "30m"},
        strategy={"name": name},
    )
    end = 75 * MINUTE
    rows = [row(at, prompt=6_000, region=("east", "west")[k % 2]) for k, at in enumerate(range(0, end, 40_000))]
    if batch:
        rows += [row(at, tier="niw", prompt=7_000, output=200) for at in range(0, end // 2, 100_000)]
    played = trace(settings, rows, window=end)
    found = summarise(simulate(settings, played), 1.0)
    bound = oracle_bound(settings, played)
    owed = found.after_window.work_gpu_hours
    assert owed is not None
    assert found.gpu_hours.total >= bound.gpu_hours - owed / min(bound.loads.values()) - 1e-6
    floor = 4 * 8 * 75 / 60
    assert bound.gpu_hours > 1.2 * floor, "the bound must say more than the floor for this to mean anything"
