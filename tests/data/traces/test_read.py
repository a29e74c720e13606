"""Every known format is read by its content, and what is wrong with a file is said, counted and survived.

Samples are a few lines each, written here. Read next: `tests/data/traces/test_shared_traces.py` for the published files.
"""

import contextlib
import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Trace
from sageserve.base.units import HOUR, MINUTE, SECOND
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is, read_trace
from sageserve.data.traces.report import ReadReport
from tests.data.scenes import scenario

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GENERIC = "arrival_s,model,tier,region,prompt_tokens,output_tokens\n"

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file under a name that says nothing about its format."""

    def to_file(content: str | bytes) -> Path:
        path = tmp_path / "trace.data"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


def read(path: Path, *maps: str, **more: object) -> tuple[Trace, ReadReport]:
    return read_as_is(path, TraceOptions(maps=maps, **{"max_dropped": 1.0, **more}))  # type: ignore[arg-type]  # options by name


def model_names(trace: Trace) -> list[str]:
    return [trace.names.models[code] for code in trace.model]


def tier_names(trace: Trace) -> list[str]:
    return [trace.names.tiers[code] for code in trace.tier]


def region_names(trace: Trace) -> list[str]:
    return [trace.names.regions[code] for code in trace.region]


class TestFormats:
    def test_azure_2023_keeps_100_ns_timestamps_to_the_microsecond(self, write: Write) -> None:
        path = write(AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n")
        trace, report = read(path)
        assert report.format == "azure"
        assert trace.arrival.tolist() == [0, 4_314_579]
        assert trace.prompt.tolist() == [374, 396]
        assert trace.output.tolist() == [44, 109]
        assert any("2023-11-16T18:15:46.680590" in note for note in trace.notes)

    def test_azure_2024_has_zones_and_drops_the_fraction_of_whole_seconds(self, write: Write) -> None:
        path = write(AZURE + "2024-05-12 00:00:00+00:00,1452,3\n2024-05-12 00:00:01.041683+00:00,584,3\n")
        trace, _ = read(path)
        assert trace.arrival.tolist() == [0, 1_041_683]

    def test_mooncake_is_in_milliseconds(self, write: Write) -> None:
        path = write(
            '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
            '{"timestamp": 3052, "input_length": 1, "output_length": 2, "hash_ids": []}\n'
        )
        trace, report = read(path)
        assert report.format == "mooncake"
        assert trace.arrival.tolist() == [0, 3_052_000]
        assert trace.prompt.tolist() == [6758, 1]

    def test_bailian_looks_like_mooncake_but_is_in_seconds(self, write: Write) -> None:
        path = write(
            '{"chat_id": 1, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 521, '
            '"output_length": 132, "type": "text", "turn": 1, "hash_ids": [5]}\n'
        )
        trace, report = read(path)
        assert report.format == "bailian"
        assert trace.arrival.tolist() == [61_114_000]

    def test_burstgpt_counts_failures_and_keeps_models(self, write: Write) -> None:
        path = write(
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "5,ChatGPT,472,18,490,Conversation log\n"
            "45,GPT-4,1087,0,1087,API log\n"
            "118,GPT-4,417,276,693,Conversation log\n"
        )
        trace, report = read(path)
        assert report.format == "burstgpt"
        assert trace.arrival.tolist() == [5 * SECOND, 118 * SECOND]
        assert model_names(trace) == ["ChatGPT", "GPT-4"]
        assert [(bad.count, bad.lines) for bad in report.bad] == [(1, (3,))]
        assert "failed request" in report.bad[0].reason

    def test_servegen(self, write: Write) -> None:
        path = write("request_id,timestamp,input_tokens,output_tokens\n0,0.5,10,20\n1,1.2,15,25\n")
        trace, report = read(path)
        assert report.format == "servegen"
        assert trace.arrival.tolist() == [500_000, 1_200_000]
        assert trace.output.tolist() == [20, 25]

    def test_the_research_codes_fifteen_columns(self, write: Write) -> None:
        path = write(
            "request_id,batch_id,client_tenant,request_type,scenario,sla,utility,regions,model_type,"
            "workload_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
            "0,-1,1,2,EnterpriseSydney,10,3,210,llama2-70b,prod,0,0.25,1,100,7\n"
            "1,-1,1,2,EnterpriseSydney,-1,0,21,bloom-176b,dev,0,7,1,200,8\n"
        )
        trace, report = read(path)
        assert report.format == "sageserve-research"
        assert trace.arrival.tolist() == [250_000, 7 * SECOND]
        assert region_names(trace) == ["eastus", "westus"]  # 21 is 021, its zero lost
        assert tier_names(trace) == ["prod", "dev"]
        assert model_names(trace) == ["llama2-70b", "bloom-176b"]

    def test_generic_csv_with_deadlines_after_arrival(self, write: Write) -> None:
        path = write("arrival_ms;prompt_tokens;output_tokens;deadline_s\n1000;5;6;\n2000;7;8;3600\n")
        trace, report = read(path)
        assert report.format == "generic"
        assert trace.deadline is not None
        assert trace.deadline.tolist() == [UNSET, 2 * SECOND + HOUR]

    def test_generic_timestamp_may_be_an_instant(self, write: Write) -> None:
        path = write("timestamp,prompt_tokens,output_tokens\n2025-01-01T00:00:00Z,1,1\n2025-01-01T00:01:00Z,1,1\n")
        assert read(path)[0].arrival.tolist() == [0, MINUTE]

    def test_generic_parquet_with_dictionaries_and_timestamps(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"  # a name that lies
        times = pa.array([0, 90_000], pa.timestamp("ms"))
        table = {
            "timestamp": times,
            "model": pa.array(["a", "b"]).dictionary_encode(),
            "prompt_tokens": pa.array([3, 4], pa.int16()),
            "output_tokens": pa.array([5.0, 6.0]),
        }
        pq.write_table(pa.table(table), path)
        trace, _ = read(path)
        assert trace.arrival.tolist() == [0, 90 * SECOND]
        assert model_names(trace) == ["a", "b"]
        assert trace.output.tolist() == [5, 6]

    def test_epoch_seconds_are_a_wall_clock(self, write: Write) -> None:
        path = write("timestamp,prompt_tokens,output_tokens\n1700000000,1,1\n1700000001.5,1,1\n")
        trace, _ = read(path)
        assert trace.arrival.tolist() == [0, 1_500_000]
        assert any("2023-11-14" in note for note in trace.notes)

    def test_spreadsheets_habits_are_no_obstacle(self, write: Write) -> None:
        text = '\ufeff\r\n"Arrival_S"\t"Model"\tPrompt_Tokens \tOUTPUT_TOKENS\r\n+1.0\t"a b"\t 5\t6.0\r\nx\ta\t1\t1\r\n'
        trace, report = read(write(text))
        assert trace.arrival.tolist() == [SECOND]
        assert model_names(trace) == ["a b"]
        assert report.bad[0].lines == (4,)

    @pytest.mark.parametrize("kind", ["gzip", "zstd"])
    def test_compressed_files_are_known_by_their_bytes(self, write: Write, kind: str) -> None:
        text = (AZURE + "2023-11-16 18:15:46.6805900,374,44\n").encode()
        path = write(gzip.compress(text) if kind == "gzip" else pa.compress(text, "zstd", asbytes=True))
        assert len(read(path)[0]) == 1

    def test_columns_can_be_named(self, write: Write) -> None:
        path = write("when,in,out,who\n3,10,20,x\n")
        columns = ("arrival_s=when", "prompt_tokens=in", "output_tokens=out", "model=who")
        trace, _ = read(path, columns=columns)
        assert (trace.arrival[0], trace.prompt[0], trace.output[0]) == (3 * SECOND, 10, 20)
        assert model_names(trace) == ["x"]


class TestBadRows:
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (",big,niw,east,1,1", "time is missing"),
            ("x,big,niw,east,1,1", "time is not a number"),
            ("-1,big,niw,east,1,1", "time is negative"),
            ("1e300,big,niw,east,1,1", "time is too large"),
            ("1,big,niw,east,,1", "prompt length is missing"),
            ("1,big,niw,east,abc,1", "prompt length is not a whole number"),
            ("1,big,niw,east,1.5,1", "prompt length is not a whole number"),
            ("1,big,niw,east,0,1", "prompt length is below 1"),
            ("1,big,niw,east,3000000000,1", "prompt length is above"),
            ("1,big,niw,east,99999999999999999999999,1", "prompt length is above"),
            ("1,big,niw,east,1,0", "output length is below 1"),
            ("1,big,niw,east,1,-7", "output length is below 1"),
            ("1,big,niw,east,1,inf", "output length is not a whole number"),
            ("1,,niw,east,1,1", "model is missing"),
            ("1,big,niw,east,1", "5 columns where 6"),
            ("1,big,niw,east,1,1,1", "7 columns where 6"),
        ],
    )
    def test_a_broken_row_is_counted_with_its_line_and_the_rest_is_kept(self, write: Write, row: str, reason: str) -> None:
        good = "2,big,niw,east,10,20\n"
        path = write(GENERIC + good + "\n" + row + "\n" + good + row + "\n" + good)
        trace, report = read(path)
        assert trace.prompt.tolist() == [10, 10, 10]
        assert report.rows == 5 == report.kept + report.bad_count
        assert [bad.lines for bad in report.bad] == [(4, 6)]  # line 3 is blank
        assert reason in report.bad[0].reason
        assert any("1 blank lines" in note for note in report.notes)
        assert any(reason in note for note in trace.notes)

    def test_lines_stay_right_when_several_kinds_are_mixed(self, write: Write) -> None:
        rows = ["1,1,1", "1,1", "x,1,1", "1,1", "1,0,1", "1,1,1", "1,1,1,1", "y,1,1"]
        report = read(write("arrival_s,prompt_tokens,output_tokens\n" + "\n".join(rows)))[1]
        found = {line for bad in report.bad for line in bad.lines}
        assert found == {3, 4, 5, 6, 8, 9}

    def test_impossible_dates_are_bad_rows_and_their_neighbours_are_not(self, write: Write) -> None:
        rows = ["2024-02-29 00:00:00", "2023-02-30 00:00:00", "yesterday", "2024-02-29 00:00:01"]
        trace, report = read(write(AZURE + "".join(f"{row},1,1\n" for row in rows)))
        assert trace.arrival.tolist() == [0, SECOND]
        assert report.bad[0].lines == (3, 4)

    def test_bad_json_lines_are_counted(self, write: Write) -> None:
        good = '{"timestamp": 1, "input_length": 2, "output_length": 3}\n'
        path = write(good + "{broken\n\n" + '{"timestamp": 1, "input_length": [2], "output_length": 3}\n' + good)
        trace, report = read(path)
        assert len(trace) == 2
        assert [(bad.reason, bad.lines) for bad in report.bad] == [
            ("line is not a JSON object", (2,)),
            ("prompt length is not a whole number", (4,)),
        ]

    def test_badly_encoded_text_does_not_hide_good_rows(self, write: Write) -> None:
        path = write(GENERIC.encode() + b"1,mod\xe8le,niw,east,1,1\n1,big,niw,east,\xff\xfe,1\n")
        trace, report = read(path)
        assert len(trace) == 1
        assert report.bad[0].lines == (3,)

    def test_too_many_fail_with_their_lines_and_the_share_that_would_do(self, write: Write) -> None:
        path = write(AZURE + "2023-11-16 18:15:46,374,44\n" * 98 + "2023-11-16 18:15:46,0,44\n" * 2)
        with pytest.raises(
            TraceError, match=r"2 of 100 rows \(2\.0%\).*\n2 rows: prompt length is below 1 \(lines 100, 101\)"
        ) as caught:
            read(path, max_dropped=0.01)
        assert "--max-dropped 2%" in caught.value.hint
        assert len(read(path, max_dropped=0.02)[0]) == 98

    def test_what_the_source_says_failed_may_be_any_share(self, write: Write) -> None:
        header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        trace, report = read(write(header + "1,a,9,0,9,x\n" * 5 + "2,a,9,1,9,x\n"), max_dropped=0.0)
        assert len(trace) == 1
        assert report.bad_count == 5

    def test_only_the_first_lines_are_listed(self, write: Write) -> None:
        path = write(AZURE + "2023-11-16 18:15:46,374,44\n" + "2023-11-16 18:15:46,0,44\n" * 9)
        assert read(path)[1].bad_lines() == ["9 rows: prompt length is below 1 (lines 3, 4, 5, …)"]


class TestBadFiles:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is empty"),
            (b"\n \n", "nothing but blanks"),
            (b"\xef\xbb\xbf", "nothing but blanks"),
            (b"\xfe\xff\xff", "nothing but blanks"),
            (b"\xff\xfe\n\0", "nothing but blanks"),
            (AZURE.encode(), "no requests"),
            (b"a,b,c\n1,2,3\n", "nothing says how long prompts are and how long answers are\nits columns are a, b, c"),
            (bytes(range(256)) * 40, "not text"),
            (b"\x1f\x8b" + b"junk" * 20, "cannot be read"),
            (b"PAR1junkjunkjunk", "cannot be read"),
            (gzip.compress(AZURE.encode() + b"2023-11-16 18:15:46,1,1\n" * 5000, mtime=0)[:-60], "cut off"),
            (pa.compress(AZURE.encode() + b"2023-11-16 18:15:46,1,1\n" * 5000, "zstd", asbytes=True)[:-9], "cut off"),
            (gzip.compress(gzip.compress(AZURE.encode(), mtime=0), mtime=0), "not text inside"),
            (b"[1, 2]\n", "no object"),
            (AZURE.encode() + b"x,1,1\n", "none of its 1 rows is a request"),
        ],
    )
    def test_the_error_fits_a_screen_and_shows_a_way_out(self, write: Write, content: bytes, says: str) -> None:
        with pytest.raises(TraceError, match=says) as caught:
            read(write(content))
        assert caught.value.hint
        assert len(str(caught.value).splitlines()) <= 24

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(TraceError, match="does not exist"):
            read(tmp_path / "no.csv")
        with pytest.raises(TraceError, match="is a folder"):
            read(tmp_path)

    def test_a_format_error_says_what_is_known_and_where_formats_are_listed(self, write: Write) -> None:
        with pytest.raises(TraceError) as caught:
            read(write("timestamp,prompt_tokens,b\n1,2,3\n"))
        assert "nothing says how long answers are" in caught.value.message
        assert "prompt is prompt_tokens" in caught.value.message
        for words in ("--column output_tokens=NAME", "sageserve trace formats"):
            assert words in caught.value.hint

    @pytest.mark.parametrize("column", ["prompt_tokens", "tokens=in", "prompt_tokens=nowhere"])
    def test_a_wrong_column_option_is_refused(self, write: Write, column: str) -> None:
        with pytest.raises(TraceError, match=f"--column {column}"):
            read(write("when,in,out\n3,10,20\n"), columns=(column,))


class TestOrderAndGaps:
    def test_unsorted_rows_are_sorted_stably_with_a_note(self, write: Write) -> None:
        path = write("arrival_s,prompt_tokens,output_tokens\n5,1,1\n3,2,1\n5,3,1\n0,4,1\n")
        trace, _ = read(path)
        assert trace.prompt.tolist() == [4, 2, 1, 3]
        assert any("2 steps back, the first at request 2" in note for note in trace.notes)

    def test_a_gap_of_days_is_kept_and_said(self, write: Write) -> None:
        path = write(f"arrival_s,prompt_tokens,output_tokens\n0,1,1\n60,2,1\n{3 * 86400},3,1\n")
        trace, _ = read(path)
        assert len(trace) == 3
        assert trace.window >= 3 * 24 * HOUR
        assert any("1 gap of 6h or more" in note and "2d23h59m after 1m" in note for note in trace.notes)

    def test_ten_million_tokens_are_kept_and_warned_about(self, write: Write) -> None:
        path = write(GENERIC + "1,big,niw,east,10000000,1\n2,big,niw,east,10,1\n3,big,niw,east,131000,1000\n")
        trace, _ = read_trace(path, scenario())
        assert trace.prompt.tolist() == [10_000_000, 10, 131_000]
        said = next(note for note in trace.notes if "refused at the door" in note)
        for words in ("of 3 requests 1 are refused", "10,000,000", "1 are kept with their answer cut", "1 fit"):
            assert words in said


FAR = [2**62, None, -(2**62)]
"""Instants that Arrow holds and Python has no date for."""


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("s", "UTC"), pa.timestamp("ns"), pa.duration("s")], ids=str)
@pytest.mark.parametrize("name", ["extra", "model", "timestamp", "hash_ids", "error", "session_id", "input_length"])
@pytest.mark.parametrize("nested", [False, True])
def test_instants_beyond_all_dates_are_values_like_any_other(tmp_path: Path, kind: pa.DataType, name: str, nested: bool) -> None:
    columns = {"timestamp": [0, 1, 2], "input_length": [5] * 3, "output_length": [2] * 3}
    far = pa.array(FAR, pa.int64()).cast(kind, safe=False)
    found = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), far) if nested else far
    path = tmp_path / "far.arrow"
    feather.write_feather(pa.table({**{key: pa.array(value) for key, value in columns.items()}, name: found}), path)
    with contextlib.suppress(TraceError):  # what cannot be played is refused in words, and never with another exception
        read_as_is(path, TraceOptions())
