"""The folder whose files an Envoy follows: it has one owner, and what was written stays as it was written.

A file is moved into place, which is what Envoy looks for. Knows no content. Read next: `process.py`, the owner.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from sageserve.base.errors import ConfigError

_LOCK: Final = ".sageserve-envoy.lock"
_Mark: TypeAlias = tuple[int, int, int]  # of a file: which one, its length, when it was written


class EnvoyFolder:
    """Files of one Envoy.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._texts: dict[str, str] = {}
        self._marks: dict[str, _Mark | None] = {}

    @contextmanager
    def held(self, holder: str) -> Iterator[None]:
        """Make the folder, and be its owner until the block ends.

        Args:
            holder: what another one that wants it is told.

        Raises:
            ConfigError: it cannot be made, or has an owner.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"--folder: {self.path} cannot be written: {error.strerror}", hint=_OTHER) from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                said = os.read(lock, 1000).decode("utf-8", "replace") or "another process"
                hint = "stop it, or name another folder with an Envoy of its own: --folder DIR"
                raise ConfigError(f"--folder: {self.path} belongs to {said}", hint=hint) from None
            os.ftruncate(lock, 0)
            os.pwrite(lock, holder.encode(), 0)
            yield
        finally:
            os.close(lock)

    def write(self, told: Mapping[str, str]) -> list[str]:
        """Have these files say this; gives names of those that said something else before.

        Raises:
            ConfigError: one cannot be written.
        """
        changed = [name for name, text in told.items() if self._texts.get(name) != text]
        for name in changed:
            self._put(name, told[name])
        return changed

    def repair(self) -> list[str]:
        """Write those anew that somebody else changed or took away; gives their names.

        Raises:
            ConfigError: one cannot be written.
        """
        harmed = [name for name, mark in self._marks.items() if self._mark(name) != mark]
        for name in harmed:
            self._put(name, self._texts[name])
        return harmed

    def _put(self, name: str, text: str) -> None:
        file = self.path / name
        part = file.with_name(f".{name}.{os.getpid()}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            part.write_text(text, "utf-8")
            part.replace(file)
        except OSError as error:
            raise ConfigError(f"--folder: {file} cannot be written: {error.strerror}", hint=_OTHER) from None
        self._texts[name], self._marks[name] = text, self._mark(name)

    def _mark(self, name: str) -> _Mark | None:
        try:
            found = (self.path / name).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


_OTHER: Final = "name another folder: --folder DIR"
