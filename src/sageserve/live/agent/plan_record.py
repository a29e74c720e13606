"""What a plan says to one cluster, as a record; and which versions of such records are understood.

    version MAJOR.MINOR     of another major nothing is believed; of a newer minor, fields that are not known here are passed over

Whatever must not be passed over raises the major, so that hub and agents may be one minor apart in either way, or more. Instants
are microseconds since 1970. Knows no key and no clock. Read next: `verdict.py`, `report.py`.
"""

import re
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from sageserve.base.units import Micros

MAJOR: Final = 1
VERSION: Final = f"{MAJOR}.0"
_VERSION: Final = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")
Record = TypeVar("Record")


class TargetPlan(Struct, frozen=True):
    """What is wanted of one target.

    Args:
        pool: region/model/gpu.
        kind: of its object.
        object: NAMESPACE/NAME.
        count: instances.
        why: in the plan's words.
    """

    pool: str
    kind: str
    object: str
    count: int
    why: str = ""


class ClusterPlan(Struct, frozen=True, kw_only=True):
    """A plan for one cluster.

    Args:
        version: of this format.
        fleet: whose plan it is.
        cluster: whom it is for.
        sequence: grows with every plan.
        plan: the beginning of the hash of its inputs.
        not_before: when it begins to hold.
        valid_until: when it ends.
        targets: by name.
    """

    version: str = VERSION
    fleet: str
    cluster: str
    sequence: int
    plan: str
    not_before: Micros
    valid_until: Micros
    targets: dict[str, TargetPlan]


class _Version(Struct):
    version: str


def encoded(record: Struct) -> bytes:
    """A record for people and programs: equal ones give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def decoded(content: bytes, kind: type[Record], what: str) -> Record | str:
    """A record, or one sentence about why it cannot be read.

    Args:
        content: as it was fetched.
        kind: of the record.
        what: it is, in that sentence: "the plan".
    """
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if said := not_understood(version, what):
            return said
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"{what} cannot be read: {error}"


def not_understood(version: str, what: str) -> str:
    """Why a version is not understood; empty: it is."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return f"{what} has no version that is one: {version[:20]!r}"
    if (major := int(match[1])) == MAJOR:
        return ""
    newer = "here, install a newer sageserve" if major > MAJOR else "there, where it is written, install a newer sageserve"
    return f"{what} is of version {version}, and {MAJOR}.x is understood here: {newer}"
