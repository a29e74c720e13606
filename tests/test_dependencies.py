"""What is installed: requirements.lock holds what pyproject.toml asks for, by hash, for every Python and machine we name.

No network is asked; `make lock` does that. Read next: CONTRIBUTING.md, "The same install tomorrow".
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHONS: Final = ("3.11", "3.12", "3.13")
MACHINES: Final = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
OURS: Final = "sageserve"
OF_CONTRIBUTORS: Final = {"dev", "docs", "fuzz", "mutants"}  # extras that bring nothing to a user
PIN: Final = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[\w.!+]+)(?: ; (?P<marker>[^\\]+))? \\$")


class Pin(NamedTuple):
    """One version in the lock: where it applies, its hashes, and whether pyproject.toml itself asks for it."""

    name: str
    version: str
    marker: str
    hashes: int
    asked: bool


def asked_for(project: dict[str, object], extra: str) -> list[Requirement]:
    """What an install with an extra needs of others, the extras that it names included."""
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    found: list[Requirement] = []
    left = [*project["dependencies"], *extras[extra]]  # type: ignore[misc] # TOML says lists of strings
    while left:
        one = Requirement(left.pop(0))
        if one.name == OURS:
            left += [each for name in sorted(one.extras) for each in extras[name]]
        else:
            found.append(one)
    return found


def pins(lock: str) -> list[Pin]:
    """The versions in a lock file as `uv pip compile` writes it."""
    found: list[Pin] = []
    for line in lock.splitlines():
        if match := PIN.match(line):
            name = canonicalize_name(match["name"])
            found.append(Pin(name, match["version"], (match["marker"] or "").strip(), hashes=0, asked=False))
        elif line.startswith("    --hash=sha256:"):
            found[-1] = found[-1]._replace(hashes=found[-1].hashes + 1)
        elif line.startswith("    #") and f"{OURS} (pyproject.toml)" in line:
            found[-1] = found[-1]._replace(asked=True)
        else:
            assert line.startswith(("#", "    #")), f"not understood: {line}"
    return found


def places() -> Iterator[dict[str, str]]:
    for python in PYTHONS:
        for system, machine in MACHINES:
            usual = {key: str(value) for key, value in default_environment().items()}
            version = {"python_version": python, "python_full_version": f"{python}.0"}
            yield usual | version | {"sys_platform": system, "platform_machine": machine}


def complaints(wanted: list[Requirement], lock: str) -> Iterator[str]:
    """In what the lock is not what is asked for."""
    held = pins(lock)
    for place in places():
        where = f"Python {place['python_version']}, {place['sys_platform']} {place['platform_machine']}"
        here = [pin for pin in held if not pin.marker or Marker(pin.marker).evaluate(place)]
        yield from (f"{pin.name}: twice for {where}" for pin in here if sum(one.name == pin.name for one in here) > 1)
        versions = {pin.name: pin.version for pin in here}
        for one in wanted:
            if one.marker and not one.marker.evaluate(place):
                continue
            version = versions.get(canonicalize_name(one.name))
            if version is None or not one.specifier.contains(version, prereleases=True):
                yield f"{one}: the lock has {version or 'none'} for {where}"
    names = {canonicalize_name(one.name) for one in wanted}
    yield from (f"{pin.name}: nobody asks for it any more" for pin in held if pin.asked and pin.name not in names)
    yield from (f"{pin.name}: has no hash" for pin in held if not pin.hashes)


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return found


@pytest.fixture(scope="module")
def lock() -> str:
    return (ROOT / "requirements.lock").read_text("utf-8")


def test_the_lock_holds_what_is_asked_for(project: dict[str, object], lock: str) -> None:
    found = sorted(set(complaints(asked_for(project, "dev"), lock)))
    assert not found, "requirements.lock is not up to date, run `make lock` and commit it:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("words", "asked", "cut"),
    [
        ("lock has none", "quite-new>=1", ""),
        ("lock has 2", "numpy>=90", ""),
        ("lock has none", 'quite-new>=1; python_version < "3.12"', ""),
        ("nobody asks", None, ""),
        ("has no hash", "numpy", "    --hash=[^#]*"),
        ("lock has none for Python 3.13", "numpy", "numpy==[^ ]+ ; python_full_version >= .3.12.*(?=^)"),
    ],
)
def test_a_stale_lock_is_seen(lock: str, words: str, asked: str | None, cut: str) -> None:
    wanted = [Requirement(asked)] if asked else []
    start = lock.index("numpy==")
    part = lock[start : re.compile(r"^(?!numpy==)[\w-]+==", re.MULTILINE).search(lock, start).start()]  # type: ignore[union-attr] # of the next package
    if cut:
        part = re.sub(cut, "", part, flags=re.MULTILINE | re.DOTALL)
    assert any(words in one for one in complaints(wanted, part))


def test_all_is_every_extra_of_a_user(project: dict[str, object]) -> None:
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    (whole,) = extras["all"]
    assert Requirement(whole).name == OURS
    assert Requirement(whole).extras == set(extras) - {"all"} - OF_CONTRIBUTORS
    assert Requirement(extras["dev"][0]).extras >= Requirement(whole).extras - {"ray"}, "the tests try what they can"
