"""`sageserve.size` answers what `sageserve size` answers under the same conditions, and refuses the same.

Read next: `src/sageserve/api/__init__.py`, `tests/sim/test_sizing.py` for the search.
"""

import json
import os

import pytest
from typer.testing import CliRunner

import sageserve
from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.sim.sizing.records import sizing_json

SMALL = {
    "workload.generate.requests": 60,
    "workload.generate.length": "2m",
    "workload.generate.history": 0,
    "workload.generate.bursts": [],
    "workload.generate.growth_per_week": 0.03,
    "tiers.iw-f.ttft": "5s",
}


def told(*options: str) -> object:
    """The command's answer."""
    words = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(app, ["size", "quickstart", "--workers", "1", "--json", *words, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.extended
@pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="a minute of plays: set SAGESERVE_LONG=1")  # noqa: TID251 # by hand
def test_python_and_the_command_give_one_record() -> None:
    found = sageserve.size(sageserve.load("quickstart", SMALL), for_strategy="reactive", growth=1.5, lead_time="12w")
    assert json.loads(sizing_json(found)) == told("--for-strategy", "reactive", "--growth", "1.5", "--lead-time", "12w")
    assert None not in (found.growth, found.lead)


@pytest.mark.extended
@pytest.mark.skipif("SAGESERVE_LONG" not in os.environ, reason="a minute of plays: set SAGESERVE_LONG=1")  # noqa: TID251 # by hand
def test_python_and_the_command_price_the_same_conditions() -> None:
    found = sageserve.size(sageserve.load("quickstart", SMALL), growth=1.5, survive="vm", one_more_nine=True)
    assert json.loads(sizing_json(found)) == told("--growth", "1.5", "--survive", "vm", "--one-more-nine")
    assert None not in (found.growth, found.survive, found.nine)


def test_what_cannot_be_asked_together_is_refused() -> None:
    small = sageserve.load("quickstart", SMALL)
    with pytest.raises(ConfigError, match="neither region nor vm"):
        sageserve.size(small, survive="zone")
    with pytest.raises(ConfigError, match="not above 0"):
        sageserve.size(small, growth=0.0)
    with pytest.raises(ConfigError, match="soon"):
        sageserve.size(small, lead_time="soon")
    with pytest.raises(ConfigError, match="does not depend on the safety"):
        sageserve.size("quickstart", for_strategy="reactive", one_more_nine=True)
    with pytest.raises(ConfigError, match="decides by itself"):
        sageserve.size("quickstart", for_strategy="reactive", survive="vm")
