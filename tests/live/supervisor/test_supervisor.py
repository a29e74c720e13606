"""No process is ever left behind, whoever dies; and whoever comes back finds what still runs."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.live.supervisor.client import SupervisorClient
from sageserve.live.supervisor.logs import Logs
from sageserve.live.supervisor.messages import Acknowledged, Begin, Forget, Life, Process, Restart, SupervisorError, frame
from sageserve.live.supervisor.service import SOCKET, keep, only_one
from tests.live.supervisor.supervising import (
    PARENT,
    SLEEPER,
    STUBBORN,
    client,
    first_line,
    kill,
    lives,
    order,
    soon,
    supervisor,
    until,
    zombies,
)

QUICK = Restart(first=SECOND // 20, most=SECOND, calm=MINUTE)


async def pid_of(one: SupervisorClient, name: str) -> int:
    return next(process.pid for process in await one.look() if process.name == name)


def test_kill_9_of_the_supervisor_leaves_nobody(tmp_path: Path) -> None:
    async def start() -> list[int]:
        async with client(tmp_path) as one:
            for name, argv in (("sleeper", SLEEPER), ("stubborn", STUBBORN), ("parent", PARENT)):
                await one.begin(order(name, argv))
            return [process.pid for process in await one.look()]

    with supervisor(tmp_path) as process:
        pids = asyncio.run(start())
        grandchild = int(first_line(tmp_path / "logs" / "parent.log"))
        assert all(map(lives, [*pids, grandchild]))
        kill(process.pid)
        until(lambda: not any(map(lives, [*pids, grandchild])), 2)


def test_a_killed_child_is_told_of_and_buried(tmp_path: Path) -> None:
    async def run(parent: int) -> None:
        seen: list[Process] = []
        async with client(tmp_path, seen.append) as one:
            await one.begin(order("victim", note="row 7"))
            kill(await pid_of(one, "victim"))
            await soon(lambda: seen[-1].life is Life.ENDED)
            assert [process.life for process in seen] == [Life.RUNNING, Life.ENDED]
            assert (seen[-1].code, seen[-1].note) == (-signal.SIGKILL, "row 7")
            assert [process.life for process in await one.look()] == [Life.ENDED]
            await one.forget("victim")
            assert not await one.look()
            assert not zombies(parent)

    with supervisor(tmp_path) as process:
        asyncio.run(run(process.pid))


def test_what_a_dead_child_started_is_killed_with_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with client(tmp_path) as one:
            await one.begin(order("parent", PARENT))
            grandchild = int(await asyncio.to_thread(first_line, tmp_path / "logs" / "parent.log"))
            assert lives(grandchild)
            kill(await pid_of(one, "parent"))
            await soon(lambda: not lives(grandchild))

    with supervisor(tmp_path):
        asyncio.run(run())


def test_stopping_takes_the_grace_and_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        seen: list[Process] = []
        async with client(tmp_path, seen.append) as one:
            await one.begin(order("polite"))
            await one.end("polite", 5 * SECOND)
            assert seen[-1].code == -signal.SIGTERM
            await one.begin(order("stubborn", STUBBORN))
            await asyncio.to_thread(first_line, tmp_path / "logs" / "stubborn.log")
            began = time.perf_counter()
            await one.end("stubborn", SECOND // 2)
            assert 0.5 <= time.perf_counter() - began < 1.5
            assert [(p.life, p.code) for p in seen[-2:]] == [(Life.STOPPING, None), (Life.ENDED, -signal.SIGKILL)]
            await one.end("stubborn", SECOND)  # is gone already: nothing to do

    with supervisor(tmp_path):
        asyncio.run(run())


def test_services_come_back_more_and_more_slowly(tmp_path: Path) -> None:
    async def run() -> None:
        seen: list[Process] = []
        times: list[float] = []

        def note(process: Process) -> None:
            seen.append(process)
            if process.life is Life.RUNNING:
                times.append(time.perf_counter())

        async with client(tmp_path, note) as one:
            await one.begin(order("flaky", ("/bin/false",), restart=QUICK))
            await soon(lambda: len(times) >= 4)
            gaps = [b - a for a, b in pairwise(times)]
            assert gaps[0] >= 0.05
            assert gaps[1] >= 0.1
            assert gaps[2] >= 0.2
            await one.end("flaky", SECOND)
            assert seen[-1].life is Life.ENDED
            runs = seen[-1].runs
            await asyncio.sleep(0.6)
            assert seen[-1].runs == runs

    with supervisor(tmp_path):
        asyncio.run(run())


def test_a_killed_service_runs_again_under_its_name(tmp_path: Path) -> None:
    async def run() -> None:
        back: list[Process] = []

        def note(process: Process) -> None:
            if process.life is Life.RUNNING and process.runs == 2:
                back.append(process)

        async with client(tmp_path, note) as one:
            await soon((tmp_path / "logs" / "control.log").exists)
            before = await pid_of(one, "control")
            kill(before)
            await soon(lambda: back)
            assert back[-1].pid != before
            assert lives(back[-1].pid)
            assert await pid_of(one, "control") == back[-1].pid

    with supervisor(tmp_path, order("control", restart=QUICK)):
        asyncio.run(run())


def test_a_client_that_comes_back_finds_everything(tmp_path: Path) -> None:
    async def first() -> list[Process]:
        async with client(tmp_path) as one:
            await one.begin(order("a", note="alpha"))
            await one.begin(order("b", note="beta"))
            kill(await pid_of(one, "b"))
            return list(await one.look())

    async def second() -> list[Process]:
        async with client(tmp_path) as one:
            return list(await one.look())

    with supervisor(tmp_path):
        before = asyncio.run(first())
        time.sleep(0.2)  # b dies while nobody listens
        after = asyncio.run(second())
        assert [(p.name, p.note, p.pid) for p in after] == [(p.name, p.note, p.pid) for p in before]
        assert [p.life for p in after] == [Life.RUNNING, Life.ENDED]


def test_a_warden_that_is_killed_is_replaced(tmp_path: Path) -> None:
    def wardens(parent: int) -> list[int]:
        command = ["/bin/ps", "-ww", "--ppid", str(parent), "-o", "pid=", "-o", "args="]
        out = subprocess.run(command, capture_output=True, text=True, check=True)
        return [int(line.split()[0]) for line in out.stdout.splitlines() if line.endswith("parent_death.py watch")]

    async def run(parent: int) -> int:
        async with client(tmp_path) as one:
            await one.begin(order("parent", PARENT))
            await soon(lambda: wardens(parent))
            (warden,) = wardens(parent)
            kill(warden)
            await soon(lambda: wardens(parent) not in ([], [warden]))
            assert len(wardens(parent)) == 1
            await asyncio.sleep(0.3)  # it is there, and is being told
        return int(first_line(tmp_path / "logs" / "parent.log"))

    with supervisor(tmp_path) as process:
        grandchild = asyncio.run(run(process.pid))
        assert lives(grandchild)
        kill(process.pid)
        until(lambda: not lives(grandchild), 2)


def test_orders_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with client(tmp_path) as one:
            await one.begin(order("a"))
            for wrong, message in (
                (order("a"), "runs already"),
                (order("../a"), "no name"),
                (order("b", ("no-such-program",)), "no program"),
                (order("b", ()), "no program"),
            ):
                with pytest.raises(SupervisorError, match=message):
                    await one.begin(wrong)
            with pytest.raises(SupervisorError, match="has not ended"):
                await one.forget("a")
            with pytest.raises(SupervisorError, match="no process"):
                await one.end("c", SECOND)
            assert [process.name for process in await one.look()] == ["a"]

    with supervisor(tmp_path):
        asyncio.run(run())


def test_garbage_on_the_socket_harms_only_its_sender(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with client(tmp_path) as one:
            reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
            writer.write(b"\0\0\0\5hello")
            assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
            writer.write(b"\xff\xff\xff\xff")
            assert await reader.read() == b""
            writer.close()
            reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
            writer.write(frame(Forget(0, "~")).replace(b"~", b"\xff"))
            async with asyncio.timeout(30):
                assert await reader.read() == b""
            writer.close()
            assert await one.look() == ()

    with supervisor(tmp_path):
        asyncio.run(run())
    assert "Traceback" not in capfd.readouterr().err


def test_who_answers_in_no_text_is_no_supervisor_of_ours(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(frame(Acknowledged(1, "~", "")).replace(b"~", b"\xff"))

    async def run() -> None:
        async with await asyncio.start_unix_server(answer, tmp_path / SOCKET):
            one = await SupervisorClient(tmp_path / SOCKET, lambda _: None).connect()
            with pytest.raises(SupervisorError, match="gone"):
                await one.look()
            await one.close()

    asyncio.run(run())


def test_one_folder_has_one_supervisor(tmp_path: Path) -> None:
    with supervisor(tmp_path), pytest.raises(SupervisorError, match="runs already"):
        keep(tmp_path, {}, [])


def test_a_client_hears_that_the_supervisor_died(tmp_path: Path) -> None:
    async def run(parent: "subprocess.Popen[bytes]") -> None:
        async with client(tmp_path) as one:
            await one.begin(order("stubborn", STUBBORN))
            await asyncio.to_thread(first_line, tmp_path / "logs" / "stubborn.log")
            ending = asyncio.create_task(one.end("stubborn", 60 * SECOND))
            await asyncio.sleep(0.1)
            parent.kill()
            with pytest.raises(SupervisorError, match="gone"):
                await ending
            assert one.lost.is_set()
            with pytest.raises(SupervisorError, match="gone"):
                await one.look()
        await asyncio.to_thread(parent.wait)
        with pytest.raises(SupervisorError, match="no supervisor answers"):
            await SupervisorClient(tmp_path / SOCKET, lambda _: None).connect()

    with supervisor(tmp_path) as process:
        asyncio.run(run(process))


def test_sigterm_stops_everyone_and_clears_up(tmp_path: Path) -> None:
    with supervisor(tmp_path, order("a"), order("b", restart=QUICK)) as process:
        process.terminate()
        assert process.wait(5) == 0
        assert not (tmp_path / SOCKET).exists()


def test_what_children_see_of_the_world(tmp_path: Path) -> None:
    code = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}), os.environ['COLOUR'], flush=True)"
    colourful = Begin(0, "child", (sys.executable, "-c", code), environment={"COLOUR": "blue"})
    with supervisor(tmp_path, colourful):
        assert first_line(tmp_path / "logs" / "child.log") == "['COLOUR', 'PATH'] blue"
    assert (tmp_path / "logs" / "child.log").stat().st_mode & 0o077 == 0


def test_logs_stay_small_while_they_are_written(tmp_path: Path) -> None:
    logs = Logs(tmp_path / "logs", limit=1000)
    file = logs.open("a")
    os.write(file, b"x" * 1500 + b"\n")
    logs.turn_over(["a", "never written"])
    os.write(file, b"after\n")
    os.close(file)
    assert logs.path("a").read_text() == "after\n"
    assert logs.path("a").with_suffix(".log.1").stat().st_size == 1501
    assert logs.tail("a") == "after"
    assert "no log" in logs.tail("never written")


TALKER = (
    sys.executable,
    "-c",
    """
import os, sys, time
pipe, first = int(os.environ["SAGESERVE_READY"]), os.fork()
os.write(pipe, b".")
for beat in range(1000):
    os.write(pipe, b"+" + os.getpid().to_bytes(4, "big"))
    if beat == 3 and first == 0 and not os.path.exists(sys.argv[1]):
        open(sys.argv[1], "w").close()
        os.kill(os.getpid(), 19)
    if first and os.waitpid(first, os.WNOHANG)[0]:
        first = os.fork()
    time.sleep(0.2)
""",
)


def test_a_process_that_hangs_is_killed_and_counted_and_nobody_beside_it(tmp_path: Path) -> None:
    async def story() -> None:
        heard: list[Process] = []
        talker = Begin(0, "talker", (*TALKER, str(tmp_path / "hung")), restart=Restart(), signs=2, silence=2 * SECOND)
        mute = Begin(0, "mute", SLEEPER, signs=1, silence=2 * SECOND)
        with supervisor(tmp_path, talker, mute):
            async with client(tmp_path, heard.append) as one:
                await soon(lambda: heard)
                found = {process.name: process for process in await one.look()}
                assert (found["talker"].hangs, found["talker"].runs, found["talker"].life) == (1, 1, Life.RUNNING)
                await asyncio.sleep(3.5)
                later = {process.name: process for process in await one.look()}
                assert later == found, "its parent started it again; who never spoke is not listened for"

    asyncio.run(story())


def test_who_looks_at_the_lock_keeps_nobody_from_it(tmp_path: Path) -> None:
    with only_one(tmp_path):
        pass
    held = os.open(tmp_path / "supervisor.lock", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)  # as a command does that asks whether a fleet runs
    looking = threading.Timer(0.03, os.close, (held,))
    looking.start()
    with only_one(tmp_path), pytest.raises(SupervisorError, match="a fleet runs already"), only_one(tmp_path):
        pass
    looking.join()
