"""One thing that is wrong with settings, and names that are not defined. Knows no setting. Read next: `checks.py`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sageserve.data.documents import suggest
from sageserve.data.yaml_positions import Keys


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """What is wrong at which keys; `arithmetic` says that every single value is legal."""

    keys: Keys
    text: str
    arithmetic: bool = True
    hint: str = ""


def unknown(keys: Keys, kind: str, names: Iterable[str], known: Iterable[str]) -> Iterator[SettingProblem]:
    """A problem for each name that is not among the known ones."""
    for name in names:
        if name not in (defined := tuple(known)):
            yield SettingProblem((*keys, name), f"{kind} {name!r} is not defined{suggest(name, defined)}", arithmetic=False)
