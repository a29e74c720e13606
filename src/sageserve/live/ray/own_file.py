"""What Ray keeps for nobody, in a file of the state folder: the lease, orders, and whose a value is that we have written.

Changed by one process at a time, under a lock of the system; commands and whoever acts share it. So those who act on a Ray
cluster share a folder: from another one, nobody would know of them. Read next: `writer.py`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from sageserve.base.errors import ConfigError
from sageserve.live.private import write_private


class WrittenField(Struct):
    """A field whose owner is known.

    Args:
        manager: who wrote it last.
        value: that was written; where another stands there, somebody else did.
        found: the config said it before us.
    """

    manager: str
    value: int
    found: bool


class DeploymentNotes(Struct):
    """What is known of a deployment beside what Ray says."""

    fields: dict[str, WrittenField] = {}
    annotations: dict[str, str] = {}


class OwnObjects(Struct):
    """Everything in the file."""

    version: int = 1
    objects: dict[str, msgspec.Raw] = {}
    notes: dict[str, DeploymentNotes] = {}


class OwnFile:
    """The file of one cluster.

    Args:
        folder: of the state.
        cluster: its name.
    """

    def __init__(self, folder: Path, cluster: str) -> None:
        self._path = folder / f"ray-{cluster}.json"
        self._lock = folder / f"ray-{cluster}.lock"

    @contextmanager
    def opened(self) -> Iterator[OwnObjects]:
        """Hold it; what was changed is kept when the block ends well.

        Raises:
            ConfigError: it is damaged.
        """
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._path.read_bytes() if self._path.exists() else b"{}"
            try:
                found = msgspec.json.decode(before, type=OwnObjects)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                hint = "take it away: then what is there now counts as found"
                raise ConfigError(f"{self._path} is damaged: {error}", hint=hint) from None
            yield found
            after = msgspec.json.encode(found)
            if after != before:
                write_private(self._path, after)
        finally:
            os.close(lock)
