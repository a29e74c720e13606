"""A machine that is short of disk, memory or processes: services come back when there are some again, and the end comes.

Children of this very process, so that a test can say when the system refuses.
Read next: `src/sageserve/live/supervisor/children.py`.
"""

import asyncio
import errno
import os
import shutil
from asyncio.subprocess import Process as Handle
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.live.supervisor import children as module
from sageserve.live.supervisor.children import Children
from sageserve.live.supervisor.logs import Logs
from sageserve.live.supervisor.messages import Begin, Life, Process, Restart, SupervisorError
from tests.live.supervisor.supervising import SLEEPER, client, kill, order, soon, supervisor

QUICK = Restart(first=SECOND // 100, most=SECOND // 20, calm=MINUTE)
PATH = {"PATH": os.environ["PATH"]}  # noqa: TID251 # children need to find the interpreter


class Scarce(Logs):
    """Logs whose disk is full now and then."""

    full = False
    refused = 0

    def open(self, name: str) -> int:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().open(name)


def play(folder: Path, story: Callable[[Children, Scarce, list[Process]], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        logs, seen = Scarce(folder / "logs"), list[Process]()
        children = Children(logs, PATH, seen.append)
        try:
            await story(children, logs, seen)
        finally:
            await asyncio.wait_for(children.end_all(2 * SECOND), 60)

    asyncio.run(run())


def test_a_service_comes_back_when_there_is_room_again(tmp_path: Path) -> None:
    async def story(children: Children, logs: Scarce, seen: list[Process]) -> None:
        await children.begin(order("service", restart=QUICK))
        logs.full = True
        kill(children.listing()[0].pid)
        await soon(lambda: logs.refused >= 3)
        assert [(one.life, one.runs) for one in children.listing()] == [(Life.RESTING, 1)]
        logs.full = False
        await soon(lambda: children.listing()[0].life is Life.RUNNING)
        assert children.listing()[0].runs == 2

    play(tmp_path, story)


def test_it_can_be_ended_while_there_is_no_room(tmp_path: Path) -> None:
    async def story(children: Children, logs: Scarce, seen: list[Process]) -> None:
        await children.begin(order("service", restart=QUICK))
        logs.full = True
        kill(children.listing()[0].pid)
        await soon(lambda: logs.refused >= 1)
        await asyncio.wait_for(children.end("service", SECOND), 60)
        assert seen[-1].life is Life.ENDED

    play(tmp_path, story)


def test_a_first_start_that_is_refused_leaves_no_name_behind(tmp_path: Path) -> None:
    async def story(children: Children, logs: Scarce, seen: list[Process]) -> None:
        logs.full = True
        with pytest.raises(OSError, match="No space"):
            await children.begin(order("service", restart=QUICK))
        logs.full = False
        with pytest.raises(ValueError, match="null"):
            await children.begin(order("nul", (*SLEEPER, "\0")))
        assert children.listing() == ()

    play(tmp_path, story)


def test_whatever_ends_a_life_whoever_waits_for_it_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(children: Children, logs: Scarce, seen: list[Process]) -> None:
        await children.begin(order("service", restart=QUICK))
        pid = children.listing()[0].pid
        monkeypatch.setattr(children, "_warn", lambda _: 1 // 0)  # a fault of ours
        kill(pid)
        await asyncio.wait_for(children.end("service", SECOND), 60)
        assert seen[-1].life is Life.ENDED
        monkeypatch.undo()

    play(tmp_path, story)


def test_a_warden_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truly, refused = asyncio.create_subprocess_exec, [0]

    async def refuse(*argv: str, **how: Any) -> Handle:  # noqa: ANN401 # as the function it stands for
        if "watch" in argv and refused[0] < 2:
            refused[0] += 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return await truly(*argv, **how)

    monkeypatch.setattr(module, "_WARDEN_AGAIN_S", 0.01)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)

    async def story(children: Children, logs: Scarce, seen: list[Process]) -> None:
        await children.begin(order("child"))
        await soon(lambda: children._warden)
        assert refused == [2]

    play(tmp_path, story)


def test_an_order_that_breaks_is_answered(tmp_path: Path) -> None:
    async def run() -> None:
        async with client(tmp_path) as one:
            with pytest.raises(SupervisorError, match="null"):
                await asyncio.wait_for(one.begin(Begin(0, "nul", (*SLEEPER, "\0"))), 60)
            assert await one.look() == ()

    with supervisor(tmp_path):
        asyncio.run(run())


def test_logs_are_emptied_when_there_is_no_room_for_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(source: Path, copy: Path) -> None:
        copy.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    logs = Logs(tmp_path, limit=10)
    for name in ("a", "b"):
        logs.path(name).write_bytes(b"x" * 20)
    monkeypatch.setattr(shutil, "copyfile", no_room)
    logs.turn_over(["a", "b"])
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {"a.log": 0, "b.log": 0}


def test_logs_that_cannot_be_emptied_do_not_keep_others_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truly = os.truncate

    def refuse(path: Path, size: int) -> None:
        if path.name == "a.log":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        truly(path, size)

    logs = Logs(tmp_path, limit=10)
    for name in ("a", "b"):
        logs.path(name).write_bytes(b"x" * 20)
    monkeypatch.setattr(os, "truncate", refuse)
    logs.turn_over(["a", "b"])
    assert (logs.path("a").stat().st_size, logs.path("b").stat().st_size) == (20, 0)
