"""The audit log: who started, stopped and changed a fleet, and which keys were used how often; each line holds the one before.

    audit/audit-000001.jsonl    {"number", "wall", "who", "act", "facts", "before", "hash"}

`hash` is the SHA-256 of the line with an empty `hash`, and `before` is the hash of the line before, in whichever file it is. So a
line that is changed, left out or put in is found, and so is everything after it; that the end was cut off, or all of it written
anew, is found by whoever keeps a hash elsewhere. Several processes write: each holds the lock of the folder while it appends. No
prompt, answer or key is in it. Knows no act's meaning. Read next: `doctor/local_checks.py`, docs/reference/security.md.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct, structs

from sageserve.base.units import Micros

Facts: TypeAlias = Mapping[str, str | int]
FOLDER: Final = "audit"
_FILE_MAX: Final = 64 << 20  # bytes of a file before a new one is begun; none is ever deleted here
_TAIL: Final = 1 << 20  # bytes from the end in which the last line is looked for
_NOTHING: Final = ""  # what the first line has before it
_LOCK: Final = "audit.lock"


class AuditLine(Struct, frozen=True, forbid_unknown_fields=True):
    """One act."""

    number: int
    wall: Micros  # since 1970
    who: str
    act: str
    facts: dict[str, str | int]
    before: str
    hash: str = ""


class AuditCheck(Struct, frozen=True):
    """What came of looking through the chain.

    Args:
        lines: that hold.
        first: number of the first one; above 1 where older files were taken away.
        head: hash of the last one that holds; empty: there is none.
        problem: the first thing that is wrong, with its place; empty: all of it holds.
        seen: whether the hash that was looked for is in it.
    """

    lines: int
    first: int
    head: str
    problem: str = ""
    seen: bool = False


def note(state: Path, wall: Micros, who: str, act: str, facts: Facts) -> None:
    """Append a line, on disk when this returns.

    Args:
        state: folder of the fleet; private.
        wall: microseconds since 1970.
        who: did it: a user of this machine, or a process of the fleet.
        act: what: a word.
        facts: about it.

    Raises:
        OSError: it cannot be written.
    """
    folder = state / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    with _locked(folder):
        path, number, before = _end(folder)
        line = AuditLine(number + 1, wall, who, act, dict(facts), before)
        out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(out, "ab") as file:
            file.write(_encode(structs.replace(line, hash=_hash(line))) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def verify(state: Path, sought: str = "") -> AuditCheck:
    """Look through the whole chain.

    Args:
        state: folder of the fleet.
        sought: a hash that is to be in it; empty: none is looked for.

    Raises:
        OSError: it cannot be read.
    """
    decode = msgspec.json.Decoder(AuditLine).decode
    lines, first, last = 0, 0, None
    seen = False
    for place, text in _lines(state / FOLDER):
        try:
            line = decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return AuditCheck(lines, first, last.hash if last else "", f"{place} is no line of an audit log", seen)
        if (wrong := _wrong(line, last)) or _encode(line) != text:
            return AuditCheck(lines, first, last.hash if last else "", f"{place} {wrong or 'was written otherwise'}", seen)
        first, last, lines = first or line.number, line, lines + 1
        seen = seen or line.hash == sought
    return AuditCheck(lines, first, last.hash if last else "", "", seen)


def _wrong(line: AuditLine, last: AuditLine | None) -> str:
    if line.hash != _hash(line):
        return f"(act {line.number}) was changed"
    if last is not None and (line.before, line.number) != (last.hash, last.number + 1):
        return f"(act {line.number}) does not follow act {last.number}: something was put in or left out"
    if last is None and line.number == 1 and line.before != _NOTHING:
        return "(act 1) follows something that is not there"
    return ""


def _hash(line: AuditLine) -> str:
    return hashlib.sha256(_encode(structs.replace(line, hash=""))).hexdigest()


def _encode(line: AuditLine) -> bytes:
    return msgspec.json.encode(line)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("audit-*.jsonl"))


def _lines(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every line with its place."""
    for path in _files(folder):
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                yield f"{path.name}:{number}", text.removesuffix(b"\n")


def _end(folder: Path) -> tuple[Path, int, str]:
    """The file to append to, and number and hash of the last line; one that was cut off by a crash is not taken for one."""
    files = _files(folder)
    newest = files[-1] if files else folder / _name(1)
    for path in reversed(files):  # the newest may be empty: its first line was cut off
        text, size = _last_line(path)
        if text is not None:
            break
    else:
        return newest, 0, _NOTHING
    try:
        last = msgspec.json.decode(text, type=AuditLine)
    except (msgspec.DecodeError, UnicodeDecodeError):  # found by `verify`; what happens from here on is written down all the same
        return newest, 0, hashlib.sha256(text).hexdigest()
    if path == newest and size > _FILE_MAX:
        newest = folder / _name(int(path.stem.rpartition("-")[2]) + 1)
    return newest, last.number, last.hash


def _last_line(path: Path) -> tuple[bytes | None, int]:
    """The last whole line of a file, if it has one, and the file's size; what a crash left after it is cut off."""
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            os.ftruncate(file.fileno(), size - len(tail) + whole)
    texts = tail[:whole].splitlines()
    return (texts[-1] if texts else None), size


def _name(number: int) -> str:
    return f"audit-{number:06d}.jsonl"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
