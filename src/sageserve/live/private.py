"""The state folder and what is in it are one user's alone: prompts, answers and the fleet's secret are kept there.

A folder that was there before is made private too, with all its files; one that somebody else could have prepared (it, or a file
in it, belongs to another user, or is a link that would lead what is written elsewhere) is refused. Must not know what the files
are. Read next: `cli/up.py`, which calls this first.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from sageserve.base.errors import ConfigError


def make_private(folder: Path) -> None:
    """Make a folder, or one that is there, readable by its owner alone, and from now on every file this process makes.

    Raises:
        ConfigError: it is a link, holds one, or belongs to another user in whole or in part.
    """
    os.umask(0o077)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"{folder} is not a folder", hint="name another one with --state") from None
    _inside(folder)  # nothing is changed in a folder that is refused
    folder.chmod(0o700)  # from here on nobody else can put anything there
    for path, kind in _inside(folder):
        if not stat.S_ISSOCK(kind):
            with suppress(FileNotFoundError):
                path.chmod(0o700 if stat.S_ISDIR(kind) else stat.S_IMODE(kind) & 0o700)


def _inside(folder: Path) -> list[tuple[Path, int]]:
    """What is in a folder, with its mode; all of it is checked, and the folder, too."""
    _check(folder)
    found = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # of a fleet that runs there, whose files come and go
            found.append((path, _check(path).st_mode))
    return found


def _check(path: Path) -> os.stat_result:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(
            f"{path} is a link, and what a fleet writes must not be led elsewhere",
            hint="remove it, or name another folder with --state",
        )
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user", hint="remove it, or name a folder of your own with --state")
    return found


def write_private(path: Path, content: bytes) -> None:
    """Put a file in the place of another, all at once; what stands at its name or beside it is replaced, never followed."""
    part = path.with_name(f"{path.name}.part")
    with os.fdopen(make_file(part), "wb") as out:
        out.write(content)
    part.replace(path)


def make_file(path: Path) -> int:
    """A descriptor of a new file, the caller's to close; what stands at its name is removed, and not written to.

    Raises:
        OSError: it cannot be made.
    """
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def open_private(path: Path) -> int:
    """A descriptor of a new or emptied file, the caller's to close; a link is not followed.

    Raises:
        OSError: it is a link, or cannot be made.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
