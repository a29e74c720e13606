"""Times are dates where they are plausible, and the part that is played is never mostly silence.

Read next: `test_reader_laws.py` for every spelling of a date, `tests/data/traces/test_formats.py`.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sageserve.base.errors import TraceError
from sageserve.base.units import DAY, HOUR, MINUTE, SECOND
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is
from sageserve.data.traces.requests import Requests, requests_of
from tests.data.scenes import scenario

DAY_OF_JUNE = 1_748_736_000  # 1 June 2025, 00:00 UTC

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes times, with 100 and 10 tokens each, as a generic CSV."""

    def to_file(*times: object, name: str = "trace.csv", header: str = "timestamp,prompt_tokens,output_tokens") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([header, *(f'"{time}",100,10' for time in times)]) + "\n", "utf-8")
        return path

    return to_file


def play(*files: Path, **more: object) -> Requests:
    return requests_of(TraceOptions(files, **more), None)  # type: ignore[arg-type]  # options by name


def seconds(requests: Requests) -> list[float]:
    return [at / SECOND for at in requests.trace.arrival.tolist()]


class TestUnits:
    @pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
    def test_an_epoch_is_known_by_the_year_it_gives(self, write: Write, unit: int) -> None:
        found = play(write(*(each * unit for each in (DAY_OF_JUNE, DAY_OF_JUNE + 60, DAY_OF_JUNE + 3600))))
        assert seconds(found) == [0, 60, 3600]
        assert found.trace.start == DAY_OF_JUNE * SECOND

    @pytest.mark.parametrize(("name", "unit"), [("arrival_ms", 1000), ("start_us", 1), ("ts_ns", 1e-3), ("time_s", SECOND)])
    def test_a_unit_in_the_name_counts_for_times_from_the_start(self, write: Write, name: str, unit: float) -> None:
        found = play(write(0, 5_000_000, header=f"{name},prompt_tokens,output_tokens"), keep_gaps=True)
        assert found.trace.arrival[-1] == round(5_000_000 * unit)

    def test_hours_in_microseconds_are_no_dates_of_our_own_archives_or_others(self, write: Write) -> None:
        header = "arrival_us,prompt_tokens,output_tokens"
        assert seconds(play(write(*(each * MINUTE for each in range(0, 60, 5)), header=header)))[-1] == 55 * 60

    def test_mooncake_in_seconds_is_told_by_its_fractions(self, tmp_path: Path) -> None:
        line = '{{"timestamp": {}, "input_length": 700, "output_length": 5}}\n'
        for times, last in (((0.0, 0.2, 1800.5), 1800.5), ((0, 200, 1800), 1.8)):
            (tmp_path / "t").write_text("".join(line.format(each) for each in times))
            found = play(tmp_path / "t")
            assert seconds(found)[-1] == last
            assert any("have fractions" in note for note in found.trace.notes) == (last == 1800.5)

    def test_a_unit_that_the_user_names_wrongly_is_questioned_with_the_right_one(self, write: Write) -> None:
        path = write(DAY_OF_JUNE * 1000, header="t,prompt_tokens,output_tokens")
        with pytest.raises(TraceError, match=r"no seconds: they would lie in the year 57,\d\d\d") as caught:
            play(path, columns=("arrival_s=t",))
        assert "arrival_ms" in caught.value.hint

    def test_an_odd_rate_is_a_question(self, write: Write) -> None:
        found = play(write(*range(0, 400_000, 1000)))
        assert any("if they are milliseconds: --column arrival_ms" in note for note in found.trace.notes)


class TestSpellings:
    @pytest.mark.parametrize(
        "times",
        [
            ("11/16/2023 18:17", "11/16/2023 18:18", "11/16/2023 19:17"),
            ("16/11/2023 6:17 PM", "16/11/2023 6:18 PM", "16/11/2023 7:17 PM"),
            ("00:00:00", "00:01:00", "01:00:00"),
            ("0 days 00:00:05", "0 days 00:01:05", "0 days 01:00:05"),
            ("2024-05-10T00:00:00+02:00", "2024-05-09T22:01:00Z", "2024-05-09 23:00:00"),
            ("2024-05-10T00:00:00.0123456789", "2024-05-10T00:01:00.0123456789", "2024-05-10T01:00:00.0123456789"),
            (
                "Sun Jun 01 2025 10:00:00 GMT+0200 (CEST)",
                "Sun Jun 01 2025 10:01:00 GMT+0200",
                "Sun Jun 01 2025 11:00:00 GMT+0200",
            ),
            ("Fri May 10 00:00:00 2024", "Fri May 10 00:01:00 2024", "Fri May 10 01:00:00 2024"),
        ],
    )
    def test_a_minute_and_an_hour_are_that_long(self, write: Write, times: tuple[str, ...]) -> None:
        waits = np.diff(play(write(*times)).trace.arrival)
        assert waits.tolist() == [MINUTE, 59 * MINUTE]

    def test_days_alone_are_midnights(self, write: Write) -> None:
        assert play(write("2024-05-10", "2024-05-11", "2024-05-12")).trace.arrival.tolist() == [0, DAY, 2 * DAY]

    def test_days_and_months_that_nothing_tells_apart_are_refused_and_can_be_named(self, write: Write) -> None:
        path = write("03/04/2024 10:00", "04/04/2024 10:00")
        with pytest.raises(TraceError, match="in two ways: 3/4"):
            play(path)
        assert seconds(play(path, columns=("timestamp_dmy=timestamp",), keep_gaps=True))[1] == 86_400
        assert seconds(play(path, columns=("timestamp_mdy=timestamp",), keep_gaps=True))[1] == 31 * 86_400

    def test_excels_days_are_read_where_they_are_named(self, write: Write) -> None:
        found = play(write(45246.75, 45247.25, header="d,prompt_tokens,output_tokens"), columns=("excel_days=d",), keep_gaps=True)
        assert (seconds(found), found.trace.start) == ([0, 43_200], 1_700_157_600 * SECOND)

    def test_times_of_day_that_pass_midnight_need_dates(self, write: Write) -> None:
        with pytest.raises(TraceError, match="go back past midnight"):
            play(write("23:59:00", "00:01:00"))


class TestWithoutTimes:
    HEADER = "model,prompt_tokens,output_tokens"

    def test_a_file_without_times_says_what_to_give(self, write: Write) -> None:
        with pytest.raises(TraceError, match="no time of its requests") as caught:
            play(write("a", header=self.HEADER))
        assert "--all-at 0" in caught.value.hint
        assert "--rate 2" in caught.value.hint

    def test_all_at_once_or_at_a_rate(self, write: Write) -> None:
        path = write(*["a"] * 2000, header=self.HEADER)
        assert set(seconds(play(path, all_at="0"))) == {0}
        assert set(seconds(play(path, all_at="90s"))) == {90}
        found = play(path, rate=2.0, seed=3)
        assert len(found.trace) / seconds(found)[-1] == pytest.approx(2.0, rel=0.1)
        assert seconds(found) == seconds(play(path, rate=2.0, seed=3)) != seconds(play(path, rate=2.0, seed=4))

    def test_a_benchmarks_own_rate_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "b").write_text('{"request_rate": 4.0, "input_lens": [9, 9], "output_lens": [1, 0], "errors": ["", "boom"]}')
        found = play(tmp_path / "b")
        assert len(found.trace) == 1
        assert any("sent at 4 requests a second" in note for note in found.trace.notes)


class TestWindow:
    def test_a_slice_of_a_longer_trace_is_refused_with_its_cure(self, write: Write) -> None:
        path = write(500_000, 500_060, 503_600)
        with pytest.raises(TraceError, match=r"first request arrives 5d18h53m after the start.*99\.3% of it is empty") as caught:
            play(path)
        assert "--from first" in caught.value.hint
        assert seconds(play(path, begin="first")) == [0, 60, 3600]
        assert seconds(play(path, keep_gaps=True))[0] == 500_000

    @pytest.mark.parametrize("odd", ["1970-01-01T00:00:00Z", "2031-01-01T00:00:00Z"])
    def test_one_row_of_another_year_is_refused_and_left_out_on_request(self, write: Write, odd: str) -> None:
        path = write(odd, *(f"2025-06-01T00:{minute:02d}:00Z" for minute in range(30)))
        with pytest.raises(TraceError, match="nothing arrives for") as caught:
            play(path)
        assert "--drop-outliers" in caught.value.hint
        found = play(path, drop_outliers=True)
        assert len(found.trace) == 30
        assert found.trace.start == DAY_OF_JUNE * SECOND
        assert found.trace.window == 30 * MINUTE

    def test_a_weekend_of_silence_is_no_reason_to_refuse(self, write: Write) -> None:
        days = [day for day in range(14) if day % 7 < 5]
        found = play(write(*(day * 86_400 + hour * 3600 for day in days for hour in range(8, 18))))
        assert len(found.trace) == 100

    def test_a_part_is_cut_out_by_times_and_by_dates_and_what_was_before_is_history(self, write: Write) -> None:
        path = write(*(f"2025-06-01T{hour:02d}:00:00Z" for hour in range(12)))
        found = play(path, begin="3h", until="2025-06-01 06:30")
        assert seconds(found) == [0, 3600, 7200, 10_800]
        assert found.trace.window == 3 * HOUR + 30 * MINUTE
        assert found.trace.start == (DAY_OF_JUNE + 3 * 3600) * SECOND
        assert found.earlier is not None
        assert (found.earlier.start, found.earlier.requests.sum()) == (-3 * HOUR, 3)
        with pytest.raises(TraceError, match="nothing arrives between --from 20m and --until 30m"):
            play(path, begin="20m", until="30m")
        with pytest.raises(TraceError, match="--from soon is no time"):
            play(path, begin="soon")

    def test_negative_times_are_kept_where_the_trace_begins_at_its_first(self, write: Write) -> None:
        path = write(-5, 0, 60)
        with pytest.raises(TraceError, match="time is negative") as caught:
            play(path)
        assert "--from first" in caught.value.hint
        assert seconds(play(path, begin="first")) == [0, 5, 65]


class TestSeveralFiles:
    def test_dated_files_are_placed_by_their_dates_in_any_order_and_merged(self, write: Write) -> None:
        one = write("2025-06-01T00:00:00Z", "2025-06-01T00:59:30Z", name="a")
        two = write("2025-06-01T00:10:00Z", "2025-06-01T00:40:00Z", name="b")
        for files in ((one, two), (two, one)):
            found = play(*files)
            assert seconds(found) == [0, 600, 2400, 3570]
            assert found.trace.window == HOUR
            assert any("merged where they overlap" in note for note in found.trace.notes)
        late = write("2025-06-03T00:00:00Z", name="c")
        with pytest.raises(TraceError, match="nothing arrives for"):
            play(one, late)
        assert play(one, late, end_to_end=True).trace.window == HOUR + MINUTE

    def test_undated_files_are_laid_end_to_end_and_never_mixed_with_dated_ones(self, write: Write) -> None:
        one, two = write(0, 90, name="a"), write(30, 40, name="b")
        assert seconds(play(one, two)) == [0, 90, 150, 160]
        assert seconds(play(one, two, begin="first")) == [0, 90, 120, 130]
        with pytest.raises(TraceError, match="1 of 2 trace files have dates"):
            play(one, write("2025-06-01", name="c"))


def test_three_counts_say_what_does_not_fit_the_context(tmp_path: Path) -> None:
    rows = "".join(
        f"{at},small,{prompt},{output}\n" for at, prompt, output in ((0, 100, 10_000), (1, 4095, 5), (2, 4096, 5), (3, 9, 9))
    )
    (tmp_path / "t").write_text("arrival_s,model,prompt_tokens,output_tokens\n" + rows)
    found = requests_of(TraceOptions((tmp_path / "t",)), scenario())
    said = next(note for note in found.trace.notes if "at the door" in note)
    for words in ("of 4 requests 1 are refused", "2 are kept with their answer cut", "1 fit"):
        assert words in said


def test_a_report_names_the_file_that_is_at_fault(write: Write) -> None:
    with pytest.raises(TraceError, match=r"trace\.csv.*no time"):
        read_as_is(write("x", header="model,prompt_tokens,output_tokens"))


@pytest.mark.parametrize(("option", "value"), [("all_at", "0"), ("rate", 2.0)])
def test_a_time_for_requests_that_have_one_is_said_to_change_nothing(write: Write, option: str, value: object) -> None:
    found = play(write(0, 5, 7), **{option: value})
    assert seconds(found) == [0, 5, 7]
    assert any(f"--{option.replace('_', '-')} changes nothing" in note for note in found.trace.notes)
