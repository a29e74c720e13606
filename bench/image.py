"""What the Containerfile runs: wheels by hash from an index, then, without a network, a root file system of SageServe alone.

    python -m bench.image wheels WHEELS [--extras keda,live]     # asks an index; nothing whose hash is not in requirements.lock
    python -m bench.image root WHEELS ROOT                       # asks nobody; ROOT must not be there

ROOT has the Python that runs this, packages, the shared libraries that these ask for, certificates, time zones, and nothing to
log in to: no shell, no package manager. Knows the standard library only; needs glibc's `ldd` and `ldconfig`, and pip.
Read next: the Containerfile; `tests/live/kubernetes/test_image.py`; `sbom.py`.
"""

import argparse
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.sbom import OURS, ROOT, LockedPackage, bill, canonical, locked, needed, wanted_by_users

EXTRAS: Final = ("agents", "keda", "kubernetes", "live", "postgres", "redis")
"""What an image can do where nothing else is asked for: all that runs in a cluster."""
HOME: Final = Path("opt") / OURS
STATE: Final = Path("var/lib") / OURS
USER: Final = 65532
SBOM: Final = Path("usr/share") / OURS / f"{OURS}.cdx.json"
_LEFT_OUT: Final = (
    "__pycache__",
    "site-packages",
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "tkinter",
    "turtledemo",
    "config-*",
    "*.a",
)
_OPTIONAL: Final = (
    "tbbpool*.so",
    "omppool*.so",
    "_tkinter*.so",
)  # numba's pools for parallel loops, windows: not used, and ask for more
_FROM_HERE: Final = ("/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/zoneinfo")
_FOUND: Final = re.compile(r"(?:=> )?(/\S+) \(0x")
_MISSING: Final = re.compile(r"(\S+) => not found")
_ELF: Final = b"\x7fELF"


def pinned(lock: str, direct: Collection[str]) -> str:
    """What pip is to install, each by version and hash: some packages of a lock and whatever those need."""
    return "".join(_line(one) for one in needed(locked(lock), set(direct)))


def _line(one: LockedPackage) -> str:
    marker = f" ; {one.marker}" if one.marker else ""
    return f"{one.name}=={one.version}{marker}" + "".join(f" \\\n    --hash=sha256:{each}" for each in one.hashes) + "\n"


def fetch(wheels: Path, extras: Sequence[str]) -> None:
    """Fill a folder with wheels, and with the lists that `root` installs from it."""
    project, lock = _project(), (ROOT / "requirements.lock").read_text("utf-8")
    wheels.mkdir(parents=True, exist_ok=True)
    for name, direct in (("build.txt", {"hatchling"}), ("users.txt", wanted_by_users(project, extras))):
        (wheels / name).write_text(pinned(lock, direct), "utf-8")
        _pip(
            "download",
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--dest",
            wheels,
            "--requirement",
            wheels / name,
        )
    (wheels / "extras.json").write_text(json.dumps(list(extras), allow_nan=False), "utf-8")


def build(wheels: Path, root: Path) -> None:
    """Make the root file system from a folder of wheels; no network is asked."""
    if root.exists():
        raise SystemExit(f"{root} is there: name a folder that is not")
    packages = root / HOME / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    _install(wheels, packages)
    python = _interpreter(root)
    _entry(root, python)
    _libraries(root)
    _surroundings(root)
    project, lock = _project(), (ROOT / "requirements.lock").read_text("utf-8")
    version = next(one.name.split("-")[1] for one in packages.glob(f"{OURS}-*.dist-info")).removesuffix(".dist")
    file = root / SBOM
    file.parent.mkdir(parents=True)
    extras = json.loads((wheels / "extras.json").read_text("utf-8"))
    file.write_text(json.dumps(bill(lock, project, version, extras), indent=2, allow_nan=False) + "\n", "utf-8")


def _install(wheels: Path, packages: Path) -> None:
    """Ours and what it needs; what pip finds to be missing, and a wheel of another hash, ends it."""
    offline = ("--no-index", "--find-links", wheels)
    with tempfile.TemporaryDirectory() as folder:
        tools, made = Path(folder) / "tools", Path(folder) / "made"
        _pip("install", *offline, "--require-hashes", "--target", tools, "--requirement", wheels / "build.txt")
        _pip("wheel", "--no-deps", "--no-build-isolation", *offline, "--wheel-dir", made, ROOT, path=tools)
        _pip("install", *offline, "--require-hashes", "--no-compile", "--target", packages, "--requirement", wheels / "users.txt")
        [ours] = made.glob("*.whl")
        _pip("install", "--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", packages, ours)
    shutil.rmtree(packages / "bin", ignore_errors=True)  # scripts of others, for a Python that is elsewhere
    for one in [folder for folder in packages.glob("**/tests") if folder.is_dir()]:
        shutil.rmtree(one)


def _interpreter(root: Path) -> Path:
    """Copy the Python that runs this, without what only its developers use; where it stands in the root."""
    prefix, name = Path(sys.base_prefix), f"python{sys.version_info[0]}.{sys.version_info[1]}"
    inside = root / prefix.relative_to("/")
    shutil.copytree(prefix / "lib" / name, inside / "lib" / name, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    (inside / "bin").mkdir()
    shutil.copy2((prefix / "bin" / name).resolve(), inside / "bin" / name)
    return prefix / "bin" / name


def _entry(root: Path, python: Path) -> None:
    """A virtual environment as Python reads one, with one program in it. Bytecode is made now: nothing can be written later."""
    home = root / HOME
    (home / "bin").mkdir()
    (home / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n", "utf-8")
    (home / "bin" / "python").symlink_to(python)
    script = home / "bin" / OURS
    script.write_text(f"#!/{HOME}/bin/python\nfrom {OURS}.cli.main import main\n\nmain()\n", "utf-8")
    script.chmod(0o755)
    compiled = ("-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/")
    subprocess.run(
        [sys.executable, *compiled, str(root)], check=False, stdout=subprocess.DEVNULL
    )  # some packages hold broken samples


def _libraries(root: Path) -> None:
    """Copy shared libraries that are asked for and not there, each where it was found, and the list of where that is."""
    for one in [file for pattern in _OPTIONAL for file in root.rglob(pattern)]:
        one.unlink()
    asked = [one for one in root.rglob("*") if one.is_file() and not one.is_symlink() and _is_program(one)]
    found: dict[str, None] = {}
    missing: dict[str, str] = {}
    for some in _in_parts(asked, 200):
        ran = subprocess.run([_tool("ldd"), *map(str, some)], capture_output=True, text=True, check=False)
        for name in _FOUND.findall(ran.stdout):
            found[name] = None
        missing |= dict.fromkeys(_MISSING.findall(ran.stdout), str(some[0].parent.name))
    inside = {one.name for one in asked}
    outside = [Path(name) for name in found if not Path(name).is_relative_to(root) and Path(name).name not in inside]
    if wanted := sorted(set(missing) - inside):
        raise SystemExit(f"not found: {', '.join(wanted)}; install the Debian packages that have them, or leave an extra out")
    for one in outside:
        there = root / one.relative_to("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(one.resolve(), there)
    (root / "etc").mkdir()
    (root / "etc/ld.so.conf").write_text("".join(f"{one}\n" for one in sorted({str(one.parent) for one in outside})), "utf-8")
    subprocess.run([_tool("ldconfig"), "-X", "-r", str(root)], check=True, stderr=subprocess.DEVNULL)


def _tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise SystemExit(f"there is no {name}: this needs a system with glibc, such as Debian")
    return found


def _is_program(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == _ELF


def _in_parts(files: Sequence[Path], most: int) -> Iterator[Sequence[Path]]:
    yield from (files[at : at + most] for at in range(0, len(files), most))


def _surroundings(root: Path) -> None:
    """Who it runs as, whom it trusts, which time it is elsewhere, and the two places that it may write to."""
    etc = root / "etc"
    (etc / "passwd").write_text(f"root:x:0:0::/:\n{OURS}:x:{USER}:{USER}::/{STATE}:\n", "utf-8")
    (etc / "group").write_text(f"root:x:0:\n{OURS}:x:{USER}:\n", "utf-8")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n", "utf-8")
    for folder in (Path(name) for name in _FROM_HERE):
        if folder.is_dir():
            shutil.copytree(folder, root / folder.relative_to("/"), symlinks=True)
    asked = ssl.get_default_verify_paths()
    for place, kept in ((asked.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt"), (asked.openssl_capath, "/etc/ssl/certs")):
        if place != kept and not (there := root / place.lstrip("/")).exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(kept)
    for folder, mode in ((Path("tmp"), 0o1777), (STATE, 0o770)):
        (root / folder).mkdir(parents=True)
        (root / folder).chmod(mode)
    if os.geteuid() == 0:
        os.chown(root / STATE, USER, USER)


def _project() -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project


def _pip(*words: str | Path, path: Path | None = None) -> None:
    more = {} if path is None else {"PYTHONPATH": str(path)}
    quiet = ("--disable-pip-version-check", "--quiet", *(["--no-warn-conflicts"] if words[0] == "install" else []))
    command = (sys.executable, "-m", "pip", str(words[0]), *quiet, *map(str, words[1:]))
    if code := subprocess.run(command, check=False, env={**os.environ, **more}).returncode:  # noqa: TID251 # which index pip asks
        raise SystemExit(code)


def main() -> None:
    """Do one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    one = steps.add_parser("wheels")
    one.add_argument("wheels", type=Path)
    one.add_argument("--extras", type=lambda text: [canonical(each) for each in text.split(",") if each], default=list(EXTRAS))
    two = steps.add_parser("root")
    two.add_argument("wheels", type=Path)
    two.add_argument("root", type=Path)
    given = parser.parse_args()
    if given.step == "wheels":
        fetch(given.wheels, given.extras)
    else:
        build(given.wheels.resolve(), given.root.resolve())


if __name__ == "__main__":
    main()
