"""Figures that pages state of the product, beside where the product has them: each sentence is written again from its numbers.

A sentence may go over several lines of a page. What commands print is in `test_shown.py` and its like. Read next: docs/how-to.
"""

import re
from collections.abc import Iterator
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from sageserve.base.config import LiveSettings
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND
from sageserve.cli import backtest, gateway, orders, render_chart, up
from sageserve.cli.backtest_history import COARSEST
from sageserve.core.authority.ladder import TargetLadder
from sageserve.core.authority.records import (
    PACE_OVER,
    RAMP_OVER,
    REFUSED_MOST,
    REFUSED_OVER,
    BoundWish,
    LadderRules,
    LeaseTimes,
    TargetSight,
)
from sageserve.data.profiles.bands import UNSEEN, error_bands
from sageserve.data.results.studies import SCENARIO as PAPER
from sageserve.data.results.studies import studies
from sageserve.data.scenarios.load import load_scenario
from sageserve.data.watched.minutes import KEEP as DAYS_KEPT
from sageserve.live.actuators import local
from sageserve.live.actuators.start_failures import pause_after
from sageserve.live.alerts.rules import BURNS, WINDOWS, as_yaml, rules_of
from sageserve.live.authority import pods
from sageserve.live.benchmark import plan, run
from sageserve.live.benchmark.plan import BenchmarkOptions
from sageserve.live.control import state_files
from sageserve.live.doctor.checks import CHECKS
from sageserve.live.kubernetes import manifests
from sageserve.live.supervisor.service import keep
from sageserve.show.shadow import reckon
from sageserve.sim.backtest import own_error, replayed
from sageserve.sim.calibration import benchmark, counters, logs, profile

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
SAFE: Final = LiveSettings().safety
TIMES: Final = ("never", "once", "twice")
WORDS: Final = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PARTS: Final = {0.1: "a tenth", 0.5: "half"}
BUDGET: Final = 0.05
"""Of a promise for 95 %."""


def stated(page: str) -> str:
    """A page with blanks as one."""
    return re.sub(r"\s+", " ", (DOCS / f"{page}.md").read_text("utf-8"))


def alerts() -> Iterator[str]:
    yield f"has an error budget of {BUDGET * 100:.0f} %"
    names = {"1d": "1 day", "3d": "3 days"}
    for one in BURNS:
        long, short = (names.get(each, f"{each[:-1]} {each[-1].replace('m', 'min')}") for each in (one.long, one.short))
        yield f"| {one.rate:g} | {long} and {short} | {one.rate * BUDGET * 100:.0f} % |"
    hours = {"1h": (1, "an hour"), "6h": (6, "six hours"), "1d": (24, "a day"), "3d": (72, "three days")}
    for one in BURNS:
        used = one.rate * hours[one.long][0] / (30 * 24)
        of = "of the budget of 30 days " if one is BURNS[0] else ""
        yield f"{used * 100:.0f} % {of}in {hours[one.long][1]} | {one.severity} |"
    (never,) = [one.rate for one in BURNS if one.rate * 0.1 >= 1]
    yield f"makes no rule ({never:g} at p90)"
    recorded = [f"`{one}`" for one in WINDOWS if one != "1h"]
    yield f"`sageserve:late:ratio_rate1h{{tier}}` and its likes for {', '.join(recorded[:-1])} and {recorded[-1]} are recorded"
    written = as_yaml(rules_of(load_scenario("quickstart"), "gateway"), name="quickstart", operator=False)
    errors, blind = (
        written.partition(f"alert: {name}")[2].partition("alert:")[0] for name in ("SageServeErrors", "SageServeBlind")
    )
    assert "> 0.01" in errors
    assert "for: 15m" in blind
    yield from ("More than 1 % of a model's requests end in a 5xx", "too old for a quarter of an hour")


def how_to_backtest() -> Iterator[str]:
    yield f"Samples more than {WORDS[COARSEST // MINUTE]} minutes apart are refused"
    assert signature(backtest.backtest).parameters["seeds"].default == "1..5"
    yield f"{WORDS[5]} times, from {WORDS[5]} seeds (`--seeds`)"
    quarters = WORDS[round(replayed.HOURS_WITHIN * 4)]
    yield f"within {replayed.WITHIN * 100:.0f} % hour by hour, in {quarters} quarters of the hours or more"
    yield f"rank correlations of {own_error.RHO} and {-own_error.RHO}"
    yield f"and {TIMES[round(own_error.SIGMAS)]} the spread over the seeds on top"
    names = signature(backtest.backtest).parameters["policies"].default.split(",")
    yield ", ".join(f"`{one}`" for one in names[:-1]) + f", and `{names[-1]}`, which is a bound (`--policies`)"


def benchmark_an_engine() -> Iterator[str]:
    options = BenchmarkOptions(url="http://127.0.0.1:8000", model="m")
    prompts, levels = [f"{one:,}" for one in options.prompts], [f"{one}" for one in options.levels]
    yield f"{WORDS[round(options.minutes)].capitalize()} minutes later `mine.yaml` holds a profile"
    alone = f"{', '.join(prompts[:-1])} and {prompts[-1]} tokens, one at a time, {run._FIXED_OUTPUT} tokens answered"
    yield f"| {options.lengths_s:.0f} s | prompts of {alone} |"
    yield f"| {options.levels_s:.0f} s | closed loop: {', '.join(levels)} and max_num_seqs clients"
    yield f"| {options.open_s:.0f} s | open loop: Poisson arrivals at {plan.OPEN_LOAD} of the throughput seen"
    yield f"(middle half more than {run.NOISE_MOST * 100:.0f} % of the median)"
    yield f"| more than {run.FAILED_MOST * 100:.0f} %; the first reason is shown |"
    yield f"| fewer than {run.OPEN_LEAST} requests would judge |"
    yield f"| more than {benchmark.ERROR_MOST * 100:.0f} % of E2E per request |"


def in_a_cluster() -> Iterator[str]:
    yield f"runs as user {manifests._USER}, without capabilities"
    yield f"`--storage {signature(render_chart.chart).parameters['storage'].default}`"
    yield f"{WORDS[DAYS_KEPT // 7].capitalize()} weeks of minutes"
    yield f"the journal {(state_files._FILES * state_files._FILE_MAX) >> 20} MiB at most"


def operate() -> Iterator[str]:
    assert signature(keep).parameters["grace"].default == MINUTE // 2
    assert signature(gateway.gateway).parameters["drain"].default * SECOND == MINUTE // 2
    assert up._DRAIN_S * SECOND == HOUR
    yield from ("for up to half a minute, then control and engines. `--drain` gives it an hour", "for an hour at most.")
    waits = [pause_after(failures) for failures in range(1, 40)]
    assert all(later == min(2 * one, waits[-1]) for one, later in pairwise(waits))
    most = WORDS[waits[-1] // MINUTE]
    yield f"pool waits {waits[0] // SECOND} s, then twice as long after each failure, {most} minutes at most"
    yield f"Logs of the last {WORDS[local._LOGS_KEPT]} runs of an instance are kept"
    yield f"({WORDS[state_files._FILES]} files of {state_files._FILE_MAX >> 20} MiB)"


def raise_the_floor() -> Iterator[str]:
    assert (reckon.BLIND_MOST * MINUTE, RAMP_OVER) == (HOUR, MINUTE)
    yield f"{WORDS[reckon.DAYS_LEAST]} days and {reckon.DECISIONS_LEAST} decisions without a minute of harm"
    yield "less than an hour unseen in the last day"
    yield f"| beyond what runs | two, or `live.safety.ramp_up` ({PARTS[SAFE.ramp_up]}) of what runs, within any minute |"
    yield f"| down | one, or a tenth, within any {WORDS[PACE_OVER // MINUTE]} minutes;"
    yield worked_example()
    yield f"`live.safety.hold_for` ({SAFE.hold_for // HOUR} h)"
    yield "measured on the newest " + {50: "fifty"}[pods.KEEP]
    yield f"more than twice the 95th percentile is said. From {WORDS[pods.LEAST]} starts on"
    lease = LeaseTimes()
    yield f"renews it every {lease.every // SECOND} s, and begins no write later than {lease.write_within // SECOND} s after"
    yield f"Another takes over {lease.length // SECOND} to {(lease.length + lease.every) // SECOND} s after it has stopped"
    yield f"# {orders.OVERRIDE_MOST_H} h at most; within min, max, budget, ramp and pace"
    yield f"{WORDS[REFUSED_MOST]} writes were refused within {WORDS[REFUSED_OVER // MINUTE]} minutes"


def worked_example() -> str:
    """A floor on its way up from 4 to 24 where 12 run, and back again when as many run as it says."""
    rules = LadderRules("floor", 4, 24, SAFE.ramp_up, SAFE.headroom, SAFE.hold_for)
    ladder, begun, low, running = TargetLadder(rules, 0), DAY, 4, 12
    rose, fell = [], []
    for now in range(begun, begun + HOUR, MINUTE):
        sight = TargetSight(low, 24, running, running, running, 0.0, blind=False, wall=now)
        step = ladder.decide(now, sight, BoundWish(24, heard=now), leased=True)
        if step.changes and step.low is not None:
            ladder.wrote(now, sight, step)
            rose.append((step.low, (now - begun) // MINUTE))
            low = running = step.low
    back = begun + HOUR
    for now in range(back, back + 3 * HOUR, MINUTE):
        sight = TargetSight(low, 24, low, low, low, 0.0, blind=False, wall=now)
        step = ladder.decide(now, sight, BoundWish(4, heard=now), leased=True)
        if step.changes and step.low is not None:
            ladder.wrote(now, sight, step)
            fell.append((low - step.low, (now - back) // MINUTE))
            low = step.low
    (first, at_once), (second, later) = rose
    assert (at_once, later, low) == (0, 1, 4)
    shown = " + ".join(f"{amount}" for amount, _ in fell[:5])
    return (
        f"12 run, the minimum is 4 and decisions want 24. The minimum is {first} at once (12, and half of it), and {second}"
        f" a minute later when {first} run. Back to 4 takes {shown} … instances every five minutes: {fell[-1][1]} minutes."
    )


def serve() -> Iterator[str]:
    yield f"not seen for `live.safety.blind_after` ({SAFE.blind_after // SECOND} s)"
    yield f"fuller than `live.safety.headroom` ({SAFE.headroom * 100:.0f} %)"
    yield f"Not more than {PARTS[SAFE.change_per_hour]} of an endpoint's instances, and one at least, are drained within an hour"


def validate_and_calibrate() -> Iterator[str]:
    of_vllm = [one.percent for one in error_bands() if one.engine == "vllm"]
    yield f"±{min(of_vllm)} to {max(*of_vllm, UNSEEN)} % for vLLM, printed with each"
    others = re.search(r"profiles are (.*?) off at the others, in the median", stated("why/results"))
    assert others is not None
    far = sorted(float(one) for one in re.findall(r"\d+\.\d", others[1]))
    yield f"{far[0]} to {far[-1]} % at other concurrencies"
    worst = re.search(r"\| mean, worst \| [^|]*\| ([\d.]+) %, ([\d.]+) % \|", stated("reference/profiles"))
    assert worst is not None
    yield f"(E2E of the six H100 runs at their other load: {worst[1]} % off in the mean, {worst[2]} % at most)"
    yield f"| N seconds of steady work; {counters.SECONDS_LEAST} are the least |"
    yield f"| N requests are to be fitted; {logs.REQUESTS_LEAST} are the least |"
    yield f"| the best fit misses … by more than {profile.HELDOUT_MOST * 100:.0f} % |"


def reproduce_the_paper() -> Iterator[str]:
    day = load_scenario(PAPER)
    generated = day.workload.generate
    assert generated.requests == 10_000_000
    assert (len(day.models), len(day.regions), day.fleet.start) == (4, 3, 20)
    yield "ten million requests, four models, three regions, 20 instances of eight H100s per endpoint at the start,"
    yield f"{generated.history // DAY} days of demand before it for forecasters"
    for name in studies(quick=False):
        yield f"| {name} | "


def doctor() -> Iterator[str]:
    yield f"{len(CHECKS)} checks of 12 targets: 1 error"


FIGURES: Final = {
    "how-to/alerts": alerts,
    "how-to/backtest": how_to_backtest,
    "how-to/benchmark-an-engine": benchmark_an_engine,
    "how-to/in-a-cluster": in_a_cluster,
    "how-to/operate": operate,
    "how-to/raise-the-floor": raise_the_floor,
    "how-to/reproduce-the-paper": reproduce_the_paper,
    "how-to/serve": serve,
    "how-to/validate-and-calibrate": validate_and_calibrate,
    "reference/doctor": doctor,
}


@pytest.mark.parametrize("page", FIGURES)
def test_a_page_states_the_figures_that_the_product_has(page: str) -> None:
    there = stated(page)
    missing = [sentence for sentence in FIGURES[page]() if sentence not in there]
    assert not missing, "\n".join(missing)
