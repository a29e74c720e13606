"""Acts of a person at the command line, for the audit log: who, what, and about what.

Reads the clock and the user; must not know what an act does. Read next: `live/audit.py`.
"""

import os
import pwd
import time
from collections.abc import Mapping
from pathlib import Path

import typer


def note_act(folder: Path, act: str, facts: Mapping[str, str | int]) -> None:
    """Write an act down in the audit log of a state folder; one that cannot be is said on stderr: a full disk stops no `down`."""
    from sageserve.live.audit import note

    try:
        who = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user without a name, as in containers
        who = str(os.getuid())
    try:
        note(folder, time.time_ns() // 1000, who, act, facts)
    except OSError as error:
        typer.echo(f"warning: the audit log does not hold this {act}: {error}", err=True)
