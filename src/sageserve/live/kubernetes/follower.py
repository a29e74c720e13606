"""Objects of one kind in one namespace, followed: a list, then a watch from it with bookmarks, then a list again.

What was heard last stays while the server is away, answers nonsense or forbids: `trouble` says why, nothing is taken for gone.
A version that is too old (410) is listed anew at once, and every five minutes so is everything. A watch that worked and is cut,
as proxies do, goes on from where it was. Only typed parts of objects are read: there may be thousands. Decides nothing.
Read next: `reader.py`; `fake_api.py`, which answers in tests.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct, field

from sageserve.live.kubernetes.reader import ClusterReader, NotRead

_LOG: Final = logging.getLogger(__name__)
_GONE: Final = 410
_PAGE: Final = 500


class FollowedMeta(Protocol):
    """What of an object's metadata tells it from others."""

    @property
    def name(self) -> str:
        """Its name."""
        ...


class FollowedObject(Protocol):
    """An object as far as its type reads it."""

    @property
    def metadata(self) -> FollowedMeta:
        """Whose it is."""
        ...


Seen = TypeVar("Seen", bound=FollowedObject)


class _ListMeta(Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    next: str = field(default="", name="continue")


class _Page(Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] = field(default_factory=list)


class _Line(Struct, frozen=True):
    """A line of a watch."""

    type: str = ""
    object: msgspec.Raw = msgspec.Raw(b"{}")


class _Versioned(Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()


class _Refused(Struct, frozen=True):
    code: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class FollowTimes:
    """Seconds.

    Args:
        relist: after which everything is listed anew.
        first, most: of the pause after something went wrong, which doubles.
    """

    relist: int = 300
    first: float = 1.0
    most: float = 30.0


class ObjectFollower(Generic[Seen]):
    """Objects that are there, by name.

    Args:
        reader: of the cluster.
        path: of the list, such as /api/v1/namespaces/serving/pods.
        kind: what is read of each.
        changed: called when something may be different.
        labels: a selector, as a query has it; empty: all.
        times: of lists and pauses.
    """

    def __init__(
        self,
        reader: ClusterReader,
        path: str,
        kind: type[Seen],
        changed: Callable[[], None],
        *,
        labels: str = "",
        times: FollowTimes | None = None,
    ) -> None:
        self.objects: dict[str, Seen] = {}
        self.listed = False
        """Whether there was a whole list, ever."""
        self.trouble = "nothing was listed yet"
        """Why what is known may be old; empty: it is not."""
        self._reader, self._path, self._labels = reader, path, labels
        self._changed = changed
        self._times = times or FollowTimes()
        self._decoder = msgspec.json.Decoder(kind)
        self._version = ""
        self._expired = False
        self._pause = self._times.first
        self._heard = self._unread = False  # of this watch: a line was taken in; one was not

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            why = await self._round()
            if why:
                if why != self.trouble:
                    _LOG.warning("%s is not followed, what was known stays: %s", self._path, why)
                    self.trouble = why
                    self._changed()
            elif loop.time() - begun >= self._times.first:
                self._pause = self._times.first
                continue
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, self._times.most) if why else self._times.first

    async def _round(self) -> str:
        """List, and watch until the next list is due; why it came to nothing, or empty."""
        if why := await self._list():
            return why
        loop = asyncio.get_running_loop()
        end = loop.time() + self._times.relist
        while (left := end - loop.time()) > 0:
            begun, version = loop.time(), self._version
            ended = await self._watch(max(1, round(left)))
            if self._expired:
                return ""
            lasted = loop.time() - begun
            if worked := self._heard or lasted > self._pause:
                self._pause = self._times.first
            if isinstance(ended, NotRead) and (not worked or ended.status or self._unread):
                return ended.detail
            if isinstance(ended, NotRead) or (version == self._version and lasted < self._times.first):
                await asyncio.sleep(self._times.first)  # it was cut; or it hangs up at once, and said nothing
        return ""

    async def _list(self) -> str:
        found: dict[str, Seen] = {}
        query = {"limit": str(_PAGE), **({"labelSelector": self._labels} if self._labels else {})}
        while True:
            page = await self._reader.page(self._path, query, _Page)
            if isinstance(page, NotRead):
                return page.detail
            try:
                for one in map(self._decoder.decode, page.items):
                    found[one.metadata.name] = one
            except (ValueError, RecursionError) as error:
                return f"an object of the list cannot be read: {error}"
            if not page.metadata.next:
                break
            query["continue"] = page.metadata.next
        self._version, self._expired = page.metadata.resource_version, False
        self.objects, self.listed, self.trouble = found, True, ""
        self._changed()
        return ""

    async def _watch(self, seconds: int) -> NotRead | None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
            **({"labelSelector": self._labels} if self._labels else {}),
        }
        self._heard = self._unread = False
        ended = await self._reader.follow(self._path, query, self._take_in)
        self._expired = self._expired or (isinstance(ended, NotRead) and ended.status == _GONE)
        return ended

    def _take_in(self, text: bytes) -> str:
        """As `_hear`, and remember how that went."""
        why = self._hear(text)
        self._heard, self._unread = self._heard or not why, bool(why)
        return why

    def _hear(self, text: bytes) -> str:
        """A line of the watch; why no more is wanted, or empty."""
        try:
            line = msgspec.json.decode(text, type=_Line)
            if line.type == "ERROR":
                refused = msgspec.json.decode(line.object, type=_Refused)
                self._expired = refused.code == _GONE
                return refused.message or f"the watch ended with {refused.code}"
            version = msgspec.json.decode(line.object, type=_Versioned).metadata.resource_version
            one = None if line.type == "BOOKMARK" else self._decoder.decode(line.object)
        except (ValueError, RecursionError) as error:
            return f"a line of the watch cannot be read: {error}"
        if one is not None:
            self._take(line.type, one)
        self._version = version or self._version
        return ""

    def _take(self, what: str, one: Seen) -> None:
        if what == "DELETED":
            self.objects.pop(one.metadata.name, None)
        else:
            self.objects[one.metadata.name] = one
        self._changed()
