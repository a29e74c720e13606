"""SageServe as a user has it: installed from a wheel, with nothing but its dependencies, or with what the extras bring.

The wheel is built and installed once for all workers. What it depends on is not fetched again: by the metadata of the wheel, the
bare environment links packages of the environment the tests run in; the full one sees all of them. Read next: `commands.py`.
"""

import fcntl
import os
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.installed.commands import SMALL, TRIES

OUTER: Final = Path(str(distribution("numpy").locate_file(".")))  # site-packages of the environment the tests run in


class Installed:
    """A virtual environment with SageServe in it, and a folder in which its commands left what others read."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "venv" / "bin" / "sageserve"
        self.site = folder / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        self.stage = folder / "stage"

    def python(self, *words: str, full: bool = False) -> "subprocess.CompletedProcess[str]":
        """The interpreter, with nothing but the dependencies, or with all that the extras bring."""
        return self._run(self.program.with_name("python"), *words, full=full)

    def run(self, *words: str, full: bool) -> "subprocess.CompletedProcess[str]":
        """A command with nothing but the dependencies, or with all that the extras bring."""
        return self._run(self.program, *words, full=full)

    def _run(self, program: Path, *words: str, full: bool) -> "subprocess.CompletedProcess[str]":
        own = {"HOME": str(self.stage), "NUMBA_DISABLE_JIT": "1", **({"PYTHONPATH": str(OUTER)} if full else {})}
        left_out = {"PYTHONPATH", "VIRTUAL_ENV", "XDG_STATE_HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"}
        environment = {name: value for name, value in os.environ.items() if name not in left_out} | own  # noqa: TID251 # of a user
        return subprocess.run(
            [program, *words], cwd=self.stage, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
        )


def link_dependencies(name: str, site: Path, extras: frozenset[str] = frozenset(), done: set[str] | None = None) -> None:
    """Link what a package needs into another environment, as its metadata and those of what it needs say."""
    seen = set() if done is None else done
    own = [Distribution.at(path) for path in site.glob(f"{name}-*.dist-info")]
    needs = (own[0] if own else distribution(name)).requires or []
    for one in map(Requirement, needs):
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        wanted = canonicalize_name(one.name)
        if wanted not in seen:
            seen.add(wanted)
            found = distribution(wanted)
            for top in {file.parts[0] for file in found.files or () if file.parts[0] not in {"..", "__pycache__"}}:
                if not (site / top).exists():
                    (site / top).symlink_to(str(found.locate_file(top)))
            link_dependencies(wanted, site, frozenset(one.extras), seen)


def install(root: Path, folder: Path) -> None:
    """Build the wheel of this tree, install it, and have it make what other commands read."""
    python = folder / "venv" / "bin" / "python"
    for words in (
        ["-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        ["-m", "venv", "--without-pip", str(folder / "venv")],
    ):
        subprocess.run([sys.executable, *words], cwd=root, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    made = Installed(folder)
    link_dependencies("sageserve", made.site)
    made.stage.mkdir()
    (made.stage / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,100,5\n30,120,7\n", "utf-8")
    measured = made.stage / "measured"
    measured.mkdir()
    (measured / "experiments.csv").write_text(
        "experiment,model,gpu,tp,n,in_mean,out_mean,rate,ttft_mean_ms,tpot_mean_ms,e2e_mean_ms\n"
        "one,meta-llama/Llama-3.1-8B,h100-80gb,1,40,300,20,2,40,10,240\n",
        "utf-8",
    )
    for command in (
        ("simulate", "quickstart", "--strategy", "lt-ua", "--out", "run", *SMALL),
        ("plan", "make", *TRIES["plan make"].words, "-o", "plan.json"),
    ):
        ran = made.run(*command, full=False)
        assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="session")
def installed(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Made by the first worker that asks; others wait for it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # noqa: TID251 # set by pytest-xdist in workers
    folder, done = shared / "installed", shared / "installed.done"
    with (shared / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            install(repo_root, folder)
            done.touch()
    return Installed(folder)
