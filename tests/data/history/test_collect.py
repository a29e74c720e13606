"""Raw series to what a pool did: resets, copies, names, holes, and chunks that are cut anywhere."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.units import SECOND
from sageserve.data.history.collect import PoolCollector
from sageserve.data.history.counters import arrivals, on_grid
from sageserve.data.history.fronts import FrontCollector
from sageserve.data.history.raw import RawSeries
from sageserve.data.history.records import NO_INSTANCE, NOT_SCRAPED, Grid, PoolHistory
from tests.data.history.made import BEGIN, STEP, engine, series

GRID = Grid(BEGIN, STEP, 8)
DONE = [0.0, 2, 4, 6, 8, 10, 12, 14, 16]
INSIDE = [1.0, 3, 3, 1, 1, 1, 1, 1, 1]


def collected(found: list[RawSeries], grid: Grid = GRID) -> PoolHistory:
    collector = PoolCollector("pool", grid)
    collector.add(found)
    return collector.finish()


def test_arrivals_are_completions_and_the_change_of_what_is_inside() -> None:
    pool = collected(engine(DONE, INSIDE))
    assert pool.arrivals.tolist() == [4, 2, 0, 2, 2, 2, 2, 2]
    assert pool.completed.tolist() == [2] * 8
    assert pool.prompt_tokens.sum() == 1600
    assert pool.output_tokens.sum() == 160
    assert pool.running.tolist() == INSIDE[:8]
    assert pool.instances.tolist() == [1] * 8
    assert (pool.gaps, pool.resets, pool.notes) == ((), 0, ())


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), min_size=3, max_size=40),
    st.sets(st.integers(1, 38), max_size=5),
)
def test_chunks_may_be_cut_anywhere(steps: list[tuple[int, int, bool]], cuts: set[int]) -> None:
    done, inside = [0.0], [0.0]
    for finished, running, restarted in steps:
        done.append(finished if restarted else done[-1] + finished)
        inside.append(running)
    found = engine(done, inside)
    grid = Grid(BEGIN, STEP, len(steps))
    whole = collected(found, grid)
    collector = PoolCollector("pool", grid)
    edges = [BEGIN, *(BEGIN + cut * STEP for cut in sorted(cuts)), BEGIN + len(done) * STEP]
    for first, last in pairwise(edges):
        collector.add([one.between(first, last) for one in found])
    parts = collector.finish()
    for name in ("arrivals", "completed", "prompt_tokens", "output_tokens", "running", "instances"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-9)
    assert (parts.gaps, parts.resets) == (whole.gaps, whole.resets)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=60))
def test_what_arrived_covers_what_completed_and_is_inside(steps: list[tuple[int, int]]) -> None:
    completed = np.array([step[0] for step in steps], np.float64)
    inside = np.array([0.0, *(step[1] for step in steps)])
    found, owed = arrivals(completed, inside, np.zeros(len(steps), dtype=np.bool_))
    assert (found >= 0).all()
    assert owed >= 0
    assert found.sum() - owed == pytest.approx(completed.sum() + inside[-1])


@pytest.mark.parametrize(("counted", "arrived"), [(3.0, 5.0), (900.0, 2.0)])
def test_an_instance_that_begins_in_mid_history_brings_what_it_counted_and_an_old_one_what_is_inside(
    counted: float, arrived: float
) -> None:
    """Pods come and go between scrapes: what theirs counted before the first would be lost at every start."""
    late = engine([counted + 2 * row for row in range(5)], [2.0] * 5, "late")
    late = [RawSeries(one.labels, one.time + 4 * STEP, one.value) for one in late]
    pool = collected([*engine([0.0] * 9, [0.0] * 9), *late])
    assert pool.arrivals.sum() == arrived + 4 * 2
    assert pool.prompt_tokens.sum() == 100 * (4 * 2 + (counted if counted < 900 else 0))


def test_an_engine_that_begins_anew_counts_from_zero_and_owes_nothing() -> None:
    done = [100.0, 102, 104, 1, 3, 5, 7, 9, 11]
    inside = [2.0, 2, 2, 1, 1, 1, 1, 1, 1]
    pool = collected(engine(done, inside))
    assert pool.resets == 1
    assert pool.arrivals.tolist() == [2, 2, 2, 2, 2, 2, 2, 2]
    assert pool.prompt_tokens.sum() == 1500
    no_completion_yet = collected(engine([5.0, 5, 0, 0, 2, 4, 6, 8, 10], [3.0, 3, 0, 0, 0, 0, 0, 0, 0]))
    assert no_completion_yet.arrivals.tolist() == [0, 0, 0, 2, 2, 2, 2, 2]


def test_two_servers_that_scrape_one_pod_count_once() -> None:
    one = engine(DONE, INSIDE, prometheus_replica="a")
    other = [RawSeries(s.labels, s.time + 3 * SECOND, s.value) for s in engine(DONE, INSIDE, prometheus_replica="b")]
    pool = collected(one + other)
    assert pool.arrivals.sum() == collected(one).arrivals.sum()
    assert pool.instances.max() == 1
    assert any("prometheus_replica" in note for note in pool.notes)


def test_the_hole_of_one_copy_is_filled_from_the_other() -> None:
    def without(found: list[RawSeries], rows: slice) -> list[RawSeries]:
        keep = np.ones(9, dtype=np.bool_)
        keep[rows] = False
        return [RawSeries(s.labels, s.time[keep], s.value[keep]) for s in found]

    one = without(engine(DONE, INSIDE, prometheus_replica="a"), slice(2, 6))
    other = without(engine(DONE, INSIDE, prometheus_replica="b"), slice(7, 8))
    pool = collected(one + other)
    assert pool.gaps == ()
    assert pool.arrivals.sum() == 16


def test_the_new_name_is_taken_and_the_old_one_before_it() -> None:
    old = [s for s in engine(DONE, INSIDE) if "success" not in s.name]
    both = [
        *old,
        series("kserve_vllm:request_success_total", DONE, finished_reason="stop"),
        series("vllm:e2e_request_latency_seconds_count", [9.0 * v for v in DONE]),
    ]
    pool = collected(both)
    assert pool.completed.sum() == 16, "the two names were added up, or the wrong one was taken"
    only_old = collected([*old, series("vllm:e2e_request_latency_seconds_count", DONE)])
    assert only_old.completed.sum() == 16


@pytest.mark.parametrize(
    ("running", "waiting", "success"),
    [
        ("sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:num_requests_total"),
        ("trtllm_num_requests_running", "trtllm_num_requests_waiting", "trtllm_request_success_total"),
        ("trtllm:num_requests_running", "trtllm:num_requests_waiting", "trtllm:request_success_total"),
        ("tgi_batch_current_size", "tgi_queue_size", "tgi_request_success"),
        ("ray_vllm_num_requests_running", "ray_vllm_num_requests_waiting", "ray_vllm_request_success_total"),
        ("kserve_vllm:num_requests_running", "kserve_vllm:num_requests_waiting", "kserve_vllm:request_success_total"),
    ],
)
def test_every_engine_and_wrapper_is_read(running: str, waiting: str, success: str) -> None:
    pool = collected([series(running, INSIDE), series(waiting, [0.0] * 9), series(success, DONE)])
    assert pool.arrivals.tolist() == [4, 2, 0, 2, 2, 2, 2, 2]


def test_an_engine_without_completions_says_that_arrivals_are_too_few() -> None:
    pool = collected([series("llamacpp:requests_processing", INSIDE), series("llamacpp:requests_deferred", [0.0] * 9)])
    assert pool.arrivals.sum() == 2
    assert any("llama.cpp does not count completions" in note for note in pool.notes)


def test_a_gap_is_named_and_never_zero() -> None:
    keep = np.array([True, True, True, False, False, False, False, True, True])
    found = [RawSeries(s.labels, s.time[keep], s.value[keep]) for s in engine(DONE, [1.0] * 9)]
    pool = collected(found)
    assert [(gap.first, gap.last, gap.why, gap.grown) for gap in pool.gaps] == [(2, 7, NOT_SCRAPED, 10.0)]
    assert np.isnan(pool.arrivals[2:7]).all()
    assert np.isnan(pool.instances[2:7]).all()
    assert pool.arrivals[[0, 1, 7]].tolist() == [2, 2, 2]


def test_one_missed_scrape_is_no_gap() -> None:
    keep = np.arange(9) != 4
    pool = collected([RawSeries(s.labels, s.time[keep], s.value[keep]) for s in engine(DONE, [1.0] * 9)])
    assert pool.gaps == ()
    assert pool.arrivals.tolist() == [2] * 8


def test_no_series_is_a_gap_and_zeros_are_none() -> None:
    nothing = collected([])
    assert [(gap.first, gap.last, gap.why) for gap in nothing.gaps] == [(0, 8, NO_INSTANCE)]
    assert np.isnan(nothing.arrivals).all()
    idle = collected(engine([7.0] * 9, [0.0] * 9))
    assert idle.gaps == ()
    assert idle.arrivals.tolist() == [0] * 8


def test_samples_that_are_no_numbers_are_left_out_and_counted() -> None:
    found = engine(DONE, [1.0] * 9)
    broken = RawSeries(found[3].labels, found[3].time, np.where(np.arange(9) == 4, np.inf, found[3].value))
    pool = collected([*found[:3], broken, found[4]])
    assert pool.prompt_tokens.sum() == 1600
    assert any("no finite numbers" in note for note in pool.notes)


def test_data_parallel_ranks_are_one_instance() -> None:
    pool = collected(engine(DONE, INSIDE, engine="0") + engine(DONE, INSIDE, engine="1"))
    assert pool.instances.max() == 1
    assert pool.arrivals.tolist() == [8, 4, 0, 4, 4, 4, 4, 4]


def test_growth_is_spread_between_the_samples_around_an_edge() -> None:
    time = np.array([0, 10, 20])
    assert on_grid(time, np.array([4.0, 8.0]), np.array([0, 5, 15, 20])).tolist() == [2, 6, 4]


def test_histograms_are_windows_of_growth() -> None:
    grid = Grid(BEGIN, STEP, 40)
    rising = [float(i) for i in range(41)]
    buckets = [
        series("vllm:request_prompt_tokens_bucket", [0.25 * v for v in rising], le="100.0"),
        series("vllm:request_prompt_tokens_bucket", rising, le="200"),
        series("vllm:request_prompt_tokens_bucket", rising, le="+Inf"),
        series("vllm:request_prompt_tokens_sum", [150 * v for v in rising]),
    ]
    pool = collected(engine(rising, [1.0] * 41) + buckets, grid)
    sizes = pool.histograms["prompt_size"]
    assert sizes.grid == Grid(BEGIN, 300 * SECOND, 2)
    assert sizes.bounds.tolist() == [100, 200]
    assert sizes.counts.tolist() == [[5, 15, 0], [5, 15, 0]]
    assert sizes.total.tolist() == [3000, 3000]


# --- gateways ---


def front(found: list[RawSeries]) -> list[tuple[str, str, str, float]]:
    collector = FrontCollector(GRID)
    collector.add(found)
    return [(one.model, one.tier, one.metric, float(np.nansum(one.arrivals))) for one in collector.finish()]


def test_a_gateway_that_emits_old_and_new_names_is_counted_once() -> None:
    names = ("llm_d_epp_request_total", "inference_objective_request_total", "inference_model_request_total")
    found = [series(name, DONE, priority=tier) for name in names for tier in ("0", "100")]
    assert front(found) == [("m", "0", "llm_d_epp_request_total", 16.0), ("m", "100", "llm_d_epp_request_total", 16.0)]
    assert front(found[2:4]) == [(m, t, "inference_objective_request_total", 16.0) for m, t in (("m", "0"), ("m", "100"))]


def test_dynamo_counts_started_requests_before_finished_ones() -> None:
    found = [
        series("dynamo_frontend_requests_total", [v / 2 for v in DONE], model="x"),
        series("dynamo_frontend_requests_started_total", DONE, model="x"),
    ]
    assert front(found) == [("x", "", "dynamo_frontend_requests_started_total", 16.0)]


def test_requests_that_nobody_could_serve_are_no_demand() -> None:
    name = "sageserve_gateway_requests_total"
    found = [series(name, DONE, gen_ai_request_model="x", tier="iw-f", code=code) for code in ("200", "401", "429")]
    assert front(found) == [("x", "iw-f", name, 32.0)]


def test_the_first_request_of_a_label_counts() -> None:
    late = series("llm_d_epp_request_total", [3.0, 4.0, 5.0], BEGIN + 4 * STEP, priority="5")
    found = front([series("llm_d_epp_request_total", DONE, priority="0"), late])
    assert found[1] == ("m", "5", "llm_d_epp_request_total", 5.0)
