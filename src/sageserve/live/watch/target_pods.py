"""Pods of the targets of one cluster, followed: which there are, how they count, and how long starts take.

What pods a target has, the object says that it names, or the one that this scales; asked again now and then, and known until
another answer comes. While the server is away what was known stays: nothing is taken for gone. Read next: `pod_rows.py`, which
makes rows of them; `live/authority/pods.py` for what counts as what.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sageserve.base.config.clusters import TargetSettings
from sageserve.base.units import SECOND, Micros, show_duration
from sageserve.live.authority.pods import ColdStarts, PodSeen, PodTally, selected, tally
from sageserve.live.authority.target_object import TargetObject
from sageserve.live.kubernetes.follower import FollowTimes, ObjectFollower
from sageserve.live.kubernetes.kinds import BOUNDED, KINDS
from sageserve.live.kubernetes.objects import KubeObject
from sageserve.live.kubernetes.reader import ClusterReader, NotRead
from sageserve.live.kubernetes.writer import path_of

ASK_AGAIN: Final = 300.0  # seconds between two questions which pods a target has
ASK_SOON: Final = 15.0  # the same where it is not known yet


class TargetPods:
    """Pods of the targets of a cluster.

    Args:
        cluster: its name.
        targets: in it, by name.
        reader: of the cluster.
        wall: microseconds since 1970.
        times: of lists and pauses.
    """

    def __init__(
        self,
        cluster: str,
        targets: Mapping[str, TargetSettings],
        reader: ClusterReader,
        wall: Callable[[], Micros],
        times: FollowTimes | None = None,
    ) -> None:
        self.changed: Final = asyncio.Event()
        self._cluster, self._reader, self._wall = cluster, reader, wall
        self._targets: Final = dict(targets)
        self._labels: dict[str, dict[str, str]] = {name: dict(one.selector) for name, one in targets.items() if one.selector}
        self._unknown: dict[str, str] = {}  # by target: why its pods are not known
        self._starts: dict[str, ColdStarts] = {one.pool: ColdStarts() for one in targets.values()}
        spaces = dict.fromkeys(_space(one) for one in targets.values())
        self._followers: Final = {
            space: ObjectFollower(reader, path_of(KINDS["Pod"], space), PodSeen, self.changed.set, times=times)
            for space in spaces
        }

    async def run(self) -> None:
        """Follow until cancelled; then the reader is closed."""
        async with self._reader:
            await asyncio.gather(self._keep_asking(), *(one.run() for one in self._followers.values()))

    def of(self, pool: str) -> list[PodSeen] | None:
        """Pods of a pool that have not ended; None: they are not known."""
        found: list[PodSeen] = []
        for name, one in self._targets.items():
            if one.pool != pool:
                continue
            follower, labels = self._followers[_space(one)], self._labels.get(name)
            if labels is None or not follower.listed:
                return None
            found += [pod for pod in selected(follower.objects.values(), labels) if not pod.ended]
        return found

    def heard_in(self, space: str) -> list[PodSeen] | None:
        """Pods of a namespace as they are now; None: nobody follows them there, or they may be old."""
        one = self._followers.get(space)
        return None if one is None or one.trouble else [*one.objects.values()]

    def follows(self, pool: str) -> bool:
        """Whether a pool's instances are to follow pods."""
        return pool in self._starts

    def tally(self, pool: str) -> PodTally | None:
        """How they count; None: they are not known."""
        pods = self.of(pool)
        return None if pods is None else tally(pods, self._starts[pool], self._wall())

    def starts(self, pool: str) -> ColdStarts:
        """What starts of a pool took, of the pods that are there and of those before."""
        return self._starts[pool]

    def measured(self) -> Iterator[tuple[str, Micros]]:
        """What a start usually takes, by pool, where enough were seen."""
        for pool, starts in self._starts.items():
            starts.see(self.of(pool) or ())
            if (took := starts.quantile(0.5)) is not None:
                yield pool, took

    @property
    def pools(self) -> tuple[str, ...]:
        """Whose instances follow pods."""
        return tuple(self._starts)

    def notes(self, *, acting: bool) -> Iterator[str]:
        """What a person should know, in sentences; where targets are acted on, of those others say who cannot come."""
        for space, one in self._followers.items():
            if one.trouble:
                known = "instances stay as they were" if one.listed else "no instance is known by its pod yet"
                yield f"pods of {space} in {self._cluster} are not followed, {known}: {one.trouble}."
        yield from (f"pods of {name} are not known: {why}." for name, why in self._unknown.items())
        for pool in self._starts:
            told = acting and all(one.authority != "observe" for one in self._targets.values() if one.pool == pool)
            if not told and (found := self.tally(pool)) is not None:
                yield from _of_pool(pool, found, self._starts[pool])

    # --- which pods a target has ---

    async def _keep_asking(self) -> None:
        while True:
            for name, one in self._targets.items():
                if not one.selector:
                    await self._ask(name, one)
            await asyncio.sleep(ASK_SOON if self._unknown else ASK_AGAIN)

    async def _ask(self, name: str, target: TargetSettings) -> None:
        found = await self._labels_of(target)
        if isinstance(found, str):
            if name not in self._labels:
                self._unknown[name] = found
            return
        self._unknown.pop(name, None)
        if self._labels.get(name) != found:
            self._labels[name] = found
            self.changed.set()

    async def _labels_of(self, target: TargetSettings) -> dict[str, str] | str:
        """Labels of its pods, or why they are not known."""
        space, _, name = target.name.partition("/")
        one = await self._reader.get(target.kind, name, space)
        if isinstance(one, NotRead):
            return f"{target.kind} {target.name} cannot be read: {one.detail}"
        scaled: KubeObject = one
        if target.kind in BOUNDED:
            kind, of = one.text("spec", "scaleTargetRef", "kind") or "Deployment", one.text("spec", "scaleTargetRef", "name")
            if kind not in KINDS:
                return f"it scales a {kind}, whose pods are not known; write live.targets: selector"
            read = await self._reader.get(kind, of, space)
            if isinstance(read, NotRead):
                return f"{kind} {space}/{of}, which it scales, cannot be read: {read.detail}"
            scaled = read
        kinded = scaled if scaled.kind else KubeObject({**scaled.data, "kind": target.kind})
        return (
            TargetObject(one, kinded).pod_labels
            or f"{kinded.kind} {kinded.name} has no matchLabels; write live.targets: selector"
        )


def _space(target: TargetSettings) -> str:
    return target.name.partition("/")[0]


def _of_pool(pool: str, found: PodTally, starts: ColdStarts) -> Iterator[str]:
    if found.stuck:
        gated = f", {found.gated} of them held back by a quota" if 0 < found.gated < found.stuck else ""
        yield f"{pool} has {found.stuck} pods that cannot come{gated} ({found.why}): they are no instances."
    if found.late and (usual := starts.quantile(0.95)) is not None:
        took = show_duration(usual // SECOND * SECOND)
        said = f"{pool} has {found.late} pods that have been starting for more than twice what it takes ({took})"
        yield f"{said}: nobody counts on them."
