"""GPUs held over time, side by side: in `compare` and in the report. Numbers are chosen; nothing is played."""

import pytest
from msgspec.structs import replace

from sageserve.cli.render_compare import draw
from sageserve.data.results.comparison import Comparison, gpu_counts, highest
from sageserve.data.results.summary import GpuCounts
from sageserve.show.page import page_of
from tests.show.made import summary_of

POOL = "east/chat/h100"


def comparison() -> Comparison:
    runs = {}
    for name, peak in (("reactive", 24), ("lt-ua", 16)):
        runs[name] = {
            seed: replace(
                summary_of(name, seed, 100.0, {"iw-f": 0.99}),
                gpus={POOL: GpuCounts(peak + 8 * (seed - 1), peak, peak / 2, 8), "west/chat/h100": GpuCounts(0, 0, 0.0, 0)},
                vm_gpus={"east/h100": GpuCounts(peak + 8, peak + 8, 12.0, 8)},
            )
            for seed in (1, 2)
        }
    return Comparison(runs, {})


def test_over_seeds_the_highest_counts_and_the_mean_is_that_of_means() -> None:
    assert highest([GpuCounts(8, 4, 2.0, 1), GpuCounts(4, 6, 4.0, 0)]) == GpuCounts(8, 6, 3.0, 0)
    found = gpu_counts(comparison(), "reactive")
    assert found == {POOL: GpuCounts(32, 24, 12.0, 8), "VMs of east/h100": GpuCounts(32, 32, 12.0, 8)}  # none that held none


def test_compare_and_the_report_have_peak_p99_and_mean_of_every_pool(capsys: pytest.CaptureFixture[str]) -> None:
    draw(comparison(), {}, "made")
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith(POOL))
    assert row.split() == [POOL, "32", "24", "12.0", "24", "16", "8.0"]
    (sheet,) = (one for one in page_of(comparison(), {}, ()).sheets if one.caption == "GPUs held")
    assert sheet.columns[:3] == ("reactive: peak", "reactive: p99", "reactive: mean")
    assert [cell.text for cell in sheet.rows[0].cells] == ["32", "24", "12.0", "24", "16", "8.0"]
    assert [row.name for row in sheet.rows] == [POOL, "VMs of east/h100"]


def test_results_that_do_not_say_have_no_such_table(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Comparison({"reactive": {1: summary_of("reactive", 1, 1.0, {"iw-f": 0.99})}}, {})
    draw(plain, {}, "made")
    assert "GPUs held" not in capsys.readouterr().out
    assert not any(sheet.caption == "GPUs held" for sheet in page_of(plain, {}, ()).sheets)
