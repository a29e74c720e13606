"""An object given back as it was found: values, owners, annotations.

A field that we alone have is deleted when our apply leaves it out, and an HPA then falls to 1 instance. So its first owner writes
the value that was found, and only then do we leave it out. Where that value stands there already, a write of it would change
nothing and own nothing: there we leave it out first. A field that somebody has taken meanwhile is theirs, and stays.
Read next: `target_object.py`; tests/live/authority/test_give_back.py.
"""

from collections.abc import Mapping
from typing import Final

from sageserve.live.authority.target_object import TargetObject
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import ClusterWriter, NotWritten, ObjectPlace, WriteMark

NOBODY: Final = "sageserve-found"
"""Manager of a value that nobody owned."""


async def give_back(writer: ClusterWriter, place: ObjectPlace, manager: str) -> NotWritten | tuple[str, ...]:
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
