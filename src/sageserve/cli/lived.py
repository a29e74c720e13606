"""State folders of live fleets where commands take folders of results, too: all of them are, or none is.

Reads nothing. Read next: `report.py`, `diff.py`, `show/lived/`.
"""

from collections.abc import Sequence
from pathlib import Path

from sageserve.base.errors import ConfigError


def state_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders, where they are of live fleets; none where they are of runs.

    Raises:
        ConfigError: some are and some are not.
    """
    from sageserve.data.results.journal import is_state_folder

    live = [folder for folder in folders if is_state_folder(folder)]
    if live and len(live) < len(folders):
        other = next(folder for folder in folders if folder not in live)
        raise ConfigError(
            f"{live[0]} is the state folder of a live fleet, and {other} is none",
            hint="live fleets are reported and compared among themselves; `sageserve validate` holds a simulation against a log",
        )
    return live


def length(last: str | None) -> int | None:
    """Microseconds of `--last`; None: it was not given.

    Raises:
        ConfigError: it is no time that has passed.
    """
    from sageserve.base.units import MINUTE
    from sageserve.cli.durations import time_of

    if last is None:
        return None
    found = time_of("--last", last)
    if found < MINUTE:
        raise ConfigError(f"--last {last} is less than a minute", hint="what a fleet did is kept by the minute: --last 24h")
    return found


def refuse_last(last: str | None) -> None:
    """Runs are whole.

    Raises:
        ConfigError: `--last` was given.
    """
    if last is not None:
        raise ConfigError("--last is for state folders of live fleets", hint="leave it out: a run is shown whole")
