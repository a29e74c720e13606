"""Every published format gives its values by content alone, and every column of it is used, kept or listed.

Each sample is written here. Read next: `tests/data/traces/test_time_and_part.py`, `tests/data/traces/test_carried.py`.
"""

import json
from pathlib import Path

import pytest

from sageserve.base.errors import TraceError
from sageserve.base.records import UNSET, Trace
from sageserve.data.traces.columns.catalog import EVERY, formats_page
from sageserve.data.traces.columns.formats import FORMATS
from sageserve.data.traces.options import TraceOptions
from sageserve.data.traces.read import read_as_is
from sageserve.data.traces.report import ReadReport

SPAN = {"name": "http", "startTimeUnixNano": "1748772000000000000", "attributes": []}
LLM_SPAN = {
    "startTimeUnixNano": "1748772001500000000",
    "attributes": [
        {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "320"}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "55"}},
        {"key": "gen_ai.usage.cache_read.input_tokens", "value": {"intValue": "128"}},
    ],
}


def counter(name: str, *values: int) -> dict[str, object]:
    return {
        "metric": {"__name__": name, "model_name": "m"},
        "values": [[1748736000 + 60 * i, str(v)] for i, v in enumerate(values)],
    }


RANGE = [
    counter("vllm:request_success_total", 10, 14, 2),
    counter("vllm:prompt_tokens_total", 100, 500, 50),
    counter("vllm:generation_tokens_total", 10, 50, 20),
]
LITELLM = """request_id,call_type,api_key,prompt_tokens,completion_tokens,startTime,model,metadata
a,acompletion,secret,320,55,2025-06-01 10:00:00.123,g,"{""usage_object"": {""prompt_tokens_details"": {""cached_tokens"": 256}}}"
b,aembedding,secret,40,0,2025-06-01 10:00:05.123,text-embedding-3,{}
"""
DEVPROXY = """time,status,retry-after,policy,prompt tokens,completion tokens,cached tokens
2025-10-28T10:15:30.123Z,200,,,150,75,128
2025-10-28T10:15:31Z,429,5,,,,
"""
IMAGES = """TIMESTAMP,NumImages,ContextTokens,GeneratedTokens
2024-10-15 00:00:00.100000,0,310,20
2024-10-15 00:00:01.100000,3,5200,40
"""
DYNAMO = {"input_tokens": 300, "output_tokens": 50, "cached_tokens": 128, "request_received_ms": 1777312801000}
SAMPLES: dict[str, tuple[object, dict[str, object]]] = {
    "vidur": (
        "arrived_at,num_prefill_tokens,num_decode_tokens,pd_ratio\n0.5,374,44,8.5\n1.0,10,2,5",
        {"arrival": [500_000, 1_000_000], "prompt": [374, 10], "output": [44, 2], "unused": ["pd_ratio"]},
    ),
    "splitwise": (
        "request_id,request_type,arrival_timestamp,batch_size,prompt_size,token_size\n0,2,1.5,1,512,64",
        {"arrival": [1_500_000], "prompt": [512], "unused": ["request_id", "request_type", "batch_size"]},
    ),
    "azure": (IMAGES, {"arrival": [0, 1_000_000], "images": [0, 3], "unused": []}),
    "dynamo": (
        [{"event": {"event_type": "tool_end", "tool": {"name": "x"}}}, {"event": {"request": DYNAMO}}],
        {"prompt": [300], "cached": [128]},
    ),
    "aiperf": (
        [
            {
                "metadata": {"request_start_ns": 1759813207532900363 + k * 10**9, "turn_index": k, "x_correlation_id": "c"},
                "metrics": {"input_sequence_length": {"value": 550}, "output_sequence_length": {"value": 90}},
            }
            for k in range(2)
        ],
        {"arrival": [0, 1_000_000], "prompt": [550, 550], "session": ["c", "c"], "turn": [0, 1]},
    ),
    "vllm-bench": (
        {"model_id": "m", "request_rate": 2.0, "input_lens": [30, 40], "output_lens": [1, 2], "start_times": [71.5, 71.0]},
        {"arrival": [0, 500_000], "prompt": [40, 30], "model": ["m", "m"]},
    ),
    "ghcp": (
        {
            "session_id": "s",
            "turns": [
                {"llm_calls": [{"timestamp": "2026-06-01T00:00:01Z", "tokens": {"prompt": 9, "completion": 1, "cached": 8}}]},
                {"llm_calls": [{"timestamp": "2026-06-01T00:00:03Z", "tokens": {"prompt": 12, "completion": 2, "cached": 9}}]},
            ],
        },
        {"arrival": [0, 2_000_000], "prompt": [9, 12], "cached": [8, 9], "turn": [1, 2], "session": ["s", "s"]},
    ),
    "otel-genai": (
        {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN, LLM_SPAN]}]}]},
        {"prompt": [320], "output": [55], "cached": [128], "model": ["gpt-4o"]},
    ),
    "openinference": (
        {"start_time": "2025-06-01T10:00:00Z", "attributes": {"llm.token_count.prompt": 7, "llm.token_count.completion": 5}},
        {"prompt": [7], "output": [5]},
    ),
    "openai": (
        [
            {"created": 1748736004, "model": "a", "usage": {"prompt_tokens": 20, "completion_tokens": 5}},
            {
                "created_at": 1748736006,
                "model": "b",
                "usage": {"input_tokens": 30, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 16}},
            },
        ],
        {"prompt": [20], "model": ["a"]},
    ),
    "litellm": (LITELLM, {"prompt": [320], "cached": [256], "unused": ["request_id"]}),
    "langfuse": (
        {"data": [{"type": "SPAN", "startTime": "2025-06-01T10:00:00Z"},
                  {"startTime": "2025-06-01T10:00:01Z", "model": "m", "usage": {"input": 3, "output": 4}, "sessionId": "s"}],
         "meta": {"page": 1}},
        {"prompt": [3], "output": [4], "session": ["s"]},
    ),
    "devproxy": (DEVPROXY, {"prompt": [150], "cached": [128]}),
}  # fmt: skip


def read(content: object, path: Path, **more: object) -> tuple[Trace, ReadReport]:
    """Read a text, a list as JSON lines, or an object as one document."""
    if isinstance(content, list):
        content = "\n".join(json.dumps(each) for each in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return read_as_is(path, TraceOptions(**{"max_dropped": 0.5, **more}))  # type: ignore[arg-type]  # options by name


def column(trace: Trace, report: ReadReport, name: str) -> list[object]:
    """One column of a trace, names as texts."""
    if name == "unused":
        return [each.name for each in report.unused]
    if name == "model":
        return [trace.names.models[code] for code in trace.model]
    if name == "session":
        each = trace.labels["session"]
        return [each.names[code] for code in each.codes]
    found = trace.counts[name] if name in {"turn", "images"} else getattr(trace, name)  # type: ignore[index]  # a count's name
    return list(found.tolist())


@pytest.mark.parametrize("name", SAMPLES)
def test_a_format_gives_its_values(tmp_path: Path, name: str) -> None:
    content, expected = SAMPLES[name]
    trace, report = read(content, tmp_path / "file")
    assert report.format == name
    assert {part: column(trace, report, part) for part in expected} == expected


@pytest.mark.parametrize("name", ["openai", "litellm", "langfuse", "aiperf"])
def test_an_array_is_read_as_lines_are(tmp_path: Path, name: str) -> None:
    content, expected = SAMPLES[name]
    if isinstance(content, list):
        trace, report = read(json.dumps(content, indent=1), tmp_path / "file")
        assert {part: column(trace, report, part) for part in expected} == expected


def test_every_format_has_a_sample_and_a_row_in_the_docs(repo_root: Path) -> None:
    elsewhere = {"burstgpt", "sageserve-research", "servegen", "bailian", "mooncake", "payloads", "openai-usage", "prometheus"}
    assert {each.name for each in FORMATS} == SAMPLES.keys() | elsewhere
    page = (repo_root / "docs" / "reference" / "traces.md").read_text("utf-8")
    assert page == formats_page(), "run: sageserve trace formats --markdown > docs/reference/traces.md"
    for each in EVERY:
        assert each.example in page


@pytest.mark.parametrize("name", [one.name for one in FORMATS if one.example.startswith("{") and one.name != "prometheus"])
def test_the_example_of_a_format_is_of_it(tmp_path: Path, name: str) -> None:
    (known,) = (one for one in FORMATS if one.name == name)
    _, report = read(known.example + "\n", tmp_path / "file", all_at="0", chars_per_token=4.0, max_dropped=1.0)
    assert report.format == name


class TestSums:
    USAGE = (
        "start_time,end_time,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n"
        "1748736000,1748739600,7,m,100,50,30\n1748739600,1748743200,3,m,9,6,0\n"
    )

    def test_sums_are_refused_with_the_assumption_that_would_expand_them(self, tmp_path: Path) -> None:
        with pytest.raises(TraceError, match=r"sums up 10 requests in 2 rows of 1h") as caught:
            read(self.USAGE, tmp_path / "file")
        assert "--expand poisson" in caught.value.hint

    @pytest.mark.parametrize("how", ["even", "poisson"])
    def test_expanded_sums_stay_sums_inside_their_rows(self, tmp_path: Path, how: str) -> None:
        trace, report = read(self.USAGE, tmp_path / "file", expand=how)
        assert report.format == "openai-usage"
        first = trace.arrival < 3_600_000_000
        assert [int(first.sum()), len(trace)] == [7, 10]
        assert [trace.prompt[first].sum(), trace.output[first].sum(), trace.prompt.sum()] == [100, 50, 109]
        assert trace.cached is not None
        assert trace.cached.sum() == 30
        assert trace.window == 7_200_000_000
        assert any(f"--expand {how}" in note for note in trace.notes)

    def test_counters_of_prometheus_are_sums_too(self, tmp_path: Path) -> None:
        answer = {"status": "success", "data": {"resultType": "matrix", "result": RANGE}}
        with pytest.raises(TraceError, match="sums up 6 requests in 2 rows of 1m"):
            read(answer, tmp_path / "file")
        trace, _ = read(answer, tmp_path / "file", expand="even")
        assert [trace.prompt.sum(), trace.output.sum()] == [450, 60], "a counter that falls began again from 0"
        with pytest.raises(TraceError, match="samples, not requests"):
            read({"data": {"resultType": "matrix", "result": RANGE[:1]}}, tmp_path / "file")


class TestNames:
    def test_column_leaves_the_rest_of_the_format_in_force(self, tmp_path: Path) -> None:
        content = "when,model,tier,inputUsage,out\n2025-06-01T10:00:00Z,big,niw,300,20"
        trace, _ = read(content, tmp_path / "file", columns=("timestamp=when", "output_tokens=out"))
        assert [trace.names.models, trace.names.tiers] == [("big",), ("niw",)]
        lines = [{"t0": 5, "input_length": 9, "output_length": 1, "hash_ids": [1]}]
        trace, report = read(lines, tmp_path / "file", columns=("arrival_s=t0",))
        assert (report.format, trace.arrival.tolist()) == ("mooncake", [5_000_000])
        assert trace.blocks is not None

    def test_dotted_names_lead_into_records_structs_and_cells(self, tmp_path: Path) -> None:
        columns = ("prompt=a.b.c", "output=d", "timestamp=t")
        trace, _ = read([{"t": 1, "a": {"b": {"c": 7}}, "d": 2}], tmp_path / "file", columns=columns)
        assert trace.prompt.tolist() == [7]
        trace, _ = read('t,a,d\n1,"{""b"": {""c"": 8}}",2', tmp_path / "file", columns=columns)
        assert trace.prompt.tolist() == [8]

    def test_keys_of_all_lines_count(self, tmp_path: Path) -> None:
        plain = {"timestamp": 1, "prompt_tokens": 9, "output_tokens": 2}
        lines = [plain, plain | {"cached_tokens": 4, "extra": "x"}]
        trace, report = read(lines, tmp_path / "file")
        assert trace.cached is not None
        assert trace.cached.tolist() == [UNSET, 4]
        assert [(each.name, each.example) for each in report.unused] == [("extra", "x")]

    def test_twins_are_refused_with_both_places_where_they_matter(self, tmp_path: Path) -> None:
        with pytest.raises(TraceError, match="2 columns called 'model', at positions 2 and 4"):
            read("timestamp,model,prompt_tokens,Model,output_tokens\n1,a,2,b,3", tmp_path / "file")
        trace, _ = read("timestamp,x,prompt_tokens,x,output_tokens\n1,a,2,b,3", tmp_path / "file")
        assert len(trace) == 1

    def test_a_quoted_comma_in_a_header_is_no_separator(self, tmp_path: Path) -> None:
        content = '"timestamp","prompt, tokens","output_tokens","note, long"\n1,5,6,"a,b"'
        trace, report = read(content, tmp_path / "file")
        assert (trace.prompt.tolist(), trace.output.tolist()) == ([5], [6])
        assert [each.name for each in report.unused] == ["note, long"]

    def test_a_file_without_a_header_is_told_so(self, tmp_path: Path) -> None:
        with pytest.raises(TraceError, match=r"has no header: its first line is '0\.5,374,44'"):
            read("0.5,374,44\n1.5,3,4", tmp_path / "file")


def test_long_files_whose_lines_change_are_read_as_short_ones_are(tmp_path: Path) -> None:
    lines: list[str] = []
    expected: list[tuple[int, int]] = []
    for row in range(30_000):
        record: dict[str, object] = {"timestamp": row, "prompt_tokens": row + 9, "output_tokens": 1, "note": None}
        cached = UNSET
        if row > 12_000:
            record["note"] = "seen late"
        if row > 15_000 and row % 3 == 0:
            record["cached_tokens"] = cached = row % 7
        if row > 21_000 and row % 1000 == 0:
            record["usage"] = {"reasoning_tokens": row}
        lines.append("{broken" if row == 18_000 else json.dumps(record))
        if row != 18_000:
            expected.append((row + 9, cached))
    (tmp_path / "file").write_text("\n".join(lines))
    trace, report = read_as_is(tmp_path / "file", TraceOptions())
    assert trace.cached is not None
    assert list(zip(trace.prompt.tolist(), trace.cached.tolist(), strict=True)) == expected
    assert [(bad.reason, bad.lines) for bad in report.bad] == [("line is not a JSON object", (18_001,))]
    assert [(each.name, each.example) for each in report.unused] == [
        ("note", "seen late"),
        ("usage.reasoning_tokens", "22000"),
    ]
