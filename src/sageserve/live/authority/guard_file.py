"""The guard of a cluster: its owner's word on how far anybody may go, in a file of theirs, whatever our settings say.

    default: {min: 0, max: 8, rung: floor}
    targets:
      serving/llama70: {min: 2, max: 24, rung: bounds, step: 2}

What it does not name, and has no default for, may only be observed. It is read again when it changes; while it cannot be read,
nothing is written. Read next: `hands.py`.
"""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from sageserve.base.config.clusters import RUNGS, Rung
from sageserve.base.config.settings import Settings
from sageserve.base.errors import ConfigError
from sageserve.core.authority.records import GuardRange
from sageserve.data.documents import read_file, suggest

NOTHING: Final = GuardRange(rung="observe")


class GuardEntry(Settings):
    """What may be done to an object."""

    min: int = Field(default=0, ge=0, description="instances, never fewer")
    max: int = Field(ge=0, description="instances, never more")
    rung: Rung = Field(default="bounds", description="how far it may be acted on")
    step: int | None = Field(
        default=None, ge=0, description="most that is added within a minute and taken within five; none: as the settings say"
    )


class GuardSettings(Settings):
    """A guard file."""

    default: GuardEntry | None = Field(default=None, description="of objects that are not named; none: they are only observed")
    targets: dict[str, GuardEntry] = Field(default={}, description="by NAMESPACE/NAME of the object")


class GuardFile:
    """A guard, read again when its file changes.

    Args:
        path: of the file; None: there is no guard.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._guard = GuardSettings()

    def range_of(self, name: str) -> GuardRange:
        """What may be done to an object, NAMESPACE/NAME.

        Raises:
            ConfigError: the file cannot be read, or is no guard.
        """
        if self._path is None:
            return GuardRange()
        self._read(self._path)
        found = self._guard.targets.get(name, self._guard.default)
        return NOTHING if found is None else GuardRange(found.min, found.max, found.rung, found.step)

    def _read(self, path: Path) -> None:
        try:
            about = path.stat()
        except OSError as error:
            raise ConfigError(
                f"the guard {path} cannot be read: {error.strerror}", hint="nothing is written without it"
            ) from None
        if not stat.S_ISREG(about.st_mode):  # a pipe would hold up who reads it
            raise ConfigError(f"the guard {path} is no file", hint="nothing is written without it")
        if (now := (about.st_mtime_ns, about.st_size)) != self._seen:
            self._guard, self._seen = read_guard(path), now


def read_guard(path: Path) -> GuardSettings:
    """One file.

    Raises:
        ConfigError: it cannot be read, or is no guard; with everything that is wrong.
    """
    document = read_file(path)
    wrong = [str(one) for one in document.complaints]
    try:
        guard = GuardSettings.model_validate(document.values)
    except ValidationError as error:
        wrong += _words(error)
        guard = GuardSettings()
    wrong += [f"targets.{name}: min {one.min} > max {one.max}" for name, one in guard.targets.items() if one.min > one.max]
    if wrong:
        raise ConfigError(f"the guard {path}: {'; '.join(wrong)}", hint=f"keys: min, max, rung ({', '.join(RUNGS)}), step")
    return guard


def _words(error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        where = ".".join(str(key) for key in one["loc"])
        if one["type"] == "extra_forbidden":
            known = list(GuardSettings.model_fields if len(one["loc"]) == 1 else GuardEntry.model_fields)
            yield f"{where} is no key{suggest(str(one['loc'][-1]), known)}"
        else:
            yield f"{where}: {one['msg']}"
