"""Profiles are scaled to measured points: what was put in is found again, and what cannot be met is told.

Read next: `src/sageserve/sim/points/fit.py`.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve.cli.profile import app
from sageserve.data.profiles.library import profile_named
from sageserve.data.profiles.roofline import scaled
from sageserve.sim.points.fit import fit_points
from sageserve.sim.points.predict import derived, played_e2e_ms
from tests.sim.test_points import POINT


def test_the_factor_that_was_put_in_is_found_and_what_it_is_worth_is_told() -> None:
    points = [replace(POINT, id=f"{clients} clients", clients=clients) for clients in (2, 8, 16)]
    measured = [replace(one, e2e_ms=played_e2e_ms(one, scaled(derived(one), 1.4, ""))) for one in points]
    (found,), why = fit_points(measured)
    assert why == {}
    assert found.name == "llama-3.1-8b/h100-80gb/tp1@vllm-0.19.0"
    assert found.factor == pytest.approx(1.4, rel=0.004)
    assert found.heldout is not None
    assert max(found.after, found.heldout) < 0.004
    assert found.before > 0.25
    assert found.profile.engine == "vllm 0.19.0"
    assert "each of 3 points judged by the others" in found.profile.error
    assert found.profile.fitted == "2 to 16 clients, 1,000 to 1,000 prompt tokens, 100 to 100 output tokens"


def test_one_point_is_enough_and_says_what_one_is_worth() -> None:
    (found,), _ = fit_points([POINT])
    assert found.heldout is None
    assert found.after < 0.003
    assert found.profile.error.startswith("±8 % E2E at another load")
    assert "to meet one" in found.profile.source


def test_points_that_cannot_be_met_are_told_apart() -> None:
    points = [
        replace(POINT, id="in seconds", e2e_ms=0.85),
        replace(POINT, id="unheard of", model="unheard-of"),
        replace(POINT, id="not measured", e2e_ms=None),
    ]
    found, why = fit_points(points)
    assert found == []
    assert why["in seconds"] == "it is more than 4 times faster than the profile derived for it"
    assert why["unheard of"].startswith("no shape is known")
    assert why["not measured"] == "its E2E was not measured"


def test_a_row_that_is_there_twice_is_not_held_out_against_itself() -> None:
    (found,), why = fit_points([POINT, replace(POINT, note="copied"), replace(POINT, id="")])
    assert (found.points, found.heldout) == (1, None)
    assert why == {POINT.id: "row 2 is row 1 again", "row 3": "row 3 is row 1 again"}


def test_points_of_one_name_are_told_one_by_one() -> None:
    _, why = fit_points([replace(POINT, clients=clients, e2e_ms=None) for clients in (2, 8)])
    assert list(why) == [POINT.id, f"{POINT.id} (row 2)"]


def test_the_command_writes_profiles_that_scenarios_can_name(tmp_path: Path) -> None:
    table, out = tmp_path / "points.csv", tmp_path / "mine.yaml"
    table.write_text(
        "id,gpu,tp,model,dtype,isl,osl,concurrency,e2e_ms\n"
        "a,h100,1,meta-llama/Llama-3.1-8B-Instruct,bf16,1000,100,8,1000\n"
        "b,h100,1,unheard-of,bf16,1000,100,8,1000\n"
    )
    done = CliRunner().invoke(app, ["fit", "--points", str(table), "--out", str(out), "--json"], catch_exceptions=False)
    said = json.loads(done.stdout)
    (name,) = said["profiles"]
    assert said["left_out"].keys() == {"b"}
    profile = profile_named(f"{out}#{name}").profile
    assert profile.gpu == "h100-80gb"
    assert profile.iteration_ms[0][1] == pytest.approx(
        said["profiles"][name]["factor"] * profile_named("llama-3.1-8b/h100-80gb/tp1").profile.iteration_ms[0][1], rel=1e-3
    )
