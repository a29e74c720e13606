"""The summary against numbers worked out by hand, and the laws its parts must keep.

The engine of the small scenario takes 10 ms for any iteration: a lone request has its first token after 10 ms and its
o-th after 10·o ms. Read next: docs/reference/summary.md.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Trace
from sageserve.base.units import HOUR, SECOND
from sageserve.core.layout import names_of
from sageserve.data.results.summary import Quantiles, Summary, parse_summary, summary_json
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.workload.generate import generate
from sageserve.sim.results.meter import BLOCK, blocks
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, Simulation, simulate
from sageserve.sim.sizing.plays import measured_of
from tests.worlds import SMALL_FLEET

ENGINE = {
    "gpu": "h100",
    "tp": 8,
    "gpus": 8,
    "iteration_ms": [[1, 10.0], [2, 10.0]],
    "decode_us_per_sequence": 0.0,
    "kv_ns_per_token": 0.0,
    "attention_ns_per_token2": 0.0,
    "kv_tokens": 500_000,
    "source": "made up: 10 ms for everything",
}
MINUTE_US = 60 * SECOND


def scenario(**changes: object) -> Scenario:
    """One instance in the east that never changes; the west has no GPUs and is 70 ms away, too far for `fast`."""
    price = {"on_demand": "96/h", "reserved": "48/h", "spot": "12/h"}
    tree: dict[str, object] = {
        "name": "tiny",
        "gpus": {"h100": {"memory": "80GiB"}},
        "regions": {
            "east": {"gpus": {"h100": {"gpus": 8, "reserved": 2, "price": price}}, "rtt": {"west": "70ms"}, "local_rtt": "5ms"},
            "west": {"gpus": {"h100": {"gpus": 0, "price": price}}},
        },
        "models": {"m": {"context": 1000, "engines": {"h100": ENGINE}}},
        "tiers": {"fast": {"ttft": "50ms", "percentile": "30%"}, "job": {"deadline": "1s", "percentile": "90%"}},
        "fleet": {"start": 1, "minimum": 1, "maximum": 1},
        "batch": {"feed": "direct"},
    }
    return Scenario.model_validate(tree | changes)


def trace(
    settings: Scenario, *rows: tuple[int, str, str, int, int], window: int = MINUTE_US, own: dict[int, int] | None = None
) -> Trace:
    """Rows of (arrival ms, tier, region, prompt, output)."""
    names = names_of(settings)
    deadline = np.full(len(rows), UNSET, np.int64)
    for row, time in (own or {}).items():
        deadline[row] = time
    return Trace(
        arrival=np.array([row[0] * 1000 for row in rows], np.int64),
        prompt=np.array([row[3] for row in rows], np.int32),
        output=np.array([row[4] for row in rows], np.int32),
        model=np.zeros(len(rows), np.uint8),
        region=np.array([names.regions.index(row[2]) for row in rows], np.uint8),
        tier=np.array([names.tiers.index(row[1]) for row in rows], np.uint8),
        names=names,
        window=window,
        deadline=deadline,
        notes=("by hand",),
    ).check()


def by_hand() -> Run:
    settings = scenario()
    rows = trace(
        settings,
        (1_000, "fast", "east", 100, 3),  # TTFT 10 + 5, E2E 30 + 5: kept
        (2_000, "fast", "west", 100, 3),  # TTFT 10 + 70: missed, E2E 30 + 70
        (3_000, "job", "east", 100, 2),  # E2E 20 + 5: kept
        (4_000, "job", "east", 100, 10),  # E2E 100 + 5, its own deadline is after 104 ms: missed
        (5_000, "fast", "east", 1000, 3),  # no room for an answer: refused
        (59_990, "job", "east", 100, 5),  # done 40 ms after the window: kept
        own={3: 4_104_000},
    )
    return simulate(settings, rows, debug=True)


def test_requests_and_promises_by_hand() -> None:
    found = summarise(by_hand(), 0.5)
    assert msgspec.structs.astuple(found.requests) == (6, 5, 0, 1, 0)
    fast, job = found.tiers["fast"], found.tiers["job"]
    assert (fast.requests, fast.finished, fast.attainment, fast.kept) == (3, 2, 0.333333, True)
    assert (job.requests, job.finished, job.attainment, job.kept) == (3, 3, 0.666666, False)
    assert (fast.promise, fast.promise_s, job.promise, job.promise_s) == ("ttft", 0.05, "deadline", 1.0)
    assert fast.ttft_s == Quantiles(0.0475, 0.07675, 0.07935)
    assert fast.e2e_s == Quantiles(0.0675, 0.09675, 0.09935)
    assert job.e2e_s.p50 == 0.055
    assert (found.after_window.finished, found.after_window.latest_s) == (1, 0.04)
    assert (found.cpu_s, found.requests_per_cpu_s, found.notes) == (0.5, 12.0, ("by hand",))


def test_hours_and_money_by_hand() -> None:
    found = summarise(by_hand(), 0.5)
    held = found.gpu_hours
    assert held.serving == held.total == held.floor == pytest.approx(8 / 60, abs=1e-6)
    assert (held.starting, held.reclaiming, held.draining, held.spot, held.waste) == (0, 0, 0, 0, 0)
    assert found.instance_hours.total == pytest.approx(1 / 60, abs=1e-6)
    assert found.cost_usd.reserved == 0.20  # 2 of 8 GPUs at 48/8 dollars for a minute
    assert found.cost_usd.on_demand == 1.20  # 6 at 96/8
    assert found.cost_usd.total == 1.40
    assert (found.starts, found.reclaims, found.start_failures, found.preemptions) == (0, 0, 0, 0)
    model = found.models["m"]
    assert (model.requests, model.finished, model.prompt_tokens, model.output_tokens) == (6, 5, 500, 23)
    assert model.gpu_hours == held
    assert model.tiers["fast"].ttft_s_p95 == found.tiers["fast"].ttft_s.p95


def test_idle_hours_are_weighed_by_gpus_and_each_model_owes_its_own_work() -> None:
    models = {name: {"context": 1000, "engines": {"h100": {**ENGINE, "gpus": gpus}}} for name, gpus in (("m", 6), ("n", 2))}
    settings = scenario(models=models)
    rows = [(20 * k, "job", "east", 100, 800) for k in range(3_000)]  # all for the one of six GPUs, and more than it can do
    found = summarise(simulate(settings, trace(settings, *rows)), 1.0)
    busy, idle = found.models["m"], found.models["n"]
    assert idle.gpu_hours.idle == idle.gpu_hours.serving == pytest.approx(2 / 60, abs=1e-6)
    assert busy.gpu_hours.idle is not None
    assert found.gpu_hours.idle is not None
    assert found.gpu_hours.idle == pytest.approx(busy.gpu_hours.idle + 2 / 60, abs=2e-6)
    assert found.gpu_hours.idle < found.gpu_hours.serving * (1.0 - (found.utilisation.busy or 0.0)) - 0.01  # by instances
    assert (idle.work_gpu_hours, busy.work_gpu_hours) == (0.0, found.after_window.work_gpu_hours)
    assert measured_of(found, "n").owed == 0.0 < measured_of(found, "m").owed
    assert measured_of(found, "m").spare == busy.gpu_hours.idle


def test_time_between_tokens_is_part_of_a_promise_that_names_it() -> None:
    kept = {}
    for itl in ("10ms", "9.999ms"):
        settings = scenario(tiers={"fast": {"ttft": "50ms", "itl": itl}})
        rows = (1_000, "fast", "east", 10, 50), (2_000, "fast", "east", 10, 1)  # one of a single token has no pace
        found = summarise(simulate(settings, trace(settings, *rows)), 1.0)
        kept[itl] = found.tiers["fast"].attainment
        assert found.tiers["fast"].tpot_s == Quantiles(0.01, 0.01, 0.01)
        assert found.models["m"].tiers["fast"].tpot_s_p95 == 0.01
        assert all(one.tpot_s is msgspec.UNSET for name, one in found.tiers.items() if name != "fast")
    assert kept == {"10ms": 1.0, "9.999ms": 0.5}


def test_nothing_to_measure_is_null() -> None:
    settings = scenario()
    found = summarise(simulate(settings, trace(settings, (0, "job", "east", 1, 1))), 0.0)
    assert found.tiers["fast"].attainment is None
    assert found.tiers["fast"].kept is None
    assert found.tiers["fast"].ttft_s == Quantiles(None, None, None)
    assert found.requests_per_cpu_s is None


def interrupted_after(simulation: Simulation, minutes: int) -> Run:
    answers = iter([False] * minutes + [True])
    return simulation.play(interrupted=lambda: next(answers))


def test_an_interrupted_run_judges_only_what_is_decided() -> None:
    settings = scenario()
    rows = trace(
        settings,
        (1_000, "job", "east", 10, 500),  # 5 s: done, too late
        (58_000, "job", "east", 10, 900),  # a second later it is late
        (59_990, "job", "east", 10, 50),  # can still be in time
        (90_000, "job", "east", 10, 50),  # has not arrived
        window=3 * MINUTE_US,
    )
    found = summarise(interrupted_after(Simulation(settings, rows), 1), 1.0)
    assert found.partial
    assert found.played_s == 60
    assert msgspec.structs.astuple(found.requests) == (3, 1, 2, 0, 0)
    assert (found.tiers["job"].undecided, found.tiers["job"].attainment) == (1, 0.0)
    assert found.gpu_hours.total == found.gpu_hours.floor == pytest.approx(8 / 60, abs=1e-6)


@pytest.fixture(scope="module")
def run() -> Run:
    """A few busy hours with everything that can go wrong going wrong."""
    settings = load_scenario(
        SMALL_FLEET,
        overrides=[
            "workload.generate.requests=30000",
            "workload.generate.length=4h",
            "workload.generate.bursts=[{at: 1h, length: 20m, factor: 6}]",
            "faults={start_failure: 0.2, start_spread: 0.4, rtt_spread: 0.5}",
            "spot.reclaimed_by_cloud_per_hour=1",
        ],
    )
    return simulate(settings, generate(settings))


@pytest.fixture(scope="module")
def summary(run: Run) -> Summary:
    return summarise(run, 1.0)


def test_every_request_is_accounted_for(run: Run, summary: Summary) -> None:
    counts = summary.requests
    assert counts.arrived == len(run.requests) == 30_000
    assert counts.arrived == counts.finished + counts.unfinished + counts.refused + counts.shed
    for parts in (summary.tiers.values(), summary.models.values()):
        assert sum(part.requests for part in parts) == counts.arrived
        assert sum(part.finished for part in parts) == counts.finished
    cells = [cell for model in summary.models.values() for cell in model.tiers.values()]
    assert sum(cell.requests for cell in cells) == counts.arrived


def test_hours_by_state_add_up_to_what_was_bought(run: Run, summary: Summary) -> None:
    bought = sum(each.reserved_us - each.unused_us + each.on_demand_us for each in run.fleet.ledger.purchases) / HOUR
    donated = sum(each.donated_us for each in run.fleet.ledger.purchases) / HOUR
    assert summary.gpu_hours.total == pytest.approx(bought, abs=1e-5)
    assert summary.gpu_hours.spot == pytest.approx(donated, abs=1e-5)
    assert summary.gpu_hours.waste > 0
    for name in ("total", "serving", "starting", "reclaiming", "draining", "spot", "waste", "floor", "idle"):
        parts = [getattr(model.gpu_hours, name) for model in summary.models.values()]
        assert sum(parts) == pytest.approx(getattr(summary.gpu_hours, name), abs=1e-5)
        assert getattr(summary.instance_hours, name) == pytest.approx(getattr(summary.gpu_hours, name) / 8, abs=1e-5)
    held = summary.gpu_hours
    assert held.total == pytest.approx(held.serving + held.starting + held.reclaiming + held.draining, abs=1e-5)
    for name, counts in summary.gpus.items():
        assert counts.minimum <= counts.mean <= counts.peak, name
        assert counts.minimum <= counts.p99 <= counts.peak, name
    assert sum(counts.mean for counts in summary.gpus.values()) * run.window / HOUR == pytest.approx(held.total, abs=1e-3)


def test_lines_of_money_add_up_to_the_cent(summary: Summary) -> None:
    cost, lines = summary.cost_usd, summary.cost_usd.lines.values()
    cents = [sum(round(100 * getattr(line, part)) for line in lines) for part in ("reserved", "on_demand")]
    assert round(100 * cost.total) == sum(cents)
    assert [round(100 * cost.reserved), round(100 * cost.on_demand)] == cents
    for line in lines:
        assert line.reserved == pytest.approx(line.reserved_gpu_hours * line.reserved_per_gpu_hour, abs=0.006)
        assert line.on_demand == pytest.approx(line.on_demand_gpu_hours * line.on_demand_per_gpu_hour, abs=0.006)
        assert line.unused <= line.reserved


def naive(run: Run) -> Iterator[tuple[int, float, bool]]:
    """(tier, TTFT seconds, met) of each finished request, one at a time, without the network."""
    tiers = list(run.scenario.tiers.values())
    for row in run.requests:
        if row["finish"] != UNSET:
            end = row["finish"] if tiers[row["tier"]].batch else row["first"]
            yield int(row["tier"]), float(row["first"] - row["arrival"]) / SECOND, bool(end <= row["deadline"])


def test_quantiles_and_attainment_agree_with_a_naive_count(run: Run) -> None:
    near = run.layout.rtt.copy()
    run.layout.rtt[:] = 0  # the naive count knows no network
    try:
        found = summarise(run, 1.0)
    finally:
        run.layout.rtt[:] = near
    rows = list(naive(run))
    for k, tier in enumerate(found.tiers.values()):
        mine = [row for row in rows if row[0] == k]
        assert tier.attainment == pytest.approx(sum(row[2] for row in mine) / tier.requests, abs=1e-6)
        expected = np.quantile([row[1] for row in mine], [0.5, 0.95, 0.99])
        assert msgspec.structs.astuple(tier.ttft_s) == pytest.approx(expected, abs=1e-5)


def test_network_times_vary_between_requests_and_not_within_one(run: Run) -> None:
    (block,) = blocks(run)
    assert len(block.rows) <= BLOCK
    done = block.finished
    network = (block.ttft - (block.rows["first"] - block.rows["arrival"]))[done]
    assert np.array_equal(block.e2e[done] - block.ttft[done], (block.rows["finish"] - block.rows["first"])[done])
    local = network[(block.served == block.rows["region"])[done]]
    median = run.scenario.regions["eastus"].local_rtt
    assert np.median(local) == pytest.approx(median, rel=0.05)
    assert np.log(local / median).std() == pytest.approx(0.5, rel=0.05)
    (again,) = blocks(run)
    assert np.array_equal(again.ttft, block.ttft)


def test_utilisation_is_weighed_by_the_instances_that_serve(run: Run, summary: Summary) -> None:
    seen, serving = run.timeline.column("seen"), run.timeline.column("serving")
    assert summary.utilisation.mean == pytest.approx(np.average(seen, weights=serving), abs=1e-6)


def test_json_reads_back(summary: Summary) -> None:
    assert parse_summary(summary_json(summary)) == summary
