"""A real Prometheus in a process of its own, on loopback, with data of its own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


def program(name: str) -> str:
    """Where it is; the test is skipped where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on this machine: apt-get install prometheus")
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def prometheus(folder: Path, config: str = "", *options: str) -> Iterator[str]:
    """Run it until the block ends; gives its address."""
    file, data, port = folder / "prometheus.yaml", folder / "data", free_port()
    file.write_text(config or "global: {}\n", "utf-8")
    place = (f"--config.file={file}", f"--storage.tsdb.path={data}", f"--web.listen-address=127.0.0.1:{port}")
    url = f"http://127.0.0.1:{port}"
    with (
        (folder / "prometheus.log").open("w") as log,
        subprocess.Popen([program("prometheus"), *place, *options], stderr=log) as process,
    ):
        try:
            for _ in range(600):
                time.sleep(0.1)
                try:
                    if httpx.get(f"{url}/-/ready").status_code == 200:
                        break
                except httpx.HTTPError:
                    continue
            else:
                pytest.fail((folder / "prometheus.log").read_text("utf-8"))
            yield url
        finally:
            process.kill()


def backfill(folder: Path, text: Path) -> None:
    """Put OpenMetrics text into the data of a Prometheus that has not begun yet."""
    command = (
        program("promtool"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--max-block-duration=24h",
        str(text),
        str(folder / "data"),
    )
    subprocess.run(command, check=True, capture_output=True)
