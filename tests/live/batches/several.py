"""Several control processes with one batch queue, in virtual time: they are killed, stand still, and are cut off from the store.

Real runners on a real store; the gateway answers by itself. Broken laws are told as they happen:

    begun       a job is begun by a process while another one leads
    changed     something changes in the name of a term that is over
    answered    a line of a batch that is over is not in its files exactly once, or not with the answer that was recorded first
    lost        a batch does not come to its end once all is well again
    two         two processes lead at once by what the store says

Read next: `test_several.py`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from sageserve.base.records import Names
from sageserve.base.units import DAY, SECOND, Micros
from sageserve.live.batches.gateway_lines import GatewayAnswer
from sageserve.live.batches.runner import BatchRunner, Door
from sageserve.live.batches.store_thread import SteadyWall, StoreThread
from sageserve.live.store.interface import Store
from sageserve.live.store.models import Batch, Committed, File, Key, Lease, Result, StoreAway
from sageserve.live.swarm.dice import Dice
from sageserve.live.swarm.virtual_time import VirtualClock, VirtualLoop, VirtualProcess
from tests.core.small import scenario

CHAT: Final = "/v1/chat/completions"
BORN: Final[Micros] = 1_700_000_000 * SECOND
FEED_S: Final = 0.25
_SCENARIO: Final = scenario(live={"jobs": {"in_hand": 8, "ahead": 8}})
_NAMES: Final = Names(tuple(_SCENARIO.models), tuple(_SCENARIO.regions), tuple(_SCENARIO.tiers))
_CHANGES: Final = frozenset(
    ("begin_file", "append", "finish_file", "begin_reading", "hold", "accept", "reject", "expire", "finish", "close_batch")
)


class Watched:
    """A store that tells which epoch changed it."""

    def __init__(self, store: Store, group: "Group", epoch: int | None = None) -> None:
        self._store, self._group, self._epoch = store, group, epoch

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 # whatever the store has
        found = getattr(self._store, name)
        if self._epoch is None or name not in _CHANGES:
            return found

        def change(*args: object) -> object:
            done = found(*args)
            self._group.changes(self._epoch or 0)
            if name == self._group.stops_after:
                self._group.stops_after = ""
                self._group.freeze(next(one for one in self._group.members if one.leads), 15)
            return done

        change.__name__ = name
        return change

    def at(self, epoch: int) -> "Watched":
        return Watched(self._store.at(epoch), self._group, epoch)

    def commit(self, epoch: int, leases: list[Lease], results: list[Result]) -> Committed:
        done = self._store.commit(epoch, leases, results)
        if done.recorded or (leases and not done.superseded):
            self._group.changes(epoch)
        for result in results:
            if result.key in done.recorded:
                self._group.records(result)
        return done


class CutThread(StoreThread):
    """A way to the store that may be cut: half of what is asked then is done all the same."""

    def __init__(self, store: Any, dice: Dice) -> None:  # noqa: ANN401 # a store that is watched
        super().__init__(store)
        self.ways = {"cut": False}  # shared by all terms
        self.dice = dice

    async def call(self, do: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 # as it is
        return await super().call(self._ask, do, args, kwargs)

    def _ask(self, do: Callable[..., Any], args: Any, kwargs: Any) -> Any:  # noqa: ANN401 # likewise
        if not self.ways["cut"]:
            return do(*args, **kwargs)
        if self.dice.chance(0.5):
            do(*args, **kwargs)
        raise StoreAway("cut off")


class Member:
    """One control process's batch queue."""

    def __init__(self, group: "Group", number: int, store: Store) -> None:
        self.group, self.number, self.fed = group, number, True
        self.process = VirtualProcess(f"control {number}")
        self.thread = CutThread(Watched(store, group), group.dice)
        clock = VirtualClock(group.loop)
        time = SteadyWall(group.wall, clock.now)
        door = Door("http://gateway", "", lambda *_: Lines(self))
        self.runner = BatchRunner(self.thread, _SCENARIO, _NAMES, door, time, me=self.process.name)
        self.task = group.loop.start(self.process, self._run())

    async def _run(self) -> None:
        feed = asyncio.create_task(self._feed())
        try:
            await self.runner.run()
        finally:
            feed.cancel()

    async def _feed(self) -> None:
        while True:
            while (heads := self.runner.heads(0)) and self.fed:
                self.runner.launch(0, 1, heads[0].owner)
            await asyncio.sleep(FEED_S)

    @property
    def leads(self) -> bool:
        return bool(self.runner.lead.epoch)

    @property
    def well(self) -> bool:
        return not (self.process.killed or self.process.frozen or self.thread.ways["cut"])


class Lines:
    """The gateway: it answers within three seconds, and says who asked, and how often that line was asked."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def post(self, path: str, body: bytes, fields: str) -> GatewayAnswer:
        group, number = self._member.group, int(json.loads(body)["n"])
        group.begins(self._member)
        group.runs[number] += 1
        answer = json.dumps({"n": number, "by": self._member.number, "run": group.runs[number]}).encode()
        await asyncio.sleep(0.1 + 3 * group.dice.share() ** 2)
        return GatewayAnswer(200, {}, answer)

    def close(self) -> None: ...


class Group:
    """Control processes of one queue.

    Args:
        seed: of everything left to chance.
        stores: one for each process, all of the same data.
    """

    def __init__(self, seed: int, stores: list[Store]) -> None:
        self.loop = VirtualLoop()  # type: ignore[abstract] # what needs sockets is not there
        self.dice = Dice(seed, "several")
        self.broken: list[str] = []
        self.runs: Counter[int] = Counter()
        self.recorded: dict[Key, bytes] = {}
        self.batches: list[tuple[Batch, list[int]]] = []
        self.stops_after = ""  # name of a change after which the leader stands still
        self._lines = 0
        self.stores = stores
        self.members = [Member(self, number, store) for number, store in enumerate(stores)]

    def wall(self) -> Micros:
        return BORN + self.loop.now

    # --- what they tell ---

    def begins(self, member: Member) -> None:
        epoch = self.stores[0].leader().epoch
        if member.runner.lead.epoch != epoch:
            self.broken.append(f"begun: {member.number} of epoch {member.runner.lead.epoch} in {epoch}")

    def changes(self, epoch: int) -> None:
        latest = self.stores[0].leader().epoch
        if epoch != latest:
            self.broken.append(f"changed: by epoch {epoch} in {latest}")

    def records(self, result: Result) -> None:
        if result.key in self.recorded:
            self.broken.append(f"answered: {result.key} was recorded twice")
        self.recorded.setdefault(result.key, result.body)

    # --- what happens to them ---

    def submit(self, lines: int) -> Batch:
        """A batch comes in at any of them."""
        numbers = list(range(self._lines, self._lines + lines))
        self._lines += lines
        store, now, name = self.dice.pick(self.stores), self.wall(), f"{len(self.batches)}"
        body = {"model": _NAMES.models[0], "messages": []}
        text = [{"custom_id": f"c{n}", "method": "POST", "url": CHAT, "body": {**body, "n": n}} for n in numbers]
        data = "\n".join(map(json.dumps, text)).encode()
        store.begin_file(File(f"file-{name}", "me", "in.jsonl", "batch", now, None))
        store.append(f"file-{name}", 0, data)
        store.finish_file(f"file-{name}", len(data))
        made = store.add_batch(Batch(f"batch_{name}", "me", CHAT, f"file-{name}", "24h", None, 3600, now, now + DAY))
        self.batches.append((made, numbers))
        return made

    def kill(self, member: Member) -> None:
        if member.process.killed:
            return
        member.process.killed = True
        self.loop.tell(None, self.dice.between(1, 12) * SECOND, self._restart, member.number)

    def _restart(self, number: int) -> None:
        self.members[number] = Member(self, number, self.stores[number])

    def stop(self, member: Member) -> None:
        """It is asked to end."""
        self.loop.tell(member.process, 0, member.task.cancel)
        self.loop.tell(None, 3 * SECOND, self.kill, member)

    def freeze(self, member: Member, seconds: int) -> None:
        member.process.frozen = True
        self.loop.tell(None, seconds * SECOND, self.loop.thaw, member.process)

    def cut(self, member: Member, seconds: int) -> None:
        member.thread.ways["cut"] = True
        self.loop.tell(None, seconds * SECOND, member.thread.ways.update, {"cut": False})

    def play(self, seconds: float) -> None:
        self.loop.run_until(self.loop.now + round(seconds * SECOND))

    def story(self, seconds: int, calm: int) -> None:
        """Whatever may happen, and then all is well again."""
        self.play(1)
        self.submit(60)
        for second in range(seconds):
            well = [one for one in self.members if one.well]
            if well and self.dice.chance(0.2):
                one = self.dice.pick([*well, *(each for each in well if each.leads)])
                long = self.dice.between(1, 30)
                deeds: list[Callable[[], None]] = [partial(self.kill, one), partial(self.stop, one)]
                deeds += [partial(deed, one, long) for deed in (self.freeze, self.freeze, self.cut)]
                self.dice.pick(deeds)()
            if second % 10 == 0:
                self.submit(self.dice.between(1, 40))
            if second == seconds // 2:
                self.stores[0].cancel(self.batches[-1][0].number, self.wall())
            self.play(1)
        self.play(calm)
        self.end()

    def end(self) -> None:
        """Look at what is in the files."""
        for batch, numbers in self.batches:
            found = self.stores[0].batch("me", batch.id)
            if found.state not in {"completed", "cancelled"}:
                self.broken.append(f"lost: {batch.id} is {found.state}, {found.done} of {found.total} done")
                continue
            output, error = self._read(found.output_file), self._read(found.error_file)
            for k, n in enumerate(numbers):
                told = [lines[f"c{n}"] for lines in (output, error) if f"c{n}" in lines]
                said = self.recorded.get((batch.number, k + 1))
                if found.total and len(told) != 1:
                    self.broken.append(f"answered: line c{n} of {batch.id} is there {len(told)} times")
                elif said is not None and output.get(f"c{n}") != json.loads(said):
                    self.broken.append(f"answered: line c{n} of {batch.id} is {output.get(f'c{n}')}, recorded was {said!r}")
        self.broken += [f"lost: {fault}" for fault in self.loop.faults]

    def _read(self, file: str | None) -> Mapping[str, object]:
        """Answers by custom id; of a file in which one is twice, or that is not whole, nothing."""
        data, number = b"", 0
        while file is not None and (piece := self.stores[0].piece(file, number)) is not None:
            data, number = data + piece, number + 1
        lines = [json.loads(text) for text in data.splitlines()]
        found = {one["custom_id"]: one["response"] and one["response"]["body"] for one in lines}
        whole = file is None or self.stores[0].file("me", file).size == len(data)
        return found if whole and len(found) == len(lines) else {}
