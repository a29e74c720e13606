"""Coverage-guided fuzzing of everything that reads a user's file: traces of every kind, and scenarios.

    .venv/bin/python -m tests.extended.fuzz_files traces|scenarios [SECONDS] [--corpus FOLDER]

Bytes that grow coverage are kept in the corpus and mutated on. Only the errors of `sageserve.base.errors` may leave a reader; any
other exception, also one that a library swallows, ends the run with the input that caused it. Needs the extra `fuzz`.
Read next: `tests/data/traces/test_reader_laws.py`.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["sageserve.data", "sageserve.base"]):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from sageserve.base.errors import SageServeError
    from sageserve.base.sessions import closed_loop
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.data.traces.changes.window import check_filled, cut
    from sageserve.data.traces.columns.catalog import EVERY
    from sageserve.data.traces.inspect import overview
    from sageserve.data.traces.options import TraceOptions
    from sageserve.data.traces.read import read_as_is

EXPLICIT: Final = (
    (),
    ("arrival_ms=t",),
    ("prompt=usage.prompt_tokens", "output=usage.completion_tokens"),
    ("timestamp=a.b", "cached_tokens=c"),
    ("timestamp_dmy=timestamp",),
)
HEADERS: Final = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio",
    "splitwise": "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size",
    "servegen": "request_id,timestamp,input_tokens,output_tokens",
}


def read_file(data: bytes) -> None:
    """Read bytes as a trace file, under options that the first byte chooses."""
    if not data:
        return
    choice, content = data[0], data[1:]
    options = TraceOptions(
        columns=EXPLICIT[choice % len(EXPLICIT)],
        max_dropped=1.0,
        all_at="0" if choice & 8 else None,
        rate=2.0 if choice & 16 else None,
        expand="poisson" if choice & 32 else None,
        chars_per_token=4.0 if choice & 64 else None,
        begin="first" if choice & 128 else None,
        drop_outliers=bool(choice & 4),
        prompts="added" if choice % 7 == 6 else "whole",
    )
    with scratch("trace", content) as path, contextlib.suppress(SageServeError):
        trace, report = read_as_is(path, options)
        assert report.rows == report.kept + report.bad_count
        filled = check_filled(cut(trace, options.begin, None)[0], options).check()
        closed_loop(filled)
        overview(filled, "trace")


def read_scenario(data: bytes) -> None:
    """Read bytes as a scenario file."""
    with scratch("scenario.yaml", data) as path, contextlib.suppress(SageServeError):
        load_scenario(str(path))


@contextlib.contextmanager
def scratch(name: str, content: bytes) -> Iterator[Path]:
    """A file with this content."""
    path = Path(FOLDER.name) / name
    path.write_bytes(content)
    yield path


def swallowed(raised: "sys.UnraisableHookArgs") -> None:
    """Remember an exception that a library could not pass on."""
    SWALLOWED.append(raised.exc_value)


def watched(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target; what was swallowed on the way fails it, too."""

    def run(data: bytes) -> None:
        target(data)
        if SWALLOWED:
            raise AssertionError("an exception was swallowed") from SWALLOWED.pop()

    return run


SWALLOWED: Final[list[BaseException | None]] = []
FOLDER: Final = tempfile.TemporaryDirectory(prefix="sageserve-fuzz-")
TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"traces": read_file, "scenarios": read_scenario}


def seeds(target: str) -> list[bytes]:
    """Inputs to begin with: the example of every format, and one file of each kind."""
    if target == "scenarios":
        return [b"extends: quickstart\nfleet: {start: 4}\n", b"models:\n  m: {context: 4096}\n", b"regions: {r: {gpus: {}}}\n"]
    found = []
    for each in EVERY:
        lines = f"{HEADERS[each.name]}\n{each.example}\n" if each.name in HEADERS else f"{each.example}\n"
        found.append(lines.encode())
    table = pa.table({"timestamp": [1.0, 2.0], "prompt_tokens": [3, 4], "output_tokens": [5, 6], "model": ["a", "b"]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    found.append(buffer.getvalue())
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    found.append(stream.getvalue())
    return [bytes([choice]) + content for content in found for choice in (0, 24, 96)]


def main() -> None:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("seconds", type=int, nargs="?", default=900)
    parser.add_argument("--corpus", type=Path, default=None)
    given = parser.parse_args()
    corpus = given.corpus or Path(FOLDER.name) / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds(given.target)):
        (corpus / f"seed-{number}").write_bytes(content)
    limits = [f"-max_total_time={given.seconds}", "-max_len=4096", "-timeout=60", "-rss_limit_mb=3000", "-print_final_stats=1"]
    sys.unraisablehook = swallowed
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={corpus}/crash-", str(corpus)], watched(TARGETS[given.target]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
