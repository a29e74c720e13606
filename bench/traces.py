"""How fast traces are read: a million generated requests as CSV, as JSON lines, as Parquet and as our own archive.

Read it as a ratio between two versions, in pairs on one machine. Read next: `bench/README.md`.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import show
from sageserve.data.traces.archive import write_trace
from sageserve.data.traces.read import read_as_is

REQUESTS = 1_000_000
PASSES = 3


def write_files(folder: Path) -> dict[str, Path]:
    """The same requests in each kind of file, by the name of its figure."""
    rng = np.random.Generator(np.random.PCG64(1))
    arrival = np.sort(rng.integers(0, 2 * 86_400_000, REQUESTS))
    prompt, output = rng.integers(1, 5000, REQUESTS), rng.integers(1, 800, REQUESTS)
    dates = (np.datetime64("2024-05-10T00:00:00", "ms") + arrival.astype("timedelta64[ms]")).astype(str)
    rows = list(zip(arrival.tolist(), prompt.tolist(), output.tolist(), strict=True))
    files = {name: folder / name for name in ("read_csv_per_s", "read_json_per_s", "read_parquet_per_s", "read_archive_per_s")}
    lines = [f"{date}Z,{p},{o}\n" for date, (_, p, o) in zip(dates.tolist(), rows, strict=True)]
    files["read_csv_per_s"].write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(lines))
    records = [f'{{"timestamp": {at}, "input_length": {p}, "output_length": {o}}}\n' for at, p, o in rows]
    files["read_json_per_s"].write_text("".join(records))
    pq.write_table(
        pa.table({"arrival_ms": arrival, "prompt_tokens": prompt, "output_tokens": output}), files["read_parquet_per_s"]
    )
    write_trace(files["read_archive_per_s"], read_as_is(files["read_csv_per_s"])[0])
    return files


def main() -> None:
    """Print requests per CPU second of each kind, the best of a few passes."""
    with tempfile.TemporaryDirectory(prefix="sageserve-bench-") as folder:
        for name, path in write_files(Path(folder)).items():
            best = float("inf")
            for _ in range(PASSES):
                began = time.process_time()
                trace, _ = read_as_is(path)
                best = min(best, time.process_time() - began)
                assert len(trace) == REQUESTS
            show(name, REQUESTS / best, "requests per CPU second")


if __name__ == "__main__":
    main()
