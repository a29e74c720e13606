"""Writes a profile as a YAML file that scenarios and `sageserve profile show` read.

The form is that of `builtin/profiles.yaml`: profiles, by name, with source, fitted range and error. Files appear whole or not
at all. Knows no measurements. Read next: `library.py`, `sim/calibration/`.
"""

import os
from pathlib import Path

import yaml

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError

_HEAD = "# An engine profile made by `sageserve calibrate`. docs/reference/engine-model.md has the formula.\n"


def profile_yaml(name: str, profile: ProfileSettings) -> str:
    """The text of a profile file; the same bytes for the same profile. Settings at their default are left out."""
    values = profile.model_dump(mode="json", exclude_defaults=True)
    return _HEAD + yaml.safe_dump(
        {"profiles": {name: values}}, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )


def write_profile(path: Path, name: str, profile: ProfileSettings, *, replace: bool = False) -> None:
    """Write a profile file.

    Args:
        path: of the file.
        name: of the profile in it.
        profile: with its source, range and error.
        replace: replace a file that is there.

    Raises:
        MeasurementError: the file is there already, or cannot be written.
    """
    if path.exists() and not replace:
        raise MeasurementError(f"{path} is there already", hint="choose another name with --out, or add --replace")
    part = path.parent / f".{path.name}.part-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(profile_yaml(name, profile), "utf-8")
        part.replace(path)
    except OSError as error:
        raise MeasurementError(f"{path} cannot be written: {error.strerror or error}", hint="choose another place") from None
    finally:
        part.unlink(missing_ok=True)
