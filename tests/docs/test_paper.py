"""The page on the paper: its tables and what it says of them are what the command finds, on a whole day of ten million requests.

    SAGESERVE_PAPER=sweeps pytest tests/docs/test_paper.py -m extended

Cases that are in sweeps/plain and sweeps/paper-signal are not played again. Read next: docs/how-to/reproduce-the-paper.md.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from sageserve.cli.main import app
from tests.extended.conftest import given

PAGE: Final = re.sub(r"\s+", " ", (Path(__file__).resolve().parents[2] / "docs/how-to/reproduce-the-paper.md").read_text("utf-8"))
ONLY: Final = {"plain": "", "paper-signal": "unified,strategies,a100"}
ROWS: Final = {
    "GPU-hours, unified vs siloed": "unified against siloed",
    "GPU-hours, lt-i vs reactive": "lt-i against reactive",
    "GPU-hours, lt-u vs reactive": "lt-u against reactive",
    "GPU-hours at 9:1, lt-ua vs reactive": "lt-ua at IW:NIW 9:1",
    "GPU-hours at 1:1, lt-ua vs reactive": "lt-ua at IW:NIW 1:1",
    "GPU-hours, 2× vs 5×": "trigger 2 × against 5 ×",
    "GPU-hours, 10× vs 5×": "trigger 10 × against 5 ×",
}


def percent(share: float, digits: int = 1) -> str:
    return f"{share * 100:+.{digits}f} %".replace("-", "−")


def played(profile: str) -> dict[str, Any]:
    """Studies by name, as --json has them."""
    folder = given("SAGESERVE_PAPER")
    if not folder:
        pytest.skip("up to twenty-two cases of ten million requests: set SAGESERVE_PAPER to a folder that keeps them")
    only = ["--only", ONLY[profile]] if ONLY[profile] else []
    words = ["reproduce", "paper", "--json", "--out", str(Path(folder) / profile), "--profile", profile, *only]
    answer = CliRunner().invoke(app, words, catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    found: dict[str, Any] = json.loads(answer.stdout)["studies"]
    return found


def rows(studies: dict[str, Any]) -> list[str]:
    """Rows of the table that the findings of studies make."""
    found = []
    for name, study in studies.items():
        for one in study["findings"]:
            what = "lt-ua on A100" if name == "a100" else ROWS.get(one["what"], "")
            what = "lt-ua against reactive" if (name, one["what"]) == ("strategies", "GPU-hours, lt-ua vs reactive") else what
            if what and one["published"]:
                cells = (one["published"][0], one["ours"], one["ours_with_owed"])
                found.append(f"| {what} | {' | '.join(map(percent, cells))} |")
    waste = [one for one in studies["strategies"]["findings"] if one["measure"] == "waste"]
    ours = ", ".join(percent(one["ours"], 0).removesuffix(" %") for one in waste)
    return [*found, f"| waste, lt-i, lt-u, lt-ua | −69, −80, −75 % | {ours} % | |"]


@pytest.mark.extended
@pytest.mark.parametrize("profile", ONLY)
def test_the_tables_are_what_the_command_finds(profile: str) -> None:
    missing = [row for row in rows(played(profile)) if row not in PAGE]
    assert not missing, "\n".join(missing)


@pytest.mark.extended
def test_what_is_said_of_the_first_table_is_so() -> None:
    studies = played("plain")
    cases, bursts = studies["strategies"]["cases"], studies["bursts"]["findings"]
    kept = {name: f"{100 * case['tiers']['iw-f']['attainment']:.1f} %" for name, case in cases.items()}
    assert f"keeps {kept['lt-i']} (lt-i), {kept['lt-u']} (lt-u, lt-ua) and {kept['reactive']} (reactive)" in PAGE
    hours = cases["reactive"]["gpu_hours"]
    assert (
        f"reactive wastes {hours['waste']:.0f} of {hours['total']:,.0f} GPU-hours ({100 * hours['waste'] / hours['total']:.1f} %)"
        in PAGE
    )
    small = sorted(cases["reactive"]["models"][name]["tiers"]["iw-f"]["attainment"] for name in ("llama-3.1-8b", "llama-3.2-3b"))
    assert f"The two small models keep {100 * small[0]:.0f} and {100 * small[1]:.0f} %" in PAGE
    missed = [model["tiers"]["iw-f"]["missed"] for model in cases["reactive"]["models"].values()]
    assert sum(one.get("alone", 0) for one in missed) > sum(sum(one.values()) for one in missed) / 2
    shares = {one["case"]: 100 * one["ours"] for one in bursts if one["measure"] == "kept"}
    assert f"{shares['lt-i']:.0f} to {shares['lt-ua']:.0f} % of the fast tier kept, against {shares['reactive']:.0f} %" in PAGE
