"""A past that is known, backtested: counts, promises and money come back; a wrong profile and missing lengths are said first.

Read next: `past.py` for the past, docs/how-to/backtest.md for what is done.
"""

import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from sageserve.base.errors import MeasurementError
from sageserve.base.units import HOUR, MINUTE
from sageserve.cli.main import app
from sageserve.cli.render_backtest import noise_words, saving_text
from sageserve.data.history.files import read_files
from sageserve.data.rebuild.demand import demand_of
from sageserve.data.rebuild.filed import histories_of
from sageserve.data.rebuild.fleet import counts_of
from sageserve.data.rebuild.places import place_pools, watched_pools
from sageserve.data.rebuild.requests import rebuild
from sageserve.data.results.comparison import Comparison
from sageserve.sim.backtest.answer import AnswerCheck, AnswerChecks, BacktestAnswer, lengths_check
from sageserve.sim.backtest.own_error import PolicyError, correlated, pairs_of, policy_error, reshaped
from sageserve.sim.backtest.replayed import ProfileCheck, check_replay, mean_inside
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import simulate
from tests.show.made import summary_of
from tests.sim.backtest.past import LENGTH, POOL, RECORDING, Past, past

POINTS = "± is the error of the reconstruction, in points."
SLOWER = "models.m.engines.h100.iteration_ms=[[1, 20.04], [10001, 420.04]]"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return past(tmp_path_factory.mktemp("past"))


def backtest(known: Past, out: Path, *more: str, code: int = 0) -> Result:
    stretch = ("--last", "4h", "--until", "2023-11-13T04:00:00")
    arguments = ["backtest", str(known.settings), str(known.history), *stretch, "--out", str(out), "--workers", "1", *more]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.stderr
    return result


def test_what_a_fleet_did_and_needed_comes_back(known: Past, tmp_path: Path) -> None:
    truth = summarise(known.run, 0.0)
    out = tmp_path / "out"
    result = backtest(known, out, "--policies", "recorded,fixed:4", "--seeds", "1", "--json")
    answer = json.loads(result.stdout)
    assert {"checks", "error", "policies"} <= set(answer)
    assert [answer["checks"][name]["state"] for name in ("profile", "lengths", "counters")] == ["ok", "ok", "ok"]
    recorded = answer["policies"]["recorded"]
    assert recorded["gpu_hours"]["total"] == pytest.approx(truth.gpu_hours.total, rel=0.03)
    assert recorded["requests"]["arrived"] == pytest.approx(len(known.trace), rel=0.003)
    stated = answer["error"]["policies"]["recorded"]["promise_points"]["fast"]
    off = 100 * (recorded["tiers"]["fast"]["attainment"] - (truth.tiers["fast"].attainment or 0.0))
    assert abs(off) <= max(abs(stated), 0.5), "the stated error covers what was true"
    saving = answer["error"]["savings"]["fixed:4"]
    assert saving["gpu_hours"] == pytest.approx(answer["policies"]["fixed:4"]["gpu_hours"]["total"] / 80 - 1, abs=0.05)
    assert not saving["noise"], "four instances instead of two and three cost more, whatever is not known"
    page = (out / "report.html").read_text("utf-8")
    assert "Backtest report" in page
    assert "Can this be believed?" in page
    assert 'class="warning"' not in page
    assert sorted(path.name for path in (out / "requests").iterdir()) == ["seed1.parquet"]


def test_a_profile_that_is_wrong_is_said_before_any_saving(known: Past, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--policies", "recorded,fixed:4", "--seeds", "1", "--no-error", "--set", SLOWER)
    shown = re.sub(r"\s+", " ", backtest(known, out, *more).stdout)
    assert "±" not in shown, "an error that was not measured is not stated"
    assert "was not measured" in shown
    assert shown.index("does not fit this fleet") < shown.index("vs recorded")
    assert "sageserve calibrate counters" in shown
    page = (out / "report.html").read_text("utf-8")
    assert page.index("Read this first.") < page.index('class="headline"')


@pytest.mark.extended
@pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="eighteen plays: set SAGESERVE_LONG=1")  # noqa: TID251 # by hand
def test_without_what_was_recorded_the_error_is_that_of_the_difference_to_the_first(known: Past, tmp_path: Path) -> None:
    more = ("--policies", "fixed:2,fixed:4", "--seeds", "1", "--last", "1h", "--json")
    error = json.loads(backtest(known, tmp_path / "out", *more).stdout)["error"]
    assert error["against"] == "fixed:2"
    assert error["policies"]["fixed:2"]["saving"] == 0.0, "against itself"
    assert error["policies"]["fixed:4"]["saving"] > 0.0
    assert error["savings"]["fixed:4"]["error"] == error["policies"]["fixed:4"]["saving"]


def test_the_error_of_a_saving_is_measured_against_its_base_or_not_known() -> None:
    true, made = (
        {name: summary_of(name, 1, hours, {"fast": 1.0}) for name, hours in (("a", 10.0), ("b", base))} for base in (20.0, 25.0)
    )
    runs = {"made": {name: (true[name], made[name]) for name in true}}
    assert policy_error(runs, "a", "b").saving == pytest.approx(abs(10 / 25 - 10 / 20))
    assert policy_error(runs, "a", "recorded").saving is None


@pytest.mark.parametrize(
    ("error", "hours", "noise", "shown", "said"),
    [
        (None, (9.0, 9.0), None, "-10.0%", []),
        (None, (9.0, 12.0), True, "+5.0% noise", ["Within twice the spread of the seeds, so noise: b."]),
        (0.02, (9.0, 9.0), False, "-10.0% ±2.0", [f"{POINTS} No difference is within it."]),
    ],
)
def test_an_error_that_is_not_known_is_not_stated(
    error: float | None, hours: tuple[float, ...], noise: bool | None, shown: str, said: list[str]
) -> None:
    runs = {
        "a": {seed: summary_of("a", seed, 10.0, {"fast": 1.0}) for seed in (1, 2)},
        "b": {seed: summary_of("b", seed, each, {"fast": 1.0}) for seed, each in enumerate(hours, start=1)},
    }
    ok = AnswerCheck("ok", "")
    checks = AnswerChecks(ok, ok, ok, ProfileCheck("ok", {}, {}, ()))
    errors = {} if error is None else {"b": PolicyError(0.0, 0.0, {}, error)}
    answer = BacktestAnswer(checks, errors, Comparison(runs, {}), {}, "a")
    saving = answer.savings()["b"]
    assert (saving.error, saving.noise, saving_text(saving)) == (error, noise, shown)
    assert list(noise_words(answer)) == said


def test_means_over_an_hour_are_refused(known: Past, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="a sample every 1h"):
        backtest(known, tmp_path / "out", "--interval", "1h")
    assert not (tmp_path / "out").exists()


def test_without_histograms_of_lengths_the_answer_is_labelled() -> None:
    assert lengths_check("histograms").state == "ok"
    wrong = lengths_check("means")
    assert wrong.state == "wrong"
    ok = AnswerCheck("ok", "")
    answer = BacktestAnswer(AnswerChecks(ok, ok, wrong, ProfileCheck("ok", {}, {}, ())), {}, Comparison({}, {}), {}, "recorded")
    assert list(answer.warnings()) == [f"{wrong.said} {wrong.next}"]


def test_counts_of_a_past_are_those_it_had(known: Past) -> None:
    watched = watched_pools(known.scenario)
    found = histories_of(read_files([known.history]), {one.pool: one.labels for one in watched})
    assert [one.pool for one in watched] == [POOL]
    steps = counts_of(found.pools[0])
    assert [count for _, count in steps] == [2, 3, 2]
    assert [at for at, _ in steps] == [0, *(pytest.approx(at, abs=2 * MINUTE) for at in (HOUR, 3 * HOUR))]


def test_a_replay_on_the_true_profile_fits_and_on_one_twice_as_slow_does_not(known: Past) -> None:
    watched = watched_pools(known.scenario)
    found = histories_of(read_files([known.history]), {POOL: watched[0].labels}, span=(RECORDING.begin, RECORDING.begin + LENGTH))
    pools = place_pools(watched, found.pools)
    made = rebuild(demand_of(pools), known.scenario, 1).trace
    right = check_replay(pools, simulate(known.scenario, made), 10 * MINUTE)
    assert right.state == "ok"
    assert right.apart["inside"] == pytest.approx(0.0, abs=0.15)
    alone = known.run.requests[:1].copy()
    alone["arrival"], alone["first"], alone["finish"] = 0, HOUR, HOUR  # a prompt that is worked on for an hour
    inside = [one.replayed["inside"] for one in check_replay(pools, replace(known.run, requests=alone), 0).hours]
    assert inside == [1.0, 0.0, 0.0, 0.0]
    profile = known.scenario.models["m"].engines["h100"].model_copy(update={"iteration_ms": ((1, 20.04), (10001, 420.04))})
    model = known.scenario.models["m"].model_copy(update={"engines": {"h100": profile}})
    slow = known.scenario.model_copy(update={"models": {"m": model}})
    assert check_replay(pools, simulate(slow, made), 10 * MINUTE).state == "wrong"


def test_true_requests_that_counters_cannot_tell_apart(known: Past) -> None:
    watched = watched_pools(known.scenario)
    streams = demand_of(place_pools(watched, histories_of(read_files([known.history]), {POOL: watched[0].labels}).pools))
    made = rebuild(streams, known.scenario, 1).trace
    tied = correlated(made, 0.7, 1)
    assert sorted(tied.output.tolist()) == sorted(made.output.tolist())
    ranks = [np.argsort(np.argsort(column)) for column in (tied.prompt, tied.output)]
    assert 0.6 < np.corrcoef(ranks[0], ranks[1])[0, 1] < 0.75
    sizes = streams[0].prompt
    assert sizes is not None
    for part in (0.5, -0.5):
        moved = reshaped(made, streams, part)
        assert np.array_equal(np.searchsorted(sizes.bounds, moved.prompt), np.searchsorted(sizes.bounds, made.prompt))
        assert not np.array_equal(moved.prompt, made.prompt)
    pairs = pairs_of(made, known.scenario, RECORDING, streams, 1)
    assert [pair.name for pair in pairs] == ["made", "correlated", "opposed", "apart", "together"]
    assert all(abs(len(pair.made) - len(pair.true)) <= 3 for pair in pairs)


@given(
    st.lists(st.tuples(st.integers(-50, 250), st.integers(0, 200))),
    st.lists(st.integers(0, 200), min_size=2, unique=True).map(sorted),
)
def test_how_many_were_inside_is_counted_instant_by_instant(stays: list[tuple[int, int]], edges: list[int]) -> None:
    came = np.array([begin for begin, _ in stays], np.int64)
    gone = np.array([begin + length for begin, length in stays], np.int64)
    found = mean_inside((came, gone), np.array(edges, np.int64))
    inside = [int(((came <= at) & (gone > at)).sum()) for at in range(200)]
    assert found.tolist() == pytest.approx([sum(inside[a:b]) / (b - a) for a, b in pairwise(edges)])


def test_an_hour_that_was_seen_in_part_is_compared_in_that_part(known: Past) -> None:
    watched = watched_pools(known.scenario)
    pools = place_pools(watched, histories_of(read_files([known.history]), {POOL: watched[0].labels}).pools)
    (one,) = pools
    dark = {name: getattr(one.history, name).copy() for name in ("running", "waiting")}
    for values in dark.values():
        values[: len(values) * 7 // 8] = np.nan
    half = replace(one, history=replace(one.history, **dark))
    apart = [hour.apart["inside"] for hour in check_replay([half], known.run, 0).hours]
    assert apart[:3] == [None, None, None]
    assert apart[3] == pytest.approx(0.0, abs=0.1)
