"""The page on LoRA adapters: what its example shows is what is printed, and its table is what other settings give.

Commands are run in this process, which has compiled the simulator already. Read next: docs/how-to/adapters.md; `pages.py`.
"""

import json
import runpy
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from sageserve.cli.main import app
from tests.docs.pages import agree, steps

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "adapters.md"
PLAY: Final = "sageserve simulate adapters.yaml --trace traffic.csv"
ROWS: Final = {
    "1, vLLM's default": "--set models.llama-3.1-8b.adapters.slots=1",
    "8, SGLang's default": "--set models.llama-3.1-8b.adapters.slots=8",
    "4, and `--set routing.instance=affinity`": "--set routing.instance=affinity",
}


def printed(line: str) -> str:
    done = CliRunner().invoke(app, shlex.split(line)[1:])
    assert done.exit_code == 0, done.stderr
    return "\n".join(text.rstrip() for text in done.stdout.splitlines())


def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    page, shown = PAGE.read_text("utf-8"), 0
    for step in steps(page):
        if step.file:
            (tmp_path / step.file).write_text(step.text + "\n", "utf-8")
            if step.file == "traffic":
                with redirect_stdout(StringIO()) as said:
                    runpy.run_path(step.file)
                (tmp_path / "traffic.csv").write_text(said.getvalue(), "utf-8")
        elif step.shown:
            shown += 1
            told = printed(step.text.splitlines()[-1])
            assert agree(step.shown, told), told
    assert shown == 2
    for label, more in ROWS.items():
        found = json.loads(printed(f"{PLAY} {more} --json"))
        ours, tier = found["adapters"]["llama-3.1-8b"], found["tiers"]["iw-n"]
        kept, ttft = f"{int(tier['attainment'] * 10_000) / 100:.2f}%", f"{tier['ttft_s']['p95']:.3f} s"
        waited = f"{ours['waited']:,} | {ours['longest_wait_s']:.3f} s"
        assert f"| {label} | {kept} | {ttft} | {waited} | {ours['loads']:,} |" in page
