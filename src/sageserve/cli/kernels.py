"""Where compiled kernels are kept, and compiling them all once.

numba keeps compiled functions beside a hash of the one file a function is in; ours call each other across files, so the
folder is named after all of them: a changed source never meets stale machine code. `use_cache` must be called before any
module with a kernel is imported, because numba reads the folder on import. Read next: `base/kernel.py`.
"""

import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = Path(__file__).resolve().parent.parent
VARIABLE: Final = "NUMBA_CACHE_DIR"
_ROOMS: Final = ("core", "sim")  # where kernels are: to read all others for their names as well takes longer than to hash these
_ALONE: Final = ("data/digits.py",)
_KERNEL: Final = b"\n@kernel\n"
_IMPORT: Final = re.compile(rb"^from sageserve\.([a-z_.]+) import (?:\(([a-z_,\s]*)\)|([a-z_, ]*))", re.MULTILINE)
_TINY: Final = (
    "workload.generate.requests=200",
    "workload.generate.length=5m",  # little to do: instances are drained and opened again
    "workload.generate.bursts=[]",
)
_READY: Final = "ready"  # an empty file that ends in the fingerprint: everything was compiled


def use_cache() -> Path:
    """Tell numba where to keep compiled kernels, and return the folder; NUMBA_CACHE_DIR wins when it is set.

    ~/.cache/sageserve/kernels/<hash of the kernels' sources, numba and the processor>, or a private temporary folder where
    that cannot be written.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    folder = _writable(_home() / "sageserve" / "kernels" / _fingerprint())
    os.environ[VARIABLE] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    return folder


def is_warm() -> bool:
    """Whether every kernel of this version has been compiled and kept."""
    return (use_cache() / f"{_READY}-{_fingerprint()}").exists()


def warm_up() -> float:
    """Compile every kernel, and return how many seconds that took.

    A tiny simulation is enough: the loop is one compiled function from which all the others are reached. What loses instances is
    another, of the same parts.
    """
    began = time.perf_counter()
    folder = use_cache()
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.data.workload.generate import generate
    from sageserve.sim.run import simulate

    scenario = load_scenario("quickstart", overrides=_TINY)
    simulate(scenario, generate(scenario)).kernel.lose(())
    folder.mkdir(parents=True, exist_ok=True)  # NUMBA_CACHE_DIR may name a folder that nothing had to be written to
    (folder / f"{_READY}-{_fingerprint()}").touch()
    return time.perf_counter() - began


class _Counter:
    """Hears of every function that is compiled."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._done = tell, 0

    def notify(self, event: Any) -> None:  # noqa: ANN401 # numba's, which has no types
        """Count it when it is done."""
        if event.is_end:
            self._done += 1
            self._tell(self._done)


@contextmanager
def counted(tell: Callable[[int], None]) -> Iterator[None]:
    """Tell how many functions have been compiled, for as long as the block lasts."""
    from numba.core import event

    event.Listener.register(_Counter)
    counter = _Counter(tell)
    event.register("numba:compile", counter)
    try:
        yield
    finally:
        event.unregister("numba:compile", counter)


def kernel_sources() -> list[Path]:
    """The files that hold kernels, and all they import: record layouts and constants are compiled in."""
    rooms = chain.from_iterable((PACKAGE / room).rglob("*.py") for room in _ROOMS)
    wanted = [path for path in (*rooms, *(PACKAGE / name for name in _ALONE)) if _KERNEL in path.read_bytes()]
    found: set[Path] = set()
    while wanted:
        path = wanted.pop()
        if path not in found:
            found.add(path)
            for where, within, names in _IMPORT.findall(path.read_bytes()):  # a module may be what is imported by name
                room = where.decode().replace(".", "/")
                files = [room, *(f"{room}/{name.strip()}" for name in (within or names).decode().split(","))]
                wanted += [file for name in files if (file := PACKAGE / f"{name}.py").exists()]
    return sorted(found)


def _fingerprint() -> str:
    return _fingerprint_of(PACKAGE)


@cache
def _fingerprint_of(package: Path) -> str:
    """Of the sources in this folder as they are when it is first asked for: what is imported changes no more."""
    digest = hashlib.sha256()
    # The processor's name and features are part of numba's own index; a shared home folder also needs the architecture.
    for word in (version("numba"), version("llvmlite"), os.uname().machine, sys.version):
        digest.update(word.encode() + b"\0")
    for path in kernel_sources():
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _home() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # no home folder: a container without a user
        return Path(tempfile.gettempdir()) / "no-home"


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _private(Path(tempfile.gettempdir()) / f"sageserve-kernels-{os.getuid()}-{folder.name}")


def _private(folder: Path) -> Path:
    """A folder in a place everyone can write to, if it is ours alone: cached code is run, so nobody else may plant it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if found.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink() and not found.st_mode & 0o022:
            return folder
    except OSError:  # a file of that name, or a full disk: the next line tries another name, and says so if that fails too
        pass
    return Path(tempfile.mkdtemp(prefix="sageserve-kernels-"))
