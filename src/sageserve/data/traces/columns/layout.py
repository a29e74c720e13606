"""Which column of a file means what: the names it has, matched to a format, to usual names and to what the user says.

Every name ends as a field or in `unused`. Reads no file and converts no value. Read next: `formats.py`, `convert.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sageserve.base.errors import TraceError
from sageserve.data.traces.columns.fields import (
    COLUMN_OPTIONS,
    FIELDS,
    LIMIT_KEYS,
    NUMBERS_ONLY,
    Clock,
    Field,
    Format,
    clock_of,
    key_of,
    rank,
)
from sageserve.data.traces.columns.formats import FORMATS, GENERIC

NEEDED: Final[tuple[Field, ...]] = ("prompt", "output")
_MISSING: Final[Mapping[Field, tuple[str, str]]] = {
    "prompt": ("how long prompts are", "prompt_tokens=NAME"),
    "output": ("how long answers are", "output_tokens=NAME"),
}
_TEXT_SHOWN: Final = 40  # characters of a name or an example
_NAMES_SHOWN: Final = 15
_ADDED: Final = frozenset({"inputtokens", "uncachedinputtokens"})
"""Names of prompt tokens beside which cache reads and writes are counted apart, as Anthropic does."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field stands: a column, and the keys that lead into its cells where these are JSON objects."""

    name: str
    path: tuple[str, ...] = ()

    def text(self) -> str:
        """As a user would write it."""
        return ".".join((self.name, *self.path))


@dataclass(frozen=True, slots=True)
class Unused:
    """A column that means nothing here, and what it looks like."""

    name: str
    example: str


@dataclass(frozen=True, slots=True)
class FileColumns:
    """What a file's columns mean.

    Args:
        format: that it was recognised as.
        columns: field -> where it stands.
        clocks: of the fields that are times.
        named: fields whose place or unit the user gave, so that no better one is looked for.
        unused: all other columns.
    """

    format: Format
    columns: Mapping[Field, Place]
    clocks: Mapping[Field, Clock]
    named: frozenset[Field] = frozenset()
    unused: tuple[Unused, ...] = ()


class ColumnNames:
    """The names of a file's columns and what stands below them.

    Args:
        names: in the file's order.
        examples: a text per name; may be missing.
        cells_may_nest: cells may hold JSON objects, into which names with points lead.
    """

    def __init__(self, names: Sequence[str], examples: Mapping[str, str], *, cells_may_nest: bool = False) -> None:
        self.names = names
        self.examples = examples
        self._cells_may_nest = cells_may_nest
        self._real: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        for name in reversed(names):  # of equal ones the first is found
            self._real[name.strip().lower().removeprefix("\ufeff")] = name
            self._keys[_path_key(name)] = name

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def find(self, wanted: str, *, exact: bool = False) -> Place | None:
        """The column of this name: written alike, or of the same words, or the first part of a path into cells."""
        lowered = wanted.strip().lower()
        name = self._real.get(lowered) or (None if exact else self._keys.get(_path_key(wanted)))
        if name is not None:
            return Place(name)
        parts = wanted.strip().split(".")
        for cut in range(len(parts) - 1, 0, -1):
            head = self._real.get(".".join(parts[:cut]).lower())
            if head is not None and self._cells_may_nest and self.examples.get(head, "").lstrip()[:1] in {"{", ""}:
                return Place(head, tuple(parts[cut:]))
        return None

    def usual(self, wanted: Field) -> Place | None:
        """The column whose name, or the last part of it, is the best of a field's usual names."""
        found: list[tuple[bool, int, int, str]] = []
        for place, name in enumerate(self.names):
            for nested, part in ((False, name), (True, name.rpartition(".")[2])):
                good = rank(wanted, part)
                if good is not None and (key_of(part) not in NUMBERS_ONLY or self._fits(wanted, name)):
                    found.append((nested, good, place, name))
                    break
        return Place(min(found)[3]) if found else None

    def _fits(self, wanted: Field, name: str) -> bool:
        """Whether a name that may be a number or a text is what the field needs."""
        number = self.examples.get(name, "0").strip().replace(".", "", 1).isdecimal()
        return number == (wanted != "text")


def match_layout(header: ColumnNames, explicit: Mapping[str, str]) -> FileColumns:
    """What the columns of a file mean.

    Args:
        header: its names.
        explicit: our column names -> the file's, from `parse_columns`; they win over every format, field by field.

    Raises:
        TraceError: an explicit column is not in the file, or nothing says how long prompts or answers are.
    """
    chosen = {COLUMN_OPTIONS[ours][0]: _chosen(header, ours, theirs) for ours, theirs in explicit.items()}
    units = {COLUMN_OPTIONS[ours][0]: COLUMN_OPTIONS[ours][1] for ours in explicit}
    for known in FORMATS:
        own = _own_columns(header, known)
        if _recognised(header, known, own, chosen):
            return _complete(header, known, own | chosen, units)
    return _complete(header, GENERIC, chosen, units)


def known_names(explicit: Mapping[str, str]) -> frozenset[str]:
    """Keys of every name that a format or the user gives; a reader may drop what is neither one of them nor usual."""
    names = [name for each in FORMATS for options in each.columns.values() for name in options]
    return frozenset(_path_key(name) for name in (*names, *explicit.values()))


def _path_key(name: str) -> str:
    return ".".join(key_of(part) for part in name.split("."))


def is_known(name: str, known: frozenset[str]) -> bool:
    """Whether a dotted name is one of `known_names`."""
    return _path_key(name) in known


def _chosen(header: ColumnNames, ours: str, theirs: str) -> Place:
    found = header.find(theirs, exact=True)
    if found is None:
        raise TraceError(
            f"--column {ours}={theirs}: the file has no column {theirs!r}",
            hint=f"its columns are {listed(header.names)}",
        )
    return found


def listed(names: Sequence[str]) -> str:
    """Names for people: the first of them, cut where they are long."""
    shown = ", ".join(name.strip()[:_TEXT_SHOWN] or "(no name)" for name in names[:_NAMES_SHOWN])
    return shown + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")


def _own_columns(header: ColumnNames, known: Format) -> dict[Field, Place]:
    found: dict[Field, Place] = {}
    for part, options in known.columns.items():
        place = next((place for name in options if (place := header.find(name)) is not None), None)
        if place is not None:
            found[part] = place
    return found


def _recognised(header: ColumnNames, known: Format, own: Mapping[Field, Place], chosen: Mapping[Field, Place]) -> bool:
    """Whether a file is of a format: all that it needs is there or named, and its lengths or signs by their own names."""
    needs = [part for part in ("time", "prompt", "output") if part in known.columns and not (part == "time" and known.timeless)]
    if "prompt" not in known.columns:
        needs += ["text"]
        if header.usual("prompt") is not None:
            return False
    if not all(sign in header for sign in known.signs):
        return False
    if known.name == "mooncake" and "prompt" not in own and "text" in own:
        needs.remove("prompt")
    shows = bool(known.signs) or any(part in own for part in ("prompt", "output", "text"))
    return shows and all(part in own or part in chosen for part in needs)


def _complete(header: ColumnNames, known: Format, columns: Mapping[Field, Place], units: Mapping[Field, Clock]) -> FileColumns:
    """The fields of a format, the usual names for those it does not have, and what is left."""
    found = dict(columns)
    for part in FIELDS:
        if part not in found and (place := header.usual(part)) is not None and place not in found.values():
            found[part] = place
    if "output" not in found and (limit := _limit(header)) is not None:
        found["output"] = limit
    _drop_idle(found, units)
    missing = [part for part in NEEDED if part not in found and not (part == "prompt" and "text" in found)]
    if missing:
        raise _unknown(header, found, missing)
    clocks: dict[Field, Clock] = {}
    for part in ("time", "end", "delay", "deadline"):
        if part in found:
            clocks[part] = units.get(part) or _clock(known, part, found[part].name)
    used = {place.name for place in found.values()}
    unused = [Unused(name.strip(), _example(header.examples.get(name, ""))) for name in header.names if name not in used]
    return FileColumns(known, found, clocks, frozenset(units), tuple(unused))


def _limit(header: ColumnNames) -> Place | None:
    return next((Place(name) for key in LIMIT_KEYS for name in header.names if key_of(name.rpartition(".")[2]) == key), None)


def _drop_idle(found: dict[Field, Place], units: Mapping[Field, Clock]) -> None:
    """Leave out fields that mean something only beside others."""
    if "prompt" in found:
        found.pop("text", None)
    if "count" not in found:
        found.pop("end", None)
    if "parent" not in found or "request" not in found:
        found.pop("request", None)
        found.pop("parent", None)
    if "blocks" not in found:
        found.pop("block", None)
    if "session" not in found and "delay" not in units:
        found.pop("delay", None)  # of a request by itself it is a latency
    prompt = found.get("prompt")
    if prompt is None or key_of(prompt.text().rpartition(".")[2]) not in _ADDED:
        if "cached" not in found and "cache_read" in found and "cache_read" not in units:
            found["cached"] = found["cache_read"]  # beside `prompt_tokens` it is a part of them, as LiteLLM writes it
        for part in ("cache_read", "cache_write"):
            if part not in units:
                found.pop(part, None)
    elif "cached" in found:  # where both are told, the first is a part of the prompt's
        found.pop("cache_read", None)
        found.pop("cache_write", None)


def _clock(known: Format, part: Field, name: str) -> Clock:
    """The unit in a column's name, else the format's."""
    unit = clock_of(name.rpartition(".")[2])[1]
    if unit != "auto":
        return unit
    if part == "delay":
        return known.pause
    return known.clock if part in known.columns else "auto"


def _example(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"


def _unknown(header: ColumnNames, found: Mapping[Field, Place], missing: Sequence[Field]) -> TraceError:
    said = " and ".join(_MISSING[part][0] for part in missing)
    known = "; ".join(f"{part} is {place.text()}" for part, place in found.items() if part in {"time", *NEEDED})
    example = " ".join(f"--column {_MISSING[part][1]}" for part in missing)
    return TraceError(
        f"is of no known format: nothing says {said}\nits columns are {listed(header.names)}" + (f"\n{known}" if known else ""),
        hint=f"name the columns yourself: {example} (dotted where they are nested)\n"
        "what is read, with an example of each: sageserve trace formats",
    )
