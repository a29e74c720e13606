"""Names of a trace meet names of a scenario: `--map`, columns a trace does not have, names nobody knows.

Works on codes and lists of names. Reads no file and draws only from the named streams `assign/<field>`.
Read next: `read.py`, which calls it.
"""

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, TraceError, UnknownName
from sageserve.base.records import Names
from sageserve.base.rng import stream
from sageserve.data.traces.assembly.rows import NamedColumn
from sageserve.data.traces.columns.fields import NAMED, Field

UNNAMED: Final = "-"
"""Stands for all requests where a trace does not say (no scenario was given to fill it in)."""

_CODES_MAX: Final = 256  # codes are uint8
_SHOWN: Final = 8  # unknown names listed one by one
_SAME_TIER: Final = (("iw", "prod", "interactive", "online"), ("niw", "dev", "batch", "offline", "flex"))


@dataclass(frozen=True, slots=True)
class Renaming:
    """One `--map FROM=TO`; `part` is None when it was given without a qualifier."""

    part: Field | None
    old: str
    new: str
    text: str


def parse_maps(options: Sequence[str]) -> tuple[Renaming, ...]:
    """`--map` options: FROM=TO, `*=TO` for all unknown names; `model:`, `tier:` or `region:` may stand before.

    Raises:
        TraceError: no "=" or nothing on one of its sides.
    """
    parsed = []
    for option in options:
        left, _, new = option.rpartition("=")
        part = next((each for each in NAMED if left.startswith(f"{each}:")), None)
        old = left.removeprefix(f"{part}:") if part else left
        if not old or not new:
            raise TraceError(f"--map {option}: write FROM=TO", hint="for example --map m-large=llama2-70b")
        parsed.append(Renaming(part, old, new.strip(), option))
    return tuple(parsed)


def rename(part: Field, named: NamedColumn, maps: Sequence[Renaming]) -> NamedColumn:
    """The column with its names changed as `--map` says, no scenario asked; equal names are joined."""
    table = {each.old: each.new for each in maps if each.part in {part, None} and each.old != "*"}
    rest = next((each.new for each in maps if each.old == "*" and each.part == part), None)
    renamed = [table.get(name, rest if rest is not None else name) for name in named.names]
    names = tuple(dict.fromkeys(renamed))
    codes = np.array([names.index(name) for name in renamed], dtype=np.int32)
    return NamedColumn(codes[named.codes] if len(codes) else named.codes, names)


def fit_names(
    columns: Mapping[Field, NamedColumn], rows: int, scenario: Scenario, maps: Sequence[Renaming]
) -> tuple[dict[Field, NDArray[np.uint8]], Names, list[str]]:
    """Codes into the scenario's names for every named column, and what the user should know about it.

    Args:
        columns: the named columns the file has; those it lacks are filled by `workload.assign`.
        rows: how many requests there are.
        scenario: whose names count.
        maps: from `parse_maps`.

    Raises:
        UnknownName: the file has names that neither the scenario nor a map knows.
        TraceError: a map leads to a name that the scenario does not define.
    """
    known = scenario_names(scenario)
    fields: dict[Field, Sequence[str]] = {"model": known.models, "tier": known.tiers, "region": known.regions}
    _check_targets(maps, fields)
    codes: dict[Field, NDArray[np.uint8]] = {}
    unknown: dict[Field, dict[str, int]] = {}
    notes = []
    for part, names in fields.items():
        named = columns.get(part)
        if named is None:
            codes[part], note = _fill(part, names, rows, scenario, maps)
            notes.append(note)
            continue
        table, lost = _table(part, named, names, maps)
        if lost:
            unknown[part] = lost
        else:
            codes[part] = table[named.codes] if len(table) else np.zeros(rows, dtype=np.uint8)
    if unknown:
        raise _unknown(unknown, fields, scenario)
    notes += _unused(maps, columns)
    return codes, known, notes


def scenario_names(scenario: Scenario) -> Names:
    """The names of a scenario in their order, which is the order of codes.

    Raises:
        ConfigError: more names of one kind than codes.
    """
    names = Names(tuple(scenario.models), tuple(scenario.regions), tuple(scenario.tiers))
    if max(len(names.models), len(names.regions), len(names.tiers)) > _CODES_MAX:
        raise ConfigError(f"a scenario may have at most {_CODES_MAX} models, regions and tiers each", hint="take some out")
    return names


def _check_targets(maps: Sequence[Renaming], fields: Mapping[Field, Sequence[str]]) -> None:
    for each in maps:
        homes = [part for part in NAMED if each.part in {part, None} and each.new in fields[part]]
        if not homes:
            all_names = [name for part in NAMED if each.part in {part, None} for name in fields[part]]
            kind = each.part or "model, tier or region"
            raise UnknownName(
                f"--map {each.text}: the scenario defines no {kind} {each.new!r}",
                hint=f"it defines {', '.join(all_names)}",
            )


def _table(
    part: Field, named: NamedColumn, known: Sequence[str], maps: Sequence[Renaming]
) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Code of the scenario by code of the file, and names (with counts) that have none."""
    here = [each for each in maps if each.part in {part, None} and each.new in known]
    exact = {each.old: each.new for each in here if each.old != "*"}
    rest = next((each.new for each in here if each.old == "*"), None)
    counts = np.bincount(named.codes, minlength=len(named.names))
    table = np.zeros(len(named.names), dtype=np.uint8)
    lost = {}
    for code, name in enumerate(named.names):
        target = exact.get(name, name if name in known else rest)
        if target is not None:
            table[code] = known.index(target)
        elif counts[code]:
            lost[name] = int(counts[code])
    return table, lost


def _fill(
    part: Field, known: Sequence[str], rows: int, scenario: Scenario, maps: Sequence[Renaming]
) -> tuple[NDArray[np.uint8], str]:
    """A column the trace does not have: the target of a `*` map, or seeded shares of `workload.assign`."""
    whole = next((each for each in maps if each.old == "*" and each.part in {part, None} and each.new in known), None)
    if whole is not None or len(known) == 1:
        name = known[0] if whole is None else whole.new
        return np.full(rows, known.index(name), dtype=np.uint8), f"the trace has no {part} column: all are {name}"
    assign = scenario.workload.assign
    given = {"model": assign.model, "tier": assign.tier, "region": assign.region}[part]
    stray = [name for name in given if name not in known]
    if stray:
        raise ConfigError(
            f"workload.assign.{part}.{stray[0]}: the scenario defines no {part} {stray[0]!r}",
            hint=f"it defines {', '.join(known)}",
        )
    weights = np.array([given.get(name, 0.0) if given else 1.0 for name in known], dtype=np.float64)
    if weights.min() < 0 or not weights.sum() > 0:
        raise ConfigError(
            f"workload.assign.{part}: shares must not be negative, and one must be above 0", hint="such as {a: 0.7, b: 0.3}"
        )
    shares = weights / weights.sum()
    draws = stream(scenario.seed, f"assign/{part}").random(rows)
    codes = np.searchsorted(np.cumsum(shares)[:-1], draws, side="right").astype(np.uint8)
    text = ", ".join(f"{name} {value:.0%}" for name, value in zip(known, shares, strict=True) if value > 0)
    how = f"workload.assign.{part}" if given else "equal shares"
    return codes, f"the trace has no {part} column: filled by {how} with seed {scenario.seed} ({text})"


def _unknown(
    unknown: Mapping[Field, Mapping[str, int]], fields: Mapping[Field, Sequence[str]], scenario: Scenario
) -> UnknownName:
    said, known, paste = [], [], []
    for part, lost in unknown.items():
        ranked = sorted(lost.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{name} ({count:,})" for name, count in ranked[:_SHOWN])
        more = f" and {len(ranked) - _SHOWN} more" if len(ranked) > _SHOWN else ""
        said.append(f"{part}s {listed}{more}")
        known.append(f"{part}s: {', '.join(fields[part])}")
        if more:
            paste.append(f"--map {shlex.quote(f'{part}:*={fields[part][0]}')}")
        else:
            guesses = [(name, _guess(part, name, fields[part], scenario)) for name, _ in ranked]
            paste += [f"--map {shlex.quote(f'{name}={target}')}" for name, target in guesses]
    return UnknownName(
        f"the trace names {'; '.join(said)} that scenario {scenario.name} does not define",
        hint=f"the scenario knows {'; '.join(known)}\ncheck the right sides and add: {' '.join(paste)}",
    )


def _guess(part: Field, name: str, known: Sequence[str], scenario: Scenario) -> str:
    """The name the user most likely means; only ever a suggestion."""
    if part == "tier":
        batch = name.lower().startswith(_SAME_TIER[1])
        alike = [tier for tier in known if scenario.tiers[tier].batch == batch]
        return alike[0] if alike else known[0]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return close[0] if close else known[0]


def _unused(maps: Sequence[Renaming], columns: Mapping[Field, NamedColumn]) -> list[str]:
    met = {name for named in columns.values() for name in named.names}
    return [
        f"--map {each.text} changed nothing: the trace has no {each.old!r}"
        for each in maps
        if each.old != "*" and each.old not in met
    ]
