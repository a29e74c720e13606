"""How large a run's report is, what it costs to write, and how long a browser takes to open it and to draw a figure.

    sageserve simulate o365-week --strategy foresight --out runs/week --no-report
    python -m bench.report runs/week

One JSON line per figure. Opening is from the command to go there until the load event, drawing until a figure that was scrolled
to is there; both are medians of five fresh pages. Needs playwright and Chromium. Read next: README.md.
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

OPENINGS = 5


def main(folders: list[str]) -> int:
    """Measure; exit code 2 without a folder."""
    if not folders:
        print("name the folder of a run: python -m bench.report runs/week", file=sys.stderr)
        return 2
    from sageserve.cli import kernels

    kernels.use_cache()
    from sageserve.show.report import write_report

    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "report.html"
        write_report([Path(folder) for folder in folders], page)  # compiles what is not compiled yet
        began = time.process_time()
        size = write_report([Path(folder) for folder in folders], page)
        tell("report_cpu_s", time.process_time() - began, "s")
        tell("report_mb", size / 1e6, "MB")
        opened, drawn = openings(page)
    tell("report_open_s", opened, "s")
    tell("report_figure_s", drawn, "s")
    return 0


def openings(page: Path) -> tuple[float, float]:
    """Median seconds until the page is loaded, and until its first figure is drawn."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(OPENINGS):
            tab = browser.new_page()
            began = time.perf_counter()
            tab.goto(page.as_uri())
            opened = time.perf_counter() - began
            tab.locator("#capacity").scroll_into_view_if_needed()
            tab.locator("#capacity .main-svg").first.wait_for(state="attached")
            times.append((opened, time.perf_counter() - began))
            tab.close()
        browser.close()
    return statistics.median(one for one, _ in times), statistics.median(two for _, two in times)


def tell(name: str, value: float, unit: str) -> None:
    """Print a figure."""
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
