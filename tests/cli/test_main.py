"""The root of the command line: what it says about itself, and that it answers quickly."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from sageserve import __version__
from sageserve.cli.main import app

COMMANDS = ("simulate", "forecast", "warm-up", "scenario", "trace")
HEAVY = ("numba", "pyarrow", "numpy", "pydantic", "highspy", "rich.progress")


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"sageserve {__version__}\n"


def test_help_names_every_command_and_where_to_start() -> None:
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert all(command in said for command in COMMANDS)
    assert all(f"sageserve {line}" in said for line in ("simulate quickstart", "reload", "doctor --local"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_help_loads_nothing_heavy() -> None:
    """Start-up is a fraction of a second only while the compiler and the readers are imported by the commands that need them."""
    code = (
        "import sys; sys.argv = ['sageserve', '--help']\n"
        "from sageserve.cli.main import main\n"
        "try: main()\n"
        f"except SystemExit: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
    assert "simulate" in result.stdout


def test_an_unknown_command_is_a_mistake() -> None:
    assert CliRunner().invoke(app, ["simulat"]).exit_code == 2
