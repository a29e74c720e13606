"""Compiled kernels are kept where they belong to exactly one version of the sources, and nowhere others could plant code."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from numba import njit

from sageserve.base.kernel import kernel
from sageserve.cli import kernels


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own cache folder, and numba's place as it is now put back afterwards."""
    from numba import config  # noqa: PLC0415 # as late as the code under test would

    monkeypatch.setattr(config, "CACHE_DIR", config.CACHE_DIR)
    monkeypatch.setenv(kernels.VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_given_by_the_user_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, str(tmp_path / "mine"))
    assert kernels.use_cache() == tmp_path / "mine"


def test_numba_is_told_a_folder_below_the_users_cache(fresh: Path) -> None:
    from numba import config  # noqa: PLC0415 # as above

    folder = kernels.use_cache()
    assert folder.parent == fresh / "cache" / "sageserve" / "kernels"
    assert folder.is_dir()
    assert str(folder) == config.CACHE_DIR == os.environ[kernels.VARIABLE]  # noqa: TID251 # what numba will read
    assert not kernels.is_warm()


def test_a_changed_source_has_another_folder(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = kernels.kernel_sources()
    names = {path.relative_to(kernels.PACKAGE).as_posix() for path in sources}
    assert {"sim/kernel/engine.py", "sim/kernel/state.py", "core/perf.py", "base/kernel.py", "base/records.py"} <= names
    assert "core/fair_share.py" in names, "imported by name, and without a kernel of its own"
    assert not {name for name in names if name.startswith(("cli/", "live/", "show/"))}
    holding = [path for path in kernels.PACKAGE.rglob("*.py") if re.search(rb"^@kernel$", path.read_bytes(), re.MULTILINE)]
    assert {path.relative_to(kernels.PACKAGE).as_posix() for path in holding} <= names, "none are in rooms that nobody looks into"
    before = kernels.use_cache()
    copy = fresh / "package"
    for path in sources:
        target = copy / path.relative_to(kernels.PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    monkeypatch.setattr(kernels, "PACKAGE", copy)
    monkeypatch.setenv(kernels.VARIABLE, "")
    assert kernels.use_cache() == before
    (copy / "base" / "units.py").write_text((copy / "base" / "units.py").read_text("utf-8") + "\nX = 1\n", "utf-8")
    kernels._fingerprint_of.cache_clear()  # another process, after the edit
    monkeypatch.setenv(kernels.VARIABLE, "")
    assert kernels.use_cache() != before


def test_without_a_writable_home_a_private_folder_is_used(fresh: Path) -> None:
    (fresh / "cache").write_text("not a folder")
    folder = kernels.use_cache()
    assert folder.parent == fresh
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_planted_folder_is_not_used(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "cache").write_text("not a folder")
    known = kernels.use_cache()
    known.chmod(0o777)
    monkeypatch.setenv(kernels.VARIABLE, "")
    other = kernels.use_cache()
    assert other != known
    assert stat.S_IMODE(other.stat().st_mode) == 0o700


def test_functions_are_counted_while_they_are_compiled() -> None:
    def added(one: int) -> int:
        return one + 1

    told: list[int] = []
    with kernels.counted(told.append):
        assert njit(added)(1) == 2
    assert told == list(range(1, len(told) + 1))
    heard = len(told)
    assert heard
    assert njit(lambda one: one + 2)(1) == 3
    assert len(told) == heard, "nobody listens any more"


def test_what_compiled_code_calls_is_compiled_as_part_of_it_and_again_only_for_python() -> None:
    @kernel
    def third(x: int) -> int:
        return x + 1

    @kernel
    def second(x: int) -> int:
        return 2 * third(x)

    @kernel
    def first(x: int) -> int:
        return second(x) + third(x)

    assert first(3) == 12
    assert cast("Any", second).overloads == cast("Any", third).overloads == {}, "neither by itself"
    assert (third(3), second(3)) == (4, 8)


def test_compiling_loads_no_scipy_and_leaves_it_to_others(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom sageserve.base.kernel import kernel\n\n"
        "@kernel\ndef more(x):\n    return x + 1\n\n"
        "print(more(1), 'scipy.linalg' in sys.modules)\nimport scipy.linalg.cython_blas\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}  # noqa: TID251 # that of a user
    done = subprocess.run([sys.executable, program], capture_output=True, encoding="utf-8", env=environment, check=False)
    assert done.stdout.split() == ["2", "False"], done.stderr
    assert done.returncode == 0, done.stderr


def test_what_is_compiled_already_is_loaded_without_the_compilers_knowledge(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom numba import njit\nfrom sageserve.base.kernel import kernel\n\n"
        "@kernel\ndef more(x):\n    return max(x + 1, 0)\n\n"
        "print(more(1), 'numba.np.arraymath' in sys.modules, more.stats.cache_hits != {})\n"
        "print(njit(lambda x: x * 2)(more(2)))  # and the compiler comes when it is needed\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}  # noqa: TID251 # as above
    first, again = (subprocess.check_output([sys.executable, program], encoding="utf-8", env=environment) for _ in range(2))
    assert first.split() == ["2", "True", "False", "6"]
    assert again.split() == ["2", "False", "True", "6"]
