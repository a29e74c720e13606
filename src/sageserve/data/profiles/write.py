"""Writes a profile as a YAML file that scenarios and `sageserve profile show` read.

The form is that of `builtin/profiles.yaml`: profiles, by name, with source, fitted range and error. Files appear whole or not
at all. Knows no measurements. Read next: `library.py`, `sim/calibration/`.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from sageserve.base.config import ProfileSettings
from sageserve.base.errors import MeasurementError
from sageserve.data.documents import write_texts

_HEAD = "# Engine profiles made from measurements. docs/reference/engine-model.md has the formula.\n"


def profile_yaml(profiles: Mapping[str, ProfileSettings]) -> str:
    """The text of a file of profiles by name; the same bytes for the same profiles. Settings at their default are left out."""
    values = {name: profile.model_dump(mode="json", exclude_defaults=True) for name, profile in profiles.items()}
    return _HEAD + yaml.safe_dump({"profiles": values}, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def write_profile(path: Path, profiles: Mapping[str, ProfileSettings], *, replace: bool = False) -> None:
    """Write a profile file.

    Args:
        path: of the file.
        profiles: by name, with their sources, ranges and errors.
        replace: replace a file that is there.

    Raises:
        MeasurementError: the file is there already.
        ConfigError: it cannot be written.
    """
    if path.exists() and not replace:
        raise MeasurementError(f"{path} is there already", hint="choose another name with --out, or add --replace")
    write_texts(path.parent, {path.name: profile_yaml(profiles)})
