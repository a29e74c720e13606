"""A real Prometheus with a history: promtool puts series into its data, and it serves them on loopback.

Measures nothing; Debian has both programs in the package `prometheus`. Read next: `accuracy.py`, `prometheus.py`.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from sageserve.data.history.raw import RawSeries
from sageserve.data.rebuild.render import write_openmetrics


def put(data: Path, series: Iterator[RawSeries]) -> int:
    """Put series of a stretch that is not there yet into the data of a Prometheus that does not run; how many samples."""
    text = data.with_suffix(".om")
    samples = write_openmetrics(text, series)
    command = ("promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=24h", str(text), str(data))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    text.unlink()
    return samples


@contextmanager
def serving(data: Path) -> Iterator[str]:
    """A server over this data; its address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{held.getsockname()[1]}"
    config = data.with_suffix(".yaml")
    config.write_text("global: {}\n", "utf-8")
    place = (f"--config.file={config}", f"--storage.tsdb.path={data}", f"--web.listen-address={at}")
    command = ("prometheus", *place, "--storage.tsdb.retention.time=100y")
    with data.with_suffix(".log").open("w") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            wait_until_ready(f"http://{at}", process)
            yield f"http://{at}"
        finally:
            process.kill()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """A minute at most; the folder with its log is kept no longer than the measurement, so its end is said here."""
    for _ in range(600):
        time.sleep(0.1)
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/-/ready").status_code == 200:
                return
        except httpx.HTTPError:
            continue
    raise SystemExit(f"{url}: Prometheus does not become ready (exit code {process.poll()})")
