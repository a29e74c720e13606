"""An object given back as it was found: values, owners, annotations.

A field that we alone have is deleted when our apply leaves it out, and an HPA then falls to 1 instance. So its first owner writes
the value that was found, and only then do we leave it out. Where that value stands there already, a write of it would change
nothing and own nothing: there we leave it out first. A field that somebody has taken meanwhile is theirs, and stays.

Replicas stay as many as they are: to go back to what was found at once could end half of a busy fleet. Only whose they are is
given back, and marks of pods are taken away. Read next: `target_object.py`, `drains.py`; tests/live/authority/test_give_back.py.
"""

import copy
from collections.abc import Mapping

from sageserve.live.authority.count_hand import unmark_pods
from sageserve.live.authority.orders import HeldCount
from sageserve.live.authority.target_object import NOBODY, TargetObject, dotted
from sageserve.live.kubernetes.kinds import KINDS, Path
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace, ObjectWriter, WriteMark


async def give_back(writer: ObjectWriter, place: ObjectPlace, manager: str) -> NotWritten | tuple[str, ...]:
    """Give an object back.

    Returns:
        What was given back, a sentence each; nothing: it was not ours. Or why it could not be.
    """
    found = await writer.get(place.kind, place.name, place.namespace)
    if not isinstance(found, KubeObject):
        return NotWritten(found.status, "NotRead", found.detail)
    seen = TargetObject(found)
    original = seen.original()
    if not original:
        return ()
    said, later = [], []
    for name, field in original.items():
        path = tuple(name.split("."))
        if manager not in (owners := seen.owners(path)):
            said.append(f"{name} stays {found.number(*path)}: {' and '.join(owners) or 'somebody else'} has taken it")
            continue
        said.append(f"{name}: {_words(found.number(*path))} -> {_words(field.value)} of {field.manager or 'nobody'}")
        if field.value is None or owners != [manager]:
            continue  # it goes with our apply, or another has it too
        if found.number(*path) == field.value:
            later.append((path, field.value, field.manager))
            continue
        done = await writer.merge(place, _nested(path, field.value), WriteMark(field.manager or NOBODY))
        if isinstance(done, NotWritten):
            return done
    uid: Mapping[str, Json] = {"metadata": {"uid": found.text("metadata", "uid")}}
    required = _required(found, later)
    last = await writer.apply(place, {**uid, **required}, WriteMark(manager))
    if isinstance(last, NotWritten):
        return last
    for path, value, owner in later:
        done = await writer.merge(place, _nested(path, value), WriteMark(owner or NOBODY))
        if isinstance(done, NotWritten):
            return done
    return tuple(said)


def _required(found: KubeObject, later: list[tuple[tuple[str, ...], int, str]]) -> Mapping[str, Json]:
    """A field that an object cannot be without stays ours: an HPA's maximum; its owner shares it at its next apply."""
    for path, value, _ in later:
        if found.kind == "HorizontalPodAutoscaler" and path[-1] == "maxReplicas":
            return _nested(path, value)
    return {}


def _nested(path: tuple[str, ...], value: int) -> Mapping[str, Json]:
    body: Json = value
    for key in reversed(path):
        body = {key: body}
    assert isinstance(body, Mapping)
    return body


def _words(value: int | None) -> str:
    return "nothing" if value is None else str(value)


async def give_back_count(
    writer: ObjectWriter, place: ObjectPlace, manager: str, held: HeldCount | None
) -> NotWritten | tuple[str, ...]:
    """Give the replicas of an object back to whom they belonged, as many as they are.

    Args:
        writer: the cluster.
        place: of the object.
        manager: ours.
        held: what was found; None: they are not ours.

    Returns:
        What was done, a sentence each; nothing: they were not ours. Or why it could not be.
    """
    found = await writer.get(place.kind, place.name, place.namespace)
    if not isinstance(found, KubeObject):
        return NotWritten(found.status, "NotRead", found.detail)
    kind = KINDS[place.kind]
    seen = TargetObject(found, found)
    if (gone := await unmark_pods(writer, place, seen.pod_labels, WriteMark(NOBODY))) is not None:
        return gone
    owners = seen.owners(kind.count)
    if manager not in owners:
        who = " and ".join(owners) or "somebody else"
        return () if held is None else (f"{dotted(kind.count)} stays {seen.count}: {who} has taken it",)
    owner = "" if held is None else held.manager
    metadata: Json = {"resourceVersion": seen.version, "managedFields": handed(found, kind.count, manager, owner)}
    done = await writer.merge(place, {"metadata": metadata}, WriteMark(owner or NOBODY))
    if isinstance(done, NotWritten):
        return done
    said = f"{dotted(kind.count)} stays {seen.count}, and is {owner or 'nobody'}'s again"
    if held is None or held.found == seen.count:
        return (said,)
    command = f"kubectl -n {place.namespace} scale {kind.resource} {place.name} --replicas={held.found}"
    return (f"{said}; {held.found} were found: {command}",)


def handed(found: KubeObject, path: Path, manager: str, owner: str) -> list[Json]:
    """Managed fields with one field of ours made another's: no value changes, so no write of that other could."""
    entries: list[dict[str, Json]] = [dict(copy.deepcopy(one.data)) for one in found.parts("metadata", "managedFields")]
    keys = [f"f:{part}" for part in path]
    mine = [one for one in entries if one.get("manager") == manager and KubeObject(one).at("fieldsV1", *keys) is not None]
    for one in mine:
        one["fieldsV1"] = _without(KubeObject(one).part("fieldsV1").data, keys)
    if owner:
        given: Mapping[str, Json] = {}
        for key in reversed(keys):
            given = {key: given}
        theirs = next((one for one in entries if one.get("manager") == owner and not one.get("subresource")), None)
        if theirs is None:
            about: dict[str, Json] = {key: mine[0].get(key, "") for key in ("apiVersion", "time", "fieldsType")}
            entries.append({"manager": owner, "operation": "Update", **about, "fieldsV1": given})
        else:
            theirs["fieldsV1"] = _with(KubeObject(theirs).part("fieldsV1").data, given)
    return [one for one in entries if one.get("fieldsV1")]


def _without(tree: Mapping[str, Json], keys: list[str]) -> dict[str, Json]:
    """A tree without a leaf, and without what is empty then."""
    head, *rest = keys
    inner = KubeObject(tree).part(head).data
    kept: Mapping[str, Json] = _without(inner, rest) if rest else {}
    found = {key: value for key, value in tree.items() if key != head}
    return found | ({head: kept} if kept else {})


def _with(tree: Mapping[str, Json], more: Mapping[str, Json]) -> dict[str, Json]:
    """Two trees as one."""
    found = dict(tree)
    for key, value in more.items():
        assert isinstance(value, Mapping)
        found[key] = _with(KubeObject(found).part(key).data, value)
    return found
