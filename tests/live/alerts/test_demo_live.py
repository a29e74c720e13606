"""`make demo-live`: doctor and backtest work on it, and no panel of a dashboard is empty. On demand: SAGESERVE_LONG=1.

Read next: bench/demo_live.py, docs/how-to/try-it-live.md.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from sageserve.data.scenarios.load import load_scenario
from sageserve.live.alerts.boards import boards_of
from sageserve.live.control.admin import ScrapeTarget, scrape_targets
from tests.live.alerts.test_dashboards import GIVEN
from tests.live.control.test_page import made
from tests.live.prometheus.real import program

MAY_BE_EMPTY = {"Turned away by the gateway", "Sent to another engine", "Answers that are errors", "Time to the first deadline"}
"""Counters and gauges that are there once something goes wrong, or waits."""
LONG = bool(os.environ.get("SAGESERVE_LONG"))  # noqa: TID251 # a test run is told what to try
ROOT = Path(__file__).resolve().parents[3]


def test_engines_that_serve_are_told_to_prometheus() -> None:
    found = list(scrape_targets(made()))
    assert found[0] == ScrapeTarget(("127.0.0.1:20000",), {"pool": "east/llama-3.1-8b/h100-80gb", "__scheme__": "http"})
    assert [one.targets[0][-2:] for one in found] == ["00", "01", "03", "04", "08", "12"], "none that starts or is lent out"
    one = replace(made().instances[0], url="http://127.0.0.1:20000/below/", metrics="/prometheus")
    (there,) = scrape_targets(replace(made(), instances=(one,)))
    assert there.labels["__metrics_path__"] == "/below/prometheus"


@contextmanager
def demo(folder: Path) -> Iterator[tuple[Path, str]]:
    """Its settings and its Prometheus, until the block ends."""
    command = [sys.executable, "-m", "bench.demo_live", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.match(r"Prometheus +(http\S+)", line):
                    yield folder / "fleet.yaml", found[1]
                    break
        finally:
            process.send_signal(signal.SIGINT)
            if process.stdout is not None:
                process.stdout.read()
    assert process.returncode == 0


@pytest.mark.extended
@pytest.mark.skipif(not LONG, reason="eight minutes: set SAGESERVE_LONG")
def test_doctor_and_backtest_and_every_panel_have_something_to_say(tmp_path: Path) -> None:
    program("prometheus")
    with demo(tmp_path / "demo") as (fleet, prometheus):
        time.sleep(200)  # real systems
        sageserve = (sys.executable, "-m", "sageserve")
        checked = subprocess.run([*sageserve, "doctor", str(fleet), "--json"], capture_output=True, text=True, check=False)
        results = [json.loads(line) for line in checked.stdout.splitlines()]
        assert checked.returncode == 0, checked.stdout
        assert {one["id"] for one in results if one["state"] == "ok"} >= {"prom-reach", "series-match", "series-fresh"}, results
        assert empty_panels(fleet, prometheus) <= MAY_BE_EMPTY
        words = ("--last", "3m", "--interval", "15s", "--seeds", "1", "--policies", "recorded,reactive", "--no-error")
        played = subprocess.run(
            [*sageserve, "backtest", str(fleet), *words, "--out", str(tmp_path / "backtest"), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert played.returncode == 0, played.stderr
        assert set(json.loads(played.stdout)["policies"]) == {"recorded", "reactive"}


def empty_panels(fleet: Path, prometheus: str) -> set[str]:
    """Titles of panels of which no query has a sample."""
    empty = set()
    for board in boards_of(load_scenario(str(fleet)), "gateway"):
        for panel in board.panels():
            found = 0
            for query in panel.queries:
                text = query.expr
                for variable, value in (GIVEN | {"$__rate_interval": "1m"}).items():
                    text = text.replace(variable, value)
                answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": text}).raise_for_status()
                found += len(answer.json()["data"]["result"])
            if not found:
                empty.add(panel.title)
    return empty
