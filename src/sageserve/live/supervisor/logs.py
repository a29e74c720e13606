"""One log file per child, written by the child itself, of bounded size.

A file that grows beyond the limit is copied to `<name>.log.1` and emptied; children append, so they go on at the front. What
they write between the copy and the emptying is lost: some lines a day at most. Knows no process. Read next: `children.py`.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Final

_LOG: Final = logging.getLogger(__name__)
LIMIT: Final = 16 << 20  # bytes of one file; there are two per child
_WORDS: Final = 300  # characters of a line that an error message shows
_TAIL: Final = 2000  # bytes of a log that an error message may show


class Logs:
    """The files of one folder.

    Args:
        folder: is made, private, when it is not there.
        limit: bytes above which a file is turned over.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._limit = limit

    def path(self, name: str) -> Path:
        """The log of a child."""
        return self._folder / f"{name}.log"

    def open(self, name: str) -> int:
        """A file descriptor that appends to the log of a child; the caller closes it."""
        return os.open(self.path(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def turn_over(self, names: list[str]) -> None:
        """Empty the files that are too large, keeping a copy of each."""
        for name in names:
            path = self.path(name)
            try:
                if path.exists() and path.stat().st_size > self._limit:
                    self._copy(path)
                    os.truncate(path, 0)
            except OSError as error:
                _LOG.error("%s cannot be emptied: %s", path, error)

    def _copy(self, path: Path) -> None:
        """Keep a copy; without room for one there is none, and all the more reason to empty the file."""
        copy = path.with_suffix(".log.1")
        try:
            shutil.copyfile(path, copy)
        except OSError as error:
            _LOG.error("%s is emptied without a copy: %s", path, error)
            copy.unlink(missing_ok=True)

    def drop_but(self, beginning: str, kept: int) -> None:
        """Delete the logs whose names begin so, but for the newest ones."""
        found = [path for path in self._folder.glob(f"{beginning}*.log") if path.is_file()]
        for path in sorted(found, key=lambda one: one.stat().st_mtime)[:-kept]:
            path.unlink(missing_ok=True)
            path.with_suffix(".log.1").unlink(missing_ok=True)

    def last_words(self, name: str) -> str:
        """The last line a child wrote, and where the others are."""
        lines = self.tail(name).splitlines()
        return f"{lines[-1][:_WORDS] if lines else 'it said nothing'} ({self.path(name)})"

    def tail(self, name: str) -> str:
        """The last lines a child wrote."""
        try:
            with self.path(name).open("rb") as file:
                file.seek(max(0, self.path(name).stat().st_size - _TAIL))
                return file.read().decode("utf-8", "replace").strip()
        except OSError as error:
            return f"(no log: {error.strerror})"
