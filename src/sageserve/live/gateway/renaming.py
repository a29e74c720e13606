"""A request's body under the name that its engine knows the model by: every other byte stays as it was.

Knows no instance. Read next: `exchange.py`, which asks; `sse.py`, which brings the client's name back.
"""

import re
from itertools import islice
from typing import Final

import msgspec

_MODEL: Final = re.compile(rb'"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_ESCAPED: Final = re.compile(rb"\\u006", re.IGNORECASE)  # a letter from a to o in disguise: perhaps of "model"
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def with_model(body: bytes, name: str) -> bytes:
    """The body, which has a model, with another name for it and no other byte changed.

    Where the bytes alone do not tell which member is meant (it stands in an inner object as well, or its name is written with
    escapes) the outermost object is put together anew from its members, each as it was; of several of one name the last one
    counts, as JSON readers have it. Both ways take time in proportion to the body.
    """
    found = list(islice(_MODEL.finditer(body), 2))
    if len(found) == 1 and not _ESCAPED.search(body):
        start, end = found[0].span(1)
        return body[:start] + msgspec.json.encode(name) + body[end:]
    members = _members(body)
    members["model"] = msgspec.Raw(msgspec.json.encode(name))
    return msgspec.json.encode(members)
