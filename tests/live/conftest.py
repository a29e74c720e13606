"""Folders with short paths, for the sockets in them, and a private PostgreSQL for tests that need one, on such a socket.

PostgreSQL's are skipped, with the reason, where it is not installed. Read next: `store/conftest.py`, `batches/test_kill.py`.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(newest[-1]) if newest else shutil.which(name)


@pytest.fixture
def tmp_path(short_folder: Callable[[], Path]) -> Path:
    """In the place of pytest's own: a state folder holds sockets."""
    return short_folder()


def _as_nobody(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("runuser") is None or subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:  # noqa: S607 # of the system
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres to run it")
    shutil.chown(folder, "postgres")
    folder.parent.chmod(0o755)
    return ["runuser", "-u", "postgres", "--"]


@pytest.fixture(scope="session")
def postgres(short_folder: Callable[[], Path]) -> Iterator[str]:
    """Address of an empty database."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not on this machine")
    folder = short_folder()
    run = _as_nobody(folder)
    data = folder / "data"
    subprocess.run([*run, initdb, "-D", data, "-A", "trust", "-U", "test", "--no-sync"], check=True, capture_output=True)
    options = f"-k {folder} -c listen_addresses='' -c max_connections=20 -c fsync=off"  # who is killed here is never the server
    subprocess.run(
        [*run, pg_ctl, "-D", data, "-w", "-o", options, "-l", folder / "log", "start"], check=True, capture_output=True
    )
    try:
        yield f"postgresql://test@/postgres?host={folder}"
    finally:
        subprocess.run([*run, pg_ctl, "-D", data, "-m", "immediate", "stop"], check=True, capture_output=True)
