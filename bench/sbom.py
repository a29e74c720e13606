"""What an install of SageServe brings along, as a CycloneDX 1.6 bill of materials, from requirements.lock alone.

    python -m bench.sbom > build/sageserve.cdx.json        or `make sbom`

What users are given, with every extra: tools of contributors are in the lock and not in here. Each component has its version,
where it is needed only somewhere the marker, and the SHA-256 of every file that pip would take. The same lock gives the same
bytes: no time, and a serial number made of the content. Asks no network. Read next: `tests/test_sbom.py`; CONTRIBUTING.md.
"""

import json
import re
import sys
import tomllib
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
OURS: Final = "sageserve"
OF_CONTRIBUTORS: Final = frozenset({"dev", "docs", "fuzz", "mutants"})
_PIN: Final = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[\w.!+]+)(?: ; (?P<marker>[^\\]+))? \\$")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*")


def canonical(text: str) -> str:
    """Name of a requirement, as every index writes it. By the standard library alone: `image.py` runs where nothing else is."""
    found = _NAME.match(text)
    assert found is not None, f"no requirement: {text}"
    return re.sub(r"[-_.]+", "-", found[0]).lower()


@dataclass(slots=True)
class LockedPackage:
    """A package of the lock: its marker ("": everywhere), hashes of its files, and who asks for it."""

    name: str
    version: str
    marker: str
    hashes: list[str] = field(default_factory=list)
    asked_by: list[str] = field(default_factory=list)

    @property
    def purl(self) -> str:
        """As bills of materials name it."""
        return f"pkg:pypi/{self.name}@{self.version}"


def locked(text: str) -> list[LockedPackage]:
    """Packages of a lock, in its order."""
    found: list[LockedPackage] = []
    for line in text.splitlines():
        if (pin := _PIN.match(line)) is not None:
            found.append(LockedPackage(canonical(pin["name"]), pin["version"], (pin["marker"] or "").strip()))
        elif (one := _HASH.search(line)) is not None:
            found[-1].hashes.append(one[1])
        elif line.startswith("    #") and (who := line.strip(" #").removeprefix("via").strip()):
            found[-1].asked_by.append(OURS if who.startswith(OURS) else canonical(who))
    return found


def wanted_by_users(project: dict[str, Any], extras: Collection[str] | None = None) -> set[str]:
    """Names that an install asks for itself, with some extras or (None) with every one."""
    known = {name: one for name, one in project["optional-dependencies"].items() if name not in OF_CONTRIBUTORS}
    if extras is not None and (unknown := [name for name in extras if name not in known]):
        raise SystemExit(f"no extra {', '.join(unknown)}: there are {', '.join(known)}")
    lists = [project["dependencies"], *(one for name, one in known.items() if extras is None or name in extras)]
    return {canonical(text) for one in lists for text in one} - {OURS}


def needed(packages: list[LockedPackage], direct: set[str]) -> list[LockedPackage]:
    """Those that users get: what is asked for, and whatever that needs."""
    names = {one.name for one in packages} & direct
    while more := {one.name for one in packages if not names.isdisjoint(one.asked_by)} - names:
        names |= more
    return [one for one in packages if one.name in names]


def bill(lock: str, project: dict[str, Any], version: str, extras: Collection[str] | None = None) -> dict[str, Any]:
    """The bill of materials of an install with some extras, or (None) with every one."""
    direct = wanted_by_users(project, extras)
    found = needed(locked(lock), direct)
    ours = f"pkg:pypi/{OURS}@{version}"
    content = "\n".join(f"{one.purl} {' '.join(one.hashes)}" for one in found)
    needs = [{"ref": ours, "dependsOn": [one.purl for one in found if one.name in direct]}]
    needs += [{"ref": one.purl, "dependsOn": [each.purl for each in found if one.name in each.asked_by]} for one in found]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{ours} {content}')}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": ours, "name": OURS, "version": version, "purl": ours}},
        "components": [_component(one) for one in found],
        "dependencies": needs,
    }


def _component(one: LockedPackage) -> dict[str, Any]:
    files = [{"alg": "SHA-256", "content": each} for each in one.hashes]
    about: dict[str, Any] = {
        "type": "library",
        "bom-ref": one.purl,
        "name": one.name,
        "version": one.version,
        "purl": one.purl,
        "externalReferences": [{"type": "distribution", "url": f"https://pypi.org/simple/{one.name}/", "hashes": files}],
    }
    return about | ({"properties": [{"name": f"{OURS}:marker", "value": one.marker}]} if one.marker else {})


def main() -> None:
    """Write it to stdout."""
    from importlib.metadata import version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = bill((ROOT / "requirements.lock").read_text("utf-8"), project, version(OURS))
    sys.stdout.write(json.dumps(found, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
