"""One object that shares requests among regions: what is seen of it becomes a step of its ladder, the step a write.

By server-side apply, bound to the version that was read, like every other write here. Given back as it was found, without the
list ever being gone. Read next: `share_object.py`; `core/authority/shares.py`; `hands.py`, which goes round.
"""

from collections.abc import Mapping
from typing import Final

from sageserve.base.config.clusters import ShareSettings
from sageserve.base.units import SECOND
from sageserve.core.authority.records import Withheld
from sageserve.core.authority.shares import ShareLadder, ShareStep
from sageserve.live.authority.give_back import handed
from sageserve.live.authority.object_hand import HandTools, ObjectHand
from sageserve.live.authority.share_object import (
    LISTS,
    apply_body,
    epoch_of,
    foreign_writer,
    found_again,
    groups_of,
    original_of,
    shares_now,
)
from sageserve.live.authority.target_object import DECISION, EPOCH, NOBODY, ORIGINAL, TargetObject, dotted
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.reader import NotRead
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace, ObjectWriter, WriteMark


class ShareHand(ObjectHand):
    """One object.

    Args:
        name: in the settings.
        settings: of it.
        tools: to work with.
    """

    def __init__(self, name: str, settings: ShareSettings, tools: HandTools) -> None:
        self.settings = settings
        self.ladder: Final = ShareLadder(settings.authority, tools.now())
        super().__init__(name, "live.shares", settings, self.ladder, tools)
        self.step = ShareStep(withheld=Withheld.NO_LEASE)
        self._dry: ShareStep | None = None

    async def act(self, found: KubeObject | NotRead, wanted: Mapping[str, int] | None, *, frozen: bool) -> None:
        """Look, decide, and write what is decided.

        Args:
            found: the object as it was read.
            wanted: shares of regions that are open; None: nothing is known.
            frozen: by a person, or a window of the settings.
        """
        tools = self._tools
        if isinstance(found, NotRead):
            self.trouble = f"it cannot be read: {found.detail}"
            return
        tools.keeper.elector.saw_epoch(epoch_of(found))
        who = foreign_writer(found, self.settings, tools.manager)
        self._again &= bool(who)
        if who and not self._again:
            self._demote_for(who)
        groups = groups_of(found, self.settings)
        if isinstance(groups, str):
            self.trouble = groups
            return
        leased = tools.keeper.elector.may_write(tools.now())
        steps = [self.ladder.decide(tools.now(), shares_now(entries), wanted, frozen=frozen, leased=leased) for entries in groups]
        self.step = next((one for one in steps if one.shares is not None), steps[0])
        if self.step.shares is None:
            self.trouble = "" if self.ladder.demoted is None else self.trouble
            return
        marks = {EPOCH: str(tools.keeper.elector.epoch), DECISION: f"{self.settings.model}@{tools.wall() // SECOND}"}
        given = [
            (entries, shares_now(entries) if step.shares is None else step.shares)
            for entries, step in zip(groups, steps, strict=True)
        ]
        body, new = apply_body(found, self.settings, given, marks, fresh=self._again)
        force = self.settings.take_over and new
        mark = WriteMark(tools.manager, marks[DECISION], tools.dry_run)
        done = await tools.writer.apply(self.place, body, mark, force=force)
        if isinstance(done, NotWritten):
            self._refused(done, taken=not new)
            return
        self.trouble = ""
        self._came_through(self.step)

    def _came_through(self, step: ShareStep) -> None:
        tools = self._tools
        facts: dict[str, str | int] = {"target": self.name, "object": f"{self.settings.kind} {self.settings.name}"}
        facts |= step.shares or {}
        if tools.dry_run:
            if step != self._dry:
                self._dry = step
                tools.told("dry-run", facts)
            return
        self._again = False
        self.ladder.wrote(tools.now())
        tools.told("shares", facts | {"withheld": step.withheld.value, "epoch": tools.keeper.elector.epoch})

    def note(self) -> str:
        """What a person should know of it, in a sentence; empty: nothing."""
        if observed := self._only_observed():
            return observed
        if self.trouble:
            return f"{self.name} was not written: {self.trouble}."
        if self.step.withheld is Withheld.GUARD:
            return f"{self.name} is not written: the cluster's guard says {self.ladder.guard}, and shares need full."
        return ""


async def give_back_shares(
    writer: ObjectWriter, settings: ShareSettings, place: ObjectPlace, manager: str
) -> NotWritten | tuple[str, ...]:
    """Give an object back as it was found.

    Returns:
        What was given back, a sentence each; nothing: it was not ours. Or why it could not be.
    """
    found = await writer.get(place.kind, place.name, place.namespace)
    if not isinstance(found, KubeObject):
        return NotWritten(found.status, "NotRead", found.detail)
    path = LISTS[settings.kind]
    if (original := original_of(found)) is None:
        return ()
    owners = TargetObject(found).owners(path)
    if manager not in owners:  # only what we wrote beside it is ours
        uid: Mapping[str, Json] = {"metadata": {"uid": found.text("metadata", "uid")}}
        gone = await writer.apply(place, uid, WriteMark(manager))
        said = f"{dotted(path)} stays: {' and '.join(owners) or 'somebody else'} has taken it"
        return gone if isinstance(gone, NotWritten) else (said,)
    owner = original.manager or NOBODY
    about: Json = {
        "resourceVersion": found.text("metadata", "resourceVersion"),
        "annotations": dict.fromkeys((ORIGINAL, EPOCH, DECISION)),
    }
    again = found_again(found, settings, original)
    done = await writer.merge(place, {"metadata": about, path[0]: {path[1]: again}}, WriteMark(owner))
    if isinstance(done, NotWritten):
        return done
    if manager in TargetObject(done).owners(
        path
    ):  # the weights were those already, and a write that changes nothing owns nothing
        fields: Json = {
            "resourceVersion": done.text("metadata", "resourceVersion"),
            "managedFields": handed(done, path, manager, owner),
        }
        done = await writer.merge(place, {"metadata": fields}, WriteMark(owner))
        if isinstance(done, NotWritten):
            return done
    return (f"{dotted(path)}: weights are as they were found, and {original.manager or 'nobody'}'s again",)
