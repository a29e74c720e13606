"""A bare install: everything that needs more says which extra brings it, exits with 2 and leaves nothing behind.

Read next: `src/sageserve/cli/extras.py`.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sageserve.base.errors import ConfigError
from sageserve.cli.extras import EXTRAS, extra_of, lacking, need
from tests.installed.commands import REFUSED, TRIES, commands, processes_of
from tests.installed.conftest import Installed

LACKING = REFUSED | {f"{words} --json": one for words, one in TRIES.items() if one.needs}


@pytest.mark.parametrize("words", sorted(LACKING))
def test_what_is_missing_is_named_and_nothing_is_left_behind(installed: Installed, tmp_path: Path, words: str) -> None:
    state = tmp_path / "state"
    before = sorted(installed.stage.iterdir())
    ran = installed.run(*words.split(), *LACKING[words].given(installed.stage, state), full=False)
    assert ran.returncode == 2, ran.stderr
    assert f"pip install 'sageserve[{LACKING[words].needs}]'" in ran.stderr
    assert ran.stdout == ""
    assert "fault of SageServe" not in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not state.exists()
    assert sorted(installed.stage.iterdir()) == before
    assert not processes_of(state)


def test_help_needs_no_extra(installed: Installed) -> None:
    code = (
        "from typer.testing import CliRunner\n"
        "from sageserve.cli.main import app\n"
        f"for words in {[words for words, _ in commands()]!r}:\n"
        "    ran = CliRunner().invoke(app, [*words.split(), '--help'], catch_exceptions=False)\n"
        "    assert ran.exit_code == 0 and 'Usage' in ran.stdout, words"
    )
    ran = installed.python("-c", code)
    assert ran.returncode == 0, ran.stderr


def test_the_wheel_is_what_is_tried(installed: Installed) -> None:
    ran = installed.python("-c", "import sageserve, importlib.util as u; print(sageserve.__file__, u.find_spec('httpx'))")
    assert ran.stdout.split() == [str(installed.site / "sageserve" / "__init__.py"), "None"], ran.stderr


def test_modules_are_those_of_the_packages_that_extras_name(repo_root: Path) -> None:
    extras = tomllib.loads((repo_root / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(EXTRAS) == Requirement(extras["all"][0]).extras
    for extra, modules in EXTRAS.items():
        unclaimed = set(modules)
        for package in map(Requirement, extras[extra]):
            if package.marker and not package.marker.evaluate():
                continue
            found = [one for one in unclaimed if _brings(package.name, one)]
            assert len(found) == 1, f"{extra}: {package.name} brings none of {modules}"
            unclaimed -= set(found)
        assert not unclaimed, f"{extra}: no package brings {unclaimed}"


def _brings(package: str, module: str) -> bool:
    try:
        files = {str(file) for file in distribution(package).files or ()}
    except PackageNotFoundError:  # Ray need not be installed
        return canonicalize_name(package) == canonicalize_name(module)
    path = module.replace(".", "/")
    return any(file.startswith((f"{path}/", f"{path}.")) for file in files)


def test_a_module_that_no_extra_brings_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extra_of(ModuleNotFoundError("no", name="opentelemetry")) == "live"
    assert extra_of(ModuleNotFoundError("no", name="numpy")) is None
    assert extra_of(ImportError("no name")) is None
    monkeypatch.setitem(EXTRAS, "live", ("no_such_package.inside", "no_such_module"))
    with pytest.raises(ConfigError, match=r"needs no_such_package.inside, which is not installed") as caught:
        need("live")
    assert caught.value.hint == lacking("x", "live").hint == "pip install 'sageserve[live]'"


def test_every_command_is_tried() -> None:
    """A new command is told apart here: it answers in JSON, needs an extra, or is known to stand on its own."""
    alone = {
        "report",
        "alerts",
        "plan render",
        "render chart",
        "render gateways",
        "down",
        "warm-up",
        "scenario schema",
        "scenario check",
        "scenario set",
        "init",
        "calibrate logs",
        "trace convert",
        "trace generate",
    }
    assert {words for words, _ in commands()} <= set(TRIES) | set(REFUSED) | alone
