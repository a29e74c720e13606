"""Generated traces written as other programs would write them: formats and their quirks, drawn by hypothesis.

A `Truth` is what a reader must find; each writer turns it into bytes of one kind of file. Must not use the readers.
Read next: `test_reader_laws.py`.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq

SECOND: Final = 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Truth:
    """Requests in order of time: microseconds since 1970, tokens, names; None where nothing is said."""

    time: list[int]
    prompt: list[int]
    output: list[int]
    cached: list[int | None]
    model: list[str]


@dataclass(frozen=True)
class Written:
    """A file, and what must be said to read it."""

    content: bytes
    columns: tuple[str, ...] = ()
    resolution: int = 1  # microseconds that times are cut to
    unclear: bool = False  # days and months that no row tells apart: to be refused


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    """A few requests within hours of a day of this century."""
    n = draw(st.integers(1, 12))
    start = draw(st.integers(978_307_200, 2_200_000_000)) * SECOND
    waits = draw(st.lists(st.integers(0, 3600 * SECOND), min_size=n, max_size=n))
    time = [start + sum(waits[: row + 1]) for row in range(n)]
    prompt = draw(st.lists(st.integers(1, 200_000), min_size=n, max_size=n))
    cached = [draw(st.none() | st.integers(0, length - 1)) for length in prompt]
    names = st.sampled_from(["m", "gpt 4,o", 'a "b"', "Llama-3.1", "modèle", "7", "x|y;z"])
    return Truth(
        time,
        prompt,
        draw(st.lists(st.integers(1, 9_000), min_size=n, max_size=n)),
        cached,
        draw(st.lists(names, min_size=n, max_size=n)),
    )


# ------------------------------------------------------------------------------------------------ times


def _at(micros: int, hours: float = 0.0) -> datetime:
    return (EPOCH + timedelta(microseconds=micros)).astimezone(timezone(timedelta(hours=hours)))


SPELLINGS: Final[Mapping[str, tuple[Callable[[int], str], int]]] = {
    "iso": (lambda t: _at(t).isoformat(), 1),
    "str": (lambda t: str(_at(t)), 1),
    "india": (lambda t: _at(t, 5.5).isoformat(timespec="microseconds"), 1),
    "postgres": (lambda t: _at(t).strftime("%Y-%m-%d %H:%M:%S.%f+00"), 1),
    "bigquery": (lambda t: _at(t).strftime("%Y-%m-%d %H:%M:%S.%f UTC"), 1),
    "polars": (lambda t: _at(t).strftime("%Y-%m-%dT%H:%M:%S.%f000"), 1),
    "comma": (lambda t: _at(t).strftime("%Y-%m-%d %H:%M:%S,") + f"{t // 1000 % 1000:03d}", 1000),
    "javascript": (lambda t: _at(t, 2).strftime("%a %b %d %Y %H:%M:%S GMT+0200 (Central European Summer Time)"), SECOND),
    "http": (lambda t: _at(t).strftime("%a, %d %b %Y %H:%M:%S GMT"), SECOND),
    "nginx": (lambda t: _at(t, -7).strftime("%d/%b/%Y:%H:%M:%S -0700"), SECOND),
    "slashes": (lambda t: _at(t).strftime("%Y/%m/%d %H:%M:%S"), SECOND),
    "german": (lambda t: _at(t).strftime("%d.%m.%Y %H:%M:%S"), SECOND),
    "afternoon": (lambda t: _at(t).strftime("%b %d, %Y, %I:%M:%S %p"), SECOND),
}
UNITS: Final = {"s": SECOND, "ms": 1000, "us": 1}


@st.composite
def written_times(draw: st.DrawFn, time: Sequence[int]) -> tuple[list[str | int | float], int]:
    """The times as texts or numbers, and what they are cut to."""
    kind = draw(st.sampled_from([*SPELLINGS, *UNITS, "ns", "float", "american"]))
    if kind in SPELLINGS:
        spell, resolution = SPELLINGS[kind]
        return [spell(t) for t in time], resolution
    if kind == "american":
        return [f"{_at(t):%m/%d/%Y %H:%M:%S}" for t in time], SECOND
    if kind == "ns":
        return [t * 1000 for t in time], 1
    if kind == "float":
        return [t // 1000 / 1000 for t in time], 1000
    return [t // UNITS[kind] for t in time], UNITS[kind]


def unclear(times: Sequence[str | int | float]) -> bool:
    """Whether times are dates such as 03/04/2024, none of them after the twelfth."""
    return all(isinstance(time, str) and time[2:3] == "/" and time[3:5].isdecimal() and int(time[3:5]) <= 12 for time in times)


# ------------------------------------------------------------------------------------------------ files


@st.composite
def csv_files(draw: st.DrawFn, truth: Truth) -> Written:
    """A CSV under any separator, order, case and spelling of names, with columns that mean nothing."""
    times, resolution = draw(written_times(truth.time))
    names = {
        "time": draw(st.sampled_from(["timestamp", "TIMESTAMP", "Start Time", "createdAt", "arrival_time", "when it, came"])),
        "prompt": draw(st.sampled_from(["prompt_tokens", "ContextTokens", "Input Tokens", "num_prefill_tokens", "p"])),
        "output": draw(st.sampled_from(["output_tokens", "completionTokens", "GeneratedTokens", "Response tokens", "o"])),
        "cached": draw(st.sampled_from(["cached_tokens", "num_cached_tokens", "Cached Tokens"])),
        "model": draw(st.sampled_from(["model", "Model", "model_name"])),
        "unknown": draw(st.sampled_from(["request_uuid", "latency", "note, quoted"])),
    }
    order = draw(st.permutations(list(names)))
    cells = {
        "time": times,
        "prompt": truth.prompt,
        "output": truth.output,
        "cached": ["" if value is None else value for value in truth.cached],
        "model": truth.model,
        "unknown": [draw(st.sampled_from(["x", "1.5", 'said "hi"']))] * len(truth.time),
    }
    text = io.StringIO()
    writer = csv.writer(text, delimiter=draw(st.sampled_from(",;\t|")), lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
    writer.writerow([names[part] for part in order])
    writer.writerows(zip(*(cells[part] for part in order), strict=True))
    explicit = {"when it, came": "timestamp", "p": "prompt_tokens", "o": "output_tokens"}
    columns = tuple(f"{explicit[name]}={name}" for name in names.values() if name in explicit)
    code = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    return Written(draw(packed(text.getvalue().encode(code))), columns, resolution, unclear(times))


@st.composite
def json_files(draw: st.DrawFn, truth: Truth) -> Written:
    """JSON lines, an array or a page of one; flat or nested; keys in any order, absent where nothing is said."""
    times, resolution = draw(written_times(truth.time))
    nested = draw(st.booleans())
    shuffled = draw(st.randoms(use_true_random=False))
    records = []
    for row, time in enumerate(times):
        usage: dict[str, object] = {"prompt_tokens": truth.prompt[row], "completion_tokens": truth.output[row]}
        if truth.cached[row] is not None:
            usage["prompt_tokens_details" if nested else "cached_tokens"] = (
                {"cached_tokens": truth.cached[row]} if nested else truth.cached[row]
            )
        record = {"created": time, "model": truth.model[row], "x": [1, {"y": 2}]} | ({"usage": usage} if nested else usage)
        keys = list(record)
        shuffled.shuffle(keys)
        records.append({key: record[key] for key in keys})
    shape = draw(st.sampled_from(["lines", "array", "page", "pretty"]))
    if shape == "lines":
        text = "\n".join(json.dumps(each, ensure_ascii=draw(st.booleans())) for each in records) + "\n"
    else:
        value = {"object": "list", "data": records} if shape == "page" else records
        text = json.dumps(value, indent=2 if shape == "pretty" else None)
    return Written(draw(packed(text.encode())), (), resolution, unclear(times))


@st.composite
def parquet_files(draw: st.DrawFn, truth: Truth) -> Written:
    """Parquet or an Arrow file: times of any type, strings of any type, usage as a struct or flat."""
    kind, resolution = draw(st.sampled_from([("s", SECOND), ("ms", 1000), ("us", 1), ("ns", 1), ("text", 1), ("number", 1)]))
    if kind == "text":
        times = pa.array([_at(t).isoformat() for t in truth.time], draw(st.sampled_from([pa.string(), pa.large_string()])))
    elif kind == "number":
        times = pa.array(truth.time, pa.int64())
    else:
        scaled = [t * 1000 if kind == "ns" else t // resolution for t in truth.time]
        times = pa.array(scaled, pa.timestamp(kind, draw(st.sampled_from([None, "UTC", "Asia/Kathmandu"]))))
    model = pa.array(truth.model, draw(st.sampled_from([pa.string(), pa.large_string(), pa.string_view()])))
    if draw(st.booleans()) and model.type != pa.string_view():
        model = model.dictionary_encode()
    prompt = pa.array(truth.prompt, draw(st.sampled_from([pa.int32(), pa.uint64(), pa.float64()])))
    output, cached = pa.array(truth.output, pa.int16()), pa.array(truth.cached, pa.int64())
    if draw(st.booleans()):
        usage = pa.StructArray.from_arrays([prompt, output, cached], ["input_tokens", "output_tokens", "cached_tokens"])
        table = pa.table({"model": model, "timestamp": times, "usage": usage})
    else:
        table = pa.table(
            {"cached_tokens": cached, "timestamp": times, "output_tokens": output, "prompt_tokens": prompt, "model": model}
        )
    buffer = io.BytesIO()
    if draw(st.booleans()):
        pq.write_table(table, buffer, compression=draw(st.sampled_from(["zstd", "snappy", "none"])))
    else:
        with pa.ipc.new_file(buffer, table.schema) as writer:
            writer.write_table(table)
    return Written(buffer.getvalue(), (), resolution)


@st.composite
def packed(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes, perhaps compressed."""
    kind = draw(st.sampled_from(["plain", "plain", "gzip", "zstd"]))
    if kind == "gzip":
        return gzip.compress(content, mtime=0)
    return content if kind == "plain" else bytes(pa.compress(content, "zstd", asbytes=True))
