"""What `doctor --local` says of how long things are kept: by key, and what is kept of owners that have no key any more.

Looks into a queue in SQLite without changing it. Read next: `local_checks.py`; docs/reference/security.md.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from sageserve.base.config import RESERVED_NAMES, LiveSettings
from sageserve.base.units import show_duration
from sageserve.live.doctor.checks import CheckFinding
from sageserve.live.store.interface import STORE_FILE

_OWNERS: Final = (
    "SELECT owner, SUM(files), SUM(batches) FROM (SELECT owner, COUNT(*) AS files, 0 AS batches FROM files GROUP BY owner"
    " UNION ALL SELECT owner, 0, COUNT(*) FROM batches GROUP BY owner) AS kept GROUP BY owner ORDER BY owner"
)


def retention(state: Path, live: LiveSettings) -> Iterator[CheckFinding]:
    """Keys without a time after which what their batches left is deleted, and owners whose key is gone.

    Args:
        state: folder of the fleet.
        live: its settings.
    """
    usual = show_duration(live.jobs.keep)
    for name in dict.fromkeys(key.name for key in live.keys if key.keep is None):
        said = f"files without expires_after are kept for {usual} (live.jobs.keep), a list of its batches for good"
        yield CheckFinding(f"live.keys: {name}", said, "give its entry keep: 7d, or what was promised to it", "info")
    if not live.keys:
        return
    known = {key.name for key in live.keys} | set(RESERVED_NAMES)
    for owner, files, batches in _owners(state / STORE_FILE):
        if owner not in known:
            said = f"{owner} has no key any more, and {files:,} files and {batches:,} batches are kept"
            yield CheckFinding("live.keys", said, f"sageserve batch erase {owner}", "warn")


def _owners(path: Path) -> list[tuple[str, int, int]]:
    """Owner, files and batches; nothing where the queue is elsewhere, or was not begun."""
    if not path.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return list(connection.execute(_OWNERS))
    except sqlite3.Error as error:
        raise OSError(0, f"the queue cannot be looked into ({error})", str(path)) from None
