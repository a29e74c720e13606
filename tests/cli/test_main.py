"""The root of the command line: what it says about itself, and that it answers quickly."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sageserve import __version__
from sageserve.cli.main import MISTAKE, app, run
from sageserve.cli.menu import COMMANDS as MENU
from sageserve.cli.menu import load

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
    """Help of all loads no command, and no command the compiler or the readers before it runs."""
    code = (
        "import sys; sys.argv = ['sageserve', '--help']\n"
        "from sageserve.cli.main import main\n"
        "from sageserve.cli.menu import COMMANDS, load\n"
        "def found(names): return [name for name in names if name in sys.modules]\n"
        "try: main()\n"
        "except SystemExit: print(found(f'sageserve.cli.{name}' for name in (*COMMANDS, 'kernels')), end='', file=sys.stderr)\n"
        "for name in COMMANDS: load(name)\n"
        f"print(found({HEAVY!r}), end='', file=sys.stderr)\n"
        "import sageserve.data.workload.requests  # of generated traffic\n"
        "print(found(['pyarrow', 'numba']), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[][][]"
    assert "simulate" in result.stdout


def test_the_menu_says_of_each_command_what_it_says_of_itself() -> None:
    for name, entry in MENU.items():
        command = load(name)
        about = " ".join(command.help.partition("\n\n")[0].split())
        assert (command.name, about, command.rich_help_panel, command.hidden) == (name, entry.about, entry.panel, entry.hidden)


def test_an_unknown_command_is_a_mistake_with_the_nearest_name() -> None:
    said = CliRunner().invoke(app, ["simulat"])
    assert said.exit_code == 2
    assert "simulate" in said.stderr


def test_a_folder_that_was_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "argv", ["sageserve", "simulate", "quickstart", "--out", "here"])
    with pytest.raises(SystemExit) as left:
        run()
    assert left.value.code == MISTAKE
    assert "not there any more\ntry: cd to one that is" in capsys.readouterr().err
