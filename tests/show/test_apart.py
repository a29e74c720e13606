"""Prefill and decode apart, as a user reads of it: both pools in every account of a run, and why there are so many of each.

Read next: docs/how-to/disaggregate.md, `tests/sim/test_ratio.py`.
"""

import csv
import io
from pathlib import Path

import pytest

from tests.show.conftest import called, fits
from tests.worlds import SMALL_FLEET

SIDES = ("prefill", "decode")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apart") / "run"
    words = ("--set", "models.llama-3.1-8b.disaggregated={link: 100GB/s, latency: 2ms}", "--strategy", "foresight", "--no-report")
    called("simulate", SMALL_FLEET, *words, "--out", str(folder))
    return folder


def test_a_run_is_shown_by_pool_of_either_and_demand_once(run: Path) -> None:
    printed = called("show", str(run), settings=())
    parts = {title: printed.partition(f"\n{title}  ")[2].partition("\n\n")[0] for title in ("demand", "capacity")}
    for side in SIDES:
        assert f"/{side} " in parts["capacity"]
    assert "/prefill " in parts["demand"]
    assert "/decode " not in parts["demand"]
    assert fits(printed, run)


def test_who_pays_is_told_by_pool_of_either(run: Path) -> None:
    rows = csv.DictReader(io.StringIO(called("costs", str(run), "--format", "focus-csv", "--begins", "2026-11-01", settings=())))
    pools = {row["ResourceId"] for row in rows if row["ResourceType"] == "Pool"}
    assert {pool.rpartition("/")[2] for pool in pools if "llama-3.1-8b" in pool} == {*SIDES}


def test_why_there_are_so_many_of_each_is_explained(run: Path) -> None:
    printed = called("explain", str(run), "eastus/llama-3.1-8b/h100-80gb/prefill", "--at", "40m", settings=())
    assert "to prefill and" in printed
