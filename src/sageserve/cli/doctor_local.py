"""`sageserve doctor --local`: is the fleet of this machine set up as the security page says?

Finds the folder and its settings; must not judge. Read next: `live/doctor/local_checks.py`, `doctor.py`, which shows the answer.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sageserve.base.errors import ConfigError

if TYPE_CHECKING:
    from sageserve.live.doctor.checks import CheckResult


def examine_local(
    scenario: str | None, overrides: Sequence[str], folder: Path, head: str
) -> "tuple[tuple[CheckResult, ...], str]":
    """What came of the checks, and what they were made of.

    Args:
        scenario: settings that are to be used there; None: those that are in force, or were last.
        overrides: laid over them.
        folder: of state.
        head: hash that the audit log had; empty: none was kept.

    Raises:
        ConfigError: there is no such folder.
    """
    from sageserve.data.scenarios.load import load_scenario
    from sageserve.live.doctor.local_checks import LocalFacts, examine_folder

    settings = folder / "scenario.yaml"
    if not folder.is_dir() or (scenario is None and not settings.is_file()):
        raise ConfigError(f"no fleet was ever started in {folder}", hint="--state names another folder")
    found = load_scenario(scenario if scenario is not None else settings, overrides=overrides)
    uid = os.geteuid() or folder.stat().st_uid  # root looks at a fleet of another user
    return examine_folder(LocalFacts(folder, found, uid, time.time_ns() // 1000, head)), str(folder)
