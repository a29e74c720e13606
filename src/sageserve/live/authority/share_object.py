"""Objects that share requests among regions: where their weights stand, what was found there before us, and what is applied next.

    AIGatewayRoute    spec.rules[].backendRefs[].weight         by the name of a backend
    ModelService      spec.endpoints[].weight and .priority     by a label of an entry's selector, KEY=VALUE

Both have lists that belong to one manager as a whole, so all of the list is applied as it was read, with other weights. A region
without a share has weight 0; a ModelService knows no 0, and has it at the next lower priority, where it is used when nothing else
is healthy. Schemas are written from what their projects publish, and tried on no real server. Pure. Read next: `share_hand.py`.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from sageserve.base.config.clusters import ShareSettings
from sageserve.core.authority.shares import hundredths
from sageserve.live.authority.target_object import EPOCH, ORIGINAL, TargetObject
from sageserve.live.kubernetes.kinds import Path
from sageserve.live.kubernetes.objects import Json, KubeObject

LISTS: Final[Mapping[str, Path]] = {"AIGatewayRoute": ("spec", "rules"), "ModelService": ("spec", "endpoints")}
_USUAL: Final = 1
"""The weight that one has which says none."""
_PRIORITIES: Final = 64


class ShareOriginal(Struct, frozen=True):
    """What was found before us.

    Args:
        manager: whose the list was; empty: nobody's.
        entries: weight and priority by the entry's place in the list, such as `0/1`; null: it said none.
    """

    manager: str
    entries: dict[str, tuple[int | None, int | None]]


@dataclass(frozen=True, slots=True)
class ShareEntry:
    """An entry of the list that stands for a region.

    Args:
        place: indices of it.
        region: which.
        weight, priority: as they stand; None: it says none.
    """

    place: tuple[int, ...]
    region: str
    weight: int | None
    priority: int | None

    @property
    def key(self) -> str:
        """Its place as text."""
        return "/".join(map(str, self.place))


def groups_of(found: KubeObject, settings: ShareSettings) -> list[list[ShareEntry]] | str:
    """Entries of our regions, by what they share: each rule of a route, all of a service. Or why they are not known."""
    every = list(_entries(found, settings))
    groups: dict[tuple[int, ...], list[ShareEntry]] = {}
    for one in every:
        groups.setdefault(one.place[:-1], []).append(one)
    if not groups:
        return f"{settings.kind} {settings.name} has none of {', '.join(settings.backends.values())}"
    for entries in groups.values():
        regions = [one.region for one in entries]
        missing = [settings.backends[region] for region in settings.backends if region not in regions]
        if missing:
            return f"{settings.kind} {settings.name} has no {', '.join(missing)} beside {settings.backends[regions[0]]}"
        if len(set(regions)) < len(regions):
            return f"{settings.kind} {settings.name} has two entries of one region"
    return list(groups.values())


def _entries(found: KubeObject, settings: ShareSettings) -> Iterator[ShareEntry]:
    names = {backend: region for region, backend in settings.backends.items()}
    for i, outer in enumerate(found.parts(*LISTS[settings.kind])):
        if settings.kind == "AIGatewayRoute":
            for j, one in enumerate(outer.parts("backendRefs")):
                if one.text("name") in names:
                    yield ShareEntry((i, j), names[one.text("name")], one.number("weight"), one.number("priority"))
            continue
        labels = {f"{key}={value}" for key, value in outer.labels("selector", "matchLabels").items()}
        for region in (names[one] for one in sorted(labels & names.keys())):
            yield ShareEntry((i,), region, outer.number("weight"), outer.number("priority"))


def shares_now(entries: Sequence[ShareEntry]) -> dict[str, int]:
    """Points of a hundred as they stand: of those at the best priority."""
    best = min(one.priority or 0 for one in entries)
    return hundredths(
        {one.region: 0 if (one.priority or 0) > best else _USUAL if one.weight is None else one.weight for one in entries}
    )


def original_of(found: KubeObject) -> ShareOriginal | None:
    """What was found before us; None: nothing is ours."""
    text = found.annotations.get(ORIGINAL, "")
    try:
        return msgspec.json.decode(text, type=ShareOriginal) if text else None
    except (ValueError, RecursionError):
        return None


def foreign_writer(found: KubeObject, settings: ShareSettings, manager: str) -> str:
    """Who took the list that was ours; empty: nobody did."""
    path = LISTS[settings.kind]
    if original_of(found) is None or manager in (owners := TargetObject(found).owners(path)):
        return ""
    return f"{' and '.join(owners) or 'somebody who owns nothing'} wrote {'.'.join(path)}"


def apply_body(
    found: KubeObject,
    settings: ShareSettings,
    steps: Sequence[tuple[Sequence[ShareEntry], Mapping[str, int]]],
    marks: Mapping[str, str],
    *,
    fresh: bool = False,
) -> tuple[dict[str, Json], bool]:
    """What is applied, and whether the list was not ours before.

    Args:
        found: the object as it was read.
        settings: of it.
        steps: shares of each group.
        marks: annotations besides that about the original.
        fresh: what is there now is the original.
    """
    path = LISTS[settings.kind]
    before = None if fresh else original_of(found)
    groups = [entries for entries, _ in steps]
    original = before or ShareOriginal(
        next(iter(TargetObject(found).owners(path)), ""),
        {one.key: (one.weight, one.priority) for entries in groups for one in entries},
    )
    changed = copy.deepcopy(found.at(*path))
    for entries, shares in steps:
        best = min(one.priority or 0 for one in entries)
        for one in entries:
            _set(_entry(changed, settings, one.place), settings, shares[one.region], best)
    annotations: Json = {**marks, ORIGINAL: msgspec.json.encode(original).decode()}
    about: Json = {
        "uid": found.text("metadata", "uid"),
        "resourceVersion": found.text("metadata", "resourceVersion"),
        "annotations": annotations,
    }
    return {"metadata": about, path[0]: {path[1]: changed}}, before is None


def found_again(found: KubeObject, settings: ShareSettings, original: ShareOriginal) -> Json:
    """The list with weights and priorities as they were before us."""
    changed = copy.deepcopy(found.at(*LISTS[settings.kind]))
    for key, (weight, priority) in original.entries.items():
        entry = _entry(changed, settings, tuple(map(int, key.split("/"))))
        for name, value in (("weight", weight), ("priority", priority)):
            if value is None:
                entry.pop(name, None)
            else:
                entry[name] = value
    return changed


def epoch_of(found: KubeObject) -> int:
    """Of the last write of ours."""
    text = found.annotations.get(EPOCH, "")
    return int(text) if text.isdigit() else 0


def _set(entry: dict[str, Any], settings: ShareSettings, share: int, best: int) -> None:
    if settings.kind == "AIGatewayRoute":
        entry["weight"] = share
        return
    entry["weight"] = max(share, 1)
    entry["priority"] = best if share else min(best + 1, _PRIORITIES - 1)


def _entry(listed: Json, settings: ShareSettings, place: tuple[int, ...]) -> dict[str, Any]:
    assert isinstance(listed, list)
    one = listed[place[0]]
    found = one["backendRefs"][place[1]] if settings.kind == "AIGatewayRoute" else one
    assert isinstance(found, dict)
    return found
