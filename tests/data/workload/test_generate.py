"""Laws of the generator: exact counts, equal bytes for equal seeds, and the shape that was asked for."""

import hashlib
from typing import Literal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sageserve.base.config import Scenario
from sageserve.base.config.traffic import BurstSettings, GeneratorSettings, ShapeSettings
from sageserve.base.errors import ConfigError
from sageserve.base.records import Trace
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND, WEEK, show_duration
from sageserve.data.traces.changes.transform import demand_of
from sageserve.data.workload import generate as generate_module
from sageserve.data.workload import rates as rates_module
from sageserve.data.workload.generate import generate, history, window_before
from sageserve.data.workload.rates import length_table, rates_of, streams_of
from tests.data.scenes import scenario

FLAT = (1.0,) * 24
OFFICE = tuple(10.0 if 9 <= hour < 17 else 1.0 for hour in range(24))
WEEKDAYS = (1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 0.25)
POINTS = ((0.0, 10.0), (0.5, 800.0), (0.9, 3000.0), (1.0, 9000.0))
SHORT = ((0.0, 1.0), (0.5, 60.0), (1.0, 400.0))

Group = Literal["interactive", "batch"]


def shape(share: float = 1.0, hours: tuple[float, ...] = FLAT, noise: float = 0.0) -> ShapeSettings:
    return ShapeSettings(share=share, hours=hours, days=WEEKDAYS, noise=noise, prompt=POINTS, output=SHORT)


def settings(requests: int = 20_000, **more: object) -> GeneratorSettings:
    shapes: dict[str, dict[Group, ShapeSettings]] = {
        "big": {"interactive": shape(3, OFFICE, 0.3), "batch": shape(1)},
        "small": {"interactive": shape(1, OFFICE), "batch": shape(1, noise=0.5)},
    }
    return GeneratorSettings.model_validate({"requests": requests, "shapes": shapes, **more})


def drawn(seed: int = 1, **more: object) -> Trace:
    return generate(scenario(generate=settings(**more), seed=seed))  # type: ignore[arg-type]  # requests is one of them


def digest(trace: Trace) -> str:
    columns = (trace.arrival, trace.prompt, trace.output, trace.model, trace.region, trace.tier)
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


class TestLaws:
    @given(
        requests=st.integers(1, 3000),
        length=st.integers(1, 3 * DAY),
        seed=st.integers(0, 2**60),
        interactive=st.floats(0.01, 0.99),
    )
    def test_the_count_is_exact_and_the_trace_is_sound(self, requests: int, length: int, seed: int, interactive: float) -> None:
        text = show_duration(length) if length % 1000 == 0 else f"{length}us"
        trace = drawn(seed, requests=requests, length=text, interactive=interactive).check()
        assert len(trace) == requests
        assert trace.window == length

    def test_equal_seeds_give_equal_bytes(self) -> None:
        assert digest(drawn(5)) == digest(drawn(5)) != digest(drawn(6))

    def test_what_is_drawn_for_one_purpose_does_not_shift_another(self) -> None:
        plain, longer = drawn(1), drawn(1, history="7d")
        assert digest(plain) == digest(longer)

    def test_shares_hold(self) -> None:
        trace = drawn(requests=200_000, regions={"east": 3, "west": 1}, tiers={"iw-f": 1, "iw-n": 3})
        tiers = np.bincount(trace.tier) / len(trace)
        assert tiers == pytest.approx([0.18, 0.54, 0.28], abs=0.005)
        assert np.mean(trace.region == 0) == pytest.approx(0.75, abs=0.005)
        interactive = trace.tier < 2
        assert np.mean(trace.model[interactive] == 0) == pytest.approx(0.75, abs=0.005)
        assert np.mean(trace.model[~interactive] == 0) == pytest.approx(0.5, abs=0.005)

    def test_arrivals_are_poisson_within_a_minute(self) -> None:
        trace = drawn(requests=100_000)
        inside = trace.arrival % MINUTE
        assert np.histogram(inside, 60, (0, MINUTE))[0] == pytest.approx(100_000 / 60, rel=0.1)

    def test_lengths_have_the_given_quantiles(self) -> None:
        trace = drawn(requests=200_000)
        for column, points in ((trace.prompt, POINTS), (trace.output, SHORT)):
            for quantile, tokens in points[1:-1]:
                assert np.quantile(column, quantile) == pytest.approx(tokens, rel=0.02)
            assert column.min() >= points[0][1]
            assert column.max() <= points[-1][1]

    def test_lengths_do_not_depend_on_each_other(self) -> None:
        trace = drawn(requests=100_000)
        assert abs(np.corrcoef(trace.prompt, trace.output)[0, 1]) < 0.02


class TestShape:
    def test_hours_and_days_show(self) -> None:
        trace = drawn(requests=200_000)
        hours = np.bincount(trace.arrival[trace.tier < 2] // HOUR, minlength=168).reshape(7, 24)
        assert hours[:5, 10:16].mean() / hours[:5, :7].mean() == pytest.approx(10, rel=0.1)
        assert hours[5:].sum() / hours[:5].sum() == pytest.approx(0.1, rel=0.15)

    def test_rates_have_no_steps(self) -> None:
        world = scenario(generate=settings(shapes={"big": {"interactive": shape(1, OFFICE)}}))
        rates = rates_of(world, streams_of(world), 0, 7 * 1440).sum(axis=1)
        assert np.abs(np.diff(rates)).max() < 0.2 * rates.max() / 10

    def test_local_time_lags(self) -> None:
        trace = drawn(requests=200_000, shift={"west": "3h"}, length="1d")
        first, second = (np.median(trace.arrival[(trace.region == region) & (trace.tier == 0)] % DAY) for region in (0, 1))
        assert (second - first) / HOUR == pytest.approx(3, abs=0.5)

    def test_begins_moves_the_week(self) -> None:
        weekend = drawn(requests=1000, length="1d", begins="5d", shapes={"big": {"batch": shape()}})
        both = drawn(requests=20_000, length="2d", begins="4d", shapes={"big": {"batch": shape()}})
        assert len(weekend) == 1000
        friday = np.mean(both.arrival < DAY)
        assert friday == pytest.approx(0.8, abs=0.02)

    def test_a_burst_multiplies_the_rate_of_what_it_names(self) -> None:
        burst = {"at": "10h", "length": "30m", "factor": 8, "tiers": ["iw-f"]}
        flat = {"big": {"interactive": shape()}}
        trace = drawn(requests=200_000, length="1d", shapes=flat, bursts=[burst])
        inside = (trace.arrival >= 10 * HOUR) & (trace.arrival < 10 * HOUR + 30 * MINUTE)
        for tier, factor in ((0, 8), (1, 1)):
            mine = trace.tier == tier
            rate = np.sum(inside & mine) / np.sum(~inside & mine) * (24 - 0.5) / 0.5
            assert rate == pytest.approx(factor, rel=0.1)

    def test_growth_grows(self) -> None:
        trace = drawn(requests=200_000, length="14d", growth_per_week=1.0)
        assert np.mean(trace.arrival >= WEEK) == pytest.approx(2 / 3, abs=0.01)

    def test_noise_has_the_deviation_and_memory_asked_for_and_keeps_the_level(self) -> None:
        shapes = {"big": {"interactive": shape(1, FLAT, 0.5)}}
        world = scenario(generate=settings(shapes=shapes, regions={"east": 1}))
        rates = np.log(rates_of(world, streams_of(world), 0, 5 * 1440 - 720)[:, 0])
        assert rates.std() == pytest.approx(0.5, rel=0.05)
        assert np.corrcoef(rates[1:], rates[:-1])[0, 1] == pytest.approx(0.5, abs=0.05)

    def test_requests_too_long_for_their_model_are_counted(self) -> None:
        trace = drawn(requests=10_000)
        long = (trace.prompt + trace.output > 4096) & (trace.model == 1)
        refused = long & (trace.prompt + 1 > 4096)
        said = next(note for note in trace.notes if "refused at the door" in note)
        assert said.startswith(f"of 10,000 requests {refused.sum():,} are refused")
        assert f"{long.sum() - refused.sum():,} are kept with their answer cut" in said


class TestChunks:
    """Rows are drawn a chunk at a time; where one ends shows nowhere."""

    @pytest.mark.parametrize("chunk", [1, 7, 1000, 4_999, 5_000, 5_001])
    @pytest.mark.parametrize("length", ["90s", "30s", "1h"])
    def test_the_size_of_a_chunk_changes_nothing(self, chunk: int, length: str, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = 5_000 if chunk > 1 else 50
        whole = drawn(requests=requests, length=length)
        for module in (generate_module, rates_module):
            monkeypatch.setattr(module, "CHUNK", chunk)
        assert digest(drawn(requests=requests, length=length)) == digest(whole)

    def test_more_requests_than_a_chunk_holds_are_spread_over_all_of_a_window_that_ends_within_a_minute(self) -> None:
        shapes = {"big": {"interactive": ShapeSettings(share=1, hours=FLAT, days=(1.0,) * 7, prompt=POINTS, output=SHORT)}}
        trace = drawn(requests=400_000, length="90s", shapes=shapes)
        assert rates_module.CHUNK < 400_000 * 60 / 90
        assert trace.arrival[-1] < 90 * SECOND
        counts = np.histogram(trace.arrival, bins=90, range=(0, 90 * SECOND))[0]
        assert counts.sum() == 400_000
        assert counts.min() > 0.93 * 400_000 / 90, "no second without its share: 4,444 and five standard deviations"
        assert counts.max() < 1.07 * 400_000 / 90


class TestHistory:
    def test_it_continues_the_same_rates_backwards(self) -> None:
        world = scenario(generate=settings(200_000, history="14d", growth_per_week=0.0))
        before, after = history(world), demand_of(generate(world))
        assert before.start == -14 * DAY
        assert before.requests.shape == (14 * 1440, 2, 2, 3)
        assert before.requests.sum() == pytest.approx(2 * 200_000, rel=0.02)
        by_hour = before.requests.reshape(14 * 24, 60, -1).sum(axis=1).reshape(2, 168, -1)
        now = after.requests.reshape(168, 60, -1).sum(axis=1)
        assert np.corrcoef(by_hour[0].sum(1), now.sum(1))[0, 1] > 0.98
        for old, new in ((before.prompt_tokens, after.prompt_tokens), (before.output_tokens, after.output_tokens)):
            assert old.sum() / before.requests.sum() == pytest.approx(new.sum() / 200_000, rel=0.02)

    def test_counts_scatter_like_poisson(self) -> None:
        flat = ShapeSettings(share=1, hours=FLAT, days=(1.0,) * 7, prompt=POINTS, output=SHORT)
        shapes = {"big": {"interactive": flat}}
        world = scenario(generate=settings(70_000, shapes=shapes, history="7d", regions={"east": 1}, tiers={"iw-f": 1}))
        counts = history(world).requests[:, 0, 0, 0]
        assert counts.var() / counts.mean() == pytest.approx(1, abs=0.05)

    def test_growth_reaches_into_the_past(self) -> None:
        world = scenario(generate=settings(100_000, history="14d", growth_per_week=1.0))
        weeks = history(world).requests.reshape(2, -1).sum(axis=1)
        assert weeks[1] / weeks[0] == pytest.approx(2, rel=0.05)

    def test_none_is_empty(self) -> None:
        demand = history(scenario(generate=settings()))
        assert demand.start == 0
        assert demand.requests.shape == (0, 2, 2, 3)


class TestRefusals:
    @pytest.mark.parametrize(
        ("more", "says"),
        [
            ({"shapes": {}}, "describes no traffic"),
            ({"shapes": {"huge": {"batch": shape()}}}, r"shapes: .* does not define huge"),
            ({"regions": {"mars": 1}}, "does not define mars"),
            ({"tiers": {"gold": 1}}, "does not define gold"),
            ({"bursts": [{"at": "1h", "length": "1h", "factor": 2, "models": ["x"]}]}, "does not define x"),
            ({"regions": {"east": 0, "west": 0}}, "one must be above 0"),
            ({"regions": {"east": -1, "west": 2}}, "must not be negative"),
            ({"interactive": 1.0, "shapes": {"big": {"batch": shape()}}}, "only the other group has shapes"),
            ({"shapes": {"big": {"batch": shape(hours=(0.0,) * 24)}}}, "is 0 all through the window"),
        ],
    )
    def test_settings_that_cannot_work_say_so(self, more: dict[str, object], says: str) -> None:
        with pytest.raises(ConfigError, match=says) as caught:
            drawn(1, **more)
        assert len(str(caught.value).splitlines()) < 10

    @pytest.mark.parametrize(
        "points",
        [
            (),
            ((0.5, 10.0), (0.5, 20.0)),
            ((0.1, 10.0), (0.9, 5.0)),
            ((0.0, 0.0), (1.0, 10.0)),
            ((0.0, 1.0), (1.1, 10.0)),
            ((0.0, 1.0), (1.0, 1e10)),
        ],
    )
    def test_bad_quantile_points_are_refused(self, points: tuple[tuple[float, float], ...]) -> None:
        with pytest.raises(ConfigError, match="here: points must be"):
            length_table(points, "here")


def test_a_burst_must_be_a_factor() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        BurstSettings.model_validate({"at": "1h", "length": "1h", "factor": 0})


# ------------------------------------------------------------------------------------------------ the window before


def with_days(*days: float, begins: str = "1d") -> Scenario:
    """A day of one model; Tuesday unless said."""
    one = shape().model_copy(update={"days": days})
    shapes: dict[str, dict[Group, ShapeSettings]] = {"big": {"interactive": one}}
    made = GeneratorSettings.model_validate({"requests": 100_000, "length": "1d", "begins": begins, "shapes": shapes})
    return scenario(generate=made)


def test_the_window_before_is_the_one_before_without_bursts() -> None:
    now = scenario(generate=settings(begins="1d", length="1d", bursts=[{"at": "1h", "length": "1h", "factor": 4}]))
    then = window_before(now)
    assert then.workload.generate.begins == 0
    assert not then.workload.generate.bursts
    assert then.seed != now.seed
    same = {"requests", "begins", "bursts"}
    assert then.workload.generate.model_dump(exclude=same) == now.workload.generate.model_dump(exclude=same)


def test_the_window_before_has_as_many_requests_as_its_rates_say() -> None:
    twice = with_days(1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # a Tuesday has twice the requests of a Monday
    assert window_before(twice).workload.generate.requests == pytest.approx(50_000, rel=0.02)  # days merge


def test_the_window_before_a_monday_is_a_sunday() -> None:
    assert window_before(with_days(*WEEKDAYS, begins="0s")).workload.generate.begins == 6 * DAY


def test_a_window_before_which_nothing_arrives_is_refused() -> None:
    noon = tuple(float(hour == 12) for hour in range(24))
    shapes = {"big": {"interactive": shape(hours=noon)}}
    made = GeneratorSettings.model_validate({"requests": 100, "length": "2h", "begins": "11h", "shapes": shapes})
    with pytest.raises(ConfigError, match="nothing arrives"):
        window_before(scenario(generate=made))
